"""The process that owns the device: ``python -m engine.worker RUN_DIRECTORY [--probe]``.

Started by ``engine.runs.launcher`` in a session of its own with stdio in files. It takes
the run and the device, loads the model, warms the policy up or resumes it, trains, and
tells everything through the store. With ``--probe`` it trains nothing, answers probes and evaluates
until nobody has asked for a while (``engine.service``).
"""

import contextlib
import os
import platform
import signal
import socket
import sys
import threading
import time
import traceback
from contextlib import ExitStack
from importlib.metadata import version
from pathlib import Path

from engine import service
from engine.config import RunConfig
from engine.errors import RunFailedError, UserError
from engine.grace import grace
from engine.policy.quiet import quieten_libraries
from engine.runs import devices, log_file, stage1
from engine.runs.control import ControlServer
from engine.runs.directory import LOCK_PATIENCE_SECONDS, RunDirectory
from engine.runs.disk import Ballast
from engine.runs.home import home
from engine.runs.launcher import PROBE_OPTION, hold_device
from engine.runs.notify import Notifier
from engine.runs.store import EventStore
from engine.secrets import guard_process
from engine.task import Json
from engine.text import one_line
from engine.training.control import Control, StopRequestedError
from engine.training.heartbeat import Heartbeat
from engine.training.watchdog import STACKS, Watchdog, save_stacks

_TOLD = "the worker was told to end"
_RESTARTS = "STONK_HANG_RESTARTS"
"""Variable with the number of times that this process began anew after a hang."""
_MOST_RESTARTS = 3
_LAST_WORDS_SECONDS = 2.0

_LIBRARIES = ("torch", "transformers", "peft", "bitsandbytes", "numpy")


def main(path: Path) -> int:
    """Work on the run at ``path`` until it ends; returns the exit code."""
    run = RunDirectory(path)
    try:
        with run.locked(patience=LOCK_PATIENCE_SECONDS):
            return _work(run)
    except UserError as error:
        print(error, file=sys.stderr, flush=True)
        return error.exit_code
    except OSError as error:
        # Before there is a store to tell it: a folder that became read-only, a full disk.
        print(f"{error.filename or path}: {error.strerror}", file=sys.stderr, flush=True)
        return RunFailedError.exit_code


def _work(run: RunDirectory) -> int:
    """Open the store, do the work, and record how it ended."""
    # A terminal that goes away must not take the run along.
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    run.record_worker()
    ballast = Ballast(home() / "ballast")
    ballast.lay()
    store = EventStore(run.database, ballast=ballast)
    notifier = Notifier(
        run.id, lambda text: store.event("notice", {"level": "warning", "text": text})
    )
    store.listen(notifier.tell)
    # Left last of all: where the disk is full, letting go of socket and store may take for ever.
    until_gone = ExitStack()
    try:
        config = run.config()
        promotion = stage1.verify(run, config)
        if promotion is not None and store.attempt == 1:
            store.event("promotion", promotion)
        store.event("worker", _who(config))
        store.event("state", {"state": "starting", "detail": ""})
        with ExitStack() as stack:
            server = ControlServer(run.socket, store, checks=service.CHECKS)
            stack.callback(server.close)
            hours = config.schedule.max_hours
            deadline = None if hours is None else time.monotonic() + hours * 3600
            control = Control(server.commands, store, deadline)
            heartbeat = Heartbeat()

            def end(*_: object) -> None:
                control.request_stop(_TOLD)
                heartbeat.interrupt(_TOLD)

            signal.signal(signal.SIGTERM, end)
            seconds = config.schedule.grace_seconds
            until_gone.enter_context(grace(seconds, end, lambda: _end_now(run, store, seconds)))
            stack.enter_context(log_file.kept_short(run.log))
            stack.enter_context(hold_device(run, config.model.device))
            stack.enter_context(_watchdog(run, config, store, heartbeat))
            state, reason = _train(run, config, store, control, heartbeat)
        if promotion is not None:
            _export_statistics(run, store)
        store.event("state", {"state": state, "detail": reason})
        return 0
    except (UserError, RunFailedError) as error:
        store.event("state", {"state": "failed", "detail": one_line(str(error), 500)})
        print(error, file=sys.stderr, flush=True)
        return error.exit_code
    except Exception as error:  # noqa: BLE001
        # The last line of defence of a detached process: whoever watches must learn why.
        detail = f"{_in_words(error)}; see {run.log}"
        store.event("state", {"state": "failed", "detail": detail})
        traceback.print_exc()
        return RunFailedError.exit_code
    finally:
        notifier.close()
        store.close()
        until_gone.close()


def _in_words(error: Exception) -> str:
    """What stopped the worker; memory that ran out where nothing can be halved has advice."""
    # Late: torch comes with it.
    from engine.training.guard import is_out_of_memory

    words = one_line(str(error), 300)
    said = f"{type(error).__name__}: {words}" if words else type(error).__name__
    if not is_out_of_memory(error):
        return said
    return (
        f"out of memory ({one_line(said, 120)}); free memory and resume the run, or start one with "
        "a smaller model or a shorter rollout.context"
    )


def _end_now(run: RunDirectory, store: EventStore, seconds: float) -> None:
    """End a worker whose main thread does not; from another thread."""
    with contextlib.suppress(OSError):
        save_stacks(run.path, f"told to end {seconds:g} s ago")

    def tell() -> None:
        detail = f"{_TOLD} and had not within {seconds:g} s, without a last checkpoint"
        store.event("state", {"state": "stopped", "detail": detail})
        store.flush()

    last_words = threading.Thread(target=tell, daemon=True)
    last_words.start()
    last_words.join(_LAST_WORDS_SECONDS)
    os._exit(RunFailedError.exit_code)


def _watchdog(
    run: RunDirectory, config: RunConfig, store: EventStore, heartbeat: Heartbeat
) -> Watchdog:
    """What watches the loop, as the run is configured."""
    restarts = int(os.environ.get(_RESTARTS, "0"))

    def restart() -> None:
        if heartbeat.is_ending:
            # Another program would know nothing of the signal.
            return
        store.flush()
        # The same process goes on as another program: its locks are released, its id stays.
        environment = {**os.environ, _RESTARTS: str(restarts + 1)}
        os.execve(sys.executable, sys.orig_argv, environment)

    may_restart = config.schedule.on_hang == "restart" and restarts < _MOST_RESTARTS
    return Watchdog(
        heartbeat,
        run.path,
        lambda payload: store.event("hang", payload),
        least=config.schedule.hang_seconds,
        restart=restart if may_restart else None,
        # Where the disk is full, whoever writes waits.
        is_excused=lambda: store.shortage is not None,
    )


def _train(
    run: RunDirectory,
    config: RunConfig,
    store: EventStore,
    control: Control,
    heartbeat: Heartbeat,
) -> tuple[str, str]:
    """Load, warm up or resume, train; returns the state in which it ended, and why."""
    if note := devices.others_on(config.model.device):
        store.event("notice", {"level": "warning", "text": note})
    progress = _ProgressEvents(store)
    progress("loading libraries", 0, 0)
    quieten_libraries()
    # Late, so that watchers see the run start before the seconds that these imports take.
    import torch

    from engine.direction_call import DirectionCall
    from engine.policy.adapters import (
        add_adapters,
        freeze_reference,
        read_adapter,
        trainable_parameters,
    )
    from engine.policy.base_model import end_token_ids, fingerprint, load_base_model
    from engine.policy.embedded import default_cache_dir
    from engine.policy.policy import Policy
    from engine.policy.source import ensure_model
    from engine.training import checkpoints, loop, randomness, surroundings
    from engine.training.dry_run import choose_token_budget
    from engine.training.training import Training, make_optimizer
    from engine.training.warmup import warm_up

    randomness.prepare(config)
    task = DirectionCall.from_config(config)
    folder = ensure_model(config.model.id, progress=progress)
    progress("loading the model", 0, 0)
    device = torch.device(config.model.device)
    base, tokenizer = load_base_model(folder, config.model, device)
    num_parameters = base.num_parameters()
    below = read_adapter(run.stage1) if config.stage == "II" else None
    policy = Policy(
        model=add_adapters(base, config.lora, config.seed, below),
        tokenizer=tokenizer,
        end_tokens=end_token_ids(base, tokenizer),
        rollout=config.rollout,
        micro_batch_tokens=config.optimizer.micro_batch_tokens,
    )
    trainable = trainable_parameters(policy.model).values()
    store.event(
        "worker",
        {
            "model": config.model.id,
            "dtype": str(base.dtype).removeprefix("torch."),
            "quantized": getattr(base, "quantization_method", None) is not None,
            "num_parameters": num_parameters,
            "num_trainable": sum(parameter.numel() for parameter in trainable),
            "max_steps": config.max_steps(task.num_training_items),
            "num_training_items": task.num_training_items,
            "num_validation_items": len(task.validation_items(config.schedule.eval_samples)),
            "weights": dict(task.weights),
        },
    )
    training = Training(
        run=run,
        config=config,
        task=task,
        policy=policy,
        optimizer=make_optimizer(policy, config),
        generator=torch.Generator(device).manual_seed(config.seed),
        store=store,
        surroundings=surroundings.of(
            config, base_model=fingerprint(folder), data=task.data_fingerprint
        ),
        heartbeat=heartbeat,
    )
    control.allow_probes(service.make_prober(run, config, policy, store).answer)
    control.allow_evaluations(service.make_evaluator(run, config, policy, store).answer)
    progress("measuring what a pass takes", 0, 0)
    try:
        level, text = choose_token_budget(policy)
        store.event("notice", {"level": level, "text": text})
        name = checkpoints.newest(run, training.warn)
        if name is not None:
            training.resume(name)
            if _RESTARTS in os.environ:
                text = f"began anew after a hang; {STACKS} says where it was"
                store.event("notice", {"level": "warning", "text": text})
        else:
            store.begin_anew()
        if name is None and config.warmup.steps > 0:
            store.event("state", {"state": "warming_up", "detail": ""})
            progress("warm-up", 0, config.warmup.steps)

            def on_step(done: int, total: int, loss: float) -> None:
                progress("warm-up", done, total, loss=loss)
                control.obey("warming_up")

            heartbeat.enter("warm-up")
            was_cached = training.guard.run(
                "warm-up",
                warm_up,
                policy,
                task,
                config,
                base_fingerprint=fingerprint(folder),
                cache=default_cache_dir() / "warmups",
                on_step=on_step,
            )
            text = "warmed up" + (" (taken from an earlier run)" if was_cached else "")
            store.event("notice", {"level": "info", "text": text})
            heartbeat.enter(None)
            freeze_reference(policy.model)
        ending = loop.train(training, control)
    except StopRequestedError as stop:
        return "stopped", f"{stop}, before the first GRPO step"
    return ending.state, ending.reason


def _export_statistics(run: RunDirectory, store: EventStore) -> None:
    """Write what a Stage II run did as files; a full disk does not undo the run."""
    from engine import market_tracker

    store.flush()
    try:
        written = market_tracker.export(run)
    except OSError as error:
        text = f"the market statistics could not be written: {error.strerror}"
        store.event("notice", {"level": "warning", "text": text})
        return
    text = f"wrote {' and '.join(path.name for path in written)}"
    store.event("notice", {"level": "info", "text": text})


class _ProgressEvents:
    """Turn progress calls into events, at most five a second, with an estimate of the rest."""

    def __init__(self, store: EventStore) -> None:
        self._store = store
        self._task = ""
        self._started = self._last = 0.0

    def __call__(self, task: str, done: int, total: int, *, loss: float | None = None) -> None:
        now = time.monotonic()
        if task != self._task:
            self._task, self._started, self._last = task, now, 0.0
        if now - self._last < 0.2 and done < total and loss is None:
            return
        self._last = now
        payload: dict[str, Json] = {"task": task, "done": done, "total": total}
        if 0 < done <= total:
            payload["eta_seconds"] = (now - self._started) / done * (total - done)
        if loss is not None:
            payload["metrics"] = {"loss": loss}
        self._store.event("progress", payload)


def _who(config: RunConfig) -> dict[str, Json]:
    """Facts about this process and machine."""
    return {
        "pid": os.getpid(),
        "host": socket.gethostname(),
        "device": config.model.device,
        "device_name": devices.device_name(config.model.device),
        "versions": {"python": platform.python_version()}
        | {library: version(library) for library in _LIBRARIES},
    }


def _run() -> int:
    guard_process()
    path, options = Path(sys.argv[1]), sys.argv[2:]
    if PROBE_OPTION not in options:
        return main(path)
    return service.main(path)


if __name__ == "__main__":
    sys.exit(_run())

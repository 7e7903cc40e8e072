"""A worker that trains nothing: it loads the base model, answers probes, and ends when idle.

It is started where a probe is asked of a run without a living worker. It holds the run and the
device as training does, and gives both up as soon as somebody wants to train. It writes probes and
their answers into the store and nothing else.
"""

import os
import queue
import signal
import sys
import threading
import time
import traceback
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from engine.config import RunConfig
from engine.errors import RunFailedError, UserError
from engine.policy.quiet import quieten_libraries
from engine.probe import request
from engine.runs import devices
from engine.runs.control import ControlServer
from engine.runs.directory import LOCK_PATIENCE_SECONDS, RunDirectory
from engine.runs.launcher import hold_device
from engine.runs.store import EventStore
from engine.text import one_line

if TYPE_CHECKING:
    from engine.policy.policy import Policy
    from engine.probe.prober import Prober

IDLE_SECONDS = 180.0
"""How long it waits for another probe; ``STONK_PROBE_IDLE_SECONDS`` says otherwise."""
ENDED = "the worker that answers probes had just ended"


def main(path: Path) -> int:
    """Answer probes of the run at ``path`` until nobody has asked for a while; the exit code."""
    run = RunDirectory(path)
    try:
        with run.locked(patience=LOCK_PATIENCE_SECONDS):
            return _serve(run)
    except UserError as error:
        print(error, file=sys.stderr, flush=True)
        return error.exit_code


def make_prober(
    run: RunDirectory, config: RunConfig, policy: "Policy", store: EventStore
) -> "Prober":
    """What answers probes of ``run`` with the base model of ``policy``.

    Raises:
        UserError: the run's reward cannot be had any more.
    """
    from engine.probe.prober import Prober
    from engine.probe.question import DirectionQuestion
    from engine.rewards import choice

    ask = partial(DirectionQuestion, config=config, reward=choice.resolve(config.reward))
    return Prober(run, config, policy, ask, store)


def _serve(run: RunDirectory) -> int:
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    is_ending = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: is_ending.set())
    run.record_prober()
    store = EventStore(run.database, begins_attempt=False)
    server = ControlServer(
        run.socket, store, checks={request.VERB: request.read}, verbs=(request.VERB,)
    )
    ended = ENDED
    try:
        config = run.config()
        device = devices.resolve(config.model.device)
        model = config.model.model_copy(update={"device": device})
        config = config.model_copy(update={"model": model})
        with hold_device(run, device):
            prober = make_prober(run, config, _load(config), store)
            _answer_until_idle(prober, server, store, is_ending)
        return 0
    except (UserError, RunFailedError) as error:
        ended = one_line(str(error), 300)
        print(error, file=sys.stderr, flush=True)
        return error.exit_code
    except Exception as error:  # noqa: BLE001
        # Whoever asked must learn why there is no answer.
        traceback.print_exc()
        ended = f"{type(error).__name__}: {one_line(str(error), 200)}; see {run.log}"
        return RunFailedError.exit_code
    finally:
        server.close(ended)
        store.close()


def _answer_until_idle(
    prober: "Prober", server: ControlServer, store: EventStore, is_ending: threading.Event
) -> None:
    idle = float(os.environ.get("STONK_PROBE_IDLE_SECONDS", IDLE_SECONDS))
    deadline = time.monotonic() + idle
    while not is_ending.is_set() and time.monotonic() < deadline:
        try:
            # A signal ends the wait too, so it is a short one.
            command = server.commands.get(timeout=0.2)
        except queue.Empty:
            continue
        ok, message = prober.answer(command, is_ending.is_set)
        store.answer(command.id, command.verb, ok=ok, message=message)
        deadline = time.monotonic() + idle


def _load(config: RunConfig) -> "Policy":
    """The base model; its adapters never act, since every checkpoint brings its own."""
    quieten_libraries()
    import torch

    from engine.policy.adapters import add_adapters
    from engine.policy.base_model import end_token_ids, load_base_model
    from engine.policy.policy import Policy
    from engine.policy.source import ensure_model

    folder = ensure_model(config.model.id, progress=lambda phase, done, total: None)
    base, tokenizer = load_base_model(folder, config.model, torch.device(config.model.device))
    return Policy(
        model=add_adapters(base, config.lora, config.seed),
        tokenizer=tokenizer,
        end_tokens=end_token_ids(base, tokenizer),
        rollout=config.rollout,
        micro_batch_tokens=config.optimizer.micro_batch_tokens,
    )

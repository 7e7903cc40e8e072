"""A worker that trains nothing: it loads the base model, answers what is asked, and ends when idle.

It is started where a probe or an evaluation is asked of a run without a living worker. It holds the
run and the device as training does, and gives both up as soon as somebody wants to train. It writes
what was asked and answered into the store and nothing else.
"""

import os
import queue
import signal
import sys
import threading
import time
import traceback
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from engine.config import RunConfig
from engine.errors import RunFailedError, UserError
from engine.evaluation import request as evaluation_request
from engine.evaluation.hosting import Host
from engine.policy.quiet import quieten_libraries
from engine.probe import request as probe_request
from engine.runs import control, devices
from engine.runs.control import Check, Command, ControlServer
from engine.runs.directory import LOCK_PATIENCE_SECONDS, RunDirectory
from engine.runs.launcher import hold_device
from engine.runs.store import EventStore
from engine.text import one_line
from engine.training.control import answer_interrupts

if TYPE_CHECKING:
    from engine.evaluation.evaluator import Evaluator
    from engine.policy.policy import Policy
    from engine.probe.prober import Prober

CHECKS: Mapping[str, Check] = {
    probe_request.VERB: probe_request.read,
    evaluation_request.VERB: evaluation_request.read,
}
"""What looks at the payloads of the verbs that are answered with the base model."""

IDLE_SECONDS = 180.0
"""How long it waits for another command; ``STONK_PROBE_IDLE_SECONDS`` says otherwise."""
ENDED = "the worker that answers probes and evaluates had just ended"
_STOP = "stop"


def main(path: Path) -> int:
    """Answer what is asked of the run at ``path`` until nobody has for a while; the exit code."""
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


def make_evaluator(
    run: RunDirectory, config: RunConfig, policy: "Policy", store: EventStore
) -> "Evaluator":
    """What evaluates checkpoints for ``run`` with the base model of ``policy``.

    Raises:
        UserError: the run's reward cannot be had any more.
    """
    from engine.evaluation.evaluator import Evaluator
    from engine.rewards import choice

    return Evaluator(run, config, policy, choice.resolve(config.reward), store)


def _serve(run: RunDirectory) -> int:
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    is_ending = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: is_ending.set())
    run.record_prober()
    store = EventStore(run.database, begins_attempt=False)
    server = ControlServer(
        run.socket, store, checks=CHECKS, verbs=(*CHECKS, evaluation_request.INTERRUPT, _STOP)
    )
    ended = ENDED
    try:
        config = run.config()
        device = devices.resolve(config.model.device)
        model = config.model.model_copy(update={"device": device})
        config = config.model_copy(update={"model": model})
        with hold_device(run, device):
            policy = _load(config)
            prober = make_prober(run, config, policy, store)
            evaluator = make_evaluator(run, config, policy, store)
            _Service(prober, evaluator, server, store, is_ending).serve()
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


class _Service:
    """Takes commands one after the other until nobody has asked for a while."""

    def __init__(
        self,
        prober: "Prober",
        evaluator: "Evaluator",
        server: ControlServer,
        store: EventStore,
        is_ending: threading.Event,
    ) -> None:
        self._prober = prober
        self._evaluator = evaluator
        self._commands = server.commands
        self._store = store
        self._ending = is_ending

    def serve(self) -> None:
        idle = float(os.environ.get("STONK_PROBE_IDLE_SECONDS", IDLE_SECONDS))
        deadline = time.monotonic() + idle
        while not self._ending.is_set() and time.monotonic() < deadline:
            try:
                # A signal ends the wait too, so it is a short one.
                command = self._commands.get(timeout=0.2)
            except queue.Empty:
                continue
            self._act(command)
            deadline = time.monotonic() + idle

    def _act(self, command: Command) -> None:
        match command.verb:
            case probe_request.VERB:
                ok, message = self._prober.answer(command, self._is_ending)
            case evaluation_request.VERB:
                ok, message = self._evaluator.answer(
                    command, Host(self._is_interrupted, self._answer_probes)
                )
                answer_interrupts(self._commands, self._store)
            case evaluation_request.INTERRUPT:
                ok, message = False, "nothing is being evaluated"
            case _:
                self._ending.set()
                ok, message = True, "the worker that trains nothing ends"
        self._store.answer(command.id, command.verb, ok=ok, message=message)

    def _answer_probes(self) -> None:
        while (command := control.take(self._commands, probe_request.VERB)) is not None:
            self._act(command)

    def _is_interrupted(self) -> bool:
        return self._is_ending() or control.is_waiting(self._commands, evaluation_request.INTERRUPT)

    def _is_ending(self) -> bool:
        return self._ending.is_set() or control.is_waiting(self._commands, _STOP)


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

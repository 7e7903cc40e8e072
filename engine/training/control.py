"""How commands reach the training loop: between steps, each answered by an event."""

import queue
import time
from collections.abc import Callable

from engine.errors import RunFailedError, UserError
from engine.evaluation.hosting import Host
from engine.runs import control
from engine.runs.control import Command
from engine.runs.store import EventStore
from engine.task import Json

AnswerProbe = Callable[[Command, Callable[[], bool]], tuple[bool, str]]
"""Answers a probe: whether that worked, and one line. Its second argument tells whether the worker
is to end, so that a long answer need not be waited for."""
AnswerEvaluation = Callable[[Command, Host], tuple[bool, str]]
"""Evaluates: whether that worked, and one line."""


class StopRequestedError(Exception):
    """Someone asked the run to stop; raised between two steps."""


class Control:
    """Obey queued commands whenever the loop has nothing half-done."""

    def __init__(
        self, commands: "queue.Queue[Command]", store: EventStore, deadline: float | None = None
    ) -> None:
        """``deadline``: monotonic time at which the run stops by itself."""
        self._commands = commands
        self._store = store
        self._deadline = deadline
        self._stop_reason: str | None = None
        self._pause_reason = ""
        self._checkpoint: Callable[[], str] | None = None
        self._change: Callable[[Command], str] | None = None
        self._answer_probe: AnswerProbe | None = None
        self._evaluate: AnswerEvaluation | None = None
        self._still_here: Callable[[], None] = lambda: None

    def show_life(self, still_here: Callable[[], None]) -> None:
        """From now on ``still_here`` is called while a pause lasts or a probe is answered."""
        self._still_here = still_here

    def allow_probes(self, answer: AnswerProbe) -> None:
        """From now on probes are answered: the model is in memory."""
        self._answer_probe = answer

    def allow_evaluations(self, evaluate: AnswerEvaluation) -> None:
        """From now on checkpoints are evaluated, while training waits."""
        self._evaluate = evaluate

    def allow_checkpoints(self, save: Callable[[], str]) -> None:
        """From now on ``checkpoint`` saves through ``save``, which returns the name."""
        self._checkpoint = save

    def allow_changes(self, change: Callable[[Command], str]) -> None:
        """From now on ``set`` changes settings through ``change``, which says what came of it.

        It raises UserError, and has changed nothing, where it cannot be done.
        """
        self._change = change

    def request_stop(self, reason: str) -> None:
        """Stop at the next chance; safe to call from a signal handler."""
        self._stop_reason = reason

    def obey(
        self,
        running_state: str,
        *,
        pause_because: str | None = None,
        until: Callable[[], bool] | None = None,
    ) -> None:
        """Act on all waiting commands; stays inside while paused.

        Args:
            running_state: the state to announce again after a pause.
            pause_because: pause first, for this reason, until someone says otherwise.
            until: ends that pause by itself, unless somebody has asked for one meanwhile.

        Raises:
            StopRequestedError: by command, signal or deadline.
        """
        paused = pause_because is not None
        self._pause_reason = pause_because or ""
        if pause_because is not None:
            self._store.event("state", {"state": "paused", "detail": pause_because})
        while True:
            self._still_here()
            if self._stop_reason is None and self._is_late():
                self._stop_reason = "the time limit was reached"
            if self._stop_reason is not None:
                raise StopRequestedError(self._stop_reason)
            try:
                # A signal or the deadline can end a pause too, so the wait is a short one.
                command = self._commands.get(timeout=0.2) if paused else self._commands.get_nowait()
            except queue.Empty:
                if not paused:
                    return
                if until is not None and until():
                    self._store.event("state", {"state": running_state, "detail": ""})
                    return
                continue
            if command.verb == "pause":
                until = None
            paused = self._act(command, paused, running_state)

    def obey_probes(self) -> None:
        """Answer the waiting probes alone, inside of work that nothing else may interrupt."""
        while (command := control.take(self._commands, "probe")) is not None:
            self._act(command, False, "")

    def _is_ending(self) -> bool:
        self._still_here()
        is_told = control.is_waiting(self._commands, "stop")
        return is_told or self._stop_reason is not None or self._is_late()

    def _is_interrupted(self) -> bool:
        """Whether somebody wants what a long evaluation keeps from happening."""
        return self._is_ending() or control.is_waiting(self._commands, "pause", "interrupt")

    def _act(self, command: Command, paused: bool, running_state: str) -> bool:
        """Carry out one command; returns whether the run is paused afterwards."""
        ok, message = True, ""
        match command.verb:
            case "pause":
                message = "paused already" if paused else "paused"
                if not paused:
                    self._store.event("state", {"state": "paused", "detail": ""})
                paused = True
            case "resume":
                ok, message = paused, "goes on" if paused else "the run is not paused"
                if paused:
                    self._store.event("state", {"state": running_state, "detail": ""})
                paused = False
            case "checkpoint" if self._checkpoint is None:
                ok, message = False, "nothing to save before the first GRPO step"
            case "checkpoint":
                ok, message = self._save()
            case "set":
                ok, message = self._set(command)
            case "probe" if self._answer_probe is None:
                ok, message = False, "the model is not in memory yet"
            case "probe":
                assert self._answer_probe is not None
                ok, message = self._answer_probe(command, self._is_ending)
            case "evaluate" if self._evaluate is None:
                ok, message = False, "the model is not in memory yet"
            case "evaluate":
                ok, message = self._evaluated(command, "paused" if paused else running_state)
            case "interrupt":
                ok, message = False, "nothing is being evaluated"
            case "stop":
                self._stop_reason, message = "stopped by command", "stopping after this step"
        self._store.answer(command.id, command.verb, ok=ok, message=message)
        return paused

    def _evaluated(self, command: Command, state: str) -> tuple[bool, str]:
        """Evaluate while training waits, which is said, with how long it will take."""
        assert self._evaluate is not None
        task = "evaluating, and training waits"

        def tell(done: int, total: int, eta: float | None) -> None:
            payload: dict[str, Json] = {"task": task, "done": done, "total": total}
            if eta is not None:
                payload["eta_seconds"] = eta
            self._store.event("progress", payload)

        self._store.event("state", {"state": "evaluating", "detail": task})
        told = self._evaluate(command, Host(self._is_interrupted, self.obey_probes, tell))
        answer_interrupts(self._commands, self._store)
        detail = self._pause_reason if state == "paused" else ""
        self._store.event("state", {"state": state, "detail": detail})
        return told

    def _save(self) -> tuple[bool, str]:
        assert self._checkpoint is not None
        try:
            return True, f"saved {self._checkpoint()}"
        except RunFailedError as error:
            # Training itself is sound: it meets this again when a checkpoint is due.
            return False, str(error)

    def _set(self, command: Command) -> tuple[bool, str]:
        if self._change is None:
            return False, "settings can change from the first GRPO step on"
        try:
            return True, self._change(command)
        except UserError as error:
            return False, str(error)

    def _is_late(self) -> bool:
        return self._deadline is not None and time.monotonic() > self._deadline


def answer_interrupts(commands: "queue.Queue[Command]", store: EventStore) -> None:
    """Say to whoever wanted the evaluation ended that it has."""
    while (command := control.take(commands, "interrupt")) is not None:
        store.answer(command.id, command.verb, ok=True, message="the evaluation has ended")

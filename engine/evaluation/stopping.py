"""Interrupt an evaluation, from outside of the worker that is at it. Light: no torch."""

from engine.errors import UserError
from engine.runs import control
from engine.runs.directory import RunDirectory
from engine.runs.reader import StoreReader

_STATES = 50


def stop(run: RunDirectory) -> None:
    """End the evaluation that the worker of ``run`` is at; what was predicted stays.

    One that trains gives an evaluation up for a pause, and goes on training when it is told to,
    unless it was paused before. One that trains nothing ends.

    Raises:
        UserError: no worker listens.
    """
    if run.worker() is None:
        control.send(run, "stop")
        return
    was_paused = _state_before(run) == "paused"
    control.send(run, "pause")
    if not was_paused:
        control.send(run, "resume")


def _state_before(run: RunDirectory) -> str:
    """What the worker did before it began to evaluate."""
    try:
        reader = StoreReader(run.database)
    except FileNotFoundError as error:
        raise UserError(f"run {run.id} has nothing to stop") from error
    try:
        _, last = reader.span()
        states = reader.of_kind("state", 1, last, _STATES, newest=True)
    finally:
        reader.close()
    names = (str(event.payload.get("state")) for event in states)
    return next((name for name in names if name != "evaluating"), "")

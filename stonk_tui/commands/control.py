"""``pause``, ``resume``, ``checkpoint``, ``stop``: send a command and print what became of it."""

import time

from engine.errors import RunFailedError
from engine.runs import control, directory
from engine.runs.directory import RunDirectory
from engine.runs.reader import StoreReader
from engine.runs.status import read_history
from engine.text import one_line
from stonk_tui.commands.output import note, say

_POLL_SECONDS = 0.1
_PAGE = 5000
_WORDS = 600
"""Characters of how a run ended."""


def send_and_wait(verb: str, name: str | None, timeout: float) -> None:
    """Send ``verb`` and wait for the event that answers it; after ``stop``, for the end as well.

    Raises:
        UserError: no such run, or no worker listens.
        RunFailedError: the worker did not do it, ended, or has not answered in time.
    """
    run = directory.find(name)
    deadline = time.monotonic() + timeout
    identifier = control.send(run, verb)
    if verb == "stop" and run.worker() is not None:
        note(f"run {run.id} stops after the current step and keeps a checkpoint")
    ok, message = answer(run, verb, identifier, deadline)
    if not ok:
        raise RunFailedError(f"run {run.id} did not {verb}: {message}")
    if verb == "stop":
        # So that `stop` followed by `train --resume` finds the run and its device free.
        while _is_alive(run) and time.monotonic() < deadline:
            time.sleep(_POLL_SECONDS)
    say(f"{run.id}: {message}")
    if verb == "stop" and (detail := read_history(run).detail) not in ("", "stopped by command"):
        note(one_line(detail, _WORDS))


def answer(run: RunDirectory, verb: str, identifier: str, deadline: float) -> tuple[bool, str]:
    """(ok, message) of the event that answers the command ``identifier``; waits for it.

    Raises:
        RunFailedError: the worker ended, or has not answered in time.
    """
    reader = StoreReader(run.database)
    seen = 0
    try:
        while True:
            # Asked before reading: what a worker wrote before it ended is then read below.
            alive = _is_alive(run)
            while events := reader.events(seen, _PAGE):
                seen = events[-1].seq
                for event in events:
                    if event.kind == "command" and event.payload["id"] == identifier:
                        return event.payload["ok"], one_line(event.payload["message"])
            if not alive:
                raise RunFailedError(f"the worker of {run.id} ended before it could {verb}")
            if time.monotonic() > deadline:
                raise RunFailedError(
                    f"{verb} is accepted, but not done within --timeout; the worker acts "
                    f"between two steps (see `stonk-tui status {run.id}`)"
                )
            time.sleep(_POLL_SECONDS)
    finally:
        reader.close()


def _is_alive(run: RunDirectory) -> bool:
    """Whether a worker lives, one that trains nothing too."""
    return run.worker() is not None or run.prober() is not None

"""Ask the worker of a run for an answer, and start one for it where none lives.

Light: the process that asks needs neither torch nor market data.
"""

import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from engine.errors import RunFailedError, UserError
from engine.runs import control, launcher
from engine.runs.directory import RunDirectory
from engine.runs.reader import Event, StoreReader
from engine.text import one_line

Drafts = Callable[[Mapping[str, Any]], object]
"""Told how far the answer is, whenever that changes."""

_POLL_SECONDS = 0.1
_PAGE = 5000
_SOCKET_SECONDS = 60.0


def ask(
    run: RunDirectory,
    verb: str,
    payload: Mapping[str, Any],
    *,
    is_answer: Callable[[Event], bool],
    timeout: float,
    drafts: Drafts,
    is_cancelled: Callable[[], bool],
) -> Mapping[str, Any]:
    """The answer of the run's worker: the payload of the event that answers the command.

    Args:
        is_answer: which of the events that carry the command's id it is.
        timeout: seconds to wait for it.
        drafts: called a few times a second while the worker is at it.
        is_cancelled: ends the waiting; what was asked is answered all the same.

    Raises:
        UserError: the request is refused, or no worker can be started.
        RunFailedError: it was not answered, or not in time.
    """
    deadline = time.monotonic() + timeout
    seen = _last_seq(run)
    identifier = _send(run, verb, payload, deadline)
    reader = StoreReader(run.database)
    answer: Mapping[str, Any] | None = None
    shown: Mapping[str, Any] | None = None
    try:
        while True:
            # Asked before reading: what a worker wrote before it ended is then read below.
            is_alive = run.worker() is not None or run.prober() is not None
            while events := reader.events(seen, _PAGE):
                seen = events[-1].seq
                for event in events:
                    if event.payload.get("id") != identifier:
                        continue
                    if event.kind == "command" and answer is not None:
                        return answer
                    if event.kind == "command":
                        raise RunFailedError(one_line(str(event.payload["message"]), 400))
                    if is_answer(event):
                        answer = event.payload
            if not is_alive:
                raise RunFailedError(f"the worker of {run.id} ended first; see {run.log}")
            if time.monotonic() > deadline or is_cancelled():
                raise RunFailedError(
                    "asked, but not answered yet: a worker in training answers between two steps"
                )
            draft = reader.draft(identifier)
            if draft is not None and draft != shown:
                shown = draft
                drafts(draft)
            time.sleep(_POLL_SECONDS)
    finally:
        reader.close()


def run_program(module: str, run: RunDirectory, text: str, *, what: str, timeout: float) -> str:
    """What ``python -m module RUN_DIRECTORY`` prints for ``text`` on its standard input.

    Market data takes seconds to load, which is no work for the process that draws a cockpit.

    Args:
        what: what it makes, for a message.

    Raises:
        UserError: it refused; one line.
        RunFailedError: it failed.
    """
    root = str(Path(__file__).resolve().parents[2])
    made = subprocess.run(
        [sys.executable, "-m", module, str(run.path)],
        input=text,
        capture_output=True,
        text=True,
        cwd=root,
        timeout=timeout,
        check=False,
    )
    lines = made.stderr.strip().splitlines()
    if made.returncode == UserError.exit_code:
        raise UserError(one_line(lines[-1] if lines else f"{what} cannot be made", 400))
    if made.returncode:
        raise RunFailedError(
            f"{what} could not be made: {one_line(lines[-1] if lines else '', 200)}"
        )
    return made.stdout


def _send(run: RunDirectory, verb: str, payload: Mapping[str, Any], deadline: float) -> str:
    """Send once somebody listens; a worker that is started for it does after a moment."""
    latest = min(deadline, time.monotonic() + _SOCKET_SECONDS)
    is_started = False
    while True:
        # One that waited for questions may end at any moment, so it is looked for every time.
        if run.worker() is None and run.prober() is None:
            if is_started:
                raise RunFailedError(
                    f"the worker for {verb} of {run.id} ended: {_last_line(run.log)}"
                )
            launcher.launch_prober(run, verb)
            is_started = True
        try:
            return control.send(run, verb, payload)
        except control.NobodyListensError:
            if time.monotonic() > latest:
                raise
        time.sleep(_POLL_SECONDS)


def _last_seq(run: RunDirectory) -> int:
    try:
        reader = StoreReader(run.database)
    except FileNotFoundError:
        return 0
    try:
        return reader.last_seq()
    finally:
        reader.close()


def _last_line(log: Path) -> str:
    try:
        lines = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
    except OSError:
        lines = []
    return one_line(lines[-1], 300) if lines else f"see {log}"

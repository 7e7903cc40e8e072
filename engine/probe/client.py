"""Ask the worker of a run, and start one for it where none lives.

Light: the process that asks needs neither torch nor market data.
"""

import json
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from engine.errors import RunFailedError, UserError
from engine.probe.request import VERB, Described, ProbeRequest, Wanted
from engine.runs import checkpoint_names, control, launcher
from engine.runs.directory import RunDirectory
from engine.runs.reader import StoreReader
from engine.text import one_line

Drafts = Callable[[Mapping[str, Any]], object]
"""Told how far the answer is: ``checkpoint``, ``done`` of ``total`` samples, ``texts`` of some."""

_POLL_SECONDS = 0.1
_PAGE = 5000
_SOCKET_SECONDS = 60.0
_EXAMPLE_SECONDS = 600.0


def describe(run: RunDirectory, wanted: Wanted) -> Described:
    """The example that is meant, made by a process of its own.

    Raises:
        UserError: there is no such example; one line.
        RunFailedError: the process failed.
    """
    root = str(Path(__file__).resolve().parents[2])
    made = subprocess.run(
        [sys.executable, "-m", "engine.probe.examples", str(run.path)],
        input=json.dumps(asdict(wanted)),
        capture_output=True,
        text=True,
        cwd=root,
        timeout=_EXAMPLE_SECONDS,
        check=False,
    )
    lines = made.stderr.strip().splitlines()
    if made.returncode == UserError.exit_code:
        raise UserError(one_line(lines[-1] if lines else "there is no such example", 400))
    if made.returncode:
        raise RunFailedError(
            f"the example could not be made: {one_line(lines[-1] if lines else '', 200)}"
        )
    return Described.model_validate_json(made.stdout)


def pinned(text: str, run: RunDirectory) -> str:
    """The checkpoint that ``text`` means today, by a name that means the same tomorrow.

    Raises:
        UserError: no such run or checkpoint.
    """
    named = checkpoint_names.resolve(text, run)
    if named.run is None:
        return str(named.folder)
    return named.name if named.run == run else f"{named.run.id}:{named.name}"


def ask(
    run: RunDirectory,
    request: ProbeRequest,
    *,
    timeout: float,
    drafts: Drafts = lambda draft: None,
    is_cancelled: Callable[[], bool] = lambda: False,
) -> Mapping[str, Any]:
    """The answer of the run's worker: the payload of the event ``probe``.

    Args:
        timeout: seconds to wait for it.
        drafts: called a few times a second while samples come in.
        is_cancelled: ends the waiting; what was asked is answered all the same.

    Raises:
        UserError: the request is refused, or no worker can be started.
        RunFailedError: it was not answered, or not in time.
    """
    deadline = time.monotonic() + timeout
    payload = request.payload()
    if run.worker() is None and run.prober() is None:
        launcher.launch_prober(run)
    seen = _last_seq(run)
    identifier = _send(run, payload, deadline)
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
                    if event.kind == "probe":
                        answer = event.payload
                    elif event.kind == "command" and answer is not None:
                        return answer
                    elif event.kind == "command":
                        raise RunFailedError(one_line(str(event.payload["message"]), 400))
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


def _send(run: RunDirectory, payload: Mapping[str, Any], deadline: float) -> str:
    """Send once somebody listens; a worker that has just been started does after a moment."""
    latest = min(deadline, time.monotonic() + _SOCKET_SECONDS)
    while True:
        try:
            return control.send(run, VERB, payload)
        except control.NobodyListensError as error:
            is_alive = run.worker() is not None or run.prober() is not None
            if not is_alive:
                raise RunFailedError(
                    f"the worker for probes of {run.id} ended: {_last_line(run.log)}"
                ) from error
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

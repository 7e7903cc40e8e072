"""SIGKILL to the worker of a tiny run at a random moment, and another one to the next worker.

A thread sends commands all the while, and a reader takes down every row that it sees durable. Then
a worker finishes the run, and everything is compared: the rows, the commands, the checkpoints with
the log, what a window shows that was open all the while with what a new one shows, and every loss
and the final weights with those of a run that nobody interrupted.
"""

import contextlib
import random
import time
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from bench.fault_rows import checks, tiny_runs
from bench.fault_rows.row import Outcome, Row
from bench.fault_rows.sender import Sender
from bench.fault_rows.tiny_runs import Watcher
from engine.runs.directory import RunDirectory
from engine.runs.history import History
from engine.runs.reader import StoreReader

_ATTEMPTS = 4
"""A worker that is quicker than the first one was may be through before its moment."""
_SCHEDULE = {"max_steps": 16, "save_every": 5, "eval_every": 8, "eval_samples": 4}


def trial(number: int, folder: Path) -> Outcome:
    """Kill one worker, or two, one after the other; the last one finishes."""
    for attempt in range(_ATTEMPTS):
        outcome = _trial(number, folder / str(attempt), 2.0**-attempt)
        if outcome.problem or outcome.figures["kills"]:
            return outcome
    return Outcome("no worker could be killed before its run was finished")


def _trial(number: int, folder: Path, share: float) -> Outcome:
    """The same, at moments in the first ``share`` of a worker's life."""
    expected, lifetime = _uninterrupted()
    rng = random.Random(number)
    with tiny_runs.new_run(folder, schedule=_SCHEDULE) as run:
        watcher, sender = Watcher(run), Sender(run, number)
        sender.start()
        try:
            moments = [rng.uniform(0, lifetime * share) for _ in range(1 + number % 2)]
            kills = sum(_kill_after(run, watcher, moment) for moment in moments)
            problem = _finish(run, watcher)
        finally:
            sender.end()
            watcher.close()
        problem = problem or checks.problem_of(run, watcher.rows, sender.sent)
        if not problem and checks.results(run) != expected:
            problem = "losses or final weights are not those of the uninterrupted run"
        if not problem and watcher.history != _afresh(run):
            problem = "a window that was open all the while shows something else than a new one"
        acknowledged = sum(sent.is_acknowledged for sent in sender.sent)
        figures = {"kills": kills, "events seen": len(watcher.rows), "commands": acknowledged}
        return Outcome(problem, figures)


@cache
def _uninterrupted() -> tuple[Any, float]:
    """What a run that nobody interrupts comes to, and how many seconds its worker lives."""
    with TemporaryDirectory() as folder, tiny_runs.new_run(Path(folder), schedule=_SCHEDULE) as run:
        began = time.monotonic()
        tiny_runs.workers().start(run)
        tiny_runs.until(lambda: run.worker() is None)
        return checks.results(run), time.monotonic() - began


def _afresh(run: RunDirectory) -> History:
    """What a window shows that is opened now."""
    with contextlib.closing(StoreReader(run.database)) as reader:
        history = History()
        history.apply(reader.events(limit=10**6))
    return history


def _kill_after(run: RunDirectory, watcher: Watcher, seconds: float) -> bool:
    """Start a worker, watch it, and kill it; False where it had ended before its moment."""
    tiny_runs.workers().start(run)
    end = time.monotonic() + seconds
    process = run.worker()
    while process is not None and time.monotonic() < end:
        watcher.look()
        time.sleep(tiny_runs.POLL_SECONDS)
    was_alive = run.worker() is not None
    tiny_runs.kill(run)
    return was_alive


def _finish(run: RunDirectory, watcher: Watcher) -> str:
    """Let a last worker finish the run; what came instead, if anything."""
    if tiny_runs.state(run) != "finished":
        tiny_runs.workers().start(run)
    with contextlib.suppress(TimeoutError):
        tiny_runs.until(lambda: not watcher.look() and run.worker() is None)
    state = tiny_runs.state(run)
    return "" if state == "finished" else f"the run is {state} after the last worker"


ROWS = (
    Row(
        "kill-worker",
        "no durable event and no acknowledged command lost, none twice, no hole in the sequence,"
        " integrity check ok, losses and final weights those of an uninterrupted run",
        trials=200,
        short=4,
        trial=trial,
    ),
)

"""SIGKILL to a cockpit that watches a tiny run, at times with a command on its way.

Every third cockpit is killed within moments of asking for a checkpoint, every third of asking for a
pause; the worker must have got all of the command or nothing. The others tell whether training felt
it: the time from each step to the next in the twelve steps after the kill, against the twelve
before, and those against the twelve before them, which tells how much that differs by itself.
"""

import random
import time
from collections.abc import Mapping, Sequence
from itertools import pairwise
from math import floor, sqrt
from pathlib import Path
from statistics import median

from bench.fault_rows import tiny_runs
from bench.fault_rows.row import Outcome, Row
from bench.fault_rows.terminals import terminal
from engine.runs import control
from engine.runs.directory import RunDirectory
from engine.runs.reader import StoreReader

_KEYS = ("", "c", "p")
_VERBS = {"c": "checkpoint", "p": "pause"}
_WINDOW = 12
"""Steps that are compared."""
_SHARE_TO_KILL = 0.4
"""Longest time from a key to the kill, as a share of what this machine took to attach."""
_QUIET_SECONDS = 0.3
_NOISE = 1.05
_SCHEDULE = {"max_steps": 10**6, "save_every": 10**6, "eval_every": 10**6, "eval_samples": 4}


def trial(number: int, folder: Path) -> Outcome:
    """Attach a cockpit to a run in training, and kill it."""
    rng = random.Random(number)
    key = _KEYS[number % len(_KEYS)]
    with tiny_runs.new_run(folder, schedule=_SCHEDULE) as run:
        pid = tiny_runs.workers().start(run)
        tiny_runs.until(lambda: tiny_runs.state(run) == "training")
        with terminal(run) as screen:
            attached = screen.until_attached()
            if key:
                screen.watch(rng.uniform(0, 0.5))
                screen.type(key)
                time.sleep(rng.uniform(0, _SHARE_TO_KILL * attached))
            else:
                enough = _step(run) + 2 * _WINDOW + 1
                screen.until(lambda: _step(run) >= enough, f"step {enough}")
                screen.watch(rng.uniform(0, 0.2))
            screen.cockpit.kill()
            killed_at = _step(run)
            screen.cockpit.wait()
        outcome = _command(run, _VERBS[key]) if key else _steps(run, killed_at)
        worker = run.worker()
        return outcome if worker and worker.pid == pid else Outcome("the worker is gone")


def _step(run: RunDirectory) -> int:
    """The newest step in the run's store."""
    reader = StoreReader(run.database)
    try:
        ((step,),) = reader.rows("SELECT max(step) FROM events")
    finally:
        reader.close()
    return int(step)


def _command(run: RunDirectory, verb: str) -> Outcome:
    """Whether the command that may have come was carried out as often as it came."""
    reader = StoreReader(run.database)
    try:
        stored = _settled(run, reader)
        if len(stored) > 1 or any(kind != verb for _, kind in stored):
            return Outcome(f"one {verb} was sent, and there are {stored}")
        if verb == "pause" and stored:
            control.send(run, "resume")
        step = _step(run)
        tiny_runs.until(lambda: _step(run) > step + 1)
        answers = [event.payload for event in reader.events_of("command")]
        for identifier, _ in stored:
            if [answer["ok"] for answer in answers if answer["id"] == identifier] != [True]:
                return Outcome(f"{verb} was answered {answers}")
        states = [event.payload["state"] for event in reader.events_of("state")]
        # One checkpoint is made before the first step.
        saved = len(reader.events_of("checkpoint")) - 1
        done = {"checkpoint": saved, "pause": states.count("paused")}[verb]
        if done != len(stored):
            return Outcome(f"{len(stored)} {verb} came and {done} were carried out")
        return Outcome(figures={"commands that came": len(stored)})
    finally:
        reader.close()


def _settled(run: RunDirectory, reader: StoreReader) -> list[tuple[str, str]]:
    """(id, verb) of the commands that came, once all are answered and no more can be on its way."""
    step = _step(run)
    quiet_since, before = time.monotonic(), -1

    def is_settled() -> bool:
        nonlocal quiet_since, before
        ((came,),) = reader.rows("SELECT count(*) FROM commands")
        answered = len(reader.events_of("command"))
        if came != before or answered != came:
            quiet_since, before = time.monotonic(), came
        # The sender is dead, but the worker may not have read all of what it sent.
        has_gone_on = _step(run) > step + 1 or tiny_runs.state(run) == "paused"
        return has_gone_on and time.monotonic() - quiet_since > _QUIET_SECONDS

    tiny_runs.until(is_settled)
    return [(identifier, verb) for identifier, verb in reader.rows("SELECT id, verb FROM commands")]


def _steps(run: RunDirectory, killed_at: int) -> Outcome:
    """How the time from step to step changed with the kill, and without one."""
    last = killed_at + _WINDOW + 1
    tiny_runs.until(lambda: _step(run) >= last)
    reader = StoreReader(run.database)
    times = [event.time for event in reader.events_of("step")]
    reader.close()
    gaps = [after - before for before, after in pairwise(times)]
    # The first gap ends with step 2; the one in which the kill falls counts as after it.
    ends = (killed_at - 1 - _WINDOW, killed_at - 1, killed_at - 1 + _WINDOW)
    first, second, after = (gaps[end - _WINDOW : end] for end in ends)
    return Outcome(
        figures={
            "step median ratio": median(after) / median(second),
            "control median ratio": median(second) / median(first),
            "longest step ratio": max(after) / max(second),
            "control longest step ratio": max(second) / max(first),
        }
    )


def verdict(figures: Mapping[str, Sequence[float]]) -> str:
    """Whether steps are found to take longer after a kill than just before it."""
    for name in ("step median ratio", "longest step ratio"):
        low = _median_at_least(figures.get(name, (1.0,)))
        if low > _NOISE:
            return f"{name}: {low:.3f} or more at 95 %"
    return ""


def _median_at_least(values: Sequence[float]) -> float:
    """Lower end of the 95 % interval of the median, from the order of ``values`` alone."""
    below = floor(len(values) / 2 - 0.98 * sqrt(len(values)))
    return sorted(values)[max(0, below)]


ROWS = (
    Row(
        "kill-cockpit",
        "worker alive; its steps take as long as before, within noise; a command on its way carried"
        " out once or, where it never came, not at all",
        trials=100,
        short=3,
        trial=trial,
        verdict=verdict,
    ),
)

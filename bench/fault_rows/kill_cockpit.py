"""SIGKILL to a cockpit that watches a tiny run, at times with a command on its way.

Every fourth cockpit is killed within moments of asking for a checkpoint, every fourth of asking for
a pause; the worker must have got all of the command or nothing. The others tell whether training
felt it: the time from each step to the next in the 16 steps after the kill, against the 16 before,
and those against the 16 before them, which tells how much that differs by itself.
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

_KEYS = {2: "c", 3: "p"}
_VERBS = {"c": "checkpoint", "p": "pause"}
_WINDOW = 16
"""Steps that are compared."""
_MOST_SECONDS_TO_KILL = 0.15
_NOISE = 1.05
_SCHEDULE = {"max_steps": 10**6, "save_every": 10**6, "eval_every": 10**6, "eval_samples": 4}


def trial(number: int, folder: Path) -> Outcome:
    """Attach a cockpit to a run in training, and kill it."""
    rng = random.Random(number)
    key = _KEYS.get(number % 4, "")
    with tiny_runs.new_run(folder, schedule=_SCHEDULE) as run:
        pid = tiny_runs.workers().start(run)
        tiny_runs.until(lambda: tiny_runs.state(run) == "training")
        with terminal(run) as screen:
            screen.until_attached()
            if key:
                screen.watch(rng.uniform(0, 0.5))
                screen.type(key)
                time.sleep(rng.uniform(0, _MOST_SECONDS_TO_KILL))
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
        stored = reader.rows("SELECT id, verb FROM commands")
        if len(stored) > 1 or any(kind != verb for _, kind in stored):
            return Outcome(f"one {verb} was sent, and there are {stored}")
        tiny_runs.until(lambda: len(reader.events_of("command")) == len(stored))
        if verb == "pause" and stored:
            control.send(run, "resume")
        step = _step(run)
        tiny_runs.until(lambda: _step(run) > step + 1)
        answers = [event.payload for event in reader.events_of("command")]
        for identifier, _ in stored:
            if [answer["ok"] for answer in answers if answer["id"] == identifier] != [True]:
                return Outcome(f"{verb} was answered {answers}")
        done = {
            # One is made before the first step.
            "checkpoint": len(reader.events_of("checkpoint")) - 1,
            "pause": [event.payload["state"] for event in reader.events_of("state")].count(
                "paused"
            ),
        }[verb]
        if done != len(stored):
            return Outcome(f"{len(stored)} {verb} came and {done} were carried out")
        return Outcome(figures={"commands that came": len(stored)})
    finally:
        reader.close()


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
        short=4,
        trial=trial,
        verdict=verdict,
    ),
)

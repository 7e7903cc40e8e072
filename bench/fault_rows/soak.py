"""A run that writes 200 events a second, and a cockpit that watches it, for an hour.

The worker is that of a tiny run, training ten steps a second at most, with checkpoints,
validations and rollouts; events of progress fill its store up to the pace. Memory of both processes
and the size of the write-ahead log are taken down every second. The growth of memory is the slope
of a line through what is measured after the first sixth. The median of each sixth is among the
figures.
"""

import os
import statistics
import time
from collections.abc import Sequence
from pathlib import Path

import psutil

from bench.fault_rows import tiny_runs
from bench.fault_rows.row import Outcome, Row
from bench.fault_rows.terminals import terminal
from engine.runs import control
from engine.runs.directory import RunDirectory
from engine.runs.reader import StoreReader

PACE = 200.0
SECONDS = 3600.0
_STEPS_A_SECOND = 10.0
_WARM_UP_SHARE = 1 / 6
_PARTS = 6
_MOST_WAL_MIB = 64
_MOST_GROWTH_MIB = 2.0
_SAMPLES_FOR_A_SLOPE = 60
# What is remembered of each step of the window is all there after the warm-up.
_MILESTONES = {"settle_window": 100}
_SCHEDULE = {"max_steps": 10**7, "save_every": 50, "eval_every": 200, "eval_samples": 4}
Samples = list[tuple[float, float]]
"""(seconds, MiB)."""


def trial(number: int, folder: Path) -> Outcome:
    """An hour of it."""
    return soak(folder, SECONDS, PACE)


def soak(folder: Path, seconds: float, pace: float) -> Outcome:
    """Watch a run that writes ``pace`` events a second for ``seconds``, and stop it."""
    with tiny_runs.new_run(folder, schedule=_SCHEDULE, milestones=_MILESTONES) as run:
        tiny_runs.workers().start(run, pace=pace, steps=_STEPS_A_SECOND)
        tiny_runs.until(lambda: tiny_runs.state(run) == "training")
        worker = run.worker()
        assert worker is not None
        with terminal(run) as screen:
            screen.until_attached()
            used, began, first = screen.cockpit.cpu_times().user, time.monotonic(), _events(run)
            of_worker: Samples = []
            of_cockpit: Samples = []
            wal = 0.0
            while (now := time.monotonic() - began) < seconds:
                # The emulator would take more of the machine than all that is measured.
                screen.drain(1.0)
                if not worker.is_running() or screen.cockpit.status() == psutil.STATUS_ZOMBIE:
                    return Outcome(f"worker or cockpit ended after {now:.0f} s")
                of_worker.append((now, worker.memory_info().rss / 2**20))
                of_cockpit.append((now, screen.cockpit.memory_info().rss / 2**20))
                wal = max(wal, os.path.getsize(f"{run.database}-wal") / 2**20)
            events = _events(run) - first
            processor = screen.cockpit.cpu_times().user - used
            screen.type("q")
            screen.until(lambda: screen.cockpit.status() == psutil.STATUS_ZOMBIE, "the end")
        control.send(run, "stop")
        tiny_runs.until(lambda: run.worker() is None)
        figures = {
            "events a second": events / now,
            "WAL MiB": wal,
            "worker MiB": of_worker[-1][1],
            "cockpit MiB": of_cockpit[-1][1],
            "cockpit share of a processor": processor / now,
            "false alarms": float(_count(run, "hang")),
        }
        if len(of_worker) >= _SAMPLES_FOR_A_SLOPE:
            figures["worker MiB per hour"] = 3600 * _slope(of_worker)
            figures["cockpit MiB per hour"] = 3600 * _slope(of_cockpit)
            for name, samples in (("worker", of_worker), ("cockpit", of_cockpit)):
                for number, middle in enumerate(_course(samples), start=1):
                    figures[f"{name} MiB, part {number} of {_PARTS}"] = middle
        return Outcome(_problem(run, figures, pace), figures)


def _problem(run: RunDirectory, figures: dict[str, float], pace: float) -> str:
    state = tiny_runs.state(run)
    if state != "stopped":
        return f"the run is {state}"
    if figures["WAL MiB"] >= _MOST_WAL_MIB:
        return f"the write-ahead log grew to {figures['WAL MiB']:.0f} MiB"
    for which in ("worker", "cockpit"):
        growth = figures.get(f"{which} MiB per hour", 0.0)
        if growth >= _MOST_GROWTH_MIB:
            return f"the {which} grows by {growth:.1f} MiB an hour"
    if figures["false alarms"]:
        return f"{figures['false alarms']:.0f} false alarms of a hang"
    if figures["events a second"] < 0.95 * pace:
        return f"only {figures['events a second']:.0f} events a second were written"
    reader = StoreReader(run.database)
    ((check,),) = reader.rows("PRAGMA integrity_check(1)")
    reader.close()
    return "" if check == "ok" else f"integrity_check: {check}"


def _events(run: RunDirectory) -> int:
    reader = StoreReader(run.database)
    last = reader.last_seq()
    reader.close()
    return last


def _count(run: RunDirectory, kind: str) -> int:
    reader = StoreReader(run.database)
    ((count,),) = reader.rows("SELECT count(*) FROM events WHERE kind = ?", (kind,))
    reader.close()
    return int(count)


def _slope(samples: Sequence[tuple[float, float]]) -> float:
    """MiB a second of the least-squares line through the samples after the warm-up."""
    kept = samples[int(len(samples) * _WARM_UP_SHARE) :]
    mean_x = sum(x for x, _ in kept) / len(kept)
    mean_y = sum(y for _, y in kept) / len(kept)
    above = sum((x - mean_x) * (y - mean_y) for x, y in kept)
    return above / sum((x - mean_x) ** 2 for x, _ in kept)


def _course(samples: Samples) -> list[float]:
    """The median of each part of ``samples``, in MiB."""
    size = len(samples) // _PARTS
    return [
        statistics.median(mib for _, mib in samples[part * size : (part + 1) * size])
        for part in range(_PARTS)
    ]


ROWS = (
    Row(
        "soak",
        "an hour at 200 events a second: WAL below 64 MiB, worker and cockpit grow by less than"
        " 2 MiB an hour after warm-up, no false alarm of a hang, integrity check ok",
        trials=1,
        short=1,
        trial=trial,
    ),
)

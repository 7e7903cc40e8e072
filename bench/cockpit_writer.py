"""A worker that learns nothing: writes steps of 32 rollouts at a steady pace, until it is ended.

Started by ``bench/cockpit.py`` with a run's path, a log and the rollouts a second. A step is a
fixed piece of work, then its rows, flushed as at a checkpoint. Its end and what it took go into
the log, a line each.
"""

import hashlib
import itertools
import signal
import sys
import time
from pathlib import Path
from types import FrameType

import cockpit_store

from engine.runs.directory import RunDirectory
from tests import recorded

ROLLOUTS = cockpit_store.GROUPS * cockpit_store.SAMPLES
WORK_SECONDS = 0.1


def main() -> None:
    run, log, pace = RunDirectory(Path(sys.argv[1])), Path(sys.argv[2]), float(sys.argv[3])
    signal.signal(signal.SIGTERM, _leave)
    recording = recorded.Recording(run, max_steps=10**7)
    recording.step = cockpit_store.last_step(run)
    run.record_worker()
    rounds = _calibrated()
    start = time.monotonic()
    try:
        with log.open("w", encoding="utf-8") as lines:
            for number in itertools.count():
                time.sleep(max(0.0, start + number * ROLLOUTS / pace - time.monotonic()))
                began = time.perf_counter()
                _work(rounds)
                recording.trains(1, every=10**9)
                recording.store.flush()
                lines.write(f"{time.time()} {time.perf_counter() - began}\n")
                lines.flush()
    finally:
        recording.store.close()


def _work(rounds: int) -> None:
    block = bytes(2**16)
    for _ in range(rounds):
        hashlib.sha256(block).digest()


def _calibrated() -> int:
    """How often the work has to be repeated to last about ``WORK_SECONDS``."""
    began = time.perf_counter()
    _work(200)
    return max(1, round(200 * WORK_SECONDS / (time.perf_counter() - began)))


def _leave(number: int, frame: FrameType | None) -> None:
    raise SystemExit


if __name__ == "__main__":
    main()

"""Find a training loop that hangs, and save where it does.

A thread looks at the loop's own signs of work (``engine.training.heartbeat``). Silence of five
times what is usual in the phase, and of at least ``schedule.hang_seconds``, is a hang: the stacks
of all threads go into the run's ``hang-stacks.txt``, an event tells of it, and where the run is
configured so the worker begins anew from its last checkpoint. A loop that holds the interpreter's
lock stops this thread too; for that case a timer below Python, set further ahead at every look,
saves the stacks.
"""

import contextlib
import faulthandler
import threading
import time
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from types import TracebackType
from typing import Self

from engine.task import Json
from engine.training.heartbeat import Heartbeat

STACKS = "hang-stacks.txt"
"""File in the run directory."""
FACTOR = 5
"""Times the usual silence of a phase."""
_LOOKS = 10
"""In the shortest deadline."""
_MOST_BETWEEN_LOOKS = 5.0
_MOST_BYTES = 2**20
"""Of stacks; beyond, the file begins anew."""


def deadline(least: float, average: float | None) -> float:
    """Seconds of silence that are a hang.

    A phase that was never passed has no usual silence: the first one may compile, or fill
    caches, and gets ``FACTOR`` times the least.
    """
    return FACTOR * least if average is None else max(least, FACTOR * average)


def save_stacks(folder: Path, why: str) -> None:
    """Add to the file in ``folder`` what all threads of this process are at."""
    path = folder / STACKS
    is_long = path.exists() and path.stat().st_size > _MOST_BYTES
    with path.open("wb" if is_long else "ab") as file:
        at = datetime.now().astimezone().isoformat(timespec="seconds")
        file.write(f"\n{at}: {why}\n".encode())
        file.flush()
        faulthandler.dump_traceback(file, all_threads=True)


class Watchdog:
    """Looks at a heartbeat until it is left."""

    def __init__(
        self,
        heartbeat: Heartbeat,
        folder: Path,
        tell: Callable[[dict[str, Json]], None],
        *,
        least: float,
        restart: Callable[[], None] | None = None,
        is_excused: Callable[[], bool] = lambda: False,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Prepare to watch.

        Args:
            heartbeat: of the loop.
            folder: takes the stacks.
            tell: takes the payload of each event ``hang``; called from the watching thread.
            least: shortest deadline, seconds.
            restart: begins the worker anew; None: a hang is told of and nothing else.
            is_excused: whether the loop waits for something that will be told otherwise.
            clock: seconds, never set back.
        """
        self._heartbeat = heartbeat
        self._path = folder / STACKS
        self._tell = tell
        self._least = least
        self._restart = restart
        self._is_excused = is_excused
        self._clock = clock
        self._pause = min(least / _LOOKS, _MOST_BETWEEN_LOOKS)
        self._looked = self._since = clock()
        self._seen = heartbeat.sign
        self._hang: dict[str, Json] | None = None
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="watchdog", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._is_over.set()
        self._thread.join()

    def look(self) -> None:
        """Compare the newest sign of work with the one before; tell of a hang and of its end."""
        now, sign = self._clock(), self._heartbeat.sign
        gap, self._looked = now - self._looked, now
        if sign.count != self._seen.count or sign.phase is None or self._is_excused():
            self._seen, self._since = sign, now
            if self._hang is not None:
                self._tell({**self._hang, "on": False})
                self._hang = None
            return
        if gap > 3 * self._pause:
            # This thread did not run either: the process was stopped, or starved. No hang.
            self._since += gap - self._pause
        silence, limit = now - self._since, deadline(self._least, sign.average)
        if self._hang is None and silence > limit:
            self._hang = self._described(sign.phase, silence, limit)
            # On a full disk the event has to do.
            with contextlib.suppress(OSError):
                why = f"{sign.phase}, {silence:.1f} s without a sign of work"
                save_stacks(self._path.parent, why)
            self._tell(self._hang)
            if self._restart is not None:
                self._restart()

    def _watch(self) -> None:
        with self._path.open("ab") as file:
            try:
                while not self._is_over.wait(self._pause):
                    limit = deadline(self._least, self._heartbeat.sign.average)
                    faulthandler.dump_traceback_later(limit + 4 * self._pause, file=file)
                    self.look()
            finally:
                faulthandler.cancel_dump_traceback_later()
        if not self._path.stat().st_size:
            self._path.unlink()

    def _described(self, phase: str, silence: float, limit: float) -> dict[str, Json]:
        what_next = (
            "The worker begins anew from the last checkpoint."
            if self._restart is not None
            else "Nothing was ended: it may go on by itself, and then this is over."
        )
        return {
            "name": "hang",
            "on": True,
            "title": f"no sign of work for {silence:.0f} s ({phase})",
            "explanation": (
                f"The training loop is silent for longer than {limit:.0f} s in the phase {phase}. "
                f"{what_next} The stacks of all threads, which say where it stands, are in "
                f"{self._path}."
            ),
            "advice": (
                "See whether the machine is short of memory or the device is in use elsewhere "
                "(`stonk-tui doctor`). If it stays silent, kill the worker's process and start "
                "`stonk-tui train --resume`; schedule.on_hang=restart does that by itself."
            ),
            "value": silence,
            "threshold": limit,
            "phase": phase,
            "stacks": STACKS,
            "action": "restart" if self._restart is not None else "notify",
        }

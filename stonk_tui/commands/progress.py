"""How far something long has come: a bar on a terminal, lines elsewhere."""

import contextlib
import sys
import time
from collections.abc import Callable, Iterator

from engine.text import one_line
from stonk_tui.commands.output import duration, say

Progress = Callable[[str, int, int], None]
"""Called with the phase, what is done and the total, 0 where that is not known."""

_LINE_SECONDS = 10.0


@contextlib.contextmanager
def progress_display() -> Iterator[Progress]:
    """A bar with ETA on a terminal, a line now and then elsewhere."""
    if not sys.stderr.isatty():
        yield ProgressLines().update
        return
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        TaskID,
        TaskProgressColumn,
        TextColumn,
        TimeRemainingColumn,
    )
    from rich.progress import (
        Progress as Bars,
    )

    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        TaskProgressColumn(),
        TimeRemainingColumn(),
    )
    with Bars(*columns, console=Console(stderr=True), transient=True) as bars:
        tasks: dict[str, TaskID] = {}

        def show(phase: str, done: int, total: int) -> None:
            if phase not in tasks:
                for earlier in tasks.values():
                    bars.remove_task(earlier)
                tasks.clear()
                # What was there before counts as done, not as speed.
                tasks[phase] = bars.add_task(
                    one_line(phase, 60), total=total or None, completed=done
                )
            bars.update(tasks[phase], completed=done, total=total or None)

        yield show


class ProgressLines:
    """Progress as lines: one when a phase begins, then one every ten seconds."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._phase = ""
        self._began = self._printed = 0.0
        self._first = 0

    def update(self, phase: str, done: int, total: int) -> None:
        """Print a line if it is time for one."""
        now = self._clock()
        if phase != self._phase:
            self._phase, self._began, self._first = phase, now, done
        elif now - self._printed < _LINE_SECONDS:
            return
        self._printed = now
        say(f"{one_line(phase)}{self._figures(done, total, now - self._began)}")

    def _figures(self, done: int, total: int, elapsed: float) -> str:
        if not total:
            return ""
        share = f"  {done / total:.0%}"
        gained = done - self._first
        if not gained or not elapsed:
            return share
        return f"{share}  ETA {duration((total - done) * elapsed / gained)}"

"""What the training loop is at, told by the loop itself, and never by a thread beside it.

It enters a phase and beats while it works inside: at every token drawn and every pass over a
micro-batch. Silence that is long for its phase is a hang (``engine.training.watchdog``). A beat
is also where a worker that was told to end leaves a step that is half done.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass

from engine.training.control import StopRequestedError

_WEIGHT = 0.1
"""Of the newest pass through a phase in its moving average."""


@dataclass(frozen=True)
class Sign:
    """The newest sign of work."""

    phase: str | None
    """None: nothing is under way that could hang."""
    count: int
    average: float | None
    """Moving average of the longest silence in a pass through the phase, seconds; None before it
    has been passed once."""


class Heartbeat:
    """Counts signs of work; read by other threads."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        """``clock``: seconds, never set back."""
        self._clock = clock
        self._averages: dict[str, float] = {}
        self._longest = 0.0
        self._at = clock()
        self._stop_reason: str | None = None
        self.sign = Sign(None, 0, None)
        """Replaced as a whole, so that no reader sees half of one."""

    def enter(self, phase: str | None) -> None:
        """Leave the phase before, and begin ``phase``."""
        self._take_silence()
        left = self.sign.phase
        if left is not None:
            before = self._averages.get(left, self._longest)
            self._averages[left] = before + _WEIGHT * (self._longest - before)
        self._longest = 0.0
        average = None if phase is None else self._averages.get(phase)
        self.sign = Sign(phase, self.sign.count + 1, average)

    def still_here(self) -> None:
        """A sign of work, or of waiting on purpose."""
        self._take_silence()
        now = self.sign
        self.sign = Sign(now.phase, now.count + 1, now.average)

    def beat(self) -> None:
        """A sign of work inside a step.

        Raises:
            StopRequestedError: the worker was told to end without finishing its step.
        """
        self.still_here()
        if self._stop_reason is not None:
            raise StopRequestedError(self._stop_reason)

    @property
    def is_ending(self) -> bool:
        """Whether the worker was told to end."""
        return self._stop_reason is not None

    def interrupt(self, reason: str) -> None:
        """Let the next beat raise; safe to call from a signal handler or another thread."""
        self._stop_reason = reason

    def _take_silence(self) -> None:
        now = self._clock()
        self._longest = max(self._longest, now - self._at)
        self._at = now

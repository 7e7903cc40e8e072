"""What an evaluation asks of the process that it runs in. Light: no torch."""

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Host:
    """A worker between two steps of training, or one that trains nothing."""

    is_interrupted: Callable[[], bool]
    """Whether somebody wants the worker for something else; looked at after every token."""
    between: Callable[[], None] = lambda: None
    """Called between two batches; must change nothing about the policy."""
    progress: Callable[[int, int, float | None], None] = lambda done, total, eta: None
    """Told of predictions done, of how many, and seconds to go where that is known."""

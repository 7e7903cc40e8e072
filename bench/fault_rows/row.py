"""One row of the table of faults: a trial, how often it is made, and what passes."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True)
class Outcome:
    """What came of one trial."""

    problem: str = ""
    """One line that says what went wrong; empty when it passed."""
    figures: Mapping[str, float] = field(default_factory=dict)
    """Measured beside it, such as seconds until a cockpit was back."""


@dataclass(frozen=True)
class Row:
    """A kind of fault."""

    name: str
    """As the command line knows it, such as ``kill-worker``."""
    passes: str
    """What has to hold after every trial, in one line."""
    trials: int
    """How many make the full figure."""
    short: int
    """How many the test suite makes."""
    trial: Callable[[int, Path], Outcome]
    """Make trial number ``n`` (its seed) in an empty folder that is removed afterwards."""
    verdict: Callable[[Mapping[str, Sequence[float]]], str] | None = None
    """What the figures of all trials together fail to hold, in one line; empty where they hold."""
    batch: int = 1
    """Trials that one call makes, from ``n`` on: some are so quick that a folder each would take
    longer. One problem says how many of them failed in its words."""


def bound(failures: int, trials: int) -> str:
    """What ``trials`` say about the rate of failures, at 95 %.

    None in N leaves up to 3/N (the rule of three: Hanley & Lippman-Hand 1983, doi
    10.1001/jama.1983.03330370053031).
    """
    if failures:
        return f"{failures} of {trials} failed"
    return f"at most {100 * min(1, 3 / trials):.3g} % fail, at 95 %"

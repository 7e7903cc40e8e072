"""All checks, one after the other."""

from collections.abc import Callable
from dataclasses import dataclass

from engine.market.leakage.check import Check
from engine.market.leakage.facts import financials, known_at, market_share, posts
from engine.market.leakage.labels import calendar, labels_from_prices, unadjusted_splits
from engine.market.leakage.predictor import feature_shift, label_shuffle
from engine.market.leakage.prompts import changed_future, future_prices
from engine.market.leakage.splits import chronology, duplicates, embargo, scalers
from engine.market.leakage.subject import Subject

CHECKS: tuple[Callable[[Subject], Check], ...] = (
    known_at,
    posts,
    financials,
    market_share,
    future_prices,
    changed_future,
    labels_from_prices,
    calendar,
    unadjusted_splits,
    duplicates,
    chronology,
    embargo,
    scalers,
    label_shuffle,
    feature_shift,
)
"""In the order in which they are shown."""


@dataclass(frozen=True)
class Audit:
    """The whole suite."""

    checks: tuple[Check, ...]
    num_examples: int
    """Size of the sample."""
    num_rows: int
    """Labelled rows of all splits."""

    @property
    def red(self) -> tuple[str, ...]:
        """Names of the checks that found a leak."""
        return tuple(check.name for check in self.checks if check.verdict == "red")


def audit(
    subject: Subject, progress: Callable[[int, int], None] = lambda done, total: None
) -> Audit:
    """Run every check.

    Args:
        progress: called with the checks done and all of them.
    """
    checks = []
    for done, check in enumerate(CHECKS):
        progress(done, len(CHECKS))
        checks.append(check(subject))
    progress(len(CHECKS), len(CHECKS))
    return Audit(tuple(checks), len(subject.examples), subject.num_rows)

"""Chronological train, validation and test splits, by date across all tickers."""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from engine.errors import UserError
from engine.market.history import Days

SplitName = Literal["train", "validation", "test"]
SPLIT_NAMES: tuple[SplitName, ...] = ("train", "validation", "test")


@dataclass(frozen=True)
class Span:
    """The as-of days of one split."""

    first: np.datetime64
    last: np.datetime64
    """Last as-of day; the embargo follows it."""
    border: np.datetime64 | None
    """First day of the next split, which no outcome may reach."""

    def holds(self, as_of: Days, outcome: Days) -> NDArray[np.bool_]:
        """Which rows belong here, by as-of day and by the day their label is known."""
        inside = (as_of >= self.first) & (as_of <= self.last)
        return inside if self.border is None else inside & (outcome < self.border)


def chronological(
    days: Days, *, train_share: float, validation_share: float, embargo: int
) -> dict[SplitName, Span]:
    """Cut a calendar into train, validation and test, in this order.

    The last ``embargo`` trading days before each border belong to no split.

    Args:
        days: all trading days of all tickers; repeated days count once.
        train_share: share of the calendar before the first border.
        validation_share: share of the calendar between the borders.
        embargo: trading days, at least the horizon.

    Raises:
        UserError: a split would be empty.
    """
    calendar = np.unique(days)
    first_border = int(len(calendar) * train_share)
    second_border = first_border + int(len(calendar) * validation_share)
    sizes = (
        first_border - embargo,
        second_border - first_border - embargo,
        len(calendar) - second_border,
    )
    if min(sizes) < 1:
        raise UserError(
            f"{len(calendar)} trading days are too few for three splits with an embargo of"
            f" {embargo} days",
            where="data",
            fix="use a longer history or change train_share, validation_share or embargo",
        )
    return {
        "train": Span(
            calendar[0], calendar[first_border - embargo - 1], border=calendar[first_border]
        ),
        "validation": Span(
            calendar[first_border],
            calendar[second_border - embargo - 1],
            border=calendar[second_border],
        ),
        "test": Span(calendar[second_border], calendar[-1], border=None),
    }

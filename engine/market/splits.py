"""Chronological train, validation and test splits and walk-forward folds, by date.

Borders are the same for all tickers: stocks move together, so that a day of one ticker tells
about the same day of another. Nothing is ever shuffled.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from engine.errors import UserError
from engine.market.history import Days

SplitName = Literal["train", "validation", "test"]
TrainWindow = Literal["expanding", "sliding"]
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
    days: Days,
    *,
    train_share: float,
    validation_share: float,
    embargo: int,
    horizon: int = 1,
    folds: int = 1,
    fold: int = 1,
    train_window: TrainWindow = "expanding",
) -> dict[SplitName, Span]:
    """Cut a calendar into train, validation and test, in this order.

    The last ``embargo`` trading days before each border belong to no split.

    With several folds the test part is cut into as many equal blocks, and fold k tests on the
    k-th. The validation days lie right before the block and the training days before those: all
    of them from the start of the calendar, or the newest ``train_share`` of it. One fold is the
    plain split.

    Args:
        days: all trading days of all tickers; repeated days count once.
        train_share: share of the calendar before the first border (of the first fold).
        validation_share: share of the calendar between the borders.
        embargo: trading days, at least the horizon.
        horizon: trading days from an as-of day to its outcome.
        folds: blocks of the test part.
        fold: which of them, from 1.
        train_window: whether training days add up from fold to fold or slide along.

    Raises:
        UserError: the embargo is shorter than the horizon, or a split would be empty.
    """
    if embargo < horizon:
        raise UserError(
            f"an embargo of {embargo} days is shorter than the horizon of {horizon} days, so that"
            " labels would reach into the next split",
            where="data.embargo",
            fix=f"use an embargo of at least {horizon}",
        )
    calendar = np.unique(days)
    num_train = int(len(calendar) * train_share)
    num_validation = int(len(calendar) * validation_share)
    num_test = len(calendar) - num_train - num_validation
    end = len(calendar) - num_test * (folds - fold) // folds
    second_border = len(calendar) - num_test * (folds - fold + 1) // folds
    first_border = second_border - num_validation
    start = first_border - num_train if train_window == "sliding" else 0
    sizes = (
        first_border - embargo - start,
        second_border - first_border - embargo,
        num_test // folds,
    )
    if min(sizes) < 1:
        raise UserError(
            f"{len(calendar)} trading days are too few for three splits with an embargo of"
            f" {embargo} days" + (f" in {folds} folds" if folds > 1 else ""),
            where="data",
            fix="use a longer history or change train_share, validation_share, embargo or folds",
        )
    return {
        "train": Span(
            calendar[start], calendar[first_border - embargo - 1], border=calendar[first_border]
        ),
        "validation": Span(
            calendar[first_border],
            calendar[second_border - embargo - 1],
            border=calendar[second_border],
        ),
        "test": Span(calendar[second_border], calendar[end - 1], border=None),
    }

"""Values with intervals over whole days: calls on one day stand or fall together.

Shapes: N rows, D days, K sums, R draws.
"""

from collections.abc import Callable, Sequence
from typing import TypedDict

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

Values = NDArray[np.float64]
Statistic = Callable[[Values], Values]
"""Sums (..., K) to the statistic (...), NaN where it is not defined."""

MIN_DAYS = 20
"""Below this the percentiles of a bootstrap over days are far too narrow."""

LEVEL = 0.95
_MAX_UNDEFINED = 0.01


class Value(TypedDict):
    """One figure as the report shows it, ready for JSON."""

    value: float | None
    low: float | None
    """Bounds of the 95 % interval over days."""
    high: float | None
    n: int
    """Rows that it is computed on."""
    why: str | None
    """Why there is no value, or no interval around it."""


def missing(n: int, why: str) -> Value:
    """A value that is not computable."""
    return {"value": None, "low": None, "high": None, "n": n, "why": why}


def ratio(sums: Values) -> Values:
    """The first sum over the second: a share or a mean."""
    with np.errstate(invalid="ignore", divide="ignore"):
        quotient: Values = sums[..., 0] / sums[..., 1]
    return quotient


class DayBlocks:
    """The days of an evaluation, and draws of as many of them with replacement.

    The cluster bootstrap with percentile limits of ``intervals.day_bootstrap``, for many
    statistics: all of them are computed on the same drawn days, so that what is compared on
    the same rows is compared on the same draws. A statistic is a function of sums over the
    rows, and a draw weighs each day's sums by how often the day came.
    """

    def __init__(self, days: pd.Series, *, seed: int, draws: int) -> None:
        """Draw among the distinct values of ``days``, at least one.

        Holds R × D floats: 10,000 draws of 1,000 days are 80 MB.
        """
        self.days = pd.Index(np.unique(days.to_numpy(dtype=str)), dtype=object)
        num_days = len(self.days)
        rng = np.random.default_rng(seed)
        chances = np.full(num_days, 1 / num_days)
        self._counts = rng.multinomial(num_days, chances, size=draws).astype(np.float64)

    def of(self, days: pd.Series) -> NDArray[np.intp]:
        """(N,) the number of each row's day, for ``value``.

        Raises:
            ValueError: a day that is not one of these.
        """
        blocks: NDArray[np.intp] = self.days.get_indexer(pd.Index(days))
        if (blocks < 0).any():
            raise ValueError("a row of a day that was not drawn from")
        return blocks

    def value(
        self,
        blocks: NDArray[np.intp],
        columns: Sequence[ArrayLike],
        statistic: Statistic = ratio,
        *,
        undefined: str = "no such rows",
        pivotal: bool = False,
    ) -> Value:
        """A statistic of sums over rows, with its interval.

        Args:
            blocks: (N,) the day of each row.
            columns: K times (N,), to be summed.
            statistic: of the K sums; left out: the first over the second.
            undefined: why there is no value where it is NaN.
            pivotal: reflect the percentiles about the value, never below 0. For a statistic
                that noise pushes up, as it does sums of squared or absolute differences: a
                draw has the noise of the sample once more, and its percentiles lie too high by
                what the value itself is too high (Efron & Tibshirani 1993, ch. 13).
        """
        num_rows = len(blocks)
        num_days = len(self.days)
        sums = np.column_stack(
            [
                np.bincount(blocks, weights=np.asarray(column, dtype=float), minlength=num_days)
                for column in columns
            ]
        )
        value = float(statistic(sums.sum(axis=0)))
        if not np.isfinite(value):
            return missing(num_rows, undefined)
        without: Value = {"value": value, "low": None, "high": None, "n": num_rows, "why": None}
        days_with_rows = np.count_nonzero(np.bincount(blocks))
        if days_with_rows < MIN_DAYS:
            return {
                **without,
                "why": f"no interval: {days_with_rows} days with rows, fewer than {MIN_DAYS}",
            }
        drawn = statistic(self._counts @ sums)
        is_defined = np.isfinite(drawn)
        if is_defined.mean() < 1 - _MAX_UNDEFINED:
            return {**without, "why": f"no interval: in too many draws there are {undefined}"}
        drawn = drawn[is_defined]
        low, high = np.quantile(drawn, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
        if pivotal:
            low, high = max(0.0, 2 * value - high), 2 * value - low
        # The percentiles of a statistic that draws push one way can leave the value out.
        return {**without, "low": float(min(low, value)), "high": float(max(high, value))}

"""What the model is shown about one stock on one day, and what happened next."""

import datetime as dt
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

Direction = Literal["UP", "DOWN"]


@dataclass(frozen=True)
class Bar:
    """One trading day as it looked on the as-of day.

    Prices are dollars, adjusted for splits and dividends up to the as-of day and for nothing
    later; volume is shares, adjusted for splits up to the as-of day.
    """

    date: dt.date
    open: float
    high: float
    low: float
    close: float
    volume: float


@dataclass(frozen=True)
class Label:
    """The outcome: the move of the adjusted close over the horizon, never exactly 0."""

    direction: Direction
    percent: float
    """Signed, in percent of the as-of close."""


@dataclass(frozen=True)
class Example:
    """Everything known about a ticker at the close of ``as_of``, and its label."""

    ticker: str
    company: str
    as_of: dt.date
    window: tuple[Bar, ...]
    """The last trading days, oldest first; the last one is the as-of day."""
    indicators: Mapping[str, float]
    """Named values on the as-of day, see ``engine.market.indicators``; one that its warm-up
    leaves unknown is missing."""
    sigma20: float
    """Standard deviation of the last 20 daily returns, in percentage points."""
    label: Label
    horizon: int
    """Trading days from the as-of day to the outcome."""

    @property
    def key(self) -> str:
        """Stable identity, such as ``AAPL:2012-09-14``."""
        return f"{self.ticker}:{self.as_of.isoformat()}"

    @property
    def day_change(self) -> float:
        """Move of the close on the as-of day, in percent."""
        return (self.window[-1].close / self.window[-2].close - 1) * 100

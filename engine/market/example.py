"""What the model is shown about one stock on one day, and what happened next."""

import datetime as dt
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Literal, NamedTuple

from engine.market.calendar import decision_time
from engine.market.statistics import Statistics

Direction = Literal["UP", "DOWN"]


@dataclass(frozen=True)
class Bar:
    """One trading day as it looked on the as-of day.

    Prices are dollars, adjusted for splits and dividends up to the as-of day and for nothing
    later; volume is shares, adjusted for splits up to the as-of day. What the source does not
    have is NaN, never 0.
    """

    date: dt.date
    open: float
    high: float
    low: float
    close: float
    volume: float


class Headline(NamedTuple):
    """A headline or post."""

    text: str
    """As it was found: untrusted, to be sanitized and cut where it is shown."""
    known_at: dt.datetime
    """Aware: when it was certainly public."""


@dataclass(frozen=True)
class Financials:
    """The newest annual income statement that was public."""

    fiscal_year_end: dt.date
    known_at: dt.datetime
    """Aware: when it was certainly public."""
    values: Mapping[str, float]
    """Line item → dollars, or dollars a share."""


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
    """Name of the company; the ticker again where the source does not know it."""
    as_of: dt.date
    window: tuple[Bar, ...]
    """The last trading days, oldest first; the last one is the as-of day."""
    indicators: Mapping[str, float]
    """Named values on the as-of day, see ``engine.market.indicators``; one that its warm-up
    leaves unknown is missing."""
    statistics: Statistics
    """The closes of the window as numbers, at the level of the as-of day."""
    sigma20: float
    """Standard deviation of the last 20 daily returns, in percentage points."""
    label: Label
    horizon: int
    """Trading days from the as-of day to the outcome."""
    outcome_day: dt.date
    """The trading day whose close decides the label."""
    headlines: tuple[Headline, ...] = ()
    """What was written since the close before, oldest first."""
    financials: Financials | None = None
    market_up_share: float | None = None
    """Share of UP among the recent daily moves of all tickers, see ``engine.market.market_share``;
    None where it is not asked for or not yet known."""

    @property
    def key(self) -> str:
        """Stable identity, such as ``AAPL:2012-09-14``."""
        return f"{self.ticker}:{self.as_of.isoformat()}"

    @property
    def day_change(self) -> float:
        """Move of the close on the as-of day, in percent."""
        return (self.window[-1].close / self.window[-2].close - 1) * 100

    @property
    def known_at(self) -> dt.datetime:
        """The decision time: 16:00 New York of the as-of day; no fact may be newer."""
        return decision_time(self.as_of)

    def known_times(self) -> Iterator[tuple[str, dt.datetime]]:
        """Every fact by what it is, with the time it became known."""
        for bar in self.window:
            yield f"prices of {bar.date.isoformat()}", decision_time(bar.date)
        yield "indicators", self.known_at
        yield "statistics", self.known_at
        for number, headline in enumerate(self.headlines, start=1):
            yield f"headline {number}", headline.known_at
        if self.financials:
            yield "financials", self.financials.known_at
        if self.market_up_share is not None:
            yield "market share", self.known_at

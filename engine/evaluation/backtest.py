"""What an account that followed the calls would have done; no advice, and no proof by itself.

A call's *edge* is ``2p - 1``, p being the stated probability of UP: from -1, sure of DOWN, to 1,
sure of UP, and 0 where nothing is stated or read. It is also Kelly's stake on a bet at even
odds (Kelly 1956, doi 10.1002/j.1538-7305.1956.tb03809.x). The account is split into equal parts
among the tickers called on a day, and each part is invested in its ticker by its edge:

- ``long_flat``: the part times ``max(0, edge)``, the rest in cash;
- ``long_short``: the part times ``edge``, which below 0 is a short position.

A position is held for one trading day, until the next day's calls replace it; tickers without a
call are sold. There is no leverage, cash and short positions bear no interest. Two executions:

- ``close``: at the close of the as-of day, as labels are measured. Optimistic: that price is part
  of what the call is made from, and is known only when the market has closed;
- ``open``: at the next day's open, held until the open after it.

Fees are a share of the value traded, on the way in and on the way out. Beside every portfolio
stands buy and hold: the same tickers in equal parts, set equal again only when one begins to
trade, with the same execution and fees.

Shapes: T days, K tickers.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import pandas as pd

from engine.evaluation import account, ratios
from engine.evaluation.account import Course, Values

COST_BPS = 5.0
"""Fee on the value traded in hundredths of a percent: spread and commission of a large stock."""

PORTFOLIOS = ("long_flat", "long_short")
EXECUTIONS = ("close", "open")
HEADLINE = "long_short/open"
"""The portfolio whose Sharpe ratio is logged as that of a trial."""


class Calendar(NamedTuple):
    """Prices of the days on which a backtest can act."""

    days: list[str]
    """(T,) ISO, in order: from the first as-of day to the second after the last."""
    tickers: list[str]
    """(K,) in order."""
    close: Values
    """(T, K), NaN where a ticker was not traded."""
    open: Values
    """(T, K), NaN where a ticker was not traded."""

    @classmethod
    def of(cls, decisions: pd.DataFrame, prices: pd.DataFrame) -> "Calendar":
        """The calendar of the tickers and days that ``decisions`` are about."""
        tickers = sorted(decisions["ticker"].unique())
        first, last = decisions["as_of"].min(), decisions["as_of"].max()
        own = prices[prices["ticker"].isin(tickers) & (prices["day"] >= first)]
        all_days = sorted(own["day"].unique())
        days = all_days[: sum(day <= last for day in all_days) + 2]
        return cls(days, tickers, *(_grid(own, name, days, tickers) for name in EXECUTIONS))


@dataclass(frozen=True)
class Backtest:
    """Every portfolio and what stands beside it, by ``portfolio/execution``."""

    days: dict[str, list[str]]
    """By execution: (T,) days of its courses."""
    courses: dict[str, Course]
    free: dict[str, Course]
    """The same without any fee."""
    holding: dict[str, Course]
    """By execution: buy and hold."""
    num_called_days: int
    """Days with a call."""

    @property
    def trial_sharpe(self) -> float | None:
        """The daily Sharpe ratio under which this checkpoint counts as one more trial."""
        return ratios.daily_sharpe(self.courses[HEADLINE].returns)


def run(decisions: pd.DataFrame, prices: pd.DataFrame, *, cost_bps: float = COST_BPS) -> Backtest:
    """Follow the calls of one checkpoint.

    Nothing on a day depends on what is known later: later prices or calls change no earlier
    value of an account.

    Args:
        decisions: one row an example with ``ticker``, ``as_of`` and ``p_up``.
        prices: ``ticker``, ``day``, ``open``, ``close``: adjusted, every trading day from the
            first as-of day to some days past the last.
        cost_bps: fee on the value traded, in hundredths of a percent.
    """
    calendar = Calendar.of(decisions, prices)
    edges = 2 * _grid(decisions, "p_up", calendar.days, calendar.tickers, day="as_of") - 1
    last_call = max(np.flatnonzero(~np.isnan(edges).all(axis=1)), default=0)
    days, courses, free, holding = {}, {}, {}, {}
    for execution in EXECUTIONS:
        # At the open a call is acted upon one row later.
        first = EXECUTIONS.index(execution)
        rows = slice(first, last_call + first + 2)
        paid = (calendar.close if execution == "close" else calendar.open)[rows]
        days[execution] = calendar.days[rows]
        acted_on = edges[: len(paid)]
        for portfolio in PORTFOLIOS:
            name = f"{portfolio}/{execution}"
            wanted = _closed_at_last(weights(acted_on, portfolio))
            courses[name] = account.run(paid, wanted, cost_bps=cost_bps)
            free[name] = account.run(paid, wanted, cost_bps=0)
        equal = _closed_at_last(equal_parts(paid))
        holding[execution] = account.run(paid, equal, cost_bps=cost_bps)
    return Backtest(days, courses, free, holding, decisions["as_of"].nunique())


def weights(edges: Values, portfolio: str) -> Values:
    """(T, K) edges, NaN where there is no call, to (T, K) shares of the account."""
    is_call = ~np.isnan(edges)
    stakes = np.where(is_call, edges, 0.0)
    if portfolio == "long_flat":
        stakes = np.maximum(stakes, 0.0)
    shares: Values = stakes / np.maximum(is_call.sum(axis=1, keepdims=True), 1)
    return shares


def equal_parts(prices: Values) -> Values:
    """(T, K) prices to (T, K) shares of buy and hold: equal when a ticker joins, else left."""
    has_begun = np.logical_or.accumulate(~np.isnan(prices), axis=0)
    num_begun = has_begun.sum(axis=1)
    joins = np.diff(num_begun, prepend=0) > 0
    parts = np.where(has_begun, 1 / np.maximum(num_begun, 1)[:, None], 0.0)
    shares: Values = np.where(joins[:, None], parts, np.nan)
    return shares


def _closed_at_last(shares: Values) -> Values:
    """Everything is sold on the last row, so that getting out is paid for."""
    shares[-1:] = 0.0
    return shares


def _grid(
    table: pd.DataFrame, values: str, days: Sequence[str], tickers: Sequence[str], day: str = "day"
) -> Values:
    wide = table.pivot(index=day, columns="ticker", values=values)
    grid: Values = wide.reindex(index=pd.Index(days), columns=pd.Index(tickers)).to_numpy(
        dtype=float
    )
    return grid

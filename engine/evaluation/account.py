"""An account that is moved to given weights once a day, and what it is worth.

The bookkeeping of a backtest, and nothing else: it sees one row of prices at a time and knows
no predictions. It equals ``bt`` with fractional positions and a fee in proportion to the value
traded (tests).

Shapes: T days, K tickers.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Values = NDArray[np.float64]


class Course(NamedTuple):
    """An account's course; it begins with 1 before the first row's trades."""

    equity: Values
    """(T,) worth after the day's trades and their fees; 0 from the day of ruin on."""
    turnover: Values
    """(T,) value bought and sold over the account's worth."""
    exposure: Values
    """(T,) value of all positions over the account's worth after the trades; shorts count
    as positive."""

    @property
    def returns(self) -> Values:
        """(T - 1,) from each row to the next; the first bears the fees of the first trades too."""
        if len(self.equity) < 2:
            return np.empty(0)
        before = np.concatenate(([1.0], self.equity[1:-1]))
        # After ruin there is nothing left to gain or lose.
        gains = np.divide(self.equity[1:], before, out=np.ones_like(before), where=before > 0)
        returns: Values = gains - 1
        return returns


def run(prices: Values, targets: Values, *, cost_bps: float) -> Course:
    """Move an account to ``targets`` at ``prices``, row by row.

    An order is sized so that its own fee comes out of it, as ``bt`` does: a buy worth A takes A
    from the account, fee and all, and a sale raises A after its fee. Closing a position sells
    all of it. Row t of the result depends on rows up to t alone.

    Args:
        prices: (T, K) above 0; NaN where a ticker is not traded that day: its position then
            keeps its last price and no order for it is carried out.
        targets: (T, K) wanted share of the account in each ticker, below 0 for a short
            position; NaN leaves a position alone.
        cost_bps: fee on the value traded, in hundredths of a percent.
    """
    num_days, num_tickers = prices.shape
    fee = cost_bps / 10_000
    equity, turnover, exposure = (np.zeros(num_days) for _ in range(3))
    units, last, cash = np.zeros(num_tickers), np.ones(num_tickers), 1.0
    for day in range(num_days):
        is_traded = ~np.isnan(prices[day])
        last = np.where(is_traded, prices[day], last)
        held = units * last
        worth = cash + held.sum()
        if worth <= 0:
            break
        is_order = is_traded & ~np.isnan(targets[day])
        orders = np.where(is_order, np.nan_to_num(targets[day]) * worth - held, 0.0)
        is_closing = is_order & (targets[day] == 0)
        traded = np.where(is_closing, -held, orders / (1 + np.sign(orders) * fee))
        units = np.where(is_closing, 0.0, units + traded / last)
        fees = fee * np.abs(traded).sum()
        cash -= traded.sum() + fees
        equity[day] = worth - fees
        turnover[day] = np.abs(traded).sum() / worth
        exposure[day] = np.abs(units * last).sum() / equity[day]
    return Course(equity, turnover, exposure)

"""Technical indicators over a whole history, each row from that row and earlier ones only.

TA-Lib conventions: RSI uses Wilder's smoothing seeded by the plain mean of its first 14
moves; MACD is EMA(12) - EMA(26), both seeded at bar 25 by a plain mean. Such recursive
values depend on where a series starts, so they count as unknown until the seed has faded.

N is the number of trading days of the history. NaN marks a value that is not known.
"""

import numpy as np
import talib

from engine.market.history import History, Values

SETTLED_BARS = 150
"""Bars after which the start of a series no longer shows in RSI(14) and MACD."""

DOLLARS = frozenset({"sma20", "macd"})
"""Indicators that are prices and follow the level of the series."""

SHARES = frozenset({"volume20"})
"""Indicators that are volumes and follow the split level of the series."""


def compute(history: History) -> dict[str, Values]:
    """Every indicator for every day.

    Returns:
        Arrays of shape (N,): ``sma20`` and ``macd`` at the level of ``history.adjusted``,
        ``rsi14`` [0, 100], ``change5`` and ``change10`` in percent over 5 and 10 days,
        ``volume20`` the 20-day mean of volume in shares of the first day, ``sigma20`` in
        percentage points.
    """
    closes = np.ascontiguousarray(history.adjusted)
    return {
        "sma20": talib.SMA(closes, 20),
        "rsi14": _settled(talib.RSI(closes, 14)),
        "macd": _settled(talib.MACD(closes, 12, 26, 9)[0]),
        "change5": talib.ROC(closes, 5),
        "change10": talib.ROC(closes, 10),
        "volume20": talib.SMA(history.volume / history.shares, 20),
        "sigma20": volatility(closes, 20),
    }


def volatility(closes: Values, days: int) -> Values:
    """Sample standard deviation of the last ``days`` daily returns, in percentage points.

    Args:
        closes: (N,) adjusted closes.

    Returns:
        (N,), NaN for the first ``days`` rows.
    """
    spread = np.full(len(closes), np.nan)
    if len(closes) > days:
        returns = (closes[1:] / closes[:-1] - 1) * 100
        windows = np.lib.stride_tricks.sliding_window_view(returns, days)
        spread[days:] = windows.std(axis=1, ddof=1)
    return spread


def _settled(values: Values) -> Values:
    settled = values.copy()
    settled[: SETTLED_BARS - 1] = np.nan
    return settled

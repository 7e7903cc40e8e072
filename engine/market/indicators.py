"""Technical indicators over a whole history, each row from that row and earlier ones only.

TA-Lib conventions. EMA starts from a plain mean of its first bars. RSI and ADX use Wilder's
smoothing, started the same way. MACD is EMA(12) - EMA(26), both started at bar 25. Bollinger
bands lie two population standard deviations around SMA(20). The slow stochastic is %K(14)
smoothed by SMA(3), and its %D the SMA(3) of that. Where a range is 0 (14 equal highs and
lows), TA-Lib writes 0 for WILLR, CCI and the stochastic.

Recursive values (EMA, RSI, MACD, ADX) depend on where a series starts, so they count as
unknown until the seed has faded.

Prices are taken at the level of ``History.adjusted``: high and low are moved with the close
of their day. A day on which a source lacks an input does not exist for that indicator: TA-Lib
would answer NaN for all the days after it.

N is the number of trading days of the history. NaN marks a value that is not known.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import talib
from numpy.typing import NDArray

from engine.market.history import History, Values

SETTLED_BARS = 150
"""Bars after which the start of a series no longer shows in a recursive indicator."""

DOLLARS = frozenset(
    {"sma20", "sma", "ema", "mom", "macd", "bbands_upper", "bbands_middle", "bbands_lower"}
)
"""Indicators that are prices, or differences of prices, and follow the level of the series."""

SHARES = frozenset({"volume20"})
"""Indicators that are volumes and follow the split level of the series."""


class _Indicator(NamedTuple):
    names: tuple[str, ...]
    function: Callable[..., Values | tuple[Values, ...]]
    inputs: tuple[str, ...] = ("close",)
    recursive: bool = False


_HIGH_LOW_CLOSE = ("high", "low", "close")
_INDICATORS = (
    _Indicator(("sma20",), lambda close: talib.SMA(close, 20)),
    _Indicator(("sma",), lambda close: talib.SMA(close, 14)),
    _Indicator(("ema",), lambda close: talib.EMA(close, 14), recursive=True),
    _Indicator(("mom",), lambda close: talib.MOM(close, 10)),
    _Indicator(
        ("stoch_k", "stoch_d"),
        lambda high, low, close: talib.STOCH(
            high, low, close, fastk_period=14, slowk_period=3, slowd_period=3
        ),
        _HIGH_LOW_CLOSE,
    ),
    _Indicator(("rsi",), lambda close: talib.RSI(close, 14), recursive=True),
    _Indicator(("macd",), lambda close: talib.MACD(close, 12, 26, 9)[0], recursive=True),
    _Indicator(
        ("willr",), lambda high, low, close: talib.WILLR(high, low, close, 14), _HIGH_LOW_CLOSE
    ),
    _Indicator(("cci",), lambda high, low, close: talib.CCI(high, low, close, 14), _HIGH_LOW_CLOSE),
    _Indicator(
        ("adx",),
        lambda high, low, close: talib.ADX(high, low, close, 14),
        _HIGH_LOW_CLOSE,
        recursive=True,
    ),
    _Indicator(
        ("bbands_upper", "bbands_middle", "bbands_lower"),
        lambda close: talib.BBANDS(close, 20, 2, 2),
    ),
    _Indicator(("change5",), lambda close: talib.ROC(close, 5)),
    _Indicator(("change10",), lambda close: talib.ROC(close, 10)),
    _Indicator(("volume20",), lambda volume: talib.SMA(volume, 20), ("volume",)),
)


def compute(history: History) -> dict[str, Values]:
    """Every indicator for every day.

    Returns:
        Arrays of shape (N,). At the level of ``history.adjusted``: ``sma20``, the means
        ``sma`` and ``ema`` of 14 days, ``mom`` the difference to 10 days before, ``macd``,
        ``bbands_upper``, ``bbands_middle``, ``bbands_lower``. Without a unit: ``rsi``,
        ``adx``, ``stoch_k`` and ``stoch_d`` [0, 100], ``willr`` [-100, 0], ``cci``. In
        percent over 5 and 10 days: ``change5``, ``change10``. ``volume20``, the 20-day mean
        of volume, in shares of the first day. ``sigma20`` in percentage points.
    """
    factor = history.adjusted / history.close
    columns = {
        "high": history.high * factor,
        "low": history.low * factor,
        "close": history.adjusted,
        "volume": history.volume / history.shares,
    }
    values: dict[str, Values] = {}
    for indicator in _INDICATORS:
        values |= _computed(indicator, [columns[name] for name in indicator.inputs])
    return {**values, "sigma20": volatility(history.adjusted, 20)}


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


def _computed(indicator: _Indicator, inputs: list[Values]) -> dict[str, Values]:
    known: NDArray[np.bool_] = np.logical_and.reduce(np.isfinite(inputs))
    results = indicator.function(*(np.ascontiguousarray(values[known]) for values in inputs))
    computed = {}
    for name, result in zip(
        indicator.names, results if isinstance(results, tuple) else (results,), strict=True
    ):
        if indicator.recursive:
            result[: SETTLED_BARS - 1] = np.nan
        computed[name] = np.full(len(known), np.nan)
        computed[name][known] = result
    return computed

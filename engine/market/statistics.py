"""What the closes of a window say as numbers, and how daily returns echo themselves.

Everything is known on the as-of day: a window ends there, and so do the returns.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from engine.market.history import Values

LAG_RETURNS = 250
"""Daily returns, about a year, that autocorrelations are measured on."""

MAX_LAGS = 5
"""Lags that are told, the strongest first."""

_SIGNIFICANT = 1.96 / LAG_RETURNS**0.5
# Twice the returns at least, so that their end does not wrap around onto their start.
_TRANSFORM = 512
# Rows that are transformed together: their spectra stay in the processor's cache.
_CHUNK = 256
# Returns that differ by no more than this differ by rounding.
_CONSTANT = 1e-12


class Lag(NamedTuple):
    """One lag of daily returns."""

    days: int
    correlation: float
    """Autocorrelation of the returns with those ``days`` earlier, [-1, 1]."""


@dataclass(frozen=True)
class Statistics:
    """One window of closes. Prices are in the closes' own unit, timesteps count from 0."""

    min: float
    min_timestep: int
    """Of equal values, here and below, the earliest."""
    max: float
    max_timestep: int
    mean: float
    median: float
    """Mean of the two middle values where the window is even."""
    median_timestep: int
    """Where the middle value stands; in an even window the lower one of the two."""
    trend: float
    """Last close minus first."""
    lags: tuple[Lag, ...] | None
    """The strongest of the significant lags; None while ``LAG_RETURNS`` are not yet known."""


def describe(
    closes: Values, rows: NDArray[np.intp], window: int, levels: Values
) -> list[Statistics]:
    """The statistics of the windows that end on ``rows``.

    Args:
        closes: (N,) adjusted closes.
        rows: (R,) positions in ``closes``, each at least ``window - 1``.
        window: days of a window.
        levels: (R,) what a window's closes are multiplied by: close / adjusted close of its
            last day turns them into the prices of that day.

    Returns:
        R statistics, in the order of ``rows``.
    """
    windows = at_level(closes, rows, levels, range(1 - window, 1))
    order = windows.argsort(axis=1, kind="stable")
    ascending = windows[np.arange(len(rows))[:, None], order]
    low, high = (window - 1) // 2, window // 2
    columns = (
        ascending[:, 0],
        order[:, 0],
        ascending[:, -1],
        windows.argmax(axis=1),
        windows.sum(axis=1) / window,
        (ascending[:, low] + ascending[:, high]) / 2,
        (windows == ascending[:, low, None]).argmax(axis=1),
        windows[:, -1] - windows[:, 0],
    )
    return [
        Statistics(*values)
        for values in zip(*(c.tolist() for c in columns), lags(closes, rows), strict=True)
    ]


def at_level(
    closes: Values, rows: NDArray[np.intp], levels: Values, offsets: Sequence[int]
) -> Values:
    """Closes around ``rows``, each row's own multiplied by its level.

    Args:
        closes: (N,) adjusted closes.
        rows: (R,) positions in ``closes``.
        levels: (R,) see ``describe``.
        offsets: days from each row to the closes asked for.

    Returns:
        (R, len(offsets)).
    """
    prices: Values = closes[rows[:, None] + np.array(offsets)] * levels[:, None]
    return prices


def lags(closes: Values, rows: NDArray[np.intp]) -> list[tuple[Lag, ...] | None]:
    """The strongest significant autocorrelations of the returns up to each of ``rows``.

    The sample autocorrelation (Box & Jenkins 1970) of the last ``LAG_RETURNS`` daily returns,
    their mean removed, by a zero-padded Fourier transform (Wiener-Khinchin). Significant is
    what lies beyond 1.96/√n, the 95 % band of white noise (Bartlett 1946).

    Args:
        closes: (N,) adjusted closes.
        rows: (R,) positions in ``closes``.

    Returns:
        At most ``MAX_LAGS`` lags of 1 day or more for each row, by falling absolute
        correlation; None where fewer than ``LAG_RETURNS`` returns are known.
    """
    found: list[tuple[Lag, ...] | None] = [None] * len(rows)
    returns = closes[1:] / closes[:-1] - 1
    known = np.flatnonzero(rows >= LAG_RETURNS)
    for start in range(0, len(known), _CHUNK):
        chunk = known[start : start + _CHUNK]
        latest = returns[rows[chunk, None] + np.arange(-LAG_RETURNS, 0)]
        correlations = _autocorrelations(latest)
        strength = np.abs(correlations)
        each = np.arange(len(chunk))[:, None]
        top = strength.argpartition(-MAX_LAGS, axis=1)[:, -MAX_LAGS:]
        top = top[each, (-strength[each, top]).argsort(axis=1)]
        days, values = (top + 1).tolist(), correlations[each, top].tolist()
        for at, row in enumerate(chunk.tolist()):
            pairs = zip(days[at], values[at], strict=True)
            found[row] = tuple([Lag(*pair) for pair in pairs if abs(pair[1]) > _SIGNIFICANT])
    return found


def _autocorrelations(returns: Values) -> Values:
    """(R, n) returns to (R, n - 1) autocorrelations, lag 0 left out; 0 where returns are equal."""
    num_returns = returns.shape[1]
    centred = returns - returns.sum(axis=1, keepdims=True) / num_returns
    spectrum = np.fft.rfft(centred, _TRANSFORM)
    power = spectrum.real**2 + spectrum.imag**2
    covariances = np.fft.irfft(power, _TRANSFORM)
    variance = covariances[:, :1]
    varies = variance > num_returns * _CONSTANT**2
    correlations: Values = covariances[:, 1:num_returns] / np.where(varies, variance, np.inf)
    return correlations

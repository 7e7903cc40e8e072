"""Ratios of a series of daily returns, and how sure they are.

Returns are fractions of the account (0.01 is one percent), one a trading day. A *daily*
Sharpe ratio is mean over standard deviation; an annualised one is √252 times that.

Shapes: T days.
"""

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy import stats

Returns = NDArray[np.float64]

DAYS_PER_YEAR = 252
LEAST_DAYS = 20
"""Below this many days a block bootstrap has next to nothing to draw from."""

_EULER_MASCHERONI = 0.5772156649015329


def daily_sharpe(returns: Returns) -> float | None:
    """Mean over standard deviation (T - 1 in the denominator), not annualised.

    Returns:
        None with fewer than two returns, or where they are all the same.
    """
    if len(returns) < 2 or np.ptp(returns) == 0:
        return None
    return float(returns.mean() / returns.std(ddof=1))


def sharpe_interval(
    returns: Returns, *, seed: int, draws: int = 10_000, level: float = 0.95
) -> tuple[float, float] | None:
    """Interval of the daily Sharpe ratio that allows for returns depending on their neighbours.

    Percentile limits of the circular block bootstrap (Politis & Romano 1992; recommended for
    Sharpe ratios by Ledoit & Wolf 2008, doi 10.1016/j.jempfin.2008.03.002) with blocks of
    T^(1/3) days. Draws of equal returns, which have no ratio, are left out.

    Args:
        returns: (T,).
        seed: decides the draws.
        draws: number of drawn series of T returns.
        level: two-sided coverage.

    Returns:
        Lower and upper bound; None below ``LEAST_DAYS`` or where all returns are the same.
    """
    num_days = len(returns)
    if num_days < LEAST_DAYS or np.ptp(returns) == 0:
        return None
    block = max(1, round(num_days ** (1 / 3)))
    lengths = np.full(math.ceil(num_days / block), block)
    lengths[-1] -= lengths.sum() - num_days
    # Standardised first, so that sums of squares lose no digits.
    scale = returns.std()
    values = (returns - returns.mean()) / scale
    circle = np.concatenate((values, values[:block]))
    sums = np.concatenate(([0.0], np.cumsum(circle)))
    squares = np.concatenate(([0.0], np.cumsum(circle**2)))
    starts = np.random.default_rng(seed).integers(num_days, size=(draws, len(lengths)))
    means = (sums[starts + lengths] - sums[starts]).sum(axis=1) / num_days
    mean_squares = (squares[starts + lengths] - squares[starts]).sum(axis=1) / num_days
    variances = (mean_squares - means**2) * num_days / (num_days - 1)
    varied = variances > 1e-12
    ratios = (means[varied] + returns.mean() / scale) / np.sqrt(variances[varied])
    low, high = np.quantile(ratios, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def probabilistic_sharpe(
    sharpe: float, benchmark: float, *, num_returns: int, skewness: float, kurtosis: float
) -> float | None:
    """Probability that the true Sharpe ratio lies above ``benchmark``.

    ``Φ((SR - SR*) √(T - 1) / √(1 - γ₃ SR + (γ₄ - 1)/4 SR²))`` (Bailey & López de Prado 2012,
    *The Sharpe Ratio Efficient Frontier*, Journal of Risk 15(2), eq. 11).

    Args:
        sharpe: measured, per period: not annualised.
        benchmark: SR*, per period.
        num_returns: T.
        skewness: γ₃ of the returns, 0 for a normal distribution.
        kurtosis: γ₄ of the returns, 3 for a normal distribution.

    Returns:
        [0, 1]; None where the moments leave no variance, as they can for tiny samples.
    """
    variance = 1 - skewness * sharpe + (kurtosis - 1) / 4 * sharpe**2
    if variance <= 0:
        return None
    z = (sharpe - benchmark) * math.sqrt(num_returns - 1) / math.sqrt(variance)
    return float(stats.norm.cdf(z))


def expected_best_sharpe(variance: float, trials: int) -> float:
    """The Sharpe ratio that the best of ``trials`` worthless callers is expected to show.

    ``√V ((1 - γ) Φ⁻¹(1 - 1/N) + γ Φ⁻¹(1 - 1/(N e)))``, γ being the Euler–Mascheroni constant
    (Bailey & López de Prado 2014, *The Deflated Sharpe Ratio*, Journal of Portfolio Management
    40(5), eq. 1). As ``benchmark`` of ``probabilistic_sharpe`` it makes the deflated one.

    Args:
        variance: of the Sharpe ratios of the trials, per period.
        trials: N, at least 1; one trial has nothing to be picked from and gives 0.
    """
    if trials <= 1:
        return 0.0
    first, second = stats.norm.ppf([1 - 1 / trials, 1 - 1 / (trials * math.e)])
    best = (1 - _EULER_MASCHERONI) * first + _EULER_MASCHERONI * second
    return float(math.sqrt(variance) * best)


def moments(returns: Returns) -> tuple[float, float]:
    """Skewness and kurtosis (3 for a normal distribution) of returns that are not all the same."""
    return float(stats.skew(returns)), float(stats.kurtosis(returns, fisher=False))


def profit_factor(returns: Returns) -> float | None:
    """Sum of the gains over the sum of the losses; None where no day lost."""
    losses = -returns[returns < 0].sum()
    return float(returns[returns > 0].sum() / losses) if losses > 0 else None


def drawdowns(equity: Sequence[float] | Returns) -> Returns:
    """How far each value lies below the highest one before it, as a fraction from -1 to 0.

    The account begins at 1, which counts as its first peak.
    """
    values = np.asarray(equity, dtype=float)
    return values / np.maximum(np.maximum.accumulate(values), 1.0) - 1

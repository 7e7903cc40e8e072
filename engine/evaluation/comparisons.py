"""Is one caller better than another on the same rows?"""

from collections.abc import Sequence
from typing import TypedDict

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from engine.evaluation.day_blocks import MIN_DAYS

EXACT_BELOW = 25
"""Fewer discordant rows than this take McNemar's exact form."""


class Test(TypedDict):
    """One test, ready for JSON."""

    value: float | None
    p: float | None
    """Two-sided."""
    n: int
    why: str | None
    """Why there is no value."""


def mcnemar(first: NDArray[np.bool_], second: NDArray[np.bool_]) -> Test:
    """Do two callers err equally often? Rows on which one is right and the other wrong decide.

    McNemar 1947 (doi 10.1007/BF02295996): the exact binomial test for fewer than
    ``EXACT_BELOW`` of them, else chi-square with Edwards' continuity correction. It takes rows for
    independent, which those of one day are not.

    Args:
        first: (N,) whether the first caller is right.
        second: (N,) whether the second one is, on the same rows.

    Returns:
        ``value``: rows that the first alone has right, less those that the second alone has;
        ``n``: their sum.
    """
    only_first = int((first & ~second).sum())
    only_second = int((second & ~first).sum())
    discordant = only_first + only_second
    if not discordant:
        return {"value": None, "p": None, "n": 0, "why": "both are right on the same rows"}
    if discordant < EXACT_BELOW:
        p = float(stats.binomtest(only_first, discordant).pvalue)
    else:
        statistic = max(0, abs(only_first - only_second) - 1) ** 2 / discordant
        p = float(stats.chi2.sf(statistic, 1))
    return {"value": float(only_first - only_second), "p": p, "n": discordant, "why": None}


def diebold_mariano(differences: Sequence[float], horizon: int) -> Test:
    """Is the mean difference of two callers' losses 0? Two-sided.

    Diebold & Mariano 1995 (doi 10.1080/07350015.1995.10524599) with the small-sample correction
    and Student's t of Harvey, Leybourne & Newbold 1997 (doi 10.1016/S0169-2070(96)00719-4). The
    variance has the autocovariances of the first ``horizon - 1`` lags.

    Args:
        differences: (T,) mean loss of the first less that of the second on each day, in order
            of time; rows of one day are one observation.
        horizon: days from the forecast to the outcome.

    Returns:
        ``value``: t with T - 1 degrees of freedom, below 0 where the first is better; ``n``: T.
    """
    values = np.asarray(differences, dtype=float)
    num_days = len(values)
    if num_days < max(MIN_DAYS, 2 * horizon):
        why = f"{num_days} days, fewer than {max(MIN_DAYS, 2 * horizon)}"
        return {"value": None, "p": None, "n": num_days, "why": why}
    centred = values - values.mean()
    covariances = [centred[lag:] @ centred[: num_days - lag] for lag in range(horizon)]
    variance = (covariances[0] + 2 * sum(covariances[1:])) / num_days**2
    if variance <= np.finfo(float).eps * (values**2).mean():
        why = "the losses differ by the same on every day" if horizon == 1 else "no variance"
        return {"value": None, "p": None, "n": num_days, "why": why}
    correction = (num_days + 1 - 2 * horizon + horizon * (horizon - 1) / num_days) / num_days
    statistic = float(values.mean() / np.sqrt(variance) * np.sqrt(correction))
    p = float(2 * stats.t.sf(abs(statistic), num_days - 1))
    return {"value": statistic, "p": p, "n": num_days, "why": None}


def holm(p_values: Sequence[float | None]) -> list[float | None]:
    """P-values of a family corrected so that any false one has the level of a single test.

    Holm 1979 (Scandinavian Journal of Statistics 6:65). None stays None and does not count.
    """
    order = sorted((p, at) for at, p in enumerate(p_values) if p is not None)
    corrected: list[float | None] = [None] * len(p_values)
    highest = 0.0
    for rank, (p, at) in enumerate(order):
        highest = max(highest, min(1.0, (len(order) - rank) * p))
        corrected[at] = highest
    return corrected

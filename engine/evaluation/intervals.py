"""Intervals around measured shares."""

import math
from collections.abc import Sequence
from statistics import NormalDist

import numpy as np


def wilson(successes: int, total: int, level: float = 0.95) -> tuple[float, float]:
    """Score interval of a binomial share.

    Wilson 1927 (doi 10.1080/01621459.1927.10502953). It treats the trials as independent,
    which calls on the same day are not, so it describes rather than tests.

    Args:
        successes: 0 to ``total``.
        total: number of trials, at least 1.
        level: two-sided coverage.

    Returns:
        Lower and upper bound, each in [0, 1].
    """
    z = NormalDist().inv_cdf(0.5 + level / 2)
    share = successes / total
    centre = share + z * z / (2 * total)
    half = z * math.sqrt(share * (1 - share) / total + z * z / (4 * total * total))
    scale = 1 + z * z / total
    return max(0.0, (centre - half) / scale), min(1.0, (centre + half) / scale)


def day_bootstrap(
    right: Sequence[bool],
    days: Sequence[str],
    *,
    seed: int,
    resamples: int = 2000,
    level: float = 0.95,
) -> tuple[float, float] | None:
    """Interval of the share right that allows calls on the same day to stand or fall together.

    The cluster bootstrap with percentile limits (Efron & Tibshirani 1993, ch. 13; Field &
    Welsh 2007, doi 10.1111/j.1467-9868.2007.00593.x): as many whole days as there are, drawn
    with replacement, each with all of its calls, and the share right among the calls drawn.
    It depends on the seed and on which calls share a day, not on the order of the calls.

    Too narrow where days are few (say under 20), where one day's outcome overlaps the next's
    (a horizon above one day), and of no width where all days have the same share right.

    Args:
        right: (N,) whether each call was right.
        days: (N,) the as-of day of each call.
        seed: decides the draws.
        resamples: number of draws of a whole set of days.
        level: two-sided coverage.

    Returns:
        Lower and upper bound, each in [0, 1]; None where there are not two days.
    """
    _, day_of_call, day_sizes = np.unique(
        np.asarray(days, dtype=str), return_inverse=True, return_counts=True
    )
    num_days = len(day_sizes)
    if num_days < 2:
        return None
    day_hits = np.bincount(day_of_call, weights=np.asarray(right, dtype=float))
    # Days with as many calls and as many right are one kind: a draw is how often each kind comes.
    kinds, kind_sizes = np.unique(
        np.column_stack((day_hits, day_sizes)), axis=0, return_counts=True
    )
    rng = np.random.default_rng(seed)
    drawn = rng.multinomial(num_days, kind_sizes / num_days, size=resamples)
    hits, totals = (drawn @ kinds).T  # (resamples,) each
    low, high = np.quantile(hits / totals, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)

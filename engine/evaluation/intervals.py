"""Intervals around measured shares."""

import math
from statistics import NormalDist


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

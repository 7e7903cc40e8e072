"""Is there a trend? The least-squares slope of a noisy series against its own noise."""

import math
from collections.abc import Sequence

LARGEST_T = 99.0
"""Given for a slope without any noise around it, whose t is infinite."""


def trend_t(points: Sequence[tuple[float, float]]) -> float | None:
    """t statistic of the least-squares slope of y over x.

    ``slope / (residual standard deviation / sqrt(sum of squared deviations of x))`` with N - 2
    degrees of freedom; without a trend and with independent noise about 95 of 100 series have
    ``|t| < 2``. Any regression textbook, e.g. Draper and Smith 1998, section 1.4.

    Args:
        points: (x, y) pairs, not all of one x.

    Returns:
        In [-LARGEST_T, LARGEST_T]; 0 for a constant series; None for fewer than three points.
    """
    count = len(points)
    if count < 3:
        return None
    mean_x = math.fsum(x for x, _ in points) / count
    mean_y = math.fsum(y for _, y in points) / count
    spread = math.fsum((x - mean_x) ** 2 for x, _ in points)
    slope = math.fsum((x - mean_x) * (y - mean_y) for x, y in points) / spread
    if slope == 0:
        return 0.0
    noise = math.fsum((y - mean_y - slope * (x - mean_x)) ** 2 for x, y in points) / (count - 2)
    t = slope / math.sqrt(noise / spread) if noise > 0 else math.copysign(math.inf, slope)
    return max(-LARGEST_T, min(LARGEST_T, t))

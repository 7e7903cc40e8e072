"""Labels: what the adjusted close did next, by the ticker's own full calendar."""

import numpy as np

from engine.market.history import Days, Values

MAX_GAP_DAYS = 5
"""Calendar days that one trading step may span. A long weekend is 4 and a storm closure 5; a
longer gap, such as September 2001, is not a next day."""

# Adjusted prices carry the rounding of their adjustment factor, at most about 1e-13 of the
# price, while the smallest real move of a quoted price is a thousand million times that.
_ZERO_PERCENT = 1e-9


def next_moves(days: Days, adjusted: Values, horizon: int) -> Values:
    """Percent move from each day to the close ``horizon`` trading days later.

    Must be given the whole calendar of the ticker: labels looked up after a filter would
    span more days than they claim.

    Args:
        days: (N,) trading days in order.
        adjusted: (N,) adjusted closes, all positive.
        horizon: trading days, at least 1.

    Returns:
        (N,), NaN where there is no label: the outcome lies past the end, a step on the way
        spans more than ``MAX_GAP_DAYS`` calendar days, or the move is exactly 0.
    """
    moves = np.full(len(days), np.nan)
    if len(days) <= horizon:
        return moves
    percent = (adjusted[horizon:] / adjusted[:-horizon] - 1) * 100
    too_wide = np.diff(days).astype(np.int64) > MAX_GAP_DAYS  # (N - 1,)
    steps = np.lib.stride_tricks.sliding_window_view(too_wide, horizon)  # (N - horizon, horizon)
    unknown = steps.any(axis=1) | (np.abs(percent) < _ZERO_PERCENT)
    moves[:-horizon] = np.where(unknown, np.nan, percent)
    return moves

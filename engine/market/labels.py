"""Labels: what the adjusted close did next, by the ticker's own full calendar."""

import numpy as np

from engine.market.history import Days, History, Values

MAX_GAP_DAYS = 5
"""Calendar days that one trading step may span. A long weekend is 4 and a storm closure 5; a
longer gap, such as September 2001, is not a next day."""

# Adjusted prices carry the rounding of their adjustment factor, at most about 1e-13 of the
# price, while the smallest real move of a quoted price is a thousand million times that.
_ZERO_PERCENT = 1e-9


def moves(history: History, horizon: int) -> Values:
    """The labels of a history, as percent moves: the one place that decides them.

    They are ``next_moves`` of its prices, left out where a step on the way is doubtful. A
    history with a ``shuffle_seed`` has them permuted among its own labelled days, so that
    they keep their distribution and lose every relation to the day they stand at: a
    recomputation has to permute in the same way, that is, to call this function.

    Returns:
        (N,), NaN where there is no label.
    """
    percent = next_moves(history.days, history.adjusted, horizon)
    if history.doubtful is not None and len(history) > horizon:
        steps = np.lib.stride_tricks.sliding_window_view(history.doubtful[1:], horizon)
        percent[:-horizon][steps.any(axis=1)] = np.nan
    if history.shuffle_seed is not None:
        labelled = np.flatnonzero(np.isfinite(percent))
        rng = np.random.default_rng(history.shuffle_seed)
        percent[labelled] = percent[rng.permutation(labelled)]
    return percent


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

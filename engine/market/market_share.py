"""How much of the market rose lately: the share of UP among recent daily moves of all tickers.

It is made of daily closes and of nothing later than the as-of day, whose own move counts: at
its close it is known. Labels are not looked at, so that permuted ones change nothing.
"""

from collections.abc import Sequence

import numpy as np

from engine.market.history import History
from engine.market.labels import next_moves

SHARE_DAYS = 60
"""Trading days, of the calendar of all tickers together, whose moves are counted."""


class UpShares:
    """The share on every trading day, computed once."""

    def __init__(self, histories: Sequence[History]) -> None:
        """Count the moves of ``histories`` by day.

        A move over a gap, a doubtful one, and one of exactly 0 count on neither side.
        """
        self._calendar = np.unique(np.concatenate([history.days for history in histories]))
        ups, moves = np.zeros((2, len(self._calendar) + 1))
        for history in histories:
            percent = next_moves(history.days, history.adjusted, 1)[:-1]
            if history.doubtful is not None:
                percent[history.doubtful[1:]] = np.nan
            at = np.searchsorted(self._calendar, history.days[1:]) + 1
            ups[at] += percent > 0
            moves[at] += np.isfinite(percent)
        self._ups, self._moves = ups.cumsum(), moves.cumsum()

    def on(self, day: np.datetime64) -> float | None:
        """The share as it is known at the close of ``day``, [0, 1].

        None before ``SHARE_DAYS`` days of moves are known, or where nothing moved.
        """
        end = int(np.searchsorted(self._calendar, day, side="right"))
        # The first day of the calendar has no move.
        if end <= SHARE_DAYS:
            return None
        moves = self._moves[end] - self._moves[end - SHARE_DAYS]
        return float((self._ups[end] - self._ups[end - SHARE_DAYS]) / moves) if moves else None

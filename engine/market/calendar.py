"""When a day's call is made: the close of New York, 16:00 local time.

Everything that an example holds must be known by then. The clock of New York changes twice a
year, so the moment in UTC is looked up for each day: 21:00 in winter, 20:00 in summer. Early
closes are not marked: what is written between 13:00 and 16:00 of a half day still comes before
the next trading day, which is the one that is called.
"""

import datetime as dt
from functools import lru_cache
from zoneinfo import ZoneInfo

import numpy as np
from numpy.typing import NDArray

from engine.market.history import Days

NEW_YORK = ZoneInfo("America/New_York")
_CLOSE = dt.time(16)


@lru_cache(16384)
def decision_time(day: dt.date) -> dt.datetime:
    """The moment, in New York's zone, at which the call of ``day`` is made."""
    return dt.datetime.combine(day, _CLOSE, NEW_YORK)


@lru_cache(16384)
def start_of(day: dt.date) -> dt.datetime:
    """Midnight of New York at which ``day`` begins."""
    return dt.datetime.combine(day, dt.time(), NEW_YORK)


def decision_times(days: Days) -> NDArray[np.datetime64]:
    """The decision time of each day in UTC, shape (N,), in seconds."""
    return np.array([_utc(decision_time(day)) for day in days.tolist()], dtype="datetime64[s]")


def starts_of(days: Days) -> NDArray[np.datetime64]:
    """The midnight of New York at which each day begins, in UTC, shape (N,), in seconds."""
    return np.array([_utc(start_of(day)) for day in days.tolist()], dtype="datetime64[s]")


def day_of(days: Days, written: NDArray[np.datetime64]) -> NDArray[np.intp]:
    """Which exchange day each text belongs to: the first whose decision time is not before it.

    Args:
        days: (N,) exchange days in order.
        written: (M,) moments in UTC.

    Returns:
        (M,) positions in ``days``; N for a text that no day follows.
    """
    return np.searchsorted(decision_times(days), written, side="left")


def _utc(moment: dt.datetime) -> dt.datetime:
    return moment.astimezone(dt.UTC).replace(tzinfo=None)

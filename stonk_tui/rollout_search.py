"""Find the rollouts of a run that pass a filter, in a thread; the newest question counts."""

import sqlite3
import threading
import time
from array import array
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from textual.message import Message

from engine.errors import UserError
from engine.runs.reader import StoreReader
from engine.runs.rollout_filter import Filter, Order
from stonk_tui import feed

FIRST_ROWS = 200
"""Found and reported before the rest of a long list is."""

# A store of another version may hold anything.
TROUBLE = (UserError, OSError, sqlite3.Error, ValueError, KeyError, TypeError)


@dataclass
class Found(Message, bubble=False):
    """What a question found, or why it found nothing."""

    question: int
    ids: "array[int]"
    is_all: bool = True
    """False for the first rows of a list of which the rest is being found."""
    total: int | None = None
    """How many rollouts there are without the filter."""
    seconds: float = 0.0
    """How long it took."""
    problem: str = ""


class RolloutSearch:
    """Asks one store at a time; a newer question interrupts the one before."""

    def __init__(self) -> None:
        self._question = 0
        self._lock = threading.Lock()
        self._reader: StoreReader | None = None

    @property
    def question(self) -> int:
        """Number of the newest question; answers to others come too late."""
        return self._question

    def next_question(self) -> int:
        """Make every question so far an old one, and end the query that is running."""
        with self._lock:
            self._question += 1
            if self._reader is not None:
                self._reader.interrupt()
            return self._question

    def find(
        self,
        question: int,
        database: Path,
        selection: Filter,
        order: Order,
        report: Callable[[Found], object],
    ) -> None:
        """Body of a thread: report what passes, its first rows early where that costs little."""
        started = time.monotonic()
        try:
            reader = StoreReader(database)
        except FileNotFoundError:
            report(Found(question, array("q"), total=0))
            return
        except TROUBLE as error:
            report(Found(question, array("q"), problem=in_words(error)))
            return
        with self._lock:
            if question != self._question:
                reader.close()
                return
            self._reader = reader
        try:
            # Only this order stands in an index: the others look at all rows in any case.
            limit = FIRST_ROWS if order.by == "step" else None
            ids = reader.rollout_ids(selection, order, limit)
            if limit is not None and len(ids) == limit:
                report(Found(question, ids, is_all=False))
                ids = reader.rollout_ids(selection, order)
            total = reader.num_rollouts() if selection.text else len(ids)
            report(Found(question, ids, total=total, seconds=time.monotonic() - started))
        except TROUBLE as error:
            report(Found(question, array("q"), problem=in_words(error)))
        finally:
            with self._lock:
                if self._reader is reader:
                    self._reader = None
            reader.close()


def in_words(error: Exception) -> str:
    """What is wrong with a store, in one line."""
    return feed.in_words(error) if isinstance(error, UserError) else f"it cannot be read: {error}"

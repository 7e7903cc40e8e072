"""What a source delivered and what was refused: counted by reason, shown with examples."""

import datetime as dt
from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np

from engine.errors import UserError
from engine.market.history import History
from engine.market.labels import MAX_GAP_DAYS
from engine.text import one_line

MAX_REFUSED_SHARE = 0.05
"""A source of which a larger share of rows is refused is refused as a whole."""

EXAMPLES = 5
"""Refused rows that are shown for each reason."""

FIXES = {
    "unreadable date": "write dates as YYYY-MM-DD",
    "date out of order": "sort the file by date, oldest first",
    "duplicate date": "keep one row a day",
    "missing value": "fill it in or remove the row",
    "text in a number": "write plain numbers such as 1234.5",
    "price not above 0": "correct the price or remove the row",
    "price out of range": "quote prices in units below a thousand million",
    "volume out of range": "write volume in shares, 0 or more",
    "high below low": "correct the row or remove it",
    "wrong number of fields": "give every line as many fields as the header",
    "not JSON": "write one JSON object a line",
    "missing field": "give every line all the fields",
    "unreadable time": "write times with their zone, such as 2014-01-02T20:59:00Z",
    "unsafe ticker": "use up to 16 letters, digits, dots, dashes and underscores",
}
"""Every reason for refusing a row, with what a person can do about it."""


@dataclass(frozen=True)
class Refused:
    """Rows that were refused for one reason."""

    reason: str
    count: int
    examples: tuple[str, ...]
    """``file:line:field: what is wrong`` of the first ones."""


@dataclass(frozen=True)
class RowCount:
    """How many rows of one kind were read, and which were refused."""

    kind: str
    """``price rows``, ``posts``."""
    read: int
    refused: tuple[Refused, ...]

    @property
    def num_refused(self) -> int:
        """Refused rows, all reasons together."""
        return sum(refused.count for refused in self.refused)


@dataclass(frozen=True)
class Split:
    """A stock split that was found or is on record."""

    ticker: str
    day: dt.date
    """First day of trading at the new price."""
    ratio: float
    """New shares per old one."""


@dataclass(frozen=True)
class Gap:
    """Two neighbouring rows of a ticker too far apart to be called consecutive days."""

    ticker: str
    after: dt.date
    until: dt.date

    @property
    def days(self) -> int:
        """Calendar days between them."""
        return (self.until - self.after).days


@dataclass(frozen=True)
class Report:
    """The quality of what a source delivered."""

    description: str
    """What the source is, in one line."""
    synthetic: bool
    """Whether the prices are made up."""
    rows: tuple[RowCount, ...]
    splits: tuple[Split, ...]
    gaps: tuple[Gap, ...]
    notes: tuple[str, ...] = ()
    """What was assumed, left out or flagged, one line each."""


@dataclass(frozen=True, eq=False)
class Market:
    """What a source string stands for."""

    source: str
    histories: tuple[History, ...]
    """One per ticker, ordered by ticker."""
    report: Report


@dataclass
class Tally:
    """Counts the rows of one kind while they are read."""

    kind: str
    read: int = 0
    _refused: dict[str, tuple[int, list[str]]] = field(default_factory=dict)

    def refuse(self, reason: str, count: int, examples: Iterable[tuple[str, str]]) -> None:
        """Count ``count`` refused rows.

        Args:
            reason: a key of ``FIXES``.
            examples: ``(file:line:field, what is wrong)`` of some; a few are kept.
        """
        assert reason in FIXES, reason
        before, shown = self._refused.get(reason, (0, []))
        for where, what in examples:
            if len(shown) >= EXAMPLES:
                break
            shown.append(f"{where}: {what}")
        self._refused[reason] = (before + count, shown)

    def finish(self) -> RowCount:
        """The counts.

        Raises:
            UserError: more than ``MAX_REFUSED_SHARE`` of the rows were refused. The line
                names the first row of the commonest reason and what to do.
        """
        by_count = sorted(self._refused.items(), key=lambda item: -item[1][0])
        rows = RowCount(
            self.kind,
            self.read,
            tuple(Refused(reason, count, tuple(shown)) for reason, (count, shown) in by_count),
        )
        if rows.num_refused > MAX_REFUSED_SHARE * rows.read:
            worst = rows.refused[0]
            raise UserError(
                f"{worst.examples[0]} ({rows.num_refused:,} of {rows.read:,} {self.kind} refused,"
                f" more than {MAX_REFUSED_SHARE:.0%}, {worst.count:,} of them: {worst.reason})",
                fix=FIXES[worst.reason],
            )
        return rows


def splits_of(histories: Iterable[History]) -> tuple[Split, ...]:
    """Every split that the histories record."""
    return tuple(
        Split(history.ticker, history.days[at].item(), float(history.split_ratio[at]))
        for history in histories
        for at in np.flatnonzero(history.split_ratio != 1).tolist()
    )


def gaps_of(histories: Iterable[History]) -> tuple[Gap, ...]:
    """Every step of more than ``MAX_GAP_DAYS`` calendar days."""
    return tuple(
        Gap(history.ticker, history.days[at].item(), history.days[at + 1].item())
        for history in histories
        for at in np.flatnonzero(np.diff(history.days).astype(np.int64) > MAX_GAP_DAYS).tolist()
    )


def shown(value: object) -> str:
    """A refused value as a message quotes it."""
    return repr(one_line(str(value), 40))

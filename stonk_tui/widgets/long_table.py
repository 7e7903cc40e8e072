"""A table of any length: it holds a number for each row, and the rows near what is in sight.

Whoever owns it answers ``Wanted`` by reading those rows in a thread and giving them to
``fill``; until then their lines are there, and say that they are being read.
"""

from array import array
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from textual.content import Content
from textual.geometry import Size
from textual.message import Message
from textual.strip import Strip

from stonk_tui.widgets.table import Column, Row, Table

_AROUND = 50
"""Rows that are read beyond those in sight, on either side."""
_MAX_ROWS = 1200
"""Rows that are kept; several times what a page of the largest screen asks for."""


class LongTable(Table):
    """Rows that are known by a number and read when they come into sight."""

    @dataclass
    class Wanted(Message):
        """These rows are in sight, or nearly, and some of them are not there."""

        table: "LongTable"
        first: int
        end: int
        """The row after the last of them."""

    def __init__(self, columns: Sequence[Column], *, empty: str = "", id: str | None = None):
        super().__init__(columns, empty=empty, id=id)
        self._ids: array[int] = array("q")
        self._read: dict[int, Row] = {}
        self._is_asking = False
        self._ordered_by: tuple[int, bool] = (0, True)

    @property
    def num_rows(self) -> int:
        return len(self._ids)

    @property
    def ids(self) -> "array[int]":
        """The numbers of all rows, in order."""
        return self._ids

    def order_by(self, column: int, *, descending: bool) -> None:
        """Mark the column that the rows are ordered by."""
        self._ordered_by = (column, descending)
        self.refresh()

    def set_ids(self, ids: "array[int]", *, stays: bool) -> None:
        """Show other rows.

        Args:
            ids: their numbers, in order.
            stays: keep the cursor on its row where that is still there; else go to the first.
        """
        before = self._ids[self._cursor] if self._cursor < len(self._ids) else None
        old_cursor, self._ids, self._cursor = self._cursor, ids, 0
        moved = 0
        if stays and before is not None:
            try:
                self._cursor = ids.index(before)
            except ValueError:
                self._cursor = min(old_cursor, max(0, len(ids) - 1))
            moved = self._cursor - old_cursor
        self.virtual_size = Size(0, len(ids) + 1)
        top = self.scroll_offset.y + moved if stays else 0
        self.scroll_to(y=max(0, top), animate=False)
        self.post_message(self.Moved(self, self.cursor_key or ""))
        self.refresh()

    def fill(self, rows: Mapping[int, Row]) -> None:
        """Rows that were read, by their numbers."""
        for identifier, row in rows.items():
            self._read.pop(identifier, None)
            self._read[identifier] = row
        for identifier in list(self._read)[: max(0, len(self._read) - _MAX_ROWS)]:
            del self._read[identifier]
        self.refresh()

    def forget(self) -> None:
        """Drop all rows that were read: they would be others now."""
        self._read.clear()

    def render_line(self, y: int) -> Strip:
        index = y - 1 + self.scroll_offset.y
        if y > 0 and index < len(self._ids) and self._ids[index] not in self._read:
            self._ask()
        return super().render_line(y)

    def _row_at(self, index: int) -> Row:
        identifier = self._ids[index]
        row = self._read.get(identifier)
        return row or Row(str(identifier), (Content("…"),) + (Content(""),) * len(self._columns))

    def _ask(self) -> None:
        if not self._is_asking:
            self._is_asking = True
            self.call_after_refresh(self._ask_for_what_is_missing)

    def _ask_for_what_is_missing(self) -> None:
        self._is_asking = False
        top = self.scroll_offset.y
        first = max(0, top - _AROUND)
        end = min(len(self._ids), top + self.size.height + _AROUND)
        if any(identifier not in self._read for identifier in self._ids[first:end]):
            self.post_message(self.Wanted(self, first, end))

    def _title(self, index: int, column: Column) -> Content:
        by, descending = self._ordered_by
        if index != by:
            return Content(column.title)
        return Content.styled(f"{column.title}{'↓' if descending else '↑'}", "bold $ink")

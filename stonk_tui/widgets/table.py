"""A table that is drawn line by line: fixed columns, one that takes the rest, a cursor.

Only the rows on screen are ever drawn, and new rows at the top do not move what a
person is looking at: the cursor stays on its row, except while it rests on the first
one, where it follows the newest.
"""

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

from rich.segment import Segment
from textual import events
from textual.binding import Binding, BindingType
from textual.content import Content
from textual.geometry import Size
from textual.message import Message
from textual.scroll_view import ScrollView
from textual.strip import Strip
from textual.style import Style


@dataclass(frozen=True)
class Column:
    """One column; width 0 takes what the others leave."""

    title: str
    width: int
    align: Literal["left", "right"] = "left"
    optional: int = 0
    """Least table width at which the column is shown."""
    below: int = 0
    """Width from which on it is not shown any more; 0: always shown."""


@dataclass(frozen=True)
class Row:
    """One row; its key stays the same while its cells may change."""

    key: str
    cells: tuple[Content, ...]


class Table(ScrollView, can_focus=True):
    """Rows of content with a cursor."""

    DEFAULT_CSS = """
    Table { width: 1fr; height: 1fr; scrollbar-size-vertical: 0; overflow-x: hidden; }
    """
    COMPONENT_CLASSES: ClassVar[set[str]] = {"table--cursor"}
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("up,k", "move(-1)", "Up", show=False),
        Binding("down,j", "move(1)", "Down", show=False),
        Binding("pageup", "page(-1)", "Page up", show=False),
        Binding("pagedown", "page(1)", "Page down", show=False),
        Binding("home", "edge(-1)", "First", show=False),
        Binding("end", "edge(1)", "Last", show=False),
        Binding("enter", "choose", "Open", show=False),
    ]

    @dataclass
    class Chosen(Message):
        """A person opened a row."""

        table: "Table"
        key: str

        @property
        def control(self) -> "Table":
            return self.table

    @dataclass
    class HeaderClicked(Message):
        """A person clicked the title of a column."""

        table: "Table"
        index: int
        """Place of the column among those that the table was made with."""

        @property
        def control(self) -> "Table":
            return self.table

    @dataclass
    class Moved(Message):
        """The cursor stands on another row."""

        table: "Table"
        key: str

        @property
        def control(self) -> "Table":
            return self.table

        def can_replace(self, message: Message) -> bool:
            return isinstance(message, Table.Moved)

    def __init__(
        self,
        columns: Sequence[Column],
        *,
        empty: str = "",
        id: str | None = None,
        follows: bool = True,
    ) -> None:
        """Make an empty table.

        Args:
            columns: from left to right.
            empty: what stands where there are no rows.
            id: of the widget.
            follows: whether a cursor on the first row stays there, whatever row that is.
        """
        super().__init__(id=id)
        self._follows = follows
        self._columns = tuple(columns)
        self._rows: tuple[Row, ...] = ()
        self._cursor = 0
        self._empty = empty

    @property
    def rows(self) -> tuple[Row, ...]:
        return self._rows

    @property
    def num_rows(self) -> int:
        return len(self._rows)

    @property
    def cursor(self) -> int:
        """Number of the row under the cursor, from 0."""
        return self._cursor

    @property
    def cursor_key(self) -> str | None:
        """Key of the row under the cursor."""
        return self._row_at(self._cursor).key if self._cursor < self.num_rows else None

    def _row_at(self, index: int) -> Row:
        return self._rows[index]

    def say_when_empty(self, text: str) -> None:
        """What stands where there are no rows."""
        if text != self._empty:
            self._empty = text
            self.refresh()

    def set_rows(self, rows: Sequence[Row]) -> None:
        """Show ``rows`` in their order."""
        new = tuple(rows)
        if new == self._rows and all(
            a.is_same(b)
            for old_row, new_row in zip(self._rows, new, strict=True)
            for a, b in zip(old_row.cells, new_row.cells, strict=True)
        ):
            return
        key, old_cursor = self.cursor_key, self._cursor
        self._rows = new
        if (old_cursor > 0 or not self._follows) and key is not None:
            positions = {row.key: index for index, row in enumerate(new)}
            self._cursor = min(positions.get(key, old_cursor), max(0, len(new) - 1))
            moved = self._cursor - old_cursor
        else:
            self._cursor, moved = 0, 0
        self._tell_if_moved(key)
        self.virtual_size = Size(0, len(new) + 1)
        if moved and self.scroll_offset.y:
            self.scroll_to(y=self.scroll_offset.y + moved, animate=False)
        if not self._follows:
            self._keep_in_sight()
        self.refresh()

    def render_line(self, y: int) -> Strip:
        width = self.size.width
        base = self.visual_style
        if y == 0:
            return self._strip(self._header(width), base, width)
        index = y - 1 + self.scroll_offset.y
        if index >= self.num_rows:
            said = [] if self.num_rows else textwrap.wrap(self._empty, max(1, width - 2))
            text = said[index] if index < len(said) else ""
            return self._strip(Content.styled(f" {text}", "$quiet"), base, width)
        style = base
        if index == self._cursor and (self.has_focus or self.screen.focused is None):
            style = base + self.get_visual_style("table--cursor")
            if self.get_component_styles("table--cursor").text_style.reverse:
                style += Style(reverse=True)  # which a visual style leaves out
        return self._strip(self._line(self._row_at(index), width), style, width)

    def action_move(self, rows: int) -> None:
        self.go_to(self._cursor + rows)

    def action_page(self, pages: int) -> None:
        self.go_to(self._cursor + pages * max(1, self.size.height - 2))

    def action_edge(self, side: int) -> None:
        self.go_to(0 if side < 0 else self.num_rows - 1)

    def move(self, where: str) -> None:
        """To the ``top`` or ``bottom`` row, or ``half_down`` or ``half_up`` a page."""
        half = max(1, (self.size.height - 1) // 2)
        target = {
            "top": 0,
            "bottom": self.num_rows - 1,
            "half_down": self._cursor + half,
            "half_up": self._cursor - half,
        }
        self.go_to(target[where])

    def action_choose(self) -> None:
        key = self.cursor_key
        if key is not None:
            self.post_message(self.Chosen(self, key))

    def on_click(self, event: events.Click) -> None:
        index = event.y - 1 + self.scroll_offset.y
        if event.y == 0:
            self._click_header(event.x - self.gutter.left)
        elif 0 <= index < self.num_rows:
            # A first click moves the cursor, a second one on the same row opens it.
            if index == self._cursor and event.chain > 1:
                self.action_choose()
            self.go_to(index)

    def on_focus(self) -> None:
        self.refresh()

    def on_blur(self) -> None:
        self.refresh()

    def on_resize(self) -> None:
        self.refresh()

    def _click_header(self, x: int) -> None:
        start = 0
        for index, _, width in self._layout(self.size.width):
            if start <= x < start + width:
                self.post_message(self.HeaderClicked(self, index))
            start += width + 1

    def go_to(self, index: int) -> None:
        """Put the cursor on a row and bring it into sight."""
        if not self.num_rows:
            return
        before = self.cursor_key
        self._cursor = min(max(0, index), self.num_rows - 1)
        self._tell_if_moved(before)
        self._keep_in_sight()
        self.refresh()

    def _keep_in_sight(self) -> None:
        body = max(1, self.size.height - 1)
        top = self.scroll_offset.y
        if self._cursor < top:
            self.scroll_to(y=self._cursor, animate=False)
        elif self._cursor >= top + body:
            self.scroll_to(y=self._cursor - body + 1, animate=False)

    def _tell_if_moved(self, before: str | None) -> None:
        key = self.cursor_key
        if key is not None and key != before:
            self.post_message(self.Moved(self, key))

    def _layout(self, width: int) -> list[tuple[int, Column, int]]:
        """(index, column, width) of the columns that are shown."""
        chosen = [
            (index, column)
            for index, column in enumerate(self._columns)
            if width >= column.optional and not 0 < column.below <= width
        ]
        fixed = sum(column.width for _, column in chosen) + len(chosen) - 1
        rest = max(0, width - fixed)
        return [(index, column, column.width or rest) for index, column in chosen]

    def _header(self, width: int) -> Content:
        titles = [
            _fit(self._title(index, column), column_width, column.align)
            for index, column, column_width in self._layout(width)
        ]
        return Content(" ").join(titles).stylize("$quiet")

    def _title(self, index: int, column: Column) -> Content:
        return Content(column.title)

    def _line(self, row: Row, width: int) -> Content:
        cells = [
            _fit(row.cells[index], column_width, column.align)
            for index, column, column_width in self._layout(width)
        ]
        return Content(" ").join(cells)

    def _strip(self, content: Content, style: Style, width: int) -> Strip:
        segments: list[Segment] = [
            Segment(text, part.rich_style)
            for text, part in content.render(style, "", parse_style=self._parse)
        ]
        return Strip(segments).adjust_cell_length(width, style.rich_style)

    def _parse(self, style: str | Style) -> Style:
        return self.app.stylesheet.parse_style(style) if isinstance(style, str) else style


def _fit(content: Content, width: int, align: str) -> Content:
    content = content.truncate(width, ellipsis=True)
    missing = width - content.cell_length
    if missing <= 0:
        return content
    return content.pad_left(missing) if align == "right" else content.pad_right(missing)

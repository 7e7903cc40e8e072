"""Send a terminal only what it does not show already.

Textual repaints whole regions: a panel whose title has changed is sent with everything in it, a
chart of 15 KB included, and the whole screen when the focus moves. Over a slow line that is what
counts, so each update is compared, cell by cell, with what was sent before. Where the terminal may
show something else (another screen, a new size, after being suspended) all is sent anew.
"""

from collections.abc import Iterator, Sequence

from rich.cells import cell_len, get_character_cell_size
from rich.console import Console
from rich.control import Control
from rich.segment import Segment
from rich.style import Style
from textual._compositor import ChopsUpdate, CompositorUpdate, LayoutUpdate
from textual.strip import Strip

_Cell = tuple[str, Style | None]
_REST: _Cell = ("", None)
"""The second half of a wide character."""
_GAP = 6
"""So many cells that have not changed are sent along: to move there would take as much."""


class Frames:
    """What the terminal shows."""

    def __init__(self) -> None:
        self._rows: list[list[_Cell]] = []

    def forget(self) -> None:
        """Take nothing for shown: the next full repaint is sent whole."""
        self._rows = []

    def changes(self, update: CompositorUpdate) -> CompositorUpdate:
        """What of ``update`` is new to the terminal; remembered once it is rendered."""
        return _Changes(self, update)

    def render(self, update: CompositorUpdate, console: Console) -> str:
        """The sequences that bring the terminal up to date."""
        if isinstance(update, LayoutUpdate) and len(self._rows) != len(update.strips):
            self._rows = [
                [cell for strip in strips for cell in _cells(strip)] for strips in update.strips
            ]
            return update.render_segments(console)
        if not self._rows or not isinstance(update, LayoutUpdate | ChopsUpdate):
            return update.render_segments(console)
        pieces = list(_whole(update) if isinstance(update, LayoutUpdate) else _partial(update))
        if any(y >= len(self._rows) for y, _, _ in pieces):
            return update.render_segments(console)
        return "".join(self._render_piece(*piece, console) for piece in pieces)

    def _render_piece(self, y: int, x: int, strip: Strip, console: Console) -> str:
        row, cells = self._rows[y], _cells(strip)
        before = row[x : x + len(cells)]
        if cells == before:
            return ""
        row[x : x + len(cells)] = cells
        return "".join(
            Control.move_to(x + start, y).segment.text
            + Strip(_segments(cells[start:end])).render(console)
            for start, end in _runs(before, cells)
        )


class _Changes(CompositorUpdate):
    """An update that is compared when it is written, for some never are."""

    def __init__(self, frames: Frames, update: CompositorUpdate) -> None:
        self._frames = frames
        self._update = update

    def render_segments(self, console: Console) -> str:
        return self._frames.render(self._update, console)


def _whole(update: LayoutUpdate) -> Iterator[tuple[int, int, Strip]]:
    """(row, column, strip) of a full repaint."""
    for y, strips in enumerate(update.strips):
        yield y, 0, Strip.join(strips)


def _partial(update: ChopsUpdate) -> Iterator[tuple[int, int, Strip]]:
    """(row, column, strip) of a partial update, as Textual writes it."""
    for y, left, right in update.spans:
        for end, (x, strip) in zip(update.chop_ends[y], update.chops[y].items(), strict=False):
            if strip is None or x > right or end <= left:
                continue
            is_whole = right > x >= left and end <= right
            yield y, x, strip if is_whole else strip.crop(0, min(end, right) - x)


def _cells(strip: Strip) -> list[_Cell]:
    cells: list[_Cell] = []
    for text, style, _ in strip:
        if text.isascii():
            cells += [(character, style) for character in text]
            continue
        widths = [get_character_cell_size(character) for character in text]
        if 0 in widths or sum(widths) != cell_len(text):
            # Characters that are put together on screen stay together.
            cells += [(text, style), *[_REST] * (cell_len(text) - 1)]
            continue
        for character, width in zip(text, widths, strict=True):
            cells += [(character, style), *[_REST] * (width - 1)]
    return cells


def _runs(before: Sequence[_Cell], after: Sequence[_Cell]) -> list[tuple[int, int]]:
    """Stretches of ``after`` that differ, never beginning or ending within a wide character."""
    runs: list[tuple[int, int]] = []
    for at, cell in enumerate(after):
        if at < len(before) and cell == before[at]:
            continue
        start, end = at, at + 1
        while start and after[start] == _REST:
            start -= 1
        while end < len(after) and after[end] == _REST:
            end += 1
        if runs and start - runs[-1][1] <= _GAP:
            start = runs.pop()[0]
        runs.append((start, end))
    return runs


def _segments(cells: Sequence[_Cell]) -> list[Segment]:
    """Neighbouring cells of one style as one piece."""
    segments: list[Segment] = []
    text: list[str] = []
    style: Style | None = None
    for cell in cells:
        if cell == _REST:
            continue
        if text and cell[1] != style:
            segments.append(Segment("".join(text), style))
            text = []
        text.append(cell[0])
        style = cell[1]
    return [*segments, Segment("".join(text), style)]

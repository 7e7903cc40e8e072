"""The report of an evaluation in the terminal: the blocks of the page, and its figures in braille.

Takes what ``report.json`` holds. Every text in it is cleaned here once, where it becomes a line.
"""

import itertools
from collections.abc import Iterator, Sequence

from textual.content import Content

from engine.evaluation import sections, wording
from engine.evaluation.document import (
    Block,
    Bullets,
    Figure,
    Heading,
    Mark,
    Quote,
    Table,
    Text,
    Verdict,
)
from engine.evaluation.naming import Report
from engine.text import one_line, sanitize
from stonk_tui import evaluation_figures

LEAST_WIDTH, WIDEST = 60, 120
_VERDICTS = {
    "no evidence": ("○", "$ink"),
    "weak": ("◐", "$warn"),
    "strong": ("●", "$good"),
    "suspect leakage": ("⚠", "$bad"),
}
_INDENT = 2
_LEAST_NAME = 14


def render(report: Report, width: int) -> Content:
    """The whole report, no line wider than ``width`` cells.

    Args:
        report: what ``report.json`` holds.
        width: cells; at least ``LEAST_WIDTH`` are taken and at most ``WIDEST``.
    """
    width = min(WIDEST, max(LEAST_WIDTH, width))
    parts = [_block(block, report, width) for block in sections.blocks(report)]
    return Content("\n\n").join(part for part in parts if part.plain)


def _block(block: Block, report: Report, width: int) -> Content:
    match block:
        case Heading(text, level):
            return _heading(text, level, width)
        case Verdict(checkpoint, word, reasons):
            glyph, style = _VERDICTS.get(word, ("?", "$warn"))
            head = Content.assemble(
                (f"{glyph} {one_line(word, 40)}", f"bold {style}"),
                (f"  {one_line(checkpoint, width - 30)}", "bold"),
            )
            return Content("\n").join([head, *_wrapped_items(reasons, width)])
        case Mark(text):
            return Content.styled(_wrapped(f"⚠ {text}", width), "bold $bad")
        case Text(text):
            return Content(_wrapped(text, width))
        case Bullets(items):
            return Content("\n").join(_wrapped_items(items, width))
        case Table():
            return _table(block, width)
        case Figure(name, caption):
            drawn = evaluation_figures.draw(report, name, width)
            if drawn is None:
                return Content("")
            return Content("\n").join([drawn, Content.styled(_wrapped(caption, width), "$quiet")])
        case Quote(title, text, is_right):
            style = "$good" if is_right else "$bad"
            bar = Content.styled("▌ ", style)
            told = _wrapped(title, width - 2).split("\n")
            said = _lines(sanitize(text).expandtabs(4), width - 2)
            return Content("\n").join(
                [*(bar + Content.styled(line, "bold") for line in told)]
                + [bar + Content(line) for line in said]
            )


def _heading(text: str, level: int, width: int) -> Content:
    lines = _wrapped(text, width - 4).split("\n")
    if level == 1:
        return Content("\n").join(Content.styled(line, "bold $gold") for line in lines)
    if level == 2:
        rule = "─" * max(0, width - len(lines[-1]) - 4)
        ends = [*lines[:-1], f"── {lines[-1]} {rule}"]
        return Content("\n").join(Content.styled(line, "bold $gold") for line in ends)
    return Content("\n").join(Content.styled(line, "bold") for line in lines)


def _wrapped_items(items: Sequence[str], width: int) -> Iterator[Content]:
    for item in items:
        first, *others = _lines(one_line(item, 4000), width - _INDENT)
        yield Content(f"· {first}")
        yield from (Content(f"{' ' * _INDENT}{line}") for line in others)


# --- tables


def _table(table: Table, width: int) -> Content:
    """Columns as wide as they need to be; where they do not fit, the widest cells are wrapped."""
    rows = [[one_line(cell, 400) for cell in row] for row in (table.header, *table.rows)]
    widths = _fitted([max(map(_cells, column)) for column in zip(*rows, strict=True)], width)
    output: list[Content] = []
    for number, row in enumerate(rows):
        if number == 0 and not any(row):
            continue
        columns = [_lines(cell, room) for cell, room in zip(row, widths, strict=True)]
        for line in itertools.zip_longest(*columns, fillvalue=""):
            padded = [
                _pad(cell, room, is_left=at == 0 or table.is_text)
                for at, (cell, room) in enumerate(zip(line, widths, strict=True))
            ]
            text = "  ".join(padded).rstrip()
            is_quiet = number == 0
            output.append(Content.styled(text, "$quiet") if is_quiet else _figures(text, padded[0]))
    notes = [Content.styled(_wrapped(note, width), "$quiet") for note in table.notes]
    return Content("\n").join([*output, *notes])


def _figures(text: str, name: str) -> Content:
    """A row: its name, and its figures, of which those that are not computable stand back."""
    row = Content(text)
    start = len(name)
    while (start := text.find(wording.NOT_COMPUTABLE, start)) >= 0:
        end = start + len(wording.NOT_COMPUTABLE)
        row = row.stylize("$quiet", start, end)
        start = end
    return row


def _fitted(widths: Sequence[int], width: int) -> list[int]:
    """Widths that fit: names give way to figures, then the widest columns."""
    fitted = list(widths)
    room = width - 2 * (len(fitted) - 1)
    fitted[0] -= min(max(0, fitted[0] - _LEAST_NAME), max(0, sum(fitted) - room))
    while sum(fitted) > room and max(fitted) > 8:
        fitted[fitted.index(max(fitted))] -= 1
    return fitted


def _pad(cell: str, room: int, *, is_left: bool) -> str:
    space = " " * max(0, room - _cells(cell))
    return cell + space if is_left else space + cell


# --- lines


def _wrapped(text: str, width: int) -> str:
    return "\n".join(_lines(one_line(text, 4000), width))


def _lines(text: str, width: int) -> list[str]:
    """Lines of at most ``width`` cells, broken at spaces where there are some."""
    lines = Content(text).wrap(max(1, width))
    return [line.plain.rstrip() for line in lines] or [""]


def _cells(text: str) -> int:
    return Content(text).cell_length

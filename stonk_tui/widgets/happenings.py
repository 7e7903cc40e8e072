"""What happened? The newest lines of the event log."""

import textwrap
from typing import ClassVar

from textual.content import Content

from engine.runs.history import LogLine
from engine.text import one_line
from stonk_tui.feed import RunModel
from stonk_tui.theme import level_look
from stonk_tui.widgets import figures
from stonk_tui.widgets.panel import Panel, rows
from stonk_tui.widgets.text import line


class HappeningsPanel(Panel):
    """The event log, newest first."""

    noun = "Events"
    number = 9
    explanation: ClassVar[str] = (
        "What the run did and what it was told: states, checkpoints, commands and their answers, "
        "warnings. Newest first. The log screen has all of it, and the worker's own output."
    )

    def draw(self, view: RunModel, width: int, height: int) -> tuple[Content, Content]:
        log = view.history.log
        warnings = sum(entry.level in ("warning", "error") for entry in log)
        answer = (
            Content.styled(f"! {warnings}", "$warn")
            if warnings
            else Content.styled("newest" if view.history.log_is_cut else f"{len(log)}", "$quiet")
        )
        lines: list[Content] = []
        for entry in reversed(log[-height:]):
            lines += folded(entry, width)
            if len(lines) >= height:
                break
        if not lines:
            return answer, Content.styled("Nothing yet.", "$quiet")
        return answer, rows(*lines[:height])


def folded(entry: LogLine, width: int) -> list[Content]:
    """An entry on as many lines as it needs, up to three."""
    look = level_look(entry.level)
    style = look.style if entry.level in ("warning", "error") else "$ink"
    indent = 8
    text = one_line(entry.text, 3 * max(8, width - indent))
    pieces = textwrap.wrap(text, max(8, width - indent))[:3] or [""]
    head = Content.assemble(
        (f"{figures.clock_time(entry.time)[:5]} ", "$quiet"), (f"{look.glyph} ", look.style)
    )
    return [
        Content.assemble(head if number == 0 else " " * indent, (piece, style))
        for number, piece in enumerate(pieces)
    ]


def words(entry: LogLine) -> Content:
    """An entry on one line, with seconds."""
    look = level_look(entry.level)
    style = look.style if entry.level in ("warning", "error") else "$ink"
    return Content.assemble(
        (f"{figures.clock_time(entry.time)}  ", "$quiet"),
        (f"{entry.step:>6}  ", "$quiet"),
        (f"{look.glyph} ", look.style),
        line(entry.text, style),
    )

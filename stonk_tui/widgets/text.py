"""Untrusted text on its way to the screen.

Completions, prompts, reasons, notices, file names and error messages were written
by a model, a data set or another program. They pass three guards: ``shown`` makes
control characters visible and caps the length; it returns ``Content``, in which
square brackets are only characters; and ``OutputFilter`` removes from every line
that leaves the app whatever came past the other two.
"""

import re

from rich.segment import Segment
from rich.style import Style
from textual.color import Color
from textual.content import Content
from textual.filter import LineFilter

from engine.text import one_line, sanitize, without_excess_marks

MAX_CHARACTERS = 40_000
MAX_LINE = 400

_UNSAFE = re.compile(
    "[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]"
)


def shown(text: object, style: str = "", *, limit: int = MAX_CHARACTERS) -> Content:
    """Several lines of untrusted text, safe to show; tabs become spaces."""
    plain = sanitize(str(text)[:limit]).expandtabs(4)
    if len(str(text)) > limit:
        plain += f"\n… {len(str(text)) - limit} more characters"
    return Content.styled(plain, style) if style else Content(plain)


def line(text: object, style: str = "", *, limit: int = MAX_LINE) -> Content:
    """One line of untrusted text, safe to show."""
    plain = one_line(str(text)[: limit * 4], limit)
    return Content.styled(plain, style) if style else Content(plain)


class OutputFilter(LineFilter):
    """Remove control characters, piles of marks and links from everything that is drawn."""

    def apply(self, segments: list[Segment], background: Color) -> list[Segment]:
        return [
            Segment(without_excess_marks(_UNSAFE.sub("", text)), _without_link(style))
            for text, style, control in segments
            if not control
        ]


def _without_link(style: Style | None) -> Style | None:
    return style.update_link(None) if style is not None and style.link else style

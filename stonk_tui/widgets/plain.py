"""Less on its way to the screen: ASCII alone, cell for cell, and no colours.

Filters on all lines that leave the app, whatever widget drew them. In ASCII a glyph of the cockpit
becomes the one that its table holds, a braille cell a dot at its height, a letter its base
letter, and anything else a question mark. So nothing that a model wrote gets past it either.
"""

import unicodedata
from functools import lru_cache

from rich.cells import cell_len
from rich.color import Color as RichColor
from rich.segment import Segment
from rich.style import Style
from textual.color import Color
from textual.filter import LineFilter

_GLYPHS = str.maketrans(
    {
        # States, sides and verdicts; those that can stand in one place stay different.
        "▲": "^", "△": "^", "▼": "v", "▽": "v", "✓": "+", "✗": "x", "⚠": "!", "★": "*",
        "☆": "*", "●": "@", "◐": "%", "○": "o", "◌": ".", "◔": "c", "◎": "O", "◍": "0",
        "◇": "<", "◆": "#", "•": "*", "‖": "=", "█": "#", "■": "#", "□": "o", "▶": ">", "◀": "<",
        "▣": "#", "✚": "+", "⏸": "=", "⟦": "[", "⟧": "]",
        # Signs and marks.
        "·": ".", "−": "-", "–": "-", "—": "-", "…": "~", "×": "x", "±": "~", "≥": ">",
        "≤": "<", "≈": "~", "≠": "!", "›": ">", "‹": "<", "→": ">", "←": "<", "↑": "^", "↓": "v",
        "“": '"', "”": '"', "„": '"', "‘": "'", "’": "'", "σ": "s", "Σ": "S", "μ": "u", "µ": "u",
        "Δ": "d", "π": "p", "°": " ", "⏎": "<", "⌫": "<", "√": "V", "∞": "8",
        # Bars, rulers and frames.
        "━": "=", "▬": "=", "╸": "-", "╺": "-", "┃": "#", "┊": ":", "┆": ":", "│": "|", "║": "|",
        "─": "-", "═": "=", "┄": "-", "┈": "-",
        # Little columns, and parts of a block.
        "▁": "_", "▂": ".", "▃": "-", "▄": "=", "▅": "+", "▆": "*", "▇": "#", "▔": "-",
        "▏": "|", "▎": "|", "▍": "|", "▌": "|", "▋": "#", "▊": "#", "▉": "#", "▐": "|", "▕": "|",
        "▀": '"', "░": ".", "▒": ":", "▓": "#", "▪": "*", "▖": ".", "▗": ".", "▘": "'", "▝": "'",
        # What the cleaning of foreign text makes visible.
        **{chr(0x2400 + code): "?" for code in range(0x22)},
    }
)  # fmt: skip

_NO_COLOURS = Style(color="default", bgcolor="default")
_DIM = Style(dim=True)
_REVERSE = Style(reverse=True)
_FAINT, _LIGHT = 0x60, 0x90

_TOP, _MIDDLE, _BOTTOM = 0x09, 0x36, 0xC0
"""Dots of a braille cell: first row, the two in the middle, last row."""


class AsciiFilter(LineFilter):
    """Replace everything beyond ASCII, never changing how many cells a line takes."""

    def apply(self, segments: list[Segment], background: Color) -> list[Segment]:
        return [
            segment if segment.text.isascii() else Segment(plain(segment.text), segment.style)
            for segment in segments
        ]


class ShadesToDim(LineFilter):
    """Remove all colours; dark grey becomes dim, and what stood on light is turned around."""

    def apply(self, segments: list[Segment], background: Color) -> list[Segment]:
        return [Segment(text, _without_colours(style)) for text, style, _ in segments]


@lru_cache(1024)
def _without_colours(style: Style | None) -> Style | None:
    if style is None:
        return None
    if _level(style.bgcolor) > _LIGHT:
        return style + _NO_COLOURS + _REVERSE
    is_faint = 0 <= _level(style.color) < _FAINT and not style.reverse
    return style + _NO_COLOURS + (_DIM if is_faint else Style.null())


def _level(colour: RichColor | None) -> int:
    """How light a colour is, up to 255; -1 where nobody knows."""
    return max(colour.triplet) if colour is not None and colour.triplet is not None else -1


def plain(text: str) -> str:
    """``text`` in ASCII, as wide as it was."""
    if text.isascii():
        return text
    return "".join(map(_replacement, text.translate(_GLYPHS)))


@lru_cache(4096)
def _replacement(character: str) -> str:
    if character.isascii():
        return character
    code, width = ord(character), cell_len(character)
    if 0x2800 <= code < 0x2900:
        return _braille(code - 0x2800)
    if 0x2500 <= code < 0x2580:
        return "+"  # a corner or a crossing; straight lines are in the table
    if unicodedata.category(character) == "Zs":
        return " " * width
    base = unicodedata.normalize("NFKD", character)[:1]
    if base.isascii() and base.isprintable() and width == 1:
        return base
    return "?" * width


def _braille(dots: int) -> str:
    rows = [bool(dots & part) for part in (_TOP, _MIDDLE, _BOTTOM)]
    return {
        (False, False, False): " ",
        (True, False, False): "'",
        (False, True, False): "-",
        (False, False, True): ".",
    }.get((rows[0], rows[1], rows[2]), ":")

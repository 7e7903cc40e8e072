"""A fact that a prompt states, and how values and texts from outside are written in it.

Headlines, names and tickers are text that others wrote: they are folded to one line, cut, and
lose the brackets that chat templates and our own tags are made of, so that no data can open a
turn of the conversation.
"""

import unicodedata
from typing import Literal, NamedTuple

from engine.text import one_line

Unit = Literal["", "%", "$", "K", "M", "B", "$K", "$M", "$B"]

# Look-alikes that no tokenizer reads as <|im_start|>, </s>, [INST] or <answer>.
_LOOK_ALIKES = (("<", "‹"), (">", "›"), ("[", "("), ("]", ")"))
_DOLLAR_UNITS: dict[str, Unit] = {"K": "$K", "M": "$M", "B": "$B"}


class Fact(NamedTuple):
    """One thing the prompt states and a reader can check."""

    kind: Literal["name", "date", "value", "headline"]
    label: str
    """What it is, in the words of the prompt: ``RSI(14)``."""
    text: str
    """Exactly as the prompt writes it: ``66.1``, ``+1.2%``, ``$691.28``, ``21.4M``."""
    value: float | None = None
    """The number as shown, that is, rounded to ``decimals``; signed."""
    unit: Unit = ""
    decimals: int = 0
    names: tuple[str, ...] = ()
    """Lower-case words by which prose refers to it; for a company its names as written."""


class Prices(NamedTuple):
    """How prices are written: in dollars, or masked, as plain numbers at another level."""

    masked: bool = False
    level: float = 1.0
    """What prices are multiplied by."""

    def fact(self, label: str, value: float, names: tuple[str, ...]) -> Fact:
        if self.masked:
            return number(label, value * self.level, 2, names)
        return dollars(label, value, names)

    def difference(self, label: str, value: float, names: tuple[str, ...]) -> Fact:
        return number(label, value * self.level, 2, names)


def untrusted(text: str, limit: int) -> str:
    """Text from outside for use in a prompt: one line, at most ``limit`` characters, inert.

    Control characters become visible, and the brackets of chat-template tokens
    (``<|im_end|>``, ``[INST]``, ``</s>``) look-alikes, full-width forms of them included.
    """
    line = one_line(unicodedata.normalize("NFKC", text), limit)
    for bracket, look_alike in _LOOK_ALIKES:
        line = line.replace(bracket, look_alike)
    return line


def percent(label: str, value: float, names: tuple[str, ...]) -> Fact:
    shown = round(value, 1) + 0.0  # adding 0 turns -0.0 into 0.0
    return Fact("value", label, f"{shown:+.1f}%", shown, "%", 1, names)


def share(label: str, ratio: float) -> Fact:
    shown = round(ratio * 100)
    return Fact("value", label, f"{shown}%", shown, "%", 0, (label,))


def dollars(label: str, value: float, names: tuple[str, ...]) -> Fact:
    text = f"{value:.2f}"
    return Fact("value", label, f"${text}", float(text), "$", 2, names)


def number(label: str, value: float, decimals: int, names: tuple[str, ...]) -> Fact:
    shown = round(value, decimals) + 0.0
    return Fact("value", label, f"{shown:.{decimals}f}", shown, "", decimals, names)


def count(label: str, value: float, names: tuple[str, ...]) -> Fact:
    size, unit = _size(value)
    text = f"{value / size:.1f}"
    return Fact("value", label, f"{text}{unit}", float(text), unit, 1, names)


def amount(label: str, dollars: float, names: tuple[str, ...]) -> Fact:
    """Dollars of a statement: per share to the cent, else in thousands, millions or billions."""
    sign = "-" if dollars < 0 else ""
    if abs(dollars) < 1e3:
        shown = round(dollars, 2) + 0.0
        return Fact("value", label, f"{sign}${abs(shown):.2f}", shown, "$", 2, names)
    size, unit = _size(abs(dollars))
    shown = round(dollars / size, 1)
    text = f"{sign}${abs(shown):.1f}{unit}"
    return Fact("value", label, text, shown, _DOLLAR_UNITS[unit], 1, names)


def _size(value: float) -> tuple[float, Literal["K", "M", "B"]]:
    return (1e9, "B") if value >= 1e9 else (1e6, "M") if value >= 1e6 else (1e3, "K")

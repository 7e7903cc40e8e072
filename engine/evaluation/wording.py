"""Values of a report in words: never without their interval, or why there is none."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from engine.evaluation.document import Table

Values = Mapping[str, Any]
"""A value: ``value``, ``low``, ``high``, ``n`` and ``why``."""

NOT_COMPUTABLE = "not computable"
MINUS = "−"


def percent(number: float, digits: int = 1) -> str:
    """``54.1 %``."""
    return f"{plain(100 * number, digits)} %"


def plain(number: float, digits: int = 3) -> str:
    """``−0.012``, with a true minus; a rounded zero has no sign."""
    text = f"{number:.{digits}f}"
    return text.lstrip("-") if float(text) == 0 else text.replace("-", MINUS)


def share(value: Values) -> str:
    """``54.1 % [50.9, 57.2]``; what is not computable is said without the reason."""
    return _with_interval(value, lambda number: plain(100 * number, 1), " %")


def points(value: Values) -> str:
    """A difference of shares: ``+1.2 pp [−0.3, +2.7]``."""
    return _with_interval(value, lambda number: _signed(100 * number, 1), " pp")


def figure(value: Values, digits: int = 3) -> str:
    """``0.012 [−0.010, 0.034]``."""
    return _with_interval(value, lambda number: plain(number, digits), "")


def p_value(p: float | None) -> str:
    """``0.012``, ``< 0.001``."""
    if p is None:
        return NOT_COMPUTABLE
    return "< 0.001" if p < 0.001 else f"{p:.3f}"


def count(number: int) -> str:
    """``1,250``."""
    return f"{number:,}"


def _signed(number: float, digits: int) -> str:
    text = plain(number, digits)
    return text if text.startswith(MINUS) or float(text) == 0 else f"+{text}"


def _with_interval(value: Values, written: Callable[[float], str], unit: str) -> str:
    if value["value"] is None:
        return NOT_COMPUTABLE
    text = written(value["value"]) + unit
    if value.get("low") is None:
        return text
    return f"{text} [{written(value['low'])}, {written(value['high'])}]"


class TableOfValues:
    """Builds a table and numbers the reasons why something in it is missing."""

    def __init__(self, *header: str) -> None:
        self._header = header
        self._rows: list[tuple[str, ...]] = []
        self._reasons: list[str] = []

    def row(self, name: str, *cells: str) -> None:
        """Add a row of finished cells."""
        assert len(cells) == len(self._header) - 1
        self._rows.append((name, *cells))

    def cell(self, value: Values | None, written: Callable[[Values], str] = share) -> str:
        """``value`` as ``written``, with the number of its reason where it has one."""
        if value is None:
            return ""
        text, why = written(value), value.get("why")
        if not why:
            return text
        if why not in self._reasons:
            self._reasons.append(why)
        return f"{text} ({self._reasons.index(why) + 1})"

    def done(self, *notes: str) -> Table:
        """The table; ``notes`` stand under the reasons."""
        reasons = [f"({number}) {why}" for number, why in enumerate(self._reasons, start=1)]
        return Table(self._header, tuple(self._rows), (*reasons, *notes))


def listing(rows: Sequence[tuple[str, str]]) -> Table:
    """Facts, one a line."""
    return Table(("", ""), tuple(rows), is_text=True)

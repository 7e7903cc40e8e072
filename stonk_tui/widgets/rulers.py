"""Round numbers beside and under a chart."""

import math

from textual.content import Content

from stonk_tui.widgets.figures import fixed, minus

GUTTER = 6
"""Columns left of the curves: the numbers and the axis."""


def rule(low: float, high: float, count: int, digits: int | None = None) -> list[tuple[float, str]]:
    """About ``count`` round values within the limits, as (value, how it is written)."""
    found, step = ticks(low, high, count)
    digits = _digits(step) if digits is None else digits
    return [(tick, _label(tick, digits)) for tick in found]


def log_rule(low: float, high: float, count: int) -> list[tuple[float, str]]:
    """The same for powers of ten: ``low`` and ``high`` are the logarithms of the limits."""
    for factors in ((1, 2, 5), (1, 3), (1,)):
        logs = [
            power + math.log10(factor)
            for power in range(math.floor(low), math.ceil(high) + 1)
            for factor in factors
        ]
        within = [log for log in logs if low <= log <= high]
        if len(within) <= count:
            break
    while len(within) > max(2, count):
        within = within[::2]
    if len(within) < 2:
        # Less than a factor of two in sight: equal distances of the values themselves.
        plain, step = ticks(10**low, 10**high, count)
        return [(math.log10(tick), _label(tick, _digits(step))) for tick in plain if tick > 0]
    return [(log, _power(10**log)) for log in within]


def _power(value: float) -> str:
    text = f"{value:g}"
    return text if len(text) < GUTTER else minus(f"{value:.0e}".replace("e-0", "e-"))


def ticks(low: float, high: float, count: int) -> tuple[list[float], float]:
    """Round numbers within the limits, about ``count`` of them, and their distance."""
    rough = (high - low) / max(1, count)
    power = 10 ** math.floor(math.log10(rough))
    step = next(
        (factor * power for factor in (1, 2, 2.5, 5) if factor * power >= rough), 10 * power
    )
    first = math.ceil(low / step - 1e-9)
    ticks: list[float] = []
    while first * step <= high + 1e-9 * step and len(ticks) <= count + 1:
        ticks.append(first * step)
        first += 1
    return ticks, step


def _digits(step: float) -> int:
    """Decimals that tell two neighbouring ticks apart."""
    for digits in range(4):
        if abs(round(step, digits) - step) < 1e-9:
            return digits
    return 4


def _label(tick: float, digits: int) -> str:
    text = fixed(tick, digits)
    # Never wider than the gutter: very small and very large figures as powers of ten.
    return text if len(text) < GUTTER else minus(f"{tick:.0e}".replace("e-0", "e-"))


def x_ruler(low: float, high: float, columns: int, label: str) -> Content:
    """``└┬────┬──`` folded into one line: numbers standing under their place."""
    line = [" "] * columns
    places = ticks(low, high, max(2, columns // 14))[0] if high - low >= 2 else [low, high]
    right = columns - len(label) - 1 if label else columns
    for tick in places:
        text = minus(f"{tick:.0f}")
        column = round((tick - low) / (high - low) * (columns - 1))
        start = min(max(0, column - len(text) // 2), columns - len(text))
        place = range(max(0, start - 1), start + len(text) + 1)
        if start + len(text) > right or any(line[at] != " " for at in place if at < columns):
            continue
        line[start : start + len(text)] = text
    text = "".join(line)
    if label:
        text = text[: columns - len(label)] + label
    return Content.assemble((" " * (GUTTER - 1) + "└", "$faint"), (text, "$quiet"))

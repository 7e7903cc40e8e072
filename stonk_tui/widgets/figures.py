"""Numbers as people read them: fixed width, with unit, ``·`` where not known.

Everything here takes any object: the figures come out of a store that another
version, or another program, may have written.
"""

import itertools
import math
import time

from stonk_tui.theme import UNKNOWN

_THIN_SPACE = "\u202f"
# Not up to the full block: rows of little columns must not run into each other.
_SPARKS = "▁▂▃▄▅▆"


def known(value: object) -> float | None:
    """``value`` as a finite number, or None."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    try:
        number = float(value)
    except OverflowError:
        return None
    return number if math.isfinite(number) else None


def minus(text: str) -> str:
    """Use the true minus sign, which is as wide as a plus."""
    return text.replace("-", "−")


def fixed(value: object, digits: int = 2) -> str:
    """``0.62``; large numbers fall back to three significant digits."""
    number = known(value)
    if number is None:
        return UNKNOWN
    if abs(number) >= 10_000:
        return minus(f"{number:.2e}")
    text = f"{number:.{digits}f}"
    # A rounded zero has no sign.
    return minus(text.lstrip("-") if float(text) == 0 else text)


def signed(value: object, digits: int = 2) -> str:
    """``+0.11`` or ``−0.11``."""
    number = known(value)
    if number is None:
        return UNKNOWN
    text = fixed(number, digits)
    return text if text.startswith("−") else f"+{text}"


def weight(value: object) -> str:
    """``.35``, or ``1.0``; ``·`` for a component that is only watched."""
    number = known(value)
    if not number:
        return UNKNOWN
    return minus(f"{number:.2f}".replace("0.", ".", 1))


def share(value: object) -> str:
    """A share of 1 as ``62 %``."""
    number = known(value)
    return UNKNOWN if number is None else minus(f"{100 * number:.0f} %")


def percent(value: object, digits: int = 1) -> str:
    """Percentage points as ``+0.8 %``."""
    number = known(value)
    return UNKNOWN if number is None else f"{signed(number, digits)} %"


def interval(low: object, high: object) -> str:
    """Two shares as ``[46, 64]``; nothing where one is missing."""
    bottom, top = known(low), known(high)
    if bottom is None or top is None:
        return ""
    return f"[{100 * bottom:.0f}, {100 * top:.0f}]"


def whole(value: object) -> str:
    """``1 840`` with thin spaces between thousands."""
    number = known(value)
    return UNKNOWN if number is None else minus(f"{number:,.0f}".replace(",", _THIN_SPACE))


def small(value: object) -> str:
    """A figure whose size is not known beforehand, in at most six characters."""
    number = known(value)
    if number is None:
        return UNKNOWN
    size = abs(number)
    if size >= 1000:
        return minus(f"{number:.0e}" if size >= 100_000 else f"{number:.0f}")
    if size >= 100:
        return fixed(number, 0)
    if size >= 10:
        return fixed(number, 1)
    if 0 < size < 0.001:
        return minus(f"{number:.0e}".replace("e-0", "e-"))
    return fixed(number, 3 if size < 1 else 2)


def gib(size_bytes: object) -> str:
    """Bytes as ``11.2``, in GiB."""
    number = known(size_bytes)
    if number is None:
        return UNKNOWN
    value = number / 2**30
    return f"{value:.0f}" if value >= 100 else f"{value:.1f}"


def duration(seconds: object) -> str:
    """``12 s``, ``4 m 10 s``, ``3 h 05 m``, ``2 d 4 h``."""
    number = known(seconds)
    if number is None:
        return UNKNOWN
    total = max(0, round(number))
    if total < 60:
        return f"{total} s"
    if total < 3600:
        return f"{total // 60} m {total % 60:02d} s" if total < 600 else f"{total // 60} m"
    if total < 86_400:
        return f"{total // 3600} h {total % 3600 // 60:02d} m"
    return f"{total // 86_400} d {total % 86_400 // 3600} h"


def clock_time(moment: object) -> str:
    """Local time of day."""
    number = known(moment)
    if number is None:
        return UNKNOWN
    try:
        return time.strftime("%H:%M:%S", time.localtime(number))
    except (OverflowError, ValueError, OSError):
        return UNKNOWN


def meter(fraction: object, width: int) -> tuple[str, str]:
    """(done, rest) of a bar as thin as a line, in halves of a cell."""
    part = min(1.0, max(0.0, known(fraction) or 0.0))
    full, half = divmod(round(part * max(0, width) * 2), 2)
    done = "━" * full + ("╸" if half else "")
    return done, "─" * (max(0, width) - len(done))


def sparkline(values: list[float], width: int) -> str:
    """The last values as little columns; bins keep their mean when there are too many."""
    finite = [value for value in map(known, values) if value is not None]
    if not finite or width <= 0:
        return ""
    if len(finite) > width:
        edges = [round(index * len(finite) / width) for index in range(width + 1)]
        finite = [
            sum(finite[start:end]) / (end - start) for start, end in itertools.pairwise(edges)
        ]
    low, high = min(finite), max(finite)
    span = high - low
    if span <= 0:
        return _SPARKS[0] * len(finite)
    return "".join(
        _SPARKS[min(len(_SPARKS) - 1, int((value - low) / span * len(_SPARKS)))] for value in finite
    )

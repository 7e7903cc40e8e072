"""Words on the terminal: every line is made safe to show here, once."""

import json
import sys
import traceback
from collections.abc import Sequence
from typing import Any

from engine.secrets import mask, masked
from engine.text import sanitize


def say(text: str = "") -> None:
    """One or more lines on stdout, at once visible to whoever reads a pipe."""
    sys.stdout.write(safe(text) + "\n")
    sys.stdout.flush()


def note(text: str) -> None:
    """A line beside the output proper: warnings, errors, hints."""
    sys.stdout.flush()
    sys.stderr.write(safe(f"stonk-tui: {text}") + "\n")
    sys.stderr.flush()


def show_traceback(error: BaseException) -> None:
    """Where ``error`` came from, beside the output proper."""
    sys.stdout.flush()
    sys.stderr.write(safe("".join(traceback.format_exception(error))))
    sys.stderr.flush()


def say_json(value: Any, *, indent: int | None = 2) -> None:
    """``value`` as JSON in plain ASCII, so that no terminal obeys what a text holds.

    A text in it is whole, however long: a program reads it.
    """
    sys.stdout.write(json.dumps(masked(value), indent=indent) + "\n")
    sys.stdout.flush()


def safe(text: str) -> str:
    """``text`` as it may be shown: nothing in it is obeyed, and nothing in it is secret."""
    return sanitize(mask(text))


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Columns as wide as their longest cell; the last one is not padded."""
    safe = [[" ".join(sanitize(cell).split()) for cell in row] for row in (header, *rows)]
    widths = [max(len(row[column]) for row in safe) for column in range(len(header))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in safe
    )


def duration(seconds: float) -> str:
    """``8s``, ``3m 46s`` or ``2h 05m``."""
    whole = max(0, round(seconds))
    if whole < 60:
        return f"{whole}s"
    if whole < 3600:
        return f"{whole // 60}m {whole % 60:02d}s"
    return f"{whole // 3600}h {whole % 3600 // 60:02d}m"

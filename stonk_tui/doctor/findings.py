"""What the doctor's parts share: a finding, its levels, and how figures are written."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

Level = Literal["ok", "note", "warning", "error"]
SEVERITY: tuple[Level, ...] = ("ok", "note", "warning", "error")

GIB = 2**30


@dataclass(frozen=True)
class Finding:
    """One thing looked at."""

    name: str
    level: Level
    message: str
    fix: str | None = None


def gib(size: int) -> str:
    """Bytes as a person reads them."""
    return f"{size / GIB:.1f} GiB"


def dotted(version: Iterable[int] | None) -> str:
    """A version's numbers as text."""
    return ".".join(map(str, version)) if version else "unknown"

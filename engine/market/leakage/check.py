"""What a check found, and the verdict of the checks that count offences."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

Verdict = Literal["green", "red", "skipped"]


@dataclass(frozen=True)
class Check:
    """What one check found."""

    name: str
    proves: str
    """What a green verdict says."""
    verdict: Verdict
    """``skipped``: there was nothing, or too little, to judge by."""
    checked: int
    """Things looked at."""
    offences: int
    first: str | None
    """The first thing that offends."""
    evidence: str
    """One line for a person."""


def counted(
    name: str,
    proves: str,
    checked: int,
    offences: Sequence[str],
    things: str,
    remark: str = "",
) -> Check:
    """The verdict of a check that counts offences."""
    evidence = f"{len(offences):,} of {checked:,} {things} offend"
    if not checked:
        evidence = f"this source has no {things}"
    elif not offences:
        evidence = f"{checked:,} {things}"
    return Check(
        name,
        proves,
        "red" if offences else "green" if checked else "skipped",
        checked,
        len(offences),
        offences[0] if offences else None,
        f"{evidence}; {remark}" if remark else evidence,
    )

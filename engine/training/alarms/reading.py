"""What a rule says of the stream it looked at."""

from collections.abc import Callable
from dataclasses import dataclass

from engine.training.alarms.stream import Stream


@dataclass(frozen=True)
class Reading:
    """One rule's view, whichever side of its threshold the value is on.

    Between ``is_raised`` and ``is_over`` lies a band in which an alarm stays as it was, so that
    a value at the threshold does not flap.
    """

    value: float
    threshold: float
    is_raised: bool
    is_over: bool
    title: str
    """At most 60 characters, with the number."""
    explanation: str
    advice: str


Rule = Callable[[Stream], Reading | None]
"""Gives None where the stream holds too little to judge."""

"""Alarms: what goes wrong in GRPO, found in the metrics, explained, with what to do.

``stream`` remembers what the rules look at, the rules are pure functions of it, and ``Alarms``
turns them on and off.
"""

from engine.training.alarms.alarms import Alarms
from engine.training.alarms.stream import AlarmSettings

__all__ = ["AlarmSettings", "Alarms"]

"""What deserves a bell: found by comparing how a run stood with how it stands.

Only what happens after the cockpit has read a run to its end is announced, so that opening
an old run is silent.
"""

from dataclasses import dataclass

from engine.text import one_line
from stonk_tui.feed import RunModel

MAX_CHARACTERS = 160
_ENDED = {
    "failed": "has failed",
    "finished": "has finished",
    "stopped": "was stopped",
    "stale": "has lost its worker",
}


@dataclass(frozen=True)
class Standing:
    """What announcements depend on."""

    state: str
    alarms: frozenset[tuple[str, int]]
    """(name, step at which it came on)."""
    times_super_saiyan: int


@dataclass(frozen=True)
class Announcements:
    """What has happened between two standings of a run, each as one clean line."""

    super_saiyan: str = ""
    alarms: tuple[str, ...] = ()
    ended: str = ""

    @property
    def lines(self) -> tuple[str, ...]:
        """All of them, what matters most first."""
        return tuple(filter(None, (self.super_saiyan, self.ended, *self.alarms)))


def standing(view: RunModel) -> Standing:
    """How the run stands now."""
    history = view.history
    alarms = frozenset((alarm.name, alarm.since_step) for alarm in history.alarms.values())
    return Standing(view.state[0], alarms, len(history.super_saiyan))


def compare(before: Standing, view: RunModel) -> Announcements:
    """What has happened to ``view`` since it stood as in ``before``."""
    now, history = standing(view), view.history
    lit = ""
    if now.times_super_saiyan > before.times_super_saiyan:
        best = f": promote best, {history.best}" if history.best else ""
        lit = f"All four lights are on, power {history.power}{best}"
    new = now.alarms - before.alarms
    titles = [
        f"alarm: {alarm.title}"
        for alarm in history.alarms.values()
        if (alarm.name, alarm.since_step) in new
    ]
    ended = ""
    if now.state != before.state and now.state in _ENDED:
        ended = f"{view.run.id} {_ENDED[now.state]}"
    return Announcements(_clean(lit), tuple(map(_clean, titles)), _clean(ended))


def osc9(text: str) -> str:
    """The sequence that asks a terminal for a desktop notification (iTerm2's OSC 9).

    ``text`` is cleaned, so that it cannot end the sequence; the name before it keeps a text
    that begins with a digit from being taken for ConEmu's progress commands.
    """
    return f"\x1b]9;stonk-tui: {_clean(text)}\x07"


def _clean(text: str) -> str:
    return one_line(text, MAX_CHARACTERS)

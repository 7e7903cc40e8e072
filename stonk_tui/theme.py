"""Glyphs, words and styles: how the cockpit says what it means.

A state, a side or a verdict is always told three ways: by word, glyph and colour,
so that none of them is lost on a monochrome terminal or a colour-blind reader.
Styles name theme variables (``$up``), never colours, so the theme can change at any time.
"""

from dataclasses import dataclass

UNKNOWN = "·"
"""Stands where a figure is not known: never 0."""


@dataclass(frozen=True)
class Look:
    """How one meaning is shown."""

    glyph: str
    word: str
    style: str


STATES: dict[str, Look] = {
    "prepared": Look("◇", "prepared", "$gold"),
    "starting": Look("◌", "starting", "$warn"),
    "warming_up": Look("◔", "warming up", "$warn"),
    "training": Look("●", "training", "$good"),
    "paused": Look("‖", "paused", "$warn"),
    "evaluating": Look("◎", "evaluating", "$secondary"),
    "stopping": Look("◍", "stopping", "$warn"),
    "finished": Look("✓", "finished", "$good"),
    "stopped": Look("■", "stopped", "$warn"),
    "failed": Look("✗", "failed", "$bad"),
    "unreadable": Look("!", "unreadable", "$bad"),
    "stale": Look("◇", "stale", "$bad"),
}
_STRANGE_STATE = Look("◌", "unknown", "$quiet")

UP = Look("▲", "UP", "$up")
DOWN = Look("▼", "DOWN", "$down")
RIGHT = Look("✓", "right", "$good")
WRONG = Look("✗", "wrong", "$bad")
UNPARSED = Look("?", "unparsed", "$warn")

ALARM = Look("⚠", "alarm", "$bad")
QUIET = Look("✓", "quiet", "$good")

VERDICTS: dict[str, Look] = {
    "no evidence": Look("○", "no evidence", "$ink"),
    "weak": Look("◐", "weak", "$warn"),
    "strong": Look("●", "strong", "$good"),
    "suspect leakage": Look("⚠", "suspect leakage", "$bad"),
}
"""What an evaluation says of a checkpoint; see docs/evaluation.md."""

LEVELS: dict[str, Look] = {
    "info": Look("·", "info", "$quiet"),
    "good": Look("✓", "good", "$good"),
    "warning": Look("!", "warning", "$warn"),
    "error": Look("✗", "error", "$bad"),
}

_COMPONENT_STYLES = {
    "format": "$format",
    "direction": "$direction",
    "magnitude": "$magnitude",
    "confidence": "$confidence",
    "data_use": "$data-use",
    "coherence": "$coherence",
    "total": "$total",
}


def state_look(state: str) -> Look:
    """The look of a run's state; one that this version does not know is shown as unknown."""
    return STATES.get(state, _STRANGE_STATE)


def level_look(level: str) -> Look:
    """The look of a log line's level."""
    return LEVELS.get(level, LEVELS["info"])


def component_style(name: str) -> str:
    """The colour of a reward component, the same in chart, breakdown and rollout."""
    return _COMPONENT_STYLES.get(name, "$ink")


def side_look(direction: object) -> Look | None:
    """UP or DOWN; None for anything else."""
    return {"UP": UP, "DOWN": DOWN}.get(direction) if isinstance(direction, str) else None

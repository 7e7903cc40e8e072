"""Colours, glyphs and words: how the cockpit says what it means.

A state, a side or a verdict is always told three ways: by word, glyph and colour,
so that none of them is lost on a monochrome terminal or a colour-blind reader.
Styles name theme variables (``$up``), never colours, so a theme can change at any time.
"""

from dataclasses import dataclass

from textual.theme import Theme

SAIYAN = Theme(
    name="saiyan",
    dark=True,
    background="#0b0d12",
    surface="#12151d",
    panel="#1a1e29",
    foreground="#d7dae3",
    primary="#ffb000",
    secondary="#8ecae6",
    accent="#ffb000",
    success="#8bd450",
    warning="#ffd166",
    error="#ef476f",
    variables={
        "edge": "#2a2f3d",
        "gold": "#ffb000",
        "ink": "#d7dae3",
        "quiet": "#7d8597",
        "faint": "#3d4457",
        "course": "#56789a",
        "up": "#2ec4b6",
        "down": "#ff7f50",
        "good": "#8bd450",
        "warn": "#ffd166",
        "bad": "#ef476f",
        "format": "#8ecae6",
        "direction": "#2ec4b6",
        "magnitude": "#c792ea",
        "confidence": "#ffb000",
        "data-use": "#8bd450",
        "coherence": "#a0a8b8",
        "total": "#ffffff",
        # What Textual's own widgets draw with.
        "border": "#ffb000",
        "border-blurred": "#2a2f3d",
        "footer-background": "#12151d",
        "block-cursor-background": "#2a2f3d",
        "block-cursor-foreground": "#ffffff",
        "scrollbar": "#2a2f3d",
        "scrollbar-hover": "#3d4457",
        "scrollbar-active": "#ffb000",
        "scrollbar-background": "#0b0d12",
        "scrollbar-corner-color": "#0b0d12",
    },
)

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

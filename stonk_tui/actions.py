"""ONE table of everything a person can do in the cockpit.

From it come the key bindings (with ids, so that they can be remapped), the footer, the
command palette and the help screen. An action is done by the method ``do_<id>`` of the
screen or app that its scope names; tests refuse one without the other.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from textual.binding import Binding, BindingType

if TYPE_CHECKING:
    from stonk_tui.app import Cockpit

Scope = Literal["app", "train", "runs", "rollout", "log"]


@dataclass(frozen=True)
class Action:
    """One thing that can be done."""

    id: str
    key: str
    """Textual's names of the keys, comma-separated."""
    shown_key: str
    """The key as it is printed."""
    label: str
    help: str
    scope: Scope
    footer: int = 0
    """Place in the footer, from 1; 0 leaves it out."""
    cli: str = ""
    """The same on the command line."""
    why_not: "Callable[[Cockpit], str]" = lambda app: ""
    """Why it cannot be done right now; empty when it can."""
    is_rare: bool = False
    """Left out of the footer while it cannot be done."""


def _no_run(app: "Cockpit") -> str:
    return "" if app.model is not None else "no run is attached: choose one with enter"


def _no_command(app: "Cockpit") -> str:
    """Why the run takes no command."""
    if app.model is None:
        return _no_run(app)
    if app.read_only:
        return "this cockpit was opened read-only"
    if not app.model.commandable:
        return f"the run is {app.model.state[0].replace('_', ' ')}: no worker listens"
    return ""


def _no_promotion(app: "Cockpit") -> str:
    """Why the attached run cannot be promoted."""
    if app.model is None:
        return _no_run(app)
    if app.read_only:
        return "this cockpit was opened read-only"
    if app.model.config is not None and app.model.config.stage != "I":
        return "the run is Stage II already"
    return "" if app.model.history.checkpoints else "no checkpoint yet: c keeps one"


def _no_start(app: "Cockpit") -> str:
    """Why nothing can be started here."""
    if app.read_only:
        return "this cockpit was opened read-only"
    return "" if app.prepared_run else "this run does not wait to be started"


def _chart(
    name: str,
    key: str,
    shown_key: str,
    label: str,
    help_text: str,
    *,
    needs: str = "",
    footer: int = 0,
) -> Action:
    """Something that is done with the chart in focus, where ``needs`` is possible."""
    return Action(
        f"chart_{name}",
        key,
        shown_key,
        label,
        help_text,
        "train",
        footer,
        why_not=lambda app: _no_run(app) or app.why_no_chart(needs),
        is_rare=True,
    )


_PANEL_HELP = (
    ("reward", "Is it learning? The reward over steps."),
    ("saiyan", "Is it ready? The four lights and the power level."),
    ("breakdown", "At what? The reward's components."),
    ("market", "Is it fooling itself? Sides, accuracy, calibration."),
    ("health", "Is the training sound? KL, entropy, gradients, time."),
    ("rollouts", "What does it say? The newest completions."),
    ("device", "Is the machine busy? GPU, processor, memory."),
    ("alarms", "What is going wrong? Alarms that are on."),
    ("events", "What happened? The event log."),
)

ACTIONS: tuple[Action, ...] = (
    # --- anywhere
    Action("runs", "r", "r", "runs", "All runs, and how they are doing.", "app", 8, "runs"),
    Action(
        "train", "t", "t", "train", "The run that is attached.", "app", 0, "attach RUN", _no_run
    ),
    Action(
        "log", "l", "l", "log", "The event log, and the worker's own output.", "app", 9, "", _no_run
    ),
    Action(
        "pause",
        "p",
        "p",
        "pause",
        "Pause between two steps, or go on. The device stays taken.",
        "app",
        2,
        "pause RUN | stonk-tui resume RUN",
        _no_command,
    ),
    Action(
        "checkpoint",
        "c",
        "c",
        "checkpoint",
        "Keep a checkpoint after the step in hand.",
        "app",
        3,
        "checkpoint RUN",
        _no_command,
    ),
    Action(
        "stop",
        "S",
        "S",
        "stop",
        "End the run after the step in hand, with a checkpoint. Asks first.",
        "app",
        6,
        "stop RUN",
        _no_command,
    ),
    Action(
        "promote",
        "P",
        "P",
        "promote",
        "Make a Stage II run from a checkpoint of this Stage I run. Asks first.",
        "app",
        7,
        "promote RUN",
        _no_promotion,
    ),
    Action(
        "start",
        "G",
        "G",
        "start",
        "Go: start the prepared run that is attached, or under the cursor among the runs.",
        "app",
        2,
        "train --resume RUN",
        _no_start,
        is_rare=True,
    ),
    Action(
        "motion",
        "m",
        "m",
        "motion",
        "Let things move on screen, or not.",
        "app",
    ),
    Action(
        "help", "question_mark,f1", "?", "help", "This list, and what the panels mean.", "app", 10
    ),
    Action(
        "detach",
        "q",
        "q",
        "detach",
        "Leave the cockpit. The run goes on.",
        "app",
        11,
    ),
    Action("back", "escape", "esc", "back", "Back to where you came from.", "app", 1),
    # --- train
    *(
        Action(f"panel_{name}", str(number), str(number), f"{name} panel", help_text, "train")
        for number, (name, help_text) in enumerate(_PANEL_HELP, 1)
    ),
    Action("next_panel", "tab", "tab", "next", "The next panel.", "train", 5),
    Action("previous_panel", "shift+tab", "shift+tab", "previous", "The panel before.", "train"),
    Action(
        "zoom", "z", "z", "zoom", "Give the panel the whole screen, or fold it back.", "train", 4
    ),
    Action(
        "open",
        "enter",
        "⏎",
        "open",
        "Open the rollout under the cursor, or explain an alarm.",
        "train",
        1,
    ),
    # --- the chart of the train screen
    _chart("next", "v", "v", "show next", "Chart: what comes next, reward to gradient.", footer=2),
    _chart("choose", "V", "V", "show", "Chart: choose among all metrics."),
    _chart(
        "rougher",
        "left_square_bracket",
        "[",
        "less smooth",
        "Chart: a shorter mean.",
        needs="rougher",
    ),
    _chart(
        "smoother",
        "right_square_bracket",
        "]",
        "smoother",
        "Chart: a longer mean, always over the whole series.",
        needs="smoother",
    ),
    _chart(
        "in",
        "plus,equals_sign",
        "+",
        "zoom in",
        "Chart: fewer steps; the newest stays while you follow. The wheel, too.",
        needs="in",
    ),
    _chart("out", "minus", "-", "zoom out", "Chart: more steps.", needs="out"),
    _chart(
        "left",
        "left",
        "←",
        "earlier",
        "Chart: move the value cursor, or the window. Dragging moves it, too.",
        needs="move",
    ),
    _chart(
        "right",
        "right",
        "→",
        "later",
        "Chart: move the value cursor, or the window, towards the newest step.",
        needs="move",
    ),
    _chart(
        "follow",
        "end",
        "End",
        "follow",
        "Chart: back to the newest step, and stay there.",
        needs="follow",
        footer=1,
    ),
    _chart("whole", "0", "0", "whole run", "Chart: all steps.", needs="whole"),
    _chart("log", "y", "y", "log scale", "Chart: equal factors at equal distances.", needs="log"),
    _chart(
        "cursor",
        "i",
        "i",
        "values",
        "Chart: tell every line's value at a step, or stop; a click points.",
        footer=3,
    ),
    _chart("export", "w", "w", "export", "Chart: write what is shown to a new file.", footer=6),
    # --- a rollout
    Action("next_sample", "n", "n", "next", "The next answer to the same prompt.", "rollout", 1),
    Action("previous_sample", "N", "N", "previous", "The answer before.", "rollout", 2),
    Action(
        "next_group",
        "right_square_bracket",
        "]",
        "group ›",
        "The next prompt of the step.",
        "rollout",
        4,
    ),
    Action(
        "previous_group", "left_square_bracket", "[", "‹ group", "The prompt before.", "rollout", 3
    ),
    Action("reveal", "x", "x", "reveal", "Show or hide what the market did.", "rollout", 5),
    # --- runs
    Action(
        "attach", "enter", "⏎", "attach", "Watch the run under the cursor.", "runs", 1, "attach RUN"
    ),
    # --- log
    Action(
        "switch_log",
        "tab",
        "tab",
        "other half",
        "Between events and the worker's output.",
        "log",
        1,
    ),
    Action("log_end", "end", "end", "newest", "Go to the newest line and stay there.", "log", 2),
)

BY_ID = {action.id: action for action in ACTIONS}


def in_scope(scope: Scope) -> tuple[Action, ...]:
    """The actions of one scope, in the table's order."""
    return tuple(action for action in ACTIONS if action.scope == scope)


def bindings(scope: Scope) -> list[BindingType]:
    """Textual bindings of one scope; ids are the actions', for remapping."""
    where = "app" if scope == "app" else "screen"
    return [
        Binding(
            action.key,
            f"{where}.do('{action.id}')",
            action.label,
            id=action.id,
            show=False,
            # Panels and tables have keys of their own for tab and enter.
            priority=action.key in ("tab", "shift+tab"),
        )
        for action in in_scope(scope)
    ]


def footer(scopes: tuple[Scope, ...]) -> list[Action]:
    """What the footer offers: the screen's own actions first, then the app's."""
    offered: list[Action] = []
    for scope in scopes:
        offered += sorted(
            (action for action in in_scope(scope) if action.footer), key=lambda item: item.footer
        )
    # At home there is little to go back to; the room is better spent on other keys.
    at_home = "train" in scopes or "runs" in scopes
    return [action for action in offered if not (at_home and action.id == "back")]

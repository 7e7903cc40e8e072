"""ONE table of everything a person can do in the cockpit.

From it come the key bindings (with ids, so that they can be remapped), the footer, the
command palette and the help screen; actions that go to a mode come from the table of modes.
An action is done by the method ``do_<id>`` of the screen or app that its scope names; tests
refuse one without the other.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from textual.binding import Binding, BindingType

from stonk_tui.modes import MODES, Mode

if TYPE_CHECKING:
    from stonk_tui.app import Cockpit

Scope = Literal[
    "app", "train", "runs", "compare", "rollouts", "rollout", "log", "probe", "evaluate"
]

PREFIX = "g"
"""The first of two keys."""

UNBOUND = "unbound"
"""A key that no terminal sends: what has no key of its own can still be given one."""


@dataclass(frozen=True)
class Action:
    """One thing that can be done."""

    id: str
    key: str
    """Textual's names of the keys, comma-separated; two in a row have a blank between."""
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
    handler: str = ""
    """Done by ``do_<handler>`` where several actions share one; else by ``do_<id>``."""
    argument: str = ""
    """What a shared handler is told."""


def _no_run(app: "Cockpit") -> str:
    return "" if app.model is not None else "no run is attached: choose one with enter"


def _no_command(app: "Cockpit") -> str:
    """Why the run that is meant takes no command."""
    meant = app.run_meant
    if meant is None:
        return _no_run(app)
    if app.read_only:
        return "this cockpit was opened read-only"
    if not meant.is_commandable:
        return f"the run is {meant.state.replace('_', ' ')}: no worker listens"
    return ""


def _no_promotion(app: "Cockpit") -> str:
    """Why the run that is meant cannot be promoted."""
    meant = app.run_meant
    if meant is None:
        return _no_run(app)
    if app.read_only:
        return "this cockpit was opened read-only"
    if meant.stage not in ("", "I"):
        return "the run is Stage II already"
    key = app.keymap.of("checkpoint")
    return "" if meant.has_checkpoint else f"no checkpoint yet: {key} keeps one"


def _no_question(app: "Cockpit") -> str:
    """Why nothing can be asked here."""
    if app.model is None:
        return _no_run(app)
    if app.read_only:
        return "this cockpit was opened read-only"
    return "one question is being answered" if getattr(app.screen, "is_asking", False) else ""


def _no_start(app: "Cockpit") -> str:
    """Why nothing can be started here."""
    if app.read_only:
        return "this cockpit was opened read-only"
    meant = app.run_meant
    is_prepared = meant is not None and meant.state == "prepared"
    return "" if is_prepared else "this run does not wait to be started"


def _no_export(app: "Cockpit") -> str:
    """Why the list of rollouts in sight cannot be exported."""
    return _no_writing(app) or str(getattr(app.screen, "why_no_export", ""))


def _no_pair(app: "Cockpit") -> str:
    """Why two answers cannot stand side by side."""
    return str(getattr(app.screen, "why_no_pair", ""))


def _mode_action(mode: Mode) -> Action:
    """Going to a mode."""
    return Action(
        mode.name,
        f"{PREFIX} {mode.letter}",
        f"{PREFIX} {mode.letter}",
        mode.name,
        mode.help,
        "app",
        cli=mode.cli,
        why_not=_no_run if mode.needs_run else lambda app: "",
        handler="mode",
        argument=mode.name,
    )


def _nothing_moves(app: "Cockpit") -> str:
    return "" if app.movable is not None else "nothing in focus can be moved through"


def _no_writing(app: "Cockpit") -> str:
    """Why nothing new can be made."""
    return "this cockpit was opened read-only" if app.read_only else ""


def _no_deletion(app: "Cockpit") -> str:
    """Why the run under the cursor cannot be deleted."""
    return _no_writing(app) or _screen_says("delete_run")(app)


def _no_evaluation(app: "Cockpit") -> str:
    """Why no evaluation can be begun."""
    return _no_run(app) or _no_writing(app) or _screen_says("begin_evaluation")(app)


def _no_end_of_evaluation(app: "Cockpit") -> str:
    """Why no evaluation can be stopped."""
    return _no_run(app) or _no_writing(app) or _screen_says("stop_evaluation")(app)


def _screen_says(action_id: str) -> "Callable[[Cockpit], str]":
    """The screen in sight knows whether its action can be done: its ``why_not`` is asked."""

    def why_not(app: "Cockpit") -> str:
        ask = getattr(app.screen, "why_not", None)
        return str(ask(action_id)) if ask is not None else ""

    return why_not


def _chart(
    name: str,
    key: str,
    shown_key: str,
    label: str,
    help_text: str,
    *,
    needs: str = "",
    footer: int = 0,
    writes: bool = False,
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
        why_not=lambda app: (
            _no_run(app) or (_no_writing(app) if writes else "") or app.why_no_chart(needs)
        ),
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


def _no_colour(app: "Cockpit") -> str:
    return "NO_COLOR is set, so there are no colours to choose" if app.no_color else ""


_THEMES = (
    ("saiyan", "Dark, with the project's gold"),
    ("light", "Dark on light"),
    ("high-contrast", "White and strong colours on black"),
    ("colour-blind", "Colours that every eye tells apart"),
    ("monochrome", "Shades of grey"),
    ("ansi", "The terminal's own sixteen colours"),
)

_MOVES = (
    ("top", "g g", "g g", "first", "The first row or line of what is in focus."),
    ("bottom", "G", "G", "last", "The last row or line of what is in focus."),
    ("half_down", "ctrl+d", "ctrl+d", "half down", "Half a page down."),
    ("half_up", "ctrl+u", "ctrl+u", "half up", "Half a page up."),
)

ACTIONS: tuple[Action, ...] = (
    # --- anywhere
    *map(_mode_action, MODES),
    Action("commands", "ctrl+p", "ctrl+p", "commands", "All of this by name.", "app", 8),
    Action(
        "go",
        PREFIX,
        PREFIX,
        "go to",
        "Go elsewhere: the footer says which second keys there are.",
        "app",
        9,
        handler="prefix",
        argument=PREFIX,
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
        4,
        "promote RUN",
        _no_promotion,
    ),
    Action(
        "start",
        "B",
        "B",
        "start",
        "Begin: start the prepared run that is attached, or under the cursor among the runs.",
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
        "next_theme",
        "T",
        "T",
        "theme",
        "The next theme; the commands have each by name.",
        "app",
        why_not=_no_colour,
    ),
    *(
        Action(
            f"theme_{name.replace('-', '_')}",
            "",
            "",
            f"theme {name}",
            f"{help_text}.",
            "app",
            why_not=_no_colour,
            handler="theme",
            argument=name,
        )
        for name, help_text in _THEMES
    ),
    *(
        Action(
            name,
            key,
            shown,
            label,
            help_text,
            "app",
            why_not=_nothing_moves,
            handler="move",
            argument=name,
        )
        for name, key, shown, label, help_text in _MOVES
    ),
    Action(
        "help",
        "question_mark,f1,g h",
        "?",
        "help",
        "This list, and what the panels mean.",
        "app",
        10,
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
    Action(
        "settings",
        "s",
        "s",
        "settings",
        "Change learning rate, KL coefficient, temperature or cadence from the next step on.",
        "train",
        6,
        "set RUN KEY=VALUE",
        _no_run,
    ),
    Action(
        "open_evaluate",
        "e",
        "e",
        "evaluate",
        "Go to the evaluations of the run, and begin one there.",
        "train",
        5,
        why_not=_no_run,
    ),
    Action("find_rollouts", "slash", "/", "filter", "Find rollouts among all of the run.", "train"),
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
    _chart(
        "export",
        "w",
        "w",
        "export",
        "Chart: write what is shown to a new file.",
        footer=6,
        writes=True,
    ),
    # --- rollouts
    Action(
        "open_rollout", "enter", "⏎", "open", "Open the rollout under the cursor.", "rollouts", 1
    ),
    Action(
        "filter",
        "slash",
        "/",
        "filter",
        "Say which ones, as in ticker:AAPL right:no reward<0.3 text:~merger step>100.",
        "rollouts",
        2,
        "export RUN --rollouts --filter TEXT",
    ),
    Action("sort", "greater_than_sign", ">", "sort", "Order by the next column.", "rollouts", 3),
    Action("turn", "less_than_sign", "<", "turn", "Turn the order around.", "rollouts", 4),
    Action("next_rollout", "n", "n", "next", "The next one of the list.", "rollouts"),
    Action("previous_rollout", "N", "N", "previous", "The one before.", "rollouts"),
    Action(
        "newest", "home", "home", "first", "To the first one; newer ones are followed.", "rollouts"
    ),
    Action(
        "export_rollouts",
        "w",
        "w",
        "export",
        "Write all that pass the filter as CSV, JSON Lines or Parquet.",
        "rollouts",
        5,
        "export RUN --rollouts --format csv --out FILE",
        _no_export,
    ),
    # --- a rollout
    Action("next_sample", "n", "n", "next", "The next answer to the same prompt.", "rollout", 1),
    Action("previous_sample", "N", "N", "previous", "The answer before.", "rollout", 2),
    Action(
        "next_listed",
        "right_square_bracket",
        "]",
        "list ›",
        "The next one of the list it was opened from; from Train, the next prompt.",
        "rollout",
        4,
    ),
    Action(
        "previous_listed", "left_square_bracket", "[", "‹ list", "The one before.", "rollout", 3
    ),
    Action("reveal", "x", "x", "reveal", "Show or hide what the market did.", "rollout", 5),
    Action(
        "pair",
        "v",
        "v",
        "side by side",
        "This answer beside the next one of its group, or alone.",
        "rollout",
        6,
        "",
        _no_pair,
    ),
    Action("copy_completion", "y", "y", "copy", "Copy what it said.", "rollout", 7),
    Action("copy_prompt", "Y", "Y", "copy prompt", "Copy what the model saw.", "rollout"),
    # --- runs
    Action(
        "attach",
        "enter",
        "⏎",
        "attach",
        "Watch the run under the cursor.",
        "runs",
        1,
        "attach RUN",
        _screen_says("attach"),
    ),
    Action(
        "filter_runs",
        "slash",
        "/",
        "filter",
        "Show some runs only: state:, stage:, ticker:, or a regular expression.",
        "runs",
        2,
        why_not=_screen_says("filter_runs"),
    ),
    Action(
        "sort_runs",
        "greater_than_sign",
        ">",
        "sort",
        "The next order: newest, reward, accuracy, step, state, name.",
        "runs",
        3,
        why_not=_screen_says("sort_runs"),
    ),
    Action(
        "reverse_runs",
        "less_than_sign",
        "<",
        "turn",
        "Turn the order around.",
        "runs",
        why_not=_screen_says("sort_runs"),
    ),
    Action(
        "select_run",
        "space",
        "space",
        "select",
        "Select the run under the cursor, or not any more.",
        "runs",
        4,
        why_not=_screen_says("select_run"),
    ),
    Action(
        "compare_runs",
        "v",
        "v",
        "compare",
        "Lay the selected runs over each other in charts.",
        "runs",
        5,
        why_not=_screen_says("compare_runs"),
    ),
    Action(
        "new_run",
        "n",
        "n",
        "new run",
        "Fill in the settings of a new run, and prepare or start it.",
        "runs",
        2,
        "train CONFIG",
        _no_writing,
    ),
    Action(
        "door_demo",
        "1",
        "1",
        "demo",
        "Start the demo: a small model learns on this machine.",
        "runs",
        cli="demo",
        why_not=_no_writing,
    ),
    Action(
        "door_real",
        "2",
        "2",
        "real run",
        "Look at what a real run needs, then fill in its settings.",
        "runs",
        cli="doctor",
        why_not=_no_writing,
    ),
    Action(
        "door_folder",
        "3",
        "3",
        "open a folder",
        "Watch a run by its folder, wherever it lies.",
        "runs",
    ),
    Action(
        "delete_run",
        "D",
        "D",
        "delete",
        "Delete the run under the cursor for good. Asks first.",
        "runs",
        7,
        "delete RUN",
        _no_deletion,
    ),
    # --- compare
    Action(
        "cursor_left", "left", "←", "earlier", "Read the curves off further left.", "compare", 1
    ),
    Action("cursor_right", "right", "→", "later", "Read them off further right.", "compare", 2),
    Action("cursor_end", "end", "end", "newest", "Read off the newest figures.", "compare", 3),
    Action(
        "next_chart",
        "tab",
        "tab",
        "next chart",
        "The next chart, where there is room for one alone.",
        "compare",
        4,
        why_not=_screen_says("next_chart"),
        is_rare=True,
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
    # --- probe
    Action(
        "ask",
        "f5",
        "f5",
        "ask",
        "Ask; so does enter in a field of one line.",
        "probe",
        1,
        "probe --checkpoint NAME --ticker T --date D",
        _no_question,
    ),
    Action(
        "by_hand",
        "f6",
        "f6",
        "by hand",
        "Type an example of your own, or go back to a day of a source.",
        "probe",
        2,
        "probe --checkpoint NAME --file FILE",
    ),
    Action("past", "f7", "f7", "history", "What was asked before; enter opens one.", "probe", 3),
    # --- evaluate
    Action(
        "begin_evaluation",
        "f5",
        "f5",
        "evaluate",
        "Evaluate what the form says; so does enter in one of its fields.",
        "evaluate",
        1,
        "eval --checkpoint NAME --source S --split test",
        _no_evaluation,
    ),
    Action(
        "stop_evaluation",
        "f6",
        "f6",
        "break off",
        "Stop the evaluation. Asks first; what was predicted is kept, and gone on with.",
        "evaluate",
        2,
        "",
        _no_end_of_evaluation,
    ),
    Action(
        "past_evaluations",
        "f7",
        "f7",
        "reports",
        "The evaluations of before; enter opens a report.",
        "evaluate",
        3,
    ),
    Action(
        "widen_report",
        "f8",
        "f8",
        "widen",
        "Give the report the whole screen, or fold it back.",
        "evaluate",
        4,
    ),
    Action(
        "copy_report_path",
        "y,f4",
        "y",
        "copy path",
        "Copy the path of the report's folder.",
        "evaluate",
        5,
        "",
        _screen_says("copy_report_path"),
    ),
)

BY_ID = {action.id: action for action in ACTIONS}


def in_scope(scope: Scope) -> tuple[Action, ...]:
    """The actions of one scope, in the table's order."""
    return tuple(action for action in ACTIONS if action.scope == scope)


def bindings(scope: Scope) -> list[BindingType]:
    """Textual bindings of one scope; ids are the actions', for remapping.

    Two keys in a row are no binding: the app waits for the second one itself.
    """
    where = "app" if scope == "app" else "screen"
    return [
        Binding(
            ",".join(key for key in action.key.split(",") if key and " " not in key) or UNBOUND,
            f"{where}.do('{action.id}')",
            action.label,
            id=action.id,
            show=False,
            # Panels have keys of their own for tab; and the first of two keys is taken before
            # the second one comes, however fast they are typed.
            priority=action.key in ("tab", "shift+tab") or action.handler == "prefix",
        )
        for action in in_scope(scope)
    ]


def footer(scopes: tuple[Scope, ...]) -> list[Action]:
    """What the footer offers, by place; of equal places the screen's own action comes first."""
    offered = [action for scope in scopes for action in in_scope(scope) if action.footer]
    # At home there is little to go back to; the room is better spent on other keys.
    at_home = "train" in scopes or "runs" in scopes
    return sorted(
        (action for action in offered if not (at_home and action.id == "back")),
        key=lambda action: action.footer,
    )

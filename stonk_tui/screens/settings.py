"""Settings that can change while the run trains: what they are, what they mean, and changing them.

What is typed is held to the limits of the configuration as it is typed; all of it is sent as one
command. The worker checks again, and its answer is a line of the log.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

from textual import events, on, work
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal, Vertical
from textual.content import Content
from textual.message import Message
from textual.screen import ModalScreen
from textual.widgets import Button, Input, Static

from engine.config import RunConfig
from engine.errors import UserError
from engine.runs import live_settings
from engine.runs.live_settings import SETTINGS, Change, Changed, Setting, Value
from stonk_tui.feed import RunModel, in_words
from stonk_tui.theme import UNKNOWN
from stonk_tui.widgets.text import line

REFRESH_SECONDS = 0.5
CHANGED = "*"
_MOST_SHOWN = 8
_ROWS_BESIDES_CHANGES = 19
"""Of the screen, taken by everything but the list of changes."""


@dataclass
class SettingsSent(Message, bubble=False):
    """The worker has the changes, or why not."""

    problem: str


class SettingsScreen(ModalScreen[bool]):
    """A table to edit; dismissed with whether changes were sent."""

    CSS_PATH = "settings.tcss"
    AUTO_FOCUS = "Input"
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape", "leave", "Leave", show=False),
        Binding("down", "app.focus_next", "Next", show=False),
        Binding("up", "app.focus_previous", "Previous", show=False),
    ]

    def __init__(self, model: RunModel, why_not: Callable[[], str]) -> None:
        """Prepare to change settings of the run of ``model``.

        Args:
            model: of the attached run.
            why_not: why nothing can be changed right now; empty when it can.
        """
        super().__init__()
        self._model = model
        self._why_not = why_not
        self._is_busy = False
        self._failure = ""
        self._drawn: object = None

    def compose(self) -> ComposeResult:
        with Vertical() as box:
            box.border_title = Content.assemble(
                " Settings of ", line(self._model.run.id, limit=60), " "
            )
            with Horizontal(id="header"):
                for name, title in (
                    ("name", "setting"),
                    ("now", "now"),
                    ("new", "new"),
                    ("started", "at start"),
                    ("allowed", "allowed"),
                ):
                    yield Static(title, classes=name, markup=False)
            for setting in SETTINGS:
                with Horizontal(classes="setting"):
                    yield Static(setting.label, classes="name", markup=False)
                    yield Static(id=f"now-{setting.key}", classes="now", markup=False)
                    yield Input(id=f"new-{setting.key}", max_length=20, compact=True)
                    yield Static(id=f"started-{setting.key}", classes="started", markup=False)
                    yield Static(setting.allowed, classes="allowed", markup=False)
            yield Static(id="meaning", markup=False)
            yield Static(id="problem", markup=False)
            yield Static(id="changes", markup=False)
            with Horizontal(id="buttons"):
                yield Button("Close", id="close", compact=True)
                yield Button("Apply", id="apply", variant="primary", compact=True)

    def on_mount(self) -> None:
        # On a low screen a toast would cover the buttons.
        self.app.clear_notifications()
        self._refresh()
        # The run goes on below, and others may change its settings too.
        self.set_interval(REFRESH_SECONDS, self._refresh)

    def on_resize(self) -> None:
        self._drawn = None
        self._refresh()

    # --- what is shown

    def _refresh(self) -> None:
        """Show what is in force, if that or what may be done has changed."""
        config, started = self._model.in_force, self._model.config
        made, why_not = self._model.history.settings, self._why_not()
        state = (config, why_not, len(made))
        if state == self._drawn:
            return
        self._drawn = state
        changed = live_settings.newest(made)
        for setting in SETTINGS:
            now = _shown(setting, config)
            mark = f" {CHANGED}" if setting.name in changed else ""
            self.query_one(f"#now-{setting.key}", Static).update(
                Content.assemble((now, "bold"), (mark, "bold $gold"))
            )
            self.query_one(f"#started-{setting.key}", Static).update(
                Content(_shown(setting, started))
            )
            self.query_one(f"#new-{setting.key}", Input).disabled = bool(why_not)
        room = min(_MOST_SHOWN, self.app.size.height - _ROWS_BESIDES_CHANGES)
        self.query_one("#changes", Static).update(_history(made, room))
        self._judge()

    @on(events.DescendantFocus)
    def _explain(self, event: events.DescendantFocus) -> None:
        for setting in SETTINGS:
            if event.widget.id == f"new-{setting.key}":
                self.query_one("#meaning", Static).update(
                    Content.assemble((f"{setting.label}: ", "bold"), setting.meaning)
                )

    # --- what is typed

    @on(Input.Changed)
    def _typed(self) -> None:
        self._failure = ""
        self._judge()

    def _judge(self) -> None:
        """Say what is wrong with what is typed, or what it would change."""
        wanted, problems = self._wanted()
        for setting in SETTINGS:
            entry = self.query_one(f"#new-{setting.key}", Input)
            entry.set_class(setting.name in problems, "-invalid")
        changes = self._changes(wanted) if not problems else ()
        why_not = self._why_not()
        self.query_one("#apply", Button).disabled = bool(why_not) or self._is_busy or not changes
        problem = self._failure or why_not or next(iter(problems.values()), "")
        if problem:
            said = Content.assemble(("✗ ", "$warn"), line(problem, "$warn", limit=200))
        elif changes:
            words = ", ".join(map(str, changes))
            said = Content.assemble(("→ ", "$good"), f"from the next step on: {words}")
        elif wanted:
            said = Content.styled("That is in force already.", "$quiet")
        else:
            said = Content.styled("Type a new value beside a setting.", "$quiet")
        self.query_one("#problem", Static).update(said)

    def _wanted(self) -> tuple[dict[str, Value], dict[str, str]]:
        """(the values typed, what is wrong with others), both by name."""
        wanted: dict[str, Value] = {}
        problems: dict[str, str] = {}
        config = self._model.in_force
        for setting in SETTINGS:
            text = self.query_one(f"#new-{setting.key}", Input).value.strip()
            if not text:
                continue
            try:
                value = live_settings.parse_value(text, where=setting.label)
                if config is not None:
                    live_settings.plan(config, {setting.name: value})
            except UserError as error:
                problems[setting.name] = f"{setting.label}: {error.what}"
            else:
                wanted[setting.name] = value
        return wanted, problems

    def _changes(self, wanted: dict[str, Value]) -> tuple[Change, ...]:
        config = self._model.in_force
        return live_settings.plan(config, wanted)[1] if config is not None and wanted else ()

    # --- what is done

    @on(Input.Submitted)
    def _go_to_apply(self) -> None:
        apply = self.query_one("#apply", Button)
        if not apply.disabled:
            apply.focus()

    @on(Button.Pressed, "#close")
    def _close(self) -> None:
        self.action_leave()

    @on(Button.Pressed, "#apply")
    def _apply(self) -> None:
        wanted, problems = self._wanted()
        if not problems and self._changes(wanted) and not self._is_busy:
            self._is_busy = True
            self._judge()
            self._send(wanted)

    @work(thread=True, exit_on_error=False, group="commands")
    def _send(self, wanted: dict[str, Value]) -> None:
        # Imported when first needed: it brings the writing side of the store along.
        from engine.runs import control

        try:
            control.send(self._model.run, "set", {"changes": wanted})
        except UserError as error:
            self.post_message(SettingsSent(in_words(error)))
        else:
            self.post_message(SettingsSent(""))

    def on_settings_sent(self, event: SettingsSent) -> None:
        self._is_busy = False
        if not event.problem:
            self.dismiss(True)
            return
        self._failure = event.problem
        self._judge()

    def action_leave(self) -> None:
        # While the command is on its way nothing may look as if it had been called off.
        if not self._is_busy:
            self.dismiss(False)


def _shown(setting: Setting, config: RunConfig | None) -> str:
    return UNKNOWN if config is None else live_settings.written(setting.of(config))


def _history(made: list[Changed], room: int) -> Content:
    """The newest changes, newest first, in at most ``room`` lines."""
    if not made or room < 2:
        return Content(f"{CHANGED} changed since the start" if made else "")
    lines = [Content(f"{CHANGED} changed since the start, newest first:")]
    for one in reversed(made[-(room - 1) :]):
        lines.append(
            Content.assemble(
                f"after step {one.step}  ", (str(one.change), "$ink"), f"  by {one.by}"
            )
        )
    return Content("\n").join(lines)

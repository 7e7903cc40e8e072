"""The form of a new run: a few fields, the whole YAML beside them, and what a step will cost.

Text and fields are kept in step by ``stonk_tui.run_form``; the engine's own check judges them
with every key.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from textual import events, on, work
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal, Vertical, VerticalScroll
from textual.content import Content
from textual.message import Message
from textual.screen import ModalScreen
from textual.widgets import Button, Input, Label, Select, Static, TextArea

from engine.config import RunConfig
from engine.errors import UserError
from engine.runs import devices
from engine.runs.directory import RunDirectory
from stonk_tui import run_form
from stonk_tui.estimate import Estimate, estimate
from stonk_tui.run_form import Checked, Field
from stonk_tui.run_list import Listed
from stonk_tui.screens.begin import BeginScreen, Begun
from stonk_tui.screens.confirm import ConfirmScreen
from stonk_tui.widgets import figures
from stonk_tui.widgets.text import line

UNKNOWN = "not known before the first step"


@dataclass
class Estimated(Message, bubble=False):
    """What a step of a configuration will cost, as far as that is known."""

    config: RunConfig
    found: Estimate | None
    problem: str


@dataclass(frozen=True)
class Made:
    """A new run."""

    run: RunDirectory
    is_started: bool


class NewRunScreen(ModalScreen[Made | None]):
    """Preset, fields, YAML, estimate; prepares a run or starts it."""

    CSS_PATH = "new_run.tcss"
    HORIZONTAL_BREAKPOINTS = [(0, "-narrow"), (100, "-wide")]  # noqa: RUF012
    VERTICAL_BREAKPOINTS = [(0, "-low"), (30, "-high")]  # noqa: RUF012
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape", "leave", "Leave", show=False),
        Binding("f2", "switch", "Fields or YAML", show=False),
    ]

    def __init__(self, preset: str, earlier: Sequence[Listed]) -> None:
        """Prepare the form.

        Args:
            preset: what it starts from.
            earlier: the runs of this machine, which may have measured what is estimated.
        """
        super().__init__()
        self._preset = preset
        self._earlier = tuple(earlier)
        self._checked = Checked()

    def compose(self) -> ComposeResult:
        with Vertical() as box:
            box.border_title = Content(" New run ")
            with Horizontal(id="preset-row"):
                yield Label("preset")
                yield Select(
                    [(name, name) for name in run_form.PRESET_NAMES],
                    value=self._preset,
                    allow_blank=False,
                    id="preset",
                    compact=True,
                )
            with Horizontal(id="settings"):
                with VerticalScroll(id="fields", can_focus=False):
                    for field in run_form.FIELDS:
                        yield from _row(field)
                yield TextArea(
                    run_form.preset_text(self._preset),
                    id="yaml",
                    show_line_numbers=True,
                    soft_wrap=False,
                    compact=True,
                )
            yield Static(id="problem", markup=False)
            yield Static(id="estimate", markup=False)
            with Horizontal(id="buttons"):
                yield Button("YAML (f2)", id="switch", compact=True)
                yield Button("Cancel", id="cancel", compact=True)
                yield Button("Prepare only", id="prepare", compact=True)
                yield Button("Start", id="start", variant="primary", compact=True)

    def on_mount(self) -> None:
        self._judge()
        self._fill()
        self.query_one("#preset").focus()

    @property
    def _text(self) -> str:
        return self.query_one(TextArea).text

    def _write(self, text: str) -> None:
        """Replace the YAML, in a way that can be undone there."""
        area = self.query_one(TextArea)
        if text != area.text:
            with self.prevent(TextArea.Changed):
                area.replace(text, (0, 0), area.document.end)

    # --- keeping in step

    @on(Select.Changed, "#preset")
    def _take_preset(self, event: Select.Changed) -> None:
        if event.value != self._preset:
            self._preset = str(event.value)
            self._write(run_form.preset_text(self._preset))
            self._judge()
            self._fill()

    @on(Input.Changed, ".setting")
    @on(Select.Changed, ".setting")
    def _take_field(self, event: Input.Changed | Select.Changed) -> None:
        key = event.control.name or ""
        # A message of a change that this form made itself may come late.
        if str(event.value) != run_form.values(self._text, self._checked.config).get(key):
            self._write(run_form.set_value(self._text, key, str(event.value)))
            self._judge()

    @on(TextArea.Changed, "#yaml")
    def _take_text(self) -> None:
        self._judge()
        self._fill()

    def _fill(self) -> None:
        """Bring the fields up to what the text says; those it does not tell stay as they are."""
        for key, value in run_form.values(self._text, self._checked.config).items():
            widget = self.query_one(f"#{_identifier(key)}")
            with self.prevent(Input.Changed, Select.Changed):
                if isinstance(widget, Input):
                    if widget.value != value:
                        widget.value = value
                elif isinstance(widget, Select) and value in run_form.BY_KEY[key].choices:
                    widget.value = value

    @on(events.DescendantFocus)
    def _show_line(self, event: events.DescendantFocus) -> None:
        """Beside the field that has the focus, its place in the YAML."""
        key = event.widget.name or ""
        if key in run_form.BY_KEY and (number := run_form.line_of(self._text, key)):
            self.query_one(TextArea).move_cursor((number - 1, 0), center=True)

    # --- judging

    def _judge(self) -> None:
        before = self._checked.config
        self._checked = found = run_form.check(self._text)
        message = Content.styled("✓ these settings can be started", "$good")
        if found.problem:
            message = Content.assemble(("✗ ", "$bad"), line(found.in_words, "$warn", limit=300))
        self.query_one("#problem", Static).update(message)
        for row in self.query(".field"):
            row.set_class(bool(found.key) and row.name == found.key, "-wrong")
        for name in ("#prepare", "#start"):
            self.query_one(name, Button).disabled = found.config is None
        if found.config is None:
            self.query_one("#estimate", Static).update("")
        elif found.config != before:
            self._estimate(found.config)

    @work(thread=True, exit_on_error=False, group="estimate")
    def _estimate(self, config: RunConfig) -> None:
        try:
            device = devices.resolve(config.model.device)
            self.post_message(Estimated(config, estimate(config, device, self._earlier), ""))
        except (UserError, OSError) as error:
            self.post_message(Estimated(config, None, str(error)))

    def on_estimated(self, event: Estimated) -> None:
        # A thread cannot be called off: what it found may be that of older settings.
        if event.config == self._checked.config:
            self.query_one("#estimate", Static).update(
                in_words(event.found) if event.found else line(event.problem, "$warn", limit=300)
            )

    # --- the decision

    @on(Button.Pressed, "#cancel")
    def action_leave(self) -> None:
        if self._text == run_form.preset_text(self._preset):
            self.dismiss(None)
            return
        question = ConfirmScreen(
            Content("Leave the form?"),
            Content("The settings that were changed are lost."),
            "leave",
            "stay",
        )

        def leave(is_meant: bool | None) -> None:
            if is_meant:
                self.dismiss(None)

        self.app.push_screen(question, leave)

    @on(Button.Pressed, "#switch")
    def action_switch(self) -> None:
        self.toggle_class("-yaml")
        shows_yaml = self.has_class("-yaml")
        self.query_one("#switch", Button).label = "Fields (f2)" if shows_yaml else "YAML (f2)"
        (self.query_one(TextArea) if shows_yaml else self.query_one("#preset")).focus()

    @on(Button.Pressed, "#prepare")
    def _prepare(self) -> None:
        self._begin("Prepare the run", ["train", "--prepare"], is_started=False)

    @on(Button.Pressed, "#start")
    def _start(self) -> None:
        self._begin("Start the run", ["train", "--detach"], is_started=True)

    def _begin(self, title: str, arguments: list[str], *, is_started: bool) -> None:
        if self._checked.config is None:
            return

        def finish(begun: Begun | None) -> None:
            if begun is None:
                return
            if begun.run is not None:
                self.dismiss(Made(begun.run, is_started))
            elif begun.problem:
                problem = line(begun.problem, "$warn", limit=300)
                self.query_one("#problem", Static).update(Content.assemble(("✗ ", "$bad"), problem))

        self.app.push_screen(BeginScreen(title, arguments, self._text), finish)


def in_words(found: Estimate) -> Content:
    """Time and memory of a step, and how that is known."""
    seconds = figures.duration(found.seconds) if found.seconds is not None else UNKNOWN
    if found.run is not None:
        memory = f"{figures.fixed(found.memory_gib, 1)} GiB" if found.memory_gib else UNKNOWN
        origin = Content.assemble("measured in ", line(found.run.id, limit=60), ", ")
        if found.differs:
            what = ", ".join(found.differs)
            origin = Content.assemble(origin, (f"but with other {what}: a hint only", "$warn"))
        else:
            origin = Content.assemble(origin, "the same sizes on this machine")
        return Content.assemble(
            ("a step ", "$quiet"),
            (seconds, "bold"),
            ("   memory ", "$quiet"),
            (memory, "bold"),
            "\n",
            origin.stylize("$quiet"),
        )
    if found.weights_gib is None:
        return Content.assemble(("a step ", "$quiet"), UNKNOWN, ("   memory ", "$quiet"), UNKNOWN)
    weights = f"{figures.fixed(found.weights_gib, 1)} GiB for the weights alone"
    count = f"{(found.parameters or 0) / 1e9:.2f} B parameters × {found.bytes_each:g} bytes"
    return Content.assemble(
        ("a step ", "$quiet"),
        seconds,
        ("   memory ", "$quiet"),
        (weights, "bold"),
        "\n",
        line(
            f"{count}, from {found.origin}; what sampling and gradients need is {UNKNOWN}", "$quiet"
        ),
    )


def _row(field: Field) -> ComposeResult:
    with Horizontal(classes="field", name=field.key):
        yield Label(field.label)
        if field.choices:
            yield Select(
                [(choice, choice) for choice in field.choices],
                value=field.choices[0],
                allow_blank=False,
                id=_identifier(field.key),
                name=field.key,
                classes="setting",
                compact=True,
            )
        else:
            yield Input(
                id=_identifier(field.key),
                name=field.key,
                classes="setting",
                placeholder=field.empty,
                max_length=300,
                compact=True,
            )


def _identifier(key: str) -> str:
    return f"field-{key.replace('.', '-')}"

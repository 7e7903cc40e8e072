"""Where the listed rollouts go: a file that is new, in one of three formats."""

from array import array
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from textual import on, work
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal, Vertical
from textual.content import Content
from textual.message import Message
from textual.screen import ModalScreen
from textual.widgets import Button, Input, RadioSet, Static

from engine.errors import UserError
from engine.runs import rollout_export
from engine.runs.directory import RunDirectory
from engine.runs.rollout_export import FORMATS, Cancelled
from stonk_tui.rollout_search import TROUBLE, in_words
from stonk_tui.screens.promote import Choice
from stonk_tui.widgets import figures
from stonk_tui.widgets.text import line

_WORDS = {
    "csv": "CSV: a text that looks like a formula gets an apostrophe",
    "jsonl": "JSON Lines: everything, exactly as it is stored",
    "parquet": "Parquet: for pandas, DuckDB and the like",
}


@dataclass
class RowsWritten(Message, bubble=False):
    """How far the export is."""

    done: int

    def can_replace(self, message: Message) -> bool:
        return isinstance(message, RowsWritten)


@dataclass
class Exported(Message, bubble=False):
    """The export ended; with a problem it left nothing behind."""

    path: Path
    count: int
    problem: str = ""


class ExportScreen(ModalScreen[None]):
    """Asks for file and format, says how many rows, and writes them in a thread."""

    CSS_PATH = "export.tcss"
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape", "leave", "Leave", show=False),
    ]

    def __init__(self, run: RunDirectory, ids: "array[int]", selection: str) -> None:
        """Prepare to export.

        Args:
            run: whose rollouts they are.
            ids: which ones, in the order of the rows.
            selection: the filter they passed, in words.
        """
        super().__init__()
        self._run = run
        self._ids = ids
        self._selection = selection
        self._form = FORMATS[0]
        self._is_busy = False
        self._is_called_off = False

    def compose(self) -> ComposeResult:
        many = len(self._ids) != 1
        with Vertical() as box:
            box.border_title = Content(
                f" Export {figures.whole(len(self._ids))} rollout{'s' if many else ''} "
            )
            yield Static(
                Content.assemble(("filter  ", "$quiet"), line(self._selection or "none", limit=90)),
                markup=False,
            )
            yield RadioSet(
                *(Choice(_WORDS[form], value=form == self._form, name=form) for form in FORMATS),
                id="formats",
                compact=True,
            )
            yield Input(f"rollouts.{self._form}", id="file", max_length=1000, compact=True)
            yield Static(id="where", markup=False)
            yield Static(id="problem", markup=False)
            with Horizontal():
                yield Button("Cancel", id="cancel", compact=True)
                yield Button("Write", id="write", variant="primary", compact=True)

    def on_mount(self) -> None:
        field = self.query_one("#file", Input)
        field.focus()
        self._check()

    @property
    def _out(self) -> Path:
        return Path(self.query_one("#file", Input).value.strip()).expanduser().absolute()

    @on(RadioSet.Changed, "#formats")
    def _choose_format(self, event: RadioSet.Changed) -> None:
        if event.pressed.name is not None and event.pressed.name != self._form:
            field = self.query_one("#file", Input)
            self._form = event.pressed.name
            if rollout_export.form_of(Path(field.value)) is not None:
                field.value = field.value.rpartition(".")[0] + f".{self._form}"

    @on(Input.Changed, "#file")
    def _check(self) -> None:
        """Say where the file would be, and what stands against it."""
        if self._is_busy:
            return
        problem = "" if self.query_one("#file", Input).value.strip() else "it needs a name"
        out = self._out
        try:
            if not problem:
                rollout_export.refuse_taken(out)
        except UserError as error:
            problem = f"{error.what}; {error.fix}"
        except (OSError, ValueError) as error:
            problem = f"no file can be called that ({error})"
        self.query_one("#where", Static).update(line(out, "$quiet", limit=300))
        self._say(problem)
        self.query_one("#write", Button).disabled = bool(problem)

    @on(Input.Submitted, "#file")
    def _go_to_buttons(self) -> None:
        self.query_one("#write", Button).focus()

    @on(Button.Pressed, "#cancel")
    def _cancel(self) -> None:
        self.action_leave()

    @on(Button.Pressed, "#write")
    def _begin(self) -> None:
        if not self._is_busy:
            self._is_busy = True
            for name in ("#write", "#file", "#formats"):
                self.query_one(name).disabled = True
            self._say("writing …", "$quiet")
            self._write(self._out, self._form)

    @work(thread=True, exit_on_error=False, group="export")
    def _write(self, out: Path, form: str) -> None:
        def progress(done: int) -> bool:
            self.post_message(RowsWritten(done))
            return not self._is_called_off

        try:
            count = rollout_export.export(self._run.database, self._ids, out, form, progress)
        except Cancelled:
            self.post_message(Exported(out, 0, "called off; nothing was written"))
        except TROUBLE as error:
            self.post_message(Exported(out, 0, in_words(error)))
        else:
            self.post_message(Exported(out, count))

    def on_rows_written(self, event: RowsWritten) -> None:
        if self._is_busy:
            of = figures.whole(len(self._ids))
            self._say(f"{figures.whole(event.done)} of {of} written; esc calls it off", "$quiet")

    def on_exported(self, event: Exported) -> None:
        self._is_busy = False
        if not event.problem:
            text = f"{figures.whole(event.count)} rollouts in {event.path}"
            self.app.notify(line(text).plain, markup=False, timeout=10)
            self.dismiss()
            return
        for name in ("#write", "#file", "#formats"):
            self.query_one(name).disabled = False
        if self._is_called_off:
            self.app.notify(event.problem, markup=False)
            self.dismiss()
            return
        self._say(event.problem)

    def action_leave(self) -> None:
        if self._is_busy:
            # The thread ends after the page in hand, and takes its file away.
            self._is_called_off = True
        else:
            self.dismiss()

    def _say(self, text: str, style: str = "$warn") -> None:
        self.query_one("#problem", Static).update(line(text, style, limit=300))

"""Asks for the name of a new file, and writes what the chart shows into it."""

import sqlite3
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from textual import on, work
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical
from textual.content import Content
from textual.message import Message
from textual.screen import ModalScreen
from textual.widgets import Input, Static

from engine.errors import UserError
from engine.runs.directory import RunDirectory
from stonk_tui import series_export
from stonk_tui.chart_choices import Choice
from stonk_tui.chart_view import ChartView, Extent
from stonk_tui.feed import in_words
from stonk_tui.series_export import Cancelled
from stonk_tui.widgets import figures
from stonk_tui.widgets.text import line


@dataclass
class SeriesWritten(Message, bubble=False):
    """The export ended; with a problem it left nothing behind."""

    path: Path
    count: int
    problem: str = ""


class ExportSeriesScreen(ModalScreen[None]):
    """One field; the ending of the name chooses the format."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape", "leave", "Leave", show=False),
    ]
    DEFAULT_CSS = """
    ExportSeriesScreen { align: center middle; background: $background 70%; }
    ExportSeriesScreen > Vertical {
        width: 76; max-width: 98%; height: auto; padding: 0 2;
        border: round $gold; background: $surface; border-title-color: $gold;
    }
    ExportSeriesScreen Static { width: 1fr; height: auto; }
    ExportSeriesScreen Input { background: $panel; margin: 1 0; }
    ExportSeriesScreen #problem { min-height: 1; max-height: 3; }
    """

    def __init__(self, run: RunDirectory, chosen: Choice, view: ChartView, seen: Extent) -> None:
        """Prepare to export.

        Args:
            run: whose series they are.
            chosen: which ones.
            view: how they are shown.
            seen: the steps in sight.
        """
        super().__init__()
        self._run = run
        self._chosen = chosen
        self._view = view
        self._seen = seen
        self._is_busy = False
        self._is_called_off = False

    def compose(self) -> ComposeResult:
        window = f"steps {self._seen.first:.0f} to {self._seen.last:.0f}, every one of them"
        mean = f", and the mean of {self._view.smoothing}" * (self._view.smoothing > 1)
        with Vertical() as box:
            box.border_title = Content.assemble(" Export ", line(self._chosen.label, limit=40), " ")
            yield Static(window + mean, markup=False)
            name = "".join(c if c.isascii() and c.isalnum() else "-" for c in self._chosen.id)
            yield Input(f"{name}.csv", id="file", max_length=1000, compact=True)
            yield Static(id="where", markup=False)
            yield Static(id="problem", markup=False)
            yield Static(
                Content.assemble(
                    ("enter", "bold $gold"), " writes CSV, or JSON Lines with .jsonl", "    ",
                    ("esc", "bold $gold"), " leaves",
                ),
                markup=False,
            )  # fmt: skip

    def on_mount(self) -> None:
        self.query_one("#file", Input).focus()
        self._check()

    @property
    def _out(self) -> Path:
        return Path(self.query_one("#file", Input).value.strip()).expanduser().absolute()

    @on(Input.Changed, "#file")
    def _check(self) -> bool:
        """Say where the file would be, and what stands against it."""
        try:
            out = self._out
            self.query_one("#where", Static).update(line(out, "$quiet", limit=300))
            series_export.refuse(out)
        except UserError as error:
            self._say(error.what)
        except (OSError, ValueError, RuntimeError) as error:
            self._say(f"no file can be called that ({error})")
        else:
            self._say("")
            return True
        return False

    @on(Input.Submitted, "#file")
    def _begin(self) -> None:
        if self._is_busy or not self._check():
            return
        self._is_busy = True
        self.query_one("#file", Input).disabled = True
        self._say("writing …", "$quiet")
        self._write(self._out)

    @work(thread=True, exit_on_error=False, group="export")
    def _write(self, out: Path) -> None:
        try:
            count = series_export.write(
                out,
                self._run.database,
                self._chosen,
                self._view.smoothing,
                self._seen,
                lambda: not self._is_called_off,
            )
        except Cancelled:
            self.post_message(SeriesWritten(out, 0, "called off; nothing was written"))
        except UserError as error:
            self.post_message(SeriesWritten(out, 0, in_words(error)))
        except (OSError, sqlite3.Error, ValueError, TypeError) as error:
            self.post_message(SeriesWritten(out, 0, f"it cannot be written: {error}"))
        else:
            self.post_message(SeriesWritten(out, count))

    def on_series_written(self, event: SeriesWritten) -> None:
        self._is_busy = False
        if not event.problem:
            text = f"{figures.whole(event.count)} steps in {event.path}"
            self.app.notify(line(text).plain, markup=False, timeout=10)
            self.dismiss()
        elif self._is_called_off:
            self.app.notify(event.problem, markup=False)
            self.dismiss()
        else:
            field = self.query_one("#file", Input)
            field.disabled = False
            field.focus()
            self._say(event.problem)

    def action_leave(self) -> None:
        if self._is_busy:
            # The thread ends after the page in hand, and takes its file away.
            self._is_called_off = True
        else:
            self.dismiss()

    def _say(self, text: str, style: str = "$warn") -> None:
        self.query_one("#problem", Static).update(line(text, style, limit=300))

"""The log: what happened in words, and the worker's own output."""

import os
from pathlib import Path
from typing import ClassVar

from textual import work
from textual.app import ComposeResult
from textual.binding import BindingType
from textual.content import Content
from textual.widgets import Static

from engine.runs.history import LogLine
from stonk_tui import actions
from stonk_tui.screens.base import CockpitScreen
from stonk_tui.widgets.happenings import words
from stonk_tui.widgets.scroller import Scroller
from stonk_tui.widgets.text import line
from stonk_tui.widgets.trail import Trail, trail

MAX_EVENTS = 500
TAIL_BYTES = 64 * 1024
TAIL_LINES = 400
_LINE_CHARACTERS = 400


class LogScreen(CockpitScreen):
    """Events above, engine.log below, both at their end unless scrolled away from it."""

    BINDINGS: ClassVar[list[BindingType]] = actions.bindings("log")
    scope: ClassVar[actions.Scope] = "log"
    noun = "Log"
    explanation = (
        "Above stands what happened to the run, in words and in order; below what the worker "
        "itself wrote, which holds the traceback where one failed. Events come out of the store, "
        "the last 500 of them; of the output the last 64 KiB are shown. Both follow their end "
        "unless scrolled away from it."
    )
    DEFAULT_CSS = """
    LogScreen Scroller {
        border: round $edge; padding: 0 1; height: 1fr; scrollbar-size-vertical: 1;
        border-title-style: bold; border-title-color: $ink;
    }
    LogScreen Scroller:focus { border: heavy $gold; }
    LogScreen Static { width: 1fr; height: auto; }
    """

    def compose_body(self) -> ComposeResult:
        yield Trail()
        with Scroller(id="events-box") as box:
            box.border_title = Content("Events")
            yield Static(id="events-text", markup=False)
        with Scroller(id="engine-box") as box:
            box.border_title = Content("engine.log")
            yield Static(id="engine-text", markup=False)

    def on_mount(self) -> None:
        self._shown: tuple[int, LogLine | None] = (-1, None)
        self._engine_mark: tuple[int, int] | None = None
        self.query_one("#events-box").focus()
        self.set_interval(1.0, self._tail)

    def show_model(self) -> None:
        model = self.cockpit.model
        if model is None:
            return
        self.query_one(Trail).update(trail(model.run.id, "log"))
        log = model.history.log
        newest = (len(log), log[-1] if log else None)
        if newest != self._shown:
            self._shown = newest
            entries = [words(entry) for entry in log[-MAX_EVENTS:]]
            self._fill(
                "events", Content("\n").join(entries) if entries else Content("Nothing yet.")
            )
        self._tail()

    def _fill(self, name: str, content: Content) -> None:
        box = self.query_one(f"#{name}-box", Scroller)
        at_end = box.scroll_y >= box.max_scroll_y - 1
        self.query_one(f"#{name}-text", Static).update(content)
        if at_end:
            box.scroll_end(animate=False)

    def _tail(self) -> None:
        if self.is_current and self.cockpit.model is not None:
            self._read_tail(self.cockpit.model.run.log)

    @work(thread=True, exclusive=True, exit_on_error=False, group="tail")
    def _read_tail(self, path: Path) -> None:
        try:
            status = path.stat()
        except OSError:
            self.app.call_from_thread(
                self._fill, "engine", Content.styled("No output yet.", "$quiet")
            )
            return
        mark = (status.st_ino, status.st_size)
        if mark == self._engine_mark:
            return
        self._engine_mark = mark
        try:
            content = tail(path)
        except OSError as error:
            content = line(str(error), "$bad")
        self.app.call_from_thread(self._fill, "engine", content)

    def do_switch_log(self) -> None:
        self.query_one(
            "#events-box" if self.query_one("#engine-box").has_focus else "#engine-box"
        ).focus()

    def do_log_end(self) -> None:
        for box in self.query(Scroller):
            box.scroll_end(animate=False)


def tail(path: Path) -> Content:
    """The last lines of a file that may be large, half-written or not text at all."""
    with path.open("rb") as file:
        size = os.fstat(file.fileno()).st_size
        file.seek(max(0, size - TAIL_BYTES))
        data = file.read(TAIL_BYTES)
    # Progress bars return to the start of their line: only what they last said is kept.
    text_lines = [
        raw.rstrip("\r").rpartition("\r")[2] for raw in data.decode("utf-8", "replace").split("\n")
    ]
    if size > TAIL_BYTES:
        text_lines = text_lines[1:]
    if text_lines and not text_lines[-1]:
        text_lines.pop()
    kept = [line(item, limit=_LINE_CHARACTERS) for item in text_lines[-TAIL_LINES:]]
    return Content("\n").join(kept) if kept else Content.styled("No output yet.", "$quiet")

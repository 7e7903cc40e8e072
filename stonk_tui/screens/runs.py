"""All runs: what they are doing, and which to attach to."""

import sqlite3
import threading
from dataclasses import dataclass
from typing import ClassVar

from textual import events, on, work
from textual.app import ComposeResult
from textual.binding import BindingType
from textual.content import Content
from textual.widgets import Static

from engine.config import RunConfig
from engine.errors import UserError
from engine.runs import directory, stage1
from engine.runs.directory import RunDirectory
from engine.runs.history import History
from engine.runs.reader import StoreReader
from engine.runs.status import effective_state
from engine.text import one_line
from stonk_tui import actions
from stonk_tui.screens.base import CockpitScreen
from stonk_tui.theme import UNKNOWN, state_look
from stonk_tui.widgets import figures
from stonk_tui.widgets.table import Column, Row, Table
from stonk_tui.widgets.text import line
from stonk_tui.widgets.trail import Trail, trail

REFRESH_SECONDS = 2.0
_PAGE = 2000
_FIRST_ROWS = 16

_COLUMNS = (
    Column("run", 0),
    Column("state", 12),
    Column("stage", 5),
    Column("model", 14, optional=96),
    Column("step", 9, "right"),
    Column("reward", 6, "right"),
    Column("accuracy", 11, "right"),
    Column("course", 16, optional=110),
    Column("age", 9, "right"),
    Column("what it does", 56, optional=160),
)


@dataclass
class _Known:
    """What is known of one run, kept so that each look reads only what is new."""

    history: History
    config: RunConfig | None = None
    parent: str = ""
    """Of a Stage II run: the run it was promoted from."""
    problem: str = ""
    state: str = "starting"
    detail: str = ""


class RunsScreen(CockpitScreen):
    """A table of runs; greets where there is none yet."""

    BINDINGS: ClassVar[list[BindingType]] = actions.bindings("runs")
    scope: ClassVar[actions.Scope] = "runs"
    noun = "Runs"
    explanation = (
        "Every run on this machine, the newest first, read again every two seconds. Reward and "
        "accuracy are those of the newest step, the accuracy with its number of calls; the little "
        "columns are the course of the reward. A run is stale when its worker is gone though "
        "nothing ended it: its last checkpoint is there to go on from."
    )
    DEFAULT_CSS = """
    RunsScreen #title { height: 2; }
    RunsScreen #greeting { padding: 1 3; height: 1fr; display: none; }
    RunsScreen Table { padding: 0 1; }
    RunsScreen.-empty #greeting { display: block; }
    RunsScreen.-empty Table { display: none; }
    """

    def compose_body(self) -> ComposeResult:
        yield Trail()
        yield Table(_COLUMNS, empty="Looking for runs …", id="runs-table")
        yield Static(_greeting(), id="greeting", markup=False)

    def on_mount(self) -> None:
        self._known: dict[str, _Known] = {}
        self._reading = threading.Lock()
        self._runs: list[RunDirectory] = []
        self.query_one(Table).focus()
        self._look()
        self.set_interval(REFRESH_SECONDS, self._look)

    @work(thread=True, exit_on_error=False, group="runs")
    def _read(self) -> None:
        # A thread cannot be cancelled, and two of them would fold the same events twice.
        if not self._reading.acquire(blocking=False):
            return
        try:
            runs = directory.list_runs()
            rows: list[Row] = []
            for run in runs:
                known = self._known.setdefault(run.id, _Known(History()))
                _refresh(run, known)
                rows.append(_row(run, known, self.cockpit.clock()))
                if len(rows) == _FIRST_ROWS:
                    # The newest ones are on screen before a long list is read to its end.
                    self.app.call_from_thread(self._show, runs, list(rows))
            self.app.call_from_thread(self._show, runs, rows)
        except OSError as error:
            self.app.call_from_thread(
                self.query_one(Table).say_when_empty, one_line(f"The runs cannot be read: {error}")
            )
        finally:
            self._reading.release()

    def _look(self) -> None:
        if self.is_current:
            self._read()

    @on(events.ScreenResume)
    def _look_again(self) -> None:
        if self._is_composed:
            self._look()

    def _show(self, runs: list[RunDirectory], rows: list[Row]) -> None:
        self._runs = runs
        self.set_class(not runs, "-empty")
        self.query_one(Table).set_rows(rows)
        going = sum(state in _GOING for state in (item.state for item in self._known.values()))
        counts = f"{len(runs)} run{'' if len(runs) == 1 else 's'}" + (
            f", {going} going" if going else ""
        )
        self.query_one(Trail).update(
            Content.assemble(trail(None, "runs"), "   ", (counts, "$quiet"))
        )

    @property
    def prepared_run(self) -> RunDirectory | None:
        """The run under the cursor, if it waits to be started."""
        key = self.query_one(Table).cursor_key
        known = self._known.get(key or "")
        is_prepared = known is not None and known.state == "prepared"
        return next((run for run in self._runs if run.id == key), None) if is_prepared else None

    def do_attach(self) -> None:
        self.query_one(Table).action_choose()

    @on(Table.Chosen)
    def _attach_chosen(self, event: Table.Chosen) -> None:
        run = next((run for run in self._runs if run.id == event.key), None)
        if run is not None:
            self.cockpit.attach(run)


_GOING = ("starting", "warming_up", "training", "paused", "evaluating", "stopping")


def _refresh(run: RunDirectory, known: _Known) -> None:
    """Read what ``run`` has written since the last look."""
    try:
        if known.config is None:
            known.config = run.config()
            known.parent = str((stage1.record(run) or {}).get("parent") or "")
        reader = StoreReader(run.database)
        try:
            while events := reader.events(known.history.last_seq, _PAGE):
                known.history.apply(events)
        finally:
            reader.close()
        known.problem = ""
    except FileNotFoundError:
        pass
    except UserError as error:
        known.problem = error.what
    except (sqlite3.Error, OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        known.problem = f"cannot be read: {error}"
    known.state, known.detail = effective_state(run, known.history)


def _row(run: RunDirectory, known: _Known, now: float) -> Row:
    history, config = known.history, known.config
    look = state_look(known.state)
    total = history.max_steps
    step = f"{history.step}/{total}" if total else (str(history.step) if history.step else UNKNOWN)
    state = Content.styled(f"{look.glyph} {look.word}", look.style)
    name = line(run.id, "bold", limit=80)
    if known.problem:
        look = state_look("unreadable")
        state = Content.styled(f"{look.glyph} {look.word}", look.style)
        name = Content.assemble(name, "  ", line(known.problem, "$bad", limit=80))
    rewards = history.series.get("reward/total")
    accuracy = figures.share(history.metrics.get("accuracy"))
    count = figures.known(history.metrics.get("accuracy/n"))
    model = config.model.id.rpartition("/")[2] if config else UNKNOWN
    return Row(
        key=run.id,
        cells=(
            name,
            state,
            Content(config.stage if config else UNKNOWN),
            line(model, "$quiet", limit=14),
            Content(step),
            Content.styled(figures.fixed(history.metrics.get("reward/total")), "bold"),
            Content.assemble(accuracy, (f" n={count:.0f}" if count is not None else "", "$quiet")),
            Content.styled(figures.sparkline(rewards.values if rewards else [], 16), "$course"),
            Content.styled(
                figures.duration(now - history.started) if history.started else UNKNOWN, "$quiet"
            ),
            _what_it_does(known),
        ),
    )


def _what_it_does(known: _Known) -> Content:
    """Its parent first, of a Stage II run."""
    origin = f"from {known.parent}  " if known.parent else ""
    return line(origin + known.detail, "$quiet", limit=80)


def _greeting() -> Content:
    return Content("\n").join(
        [
            Content.styled("No run yet.", "bold $gold"),
            "",
            "Leave with q and type one of these:",
            "",
            Content.assemble(
                ("  stonk-tui demo", "bold"),
                ("              a small model learns, on any machine", "$quiet"),
            ),
            Content.assemble(
                ("  stonk-tui train --preset stage1", "bold"),
                ("   a real run; a GPU is wise", "$quiet"),
            ),
            Content.assemble(
                ("  stonk-tui doctor", "bold"), ("            what this machine can do", "$quiet")
            ),
        ]
    )

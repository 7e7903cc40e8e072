"""All rollouts of the run: filtered, ordered, opened, exported.

The list is the ids of what passes the filter, found by one query in a thread; the rows in
sight are read by their ids. A newer question interrupts the one before, and an answer that
comes too late is dropped. New steps are followed while the cursor rests on the first row.
"""

import time
from array import array
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar

from textual import events, on, work
from textual.app import ComposeResult
from textual.binding import BindingType
from textual.content import Content
from textual.message import Message
from textual.widgets import Static

from engine.runs.directory import RunDirectory
from engine.runs.reader import Rollout, StoreReader
from engine.runs.rollout_filter import Filter, Order
from stonk_tui import actions
from stonk_tui.feed import RunModel
from stonk_tui.rollout_search import TROUBLE, Found, RolloutSearch, in_words
from stonk_tui.screens.base import CockpitScreen
from stonk_tui.screens.rollout import RolloutScreen, Walk
from stonk_tui.theme import UNKNOWN
from stonk_tui.widgets import figures
from stonk_tui.widgets.filter_line import FilterLine
from stonk_tui.widgets.long_table import LongTable
from stonk_tui.widgets.panel import spread
from stonk_tui.widgets.rollouts import COLUMNS, leads, rollout_row
from stonk_tui.widgets.table import Column, Row
from stonk_tui.widgets.text import line
from stonk_tui.widgets.trail import Trail, trail

KEEP_UP_SECONDS = 1.0
_SHARE_OF_TIME = 5
"""Following takes at most one part in so many of the time."""

_COLUMNS = tuple(
    replace(column, width=column.width + (column.title in ("ticker", "reward")))
    for column in (*COLUMNS[:-1], Column("tokens", 7, "right", optional=90), COLUMNS[-1])
)
_ORDERS = {
    "step": 0,
    "ticker": 1,
    "as_of": 2,
    "call": 3,
    "confidence": 4,
    "actual": 5,
    "reward": 7,
    "advantage": 8,
    "tokens": 9,
}
"""What can be ordered by, and the column that shows it."""


@dataclass
class RowsRead(Message, bubble=False):
    """Rows that came into sight."""

    run: RunDirectory
    rows: dict[int, Row]
    problem: str = ""


@dataclass
class RolloutRead(Message, bubble=False):
    """The rollout that is to be opened."""

    rollout: Rollout | None
    walk: Walk
    problem: str = ""


class RolloutsScreen(CockpitScreen):
    """A filter line and a table of every rollout that passes it."""

    BINDINGS: ClassVar[list[BindingType]] = actions.bindings("rollouts")
    scope: ClassVar[actions.Scope] = "rollouts"
    noun = "Rollouts"
    explanation = (
        "Every completion that the run has sampled for training, one a row, the newest first. The "
        "filter says which ones, in terms such as ticker:AAPL right:no reward<0.3; the count says "
        "how many pass it. Reward and advantage are those that the step was trained with, and a "
        "row opens with its prompt, its text and its reward line by line."
    )
    DEFAULT_CSS = """
    RolloutsScreen #hint { height: auto; min-height: 1; max-height: 4; padding: 0 1; }
    RolloutsScreen Table { padding: 0 1; }
    """

    def __init__(self) -> None:
        super().__init__()
        self._run: RunDirectory | None = None
        self._filter = Filter()
        self._order = Order()
        self._searcher = RolloutSearch()
        self._answer: Found | None = None
        """What the table shows; None before the first answer."""
        self._listed = (self._filter, self._order)
        """What the rows that were read stand in."""
        self._newest: Rollout | None = None
        """The newest rollout of the run when the last question was asked."""
        self._asked_at = 0.0
        self._is_searching = False
        self._is_reading = False
        self._is_opening = False
        self._walk: Walk | None = None
        self._problem = ""
        """Why the store cannot be read."""
        self._misfit = ""
        """Why what stands in the filter line is no filter."""

    def compose_body(self) -> ComposeResult:
        yield Trail()
        yield FilterLine()
        yield Static(id="hint", markup=False)
        yield LongTable(_COLUMNS, empty="Looking for rollouts …", id="all-rollouts")

    def on_mount(self) -> None:
        self._table.order_by(_ORDERS[self._order.by], descending=self._order.descending)
        self._table.focus()
        self.set_interval(KEEP_UP_SECONDS, self._keep_up)

    @property
    def _table(self) -> LongTable:
        return self.query_one(LongTable)

    def show_model(self) -> None:
        model = self.cockpit.model
        if model is None:
            return
        if model.run != self._run:
            self._run = model.run
            self._answer, self._newest = None, None
            self._table.forget()
            self._table.set_ids(array("q"), stays=False)
            self._search()
        elif self._newest is None and model.rollouts and not self._is_searching:
            self._search()
        self._show_head(model)

    # --- asking

    def _search(self) -> None:
        """Ask the store what passes the filter; what was asked before is dropped."""
        model = self.cockpit.model
        if model is None:
            return
        self._is_searching = True
        self._asked_at = time.monotonic()
        self._newest = model.rollouts[0] if model.rollouts else None
        question = self._searcher.next_question()
        self._find(question, model.run.database, self._filter, self._order)
        self._show_head(model)

    @work(thread=True, exit_on_error=False, group="rollout-search")
    def _find(self, question: int, database: Path, selection: Filter, order: Order) -> None:
        self._searcher.find(question, database, selection, order, self.post_message)

    def on_found(self, found: Found) -> None:
        if found.question != self._searcher.question:
            return
        is_same_question = self._answer is not None and self._answer.question == found.question
        stays = is_same_question or self._table.cursor > 0
        self._is_searching = not found.is_all
        self._answer, self._problem = found, found.problem
        if self._filter.text:
            self._table.say_when_empty("No rollout passes this filter.")
        else:
            self._table.say_when_empty("The first step brings the first rollouts.")
        if self._listed != (self._filter, self._order):
            # Which rows lead their group is another matter in another list.
            self._listed = (self._filter, self._order)
            self._table.forget()
        self._table.set_ids(found.ids, stays=stays)
        self.refresh_screen()

    def _keep_up(self) -> None:
        """Follow the newest steps, unless a person looks at something."""
        model = self.cockpit.model
        if not self.is_current or model is None or self._answer is None or self._is_searching:
            return
        rest = _SHARE_OF_TIME * self._answer.seconds - (time.monotonic() - self._asked_at)
        if self._steps_behind(model) and self._table.cursor == 0 and rest <= 0:
            self._search()

    def _steps_behind(self, model: RunModel) -> int:
        """How many steps have brought rollouts since the list was made."""
        if not model.rollouts or self._newest is None or model.rollouts[0] == self._newest:
            return 0
        return max(1, model.rollouts[0].step - self._newest.step)

    # --- rows

    @on(LongTable.Wanted)
    def _read_wanted(self, event: LongTable.Wanted) -> None:
        # What is missing after the rows that are being read is asked for again.
        if not self._is_reading and self._run is not None:
            self._is_reading = True
            # With the row before them, which says whether the first one leads its group.
            before = max(0, event.first - 1)
            self._read(self._run, self._table.ids[before : event.end])

    @work(thread=True, exit_on_error=False, group="rollout-rows")
    def _read(self, run: RunDirectory, ids: "array[int]") -> None:
        try:
            reader = StoreReader(run.database)
            try:
                rollouts = reader.rollouts(ids)
            finally:
                reader.close()
        except TROUBLE as error:
            self.post_message(RowsRead(run, {}, in_words(error)))
            return
        rows = {
            rollout.id: _row(rollout, leads=leads(before, rollout))
            for before, rollout in zip((None, *rollouts), rollouts, strict=False)
        }
        self.post_message(RowsRead(run, rows))

    def on_rows_read(self, read: RowsRead) -> None:
        self._is_reading = False
        if read.run != self._run:
            self._table.refresh()
        elif read.problem:
            self._problem = read.problem
            self.refresh_screen()
        else:
            self._table.fill(read.rows)

    @on(LongTable.Moved)
    def _cursor_moved(self) -> None:
        self.refresh_screen()

    # --- head

    def _show_head(self, model: RunModel) -> None:
        answer = self._answer
        left = trail(model.run.id, "rollouts")
        right = Content("")
        if answer is not None and not answer.problem:
            some = "" if answer.is_all else "+"
            count = Content.styled(figures.whole(len(answer.ids)) + some, "bold")
            if answer.total is not None and self._filter.text:
                count = Content.assemble(count, (f" of {figures.whole(answer.total)}", "$quiet"))
            at = figures.whole(self._table.cursor + 1) if answer.ids else UNKNOWN
            right = Content.assemble((f"row {at} · ", "$quiet"), count)
        self.query_one(Trail).update(spread(left, right, self.size.width - 2))
        self.query_one("#hint", Static).update(self._hint(model))

    def _hint(self, model: RunModel) -> Content:
        way = "↓" if self._order.descending else "↑"
        by = Content.assemble(("by ", "$quiet"), f"{self._order.by.replace('_', ' ')} {way}")
        if self._misfit:
            return line(self._misfit, "$warn", limit=400)
        if self._problem:
            return line(self._problem, "$bad", limit=300)
        if self._is_searching:
            return Content.assemble(by, ("   searching …", "$warn"))
        if behind := self._steps_behind(model):
            steps = f"{behind} step{'' if behind == 1 else 's'}"
            if self._table.cursor > 0:
                return Content.assemble(
                    by, (f"   ⏸ {steps} behind, ", "$warn"), ("Home", "bold $gold"), " follows"
                )
            return Content.assemble(by, (f"   {steps} to come", "$quiet"))
        return by

    # --- the filter

    def do_filter(self) -> None:
        self.query_one(FilterLine).begin()

    def step_back(self) -> bool:
        """Take back what was typed since ``/``; False when nothing is being typed."""
        return self.query_one(FilterLine).take_back()

    @on(FilterLine.Changed)
    def _filter_changed(self, event: FilterLine.Changed) -> None:
        self._misfit = event.problem
        if event.selection is not None and event.selection.text != self._filter.text:
            self._filter = event.selection
            self._table.go_to(0)
            self._search()
        else:
            self.refresh_screen()

    @on(FilterLine.Done)
    def _filter_done(self) -> None:
        self._table.focus()

    # --- order

    def do_sort(self) -> None:
        names = list(_ORDERS)
        self._order_by(Order(names[(names.index(self._order.by) + 1) % len(names)]))

    def do_turn(self) -> None:
        self._order_by(replace(self._order, descending=not self._order.descending))

    @on(LongTable.HeaderClicked)
    def _sort_by_column(self, event: LongTable.HeaderClicked) -> None:
        name = next((name for name, index in _ORDERS.items() if index == event.index), None)
        if name == self._order.by:
            self.do_turn()
        elif name is not None:
            self._order_by(Order(name))

    def _order_by(self, order: Order) -> None:
        self._order = order
        self._table.order_by(_ORDERS[order.by], descending=order.descending)
        self._table.go_to(0)
        self._search()

    # --- walking and opening

    def do_next_rollout(self) -> None:
        self._table.action_move(1)

    def do_previous_rollout(self) -> None:
        self._table.action_move(-1)

    def do_newest(self) -> None:
        self._table.action_edge(-1)
        self._keep_up()

    def do_open_rollout(self) -> None:
        self._table.action_choose()

    @on(LongTable.Chosen)
    def _open(self, event: LongTable.Chosen) -> None:
        if self._run is not None and not self._is_opening:
            self._is_opening = True
            self._read_one(self._run, int(event.key), Walk(self._table.ids, self._table.cursor))

    @work(thread=True, exit_on_error=False, group="rollout-open")
    def _read_one(self, run: RunDirectory, identifier: int, walk: Walk) -> None:
        try:
            reader = StoreReader(run.database)
            try:
                self.post_message(RolloutRead(reader.rollout(identifier), walk))
            finally:
                reader.close()
        except TROUBLE as error:
            self.post_message(RolloutRead(None, walk, in_words(error)))

    def on_rollout_read(self, read: RolloutRead) -> None:
        self._is_opening = False
        if read.problem:
            self._problem = read.problem
            self.refresh_screen()
        elif read.rollout is not None and self._run is not None and self.is_current:
            self._walk = read.walk
            self.app.push_screen(RolloutScreen(self._run, read.rollout, read.walk))

    @on(events.ScreenResume)
    def _return_to_where_the_walk_ended(self) -> None:
        walk, self._walk = self._walk, None
        if walk is not None and self._is_composed and walk.ids is self._table.ids:
            self._table.go_to(walk.at)

    # --- export

    @property
    def why_no_export(self) -> str:
        """Why nothing can be exported now; empty when it can."""
        if self._answer is None or not self._answer.is_all:
            return "the rollouts are still being counted"
        return "" if self._answer.ids else "there is no rollout to export"

    def do_export_rollouts(self) -> None:
        from stonk_tui.screens.export import ExportScreen

        if self._run is not None and self._answer is not None:
            self.app.push_screen(ExportScreen(self._run, self._answer.ids, self._filter.text))


def _row(rollout: Rollout, *, leads: bool) -> Row:
    """The line of the newest rollouts, with the number of tokens; ``+`` where it was cut."""
    row = rollout_row(rollout, leads=leads)
    tokens = figures.whole(rollout.tokens) + ("" if rollout.finished else "+")
    return Row(row.key, (*row.cells[:-1], Content.styled(tokens, "$quiet"), row.cells[-1]))

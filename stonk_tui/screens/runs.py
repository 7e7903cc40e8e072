"""All runs: what they are doing, and which to attach to."""

import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from textual import events, on, work
from textual.app import ComposeResult
from textual.binding import BindingType
from textual.content import Content
from textual.message import Message
from textual.widgets import Input, Static

from engine import config as configuration
from engine.errors import UserError
from engine.runs.directory import RunDirectory
from engine.runs.disk import refusal
from engine.text import one_line
from stonk_tui import actions, run_filter, run_table
from stonk_tui.run_list import GOING, Listed, RunList
from stonk_tui.screens.base import CockpitScreen
from stonk_tui.screens.confirm import ConfirmScreen
from stonk_tui.theme import state_look
from stonk_tui.widgets.doors import Door, Doors
from stonk_tui.widgets.filter_bar import FilterBar
from stonk_tui.widgets.table import Row, Table
from stonk_tui.widgets.text import line
from stonk_tui.widgets.trail import Trail, trail

if TYPE_CHECKING:
    from engine.runs.deletion import Deletion
    from stonk_tui.screens.begin import Begun
    from stonk_tui.screens.new_run import Made

REFRESH_SECONDS = 2.0
_REAL_PRESET = "stage1"
MOST_SELECTED = 6
"""As many as the curves of a comparison can be told apart."""


@dataclass
class DeletionPlanned(Message, bubble=False):
    """A run can be deleted, and this is what would be gone."""

    item: Listed
    plan: "Deletion"


@dataclass
class Deleted(Message, bubble=False):
    """A run was deleted, or not."""

    run: RunDirectory
    problem: str


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
    RunsScreen #greeting { height: 1fr; display: none; }
    RunsScreen Table { padding: 0 1; margin-top: 1; }
    RunsScreen.-low Table { margin-top: 0; }
    RunsScreen #explained { height: 3; padding: 0 1; background: $surface; }
    RunsScreen.-empty #greeting { display: block; }
    RunsScreen.-empty Table, RunsScreen.-empty #explained { display: none; }
    """

    def compose_body(self) -> ComposeResult:
        yield Trail()
        yield FilterBar(id="filter-bar")
        yield Table(run_table.COLUMNS, empty="Looking for runs …", id="runs-table", follows=False)
        yield Static(id="explained", markup=False)
        yield Doors(id="greeting")

    def on_mount(self) -> None:
        self._list = RunList()
        self._reading = threading.Lock()
        self._listed: list[Listed] = []
        self._shown: list[Listed] = []
        self._drawn: dict[str, tuple[Listed, str, bool, Row]] = {}
        self._filter = run_filter.Filter()
        self._order, self._is_reversed = "newest", False
        self._selected: dict[str, None] = {}
        self.query_one(Table).focus()
        self._look()
        self.set_interval(REFRESH_SECONDS, self._look)

    # --- reading

    @work(thread=True, exit_on_error=False, group="runs")
    def _read(self) -> None:
        # A thread cannot be cancelled, and two of them would read the same runs twice.
        if not self._reading.acquire(blocking=False):
            return
        try:
            self._list.look(lambda runs, _: self.app.call_from_thread(self._take, runs))
        except OSError as error:
            self.app.call_from_thread(
                self.query_one(Table).say_when_empty,
                one_line(f"The runs cannot be read: {refusal(error) or error}", 400),
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

    def _take(self, listed: list[Listed]) -> None:
        self._listed = listed
        if self.has_class("-empty") != (not listed):
            self.set_class(not listed, "-empty")
            # What had the focus is out of sight now.
            self.query_one(Table).focus() if listed else self.query(Door).first().focus()
        known = {item.run.id for item in listed}
        self._selected = {name: None for name in self._selected if name in known}
        self._show()

    # --- showing

    def _show(self) -> None:
        """Filter, order and draw what was read last."""
        now = self.cockpit.clock()
        passed = [item for item in self._listed if self._filter.matches(item.subject)]
        self._shown = run_table.ordered(passed, self._order, reverse=self._is_reversed)
        table = self.query_one(Table)
        if self._listed and not passed:
            table.say_when_empty("No run passes the filter; / changes it.")
        table.set_rows([self._row(item, now) for item in self._shown])
        self._show_title()
        self._explain()
        self.show_keys()

    def _row(self, item: Listed, now: float) -> Row:
        """The row of a run, made again only when something in it has changed."""
        key = (item, run_table.age(item, now), item.run.id in self._selected)
        known = self._drawn.get(item.run.id)
        if known is not None and known[:3] == key:
            return known[3]
        made = run_table.row(item, now, is_selected=key[2])
        self._drawn[item.run.id] = (*key, made)
        return made

    def _show_title(self) -> None:
        count, going = len(self._listed), sum(item.state in GOING for item in self._listed)
        words = f"{count} run{'' if count == 1 else 's'}" + (f", {going} going" if going else "")
        pieces: list[Content | tuple[str, str]] = [trail(None, "runs"), (f"   {words}", "$quiet")]
        if self._filter.terms:
            pieces.append((f", {len(self._shown)} shown", "$warn"))
        if self._order != "newest" or self._is_reversed:
            pieces.append((f"   by {self._order}{', reversed' * self._is_reversed}", "$quiet"))
        if self._selected:
            pieces.append((f"   {run_table.SELECTED} {len(self._selected)} selected", "$gold"))
        self.query_one(Trail).update(Content.assemble(*pieces))

    @on(Table.Moved)
    def _follow_cursor(self) -> None:
        self._explain()
        # What can be done depends on the run.
        self.show_keys()

    def _explain(self) -> None:
        item = self.run_in_sight
        widget = self.query_one("#explained", Static)
        width = widget.content_size.width or self.size.width - 2
        widget.update(
            run_table.explained(item, self.cockpit.clock(), width) if item else Content("")
        )

    def on_resize(self) -> None:
        if self._is_composed:
            self.call_after_refresh(self._explain)

    # --- the run that is meant

    @property
    def run_in_sight(self) -> Listed | None:
        """What is known of the run under the cursor."""
        key = self.query_one(Table).cursor_key
        return next((item for item in self._shown if item.run.id == key), None)

    def do_attach(self) -> None:
        self.query_one(Table).action_choose()

    @on(Table.Chosen)
    def _attach_chosen(self, event: Table.Chosen) -> None:
        run = next((item.run for item in self._listed if item.run.id == event.key), None)
        if run is not None:
            self.cockpit.attach(run)

    # --- filter, order, selection

    def do_filter_runs(self) -> None:
        self.query_one(FilterBar).open()

    @on(Input.Changed, "#filter")
    def _filter_changed(self, event: Input.Changed) -> None:
        self._filter = run_filter.parse(event.value)
        problems = [f"{problem.term} → {problem.why}" for problem in self._filter.problems]
        self.query_one(FilterBar).explain(line("; ".join(problems), "$warn", limit=300))
        self._show()

    @on(FilterBar.Left)
    def _leave_filter(self) -> None:
        self.query_one(Table).focus()

    def do_sort_runs(self) -> None:
        orders = list(run_table.ORDERS)
        self._order = orders[(orders.index(self._order) + 1) % len(orders)]
        self._is_reversed = False
        self._show()

    def do_reverse_runs(self) -> None:
        self._is_reversed = not self._is_reversed
        self._show()

    def do_select_run(self) -> None:
        item = self.run_in_sight
        if item is None:
            return
        if item.run.id in self._selected:
            del self._selected[item.run.id]
        elif len(self._selected) == MOST_SELECTED:
            self.notify(f"Not more than {MOST_SELECTED} runs at once.", severity="warning")
        else:
            self._selected[item.run.id] = None
        self._show()

    def do_compare_runs(self) -> None:
        # Imported when first needed, like everything that only few openings need.
        from stonk_tui.screens.compare import CompareScreen

        known = {item.run.id: item for item in self._listed}
        self.app.push_screen(CompareScreen([known[name] for name in self._selected]))

    # --- a new run

    def do_new_run(self) -> None:
        self._fill_in("demo")

    @on(Door.Opened)
    def _open_door(self, event: Door.Opened) -> None:
        self.cockpit.perform(event.action_id)

    def do_door_demo(self) -> None:
        from stonk_tui.screens.begin import BeginScreen

        arguments = ["train", "--preset", "demo", "--detach"]
        self.app.push_screen(BeginScreen("Start the demo", arguments), self._take_begun)

    def _take_begun(self, begun: "Begun | None") -> None:
        if begun is not None and begun.run is not None:
            self.cockpit.attach(begun.run)
        elif begun is not None and begun.problem:
            self.notify(one_line(begun.problem, 400), severity="error", markup=False, timeout=20)

    def do_door_real(self) -> None:
        from stonk_tui.screens.real_run import RealRunScreen

        self.app.push_screen(
            RealRunScreen(configuration.preset(_REAL_PRESET)),
            lambda goes_on: self._fill_in(_REAL_PRESET) if goes_on else None,
        )

    def do_door_folder(self) -> None:
        from stonk_tui.screens.open_folder import OpenFolderScreen

        self.app.push_screen(
            OpenFolderScreen(), lambda run: self.cockpit.attach(run) if run else None
        )

    def _fill_in(self, preset: str) -> None:
        from stonk_tui.screens.new_run import NewRunScreen

        self.app.push_screen(NewRunScreen(preset, self._listed), self._take_new_run)

    def _take_new_run(self, made: "Made | None") -> None:
        if made is None:
            return
        if made.is_started:
            self.cockpit.attach(made.run)
            return
        key = self.cockpit.keymap.shown(actions.BY_ID["start"])
        self.notify(f"{one_line(made.run.id)} is prepared; {key} starts it", markup=False)
        self._look()

    # --- deleting

    def why_not(self, action_id: str) -> str:
        """Why an action of this screen can do nothing now; empty when it can."""
        item = self.run_in_sight if self._is_composed else None
        if action_id in ("filter_runs", "sort_runs"):
            return "" if self._is_composed and self._listed else "there is no run yet"
        if action_id == "compare_runs":
            return "" if len(self._selected) > 1 else "select two runs or more with space"
        if item is None:
            return "there is no run under the cursor"
        if action_id == "delete_run" and item.state in GOING:
            return "it is at work: stop it first"
        return ""

    def do_delete_run(self) -> None:
        if (item := self.run_in_sight) is not None:
            self._plan_deletion(item)

    @work(thread=True, exit_on_error=False, group="deletion")
    def _plan_deletion(self, item: Listed) -> None:
        from engine.runs import deletion

        try:
            plan = deletion.plan(item.run)
        except (UserError, OSError) as error:
            self.post_message(Deleted(item.run, str(error)))
        else:
            self.post_message(DeletionPlanned(item, plan))

    def on_deletion_planned(self, event: DeletionPlanned) -> None:
        def go_on(is_meant: bool | None) -> None:
            if is_meant:
                self._delete(event.item.run)

        if self.is_current:
            self.app.push_screen(ask_to_delete(event.item, event.plan), go_on)

    @work(thread=True, exit_on_error=False, group="deletion")
    def _delete(self, run: RunDirectory) -> None:
        from engine.runs import deletion

        try:
            deletion.delete(run)
        except (UserError, OSError) as error:
            self.post_message(Deleted(run, str(error)))
        else:
            self.post_message(Deleted(run, ""))

    def on_deleted(self, event: Deleted) -> None:
        if event.problem:
            self.notify(one_line(event.problem, 400), severity="error", markup=False, timeout=12)
            return
        self.cockpit.forget(event.run)
        self.notify(f"{one_line(event.run.id)} is deleted", markup=False)
        self._look()


def ask_to_delete(item: Listed, plan: "Deletion") -> ConfirmScreen:
    """The question before a run is gone: what it is, what is in it, and what else will miss it."""
    summary = item.summary
    stage = f"Stage {item.stage}" if item.stage else "Of no known stage"
    done = f"{summary.step} step{'' if summary.step == 1 else 's'} done"
    state = state_look(item.subject.state).word
    lines = [Content(f"{stage}, {state}, {done}; {plan.contents}. Nothing brings it back.")]
    lines += [line(consequence, "$warn", limit=300) for consequence in plan.consequences]
    question = Content.assemble("Delete ", line(item.run.id, limit=60), "?")
    return ConfirmScreen(question, Content("\n").join(lines), "delete it", "keep it")

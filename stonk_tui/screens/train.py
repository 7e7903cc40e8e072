"""The train screen: one run, live."""

from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, ClassVar

from textual import on
from textual.app import ComposeResult
from textual.binding import BindingType
from textual.containers import Container
from textual.content import Content
from textual.geometry import Size
from textual.widgets import Static

from stonk_tui import actions, chart_choices, chart_view
from stonk_tui.screens.alarm import AlarmScreen
from stonk_tui.screens.base import CockpitScreen
from stonk_tui.screens.rollout import RolloutScreen, Walk
from stonk_tui.widgets.alarms import AlarmsPanel, newest_first
from stonk_tui.widgets.banner import Banner
from stonk_tui.widgets.board import FOLDED_TOP, PANELS, Board, is_wide
from stonk_tui.widgets.breakdown import BreakdownPanel
from stonk_tui.widgets.celebration import celebrate
from stonk_tui.widgets.device import DevicePanel
from stonk_tui.widgets.happenings import HappeningsPanel
from stonk_tui.widgets.health import HealthPanel
from stonk_tui.widgets.market import MarketPanel
from stonk_tui.widgets.panel import Panel
from stonk_tui.widgets.reward import RewardPanel
from stonk_tui.widgets.rollouts import RolloutsPanel
from stonk_tui.widgets.saiyan import SaiyanPanel
from stonk_tui.widgets.state_line import StateLine
from stonk_tui.widgets.table import Table

if TYPE_CHECKING:
    from stonk_tui.feed import RunModel
    from stonk_tui.machine import Machine


class TrainScreen(CockpitScreen):
    """State line, nine panels, footer."""

    BINDINGS: ClassVar[list[BindingType]] = actions.bindings("train")
    scope: ClassVar[actions.Scope] = "train"
    DEFAULT_CSS = """
    TrainScreen #folded { height: auto; padding: 0 1; display: none; text-wrap: nowrap; }
    TrainScreen.-folded #folded { display: block; }
    """

    def compose_body(self) -> ComposeResult:
        yield StateLine(id="state")
        yield Banner(id="banner")
        yield Static(id="folded", markup=False)
        with Board(id="board"):
            yield RewardPanel(id="reward")
            yield SaiyanPanel(id="saiyan")
            yield BreakdownPanel(id="breakdown")
            yield MarketPanel(id="market")
            yield HealthPanel(id="health")
            yield RolloutsPanel(id="rollouts")
            yield DevicePanel(id="device")
            yield AlarmsPanel(id="alarms")
            yield HappeningsPanel(id="events")

    def on_mount(self) -> None:
        self._board = self.query_one(Board)
        self._folded_lines = Content("")
        self.sample(self.cockpit.machine)
        self.query_one("#rollout-table").focus()

    def show_model(self) -> None:
        model = self.cockpit.model
        if model is None:
            return
        machine = self.cockpit.machine
        self.query_one(StateLine).show(model, machine, read_only=self.cockpit.read_only)
        self.query_one(Banner).show(model, self.cockpit.clock(), self.cockpit.keymap)
        for name in self._board.shown:
            self.query_one(f"#{name}", Panel).show(model)
        self.set_class(not self._is_wide, "-folded")
        if not self._is_wide:
            self._show_folded(model)

    def _show_folded(self, model: "RunModel") -> None:
        """What has no panel of its own on a small screen, a line each."""
        width = self.size.width - 2
        pieces = [SaiyanPanel.folded(model, width), MarketPanel.folded(model, width)]
        if alarms := AlarmsPanel.folded(model, width, self.cockpit.keymap):
            pieces.append(alarms)
        lines = Content("\n").join(pieces)
        if not lines.is_same(self._folded_lines):
            self._folded_lines = lines
            self.query_one("#folded", Static).update(lines)

    def shows(self, name: str) -> bool:
        """Whether a panel has a place on screen now."""
        return name in self._board.shown

    def tell(self, *, new_alarm: bool, super_saiyan: bool) -> None:
        """Something happened just now that deserves to be seen."""
        if new_alarm:
            self.query_one(AlarmsPanel).stand_out()
        if super_saiyan:
            celebrate(self.query_one(SaiyanPanel))

    def sample(self, machine: "Machine") -> None:
        """A newer sample of the machine."""
        self.query_one(DevicePanel).sample(machine)

    @property
    def _is_wide(self) -> bool:
        # The folded lines make room for themselves above the board: what counts is the room
        # that there is for both, or the two arrangements would take turns.
        folded = self.query_one("#folded").size.height if self.has_class("-folded") else 0
        room = self._board.size
        return is_wide(Size(room.width, room.height + folded))

    @property
    def current_panel(self) -> str:
        """Id of the panel that has the focus."""
        widget = self.focused
        while widget is not None and widget is not self:
            if isinstance(widget, Panel) and widget.id:
                return widget.id
            parent = widget.parent
            widget = parent if isinstance(parent, Container | Panel) else None
        return "rollouts"

    def go_to_panel(self, name: str) -> None:
        """Focus a panel, in the folded arrangement after putting it in place."""
        zoomed = name if self._board.zoomed else None
        slot = None if name in FOLDED_TOP else name
        self._board.rearrange(slot=slot, zoomed=zoomed)
        panel = self.query_one(f"#{name}", Panel)
        if self.cockpit.model is not None:
            # One that had no place until now draws itself when it gets its size.
            panel.show(self.cockpit.model)
        (panel.table if isinstance(panel, RolloutsPanel) else panel).focus()
        self.call_after_refresh(self.refresh_screen)

    def do_panel_reward(self) -> None:
        self.go_to_panel("reward")

    def do_panel_saiyan(self) -> None:
        self.go_to_panel("saiyan")

    def do_panel_breakdown(self) -> None:
        self.go_to_panel("breakdown")

    def do_panel_market(self) -> None:
        self.go_to_panel("market")

    def do_panel_health(self) -> None:
        self.go_to_panel("health")

    def do_panel_rollouts(self) -> None:
        self.go_to_panel("rollouts")

    def do_panel_device(self) -> None:
        self.go_to_panel("device")

    def do_panel_alarms(self) -> None:
        self.go_to_panel("alarms")

    def do_panel_events(self) -> None:
        self.go_to_panel("events")

    def do_next_panel(self) -> None:
        self._walk(1)

    def do_previous_panel(self) -> None:
        self._walk(-1)

    def _walk(self, direction: int) -> None:
        at = PANELS.index(self.current_panel)
        self.go_to_panel(PANELS[(at + direction) % len(PANELS)])

    def do_zoom(self) -> None:
        zoomed = None if self._board.zoomed else self.current_panel
        self._board.rearrange(zoomed=zoomed)
        self.call_after_refresh(self.refresh_screen)

    def step_back(self) -> bool:
        """Fold a zoomed panel back."""
        if self._board.zoomed is None:
            return False
        self.do_zoom()
        return True

    # --- the chart

    @property
    def _chart(self) -> RewardPanel:
        return self.query_one(RewardPanel)

    def why_no_chart(self, what: str) -> str:
        """Why ``what`` cannot be done with the chart: only the panel in focus takes its keys."""
        if self.current_panel != "reward":
            return f"the chart is not in focus: {self.cockpit.keymap.of('panel_reward')} goes there"
        return self._chart.problem(what)

    def do_chart_rougher(self) -> None:
        self._chart.look_through(lambda view, _: chart_view.smoother(view, -1))

    def do_chart_smoother(self) -> None:
        self._chart.look_through(lambda view, _: chart_view.smoother(view, 1))

    def do_chart_in(self) -> None:
        self._chart.look_through(lambda view, at: chart_view.zoom(view, at, 1 / chart_view.ZOOM))

    def do_chart_out(self) -> None:
        self._chart.look_through(lambda view, at: chart_view.zoom(view, at, chart_view.ZOOM))

    def do_chart_left(self) -> None:
        self._chart.move(-1)

    def do_chart_right(self) -> None:
        self._chart.move(1)

    def do_chart_follow(self) -> None:
        self._chart.look_through(lambda view, _: chart_view.follow(view))

    def do_chart_whole(self) -> None:
        self._chart.look_through(lambda view, _: chart_view.whole(view))

    def do_chart_log(self) -> None:
        self._chart.look_through(lambda view, _: replace(view, is_log=not view.is_log))

    def do_chart_cursor(self) -> None:
        self._chart.look_through(chart_view.toggle_cursor)

    def do_chart_next(self) -> None:
        if (model := self.cockpit.model) is not None:
            shown = self._chart.look.shown
            self._chart.choose(chart_choices.next_of_round(model.history, shown))

    def do_chart_choose(self) -> None:
        # Imported when first needed, like everything that only few openings need.
        from stonk_tui.screens.choose_metric import ChooseMetricScreen

        if (model := self.cockpit.model) is not None:
            shown = self._chart.look.shown
            self.app.push_screen(ChooseMetricScreen(model.history, shown), self._show_in_chart)

    def _show_in_chart(self, name: str | None) -> None:
        if name is not None:
            self._chart.choose(name)

    def do_chart_export(self) -> None:
        from stonk_tui.screens.export_series import ExportSeriesScreen

        if (model := self.cockpit.model) is not None and (shown := self._chart.export):
            self.app.push_screen(ExportSeriesScreen(model.run, *shown))

    @on(RewardPanel.Looked)
    def _look_elsewhere(self, event: RewardPanel.Looked) -> None:
        """One cursor over all courses on screen."""
        self.query_one(HealthPanel).point_at(event.view.cursor)
        self.show_keys()

    def do_open(self) -> None:
        if self.current_panel != "alarms":
            self.query_one("#rollout-table", Table).action_choose()
        elif (model := self.cockpit.model) is not None and (alarms := newest_first(model)):
            self.app.push_screen(AlarmScreen(alarms))

    def do_find_rollouts(self) -> None:
        from stonk_tui.screens.rollouts import RolloutsScreen

        self.cockpit.do_mode("rollouts")
        screen = self.app.screen
        if isinstance(screen, RolloutsScreen):
            screen.call_after_refresh(screen.do_filter)

    def do_open_evaluate(self) -> None:
        self.cockpit.do_mode("evaluate")

    def do_settings(self) -> None:
        # Imported when first needed, like everything that only few openings need.
        from stonk_tui.screens.settings import SettingsScreen

        if (model := self.cockpit.model) is not None:
            # What keeps a run from taking commands keeps it from taking this one.
            why_not = partial(actions.BY_ID["pause"].why_not, self.cockpit)
            self.app.push_screen(SettingsScreen(model, why_not), self._say_accepted)

    def _say_accepted(self, sent: bool | None) -> None:
        if sent:
            self.app.notify("set: accepted, it takes effect between two steps", markup=False)

    @on(Table.Chosen)
    def _open_rollout(self, event: Table.Chosen) -> None:
        model = self.cockpit.model
        if model is None:
            return
        rollout = next(item for item in model.rollouts if str(item.id) == event.key)
        # From here a person walks from prompt to prompt, by the first answer of each.
        firsts: dict[tuple[int, int], int] = {}
        for item in model.rollouts:
            firsts.setdefault((item.step, item.group), item.id)
        walk = Walk(list(firsts.values()), list(firsts).index((rollout.step, rollout.group)))
        self.app.push_screen(RolloutScreen(model.run, rollout, walk, model.rollouts))

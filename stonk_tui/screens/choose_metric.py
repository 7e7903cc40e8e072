"""What the chart shall show: everything that a run has measured, narrowed down while typing."""

from typing import ClassVar

from textual import on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical
from textual.content import Content
from textual.screen import ModalScreen
from textual.widgets import Input, OptionList
from textual.widgets.option_list import Option

from engine.runs.history import History
from stonk_tui import chart_choices
from stonk_tui.chart_choices import Choice
from stonk_tui.widgets import figures
from stonk_tui.widgets.text import line

_NAME = 44


class ChooseMetricScreen(ModalScreen[str | None]):
    """A list under a field; enter chooses what is marked."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape", "dismiss", "Leave", show=False),
        # The field keeps the focus: the list is moved from there.
        Binding("down", "move(1)", "Down", show=False, priority=True),
        Binding("up", "move(-1)", "Up", show=False, priority=True),
    ]
    DEFAULT_CSS = """
    ChooseMetricScreen { align: center middle; background: $background 70%; }
    ChooseMetricScreen > Vertical {
        width: 66; max-width: 98%; height: 22; max-height: 96%; padding: 0 1;
        border: round $gold; background: $surface; border-title-color: $gold;
    }
    ChooseMetricScreen Input { background: $panel; }
    ChooseMetricScreen OptionList {
        height: 1fr; border: none; padding: 0; background: $surface; scrollbar-size-vertical: 1;
    }
    """

    def __init__(self, history: History, shown: str) -> None:
        """Offer what ``history`` has measured; ``shown`` is marked first."""
        super().__init__()
        self._history = history
        self._shown = shown
        offered = [*chart_choices.ROUND, *chart_choices.metrics(history)]
        found = [chart_choices.choice(history, name) for name in offered]
        self._choices: dict[tuple[str, ...], Choice] = {}
        for chosen in found:
            if chart_choices.has_points(history, chosen):
                # One of the round and its metric are the same thing.
                self._choices.setdefault(chosen.metrics, chosen)

    def compose(self) -> ComposeResult:
        with Vertical() as box:
            box.border_title = Content(" Show in the chart ")
            yield Input(placeholder="part of a name", id="part", compact=True)
            yield OptionList(id="metrics", markup=False)

    def on_mount(self) -> None:
        self.query_one("#part", Input).focus()
        self._narrow()
        names = [chosen.id for chosen in self._choices.values()]
        if self._shown in names:
            self.query_one(OptionList).highlighted = names.index(self._shown)

    @on(Input.Changed, "#part")
    def _narrow(self) -> None:
        part = self.query_one("#part", Input).value.strip().lower()
        self._offered = [
            chosen
            for chosen in self._choices.values()
            if part in chosen.label.lower() or any(part in name for name in chosen.metrics)
        ]
        options = self.query_one(OptionList)
        options.clear_options()
        options.add_options(Option(self._line(chosen)) for chosen in self._offered)
        options.highlighted = 0 if self._offered else None

    def _line(self, chosen: Choice) -> Content:
        label = line(chosen.label, limit=_NAME)
        series = self._history.series.get(chosen.metrics[0])
        is_one = len(chosen.metrics) == 1 and series is not None
        newest = figures.small(series.values[-1]) if is_one and series and series.values else ""
        return Content.assemble(
            label.pad_right(_NAME - label.cell_length), (f"{newest:>10}", "$quiet")
        )

    def action_move(self, direction: int) -> None:
        options = self.query_one(OptionList)
        if direction > 0:
            options.action_cursor_down()
        else:
            options.action_cursor_up()

    @on(Input.Submitted, "#part")
    def _choose(self) -> None:
        at = self.query_one(OptionList).highlighted
        if at is not None:
            self.dismiss(self._offered[at].id)

    @on(OptionList.OptionSelected)
    def _choose_by_mouse(self, event: OptionList.OptionSelected) -> None:
        self.dismiss(self._offered[event.option_index].id)

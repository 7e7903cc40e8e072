"""Runs laid over each other: reward, accuracy and KL divergence over steps."""

import threading
from typing import ClassVar

from textual import work
from textual.app import ComposeResult
from textual.binding import BindingType
from textual.containers import Container, Vertical
from textual.content import Content
from textual.widgets import Static

from stonk_tui import actions, comparison
from stonk_tui.comparison import LOOKS, Curves, Smoothed
from stonk_tui.run_list import Listed
from stonk_tui.screens.base import CockpitScreen
from stonk_tui.widgets import figures
from stonk_tui.widgets.chart import Chart
from stonk_tui.widgets.text import line
from stonk_tui.widgets.trail import Trail, trail

REFRESH_SECONDS = 2.0
_CHARTS = {
    "reward": ("Reward", "smoothed over 12 steps"),
    "accuracy": ("Validation accuracy", "percent"),
    "kl": ("KL to the reference policy", "nats a token, smoothed over 12 steps"),
}
_POSITIONS = 60
"""How many presses take the cursor from one end to the other."""


class CompareScreen(CockpitScreen):
    """Charts of two to six runs, and a legend that reads them off at the cursor."""

    BINDINGS: ClassVar[list[BindingType]] = actions.bindings("compare")
    scope: ClassVar[actions.Scope] = "compare"
    noun = "Compare"
    explanation = (
        "Two to six runs over each other: reward, validation accuracy and KL divergence by step. "
        "Each run has a glyph and a colour of its own, and the legend reads all of them off at "
        "the cursor. Rewards of different schemes are on different scales, which is said where "
        "it is so."
    )
    DEFAULT_CSS = """
    CompareScreen #legend { height: auto; padding: 0 1; text-wrap: nowrap; }
    CompareScreen #apart { height: auto; max-height: 2; padding: 0 1; color: $quiet; }
    CompareScreen #charts {
        layout: grid; grid-size: 2 2; grid-rows: 3fr 2fr; height: 1fr;
    }
    CompareScreen .chart { border: round $edge; border-title-color: $ink; padding: 0 1; }
    CompareScreen #box-reward { column-span: 2; }
    CompareScreen.-low #charts, CompareScreen.-narrow #charts { layout: vertical; }
    CompareScreen.-low .chart, CompareScreen.-narrow .chart { display: none; height: 1fr; }
    CompareScreen.-low .chart.-current, CompareScreen.-narrow .chart.-current { display: block; }
    """

    def __init__(self, runs: list[Listed]) -> None:
        """Prepare to compare ``runs``, at most as many as there are looks."""
        super().__init__()
        self._runs = runs
        self._curves = [Curves()] * len(runs)
        self._smoothed = [Smoothed()] * len(runs)
        self._drawn: object = None
        self._reading = threading.Lock()
        self._at: int | None = None
        self._current = "reward"
        self._apart = comparison.differences([item.config for item in runs])

    def compose_body(self) -> ComposeResult:
        yield Trail()
        yield Static(id="legend", markup=False)
        yield Static(id="apart", markup=False)
        with Container(id="charts"):
            for name, (title, unit) in _CHARTS.items():
                with Vertical(id=f"box-{name}", classes="chart") as box:
                    box.border_title = Content.assemble(f"{title} ", (unit, "$quiet"))
                    yield Chart(id=name)

    def on_mount(self) -> None:
        self.query_one("#apart", Static).update(_in_words(self._apart))
        self._mark_current()
        self._read()
        self.set_interval(REFRESH_SECONDS, self._read)

    @work(thread=True, exit_on_error=False, group="compare")
    def _read(self) -> None:
        # A thread cannot be cancelled; a long first read must not be begun twice.
        if not self._reading.acquire(blocking=False):
            return
        try:
            pairs = zip(self._runs, self._curves, strict=True)
            curves = [comparison.read(item.run, before) for item, before in pairs]
            if curves != self._curves:
                smoothed = [comparison.smooth(one) for one in curves]
                self.app.call_from_thread(self._take, curves, smoothed)
        finally:
            self._reading.release()

    def _take(self, curves: list[Curves], smoothed: list[Smoothed]) -> None:
        self._curves, self._smoothed = curves, smoothed
        self.refresh_screen()

    def on_resize(self) -> None:
        if self._is_composed:
            self.call_after_refresh(self.refresh_screen)

    def show_model(self) -> None:
        drawn = (self._curves, self._at, self.size)
        if self._drawn == drawn:
            return
        self._drawn = drawn
        where = "newest" if self._at is None else f"at step {self._at}"
        self.query_one(Trail).update(
            Content.assemble(
                trail(None, "compare"), (f"   {len(self._runs)} runs, {where}", "$quiet")
            )
        )
        width = self.size.width - 2
        self.query_one("#legend", Static).update(
            Content("\n").join(
                self._legend(index, width).truncate(width, ellipsis=True)
                for index in range(len(self._runs))
            )
        )
        self._draw("reward", [comparison.thinned(one.reward) for one in self._smoothed])
        self._draw("kl", [comparison.thinned(one.kl) for one in self._smoothed])
        self._draw(
            "accuracy",
            [tuple((one.step, one.accuracy) for one in own.validations) for own in self._curves],
        )

    def _draw(self, name: str, curves: list[comparison.Points]) -> None:
        empty = "no validation yet" if name == "accuracy" else "no step yet"
        self.query_one(f"#{name}", Chart).draw(
            comparison.picture(curves, self._at, empty=empty, is_share=name == "accuracy")
        )

    def _legend(self, index: int, width: int) -> Content:
        """One run: its glyph, its name, and its figures where the cursor stands."""
        item, curves, (glyph, style) = self._runs[index], self._curves[index], LOOKS[index]
        at = self._end if self._at is None else self._at
        name = line(item.run.id, limit=34 if width >= 100 else 22)
        if curves.problem:
            return Content.assemble((f"{glyph} ", style), name, "  ", line(curves.problem, "$bad"))
        found = comparison.validated_at(curves, at)
        reward = comparison.value_at(self._smoothed[index].reward, at)
        kl = comparison.value_at(self._smoothed[index].kl, at)
        last = curves.steps[1]
        return Content.assemble(
            (f"{glyph} ", style),
            name.pad_right(max(0, (34 if width >= 100 else 22) - name.cell_length)),
            (" reward " if width >= 100 else " ", "$quiet"),
            (f"{figures.fixed(reward):>5}", "bold"),
            ("  validated " if width >= 100 else "  ", "$quiet"),
            *_accuracy(found),
            ("  KL ", "$quiet"),
            f"{figures.small(kl):<6}",
            # What a run that is shorter says further right is what it said last.
            (f" at step {last}" if curves.last_seq and last < at else "", "$warn"),
        )

    # --- cursor and charts

    @property
    def _end(self) -> int:
        return max((curves.steps[1] for curves in self._curves), default=0)

    def _move(self, direction: int) -> None:
        first = min((curves.steps[0] for curves in self._curves if curves.last_seq), default=0)
        end = self._end
        stride = max(1, (end - first) // _POSITIONS)
        at = (end if self._at is None else self._at) + direction * stride
        self._at = min(end, max(first, at))
        self.refresh_screen()

    def do_cursor_left(self) -> None:
        self._move(-1)

    def do_cursor_right(self) -> None:
        self._move(1)

    def do_cursor_end(self) -> None:
        self._at = None
        self.refresh_screen()

    def do_next_chart(self) -> None:
        names = list(_CHARTS)
        self._current = names[(names.index(self._current) + 1) % len(names)]
        self._mark_current()

    def _mark_current(self) -> None:
        for name in _CHARTS:
            self.query_one(f"#box-{name}").set_class(name == self._current, "-current")

    def why_not(self, action_id: str) -> str:
        """Why an action of this screen can do nothing now; empty when it can."""
        if action_id == "next_chart" and not (self.has_class("-low") or self.has_class("-narrow")):
            return "all charts are on screen"
        return ""


def _accuracy(found: comparison.Validated | None) -> list[Content | str | tuple[str, str]]:
    if found is None:
        return [f"{'·':<27}"]
    limits = figures.interval(found.low, found.high)
    count = "" if found.n is None else f"n={found.n:.0f}"
    words = f"{figures.share(found.accuracy)} {limits} {count}"
    return [f"{words:<19} ", ("vs ", "$quiet"), f"{figures.share(found.baseline):<4}"]


def _in_words(apart: tuple[comparison.Difference, ...]) -> Content:
    """What the runs differ in, and whether their rewards can be compared at all."""
    if not apart:
        return Content("The same settings, but for their names.")
    told = [f"{one.key} ({', '.join(str(value) for value in one.values)})" for one in apart]
    words = line("differ in " + ", ".join(told), "$quiet", limit=300)
    if comparison.rewards_differ(apart):
        warning = Content.styled("! Their rewards are not on one scale. ", "$warn")
        return Content.assemble(warning, words)
    return words

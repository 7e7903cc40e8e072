"""Is it learning? The reward over steps, and before the first step what is going on."""

import contextlib
import sqlite3
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import ClassVar

from textual import on, work
from textual.app import ComposeResult
from textual.content import Content
from textual.message import Message

from engine.errors import UserError
from engine.runs.curves import Curve
from engine.runs.directory import RunDirectory
from engine.runs.history import Series
from engine.runs.live_settings import BY_NAME
from engine.runs.reader import StoreReader
from stonk_tui import chart_choices, chart_data, chart_view
from stonk_tui.chart_choices import Choice
from stonk_tui.chart_data import Wanted
from stonk_tui.chart_view import ChartView, Extent
from stonk_tui.feed import RunModel, in_words
from stonk_tui.theme import UNKNOWN
from stonk_tui.widgets import chart, course, figures
from stonk_tui.widgets.activity import activity
from stonk_tui.widgets.chart import Chart, Line, Mark, Picture
from stonk_tui.widgets.course import VALIDATED, VALIDATED_STYLE, Points
from stonk_tui.widgets.panel import Panel, rows
from stonk_tui.widgets.text import line

CHART_SECONDS = 1.0
_LOW, _HIGH = 7, 10
"""Rows from which what is told about the chart has two lines, and three."""


class RewardPanel(Panel):
    """Total reward: every step faintly, its smoothed course on top."""

    noun = "Reward"
    number = 1
    explanation: ClassVar[str] = (
        "The mean reward of each step's rollouts: the weighted sum of all components. The bright "
        "line is an exponential mean over about twelve steps, computed on the whole series; each ◆ "
        "is a validation, never shaped, which may lie elsewhere for that alone. The figure at "
        "the right is that mean now, and its straight-line trend over the last 100 steps."
    )
    DEFAULT_CSS = """
    RewardPanel .body { height: auto; }
    """

    @dataclass
    class Looked(Message):
        """A person looks elsewhere in the chart, or at something else."""

        view: ChartView

    @dataclass
    class CurvesRead(Message, bubble=False):
        """The store told the points that memory does not have."""

        asked: Wanted
        curves: dict[str, Curve]
        problem: str = ""

    def __init__(self, *, id: str) -> None:
        super().__init__(id=id)
        self._chart = Chart(id="reward-chart")
        self._drawn_at = float("-inf")
        self._drawn: tuple[object, ...] = ()
        self._is_due_later = False
        self._run: RunDirectory | None = None
        self.look = ChartView()
        """Where the person looks; change it through ``look_through``."""
        self._asked: Wanted | None = None
        self._read: RewardPanel.CurvesRead | None = None
        """The newest answer of the store; not always to what was asked last."""

    def compose(self) -> ComposeResult:
        yield self._body
        yield self._chart

    # --- where a person looks

    def look_through(self, change: Callable[[ChartView, Extent], ChartView]) -> None:
        """Change the view; nothing happens before the first step."""
        steps = self._steps
        if self._view is None or steps is None:
            return
        self.look = change(self.look, steps)
        self.show(self._view)
        self.post_message(self.Looked(self.look))

    def move(self, direction: int) -> None:
        """The cursor where there is one, else the window."""
        if self.look.cursor is None:
            self.look_through(lambda view, steps: chart_view.pan_by_part(view, steps, direction))
        elif self._view is not None and (chosen := self._chosen) is not None:
            points = self._points(self._view, chosen)
            measured = points.get(chosen.metrics[0], Curve()).steps
            self.look_through(
                lambda view, steps: chart_view.move_cursor(view, steps, measured, direction)
            )

    def choose(self, name: str) -> None:
        """Show something else: one of the round, or any metric."""
        if self._view is not None:
            no_log = chart_choices.choice(self._view.history, name).no_log
            is_log = self.look.is_log and not no_log
            self.look_through(lambda view, _: replace(view, shown=name, is_log=is_log))

    def problem(self, what: str = "") -> str:
        """Why ``what`` cannot be done with the chart now; empty when it can."""
        chosen, steps = self._chosen, self._steps
        if chosen is None or steps is None:
            return "there is no curve before the first step"
        seen = chart_view.window(self.look, steps)
        is_whole = seen == steps
        if what == "log" and not self.look.is_log:
            return chosen.no_log
        if what == "follow" and self.look.is_following:
            return "the chart follows the newest step already"
        if what == "whole" and self.look == chart_view.whole(self.look):
            return "all steps are in sight already"
        if what == "out" and is_whole:
            return "all steps are in sight already"
        if what == "in" and seen.length <= chart_view.LEAST_STEPS:
            return f"{chart_view.LEAST_STEPS} steps are the fewest"
        if what == "move" and self.look.cursor is None and is_whole:
            return "all steps are in sight: + shows fewer, i tells their values"
        if what == "smoother" and self.look.smoothing == chart_view.SMOOTHING[-1]:
            return f"a mean of {self.look.smoothing} steps is the widest"
        if what == "rougher" and self.look.smoothing == chart_view.SMOOTHING[0]:
            return "nothing is smoothed already"
        return ""

    @property
    def export(self) -> "tuple[Choice, ChartView, Extent] | None":
        """What is shown, and which of its steps are in sight; None before the first step."""
        if self._chosen is None or self._steps is None:
            return None
        return self._chosen, self.look, chart_view.window(self.look, self._steps)

    @property
    def heading(self) -> str:
        return course.heading(self._chosen) if self._chosen is not None else self.noun

    @property
    def _chosen(self) -> Choice | None:
        if self._view is None or not _has_steps(self._view):
            return None
        return chart_choices.choice(self._view.history, self.look.shown)

    @property
    def _steps(self) -> Extent | None:
        chosen = self._chosen
        if self._view is None or chosen is None:
            return None
        return chart_data.extent(self._view.history, chosen)

    @on(Chart.Wheeled)
    def _wheel(self, event: Chart.Wheeled) -> None:
        factor = chart_view.ZOOM**-event.direction
        self.look_through(lambda view, steps: chart_view.zoom(view, steps, factor, event.step))

    @on(Chart.Dragged)
    def _drag(self, event: Chart.Dragged) -> None:
        self.look_through(lambda view, steps: chart_view.pan(view, steps, -event.steps))

    @on(Chart.Pointed)
    def _point(self, event: Chart.Pointed) -> None:
        if self.look.cursor is not None:
            step = round(event.step)
            self.look_through(lambda view, steps: chart_view.point_at(view, steps, step))

    # --- drawing

    def draw(self, view: RunModel, width: int, height: int) -> tuple[Content, Content]:
        if self._run != view.run:
            self._run = view.run
            self.look, self._asked, self._read = ChartView(), None, None
        chosen, steps = self._chosen, self._steps
        if chosen is None:
            return self._before_the_first_step(view, width, height)
        self._chart.display = True
        if steps is None:
            self._body.display = False
            self._chart.draw(Picture(empty="not measured in this run"))
            return Content(""), Content("")
        points = self._points(view, chosen)
        self._draw_chart(view, chosen, points, steps)
        notes = [words for words in (course.status(chosen, points, self.look, steps),) if words]
        notes += [self._trouble] if self._trouble else []
        most = 1 if notes and height < _HIGH else 2
        told = course.flow(course.legend(chosen, points, self.look, width), width, most)
        told = told + notes if height >= _LOW else course.flow([*notes, *told], width, most=1)
        self._body.display = bool(told)
        return self._answer_for(view, chosen, points, width), rows(*told)

    def _answer_for(self, view: RunModel, chosen: Choice, points: Points, width: int) -> Content:
        if chosen.id == chart_choices.REWARD:
            series = view.history.series["reward/total"]
            validated = view.history.series.get("validation/reward/total", Series())
            return _answer(series, validated, width, self.look.smoothing)
        if len(chosen.metrics) > 1:
            return Content.styled(f"mean of {self.look.smoothing}", "$quiet")
        is_roomy = width >= course.ROOMY
        now = replace(self.look, cursor=None)
        told = course.worth(chosen, points, now, "newest " if is_roomy else "")
        return Content("  ").join(told if is_roomy else told[-1:])

    def _draw_chart(self, view: RunModel, chosen: Choice, points: Points, steps: Extent) -> None:
        """Once a second at most, but at once where a person moves something."""
        # A point of a long run's curve is many steps: the next one changes nothing to be seen.
        newest = (
            tuple(points.get(name) for name in chosen.metrics)
            if self._asked is not None
            else (steps, tuple(len(points[name].steps) for name in points))
        )
        key = (
            self.look,
            chosen.names,
            newest,
            len(view.history.checkpoints),
            len(view.history.settings),
        )
        if self._drawn == key:
            return
        is_moved = self._drawn[:2] != key[:2]
        if is_moved or time.monotonic() - self._drawn_at >= CHART_SECONDS:
            self._drawn, self._drawn_at = key, time.monotonic()
            self._chart.draw(course.picture(chosen, points, self.look, steps, _marks(view)))
        elif not self._is_due_later:
            self._is_due_later = True
            self.set_timer(CHART_SECONDS, self._draw_what_waited)

    def _draw_what_waited(self) -> None:
        self._is_due_later = False
        if self._view is not None:
            self.show(self._view)

    # --- points

    def _points(self, view: RunModel, chosen: Choice) -> Points:
        """What memory has, or the store has told; what it has not told yet is asked for."""
        steps = chart_data.extent(view.history, chosen)
        asked = steps and chart_data.wanted(view.history, chosen, self.look, steps)
        if not asked:
            self._asked = None
            return chart_data.in_memory(view.history, chosen)
        if self.look.length is None and all(name in view.curves for name in chosen.names):
            # The feed keeps these up to date, so that they are there at once.
            self._asked = asked
            return view.curves
        if self._asked != asked:
            self._asked = asked
            self._read_curves(view.run, asked)
        if self._read is not None and self._read.asked.names == asked.names:
            return self._read.curves
        return chart_data.in_memory(view.history, chosen)

    @work(thread=True, exit_on_error=False, exclusive=True, group="chart")
    def _read_curves(self, run: RunDirectory, asked: Wanted) -> None:
        try:
            with contextlib.closing(StoreReader(run.database)) as reader:
                self.post_message(self.CurvesRead(asked, chart_data.read(reader, asked)))
        except UserError as error:
            self.post_message(self.CurvesRead(asked, {}, in_words(error)))
        except (OSError, sqlite3.Error, ValueError, TypeError) as error:
            self.post_message(self.CurvesRead(asked, {}, f"the steps cannot be read: {error}"))

    def on_reward_panel_curves_read(self, event: CurvesRead) -> None:
        if event.asked == self._asked:
            self._read = event
            if self._view is not None:
                self.show(self._view)

    @property
    def _trouble(self) -> Content:
        if self._read is None or self._asked is None or not self._read.problem:
            return Content("")
        return line(self._read.problem, "$warn")

    # --- before the first step

    def _before_the_first_step(
        self, view: RunModel, width: int, height: int
    ) -> tuple[Content, Content]:
        loss = view.history.series.get("warmup/loss")
        has_loss = loss is not None and bool(loss.steps) and height >= 14
        self._body.display = True
        self._chart.display = has_loss
        if has_loss and loss is not None and self._drawn != ("loss", len(loss.steps)):
            self._drawn = ("loss", len(loss.steps))
            progress = view.history.progress
            self._chart.draw(
                Picture(
                    lines=(Line(list(loss.steps), list(loss.values), "$secondary"),),
                    low=0.0,
                    x_label="warm-up step",
                    x_high=progress.total if progress else None,
                )
            )
        return Content.styled("not yet", "$quiet"), activity(view, loss, width)


def _has_steps(view: RunModel) -> bool:
    series = view.history.series.get("reward/total")
    return series is not None and bool(series.steps)


def _marks(view: RunModel) -> list[Mark]:
    """Checkpoints, and the promotion that made the run."""
    checkpoints = view.history.checkpoints
    marks = [
        Mark(
            point.step,
            "ckpt ★" if point.name == view.history.best else "ckpt",
            "$gold" if point.name == view.history.best else "$quiet",
        )
        for point in checkpoints
    ]
    marks += _setting_marks(view)
    if view.promotion is not None:
        marks.append(Mark(0, "promoted", "$gold"))
    return marks


def _setting_marks(view: RunModel) -> list[Mark]:
    """A mark where settings changed, with their short names."""
    at: dict[int, list[str]] = {}
    for one in view.history.settings:
        known = BY_NAME.get(one.change.name)
        names = at.setdefault(one.step, [])
        if known is not None and known.short not in names:
            names.append(known.short)
    return [Mark(step, " ".join(names) or "set", "$secondary") for step, names in at.items()]


def _answer(series: Series, validated: Series, width: int, smoothing: int) -> Content:
    known = chart_data.of_series(series)
    now = chart.smooth(known.mean, smoothing)[-1] if known.mean else None
    slope = chart.trend(known.steps, known.mean)
    answer = Content.assemble((figures.fixed(now), "bold $total"), *_trend_words(slope, width))
    if validated.values and width >= 60:
        newest = figures.fixed(validated.values[-1])
        answer += Content.assemble((f"   {VALIDATED} ", VALIDATED_STYLE), f"validated {newest}")
    return answer


def _trend_words(slope: float | None, width: int) -> list[tuple[str, str]]:
    if slope is None:
        return [(f"  trend {UNKNOWN}", "$quiet")]
    per_hundred = 100 * slope
    glyph, style = trend_look(per_hundred, 0.02)
    unit = " per 100 steps" if width >= 40 else "/100"
    return [(f" {glyph} ", style), (f"{figures.signed(per_hundred)}{unit}", "$ink")]


def trend_look(change: float | None, indifferent: float) -> tuple[str, str]:
    """Glyph and colour of a change; changes smaller than ``indifferent`` are level."""
    if change is None or abs(change) < indifferent:
        return "─", "$quiet"
    return ("▲", "$good") if change > 0 else ("▼", "$bad")

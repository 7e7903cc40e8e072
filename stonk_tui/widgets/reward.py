"""Is it learning? The reward over steps, and before the first step what is going on."""

import time
from collections.abc import Sequence
from dataclasses import replace
from typing import ClassVar

from textual.app import ComposeResult
from textual.content import Content

from engine.runs.curves import Curve
from engine.runs.history import Progress, Series
from engine.runs.live_settings import BY_NAME
from stonk_tui.feed import RunModel
from stonk_tui.theme import UNKNOWN, state_look
from stonk_tui.widgets import chart, figures
from stonk_tui.widgets.chart import Chart, Line, Mark, Picture
from stonk_tui.widgets.panel import Panel, rows
from stonk_tui.widgets.text import line

CHART_SECONDS = 1.0
VALIDATED = "◆"
VALIDATED_STYLE = "$secondary"

_WAITING = {
    "prepared": "Prepared, and waits to be started.",
    "starting": "The worker starts: it loads the model and the market data.",
    "warming_up": "A short supervised warm-up teaches the answer format.",
    "training": "The first rollouts are being sampled; the curve begins with the first step.",
    "paused": "Paused before the first step.",
    "evaluating": "A validation runs before the first step.",
}


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

    def __init__(self, *, id: str) -> None:
        super().__init__(id=id)
        self._chart = Chart(id="reward-chart")
        self._drawn_at = float("-inf")
        self._drawn: tuple[object, ...] = ()
        self._is_due_later = False

    def compose(self) -> ComposeResult:
        yield self._body
        yield self._chart

    def draw(self, view: RunModel, width: int, height: int) -> tuple[Content, Content]:
        series = view.history.series.get("reward/total")
        if series is None or not series.steps:
            return self._before_the_first_step(view, width, height)
        self._body.display = False
        self._chart.display = True
        validated = view.history.series.get("validation/reward/total", Series())
        curve = view.curves.get("reward/total") if series.is_cut else None
        # A point of a long run's curve is many steps: the next one changes nothing to be seen.
        newest = curve or (len(series.steps), series.steps[-1], len(validated.steps))
        key = ("reward", newest, len(view.history.checkpoints), len(view.history.settings))
        if self._drawn != key:
            is_first = self._drawn[:1] != key[:1]
            if is_first or time.monotonic() - self._drawn_at >= CHART_SECONDS:
                self._drawn, self._drawn_at = key, time.monotonic()
                self._chart.draw(_reward_picture(view, series, validated, curve))
            elif not self._is_due_later:
                self._is_due_later = True
                self.set_timer(CHART_SECONDS, self._draw_what_waited)
        return _answer(series, validated, width), Content("")

    def _draw_what_waited(self) -> None:
        self._is_due_later = False
        if self._view is not None:
            self.show(self._view)

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
        return Content.styled("not yet", "$quiet"), _activity(view, loss, width)


def _activity(view: RunModel, loss: Series | None, width: int) -> Content:
    state, detail = view.state
    look = state_look(state)
    lines: list[Content | str] = [
        Content(""),
        Content.assemble(
            (f"{look.glyph} ", look.style),
            (look.word, "bold"),
        ),
        line(detail, "$quiet")
        if detail and state not in ("stale", "prepared")
        else Content.styled(_WAITING.get(state, ""), "$quiet"),
    ]
    progress = view.history.progress
    if progress is not None:
        lines += ["", *_progress_lines(progress, width)]
    if loss is not None and loss.values:
        lines.append(
            Content.assemble(
                ("warm-up loss ", "$quiet"),
                (figures.fixed(loss.values[-1]), "bold"),
                (f" from {figures.fixed(loss.values[0])}   ", "$quiet"),
                (figures.sparkline(loss.values, min(44, max(8, width - 34))), "$course"),
            )
        )
    return rows(*lines)


def _progress_lines(progress: Progress, width: int) -> list[Content | str]:
    total = figures.known(progress.total)
    done = figures.known(progress.done)
    part = done / total if done is not None and total else None
    filled, rest = figures.meter(part, min(44, max(8, width - 34)))
    count = f"{figures.whole(done)} of {figures.whole(total)}" if total and total < 1e5 else ""
    task = Content.assemble(
        line(progress.task, limit=40),
        ("   " + count if count else "", "$quiet"),
        "   ",
        line(progress.detail, "$quiet", limit=max(8, width - 50)) if progress.detail else "",
    )
    if part is None:
        # Nobody can say how long: no bar that pretends to know.
        return [Content.assemble(task, (" …", "$quiet"))]
    return [
        task,
        Content.assemble(
            (filled, "$gold"),
            (rest, "$faint"),
            f" {figures.share(part):>5}",
            ("   ETA ", "$quiet"),
            figures.duration(progress.eta_seconds),
        ),
    ]


def _reward_picture(
    view: RunModel, series: Series, validated: Series, curve: Curve | None
) -> Picture:
    """The whole course; of a long run out of ``curve``, whose points are many steps each."""
    known = [figures.known(value) or 0.0 for value in series.values]
    each = Line(list(series.steps), known, "$faint", "each step")
    smoothed = Line(each.steps, chart.smooth(known), "$total", "smoothed")
    validations: tuple[Sequence[float], Sequence[float]] = (
        list(validated.steps),
        list(validated.values),
    )
    if curve is not None:
        # Their least and greatest, so that spikes survive; their mean is smoother than any other.
        pairs = zip(curve.low, curve.high, strict=True)
        each = replace(
            each,
            steps=[step for step in curve.steps for _ in ("low", "high")],
            values=[value for pair in pairs for value in pair],
        )
        smoothed = replace(smoothed, steps=curve.steps, values=curve.mean)
        course = view.curves.get("validation/reward/total", Curve())
        validations = course.steps, course.mean
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
    return Picture(
        lines=(
            each,
            smoothed,
            Line(*validations, VALIDATED_STYLE, "validation", VALIDATED),
        ),
        marks=tuple(marks),
        empty="no reward yet",
    )


def _setting_marks(view: RunModel) -> list[Mark]:
    """A mark where settings changed, with their short names."""
    at: dict[int, list[str]] = {}
    for one in view.history.settings:
        known = BY_NAME.get(one.change.name)
        names = at.setdefault(one.step, [])
        if known is not None and known.short not in names:
            names.append(known.short)
    return [Mark(step, " ".join(names) or "set", "$secondary") for step, names in at.items()]


def _answer(series: Series, validated: Series, width: int) -> Content:
    values = [figures.known(value) or 0.0 for value in series.values]
    now = chart.smooth(values)[-1] if values else None
    slope = chart.trend(series.steps, values)
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

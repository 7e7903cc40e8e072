"""At what does it learn? The reward of the last batch, component by component."""

from typing import ClassVar

from textual.content import Content

from engine.runs.history import History
from stonk_tui.feed import RunModel
from stonk_tui.theme import DOWN, UNKNOWN, UP, component_style
from stonk_tui.widgets import chart, figures
from stonk_tui.widgets.market import factors, is_level
from stonk_tui.widgets.panel import Panel, rows
from stonk_tui.widgets.reward import trend_look
from stonk_tui.widgets.text import line

_TREND_STEPS = 30
_NOT_COMPONENTS = ("total", "std")
SHAPED = ("direction", "magnitude")
"""Components that a stage's shaping multiplies by a factor."""


class BreakdownPanel(Panel):
    """Weight, mean and trend of each component."""

    noun = "Breakdown"
    number = 3
    explanation: ClassVar[str] = (
        "Each reward component's mean over the last step's rollouts, with its weight in the total. "
        "A component with weight · is watched but not trained on; one with × is multiplied in "
        "training by a factor that depends on the side called, as the market panel explains: "
        "reward = Σ weight · factor · value. The arrow is its straight-line trend over the last 30 "
        "steps; a bar pointing nowhere means a negative mean."
    )

    def draw(self, view: RunModel, width: int, height: int) -> tuple[Content, Content]:
        history = view.history
        components = components_of(history)
        if not components:
            return Content(""), Content.styled("No scores yet.", "$quiet")
        name_width = min(12, max(len(name) for name, _ in components))
        bar_width = width - name_width - 4 - 5 - 2 - 4
        lines = [
            self._line(history, name, weight, name_width, bar_width)
            for name, weight in components[:height]
        ]
        total = figures.fixed(history.metrics.get("reward/total"))
        if len(lines) < height:
            spread = f"spread over answers {figures.fixed(history.metrics.get('reward/std'))}"
            lines.append(Content.styled(spread, "$quiet"))
        if len(lines) < height and (shaped := _shaped(history)):
            lines.append(shaped)
        return Content.assemble(("batch ", "$quiet"), (total, "bold")), rows(*lines)

    def _line(
        self, history: History, name: str, weight: object, name_width: int, bar_width: int
    ) -> Content:
        value = figures.known(history.metrics.get(f"reward/{name}"))
        style = component_style(name)
        filled, rest = figures.meter(value, bar_width)
        series = history.series.get(f"reward/{name}")
        slope = None
        if series is not None:
            values = [figures.known(item) or 0.0 for item in series.values[-_TREND_STEPS:]]
            slope = chart.trend(series.steps[-_TREND_STEPS:], values, _TREND_STEPS)
        glyph, glyph_style = trend_look(
            None if slope is None else slope * _TREND_STEPS, indifferent=0.03
        )
        label = line(name.replace("_", " "), limit=name_width)
        return Content.assemble(
            label.pad_right(name_width - label.cell_length),
            (f" {figures.weight(weight):>3} ", "$quiet"),
            (filled, style),
            (rest, "$faint"),
            (f" {figures.fixed(value):>5}", "bold"),
            (f" {glyph}", glyph_style if slope is not None else "$faint"),
            ("×" if name in SHAPED and _is_shaped(history) else "", "$warn"),
        )


def _is_shaped(history: History) -> bool:
    """Whether a call of some side is not paid in full, or more than in full."""
    known = factors(history.metrics)
    return known is not None and not all(is_level(factor) for factor in known)


def _shaped(history: History) -> Content:
    """The factors in words; nothing while all are 1."""
    known = factors(history.metrics)
    if known is None or not _is_shaped(history):
        return Content("")
    up, down = known
    return Content.assemble(
        ("× ", "$warn"),
        (UP.glyph, UP.style),
        (f" calls {figures.fixed(up)}, ", "$quiet"),
        (DOWN.glyph, DOWN.style),
        (f" calls {figures.fixed(down)}", "$quiet"),
    )


def components_of(history: History) -> list[tuple[str, object]]:
    """(name, weight) of every component, in the worker's order, those without weight last."""
    weights = history.facts.get("weights")
    known = dict(weights) if isinstance(weights, dict) else {}
    measured = [
        name.removeprefix("reward/")
        for name in history.metrics
        if name.startswith("reward/") and name.removeprefix("reward/") not in _NOT_COMPONENTS
    ]
    names = [name for name in known if isinstance(name, str)]
    names += [name for name in measured if name not in known]
    if not measured and not history.step:
        return []
    pairs = [(name, known.get(name, UNKNOWN)) for name in names]
    return sorted(pairs, key=lambda pair: not figures.known(pair[1]))

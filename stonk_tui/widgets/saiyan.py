"""Is it ready? Four indicators, and the power level."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from textual.content import Content

from stonk_tui.feed import RunModel
from stonk_tui.theme import UNKNOWN, Look
from stonk_tui.widgets import figures
from stonk_tui.widgets.panel import Panel, rows

FULL_POWER = 10_000

_ON = Look("●", "on", "$good")
_NEAR = Look("◐", "half way", "$gold")
_OFF = Look("○", "off", "$quiet")


@dataclass(frozen=True)
class _Kind:
    """How an indicator of this name is spoken of."""

    label: str
    relation: str
    is_share: bool
    needed: int | None
    """Times in a row that light it."""
    series: str
    goal: float | None
    """The threshold spoken of before the worker has reported its own."""


_KINDS = {
    "reward": _Kind("rubric reward", ">", False, 10, "rubric/total", 0.7),
    "accuracy": _Kind("accuracy", ">", True, 2, "validation/accuracy", 0.8),
    "reasoning": _Kind("reasoning", "≥", False, None, "validation/rubric/reasoning", 0.3),
    "settled": _Kind("settled", "", False, None, "validation/reward/total", None),
}
_ORDER = tuple(_KINDS)


def power_level(milestones: Sequence[Mapping[str, Any]]) -> int:
    """How far the four indicators are, from 0 to 10 000.

    Each gives a quarter: all of it when it is on, else 2500 × value ÷ threshold, clipped to
    0…2500. ``settled`` has no way to go, it is so or not: it gives its quarter only when on.
    """
    total = 0.0
    for milestone in milestones:
        total += _progress(milestone) * FULL_POWER / 4
    return round(min(total, FULL_POWER))


def _progress(milestone: Mapping[str, Any]) -> float:
    if milestone.get("on") is True:
        return 1.0
    value, threshold = (
        figures.known(milestone.get("value")),
        figures.known(milestone.get("threshold")),
    )
    if milestone.get("name") == "settled" or value is None or threshold is None or threshold <= 0:
        return 0.0
    return min(1.0, max(0.0, value / threshold))


class SaiyanPanel(Panel):
    """The four lights that suggest a promotion, and how far each one is."""

    noun = "Super Saiyan"
    number = 2
    explanation: ClassVar[str] = (
        "Four indicators: rubric reward above 0.70 for ten batches in a row, validation accuracy "
        "above 80 % twice in a row, reasoning quality of at least 0.30 of 0.40, and a course that "
        "has settled. The power level adds a quarter of 10 000 for each, in proportion to how far "
        "it is. All four together are a suggestion: promotion is a person's decision."
    )

    def draw(self, view: RunModel, width: int, height: int) -> tuple[Content, Content]:
        milestones = _ordered(view.history.milestones)
        level = power_level(milestones)
        roomy = height >= 4 * 3 + 2
        lines: list[Content | str] = []
        for milestone in milestones:
            lines += _indicator(view, milestone, width, roomy=roomy, terse=height < 8)
        lights = sum(milestone.get("on") is True for milestone in milestones)
        if height >= len(lines) + 4:
            lines.append("")
        if height >= len(lines) + 2:
            lines.append(_gauge(level, width))
        if height >= len(lines) + 1:
            lines.append(_verdict(view, lights))
        figure = figures.whole(level) if milestones and view.history.step else UNKNOWN
        return Content.assemble(("power ", "$quiet"), (figure, "bold $gold")), rows(*lines)

    @staticmethod
    def folded(view: RunModel, width: int) -> Content:
        """Four lights in one line, the power level at its end."""
        milestones = _ordered(view.history.milestones)
        pieces = []
        for milestone in milestones:
            look = _look(milestone)
            kind = _kind(milestone)
            value, threshold = _value(milestone, kind), _threshold(milestone, kind)
            goal = f" {value}{kind.relation}{threshold}" if threshold else ""
            pieces.append(
                Content.assemble(
                    (f"{look.glyph} ", look.style),
                    (kind.label.replace("rubric ", ""), "$quiet"),
                    goal.replace(" %", "%", 2).replace("0.", "."),
                )
            )
        level = power_level(milestones) if view.history.step else None
        figure = Content.styled(f"{figures.whole(level):>6}", "bold $gold")
        tail = Content.assemble(("power ", "$quiet"), figure)
        body = Content("  ").join(pieces)
        if body.cell_length + tail.cell_length + 2 > width:
            tail = figure
        if body.cell_length + tail.cell_length > width:
            return body.truncate(width, ellipsis=True)
        return Content.assemble(body, " " * (width - body.cell_length - tail.cell_length), tail)


def _ordered(milestones: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """In the fixed order, those not reported yet as unknown ones."""
    by_name = {item.get("name"): item for item in milestones if isinstance(item, Mapping)}
    return [by_name.get(name, {"name": name}) for name in _ORDER]


def _kind(milestone: Mapping[str, Any]) -> _Kind:
    return _KINDS[str(milestone.get("name"))]


def _look(milestone: Mapping[str, Any]) -> Look:
    if milestone.get("on") is True:
        return _ON
    return _NEAR if _progress(milestone) >= 0.5 else _OFF


def _value(milestone: Mapping[str, Any], kind: _Kind) -> str:
    value = milestone.get("value")
    if kind.is_share:
        return figures.share(value)
    return figures.small(value) if milestone.get("name") == "settled" else figures.fixed(value)


def _threshold(milestone: Mapping[str, Any], kind: _Kind) -> str:
    threshold = figures.known(milestone.get("threshold", kind.goal))
    if threshold is None or not kind.relation:
        return ""
    return figures.share(threshold) if kind.is_share else figures.fixed(threshold)


def _indicator(
    view: RunModel, milestone: Mapping[str, Any], width: int, *, roomy: bool, terse: bool
) -> list[Content | str]:
    look, kind = _look(milestone), _kind(milestone)
    goal = _threshold(milestone, kind)
    on = milestone.get("on") is True
    streak = figures.known(milestone.get("streak"))
    if kind.needed and streak is not None:
        tail = f"{streak:.0f}/{kind.needed} in a row"
    elif milestone.get("name") == "settled":
        tail = "yes" if on else "not yet"
    else:
        tail = ""
    if width < 34:
        tail = tail.replace(" in a row", "")
    value = "" if milestone.get("name") == "settled" else f"{_value(milestone, kind):>5}"
    head = Content.assemble(
        (f"{look.glyph} ", look.style),
        (f"{kind.label:<13}", "bold" if on else "$ink"),
        (f" {value}", f"bold {look.style if on else '$ink'}"),
        (f" {kind.relation} {goal}" if goal else "", "$quiet"),
    )
    gap = width - head.cell_length - len(tail)
    first = Content.assemble(head, " " * gap, (tail, "$quiet")) if gap > 0 else head
    if terse:
        return [first]
    lines: list[Content | str] = [first]
    if kind.relation:
        done, rest = figures.meter(_progress(milestone), width - 2)
        lines.append(Content.assemble("  ", (done, look.style), (rest, "$faint")))
    else:
        lines.append(Content.styled(f"  {_settling(milestone)}", "$quiet"))
    if roomy:
        series = view.history.series.get(kind.series)
        course = figures.sparkline(series.values if series else [], width - 2)
        lines.append(Content.styled(f"  {course}", "$course") if kind.relation else "")
    return lines


def _settling(milestone: Mapping[str, Any]) -> str:
    """How far from level the course is: its trend's t statistic."""
    value, limit = figures.known(milestone.get("value")), figures.known(milestone.get("threshold"))
    if value is None or limit is None:
        return "too few steps to tell"
    relation = "<" if abs(value) < limit else "≥"
    return f"trend |t| {figures.fixed(abs(value), 1)} {relation} {figures.fixed(limit, 1)}"


def _gauge(level: int, width: int) -> Content:
    head = f"{'power':<7}"
    done, rest = figures.meter(level / FULL_POWER, width - len(head))
    return Content.assemble((head, "bold $gold"), (done, "$gold"), (rest, "$faint"))


def _verdict(view: RunModel, lights: int) -> Content:
    if lights == 4:
        return Content.styled("All four lights are on. Over 9000.", "bold $gold")
    due = _steps_to_validation(view)
    when = f" · next check in {due} steps" if due else ""
    return Content.styled(f"{lights} of 4 on{when}", "$quiet")


def _steps_to_validation(view: RunModel) -> int | None:
    if view.config is None or not view.history.step or not view.commandable:
        return None
    every = view.config.schedule.eval_every
    return every - view.history.step % every

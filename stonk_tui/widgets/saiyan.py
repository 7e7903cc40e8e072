"""Is it ready? Four indicators, and the power level."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from textual.content import Content

from stonk_tui.feed import RunModel
from stonk_tui.theme import DOWN, UP, Look
from stonk_tui.widgets import figures
from stonk_tui.widgets.panel import Panel, rows, spread
from stonk_tui.widgets.text import line

FULL_POWER = 9001

_ON = Look("●", "on", "$good")
_NEAR = Look("◐", "near", "$gold")
_OFF = Look("○", "off", "$quiet")


@dataclass(frozen=True)
class _Kind:
    """How an indicator of this name is spoken of."""

    label: str
    relation: str
    is_share: bool
    needed: int
    """Times in a row that light it."""
    series: str
    goal: float | None
    """The threshold spoken of before the worker has reported its own."""


_KINDS = {
    "reward": _Kind("rubric reward", ">", False, 10, "rubric/total", 0.7),
    "accuracy": _Kind("accuracy", ">", True, 2, "validation/accuracy", 0.8),
    "reasoning": _Kind("reasoning", "≥", False, 1, "validation/rubric/reasoning", 0.3),
    "settled": _Kind("settled", "", False, 1, "validation/reward/total", None),
}
_ORDER = tuple(_KINDS)

_BASELINES = {
    "always_up": f"always {UP.glyph}",
    "always_down": f"always {DOWN.glyph}",
    "momentum": "momentum",
    "base_model": "base model",
}


class SaiyanPanel(Panel):
    """The four lights that suggest a promotion, and how far each one is."""

    noun = "Super Saiyan"
    number = 2
    explanation: ClassVar[str] = (
        "Four indicators: rubric reward above 0.70 for ten batches in a row; validation accuracy "
        "above 80 % twice in a row, with its interval (resampled by whole days) above the best "
        "baseline; reasoning of at least 0.30 of 0.40; and a course that has settled: no trend, "
        "|t| < 2. A light counts its run as k/needed, and the power level rises with the distance "
        "that each has come: over 9000 only when all four are on. All four together are a "
        "suggestion: promotion is a person's decision."
    )
    DEFAULT_CSS = """
    SaiyanPanel.-power-1 { border: round $gold; }
    SaiyanPanel.-power-2 { border: heavy $gold; }
    SaiyanPanel.-power-3 { border: heavy $total; }
    """

    def draw(self, view: RunModel, width: int, height: int) -> tuple[Content, Content]:
        milestones = _ordered(view.history.milestones)
        power = view.history.power
        each = max(1, (height - 2) // len(milestones))
        lines: list[Content | str] = []
        for milestone in milestones:
            lines += _indicator(view, milestone, width)[:each]
        lights = sum(milestone.get("on") is True for milestone in milestones)
        if height >= len(lines) + 4:
            lines.append("")
        if height >= len(lines) + 2:
            lines.append(_gauge(power, width))
        if height >= len(lines) + 1:
            lines.append(_verdict(view, lights, self.keymap.of("promote")))
        return Content.assemble(("power ", "$quiet"), (figures.whole(power), "bold $gold")), rows(
            *lines
        )

    @staticmethod
    def folded(view: RunModel, width: int) -> Content:
        """Four lights in one line, the power level at its end."""
        figure = Content.styled(f"{figures.whole(view.history.power):>5}", "bold $gold")
        tail = Content.assemble(("power ", "$quiet"), figure)
        body = glance(view.history.milestones)
        if body.cell_length + tail.cell_length + 2 > width:
            tail = figure
        if body.cell_length + tail.cell_length > width:
            return body.truncate(width, ellipsis=True)
        return Content.assemble(body, " " * (width - body.cell_length - tail.cell_length), tail)


def glance(milestones: Sequence[Mapping[str, Any]]) -> Content:
    """The four lights with value and threshold, in one line."""
    pieces = []
    for milestone in _ordered(milestones):
        look = _look(milestone)
        kind = _kind(milestone)
        value, threshold = _value(milestone, kind), _threshold(milestone, kind)
        goal = f" {value}{kind.relation}{threshold}" if threshold else f" {look.word}"
        pieces.append(
            Content.assemble(
                (f"{look.glyph} ", look.style),
                (kind.label.removeprefix("rubric "), "$quiet"),
                goal.replace(" %", "%", 2).replace("0.", "."),
            )
        )
    return Content("  ").join(pieces)


def _ordered(milestones: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """In the fixed order, those not reported yet as unknown ones."""
    by_name = {item.get("name"): item for item in milestones if isinstance(item, Mapping)}
    return [by_name.get(name, {"name": name}) for name in _ORDER]


def _kind(milestone: Mapping[str, Any]) -> _Kind:
    return _KINDS[str(milestone.get("name"))]


def _progress(milestone: Mapping[str, Any]) -> float:
    """How far along a bar the value stands; a course is settled or not, without degrees."""
    if milestone.get("on") is True:
        return 1.0
    value = figures.known(milestone.get("value"))
    threshold = figures.known(milestone.get("threshold"))
    if milestone.get("name") == "settled" or value is None or threshold is None or threshold <= 0:
        return 0.0
    return min(1.0, max(0.0, value / threshold))


def _look(milestone: Mapping[str, Any]) -> Look:
    if milestone.get("on") is True:
        return _ON
    return _NEAR if _progress(milestone) >= 0.75 else _OFF


def _value(milestone: Mapping[str, Any], kind: _Kind) -> str:
    value = milestone.get("value")
    return figures.share(value) if kind.is_share else figures.fixed(value)


def _threshold(milestone: Mapping[str, Any], kind: _Kind) -> str:
    threshold = figures.known(milestone.get("threshold", kind.goal))
    if threshold is None or not kind.relation:
        return ""
    return figures.share(threshold) if kind.is_share else figures.fixed(threshold)


def _indicator(view: RunModel, milestone: Mapping[str, Any], width: int) -> list[Content | str]:
    """An indicator's lines, what matters most first: a panel shows as many as it has room for."""
    kind = _kind(milestone)
    course = _course(view, milestone, kind, width)
    why = Content.assemble(
        "  ", line(milestone.get("why") or "", "$quiet", limit=max(1, width - 2))
    )
    if milestone.get("name") == "accuracy":
        return [_head(milestone, kind, width), _claim(view, width), course, why]
    if milestone.get("name") == "settled":
        head = _head(milestone, kind, width)
        return [head, why, course] if why.plain.strip() else [head, course]
    return [_head(milestone, kind, width), course, why]


def _head(milestone: Mapping[str, Any], kind: _Kind, width: int) -> Content:
    """Light, name, value, threshold, and at the right the word and the streak."""
    look, goal = _look(milestone), _threshold(milestone, kind)
    on = milestone.get("on") is True
    if milestone.get("name") == "settled":
        figure, relation = _trend(milestone)
    else:
        figure, relation = (
            f"{_value(milestone, kind):>5}",
            f" {kind.relation} {goal}" if goal else "",
        )
    label = f"{kind.label:<14}" if width >= 40 else f"{kind.label.removeprefix('rubric '):<10}"
    left = Content.assemble(
        (f"{look.glyph} ", look.style),
        (label, "bold" if on else "$ink"),
        (figure, f"bold {look.style if on else '$ink'}"),
        (relation, "$quiet"),
    )
    streak, needed = figures.known(milestone.get("streak")), figures.known(milestone.get("needed"))
    needed = kind.needed if needed is None else needed
    count = f" {streak:.0f}/{needed:.0f}" if streak is not None and needed > 1 else ""
    right = Content.assemble((look.word, look.style), (count, "$quiet"))
    return spread(left, right, width)


def _trend(milestone: Mapping[str, Any]) -> tuple[str, str]:
    """How far from level the course is: its trend's t statistic."""
    value, limit = figures.known(milestone.get("value")), figures.known(milestone.get("threshold"))
    if value is None or limit is None:
        return "    ·", ""
    return f"{figures.fixed(abs(value), 1):>5}", f" < {figures.fixed(limit, 1)} |t|"


def _course(view: RunModel, milestone: Mapping[str, Any], kind: _Kind, width: int) -> Content:
    """A bar to the threshold, and the series behind it as little columns."""
    look, room = _look(milestone), width - 2
    series = view.history.series.get(kind.series)
    columns = max(6, room // 3) if kind.relation else room
    sparks = figures.sparkline(series.values[-400:] if series else [], columns)
    if not kind.relation:
        return Content.styled(f"  {sparks}", "$course")
    done, rest = figures.meter(_progress(milestone), room - columns - 2)
    return Content.assemble("  ", (done, look.style), (rest, "$faint"), "  ", (sparks, "$course"))


def best_baseline(metrics: Mapping[str, float]) -> str:
    """The best of what needs no training, on the rows of the newest validation, in words."""
    known = [
        (value, words)
        for name, words in _BASELINES.items()
        if (value := figures.known(metrics.get(f"validation/baseline/{name}"))) is not None
    ]
    if not known:
        return ""
    value, words = max(known)
    return f"{words} {figures.share(value)}"


def _claim(view: RunModel, width: int) -> Content:
    """The accuracy's interval and n, and the best baseline on the same rows."""
    metrics = view.history.metrics
    name = "validation/accuracy"
    interval = figures.interval(metrics.get(f"{name}/day_low"), metrics.get(f"{name}/day_high"))
    interval = interval or figures.interval(metrics.get(f"{name}/low"), metrics.get(f"{name}/high"))
    if not interval:
        return Content.styled("  not validated yet", "$quiet")
    claim = Content(f"  {interval}")
    count = figures.known(metrics.get(f"{name}/n"))
    if count is not None:
        claim = claim.append_text(f" n={figures.whole(count)}", "$quiet")
    baseline = best_baseline(metrics)
    if baseline and claim.cell_length + len(baseline) + 2 <= width:
        claim = claim.append_text(f"  {baseline}", "$quiet")
    return claim


def _gauge(power: int | None, width: int) -> Content:
    head = f"{'power':<7}"
    level = figures.known(power)
    done, rest = figures.meter(0.0 if level is None else level / FULL_POWER, width - len(head))
    return Content.assemble((head, "bold $gold"), (done, "$gold"), (rest, "$faint"))


def _verdict(view: RunModel, lights: int, promote_key: str) -> Content:
    if lights == len(_ORDER):
        return Content.assemble(
            (f"All four on: over 9000.  {promote_key}", "bold $gold"), " promotes"
        )
    due = _steps_to_validation(view)
    when = f" · validates in {due} step{'' if due == 1 else 's'}" if due else ""
    return Content.styled(f"{lights} of 4 on{when}", "$quiet")


def _steps_to_validation(view: RunModel) -> int | None:
    config = view.in_force
    if config is None or not view.history.step or not view.commandable:
        return None
    every = config.schedule.eval_every
    return every - view.history.step % every

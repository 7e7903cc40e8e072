"""What a chart shows, drawn and in words: curves, what they are worth at a step, the view."""

from collections.abc import Mapping, Sequence

from textual.content import Content

from engine.runs.curves import VALIDATION, Curve
from stonk_tui import chart_data
from stonk_tui.chart_choices import ROUND, Choice
from stonk_tui.chart_view import ChartView, Extent, steps_behind, window
from stonk_tui.theme import UNKNOWN, component_style
from stonk_tui.widgets import figures
from stonk_tui.widgets.chart import Line, Mark, Picture
from stonk_tui.widgets.text import line

VALIDATED = "◆"
VALIDATED_STYLE = "$secondary"
ROOMY = 60
"""Columns from which each of several curves is called by its name."""
DEFAULT_SMOOTHING = ChartView().smoothing

Points = Mapping[str, Curve]


def picture(
    chosen: Choice, points: Points, view: ChartView, steps: Extent, marks: Sequence[Mark]
) -> Picture:
    """The window of ``view``: every curve smoothed as a whole, and cut after that."""
    if view.is_log and chosen.is_magnitude:
        points = chart_data.magnitudes(points)
    seen = window(view, steps)
    lines: list[Line] = []
    for name in chosen.bounds or ():
        # Smoothed like the curve between them: as they are they would cover it.
        lines.append(_mean(points.get(name), view, seen, "$course"))
    for name in chosen.baselines:
        lines.append(_mean(points.get(name), view, seen, "$quiet"))
    if len(chosen.metrics) == 1:
        if view.smoothing > 1:
            lines.append(_raw(points.get(chosen.metrics[0]), seen, "$faint"))
        lines.append(_mean(points.get(chosen.metrics[0]), view, seen, "$total"))
    else:
        curves = [
            _mean(points.get(name), view, seen, component_style(_short(name)))
            for name in chosen.metrics
        ]
        lines += curves
        # A letter at the end of each: colour alone would not tell them apart.
        lines += [
            Line(curve.steps[-1:], curve.values[-1:], curve.style, marker=letter)
            for curve, letter in zip(curves, letters(chosen.metrics), strict=True)
        ]
    if chosen.points:
        found = chart_data.within(points.get(chosen.points, Curve()), seen)
        lines.append(Line(found.steps, found.mean, VALIDATED_STYLE, "validation", VALIDATED))
    return Picture(
        lines=tuple(lines),
        marks=tuple(marks),
        x_low=seen.first,
        x_high=seen.last,
        is_log=view.is_log,
        cursor=view.cursor,
        empty="nothing measured among these steps",
    )


def legend(chosen: Choice, points: Points, view: ChartView, width: int) -> list[Content]:
    """What every curve is worth at the cursor's step, or at the newest one, piece by piece.

    Empty where the panel's border says all of it. In little ``width`` letters stand for names.
    """
    if view.cursor is None and len(chosen.metrics) == 1 and not (chosen.baselines or chosen.note):
        return []
    pieces: list[Content] = []
    if view.cursor is not None:
        pieces.append(Content.styled(f"step {view.cursor:.0f}", "bold $gold"))
    if len(chosen.metrics) > 1:
        for name, letter in zip(chosen.metrics, letters(chosen.metrics), strict=True):
            style = component_style(_short(name))
            curve = points.get(name, Curve())
            pieces.append(
                Content.assemble(
                    (f"{letter} ", f"bold {style}"),
                    line(_short(name).replace("_", " "), style, limit=14) + " "
                    if width >= ROOMY
                    else "",
                    f"{figures.small(_at(_smoothed(curve, view), view.cursor))}",
                )
            )
        return pieces
    if view.cursor is not None:
        pieces += worth(chosen, points, view, "here ")
        if chosen.points:
            found = points.get(chosen.points, Curve())
            at = chart_data.nearest(found, view.cursor)
            if at is not None:
                text = figures.small(found.mean[at])
                if chosen.point_bounds:
                    low, high, count = (
                        _exactly(points, name, found.steps[at]) for name in chosen.point_bounds
                    )
                    text += f" [{figures.small(low)}, {figures.small(high)}]"
                    text += f" n={figures.whole(count)}"
                text += f" at {found.steps[at]:.0f}"
                pieces.append(Content.assemble((f"{VALIDATED} ", VALIDATED_STYLE), text))
    for name in chosen.baselines:
        value = figures.small(_at(_smoothed(points.get(name, Curve()), view), view.cursor))
        label = name.removeprefix(VALIDATION).removeprefix("baseline/").replace("_", " ")
        label = label.replace("/", " ")
        pieces.append(Content.assemble((f"{label} ", "$quiet"), value))
    if chosen.note:
        pieces.append(Content.styled(chosen.note, "$quiet"))
    return pieces


def flow(pieces: Sequence[Content], width: int, most: int) -> list[Content]:
    """The pieces in lines of ``width``, ``most`` at most; the last one may be cut."""
    lines: list[Content] = []
    for piece in pieces:
        if lines and (len(lines) == most or lines[-1].cell_length + 2 + piece.cell_length <= width):
            lines[-1] = Content.assemble(lines[-1], "  ", piece)
        else:
            lines.append(piece)
    return lines


def worth(chosen: Choice, points: Points, view: ChartView, called: str) -> list[Content]:
    """The only curve's mean, and its value with interval and sample size, at the cursor or now.

    ``called`` stands before the value.
    """
    curve = points.get(chosen.metrics[0], Curve())
    at = chart_data.nearest(curve, _step(curve, view.cursor))
    if at is None:
        return [Content.styled(UNKNOWN, "$quiet")]
    pieces: list[Content] = []
    if view.smoothing > 1:
        mean = figures.small(_smoothed(curve, view).mean[at])
        pieces.append(Content.assemble(("mean ", "$quiet"), (mean, "bold $total")))
    if chart_data.grain(curve) > 1:
        low, high = figures.small(curve.low[at]), figures.small(curve.high[at])
        many = f" in {chart_data.grain(curve):.0f} steps"
        return [*pieces, Content.assemble(f"{low} to {high}", (many, "$quiet"))]
    value = Content.assemble((called, "$quiet"), figures.small(curve.mean[at]))
    if chosen.bounds:
        low, high = (
            figures.small(_exactly(points, name, curve.steps[at])) for name in chosen.bounds
        )
        value += Content.styled(f" [{low}, {high}]", "$quiet")
    if chosen.count:
        count = figures.whole(_exactly(points, chosen.count, curve.steps[at]))
        value += Content.styled(f" n={count}", "$quiet")
    return [*pieces, value]


def status(chosen: Choice, points: Points, view: ChartView, steps: Extent) -> Content:
    """How the view differs from one that shows everything as usual; mostly empty."""
    seen = window(view, steps)
    words: list[Content] = []
    behind = steps_behind(view, steps)
    if not view.is_following:
        many = f"{figures.whole(behind)} step{'s' if round(behind) != 1 else ''}"
        words.append(Content.styled(f"⏸ {many} behind, End to follow", "$warn"))
    elif view.length is not None and seen != steps:
        words.append(Content.styled(f"last {figures.whole(seen.length)} steps", "$quiet"))
    if view.smoothing != DEFAULT_SMOOTHING:
        text = f"mean of {view.smoothing}" if view.smoothing > 1 else "not smoothed"
        words.append(Content.styled(text, "$quiet"))
    if view.is_log:
        size = " of the size" if chosen.is_magnitude else ""
        words.append(Content.styled(f"log scale{size}", "$quiet"))
        curve = points.get(chosen.metrics[0], Curve())
        if not chosen.is_magnitude and (count := sum(low <= 0 for low in curve.low)):
            words.append(Content.styled(f"{count} at 0 or below left out", "$quiet"))
    return Content("  ").join(words)


def letters(names: Sequence[str]) -> list[str]:
    """A letter for each, the first of its own that no earlier one has."""
    taken: list[str] = []
    for name in names:
        candidates = [letter for letter in _short(name) if letter.isascii() and letter.isalpha()]
        taken.append(next((letter for letter in candidates if letter not in taken), "•"))
    return taken


def heading(chosen: Choice) -> str:
    """What the chart is called; the name of a metric comes out of the store."""
    name = line(chosen.label, limit=30).plain
    return name[:1].upper() + name[1:] if chosen.id in ROUND else name


def _short(name: str) -> str:
    return name.removeprefix("reward/")


def _raw(curve: Curve | None, seen: Extent, style: str) -> Line:
    """Every value; of a point of many steps its least and greatest, so that spikes survive."""
    found = chart_data.within(curve or Curve(), seen)
    if found.low == found.high:
        return Line(found.steps, found.mean, style, "each step")
    return Line(
        [step for step in found.steps for _ in "lh"],
        [value for pair in zip(found.low, found.high, strict=True) for value in pair],
        style,
        "each step",
    )


def _mean(curve: Curve | None, view: ChartView, seen: Extent, style: str) -> Line:
    found = chart_data.within(_smoothed(curve or Curve(), view), seen)
    return Line(found.steps, found.mean, style, "smoothed")


def _smoothed(curve: Curve, view: ChartView) -> Curve:
    return chart_data.smoothed(curve, view.smoothing)


def _step(curve: Curve, cursor: float | None) -> float:
    return cursor if cursor is not None else (curve.steps[-1] if curve.steps else 0.0)


def _at(curve: Curve, cursor: float | None) -> float | None:
    at = chart_data.nearest(curve, _step(curve, cursor))
    return None if at is None else curve.mean[at]


def _exactly(points: Points, name: str, step: float) -> float | None:
    """The value at this very step."""
    curve = points.get(name, Curve())
    at = chart_data.nearest(curve, step)
    return curve.mean[at] if at is not None and curve.steps[at] == step else None

"""The points of what a chart shows: out of memory where they are there, else out of the store.

A curve is smoothed over all that came before the window, and cut to the window after that, so
that its course does not change with the zoom. Of a long run the store is read from so far before
the window that what is left out weighs less than a millionth.
"""

import math
from bisect import bisect_left, bisect_right
from collections.abc import Mapping
from dataclasses import dataclass

from engine.runs import curves
from engine.runs.curves import Curve
from engine.runs.history import History, Series
from engine.runs.reader import StoreReader
from stonk_tui.chart_choices import Choice
from stonk_tui.chart_view import ChartView, Extent, window
from stonk_tui.widgets.chart import smooth
from stonk_tui.widgets.figures import known

RUN_IN = 14
"""Windows of the mean that are read before the first step in sight: e^-14 is below a millionth."""
POINTS = 512


@dataclass(frozen=True)
class Wanted:
    """What to read from a store."""

    names: tuple[str, ...]
    first: int
    last: int | None
    """None is the newest step."""
    newest: int
    """How far the run was, in parts of what is read: with the next part it is read anew."""


def extent(history: History, chosen: Choice) -> Extent | None:
    """The steps that there are; None where nothing was measured."""
    found = [
        series
        for name in (*chosen.metrics, chosen.points)
        if (series := history.series.get(name)) is not None and series.steps
    ]
    if not found:
        return None
    first = min(0.0 if series.is_cut else float(series.steps[0]) for series in found)
    return Extent(first, float(max(series.steps[-1] for series in found)))


def wanted(history: History, chosen: Choice, view: ChartView, steps: Extent) -> Wanted | None:
    """What the store must be asked for; None where memory has it all."""
    first = max(0, math.floor(_first_needed(view, steps)))
    if not any(
        series.is_cut and first < series.steps[0]
        for name in chosen.names
        if (series := history.series.get(name)) is not None and series.steps
    ):
        return None
    seen = window(view, steps)
    grain = max(curves.BUCKET, int(seen.length) // POINTS)
    if view.is_following:
        return Wanted(chosen.names, first // grain * grain, None, int(steps.last) // grain)
    return Wanted(chosen.names, first, math.ceil(seen.last), 0)


def read(reader: StoreReader, asked: Wanted) -> dict[str, Curve]:
    """The curves that are wanted."""
    with reader.snapshot():
        return {
            name: curves.read(reader.rows, name, POINTS, asked.first, asked.last)
            for name in asked.names
        }


def in_memory(history: History, chosen: Choice) -> dict[str, Curve]:
    """What memory has of it."""
    return {
        name: of_series(series)
        for name in chosen.names
        if (series := history.series.get(name)) is not None
    }


def of_series(series: Series) -> Curve:
    """Every measured point; what is no number is left out."""
    pairs = [
        (float(step), number)
        for step, value in zip(series.steps, series.values, strict=True)
        if (number := known(value)) is not None
    ]
    values = tuple(value for _, value in pairs)
    return Curve(tuple(step for step, _ in pairs), values, values, values)


def magnitudes(points: Mapping[str, Curve]) -> dict[str, Curve]:
    """The same without signs."""
    found = {}
    for name, curve in points.items():
        low = tuple(
            0.0 if low < 0 < high else min(abs(low), abs(high))
            for low, high in zip(curve.low, curve.high, strict=True)
        )
        high = tuple(
            max(abs(low), abs(high)) for low, high in zip(curve.low, curve.high, strict=True)
        )
        found[name] = Curve(curve.steps, low, high, tuple(map(abs, curve.mean)))
    return found


def smoothed(curve: Curve, smoothing: int) -> Curve:
    """The exponential mean over about ``smoothing`` steps."""
    means = tuple(smooth(curve.mean, smoothing, grain(curve)))
    return Curve(curve.steps, means, means, means)


def grain(curve: Curve) -> float:
    """Steps in each point."""
    is_exact = curve.low == curve.high
    return 1.0 if is_exact or len(curve.steps) < 2 else max(1.0, curve.steps[1] - curve.steps[0])


def within(curve: Curve, seen: Extent) -> Curve:
    """The points in sight."""
    start, end = bisect_left(curve.steps, seen.first), bisect_right(curve.steps, seen.last)
    return Curve(
        curve.steps[start:end], curve.low[start:end], curve.high[start:end], curve.mean[start:end]
    )


def nearest(curve: Curve, step: float) -> int | None:
    """Index of the point nearest to ``step``; the earlier of two."""
    at = bisect_left(curve.steps, step)
    if not curve.steps:
        return None
    if at == len(curve.steps):
        return at - 1
    return at if at == 0 or curve.steps[at] - step < step - curve.steps[at - 1] else at - 1


def _first_needed(view: ChartView, steps: Extent) -> float:
    run_in = 0 if view.smoothing == 1 else RUN_IN * view.smoothing
    return max(steps.first, window(view, steps).first - run_in)

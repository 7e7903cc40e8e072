"""Where a person looks in a chart: window, smoothing, scale, cursor. Pure, apart from drawing.

Every function takes the view and what there is to see, and returns the next view. A view that
follows keeps its right edge on the newest step while the run goes on; it stops following when a
person moves away from there, and begins again when they come back.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

SMOOTHING = (1, 3, 6, 12, 25, 50, 100, 200)
"""Windows, in steps, of the exponential mean; 1 is none."""
ZOOM = 1.5
PAN = 0.125
"""Part of the window that it moves by at once."""
LEAST_STEPS = 8
"""Fewer steps are not zoomed to."""


@dataclass(frozen=True)
class Extent:
    """The steps that there are."""

    first: float
    last: float

    @property
    def length(self) -> float:
        return self.last - self.first


@dataclass(frozen=True)
class ChartView:
    """What of a chart is shown, and how."""

    shown: str = "reward"
    """What is drawn: see ``stonk_tui.chart_choices``."""
    length: float | None = None
    """Steps that the window spans; None is all there are."""
    last: float | None = None
    """Right edge of the window; None follows the newest step."""
    smoothing: int = 12
    """Window of the exponential mean; one of ``SMOOTHING``."""
    is_log: bool = False
    cursor: float | None = None
    """The step whose values are told; None tells the newest."""

    @property
    def is_following(self) -> bool:
        return self.last is None


def window(view: ChartView, extent: Extent) -> Extent:
    """The steps in sight: never beyond those that there are."""
    if view.length is None or view.length >= extent.length:
        return extent
    last = extent.last if view.last is None else view.last
    last = min(extent.last, max(extent.first + view.length, last))
    return Extent(last - view.length, last)


def steps_behind(view: ChartView, extent: Extent) -> float:
    """Steps that came after the window; 0 while it follows."""
    return 0.0 if view.is_following else extent.last - window(view, extent).last


def zoom(view: ChartView, extent: Extent, factor: float, around: float | None = None) -> ChartView:
    """Show ``factor`` times the steps.

    Args:
        view: the view before.
        extent: the steps that there are.
        factor: below 1 shows less, above 1 more.
        around: the step that keeps its place; None is the cursor's where it is in sight, and
            else the middle. While the view follows it is always the newest one.
    """
    seen = window(view, extent)
    length = max(min(float(LEAST_STEPS), extent.length), seen.length * factor)
    if length >= extent.length:
        return replace(view, length=None, last=None)
    if view.is_following:
        return replace(view, length=length)
    if around is None and view.cursor is not None and seen.first <= view.cursor <= seen.last:
        around = view.cursor
    if around is None:
        around = (seen.first + seen.last) / 2
    place = (around - seen.first) / seen.length
    return _at(replace(view, length=length), extent, around + length * (1 - place))


def pan(view: ChartView, extent: Extent, steps: float) -> ChartView:
    """Move the window by ``steps``; at the newest step it follows again."""
    if view.length is None or view.length >= extent.length:
        return view
    return _at(view, extent, window(view, extent).last + steps)


def pan_by_part(view: ChartView, extent: Extent, direction: int) -> ChartView:
    """Move the window by a part of itself, at least by a step."""
    return pan(view, extent, direction * max(1.0, PAN * window(view, extent).length))


def follow(view: ChartView) -> ChartView:
    """Back to the newest step; the zoom stays."""
    return replace(view, last=None, cursor=None)


def whole(view: ChartView) -> ChartView:
    """All that there is."""
    return replace(view, length=None, last=None, cursor=None)


def smoother(view: ChartView, direction: int) -> ChartView:
    """The next window of the exponential mean, wider with 1 and narrower with -1."""
    at = SMOOTHING.index(view.smoothing) + direction
    return replace(view, smoothing=SMOOTHING[min(len(SMOOTHING) - 1, max(0, at))])


def toggle_cursor(view: ChartView, extent: Extent) -> ChartView:
    """The cursor at the newest step in sight, or none."""
    at = window(view, extent).last if view.cursor is None else None
    return replace(view, cursor=at)


def move_cursor(
    view: ChartView, extent: Extent, steps: Sequence[float], direction: int
) -> ChartView:
    """The cursor at the next measured step, a hundredth of the window away at least.

    The window comes along where the cursor would leave it.
    """
    if view.cursor is None or not steps:
        return view
    seen = window(view, extent)
    away = max(1e-9, seen.length / 100)
    if direction > 0:
        beyond = [step for step in steps if step > view.cursor]
        target = next((step for step in beyond if step >= view.cursor + away), steps[-1])
    else:
        beyond = [step for step in reversed(steps) if step < view.cursor]
        target = next((step for step in beyond if step <= view.cursor - away), steps[0])
    return point_at(view, extent, target)


def point_at(view: ChartView, extent: Extent, step: float) -> ChartView:
    """The cursor at ``step``, and the window moved as little as shows it."""
    step = min(extent.last, max(extent.first, step))
    view = replace(view, cursor=step)
    seen = window(view, extent)
    if step < seen.first:
        return pan(view, extent, step - seen.first)
    return pan(view, extent, step - seen.last) if step > seen.last else view


def _at(view: ChartView, extent: Extent, last: float) -> ChartView:
    """The window with its right edge at ``last``, or following from the newest step on."""
    assert view.length is not None
    last = max(extent.first + view.length, last)
    return replace(view, last=None if last >= extent.last - 1e-9 else last)

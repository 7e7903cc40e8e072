"""The one chart of the cockpit: curves by plotext, rulers of our own.

plotext draws the curves in braille, without colour; colours are the theme's, so none is
ever fixed in a picture. The rulers are ours, so that their gutter keeps its width while
values change. A chart draws only when its data, its size or its visibility changed.
"""

import math
import sys
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass, replace

from textual import events
from textual.content import Content
from textual.geometry import Size
from textual.message import Message
from textual.widget import Widget

from stonk_tui.widgets.cells import BLANK, Cell, put_cursor, runs, with_marks
from stonk_tui.widgets.figures import known
from stonk_tui.widgets.rulers import GUTTER, log_rule, rule, x_ruler


@dataclass(frozen=True)
class Line:
    """One curve."""

    steps: Sequence[float]
    values: Sequence[float]
    style: str
    label: str = ""
    marker: str = ""
    """The character that stands at each point of what is no curve but a few measurements."""


@dataclass(frozen=True)
class Mark:
    """A moment on the x axis."""

    step: float
    label: str
    style: str = "$quiet"


@dataclass(frozen=True)
class Picture:
    """Everything that decides how a chart looks."""

    lines: tuple[Line, ...] = ()
    marks: tuple[Mark, ...] = ()
    low: float | None = None
    """Least value on the y axis; None fits the data."""
    high: float | None = None
    x_label: str = "step"
    x_low: float | None = None
    """Left end of the x axis; None fits the data."""
    x_high: float | None = None
    """Right end of the x axis; None fits the data."""
    is_log: bool = False
    """Equal distances are equal factors; what is not above 0 is left out."""
    cursor: float | None = None
    """Where the upright line of the value cursor stands."""
    digits: int | None = None
    """Decimals on the y axis; None fits the range."""
    empty: str = ""
    """What stands where there is nothing to draw yet."""


class Chart(Widget):
    """Curves over steps, redrawn only when something changed."""

    DEFAULT_CSS = """
    Chart { width: 1fr; height: 1fr; }
    """

    @dataclass
    class Wheeled(Message):
        """The wheel was turned over ``step``: up with a positive direction."""

        step: float
        direction: int

    @dataclass
    class Dragged(Message):
        """The mouse dragged the curves by this many steps to the right."""

        steps: float

    @dataclass
    class Pointed(Message):
        """Somebody clicked at ``step``."""

        step: float

    def __init__(self, *, id: str | None = None, classes: str | None = None) -> None:
        super().__init__(id=id, classes=classes)
        self._picture = Picture()
        self._drawn: tuple[Picture, Size] | None = None
        self._content = Content("")
        self._held_at: int | None = None
        """Column at which the mouse holds the curves."""
        self._was_dragged = False

    @property
    def picture(self) -> Picture:
        """What is shown."""
        return self._picture

    def draw(self, picture: Picture) -> None:
        """Show ``picture``; the same one again costs nothing."""
        if picture != self._picture:
            self._picture = picture
            self.refresh()

    def render(self) -> Content:
        if "plotext" not in sys.modules:
            # Its import takes as long as all other drawing: everything else is painted first.
            self.call_after_refresh(self._draw_first)
            return Content("")
        key = (self._picture, self.size)
        if self._drawn != key:
            self._drawn = key
            self._content = render(self._picture, self.size.width, self.size.height)
        return self._content

    def _draw_first(self) -> None:
        import plotext  # noqa: F401

        self.refresh()

    # --- the mouse, where the picture says which steps it shows

    def _steps_per_column(self) -> float:
        low, high = self._picture.x_low, self._picture.x_high
        columns = self.size.width - GUTTER
        return (high - low) / (columns - 1) if low is not None and high and columns > 1 else 0.0

    def _step_at(self, column: int) -> float:
        return (self._picture.x_low or 0.0) + max(0, column - GUTTER) * self._steps_per_column()

    def on_mouse_scroll_up(self, event: events.MouseScrollUp) -> None:
        self._wheel(event, 1)

    def on_mouse_scroll_down(self, event: events.MouseScrollDown) -> None:
        self._wheel(event, -1)

    def _wheel(self, event: events.MouseEvent, direction: int) -> None:
        if self._steps_per_column():
            event.stop()
            self.post_message(self.Wheeled(self._step_at(event.x), direction))

    def on_mouse_down(self, event: events.MouseDown) -> None:
        if event.button == 1 and self._steps_per_column():
            self._held_at, self._was_dragged = event.x, False
            self.capture_mouse()

    def on_mouse_move(self, event: events.MouseMove) -> None:
        if self._held_at is not None and event.x != self._held_at:
            steps = (event.x - self._held_at) * self._steps_per_column()
            self._held_at, self._was_dragged = event.x, True
            self.post_message(self.Dragged(steps))

    def on_mouse_up(self, event: events.MouseUp) -> None:
        if self._held_at is not None:
            self._held_at = None
            self.release_mouse()
            if not self._was_dragged:
                self.post_message(self.Pointed(self._step_at(event.x)))


def render(picture: Picture, width: int, height: int) -> Content:
    """The picture in ``width`` by ``height`` cells."""
    lines = [_finite(line) for line in picture.lines]
    if picture.is_log:
        lines = [_logarithms(line) for line in lines]
    lines = [line for line in lines if line.steps]
    columns, body_rows = width - GUTTER, height - 1
    if not lines or columns < 8 or body_rows < 2:
        blank = "\n" * max(0, (height - 1) // 2)
        return Content.assemble(blank, Content.styled(picture.empty, "$quiet").center(width))
    x_low = picture.x_low
    if x_low is None:
        x_low = float(min(line.steps[0] for line in lines))
    x_high = float(picture.x_high or max(line.steps[-1] for line in lines))
    if x_high <= x_low:
        # One point only: give it room at the left instead of no room at all.
        x_high = x_low + 1
    y_low, y_high = _limits(picture, lines)
    count = max(2, body_rows // 3)
    ticks = (
        log_rule(y_low, y_high, count)
        if picture.is_log
        else rule(y_low, y_high, count, picture.digits)
    )
    curves = _curves(lines, (x_low, x_high), (y_low, y_high), columns, body_rows)
    grid = with_marks(curves, picture.marks, x_low, x_high)
    if picture.cursor is not None:
        put_cursor(grid, picture.cursor, x_low, x_high)
    labels = {_row_of(tick, y_low, y_high, body_rows): text for tick, text in ticks}
    output: list[Content] = []
    for row, cells in enumerate(grid):
        label = labels.get(row, "")
        joint = "┤" if label else "│"
        output.append(
            Content.assemble((f"{label:>{GUTTER - 1}}", "$quiet"), (joint, "$faint"), *runs(cells))
        )
    output.append(x_ruler(x_low, x_high, columns, picture.x_label))
    return Content("\n").join(output)


def decimate(
    steps: Sequence[float], values: Sequence[float], columns: int
) -> tuple[list[float], list[float]]:
    """About two points a column, each column's least and greatest kept, so spikes survive."""
    if len(steps) <= 2 * columns or columns < 1:
        return list(steps), list(values)
    span = steps[-1] - steps[0] or 1.0
    kept_steps: list[float] = []
    kept_values: list[float] = []
    start = 0
    for column in range(columns):
        edge = steps[0] + span * (column + 1) / columns
        end = len(steps) if column == columns - 1 else bisect_right(steps, edge, start)
        if end <= start:
            continue
        indices = range(start, end)
        lowest = min(indices, key=values.__getitem__)
        highest = max(indices, key=values.__getitem__)
        for index in sorted({lowest, highest}):
            kept_steps.append(steps[index])
            kept_values.append(values[index])
        start = end
    return kept_steps, kept_values


class ExponentialMean:
    """Exponential mean with the weight of about ``window`` values, unbiased at the start.

    Each value may itself be the mean of ``grain`` values.
    """

    def __init__(self, window: float, grain: float = 1.0) -> None:
        self._keep = (1 - 1 / max(1.0, window)) ** grain
        self._total = self._weights = 0.0

    def add(self, value: float) -> float:
        """The mean up to and with ``value``."""
        self._total = self._keep * self._total + (1 - self._keep) * value
        self._weights = self._keep * self._weights + (1 - self._keep)
        return self._total / self._weights


def smooth(values: Sequence[float], window: float = 12.0, grain: float = 1.0) -> list[float]:
    """The exponential mean at every value.

    Over the whole series, before anything is cut out of it, so that a curve does not
    change its shape with the zoom.
    """
    mean = ExponentialMean(window, grain)
    return [mean.add(value) for value in values]


def trend(
    steps: Sequence[float], values: Sequence[float], window: int = 100, least: int = 10
) -> float | None:
    """Least-squares slope per step over the last ``window`` points.

    None below ``least`` points: a line through a handful of noisy steps says nothing.
    """
    xs, ys = list(steps[-window:]), list(values[-window:])
    if len(xs) < least:
        return None
    mean_x, mean_y = sum(xs) / len(xs), sum(ys) / len(ys)
    spread = sum((x - mean_x) ** 2 for x in xs)
    if spread == 0:
        return None
    return sum((x - mean_x) * (y - mean_y) for x, y in zip(xs, ys, strict=True)) / spread


def _finite(line: Line) -> Line:
    pairs = [
        (step, number)
        for step, value in zip(line.steps, line.values, strict=False)
        if (number := known(value)) is not None
    ]
    steps, values = [step for step, _ in pairs], [value for _, value in pairs]
    return replace(line, steps=steps, values=values)


def _logarithms(line: Line) -> Line:
    pairs = [
        (step, math.log10(value))
        for step, value in zip(line.steps, line.values, strict=True)
        if value > 0
    ]
    return replace(line, steps=[pair[0] for pair in pairs], values=[pair[1] for pair in pairs])


def _limits(picture: Picture, lines: Sequence[Line]) -> tuple[float, float]:
    low = min(min(line.values) for line in lines) if picture.low is None else picture.low
    high = max(max(line.values) for line in lines) if picture.high is None else picture.high
    if high - low < 1e-9:
        low, high = low - 0.5 * (abs(low) or 1.0) * 0.1, high + 0.5 * (abs(high) or 1.0) * 0.1
    margin = 0.04 * (high - low)
    return (
        low - margin if picture.low is None else low,
        high + margin if picture.high is None else high,
    )


def _row_of(value: float, low: float, high: float, height: int) -> int:
    return min(height - 1, max(0, round((high - value) / (high - low) * (height - 1))))


def _curves(
    lines: Sequence[Line],
    x_limits: tuple[float, float],
    y_limits: tuple[float, float],
    columns: int,
    height: int,
) -> list[list[Cell]]:
    """The curves as rows of (character, style), later ones on top of earlier ones.

    Each is drawn by itself: in one picture two curves that meet in a cell would melt into
    one pattern of dots, in the colour of the last.
    """
    grid: list[list[Cell]] = [[(" ", "")] * columns for _ in range(height)]
    for line in lines:
        if line.marker:
            _put_points(grid, line, x_limits, y_limits)
            continue
        drawn = _braille(line, x_limits, y_limits, columns, height)
        for cells, characters in zip(grid, drawn, strict=False):
            for column, character in enumerate(characters[:columns]):
                if character not in BLANK:
                    cells[column] = (character, line.style)
    return grid


def _put_points(
    grid: list[list[Cell]],
    line: Line,
    x_limits: tuple[float, float],
    y_limits: tuple[float, float],
) -> None:
    last = len(grid[0]) - 1
    for step, value in zip(line.steps, line.values, strict=True):
        column = round((step - x_limits[0]) / (x_limits[1] - x_limits[0]) * last)
        if 0 <= column <= last:
            grid[_row_of(value, *y_limits, len(grid))][column] = (line.marker, line.style)


def _braille(
    line: Line,
    x_limits: tuple[float, float],
    y_limits: tuple[float, float],
    columns: int,
    height: int,
) -> list[str]:
    import plotext

    # The widget knows its size; plotext would cut it to what it takes for the terminal's.
    plotext.terminal.limit(False, False)
    figure = plotext.figure
    figure.clear()
    figure.plot_size(columns, height)
    figure.axes(False, axis="both", side="both")
    for axis, limits in (("x", x_limits), ("y", y_limits)):
        figure.ruler(axis, 0).frequency(0)
        figure.ruler(axis, 0).lim(*limits)
    steps, values = decimate(line.steps, line.values, columns)
    # plotext leaves out what lies beyond the limits; a clipped curve stays in sight.
    values = [min(y_limits[1], max(y_limits[0], value)) for value in values]
    figure.draw(figure.signal(steps, values, marker="braille").lines(len(steps) > 1))
    text: str = figure.build().string(colorless=True)
    return text.split("\n")

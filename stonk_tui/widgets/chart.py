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

from textual.content import Content
from textual.geometry import Size
from textual.widget import Widget

from stonk_tui.widgets.figures import fixed, known, minus

GUTTER = 6
_BLANK = (" ", "\u2800")


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
    x_high: float | None = None
    """Right end of the x axis; None fits the data."""
    digits: int | None = None
    """Decimals on the y axis; None fits the range."""
    empty: str = ""
    """What stands where there is nothing to draw yet."""


class Chart(Widget):
    """Curves over steps, redrawn only when something changed."""

    DEFAULT_CSS = """
    Chart { width: 1fr; height: 1fr; }
    """

    def __init__(self, *, id: str | None = None, classes: str | None = None) -> None:
        super().__init__(id=id, classes=classes)
        self._picture = Picture()
        self._drawn: tuple[Picture, Size] | None = None
        self._content = Content("")

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


def render(picture: Picture, width: int, height: int) -> Content:
    """The picture in ``width`` by ``height`` cells."""
    lines = [_finite(line) for line in picture.lines]
    lines = [line for line in lines if line.steps]
    columns, body_rows = width - GUTTER, height - 1
    if not lines or columns < 8 or body_rows < 2:
        blank = "\n" * max(0, (height - 1) // 2)
        return Content.assemble(blank, Content.styled(picture.empty, "$quiet").center(width))
    x_low = float(min(line.steps[0] for line in lines))
    x_high = float(picture.x_high or max(line.steps[-1] for line in lines))
    if x_high <= x_low:
        # One point only: give it room at the left instead of no room at all.
        x_high = x_low + 1
    y_low, y_high = _limits(picture, lines)
    ticks, step = _ticks(y_low, y_high, max(2, body_rows // 3))
    digits = _digits(step) if picture.digits is None else picture.digits
    curves = _curves(lines, (x_low, x_high), (y_low, y_high), columns, body_rows)
    grid = _with_marks(curves, picture.marks, x_low, x_high)
    labels = {_row_of(tick, y_low, y_high, body_rows): _label(tick, digits) for tick in ticks}
    output: list[Content] = []
    for row, cells in enumerate(grid):
        label = labels.get(row, "")
        joint = "┤" if label else "│"
        output.append(
            Content.assemble((f"{label:>{GUTTER - 1}}", "$quiet"), (joint, "$faint"), *_runs(cells))
        )
    output.append(_x_ruler(x_low, x_high, columns, picture.x_label))
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


def smooth(values: Sequence[float], window: float = 12.0) -> list[float]:
    """Exponential mean with the weight of about ``window`` values, unbiased at the start.

    Over the whole series, before anything is cut out of it, so that a curve does not
    change its shape with the zoom.
    """
    keep = 1 - 1 / max(1.0, window)
    total = weights = 0.0
    smoothed = []
    for value in values:
        total = keep * total + (1 - keep) * value
        weights = keep * weights + (1 - keep)
        smoothed.append(total / weights)
    return smoothed


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


def _ticks(low: float, high: float, count: int) -> tuple[list[float], float]:
    """Round numbers within the limits, about ``count`` of them, and their distance."""
    rough = (high - low) / max(1, count)
    power = 10 ** math.floor(math.log10(rough))
    step = next(
        (factor * power for factor in (1, 2, 2.5, 5) if factor * power >= rough), 10 * power
    )
    first = math.ceil(low / step - 1e-9)
    ticks: list[float] = []
    while first * step <= high + 1e-9 * step and len(ticks) <= count + 1:
        ticks.append(first * step)
        first += 1
    return ticks, step


def _digits(step: float) -> int:
    """Decimals that tell two neighbouring ticks apart."""
    for digits in range(4):
        if abs(round(step, digits) - step) < 1e-9:
            return digits
    return 4


def _label(tick: float, digits: int) -> str:
    text = fixed(tick, digits)
    # Never wider than the gutter: very small and very large figures as powers of ten.
    return text if len(text) < GUTTER else minus(f"{tick:.0e}".replace("e-0", "e-"))


def _row_of(value: float, low: float, high: float, height: int) -> int:
    return min(height - 1, max(0, round((high - value) / (high - low) * (height - 1))))


_Cell = tuple[str, str]


def _curves(
    lines: Sequence[Line],
    x_limits: tuple[float, float],
    y_limits: tuple[float, float],
    columns: int,
    height: int,
) -> list[list[_Cell]]:
    """The curves as rows of (character, style), later ones on top of earlier ones.

    Each is drawn by itself: in one picture two curves that meet in a cell would melt into
    one pattern of dots, in the colour of the last.
    """
    grid: list[list[_Cell]] = [[(" ", "")] * columns for _ in range(height)]
    for line in lines:
        if line.marker:
            _put_points(grid, line, x_limits, y_limits)
            continue
        drawn = _braille(line, x_limits, y_limits, columns, height)
        for cells, characters in zip(grid, drawn, strict=False):
            for column, character in enumerate(characters[:columns]):
                if character not in _BLANK:
                    cells[column] = (character, line.style)
    return grid


def _put_points(
    grid: list[list[_Cell]],
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


def _with_marks(
    grid: list[list[_Cell]], marks: Sequence[Mark], x_low: float, x_high: float
) -> list[list[_Cell]]:
    """Put each mark behind the curves: a dotted line, its label at the foot where there is room."""
    taken = -1
    for mark in sorted(marks, key=lambda mark: mark.step):
        if not x_low <= mark.step <= x_high:
            continue
        width = len(grid[0])
        column = min(width - 1, round((mark.step - x_low) / (x_high - x_low) * (width - 1)))
        for row in grid:
            if row[column][0] in _BLANK:
                row[column] = ("┊", "$faint")
        foot = grid[-1]
        end = column + 1 + len(mark.label)
        free = all(foot[place][0] in _BLANK for place in range(column + 1, min(end, width)))
        if column > taken and end < width and free:
            for offset, character in enumerate(mark.label):
                foot[column + 1 + offset] = (character, mark.style)
            taken = end
    return grid


def _runs(cells: Sequence[_Cell]) -> list[tuple[str, str]]:
    """Neighbouring cells of one style as one piece."""
    runs: list[tuple[str, str]] = []
    for character, style in cells:
        if runs and runs[-1][1] == style:
            runs[-1] = (runs[-1][0] + character, style)
        else:
            runs.append((character, style))
    return runs


def _x_ruler(low: float, high: float, columns: int, label: str) -> Content:
    """``└┬────┬──`` folded into one line: numbers standing under their place."""
    line = [" "] * columns
    ticks = _ticks(low, high, max(2, columns // 14))[0] if high - low >= 2 else [low, high]
    right = columns - len(label) - 1 if label else columns
    for tick in ticks:
        text = minus(f"{tick:.0f}")
        column = round((tick - low) / (high - low) * (columns - 1))
        start = min(max(0, column - len(text) // 2), columns - len(text))
        place = range(max(0, start - 1), start + len(text) + 1)
        if start + len(text) > right or any(line[at] != " " for at in place if at < columns):
            continue
        line[start : start + len(text)] = text
    text = "".join(line)
    if label:
        text = text[: columns - len(label)] + label
    return Content.assemble((" " * (GUTTER - 1) + "└", "$faint"), (text, "$quiet"))

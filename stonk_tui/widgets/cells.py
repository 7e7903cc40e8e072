"""What stands in a chart behind its curves: marks and the value cursor, cell by cell."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from stonk_tui.widgets.chart import Mark

BLANK = (" ", "\u2800")
Cell = tuple[str, str]
"""A character and its style."""


def with_marks(
    grid: list[list[Cell]], marks: Sequence["Mark"], x_low: float, x_high: float
) -> list[list[Cell]]:
    """Put each mark behind the curves: a dotted line, its label at the foot where there is room."""
    taken = -1
    for mark in sorted(marks, key=lambda mark: mark.step):
        if not x_low <= mark.step <= x_high:
            continue
        width = len(grid[0])
        column = min(width - 1, round((mark.step - x_low) / (x_high - x_low) * (width - 1)))
        for row in grid:
            if row[column][0] in BLANK:
                row[column] = ("┊", "$faint")
        foot = grid[-1]
        end = column + 1 + len(mark.label)
        free = all(foot[place][0] in BLANK for place in range(column + 1, min(end, width)))
        if column > taken and end < width and free:
            for offset, character in enumerate(mark.label):
                foot[column + 1 + offset] = (character, mark.style)
            taken = end
    return grid


def put_cursor(grid: list[list[Cell]], step: float, x_low: float, x_high: float) -> None:
    """An upright line that curves cross and marks do not."""
    if x_low <= step <= x_high:
        column = round((step - x_low) / (x_high - x_low) * (len(grid[0]) - 1))
        for row in grid:
            if row[column][0] in (*BLANK, "┊"):
                row[column] = ("│", "$gold")


def runs(cells: Sequence[Cell]) -> list[tuple[str, str]]:
    """Neighbouring cells of one style as one piece."""
    found: list[tuple[str, str]] = []
    for character, style in cells:
        if found and found[-1][1] == style:
            found[-1] = (found[-1][0] + character, style)
        else:
            found.append((character, style))
    return found

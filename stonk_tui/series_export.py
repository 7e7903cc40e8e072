"""Write the series of a chart to a file: every step, whatever the chart put together."""

import csv
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TextIO

from engine.errors import UserError
from engine.runs import curves
from engine.runs.reader import StoreReader
from stonk_tui.chart_choices import Choice
from stonk_tui.chart_view import Extent
from stonk_tui.widgets.chart import ExponentialMean

FORMATS = (".csv", ".jsonl")
_FORMULA = ("=", "+", "-", "@")

Row = dict[str, int | float]


class Cancelled(Exception):
    """The export was called off; nothing is left of it."""


def refuse(out: Path) -> None:
    """Refuse a file that cannot be written.

    Raises:
        UserError: it exists, its folder does not, or its name tells no known format.
    """
    if out.suffix not in FORMATS:
        raise UserError("a name ends in .csv or .jsonl", where=str(out))
    if not out.parent.is_dir():
        raise UserError("there is no such folder", where=str(out.parent))
    if out.exists() or out.is_symlink():
        raise UserError("the file exists; nothing is overwritten", where=str(out))


def write(
    out: Path,
    database: Path,
    chosen: Choice,
    smoothing: int,
    seen: Extent,
    go_on: Callable[[], bool] = lambda: True,
) -> int:
    """Write the steps of ``chosen`` that are in sight.

    Args:
        out: a new file; its ending chooses CSV or JSON Lines.
        database: the run's store.
        chosen: what is shown.
        smoothing: window of the means that stand beside the values; 1 leaves them out.
        seen: first and last step.
        go_on: asked now and then; False calls it off.

    Returns:
        The number of rows.

    Raises:
        UserError: the file cannot be written, or the store not be read.
        OSError: the disk says no.
        Cancelled: ``go_on`` said no.
    """
    refuse(out)
    reader = StoreReader(database)
    try:
        with out.open("x", encoding="utf-8", newline="") as file:
            try:
                rows = _rows(reader, chosen, smoothing, seen, go_on)
                columns = ["step", *_columns(chosen, smoothing)]
                return (_csv if out.suffix == ".csv" else _jsonl)(file, columns, rows)
            except BaseException:
                out.unlink(missing_ok=True)
                raise
    finally:
        reader.close()


def _columns(chosen: Choice, smoothing: int) -> Iterator[str]:
    for name in chosen.names:
        yield name
        if smoothing > 1 and name in chosen.metrics:
            yield _mean_of(name, smoothing)


def _mean_of(name: str, smoothing: int) -> str:
    return f"{name}/mean_of_{smoothing}"


def _rows(
    reader: StoreReader, chosen: Choice, smoothing: int, seen: Extent, go_on: Callable[[], bool]
) -> Iterator[Row]:
    """One for each step at which something was measured, means over all that came before."""
    means = {name: ExponentialMean(smoothing) for name in chosen.metrics}
    page = curves.EXACT_STEPS
    for first in range(0, int(seen.last) + 1, page):
        if not go_on():
            raise Cancelled
        found: dict[int, Row] = {}
        for name in chosen.names:
            last = min(int(seen.last), first + page - 1)
            curve = curves.read(reader.rows, name, page, first, last)
            for step, value in zip(curve.steps, curve.mean, strict=True):
                row = found.setdefault(int(step), {"step": int(step)})
                row[name] = value
                if smoothing > 1 and name in means:
                    row[_mean_of(name, smoothing)] = means[name].add(value)
        for step in sorted(found):
            if step >= seen.first:
                yield found[step]


def _csv(file: TextIO, columns: list[str], rows: Iterator[Row]) -> int:
    writer = csv.writer(file, lineterminator="\n")
    # A name is out of the store, and a spreadsheet would compute one that looks like a formula.
    writer.writerow(f"'{name}" if name.startswith(_FORMULA) else name for name in columns)
    count = 0
    for count, row in enumerate(rows, 1):  # noqa: B007
        writer.writerow(row.get(name, "") for name in columns)
    return count


def _jsonl(file: TextIO, columns: list[str], rows: Iterator[Row]) -> int:
    count = 0
    for count, row in enumerate(rows, 1):  # noqa: B007
        file.write(json.dumps({name: row[name] for name in columns if name in row}) + "\n")
    return count

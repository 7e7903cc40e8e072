"""The course of a metric over a run of any length, out of sums that the worker keeps.

A million steps cannot be read for a chart of a hundred columns. So the worker adds up each metric
over every 16 steps (``curves.sql``), and a chart asks for as many points as it can show, over the
whole run or over the window that it is zoomed to.
"""

import sqlite3
from collections.abc import Callable
from dataclasses import dataclass
from importlib import resources
from typing import Any

BUCKET = 16
"""Steps that are added up to one row of each metric; as in ``curves.sql``."""
EXACT_STEPS = 2048
"""Windows of up to this many steps are read step by step."""
_PAGE = 64

VALIDATION = "validation/"
_Query = Callable[[str, tuple[Any, ...]], list[tuple[Any, ...]]]


@dataclass(frozen=True)
class Curve:
    """A metric over steps, neighbouring steps put together where there are many."""

    steps: tuple[float, ...] = ()
    """Middle of the steps of each point."""
    low: tuple[float, ...] = ()
    high: tuple[float, ...] = ()
    mean: tuple[float, ...] = ()


# --- writing: in the transaction of the event that is written


def prepare(connection: sqlite3.Connection) -> None:
    """Bring the sums of a store up to date, and make their table where an older version did not."""
    if not connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'curves'").fetchone():
        schema = resources.files("engine.runs").joinpath("curves.sql").read_text()
        connection.executescript(
            f"BEGIN; {schema} INSERT INTO meta VALUES ('curves', '0'); COMMIT;"
        )
    (newest,) = connection.execute(
        "SELECT max(step) FROM events WHERE kind = 'step' AND superseded = 0"
    ).fetchone()
    complete = max(0, (newest or 1) - 1) // BUCKET
    while (start := _first_missing(connection)) < complete:
        # A page at a time, so that being killed in between loses little.
        with connection:
            _sum_up(connection, start, min(complete, start + _PAGE))


def extend(connection: sqlite3.Connection, step: int) -> None:
    """Sum up the buckets that ``step``, just written, is the first one after."""
    if step % BUCKET == 1 and (start := _first_missing(connection)) < step // BUCKET:
        _sum_up(connection, start, step // BUCKET)


def cut_after(connection: sqlite3.Connection, step: int) -> None:
    """Forget the buckets with steps after ``step``, which will be replayed."""
    keep = min(step // BUCKET, _first_missing(connection))
    connection.execute("DELETE FROM curves WHERE bucket >= ?", (keep,))
    connection.execute("UPDATE meta SET value = ? WHERE key = 'curves'", (str(keep),))


def _first_missing(connection: sqlite3.Connection) -> int:
    (value,) = connection.execute("SELECT value FROM meta WHERE key = 'curves'").fetchone()
    return int(value)


def _sum_up(connection: sqlite3.Connection, start: int, end: int) -> None:
    """Write the buckets from ``start`` up to and without ``end``."""
    connection.execute(
        "INSERT OR REPLACE INTO curves"
        f" SELECT iif(e.kind = 'validation', '{VALIDATION}', '') || m.key,"
        f" (e.step - 1) / {BUCKET}, count(*), min(m.value), max(m.value), sum(m.value)"
        " FROM events e, json_each(e.payload, '$.metrics') m"
        " WHERE e.superseded = 0 AND e.kind IN ('step', 'validation')"
        " AND e.step BETWEEN ? AND ? AND m.type IN ('integer', 'real') GROUP BY 1, 2",
        (start * BUCKET + 1, end * BUCKET),
    )
    connection.execute("UPDATE meta SET value = ? WHERE key = 'curves'", (str(end),))


# --- reading


def read(query: _Query, name: str, points: int, first: int = 1, last: int | None = None) -> Curve:
    """The curve of ``name`` from step ``first`` to ``last``, in about ``points`` points at most.

    Args:
        query: runs a statement on a store that has the table.
        name: flat name of the metric, with ``validation/`` before those of validations.
        points: more are put together; windows of up to 2048 steps are never.
        first: first step of the window.
        last: last step of the window; None is the newest.
    """
    kind = "validation" if name.startswith(VALIDATION) else "step"
    newest, missing = query(
        "SELECT (SELECT step FROM events WHERE superseded = 0 AND kind = ?"
        " ORDER BY step DESC LIMIT 1), (SELECT value FROM meta WHERE key = 'curves')",
        (kind,),
    )[0]
    end = min(newest or 0, last if last is not None else 2**62)
    if end - first < EXACT_STEPS:
        exact = _steps(query, kind, name, first, end)
        steps, values = tuple(step for step, _ in exact), tuple(value for _, value in exact)
        return Curve(steps, values, values, values)
    # Whole buckets only: a window of thousands of steps is not told from one a few steps off.
    start, stop = (first - 1) // BUCKET, min(int(missing), end // BUCKET)
    width = max(1, -(-(stop - start) // points))
    rows = query(
        "SELECT min(bucket), max(bucket), min(low), max(high), sum(total) / sum(count) FROM curves"
        " WHERE name = ? AND bucket >= ? AND bucket < ? GROUP BY (bucket - ?) / ? ORDER BY 1",
        (name, start, stop, start, width),
    )
    found = [(BUCKET * (a + b + 1) / 2 + 0.5, *rest) for a, b, *rest in rows]
    if rest := _steps(query, kind, name, stop * BUCKET + 1, end):
        values = tuple(value for _, value in rest)
        middle = (rest[0][0] + rest[-1][0]) / 2
        found.append((middle, min(values), max(values), sum(values) / len(values)))
    return Curve(*(tuple(column) for column in zip(*found, strict=True))) if found else Curve()


def _steps(query: _Query, kind: str, name: str, first: int, last: int) -> list[tuple[float, float]]:
    """(step, value) of the events themselves."""
    rows = query(
        "SELECT step, json_extract(payload, ?) FROM events"
        " WHERE superseded = 0 AND kind = ? AND step BETWEEN ? AND ? ORDER BY step, seq",
        (f'$.metrics."{name.removeprefix(VALIDATION)}"', kind, first, last),
    )
    return [
        (step, float(value))
        for step, value in rows
        if isinstance(value, int | float) and not isinstance(value, bool)
    ]

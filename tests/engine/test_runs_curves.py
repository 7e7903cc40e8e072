"""Curves of a long run: the worker's sums are what the events say, whatever happened meanwhile."""

import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.runs import curves
from engine.runs.curves import BUCKET, EXACT_STEPS, Curve
from engine.runs.reader import StoreReader
from engine.runs.store import EventStore

LONG = EXACT_STEPS + 3 * BUCKET + 5


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "events.db"


def train(store: EventStore, first: int, last: int, value: Callable[[int], float]) -> None:
    for step in range(first, last + 1):
        store.event("step", {"metrics": {"kl": value(step), "text": "x"}}, step=step)


def read(path: Path, name: str = "kl", points: int = 512, **window: int) -> Curve:
    reader = StoreReader(path)
    try:
        return curves.read(reader.rows, name, points, **window)
    finally:
        reader.close()


def sums(path: Path) -> list[tuple[object, ...]]:
    with sqlite3.connect(path) as database:
        rows = database.execute("SELECT * FROM curves ORDER BY name, bucket").fetchall()
    database.close()
    return rows


def test_sum_of_a_bucket_is_written_with_the_first_step_after_it(path: Path) -> None:
    store = EventStore(path)
    train(store, 1, BUCKET, float)
    store.event("validation", {"metrics": {"accuracy": 0.5}})
    store.flush()
    assert sums(path) == []
    train(store, BUCKET + 1, BUCKET + 1, float)
    store.close()
    assert sums(path) == [
        ("kl", 0, 16, 1.0, 16.0, 136.0),
        ("validation/accuracy", 0, 1, 0.5, 0.5, 0.5),
    ]


def test_short_course_comes_step_by_step(path: Path) -> None:
    store = EventStore(path)
    train(store, 1, 40, lambda step: step / 2)
    store.close()
    values = tuple(step / 2 for step in range(1, 41))
    assert read(path) == Curve(tuple(range(1, 41)), values, values, values)
    assert read(path, first=10, last=12).mean == (5.0, 5.5, 6.0)


def test_long_course_has_as_many_points_as_were_asked_for_and_keeps_spikes(path: Path) -> None:
    store = EventStore(path)
    train(store, 1, LONG, lambda step: 9.0 if step == 700 else 0.0)
    store.close()
    curve = read(path, points=32)
    # 131 whole buckets in 27 points of 5, and the five steps that are in no bucket yet.
    assert len(curve.steps) == 27 + 1
    assert max(curve.high) == 9.0
    at = curve.high.index(9.0)
    # The 700th step is in bucket 43, so in the ninth point, of steps 641 to 720.
    assert (at, curve.steps[at], curve.low[at]) == (8, 680.5, 0.0)
    assert curve.mean[at] == pytest.approx(9 / (5 * BUCKET))
    assert curve.steps[-1] == LONG - 2


def test_window_of_a_long_course_is_as_exact_as_its_length_allows(path: Path) -> None:
    store = EventStore(path)
    train(store, 1, 2 * LONG, float)
    store.close()
    exact = read(path, first=LONG, last=LONG + 99)
    assert exact.steps == exact.low == exact.high == exact.mean == tuple(range(LONG, LONG + 100))
    wide = read(path, first=BUCKET + 1, last=LONG)
    assert (wide.low[0], wide.high[0], wide.steps[0]) == (17.0, 32.0, 24.5)
    assert wide.high[-1] == LONG


def test_metric_that_nobody_measured_has_no_points(path: Path) -> None:
    store = EventStore(path)
    train(store, 1, LONG, float)
    store.close()
    assert read(path, "entropy") == read(path, "text") == read(path, "validation/kl") == Curve()


def test_store_of_an_earlier_version_is_brought_up_to_date_by_the_next_worker(path: Path) -> None:
    store = EventStore(path)
    train(store, 1, 70, float)
    store.close()
    expected = sums(path)
    assert len(expected) == 4
    with sqlite3.connect(path) as database:
        database.execute("DROP TABLE curves")
        database.execute("DROP INDEX events_by_kind")
        database.execute("DELETE FROM meta WHERE key = 'curves'")
    database.close()
    EventStore(path).close()
    assert sums(path) == expected


@settings(max_examples=25, deadline=None)
@given(st.lists(st.tuples(st.integers(1, 60), st.integers(0, 80)), min_size=1, max_size=4))
def test_sums_are_those_of_the_events_however_often_a_run_went_back(
    tmp_path_factory: pytest.TempPathFactory, legs: list[tuple[int, int]]
) -> None:
    path = tmp_path_factory.mktemp("run") / "events.db"
    step = 0
    for number, (steps, back_to) in enumerate(legs):
        store = EventStore(path)
        step = min(step, back_to)
        store.supersede_after(step)
        train(store, step + 1, step + steps, lambda step, leg=number: 100 * leg + step)
        step += steps
        store.close()
    kept = sums(path)
    with sqlite3.connect(path) as database:
        rows = database.execute(
            "SELECT step, json_extract(payload, '$.metrics.kl') FROM events"
            " WHERE superseded = 0 ORDER BY step"
        ).fetchall()
    database.close()
    values = [value for _, value in rows]
    assert [number for number, _ in rows] == list(range(1, step + 1))
    complete = (step - 1) // BUCKET
    parts = [values[BUCKET * bucket : BUCKET * (bucket + 1)] for bucket in range(complete)]
    assert kept == [
        ("kl", bucket, BUCKET, min(part), max(part), sum(part)) for bucket, part in enumerate(parts)
    ]

"""What is read of a long run shows what all of it would."""

import random
import sqlite3
from dataclasses import fields
from pathlib import Path

import pytest

from engine.runs.curves import EXACT_STEPS
from engine.runs.history import KEPT_LINES, History
from engine.runs.reader import StoreReader
from engine.runs.replay import NEWEST, WHOLE_EVENTS, replay
from engine.runs.store import EventStore

LATER = {"series", "log", "log_is_cut", "kept_points", "_marks"}
"""What begins later in a history of a bounded part."""


def write(path: Path, steps: int, *, every: int = 5) -> None:
    """A run with all that can happen in one."""
    rng = random.Random(3)
    store = EventStore(path)
    store.event("worker", {"pid": 1, "host": "box"})
    store.event("state", {"state": "starting"})
    store.event("worker", {"model": "m", "max_steps": 10 * steps})
    store.event("promotion", {"parent": "p"})
    for done in range(1, 5):
        progress = {"task": "warm-up", "done": done, "total": 4, "metrics": {"loss": 1 / done}}
        store.event("progress", progress)
    kept: list[str] = []
    for step in range(1, steps + 1):
        metrics = {"reward/total": rng.random(), "kl": rng.random()}
        store.event(
            "step",
            {
                "metrics": metrics,
                "seconds": {"total": 1.0},
                "epoch": step / 9,
                "eta_seconds": 1.0 * step,
                "milestones": [{"name": "reward", "value": rng.random()}],
                "power": step,
            },
            step=step,
        )
        if step % every == 0:
            store.event("state", {"state": "evaluating"})
            store.event("validation", {"metrics": {"accuracy": rng.random()}, "power": step + 1})
            store.event("state", {"state": "training"})
            is_best = step in (2 * every, steps // 2 // every * every)
            name = f"step-{step:06d}"
            # One in so many is promoted, and stays.
            removed = [old for old in kept[:-2] if int(old[5:]) % 205]
            kept = [old for old in kept if old not in removed] + [name]
            payload = {"name": name, "best": is_best, "removed": removed, "validation_reward": 0.1}
            store.event("checkpoint", payload)
        if step % 97 == 0:
            alarm = {"name": f"a{step % 3}", "on": step % 2 == 0, "title": "t", "explanation": "e"}
            store.event("alarm", alarm | {"advice": "a", "value": 1.0, "threshold": None})
        if step % 500 == 0:
            store.event("super_saiyan", {"step": step})
            store.event("notice", {"level": "warning", "text": f"at {step}"})
    store.event("state", {"state": "paused", "detail": "why"})
    store.event("progress", {"task": "probe", "done": 1, "total": 2})
    store.close()


def both(path: Path) -> tuple[History, History]:
    """(the bounded history, the fold of everything)."""
    reader = StoreReader(path)
    bounded, problem = replay(reader)
    assert problem == ""
    whole = History()
    while events := reader.events(whole.last_seq):
        whole.apply(events)
    reader.close()
    return bounded, whole


@pytest.fixture(scope="module")
def long_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("long") / "events.db"
    write(path, 2 * EXACT_STEPS)
    return path


def test_every_figure_of_a_long_run_is_that_of_a_fold_of_everything(long_run: Path) -> None:
    bounded, whole = both(long_run)
    assert whole.last_seq > WHOLE_EVENTS
    for name in (field.name for field in fields(History)):
        if name not in LATER:
            assert getattr(bounded, name) == getattr(whole, name), name
    assert len(whole.checkpoints) > 15
    assert whole.best == f"step-{EXACT_STEPS // 5 * 5:06d}"
    assert whole.best not in [point.name for point in whole.checkpoints]
    assert whole.alarms


def test_newest_lines_of_the_log_of_a_long_run_are_complete(long_run: Path) -> None:
    bounded, whole = both(long_run)
    assert bounded.log[-NEWEST:] == whole.log[-NEWEST:]
    assert bounded.log_is_cut
    rare = ("alarm", "Super Saiyan")
    assert [entry for entry in bounded.log if entry.text.startswith(rare)] == [
        entry for entry in whole.log if entry.text.startswith(rare)
    ]


def test_series_of_a_long_run_end_as_they_do_and_say_that_they_are_cut(long_run: Path) -> None:
    bounded, whole = both(long_run)
    for name in ("reward/total", "kl", "validation/accuracy"):
        part, all_of_it = bounded.series[name], whole.series[name]
        assert part.is_cut
        assert not all_of_it.is_cut
        assert part.steps[-NEWEST:] == all_of_it.steps[-NEWEST:]
        assert part.values[-NEWEST:] == all_of_it.values[-NEWEST:]
    assert bounded.series["warmup/loss"] == whole.series["warmup/loss"]


def test_validations_of_the_checkpoints_that_are_kept_are_there(long_run: Path) -> None:
    bounded, whole = both(long_run)
    series = bounded.series["validation/accuracy"]
    all_of_it = whole.series["validation/accuracy"]
    expected = dict(zip(all_of_it.steps, all_of_it.values, strict=True))
    found = dict(zip(series.steps, series.values, strict=True))
    assert len(found) < len(expected)
    for point in whole.checkpoints:
        assert found[point.step] == expected[point.step]


def test_run_of_many_events_and_few_steps_keeps_its_series_whole(tmp_path: Path) -> None:
    path = tmp_path / "events.db"
    write(path, 1500, every=3)
    bounded, whole = both(path)
    assert whole.last_seq > WHOLE_EVENTS
    assert bounded.series["reward/total"] == whole.series["reward/total"]


def test_short_run_is_folded_whole(tmp_path: Path) -> None:
    path = tmp_path / "events.db"
    write(path, 60)
    bounded, whole = both(path)
    whole.kept_points = bounded.kept_points
    assert bounded == whole


def test_store_of_an_earlier_version_is_folded_whole_however_long_it_is(tmp_path: Path) -> None:
    path = tmp_path / "events.db"
    write(path, EXACT_STEPS, every=4)
    with sqlite3.connect(path) as database:
        database.execute("DROP TABLE curves")
        database.execute("DROP INDEX events_by_kind")
    database.close()
    bounded, whole = both(path)
    assert whole.last_seq > WHOLE_EVENTS
    assert bounded == whole


def test_event_that_cannot_be_understood_is_skipped_and_named(tmp_path: Path) -> None:
    path = tmp_path / "events.db"
    write(path, 10)
    with sqlite3.connect(path) as database:
        database.execute("UPDATE events SET payload = '{}' WHERE kind = 'step' AND step = 4")
    database.close()
    reader = StoreReader(path)
    history, problem = replay(reader)
    reader.close()
    assert problem == "KeyError('metrics')"
    assert history.step == 10
    assert history.series["kl"].steps == [1, 2, 3, 5, 6, 7, 8, 9, 10]


def test_history_that_is_watched_for_long_lets_go_of_old_points(tmp_path: Path) -> None:
    path = tmp_path / "events.db"
    write(path, 1024)
    reader = StoreReader(path)
    history = History(kept_points=100)
    while events := reader.events(history.last_seq, 50):
        history.apply(events)
    reader.close()
    series = history.series["kl"]
    assert series.is_cut
    assert series.steps == list(range(925, 1025))


def test_history_that_is_watched_for_long_lets_go_of_old_lines_and_alarms(tmp_path: Path) -> None:
    path = tmp_path / "events.db"
    store = EventStore(path)
    kept: list[str] = []
    for step in range(1, 4 * KEPT_LINES):
        alarm = {"name": f"a{step % 3}", "on": step % 4 > 1, "title": "t", "explanation": "e"}
        store.event("alarm", alarm | {"advice": "a", "value": 1.0, "threshold": None}, step=step)
        if step % 10 == 0:
            removed, kept = kept[:-2], [*kept[-2:], f"step-{step:06d}"]
            payload = {"name": kept[-1], "best": False, "removed": removed}
            store.event("checkpoint", {**payload, "validation_reward": None})
    oldest = int(kept[0][5:])
    store.event("resumed", {"from_step": oldest}, step=oldest)
    store.close()
    reader = StoreReader(path)
    history, until = History(kept_points=100), History()
    while events := reader.events(history.last_seq, 50):
        history.apply(events)
        until.apply(event for event in events if event.step <= oldest and event.kind == "alarm")
        assert len(history.log) <= 2 * KEPT_LINES
        assert len(history._alarm_turns) < 40
    reader.close()
    assert history.log_is_cut
    assert history.log[-1].text == f"goes on from step {oldest}"
    # Those that were on at that checkpoint are on again.
    assert history.alarms == until.alarms
    assert history.alarms

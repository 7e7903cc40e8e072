"""The fold of events: hand-made logs against pictures worked out by hand."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.runs.history import History
from engine.runs.reader import Event, StoreReader
from engine.runs.store import EventStore


def fold(*rows: tuple[str, int, Mapping[str, Any]], attempt: int = 1) -> History:
    history = History()
    history.apply(
        Event(seq, attempt, 100.0 + seq, kind, step, payload)
        for seq, (kind, step, payload) in enumerate(rows, start=1)
    )
    return history


def step(number: int, reward: float, **more: Any) -> tuple[str, int, dict[str, Any]]:
    return "step", number, {"metrics": {"reward/total": reward}} | more


def checkpoint(
    number: int, reward: float | None, *, best: bool = False, removed: list[str] | None = None
) -> tuple[str, int, dict[str, Any]]:
    name = f"step-{number:06d}"
    payload = {"name": name, "best": best, "validation_reward": reward, "removed": removed or []}
    return "checkpoint", number, payload


def test_run_that_began_is_known_by_its_worker() -> None:
    history = fold(
        ("worker", 0, {"pid": 7, "device": "cpu", "device_name": "a CPU"}),
        ("worker", 0, {"model": "m", "max_steps": 40}),
        ("state", 0, {"state": "training"}),
    )
    assert (history.pid, history.max_steps, history.state) == (7, 40, "training")
    assert history.facts["device"] == "cpu"
    assert history.facts["model"] == "m"
    assert history.started == 101.0
    assert history.last_time == 103.0


def test_metrics_are_those_of_the_newest_step_and_the_newest_validation() -> None:
    history = fold(
        ("step", 1, {"metrics": {"kl": 0.1, "accuracy/up": 0.5}, "epoch": 0.5}),
        ("validation", 1, {"metrics": {"accuracy": 0.6}}),
        ("step", 2, {"metrics": {"kl": 0.2, "loss": None}, "eta_seconds": 9.0}),
    )
    assert history.metrics == {"kl": 0.2, "validation/accuracy": 0.6}
    assert history.series["kl"].values == [0.1, 0.2]
    assert history.series["accuracy/up"].steps == [1]
    assert "loss" not in history.series
    assert (history.epoch, history.eta_seconds) == (0.5, 9.0)


def test_warm_up_has_a_progress_and_a_series_of_its_own() -> None:
    progress = {"task": "warm-up", "done": 3, "total": 24, "metrics": {"loss": 2.5}}
    history = fold(("progress", 0, progress))
    assert history.progress is not None
    assert (history.progress.done, history.progress.eta_seconds) == (3, None)
    assert history.series["warmup/loss"].steps == [3]
    assert fold(("progress", 0, progress), ("state", 0, {"state": "training"})).progress is None


def test_checkpoints_rotate_and_the_best_is_kept_by_name() -> None:
    history = fold(
        checkpoint(10, 0.3, best=True),
        checkpoint(20, 0.2),
        checkpoint(30, 0.1, removed=["step-000020"]),
    )
    assert [point.name for point in history.checkpoints] == ["step-000010", "step-000030"]
    assert history.best == "step-000010"


def test_going_on_from_a_checkpoint_cuts_everything_after_it() -> None:
    history = fold(
        ("progress", 0, {"task": "warm-up", "done": 24, "total": 24, "metrics": {"loss": 1.0}}),
        step(10, 0.1),
        checkpoint(10, 0.3, best=True),
        ("validation", 10, {"metrics": {"accuracy": 0.5}}),
        step(20, 0.2),
        checkpoint(20, 0.4, best=True),
        ("validation", 20, {"metrics": {"accuracy": 0.7}}),
        ("resumed", 0, {"from_step": 10}),
    )
    assert history.step == 10
    assert history.series["reward/total"].steps == [10]
    assert history.series["warmup/loss"].steps == [24]
    assert [point.name for point in history.checkpoints] == ["step-000010"]
    assert history.best == "step-000010"
    assert history.metrics == {"reward/total": 0.1, "validation/accuracy": 0.5}


def test_going_on_from_the_start_leaves_no_checkpoint_and_no_best() -> None:
    history = fold(checkpoint(10, None, best=True), ("resumed", 0, {"from_step": 0}))
    assert history.checkpoints == []
    assert history.best is None


def test_kind_of_a_newer_version_is_skipped() -> None:
    history = fold(("hologram", 1, {"depth": 3}), step(1, 0.5))
    assert history.last_seq == 2
    assert history.step == 1


def test_second_worker_starts_over_in_state_and_not_in_history() -> None:
    history = fold(step(1, 0.5), ("state", 1, {"state": "failed", "detail": "out of memory"}))
    assert (history.state, history.detail) == ("failed", "out of memory")
    history.apply([Event(3, 2, 200.0, "worker", 0, {"pid": 8})])
    assert (history.state, history.detail, history.attempt) == ("starting", "", 2)
    assert history.step == 1


@pytest.mark.parametrize("kind", ["state", "checkpoint", "resumed", "command", "notice"])
def test_every_kind_in_words_adds_one_line_to_the_log(kind: str) -> None:
    payloads: dict[str, Any] = {
        "state": {"state": "paused"},
        "checkpoint": {"name": "step-000001"},
        "resumed": {"from_step": 0},
        "command": {"id": "a", "verb": "pause", "ok": False, "message": "no"},
        "notice": {"level": "warning", "text": "hot"},
    }
    assert len(fold((kind, 0, payloads[kind])).log) == 1


EVENTS = st.lists(
    st.one_of(
        st.builds(step, st.integers(1, 50), st.floats(-1, 1)),
        st.builds(checkpoint, st.integers(1, 50), st.none() | st.floats(-1, 1)),
        st.builds(lambda n: ("resumed", 0, {"from_step": n}), st.integers(0, 50)),
        st.builds(lambda s: ("state", 0, {"state": s}), st.sampled_from(["training", "paused"])),
        st.just(("validation", 5, {"metrics": {"accuracy": 0.5}})),
        st.just(("unknown", 5, {})),
    ),
    max_size=30,
)


@settings(deadline=None)
@given(EVENTS, st.integers(0, 30))
def test_events_in_pieces_give_the_same_history_as_at_once(
    rows: list[tuple[str, int, dict[str, Any]]], cut: int
) -> None:
    events = [
        Event(seq, 1, float(seq), kind, number, payload)
        for seq, (kind, number, payload) in enumerate(rows, start=1)
    ]
    at_once, in_pieces = History(), History()
    at_once.apply(events)
    in_pieces.apply(events[:cut])
    in_pieces.apply(events[cut:])
    assert at_once == in_pieces


def test_window_that_watched_a_resume_shows_what_a_fresh_one_shows(tmp_path: Path) -> None:
    path = tmp_path / "events.db"
    store = EventStore(path)
    store.event("worker", {"pid": 1, "max_steps": 9})
    for number in (1, 2, 3):
        kind, _, payload = step(number, number / 10, epoch=number / 9)
        store.event(kind, payload, step=number)
        store.event("notice", {"text": f"after {number}"})
        if number == 2:
            store.event("checkpoint", {"name": "step-000002", "best": True})
    store.flush()
    reader = StoreReader(path)
    watched = History()
    watched.apply(reader.events())
    store.close()

    store = EventStore(path)
    store.event("worker", {"pid": 2})
    store.supersede_after(2)
    store.event("resumed", {"from_step": 2})
    store.event("step", step(3, 0.9, epoch=3 / 9)[2], step=3)
    store.flush()
    watched.apply(reader.events(watched.last_seq))
    fresh = History()
    fresh.apply(reader.events())
    reader.close()
    store.close()
    assert watched == fresh
    assert fresh.series["reward/total"].values == [0.1, 0.2, 0.9]


def test_a_validation_is_one_line_of_the_log_with_its_interval() -> None:
    metrics = {"accuracy": 0.5625, "accuracy/low": 0.393, "accuracy/high": 0.718, "accuracy/n": 32}
    history = fold(
        ("state", 0, {"state": "training"}),
        ("state", 10, {"state": "evaluating"}),
        ("validation", 10, {"metrics": metrics}),
        ("state", 10, {"state": "training"}),
        ("state", 10, {"state": "paused"}),
        ("state", 10, {"state": "training"}),
    )
    assert [line.text for line in history.log] == [
        "training",
        "validated: 56 % right [39, 72] n=32",
        "paused",
        "training",
    ]
    assert history.state == "training"

"""The fold of events: hand-made logs against pictures worked out by hand."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.runs.history import Alarm, History
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


def alarm(number: int, name: str, *, on: bool) -> tuple[str, int, dict[str, Any]]:
    payload = {
        "name": name,
        "on": on,
        "title": f"{name} 0.01",
        "explanation": "too low",
        "advice": "stop",
        "value": 0.01,
        "threshold": 0.05,
    }
    return "alarm", number, payload


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


def test_alarms_are_those_that_are_on_in_the_order_in_which_they_came() -> None:
    history = fold(
        alarm(3, "entropy", on=True),
        alarm(4, "kl", on=True),
        alarm(5, "truncation", on=True),
        alarm(7, "entropy", on=False),
    )
    assert list(history.alarms) == ["kl", "truncation"]
    assert history.alarms["kl"] == Alarm("kl", "kl 0.01", "too low", "stop", 4, 0.01, 0.05)


def test_power_is_the_newest_of_steps_and_validations() -> None:
    assert fold(step(1, 0.1)).power is None
    history = fold(step(1, 0.1, power=300), ("validation", 1, {"metrics": {}, "power": 4000}))
    assert history.power == 4000


def test_super_saiyan_steps_and_the_promotion_are_kept() -> None:
    history = fold(
        ("promotion", 0, {"parent": "20261120-101500-stage1", "forced": False}),
        ("super_saiyan", 40, {"power": 9001, "step": 40, "suggestion": "step-000040"}),
    )
    assert history.super_saiyan == [40]
    assert history.promotion == {"parent": "20261120-101500-stage1", "forced": False}
    assert "step-000040 is the one to promote" in history.log[-1].text


def test_going_on_takes_indicators_alarms_and_clocks_back_to_that_step() -> None:
    lights = [{"name": "reward", "on": False, "streak": n} for n in range(4)]
    history = fold(
        ("promotion", 0, {"parent": "p"}),
        step(1, 0.1, power=100, milestones=lights[:1], epoch=0.1, eta_seconds=9.0),
        alarm(1, "kl", on=True),
        step(2, 0.2, power=200, milestones=lights[1:2], epoch=0.2, eta_seconds=8.0),
        alarm(2, "entropy", on=True),
        ("validation", 2, {"metrics": {}, "power": 250, "milestones": lights[2:3]}),
        checkpoint(2, 0.3),
        step(3, 0.3, power=9001, milestones=lights[3:], epoch=0.3, eta_seconds=7.0),
        alarm(3, "kl", on=False),
        alarm(3, "truncation", on=True),
        ("super_saiyan", 3, {"step": 3}),
        ("resumed", 0, {"from_step": 2}),
    )
    assert (history.power, history.milestones) == (250, lights[2:3])
    assert (history.epoch, history.eta_seconds) == (0.2, 8.0)
    assert list(history.alarms) == ["kl", "entropy"]
    assert history.super_saiyan == []
    assert history.promotion == {"parent": "p"}


def test_memory_of_earlier_steps_ends_with_the_checkpoints_that_need_it() -> None:
    rows = []
    for number in range(1, 101):
        rows.append(step(number, 0.1, power=number))
        if number % 10 == 0:
            removed = [f"step-{number - 20:06d}"] if number > 20 else []
            rows.append(checkpoint(number, 0.1, removed=removed))
    history = fold(*rows, step(101, 0.1, power=101), ("resumed", 0, {"from_step": 90}))
    assert history.power == 90
    assert len(fold(*rows)._marks) == 2


@pytest.mark.parametrize(
    "kind",
    [
        "state",
        "checkpoint",
        "resumed",
        "command",
        "memory",
        "notice",
        "alarm",
        "super_saiyan",
        "promotion",
    ],
)
def test_every_kind_in_words_adds_one_line_to_the_log(kind: str) -> None:
    payloads: dict[str, Any] = {
        "state": {"state": "paused"},
        "checkpoint": {"name": "step-000001"},
        "resumed": {"from_step": 0},
        "command": {"id": "a", "verb": "pause", "ok": False, "message": "no"},
        "memory": {"phase": "train", "unit": "tokens", "old": 512, "new": 256},
        "notice": {"level": "warning", "text": "hot"},
        "alarm": alarm(0, "kl", on=True)[2],
        "super_saiyan": {"suggestion": None},
        "promotion": {"parent": None},
    }
    assert len(fold((kind, 0, payloads[kind])).log) == 1


EVENTS = st.lists(
    st.one_of(
        st.builds(step, st.integers(1, 50), st.floats(-1, 1)),
        st.builds(checkpoint, st.integers(1, 50), st.none() | st.floats(-1, 1)),
        st.builds(lambda n: ("resumed", 0, {"from_step": n}), st.integers(0, 50)),
        st.builds(lambda s: ("state", 0, {"state": s}), st.sampled_from(["training", "paused"])),
        st.builds(
            lambda n, name, on: alarm(n, name, on=on),
            st.integers(1, 50),
            st.sampled_from("ab"),
            st.booleans(),
        ),
        st.builds(lambda n: ("super_saiyan", n, {"step": n}), st.integers(1, 50)),
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
        store.event(kind, payload | {"power": 100 * number}, step=number)
        store.event("alarm", alarm(number, "kl", on=number % 2 == 1)[2])
        store.event("super_saiyan", {"step": number})
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
    assert (fresh.alarms, fresh.super_saiyan, fresh.power) == ({}, [1, 2], 200)
    assert fresh.series["reward/total"].values == [0.1, 0.2, 0.9]


def test_window_that_watched_a_run_begin_anew_shows_what_a_fresh_one_shows(tmp_path: Path) -> None:
    path = tmp_path / "events.db"
    store = EventStore(path)
    store.event("worker", {"pid": 1, "max_steps": 9})
    warm_up = {"task": "warm-up", "done": 1, "total": 1, "metrics": {"loss": 1.0}}
    store.event("progress", warm_up)
    store.event("notice", {"text": "warmed up"})
    store.event("validation", {"metrics": {"accuracy": 0.5}, "power": 100})
    store.event("alarm", alarm(0, "kl", on=True)[2])
    store.event("checkpoint", {"name": "step-000000", "best": True})
    store.event("step", step(1, 0.1, power=200)[2], step=1)
    store.event("notice", {"text": "after 1"})
    store.flush()
    reader = StoreReader(path)
    watched = History()
    watched.apply(reader.events())
    store.close()

    store = EventStore(path)
    store.event("worker", {"pid": 2})
    store.begin_anew()
    store.event("validation", {"metrics": {"accuracy": 0.25}}, step=0)
    store.flush()
    watched.apply(reader.events(watched.last_seq))
    fresh = History()
    fresh.apply(reader.events())
    reader.close()
    store.close()
    assert watched == fresh
    assert (fresh.step, fresh.checkpoints, fresh.best, fresh.alarms) == (0, [], None, {})
    assert fresh.series["validation/accuracy"].values == [0.25]
    assert fresh.series["warmup/loss"].values == [1.0]
    assert [line.text for line in fresh.log] == [
        "warmed up",
        "begins anew: no checkpoint is left",
        "validated",
    ]


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

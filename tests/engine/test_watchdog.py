"""A loop that hangs is found in time; one that works, waits or was stopped is not."""

import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from engine import worker
from engine.config import build
from engine.runs.directory import RunDirectory
from engine.runs.history import History
from engine.runs.notify import describe
from engine.runs.reader import Event
from engine.runs.store import EventStore
from engine.training.control import StopRequestedError
from engine.training.heartbeat import Heartbeat
from engine.training.watchdog import STACKS, Watchdog, deadline


class Clock:
    """Seconds that pass when told so."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


class Watched:
    """A heartbeat and a watchdog on one clock; ``pass_time`` looks as the thread would."""

    def __init__(self, folder: Path, least: float = 10.0, restart: Any = None) -> None:
        self.clock = Clock()
        self.heart = Heartbeat(self.clock)
        self.told: list[dict[str, Any]] = []
        self.dog = Watchdog(
            self.heart,
            folder,
            self.told.append,
            least=least,
            restart=restart,
            clock=self.clock,
        )

    def pass_time(self, seconds: float, every: float = 1.0, beats: bool = False) -> None:
        for _ in range(round(seconds / every)):
            self.clock.now += every
            if beats:
                self.heart.still_here()
            self.dog.look()

    def pass_phase(self, name: str, seconds: float) -> None:
        self.heart.enter(name)
        self.pass_time(seconds)


@pytest.fixture
def watched(tmp_path: Path) -> Watched:
    return Watched(tmp_path)


def test_the_deadline_is_five_times_the_usual_and_no_less_than_the_least() -> None:
    assert deadline(120, None) == 600
    assert deadline(120, 1.0) == 120
    assert deadline(120, 30.0) == 150


def test_silence_beyond_the_deadline_is_told_once_with_stacks_and_its_end_too(
    watched: Watched, tmp_path: Path
) -> None:
    watched.pass_phase("rollout", 2)
    watched.pass_phase("train", 2)
    watched.pass_phase("rollout", 9)
    assert watched.told == []
    watched.pass_time(30)
    (hang,) = watched.told
    assert (hang["on"], hang["phase"], hang["action"]) == (True, "rollout", "notify")
    assert 10 < hang["value"] <= 12  # the deadline, and a look
    stacks = (tmp_path / STACKS).read_text()
    assert "rollout, 11.0 s without a sign of work" in stacks
    assert "test_watchdog.py" in stacks
    watched.heart.beat()
    watched.pass_time(1)
    assert [event["on"] for event in watched.told] == [True, False]


def test_a_phase_that_is_slow_as_a_rule_has_a_deadline_of_its_own(watched: Watched) -> None:
    watched.pass_phase("validation", 4)
    watched.pass_phase("train", 1)
    watched.pass_phase("validation", 19)  # 5 x 4
    assert watched.told == []
    watched.pass_time(3)
    assert len(watched.told) == 1


def test_beats_inside_of_a_long_phase_are_signs_of_work(watched: Watched) -> None:
    watched.pass_phase("rollout", 1)
    watched.heart.enter("rollout")
    watched.pass_time(500, beats=True)
    assert watched.told == []


def test_nothing_hangs_where_nothing_is_under_way(watched: Watched) -> None:
    watched.pass_phase("train", 1)
    watched.heart.enter(None)
    watched.pass_time(10_000, every=100)
    assert watched.told == []


def test_a_process_that_was_stopped_did_not_hang(watched: Watched) -> None:
    watched.pass_phase("train", 1)
    watched.heart.enter("train")
    watched.pass_time(3)
    watched.pass_time(3600, every=3600)
    watched.pass_time(5)
    assert watched.told == []
    watched.pass_time(10)
    assert len(watched.told) == 1


def test_a_restart_follows_the_event(tmp_path: Path) -> None:
    order: list[str] = []
    watched = Watched(tmp_path, restart=lambda: order.append("restarted"))
    watched.pass_phase("train", 1)
    watched.pass_phase("train", 12)
    assert order == ["restarted"]
    assert watched.told[0]["action"] == "restart"


def test_a_beat_ends_the_work_of_a_worker_that_was_told_to_end() -> None:
    heart = Heartbeat()
    heart.beat()
    heart.interrupt("the worker was told to end")
    heart.still_here()
    with pytest.raises(StopRequestedError, match="told to end"):
        heart.beat()


def test_the_thread_looks_by_itself_until_it_is_left(tmp_path: Path) -> None:
    heart, told = Heartbeat(), threading.Event()
    heart.enter("train")
    heart.enter("train")  # passed once: the deadline is the least
    with Watchdog(heart, tmp_path, lambda payload: told.set(), least=0.05):
        assert told.wait(60)
    assert "train" in (tmp_path / STACKS).read_text()


def _event(seq: int, kind: str, payload: dict[str, Any]) -> Event:
    return Event(seq, 1, 0.0, kind, 3, payload)


def test_a_hang_is_an_alarm_a_line_and_a_notification_until_it_is_over(watched: Watched) -> None:
    watched.pass_phase("train", 1)
    watched.pass_phase("train", 12)
    watched.heart.beat()
    watched.pass_time(1)
    on, off = watched.told
    history = History()
    history.apply([_event(1, "worker", {"pid": 1}), _event(2, "hang", on)])
    assert list(history.alarms) == ["hang"]
    assert history.log[-1].level == "error"
    assert history.log[-1].text == f"hang: no sign of work for 11 s (train); see {STACKS}"
    told = describe("hang", on)
    assert told is not None
    assert told["event"] == "hang"
    assert describe("hang", off) is None
    history.apply([_event(3, "hang", off)])
    assert history.alarms == {}
    assert history.log[-1].text == "works again: train"


def test_another_worker_does_not_inherit_the_hang(watched: Watched) -> None:
    watched.pass_phase("train", 1)
    watched.pass_phase("train", 12)
    history = History()
    history.apply([_event(1, "hang", watched.told[0]), _event(2, "worker", {"pid": 2})])
    assert history.alarms == {}


def test_a_worker_begins_anew_as_the_same_process_at_most_three_times(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = build({"schedule": {"on_hang": "restart"}}, where="test")
    run, store = RunDirectory(tmp_path), EventStore(tmp_path / "events.db")
    started: list[Any] = []
    monkeypatch.setattr(worker.os, "execve", lambda *call: started.append(call))
    monkeypatch.delenv(worker._RESTARTS, raising=False)
    restarts = []
    for number in range(4):
        if number:
            monkeypatch.setenv(worker._RESTARTS, str(number))
        restart = worker._watchdog(run, config, store, Heartbeat())._restart
        restarts.append(restart is not None)
        if restart is not None:
            restart()
    monkeypatch.delenv(worker._RESTARTS)
    ending = Heartbeat()
    ending.interrupt("the worker was told to end")
    restart = worker._watchdog(run, config, store, ending)._restart
    assert restart is not None
    restart()
    store.close()
    assert restarts == [True, True, True, False]
    assert [call[2][worker._RESTARTS] for call in started] == ["1", "2", "3"]
    assert started[0][0] == sys.executable
    assert started[0][1] == sys.orig_argv
    plain = build({}, where="test")
    assert worker._watchdog(run, plain, store, Heartbeat())._restart is None

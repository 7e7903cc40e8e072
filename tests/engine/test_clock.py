"""A machine clock that jumps changes neither order, nor durations, nor who is alive."""

import json
import time
from pathlib import Path
from typing import Any

import psutil
import pytest

from engine.runs.directory import RunDirectory
from engine.runs.history import History
from engine.runs.reader import Event, StoreReader
from engine.runs.store import EventStore
from stonk_tui.commands.output import duration
from stonk_tui.headless import Lines
from stonk_tui.widgets import figures

HOUR = 3600.0


def test_events_stay_in_their_order_when_the_clock_goes_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = time.time()
    store = EventStore(tmp_path / "events.db")
    for number, jump in enumerate((0.0, -HOUR, HOUR, -24 * HOUR)):
        monkeypatch.setattr(time, "time", lambda jump=jump: now + jump)
        store.event("step", {"metrics": {}, "seconds": {}}, step=number + 1)
    store.close()
    reader = StoreReader(tmp_path / "events.db")
    events = reader.events()
    reader.close()
    assert [event.step for event in events] == [1, 2, 3, 4]
    history = History()
    history.apply(events)
    assert history.step == 4


def test_no_duration_is_negative() -> None:
    assert duration(-HOUR) == "0s"
    assert "-" not in figures.duration(-HOUR)


def test_progress_is_still_told_after_the_clock_went_back() -> None:
    lines, history = Lines(), History()

    def told(seq: int, moment: float) -> str | None:
        payload: dict[str, Any] = {"task": "warm-up", "done": seq, "total": 100}
        event = Event(seq, 1, moment, "progress", 0, payload)
        history.apply([event])
        return lines.of(event, history)

    assert told(1, 10 * HOUR)
    assert not told(2, 10 * HOUR + 1)
    assert told(3, 9 * HOUR)
    assert not told(4, 9 * HOUR + 1)


def test_a_worker_lives_on_when_the_clock_is_set(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = RunDirectory(tmp_path)
    run.record_worker()
    created = psutil.Process.create_time
    # The system computes it from the time of its boot, which is moved with the clock.
    monkeypatch.setattr(psutil.Process, "create_time", lambda process: created(process) + HOUR)
    assert run.worker() is not None


def test_a_process_id_that_was_given_away_again_is_not_the_worker(tmp_path: Path) -> None:
    run = RunDirectory(tmp_path)
    run.record_worker()
    record = tmp_path / "worker.json"
    known = json.loads(record.read_text())
    record.write_text(json.dumps(known | {"started": f"{known['started']}0"}))
    assert run.worker() is None

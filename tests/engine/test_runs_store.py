"""The event store: what was acknowledged is there, whatever happens to the writer."""

import signal
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from engine.runs import store as store_module
from engine.runs.reader import StoreReader
from engine.runs.store import EventStore, RolloutRecord
from engine.task import ComponentScore
from tests.waiting import wait_for

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "events.db"


@pytest.fixture
def store(path: Path) -> Iterator[EventStore]:
    store = EventStore(path)
    yield store
    store.close()


def record(group: int = 0, sample: int = 0, **changes: Any) -> RolloutRecord:
    values: dict[str, Any] = {
        "group": group,
        "sample": sample,
        "prompt": f"prompt {group}",
        "subject": {"ticker": "AAPL"},
        "completion": f"completion {sample}",
        "tokens": 5,
        "finished": True,
        "reward": 0.5,
        "advantage": -0.25,
        "prediction": {"direction": "UP"},
        "components": (ComponentScore("format", 1.0, 0.2, "all there"),),
        "cited": ((0, 3),),
    }
    return RolloutRecord(**(values | changes))


def read(path: Path) -> StoreReader:
    return StoreReader(path)


def test_events_come_back_in_order_with_attempt_step_and_payload(
    store: EventStore, path: Path
) -> None:
    store.event("state", {"state": "starting", "detail": "größer ✓"})
    store.event("step", {"metrics": {"kl": 0.5}}, step=3)
    store.event("notice", {"text": "later"})
    store.flush()
    reader = read(path)
    events = reader.events()
    assert [(event.kind, event.step, event.attempt) for event in events] == [
        ("state", 0, 1),
        ("step", 3, 1),
        ("notice", 3, 1),
    ]
    assert events[0].payload["detail"] == "größer ✓"
    assert reader.events(after=events[1].seq) == events[2:]
    assert reader.events(limit=1) == events[:1]
    reader.close()


def test_every_worker_is_an_attempt_of_its_own(path: Path) -> None:
    for attempt in (1, 2, 3):
        store = EventStore(path)
        assert store.attempt == attempt
        store.event("notice", {"text": "here"})
        store.close()


@pytest.mark.parametrize("number", [float("nan"), float("inf"), float("-inf")])
def test_numbers_that_json_does_not_have_become_null(
    number: float, store: EventStore, path: Path
) -> None:
    store.event("step", {"metrics": {"kl": number, "loss": 1.0, "list": [number, 2.0]}})
    store.flush()
    reader = read(path)
    assert reader.events()[0].payload["metrics"] == {"kl": None, "loss": 1.0, "list": [None, 2.0]}
    reader.close()


def test_text_that_has_no_encoding_is_spelt_out(store: EventStore, path: Path) -> None:
    broken = "a\ud800b"
    store.event("notice", {"text": broken})
    store.rollouts(1, [record(prompt=broken, completion=broken, prediction={"raw": broken})])
    store.flush()
    reader = read(path)
    assert reader.events()[0].payload["text"] == "a<U+D800>b"
    (rollout,) = reader.newest_rollouts()
    assert rollout.prompt == rollout.completion == rollout.prediction["raw"] == "a<U+D800>b"
    reader.close()


def test_hostile_text_is_stored_as_it_is(store: EventStore, path: Path) -> None:
    hostile = "[/INST]\x1b]52;c;aGk=\x07\u202e'); DROP TABLE events; --\x00"
    store.rollouts(1, [record(completion=hostile)])
    store.flush()
    reader = read(path)
    assert reader.newest_rollouts()[0].completion == hostile
    reader.close()


def test_prompt_of_a_group_is_stored_once(store: EventStore, path: Path) -> None:
    store.rollouts(1, [record(group, sample) for group in (0, 1) for sample in range(4)])
    store.flush()
    with sqlite3.connect(path) as database:
        assert database.execute("SELECT count(*) FROM prompts").fetchone() == (2,)
    database.close()
    reader = read(path)
    assert [rollout.sample for rollout in reader.group(1, 1)] == [0, 1, 2, 3]
    assert reader.group(1, 1)[0].prompt == "prompt 1"
    reader.close()


def test_replayed_steps_are_hidden_and_not_deleted(store: EventStore, path: Path) -> None:
    for step in (1, 2, 3):
        store.event("step", {"metrics": {}}, step=step)
        store.rollouts(step, [record()])
    store.supersede_after(1)
    store.flush()
    reader = read(path)
    assert [event.step for event in reader.events()] == [1]
    assert [rollout.step for rollout in reader.newest_rollouts()] == [1]
    reader.close()
    with sqlite3.connect(path) as database:
        assert database.execute("SELECT count(*) FROM events").fetchone() == (3,)
    database.close()


def test_command_is_known_once_and_open_until_it_is_answered(store: EventStore, path: Path) -> None:
    assert store.command("a", "pause", {})
    assert not store.command("a", "pause", {})
    assert store.command("b", "stop", {})
    assert store.unanswered_commands() == [("a", "pause", False), ("b", "stop", False)]
    store.answer("a", "pause", ok=True, message="paused")
    store.flush()
    assert store.unanswered_commands() == [("b", "stop", False)]
    reader = read(path)
    (event,) = reader.events()
    assert event.payload == {"id": "a", "verb": "pause", "ok": True, "message": "paused"}
    reader.close()


def test_command_counts_as_done_where_an_event_tells_what_it_did(store: EventStore) -> None:
    for identifier, verb in (("a", "set"), ("b", "set"), ("c", "probe"), ("d", "set")):
        store.command(identifier, verb, {})
    store.event("settings", {"changes": [], "by": "user", "command": "a"}, step=3)
    store.event("probe", {"id": "c", "answers": []})
    store.event("settings", {"changes": [], "by": "user", "command": "d"}, step=5)
    store.supersede_after(4)
    assert store.unanswered_commands() == [
        ("a", "set", True),
        ("b", "set", False),
        ("c", "probe", True),
        ("d", "set", False),
    ]


def test_no_reader_sees_a_command_as_answered_before_its_answer(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A worker may be killed after any commit."""
    states = []

    def look(statement: str) -> None:
        if statement.startswith(("BEGIN", "COMMIT")):
            reader = read(path)
            ((answered,),) = reader.rows("SELECT count(*) FROM commands WHERE answered = 1")
            states.append((answered, len(reader.events_of("command"))))
            reader.close()

    opened = store_module._open

    def watched(path: Path) -> sqlite3.Connection:
        connection = opened(path)
        connection.set_trace_callback(look)
        return connection

    monkeypatch.setattr(store_module, "_open", watched)
    monkeypatch.setattr(store_module, "_BATCH_ROWS", 1)
    store = EventStore(path)
    store.command("a", "pause", {})
    store.answer("a", "pause", ok=True, message="paused")
    store.flush()
    store.event("notice", {})
    store.close()
    assert set(states) == {(0, 0), (1, 1)}


def test_answer_that_has_no_encoding_is_spelt_out(store: EventStore, path: Path) -> None:
    store.command("a", "probe", {})
    store.answer("a", "probe", ok=False, message="no ticker \ud800")
    store.flush()
    reader = read(path)
    assert reader.events()[0].payload["message"] == "no ticker <U+D800>"
    assert reader.rows("SELECT answer FROM commands") == [("no ticker <U+D800>",)]
    reader.close()


def test_worker_without_a_checkpoint_makes_void_what_was_trained_and_nothing_else(
    path: Path,
) -> None:
    store = EventStore(path)
    store.begin_anew()
    for kind in ("promotion", "worker", "state", "validation", "alarm", "checkpoint", "command"):
        store.event(kind, {})
    store.event("step", {"metrics": {}}, step=1)
    store.rollouts(1, [record()])
    store.event("probe", {})
    store.event("notice", {})
    store.close()
    store = EventStore(path)
    store.event("worker", {})
    store.begin_anew()
    store.begin_anew()
    store.event("validation", {}, step=0)
    store.rollouts(1, [record()])
    store.close()
    reader = read(path)
    kept = [(event.attempt, event.kind) for event in reader.events()]
    rollouts = [rollout.attempt for rollout in reader.newest_rollouts()]
    reader.close()
    assert kept == [
        *((1, kind) for kind in ("promotion", "worker", "state", "command", "probe")),
        *((2, kind) for kind in ("worker", "resumed", "validation")),
    ]
    assert rollouts == [2]


def test_full_queue_makes_who_writes_wait_and_drops_nothing(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store_module, "_QUEUE_ROWS", 4)
    store = EventStore(path)
    disk_is_slow, is_writing = threading.Event(), threading.Event()

    def hold(db: sqlite3.Connection) -> None:
        is_writing.set()
        disk_is_slow.wait(30)

    def write() -> None:
        for number in range(20):
            store.event("notice", {"number": number})

    store._put(hold, durable=True)
    assert is_writing.wait(30)
    training = threading.Thread(target=write)
    training.start()
    wait_for(store._work.full)
    training.join(0.1)
    assert training.is_alive()
    disk_is_slow.set()
    training.join(30)
    store.close()
    reader = read(path)
    assert [event.payload["number"] for event in reader.events()] == list(range(20))
    reader.close()


WRITER = """
import sys
from pathlib import Path
from engine.runs.store import EventStore
store = EventStore(Path(sys.argv[1]))
number = 0
while True:
    for _ in range(3):
        number += 1
        store.event("notice", {"number": number})
    store.flush()
    print(number, flush=True)
"""


def test_every_acknowledged_event_survives_kill_9(path: Path) -> None:
    writer = subprocess.Popen(
        [sys.executable, "-c", WRITER, str(path)], stdout=subprocess.PIPE, text=True, cwd=ROOT
    )
    assert writer.stdout is not None
    with writer.stdout:
        for _ in range(20):
            acknowledged = int(writer.stdout.readline())
        writer.send_signal(signal.SIGKILL)
        rest = writer.stdout.read().split()
    assert writer.wait() == -signal.SIGKILL
    acknowledged = int(rest[-1]) if rest else acknowledged
    reader = read(path)
    numbers = [event.payload["number"] for event in reader.events(limit=10**6)]
    reader.close()
    assert numbers[:acknowledged] == list(range(1, acknowledged + 1))


def test_worker_killed_while_creating_the_store_leaves_a_place_for_the_next(path: Path) -> None:
    # What a kill before the schema's transaction leaves: a file without a table.
    path.touch()
    with pytest.raises(FileNotFoundError):
        read(path)
    store = EventStore(path)
    store.event("notice", {"text": "here"})
    store.close()
    reader = read(path)
    assert len(reader.events()) == 1
    reader.close()


def test_store_that_cannot_be_written_ends_the_run_instead_of_losing_rows(path: Path) -> None:
    store = EventStore(path)
    store.rollouts(1, [record(reward=None)])  # NOT NULL: as a full disk would, it fails
    with pytest.raises((RuntimeError, sqlite3.IntegrityError)):
        store.flush()
    with pytest.raises(RuntimeError, match="cannot be written"):
        store.event("notice", {})
    with pytest.raises(RuntimeError, match="cannot be written"):
        store.close()

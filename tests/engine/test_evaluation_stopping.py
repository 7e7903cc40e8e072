"""Breaking an evaluation off: training goes on as it did, a pause stays one."""

import threading
from pathlib import Path

import pytest

from engine.errors import UserError
from engine.evaluation import stopping
from engine.evaluation.hosting import Host
from engine.runs import control
from engine.runs.control import Command, ControlServer
from engine.runs.reader import StoreReader
from engine.runs.store import EventStore
from engine.training.control import Control
from tests import recorded

SECONDS = 20.0


@pytest.fixture(autouse=True)
def sockets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))


@pytest.mark.parametrize("is_paused", [False, True])
def test_training_goes_on_unless_it_was_paused(is_paused: bool) -> None:
    recording = recorded.record(3)
    run = recording.run
    store = EventStore(run.database)
    server = ControlServer(run.socket, store, checks={"evaluate": lambda payload: None})
    loop = Control(server.commands, store)
    is_at_it, is_interrupted = threading.Event(), threading.Event()

    def evaluate(command: Command, host: Host) -> tuple[bool, str]:
        is_at_it.set()
        while not host.is_interrupted():
            is_interrupted.wait(0.01)
        is_interrupted.set()
        return False, "interrupted"

    loop.allow_evaluations(evaluate)
    before = store_states(run.database)
    control.send(run, "evaluate", {})
    because = "somebody said so" if is_paused else None
    training = threading.Thread(
        target=loop.obey, args=("training",), kwargs={"pause_because": because}
    )
    training.start()
    assert is_at_it.wait(SECONDS)
    store.flush()
    stopping.stop(run)
    assert is_interrupted.wait(SECONDS)
    assert verbs(run.database) == ["evaluate", "pause", *([] if is_paused else ["resume"])]
    if is_paused:
        control.send(run, "resume")
    training.join(SECONDS)
    assert not training.is_alive()
    server.close()
    store.close()
    states = store_states(run.database)[len(before) :]
    begins_with = ["paused"] if is_paused else []
    between = [] if is_paused else ["training"]
    assert states == [*begins_with, "evaluating", *between, "paused", "training"]


def store_states(path: Path) -> list[str]:
    """The states of a run, in order."""
    reader = StoreReader(path)
    states = [str(event.payload["state"]) for event in reader.events_of("state")]
    reader.close()
    return states


def verbs(path: Path) -> list[str]:
    """The commands that a run was sent, in order."""
    reader = StoreReader(path)
    sent = [verb for (verb,) in reader.rows("SELECT verb FROM commands ORDER BY rowid")]
    reader.close()
    return sent


def test_worker_that_trains_nothing_is_told_to_end() -> None:
    recording = recorded.record(3, state="finished")
    with pytest.raises(UserError, match="no worker answers"):
        stopping.stop(recording.run)
    store = EventStore(recording.run.database, begins_attempt=False)
    server = ControlServer(recording.run.socket, store, verbs=("stop",))
    stopping.stop(recording.run)
    assert server.commands.get(timeout=SECONDS).verb == "stop"
    server.close()
    store.close()

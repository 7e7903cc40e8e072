"""The control socket: durable before it is acknowledged, applied once, deaf to garbage."""

import json
import os
import select
import socket
import sqlite3
import threading
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from typing import Any

import pytest

from engine.config import RunConfig
from engine.errors import UserError
from engine.runs import control, directory
from engine.runs.control import Command, ControlServer
from engine.runs.directory import RunDirectory
from engine.runs.reader import StoreReader
from engine.runs.store import EventStore
from tests.waiting import wait_for

SECONDS = 10.0


@pytest.fixture
def run() -> RunDirectory:
    return directory.create(RunConfig())


@pytest.fixture
def server(run: RunDirectory) -> Iterator[ControlServer]:
    store = EventStore(run.database)
    server = ControlServer(run.socket, store)
    yield server
    server.close()
    store.close()


@contextmanager
def connection(run: RunDirectory) -> Iterator[socket.socket]:
    client = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    client.settimeout(SECONDS)
    with client:
        client.connect(str(run.socket))
        yield client


def ask(client: socket.socket, frame: bytes) -> dict[str, object]:
    client.sendall(frame + b"\n")
    reply = client.makefile("rb").readline()
    answer: dict[str, object] = json.loads(reply)
    return answer


def stored_commands(run: RunDirectory) -> list[tuple[object, ...]]:
    database = sqlite3.connect(run.database)
    rows = database.execute("SELECT id, verb, answered, ok FROM commands ORDER BY rowid").fetchall()
    database.close()
    return rows


PAYLOADS = {"set": {"changes": {"learning_rate": 5e-5}}}


@pytest.mark.parametrize("verb", control.VERBS)
def test_command_is_on_disk_before_it_is_acknowledged(
    verb: str, run: RunDirectory, server: ControlServer
) -> None:
    payload = PAYLOADS.get(verb, {})
    identifier = control.send(run, verb, payload)
    # Another connection sees committed rows only.
    assert stored_commands(run) == [(identifier, verb, 0, None)]
    command = server.commands.get(timeout=SECONDS)
    assert (command.id, command.verb, command.payload) == (identifier, verb, payload)


def test_repeated_id_is_applied_once(run: RunDirectory, server: ControlServer) -> None:
    frame = b'{"id": "mine", "verb": "pause"}'
    with connection(run) as client:
        assert ask(client, frame) == {"ok": True, "id": "mine", "message": "accepted"}
        assert ask(client, frame) == {"ok": True, "id": "mine", "message": "accepted before"}
    with connection(run) as client:
        assert ask(client, frame)["ok"] is True
    assert server.commands.qsize() == 1


def test_payload_is_checked_before_it_is_accepted_and_comes_with_its_command(
    run: RunDirectory,
) -> None:
    def check(payload: Mapping[str, Any]) -> None:
        if payload.get("size") != 3:
            raise UserError("wrong size", where="probe size")

    store = EventStore(run.database)
    server = ControlServer(run.socket, store, checks={"probe": check})
    with pytest.raises(UserError, match="the worker refused: probe size: wrong size"):
        control.send(run, "probe", {"size": 4})
    with pytest.raises(UserError, match="the worker refused: pause takes no payload"):
        control.send(run, "pause", {"size": 3})
    identifier = control.send(run, "probe", {"size": 3})
    assert stored_commands(run) == [(identifier, "probe", 0, None)]
    assert server.commands.get(timeout=SECONDS) == Command(identifier, "probe", {"size": 3})
    server.close()
    store.close()


def test_server_that_takes_some_verbs_refuses_the_others(run: RunDirectory) -> None:
    store = EventStore(run.database)
    server = ControlServer(run.socket, store, verbs=("probe",))
    with pytest.raises(UserError, match="nothing trains here: this worker takes probe"):
        control.send(run, "stop")
    control.send(run, "probe")
    server.close("too late")
    store.close()
    reader = StoreReader(run.database)
    assert [event.payload["message"] for event in reader.events()] == ["too late"]
    reader.close()


GARBAGE = {
    "no JSON": b"\x00\xff\xfe garbage",
    "empty": b"",
    "a list": b"[1, 2]",
    "deep nesting": b"[" * 20_000,
    "unknown verb": b'{"id": "a", "verb": "format_disk"}',
    "verb that is no text": b'{"id": "a", "verb": ["stop"]}',
    "no id": b'{"verb": "stop"}',
    "id that is no text": b'{"id": 3, "verb": "stop"}',
    "empty id": b'{"id": "", "verb": "stop"}',
    "endless id": b'{"id": "' + b"a" * 65 + b'", "verb": "stop"}',
    "payload that is no object": b'{"id": "a", "verb": "stop", "payload": [1]}',
    "payload that nothing takes": b'{"id": "a", "verb": "stop", "payload": {"now": true}}',
    "set without a payload": b'{"id": "a", "verb": "set"}',
    "set to a text": b'{"id": "a", "verb": "set", "payload": {"changes": {"patience": "no"}}}',
    "set to no number": b'{"id": "a", "verb": "set", "payload": {"changes": {"patience": NaN}}}',
    "set to infinity": b'{"id": "a", "verb": "set", "payload": {"changes": {"patience": 1e999}}}',
    "id that has no encoding": b'{"id": "\\ud800", "verb": "stop"}',
}


@pytest.mark.parametrize("frame", GARBAGE.values(), ids=GARBAGE)
def test_garbage_is_refused_and_the_next_command_works(
    frame: bytes, run: RunDirectory, server: ControlServer
) -> None:
    with connection(run) as client:
        assert ask(client, frame)["ok"] is False
        assert ask(client, b'{"id": "b", "verb": "stop"}')["ok"] is True
    assert server.commands.get(timeout=SECONDS).verb == "stop"
    assert [row[0] for row in stored_commands(run)] == ["b"]


def test_frame_without_end_is_cut_off(run: RunDirectory, server: ControlServer) -> None:
    with connection(run) as client:
        # The server hangs up while we still send, or after.
        try:
            client.sendall(b"x" * (1 << 20))
            answer = client.recv(1)
        except (ConnectionResetError, BrokenPipeError):
            answer = b""
        assert answer == b""
    control.send(run, "stop")
    assert server.commands.get(timeout=SECONDS).verb == "stop"


def test_frame_of_the_greatest_size_is_taken_and_a_larger_one_not(
    run: RunDirectory, server: ControlServer
) -> None:
    start, end = b'{"id": "b", "verb": "stop", "x": "', b'"}'
    room = control.FRAME_BYTES - len(start + end) - 1
    with connection(run) as client:
        assert ask(client, start + b"x" * room + end)["ok"] is True
    with connection(run) as client, suppress(ConnectionResetError, BrokenPipeError):
        client.sendall(start + b"x" * (room + 1) + end + b"\n")
        assert client.recv(1) == b""
    assert server.commands.qsize() == 1


def test_frame_that_comes_byte_by_byte_is_not_waited_for(
    run: RunDirectory, server: ControlServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(control, "TIMEOUT_SECONDS", 0.3)
    with connection(run) as client:

        def is_cut_off() -> bool:
            try:
                client.sendall(b"x")
            except (ConnectionResetError, BrokenPipeError):
                return True
            return False

        wait_for(is_cut_off, seconds=SECONDS)


def test_connections_that_say_nothing_make_way(
    run: RunDirectory, server: ControlServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(control, "TIMEOUT_SECONDS", 0.3)
    with ExitStack() as stack:
        for _ in range(control.MAX_CONNECTIONS + 4):
            stack.enter_context(connection(run))
        wait_for(lambda: threading.active_count() > control.MAX_CONNECTIONS, seconds=SECONDS)
        with connection(run) as client:
            assert ask(client, b'{"id": "b", "verb": "stop"}')["ok"] is True
    names = [thread.name for thread in threading.enumerate()]
    assert names.count("control-client") <= control.MAX_CONNECTIONS


def test_other_users_are_turned_away(
    run: RunDirectory, server: ControlServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(control, "_peer_uid", lambda connection: os.getuid() + 1)
    with pytest.raises(UserError, match="the worker refused: not your run"):
        control.send(run, "stop")
    assert server.commands.empty()


def test_refusal_comes_after_the_command_and_so_is_never_lost(
    run: RunDirectory, server: ControlServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = threading.Event()

    def stranger(connection: socket.socket) -> int:
        asked.set()
        return os.getuid() + 1

    monkeypatch.setattr(control, "_peer_uid", stranger)
    with connection(run) as client:
        assert asked.wait(SECONDS)
        assert select.select([client], [], [], 0.2)[0] == []
        assert ask(client, b'{"id": "a", "verb": "stop"}') == {
            "ok": False,
            "message": "not your run",
        }
        assert client.recv(1) == b""


def test_peer_of_a_connection_is_known_by_its_user() -> None:
    ours, theirs = socket.socketpair(socket.AF_UNIX)
    with ours, theirs:
        assert control._peer_uid(ours) == os.getuid()


def test_socket_is_reachable_for_its_owner_alone(run: RunDirectory, server: ControlServer) -> None:
    assert run.socket.stat().st_mode & 0o077 == 0
    assert run.socket.parent.stat().st_mode & 0o077 == 0


def test_command_that_a_dead_worker_left_is_answered_with_no(run: RunDirectory) -> None:
    store = EventStore(run.database)
    store.command("old", "pause", {})
    store.close()
    store = EventStore(run.database)
    server = ControlServer(run.socket, store)
    assert server.commands.empty()
    server.close()
    store.close()
    reader = StoreReader(run.database)
    (event,) = reader.events()
    reader.close()
    assert (event.payload["id"], event.payload["ok"]) == ("old", False)


def test_command_left_at_the_end_is_answered_with_no(run: RunDirectory) -> None:
    store = EventStore(run.database)
    server = ControlServer(run.socket, store)
    identifier = control.send(run, "checkpoint")
    server.close()
    store.close()
    assert stored_commands(run) == [(identifier, "checkpoint", 1, 0)]
    assert not run.socket.exists()


def test_command_that_was_done_and_not_answered_is_answered_with_yes(run: RunDirectory) -> None:
    store = EventStore(run.database)
    store.command("old", "set", PAYLOADS["set"])
    store.event("settings", {"changes": [], "by": "user", "command": "old"})
    store.close()
    store = EventStore(run.database)
    ControlServer(run.socket, store).close()
    store.close()
    assert stored_commands(run) == [("old", "set", 1, 1)]


def test_no_command_is_accepted_once_those_left_were_answered(
    run: RunDirectory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Or it would be acknowledged, and never answered."""
    store = EventStore(run.database)
    server = ControlServer(run.socket, store)
    answer = store.answer

    def answer_and_be_asked(identifier: str, verb: str, *, ok: bool, message: str) -> None:
        answer(identifier, verb, ok=ok, message=message)
        # Its connection was there before, as one that is being served.
        late.append(server._receive(b'{"id": "late", "verb": "pause"}'))

    late: list[dict[str, object]] = []
    control.send(run, "checkpoint")
    monkeypatch.setattr(store, "answer", answer_and_be_asked)
    server.close()
    store.close()
    assert late == [{"ok": False, "message": "the run has ended"}]
    assert [answered for *_, answered, _ in stored_commands(run)] == [1]


def test_run_without_a_worker_answers_with_one_line(run: RunDirectory) -> None:
    with pytest.raises(UserError, match=f"no worker answers for run {run.id}"):
        control.send(run, "stop")


def test_worker_that_listens_elsewhere_is_not_called_gone(run: RunDirectory) -> None:
    run.record_worker()
    with pytest.raises(UserError, match=r"but one lives; try again .* set XDG_RUNTIME_DIR to"):
        control.send(run, "stop")


def test_worker_that_does_not_answer_is_not_called_gone(run: RunDirectory) -> None:
    run.record_worker()
    silent = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    silent.bind(str(run.socket))
    silent.close()
    with pytest.raises(UserError, match="in time, but one lives; see whether its disk is full"):
        control.send(run, "stop")


def test_socket_that_a_killed_worker_left_does_not_stop_the_next(run: RunDirectory) -> None:
    left = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    left.bind(str(run.socket))
    left.close()
    with pytest.raises(UserError):
        control.send(run, "stop")
    store = EventStore(run.database)
    server = ControlServer(run.socket, store)
    control.send(run, "stop")
    server.close()
    store.close()

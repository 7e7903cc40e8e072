"""The control socket of a run: newline-delimited JSON over a private unix socket.

A command is durable in the store before it is acknowledged, carries an id of its
sender's choice so that a repeat is not applied twice, and is answered by an event
once the training loop has acted on it, between two steps.
"""

import contextlib
import json
import os
import queue
import re
import socket
import struct
import threading
import time
import uuid
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from engine.errors import UserError
from engine.runs import live_settings
from engine.runs.directory import RunDirectory
from engine.runs.store import EventStore
from engine.text import one_line

VERBS = ("pause", "resume", "checkpoint", "stop", "set", "probe", "evaluate", "interrupt")
_IDENTIFIER = re.compile(r"[A-Za-z0-9._-]{1,64}")
FRAME_BYTES = 64 * 1024
"""Of one frame, with the end of its line."""
TIMEOUT_SECONDS = 5.0
"""For one frame, from its first byte awaited to its last, and for the answer to it."""
MAX_CONNECTIONS = 16
"""Served at once; more have to wait in the queue of the socket."""
_PENALTY_SECONDS = 0.05
"""Waited before a refusal, and a part of it after each connection, so that whoever sends nothing
else, as fast as the system allows, does not take the interpreter from training."""
_QUEUE = 128
"""Connections that wait to be served; one more is turned away at once by the system."""
_NOT_OURS = {"ok": False, "message": "not your run"}
_MAX_DEPTH = 16
"""Of braces and brackets inside one another; a command has six."""


@dataclass(frozen=True)
class Command:
    """A persisted command waiting for the training loop."""

    id: str
    verb: str
    payload: Mapping[str, Any] = field(default_factory=dict)
    """What the verb is about; checked when it was accepted."""


class NobodyListensError(UserError):
    """There is no worker to take a command."""


Check = Callable[[Mapping[str, Any]], object]
"""Looks at a payload before its command is accepted; raises UserError for a bad one."""


class ControlServer:
    """Accept commands of this user and queue them for the training loop."""

    def __init__(
        self,
        path: Path,
        store: EventStore,
        *,
        checks: Mapping[str, Check] | None = None,
        verbs: Sequence[str] = VERBS,
    ) -> None:
        """Listen on ``path``; commands persisted but unanswered by a dead worker are dropped.

        A ``pause`` sent to a worker that died must not stop the next one hours later, so
        what was left over is not carried out any more; the answer says what the log knows of it.

        Args:
            checks: verb → what looks at its payload; but for ``set``, other verbs take none.
            verbs: what is accepted here.
        """
        self._store = store
        self._path = path
        self._checks: Mapping[str, Check] = {"set": _check_set, **(checks or {})}
        self._verbs = verbs
        self.commands: queue.Queue[Command] = queue.Queue()
        self._lock = threading.Lock()
        """Held while a command is accepted, so that none is after the last ones were answered."""
        self._ended = ""
        """Why no command is accepted any more."""
        for identifier, verb, is_done in store.unanswered_commands():
            message = "done" if is_done else "the worker ended before it answered"
            store.answer(identifier, verb, ok=is_done, message=message)
        with contextlib.suppress(FileNotFoundError):
            path.unlink()
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        previous = os.umask(0o077)
        try:
            self._socket.bind(str(path))
        finally:
            os.umask(previous)
        self._socket.listen(_QUEUE)
        self._free = threading.BoundedSemaphore(MAX_CONNECTIONS)
        threading.Thread(target=self._accept, name="control-socket", daemon=True).start()

    def close(self, because: str = "the run has ended") -> None:
        """Stop listening and answer what nobody acted on."""
        # Closing alone would leave accept() waiting on Linux.
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()
        with contextlib.suppress(FileNotFoundError):
            self._path.unlink()
        with self._lock:
            self._ended = because
        while not self.commands.empty():
            left = self.commands.get_nowait()
            self._store.answer(left.id, left.verb, ok=False, message=because)

    def _accept(self) -> None:
        while True:
            # Every connection ends within some seconds unless it says something, so there will
            # be a free place.
            self._free.acquire()
            try:
                connection, _ = self._socket.accept()
            except ConnectionAbortedError:
                self._free.release()
                continue
            except OSError:
                # Closed by close(): the only way this thread ends.
                return
            threading.Thread(
                target=self._serve, args=(connection,), name="control-client", daemon=True
            ).start()
            time.sleep(_PENALTY_SECONDS / MAX_CONNECTIONS)

    def _serve(self, connection: socket.socket) -> None:
        try:
            with connection, contextlib.suppress(OSError):
                is_ours = _peer_uid(connection) in (os.getuid(), 0)
                for frame in _frames(connection):
                    # A refusal sent before the frame is read would be lost: closing a unix
                    # socket that holds unread bytes resets it, and the sender sees only that.
                    reply = self._receive(frame) if is_ours else dict(_NOT_OURS)
                    if not reply["ok"]:
                        time.sleep(_PENALTY_SECONDS)
                    _send(connection, reply)
                    if not is_ours:
                        return
        finally:
            self._free.release()

    def _receive(self, frame: bytes) -> dict[str, object]:
        try:
            request = _parsed(frame)
            identifier, verb = request["id"], request["verb"]
            payload = request.get("payload", {})
            valid = bool(_IDENTIFIER.fullmatch(identifier)) and verb in VERBS
            valid = valid and isinstance(payload, dict)
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
            valid = False
        if not valid:
            return {"ok": False, "message": f"expected an id and a verb of {', '.join(VERBS)}"}
        if problem := self._problem(verb, payload):
            return {"ok": False, "message": problem}
        with self._lock:
            if self._ended:
                return {"ok": False, "message": self._ended}
            if self._store.command(identifier, verb, payload):
                self.commands.put(Command(identifier, verb, payload))
                return {"ok": True, "id": identifier, "message": "accepted"}
        return {"ok": True, "id": identifier, "message": "accepted before"}

    def _problem(self, verb: str, payload: Mapping[str, Any]) -> str:
        """Why the command is not accepted; empty where it is."""
        if verb not in self._verbs:
            return f"nothing trains here: this worker takes {', '.join(self._verbs)}"
        check = self._checks.get(verb)
        if check is None:
            return f"{verb} takes no payload" if payload else ""
        try:
            check(payload)
        except UserError as error:
            return str(error)
        return ""


def take(commands: "queue.Queue[Command]", verb: str) -> Command | None:
    """The first waiting command of this verb, out of turn."""
    with commands.mutex:
        waiting: deque[Command] = commands.queue
        taken = next((command for command in waiting if command.verb == verb), None)
        if taken is not None:
            waiting.remove(taken)
    return taken


def is_waiting(commands: "queue.Queue[Command]", *verbs: str) -> bool:
    """Whether a command of one of these verbs waits."""
    with commands.mutex:
        return any(command.verb in verbs for command in commands.queue)


def send(run: RunDirectory, verb: str, payload: Mapping[str, Any] | None = None) -> str:
    """Send one command; returns its id once the worker has it on disk.

    Args:
        run: whose worker is meant.
        verb: one of ``VERBS``.
        payload: what the verb needs to know.

    Raises:
        NobodyListensError: no worker listens.
        UserError: it refused.
    """
    identifier = uuid.uuid4().hex
    client = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    client.settimeout(TIMEOUT_SECONDS)
    try:
        with client:
            client.connect(str(run.socket))
            _send(client, {"id": identifier, "verb": verb, "payload": dict(payload or {})})
            reply = dict(json.loads(next(_frames(client), b"")))
    except (OSError, ValueError, TypeError) as error:
        raise _nobody(run) from error
    if not reply.get("ok"):
        raise UserError(f"the worker refused: {one_line(str(reply.get('message')))}")
    return identifier


def _nobody(run: RunDirectory) -> NobodyListensError:
    what = f"no worker answers for run {run.id}"
    if run.worker() is not None and run.socket.exists():
        # It acknowledges nothing that it cannot write down.
        return NobodyListensError(
            f"{what} in time, but one lives",
            fix="see whether its disk is full (`df -h`), or try again in a moment",
        )
    if run.worker() is not None:
        return NobodyListensError(
            f"{what} at {run.socket}, but one lives",
            fix="try again in a moment, or set XDG_RUNTIME_DIR to what it was at the run's start",
        )
    return NobodyListensError(what, fix=f"`stonk-tui status {run.id}` tells its state")


def _check_set(payload: Mapping[str, Any]) -> None:
    """The shape alone: whether the values make sense is for the training loop to say."""
    if problem := live_settings.shape_problem(payload):
        raise UserError(f"set: {problem}")


def _peer_uid(connection: socket.socket) -> int:
    size = struct.calcsize("3i")
    credentials = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, size)
    return int(struct.unpack("3i", credentials)[1])


def _send(connection: socket.socket, message: dict[str, object]) -> None:
    connection.sendall(json.dumps(message).encode() + b"\n")


def _parsed(frame: bytes) -> Any:
    """The JSON in ``frame``.

    Raises:
        ValueError: it is none, or nests so deep that whoever walks through it might not end.
        RecursionError: it nests deeper still.
    """
    value = json.loads(frame)
    level = [value]
    for _ in range(_MAX_DEPTH):
        inside = [item for item in level if isinstance(item, dict | list)]
        level = [part for item in inside for part in _parts(item)]
        if not level:
            return value
    raise ValueError("too many levels")


def _parts(value: dict[str, Any] | list[Any]) -> Iterable[Any]:
    return value.values() if isinstance(value, dict) else value


def _frames(connection: socket.socket) -> Iterator[bytes]:
    """Lines of at most 64 KiB, each within 5 s; any other ends the conversation."""
    buffer = b""
    while True:
        deadline = time.monotonic() + TIMEOUT_SECONDS
        while b"\n" not in buffer:
            if len(buffer) >= FRAME_BYTES:
                return
            # One byte now and then would keep a connection, were each of them given 5 s.
            connection.settimeout(max(0.001, deadline - time.monotonic()))
            chunk = connection.recv(FRAME_BYTES - len(buffer))
            if not chunk:
                return
            buffer += chunk
        frame, _, buffer = buffer.partition(b"\n")
        connection.settimeout(TIMEOUT_SECONDS)
        yield frame

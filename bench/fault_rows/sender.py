"""Send commands to whatever worker lives, and keep account of what was acknowledged."""

import contextlib
import json
import random
import socket
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from engine.runs.directory import RunDirectory

_LONGEST_PAUSE_SECONDS = 0.12
_TIMEOUT_SECONDS = 10.0


@dataclass
class Sent:
    """A command, and whether it was acknowledged at least once."""

    id: str
    verb: str
    payload: Mapping[str, Any]
    is_acknowledged: bool = False


def send(run: RunDirectory, sent: Sent) -> str:
    """Send a command, perhaps not for the first time; the message of its acknowledgement.

    Empty where none came: the worker may have it all the same.
    """
    frame = {"id": sent.id, "verb": sent.verb, "payload": dict(sent.payload)}
    with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX) as client:
        client.settimeout(_TIMEOUT_SECONDS)
        client.connect(str(run.socket))
        client.sendall(json.dumps(frame).encode() + b"\n")
        if reply := client.makefile("rb").readline():
            answer = json.loads(reply)
            sent.is_acknowledged |= bool(answer["ok"])
            return str(answer["message"])
    return ""


class Sender(threading.Thread):
    """Sends commands that leave training as it is, each id again and again, until told to end."""

    def __init__(self, run: RunDirectory, seed: int) -> None:
        super().__init__(name="sender", daemon=True)
        self._run = run
        self._random = random.Random(seed)
        self._ends = threading.Event()
        self.sent: list[Sent] = []

    def run(self) -> None:
        while not self._ends.wait(self._random.uniform(0, _LONGEST_PAUSE_SECONDS)):
            if self.sent and self._random.random() < 0.3:
                # As who got no answer does, or lost it.
                chosen = self._random.choice(self.sent)
            else:
                chosen = self._new()
            send(self._run, chosen)
            if chosen.verb == "pause":
                self._resume()

    def end(self) -> None:
        """Send no more, and wait until the last command is through."""
        self._ends.set()
        self.join()

    def _new(self) -> Sent:
        verb = self._random.choice(("checkpoint", "set", "pause"))
        # Checkpoints come more often or not: the weights are the same.
        every = self._random.randint(3, 30)
        payload = {"changes": {"save_every": every}} if verb == "set" else {}
        return self._keep(verb, payload)

    def _resume(self) -> None:
        self._ends.wait(self._random.uniform(0, _LONGEST_PAUSE_SECONDS) / 4)
        send(self._run, self._keep("resume", {}))

    def _keep(self, verb: str, payload: Mapping[str, Any]) -> Sent:
        sent = Sent(f"{verb}-{len(self.sent)}", verb, payload)
        self.sent.append(sent)
        return sent

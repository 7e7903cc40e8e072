"""The disk fills up at a random place of a run: it pauses, says why, and goes on by itself."""

import functools
import random
import sqlite3
import tempfile
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from bench.fault_rows.row import Outcome, Row
from bench.fault_rows.small_disk import SmallDisk, small_disk
from bench.fault_rows.tiny_session import TinySession, damaged
from engine.runs.disk import Ballast
from engine.runs.status import read_history
from engine.training import checkpoints

_STEPS = 8
_BALLAST_BYTES = 4 * 2**20
_SPARE_BYTES = 2**20
"""Asked for before a checkpoint, instead of 256 MiB, on a disk of 32."""
_MOST_LEFT = 96 * 2**10
_PHASES = ("rollout", "reward", "reference", "forward", "optimiser")
_PATIENCE_SECONDS = 30.0
_GOES_ON_SECONDS = 10.0
Said = tuple[str, int, Mapping[str, Any]]
"""Kind, step and payload of an event."""


def _session(folder: Path, ballast: Ballast | None = None) -> TinySession:
    schedule = {"max_steps": _STEPS, "save_every": 1, "eval_every": 100, "eval_samples": 4}
    return TinySession(folder, ballast=ballast, schedule=schedule)


@functools.cache
def _undisturbed() -> list[torch.Tensor]:
    """Weights of a run on a disk with room."""
    with tempfile.TemporaryDirectory() as folder:
        session = _session(Path(folder))
        session.train()
        return session.weights()


class _Person:
    """Watches the store as a cockpit does; frees the disk some time after the run has paused."""

    def __init__(
        self, session: TinySession, disk: SmallDisk, wait: float, said: list[Said]
    ) -> None:
        """``said``: events as the worker records them."""
        self._said = said
        self._session, self._disk, self._wait = session, disk, wait
        self.full = threading.Event()
        self.problem = ""
        self.seconds = 0.0
        """From the free disk until the run went on."""
        self.acknowledged: list[str] = []
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()

    def join(self) -> None:
        self._thread.join()

    def _state(self) -> tuple[str, str]:
        if not self._disk.ballast_helps:
            # Then nothing can be stored either, and who is notified hears it alone.
            states = [payload for kind, _, payload in self._said if kind == "state"]
            return states[-1]["state"], states[-1]["detail"]
        history = read_history(self._session.run)
        return history.state, history.detail

    def _until(self, state: str) -> str | None:
        """What the store said at last; None where it was never in ``state``."""
        deadline = time.monotonic() + _PATIENCE_SECONDS
        while time.monotonic() < deadline:
            now, detail = self._state()
            if now == state:
                return detail
            time.sleep(0.02)
        return None

    def _watch(self) -> None:
        if not self.full.wait(_PATIENCE_SECONDS):
            self.problem = "the disk was never filled"
            return
        reason = self._until("paused")
        if reason is None:
            self.problem = "no pause was to be seen"
        elif not ("free" in reason or "dmesg" in reason) or "\n" in reason:
            self.problem = f"the reason does not say what to do: {reason}"
        elif self._disk.ballast_helps:
            identifier = f"while-full-{self._wait}"
            if self._session.store.command(identifier, "set", {}):
                self.acknowledged.append(identifier)
        time.sleep(self._wait)
        started = time.monotonic()
        self._disk.free()
        if self._until("training") is None and self._session.training.progress.step != _STEPS:
            self.problem = self.problem or "it did not go on"
        self.seconds = time.monotonic() - started


def trial(number: int, folder: Path) -> Outcome:
    """Fill the disk at a random step, phase and remainder."""
    expected = _undisturbed()
    rng = random.Random(number)
    before, checkpoints._SPARE_BYTES = checkpoints._SPARE_BYTES, _SPARE_BYTES
    try:
        with small_disk(folder) as disk:
            return _trial(rng, disk, expected)
    finally:
        checkpoints._SPARE_BYTES = before


def _trial(rng: random.Random, disk: SmallDisk, expected: list[torch.Tensor]) -> Outcome:
    ballast = Ballast(disk.path / "ballast", _BALLAST_BYTES)
    ballast.lay()
    session = _session(disk.path, ballast)
    recorded: list[Said] = []
    session.store.listen(lambda kind, payload, step: recorded.append((kind, step, payload)))
    person = _Person(session, disk, rng.uniform(0.0, 0.5), recorded)
    left, phase, step = rng.randrange(_MOST_LEFT), rng.choice(_PHASES), rng.randint(2, _STEPS - 2)

    def fill() -> None:
        if not person.full.is_set():
            disk.fill(left)
            person.full.set()

    session.at_phase(phase, step, fill)
    reason = session.train()
    person.join()
    place = f"{phase} of step {step}, {left} bytes left"
    figures = {"seconds until it went on": person.seconds}
    if person.problem:
        return Outcome(f"{place}: {person.problem}", figures)
    if person.seconds > _GOES_ON_SECONDS:
        return Outcome(f"{place}: it went on after {person.seconds:.1f} s", figures)
    if reason != f"all {_STEPS} steps done":
        return Outcome(f"{place}: ended with {reason!r}", figures)
    if not all(map(torch.equal, session.weights(), expected)):
        return Outcome(f"{place}: other weights than without a full disk", figures)
    return Outcome(_lost(session, recorded, person.acknowledged) or damaged(session.run), figures)


def _lost(session: TinySession, recorded: list[Said], acknowledged: list[str]) -> str:
    """What of a run's records is not in its store."""
    with sqlite3.connect(session.run.database) as database:
        integrity = database.execute("PRAGMA integrity_check").fetchall()
        events = database.execute("SELECT kind, step FROM events ORDER BY seq").fetchall()
        rollouts = database.execute(
            "SELECT step, count(*) FROM rollouts GROUP BY step ORDER BY step"
        ).fetchall()
        commands = {row[0] for row in database.execute("SELECT id FROM commands")}
    database.close()
    if integrity != [("ok",)]:
        return f"integrity check: {integrity[0][0]}"
    if events != [(kind, step) for kind, step, _ in recorded]:
        return f"{len(recorded)} events were recorded, {len(events)} are stored, or their order is"
    if rollouts != [(step, 16) for step in range(1, _STEPS + 1)]:
        return "rollouts are missing, or there twice"
    return "" if set(acknowledged) <= commands else "an acknowledged command is missing"


ROWS = (
    Row(
        name="disk-full",
        passes=(
            "paused with a reason, goes on within 10 s of space, every event and rollout stored "
            "once, checkpoints valid, weights as without it"
        ),
        trials=50,
        short=2,
        trial=trial,
    ),
)

"""The training loop stops working at a random place: found in time, with its stacks."""

import random
import threading
import time
from pathlib import Path
from typing import Any

from bench.fault_rows.row import Outcome, Row
from bench.fault_rows.tiny_session import PHASES, TinySession
from engine.training.watchdog import STACKS, Watchdog

LEAST_SECONDS = 0.8
"""Deadline of a phase that is quick as a rule; a first pass has five times as long."""


def trial(number: int, folder: Path) -> Outcome:
    """Hang at a random phase and step until found, then let it go on to its end."""
    rng = random.Random(number)
    session = TinySession(folder)
    phase, step = rng.choice(PHASES), rng.randint(1, 4)
    # Tokens and completions come many to a step; a pass may be the only one.
    at = rng.randint(1, 3) if phase in ("rollout", "reward", "validation") else 1
    found = threading.Event()
    told: list[tuple[float, dict[str, Any]]] = []
    hung_at: list[float] = []
    reached = 0

    def tell(payload: dict[str, Any]) -> None:
        told.append((time.monotonic(), payload))
        session.store.event("hang", payload)
        found.set()

    def hang() -> None:
        nonlocal reached
        reached += 1
        if reached == at:
            hung_at.append(time.monotonic())
            _stuck(found)

    session.at_phase(phase, step, hang)
    with Watchdog(session.training.heartbeat, session.run.path, tell, least=LEAST_SECONDS):
        reason = session.train()
    if not hung_at:
        return Outcome(f"{phase} of step {step} was never reached")
    hangs = [(when, payload) for when, payload in told if payload["on"]]
    if len(hangs) != 1:
        return Outcome(f"{phase} of step {step}: {len(hangs)} hangs were told instead of one")
    when, payload = hangs[0]
    seconds = when - hung_at[0]
    figures = {"seconds until found over the deadline": seconds / payload["threshold"]}
    stacks = (session.run.path / STACKS).read_text()
    if seconds > 2 * payload["threshold"]:
        return Outcome(f"{phase}: found after {seconds:.1f} s, deadline {payload['threshold']:g}")
    if "_stuck" not in stacks:
        return Outcome(f"{phase}: the stacks do not say where", figures)
    if reason != "all 4 steps done" or len(session.events("step")) != 4:
        return Outcome(f"{phase}: the run did not go on afterwards: {reason}", figures)
    return Outcome(figures=figures)


def _stuck(until: threading.Event) -> None:
    """The name that has to stand in the stacks."""
    until.wait(30)


ROWS = (
    Row(
        name="hang",
        passes="found within twice the deadline, stacks saved, the run goes on; told once",
        trials=40,
        short=2,
        trial=trial,
    ),
)

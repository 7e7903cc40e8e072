"""Escape sequences, markup and bidirectional marks through everything that shows foreign text."""

import asyncio
import random
from pathlib import Path

from textual._context import active_app

from bench.fault_rows.command_line import at_home
from bench.fault_rows.row import Outcome, Row
from bench.fault_rows.screen_tour import tour
from bench.fault_rows.text_sinks import any_text, problem_of, sinks
from stonk_tui.app import Cockpit
from tests.cockpit.hostile import hostile_run

TEXTS = 50
"""That one call makes, each through every sink."""


def texts_through_sinks(number: int, folder: Path) -> Outcome:
    """Each text through every sink that needs no screen."""
    token = active_app.set(Cockpit(None))  # panels ask it for its keys
    chance = random.Random(number)
    try:
        with at_home(folder):
            hostile_run(lambda: any_text(chance))
        for seed in range(number, number + TEXTS):
            said = any_text(random.Random(seed))
            for name, sink in sinks().items():
                try:
                    problem = problem_of(name, sink(said, folder))
                except Exception as error:  # noqa: BLE001
                    problem = f"{name}: {type(error).__name__}: {error}"
                if problem:
                    return Outcome(f"text {seed}: {problem!r}")
    finally:
        active_app.reset(token)
    return Outcome(figures={"sinks": len(sinks())})


def texts_on_screens(number: int, folder: Path) -> Outcome:
    """Every screen of the cockpit, on a run with another text in every field."""
    chance = random.Random(number)
    with at_home(folder):
        try:
            visited, problem = asyncio.run(tour(lambda: any_text(chance)[:300]))
        except Exception as error:  # noqa: BLE001
            visited, problem = set(), f"{type(error).__name__}: {error}"
    return Outcome(problem, {"screens": len(visited)})


ROWS = (
    Row(
        "escape-fuzz",
        "no sink puts anything on a terminal but text that is safe to show, and none raises",
        trials=10_000,
        short=TEXTS,
        trial=texts_through_sinks,
        batch=TEXTS,
    ),
    Row(
        "escape-screens",
        "no screen draws anything but safe text, without links, actions or an exception",
        trials=100,
        short=1,
        trial=texts_on_screens,
    ),
)

"""A run as long as one likes, made in a minute instead of a month.

Rows of a recorded run (``tests/recorded.py``, written through the engine's own store) are taken as
they are and repeated: a step and its payload of 2 KB, a validation with its states and its progress
every 50 steps, a checkpoint every 100. The newest steps have rollouts, 32 each.
"""

import json
import math
import random
import sqlite3
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from engine.runs import directory
from engine.runs.directory import RunDirectory
from engine.runs.durable import write_atomically
from engine.runs.store import EventStore

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from tests import recorded

PERIOD = 100
"""Steps of the recording that are repeated."""
GROUPS, SAMPLES = 4, 8
PROMPT_CHARACTERS = 2000
COMPLETION_CHARACTERS = 600
_NEWS = "News: the company said on Tuesday that it will open two more plants next year.\n"
_ROWS = 5000
_Event = tuple[int, float, str, int, str]


def make(num_events: int, num_rollouts: int) -> RunDirectory:
    """The run of this size in ``$STONK_HOME``: the one that is there, or a new one."""
    name = f"scale-{num_events}-{num_rollouts}"
    for run in directory.list_runs():
        if run.config().name == name and (run.path / "made").exists():
            return run
    template = recorded.record(PERIOD, name="template", state="finished")
    recording = recorded.new_run(name, max_steps=10**7)
    recording.starts()
    recording.is_loaded()
    recording.state("training")
    recording.store.close()
    run = recording.run
    database = sqlite3.connect(run.database)
    database.execute("PRAGMA synchronous = OFF")
    last_step = _events(database, _templates(template.run.database), num_events)
    _rollouts(database, template.run.database, num_rollouts, last_step)
    database.close()
    # A worker brings what is derived from the events up to date when it opens the store.
    EventStore(run.database).close()
    (run.path / "made").touch()
    write_atomically(run.path / "best_model", f"step-{last_step:06d}")
    return run


def last_step(run: RunDirectory) -> int:
    """The newest step in the store of ``run``."""
    database = sqlite3.connect(f"file:{run.database}?mode=ro", uri=True)
    (step,) = database.execute(
        "SELECT step FROM events WHERE superseded = 0 ORDER BY seq DESC LIMIT 1"
    ).fetchone()
    database.close()
    return int(step)


def _templates(path: Path) -> dict[tuple[str, int], str]:
    """Payload texts of the recording by kind and step."""
    database = sqlite3.connect(f"file:{path}?mode=ro", uri=True)
    rows = database.execute("SELECT kind, step, payload FROM events WHERE step > 0").fetchall()
    database.close()
    return {(kind, step): payload for kind, step, payload in rows}


def _events(database: sqlite3.Connection, templates: dict[tuple[str, int], str], count: int) -> int:
    (have,) = database.execute("SELECT count(*) FROM events").fetchone()
    rows: list[_Event] = []
    last = 0
    with database:
        for row in _made_up(templates):
            if have + len(rows) >= count:
                break
            rows.append(row)
            last = row[3]
            if len(rows) == _ROWS:
                _insert(database, rows)
                have, rows = have + len(rows), []
        _insert(database, rows)
    return last


def _insert(database: sqlite3.Connection, rows: list[_Event]) -> None:
    database.executemany(
        "INSERT INTO events (attempt, time, kind, step, payload) VALUES (?, ?, ?, ?, ?)", rows
    )


def _made_up(templates: dict[tuple[str, int], str]) -> Iterator[_Event]:
    """Events without end, in the order in which a worker writes them."""
    rng = random.Random(5)
    pieces = []
    for step in range(1, PERIOD + 1):
        head, mark, rest = templates["step", step].partition('"reward/total":')
        pieces.append((head + mark, rest.partition(",")[2]))
    kept: list[str] = []
    step = 0
    while True:
        step += 1
        now = recorded.START + step
        head, tail = pieces[step % PERIOD]
        reward = 0.4 + 0.2 * step / (step + 1e5) + 0.1 * math.sin(step / 3e4) + rng.gauss(0, 0.05)
        yield 1, now, "step", step, f"{head}{reward},{tail}"
        if step % 50:
            continue
        yield 1, now, "state", step, '{"state":"evaluating","detail":""}'
        for done in (64, 128, 200):
            progress = {"task": "validation", "done": done, "total": 200, "eta_seconds": 0.5}
            yield 1, now, "progress", step, json.dumps(progress)
        yield 1, now, "validation", step, templates["validation", step % PERIOD or PERIOD]
        yield 1, now, "state", step, '{"state":"training","detail":""}'
        if step % 100:
            continue
        removed, kept = kept[:-2], [*kept[-2:], f"step-{step:06d}"]
        checkpoint = {"name": kept[-1], "best": True, "validation_reward": 0.5, "removed": removed}
        yield 1, now, "checkpoint", step, json.dumps(checkpoint)


def _rollouts(database: sqlite3.Connection, path: Path, count: int, last: int) -> None:
    source = sqlite3.connect(f"file:{path}?mode=ro", uri=True)
    columns = (
        "step, grp, sample, completion, tokens, finished, reward, advantage, prediction,"
        " components, cited"
    )
    groups: dict[tuple[int, int], list[tuple[Any, ...]]] = {}
    for row in source.execute(f"SELECT {columns} FROM rollouts ORDER BY step, grp, sample"):
        step, grp, sample, completion, *rest = row
        longer = _lengthened(completion, COMPLETION_CHARACTERS, " The trend has held for weeks.")
        groups.setdefault((step, grp), []).append((sample, longer, *rest))
    prompts = {
        (step, grp): (_lengthened(text, PROMPT_CHARACTERS, _NEWS), subject)
        for step, grp, text, subject in source.execute(
            "SELECT DISTINCT r.step, r.grp, p.text, p.subject"
            " FROM rollouts r JOIN prompts p ON p.id = r.prompt_id"
        )
    }
    source.close()
    first = max(1, last - count // (GROUPS * SAMPLES) + 1)
    with database:
        for step in range(first, last + 1):
            for group in range(GROUPS):
                key = (step % PERIOD or PERIOD, group)
                prompt = database.execute(
                    "INSERT INTO prompts (text, subject) VALUES (?, ?)", prompts[key]
                ).lastrowid
                database.executemany(
                    "INSERT INTO rollouts (attempt, step, grp, prompt_id, sample, completion,"
                    " tokens, finished, reward, advantage, prediction, components, cited)"
                    f" VALUES (1, {step}, {group}, {prompt}, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                    groups[key],
                )


def _lengthened(text: str, length: int, filler: str) -> str:
    """What was recorded is short; prompts with news and answers at length are not."""
    return text + filler * max(0, (length - len(text)) // len(filler))

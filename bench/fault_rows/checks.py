"""What has to hold of a run's store and files, whatever happened; problems are one line each."""

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from bench.fault_rows.sender import Sent
from bench.fault_rows.tiny_runs import Row
from engine.config import RunConfig
from engine.runs import checkpoint_names, manifest
from engine.runs.directory import RunDirectory
from engine.runs.reader import StoreReader
from engine.runs.status import read_history


def problem_of(run: RunDirectory, seen: Sequence[Row], sent: Iterable[Sent]) -> str:
    """The first thing that does not hold of a finished run; empty where all does.

    Args:
        run: finished.
        seen: rows that were durable at some time.
        sent: every command that was sent.
    """
    reader = StoreReader(run.database)
    try:
        problems = (
            *_damage(reader),
            *_lost(reader, seen),
            *_wrong_steps(reader, run.config()),
            *_wrong_commands(reader, sent),
        )
    finally:
        reader.close()
    return next(iter((*problems, *_wrong_checkpoints(run))), "")


def results(run: RunDirectory) -> tuple[Any, ...]:
    """What an uninterrupted run and an interrupted one must share: every loss, and the weights."""
    reader = StoreReader(run.database)
    try:
        rows = reader.metrics("step", ("loss", "reward/total"))
    finally:
        reader.close()
    folder = run.checkpoints / checkpoint_names.names(run)[-1]
    files = ("adapter_model.safetensors", "train/optimizer.safetensors")
    hashes = tuple(checkpoint_names.sha256(folder / file) for file in files)
    return (folder.name, hashes, tuple(values for _, *values in rows))


def _damage(reader: StoreReader) -> Iterator[str]:
    for (line,) in reader.rows("PRAGMA integrity_check"):
        if line != "ok":
            yield f"integrity_check: {line}"


def _lost(reader: StoreReader, seen: Sequence[Row]) -> Iterator[str]:
    """Rows that were read once and are not there any more, and holes between those that are."""
    stored = {
        row[0]: row
        for row in reader.rows("SELECT seq, attempt, time, kind, step, payload FROM events")
    }
    if missing := [row for row in seen if stored.get(row[0]) != row]:
        yield f"{len(missing)} events lost or changed, the first {missing[0][:5]}"
    if list(stored) != list(range(1, len(stored) + 1)):
        yield "the sequence of events has holes"


def _wrong_steps(reader: StoreReader, config: RunConfig) -> Iterator[str]:
    schedule, last = config.schedule, config.schedule.max_steps
    assert last is not None
    expected = list(range(1, last + 1))
    for kind, wanted in (
        ("step", expected),
        ("validation", sorted({0, *range(0, last + 1, schedule.eval_every), last})),
    ):
        found = [event.step for event in reader.events_of(kind)]
        if found != wanted:
            yield f"events of kind {kind} are at {found} instead of {wanted}"
    a_step = config.rollout.prompts_per_step * config.rollout.group_size
    rollouts = reader.rows(
        "SELECT step, count(*), count(DISTINCT grp * 1000 + sample) FROM rollouts"
        " WHERE superseded = 0 GROUP BY step ORDER BY step"
    )
    if rollouts != [(step, a_step, a_step) for step in expected]:
        yield f"rollouts of steps are {rollouts}"


def _wrong_commands(reader: StoreReader, sent: Iterable[Sent]) -> Iterator[str]:
    """Commands that were acknowledged and lost, not answered, or carried out twice."""
    stored = dict(reader.rows("SELECT id, answered FROM commands"))
    answers = [
        json.loads(payload)
        for (payload,) in reader.rows("SELECT payload FROM events WHERE kind = 'command'")
    ]
    count = Counter(answer["id"] for answer in answers)
    changed = Counter(
        json.loads(payload)["command"]
        for (payload,) in reader.rows("SELECT payload FROM events WHERE kind = 'settings'")
    )
    kept = {event.payload["command"] for event in reader.events_of("settings")}
    for command in sent:
        if command.is_acknowledged and command.id not in stored:
            yield f"{command.id} was acknowledged and is lost"
    for identifier, is_answered in stored.items():
        if not is_answered or count[identifier] != 1:
            yield f"{identifier} has {count[identifier]} answers"
        if changed[identifier] > 1:
            yield f"{identifier} was carried out {changed[identifier]} times"
    for answer in answers:
        identifier, says = answer["id"], answer["message"]
        if answer["ok"] != bool(changed[identifier]) and says.startswith(("in force", "done")):
            yield f"{identifier} was answered with {says!r} and changed nothing"
        if not answer["ok"] and identifier in kept:
            yield f"{identifier} was answered with {says!r} and is in force"


def _wrong_checkpoints(run: RunDirectory) -> Iterator[str]:
    """Folders that are damaged, or that the log does not tell of, or the other way round."""
    history, names = read_history(run), checkpoint_names.names(run)
    for name in names:
        if damage := manifest.damage(run.checkpoints / name):
            yield f"checkpoint {name}: {damage}"
    told = [point.name for point in history.checkpoints]
    if told != names:
        yield f"the log tells of checkpoints {told}, and there are {names}"
    if checkpoint_names.best(run) != history.best or history.best not in names:
        yield f"best is {checkpoint_names.best(run)} on disk and {history.best} in the log"
    if left := [path.name for path in run.checkpoints.iterdir() if path.name not in names]:
        yield f"left over: {left}"

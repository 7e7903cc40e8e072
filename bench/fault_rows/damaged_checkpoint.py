"""A checkpoint that is not what was written is found, named, set aside, and the one before is used.

A trial damages the newest checkpoint of three, or the newest two: bits flipped, files cut, grown,
emptied, taken away, added, made links, swapped with another checkpoint's, the manifest edited.
"""

import contextlib
import io
import json
import os
import random
import shutil
import tempfile
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import torch

from bench.fault_rows.row import Outcome, Row
from bench.fault_rows.tiny_training import TinyTraining, config
from engine.runs import checkpoint_names
from engine.runs.checkpoint_names import MANIFEST
from engine.runs.directory import RunDirectory
from engine.training import checkpoints
from engine.training.training import make_optimizer

_Damage = Callable[[Path, Path, random.Random], set[str]]
"""Damages the first folder, with the second one's help; returns the files that may be named."""
_STEPS = 3


def trial(number: int, folder: Path) -> Outcome:
    """One kind of damage at a place that ``number`` decides."""
    rng = random.Random(number)
    run = RunDirectory(Path(shutil.copytree(_template(), folder / "run")))
    names = checkpoint_names.names(run)
    how, damage = list(_KINDS.items())[number % len(_KINDS)]
    hit = [names[-1]] if rng.random() < 0.8 else names[-2:]
    expected = names[-1 - len(hit)]
    may_be_named = {
        name: damage(run.checkpoints / name, run.checkpoints / expected, rng) for name in hit
    }
    if how == "whole checkpoints swapped":
        # Both are what they are not called.
        hit, expected = [*hit, expected], names[-2 - len(hit)]
        may_be_named[hit[-1]] = {MANIFEST}
    told: list[str] = []
    with contextlib.redirect_stdout(io.StringIO()):
        found = checkpoints.newest(run, told.append)
    if found != expected:
        return Outcome(f"{how}: {found} was taken instead of {expected}")
    for name in hit:
        line = next((text for text in told if text.startswith(f"checkpoint {name} ")), "")
        if not any(file in line for file in may_be_named[name]) or "\n" in line:
            return Outcome(f"{how}: {line!r} names none of {sorted(may_be_named[name])}")
        aside = list(run.checkpoints.glob(f"damaged-{name}-*"))
        if len(aside) != 1 or aside[0].name not in line:
            return Outcome(f"{how}: {name} was not set aside as {line!r} says")
    policy, optimizer = _trained()
    if checkpoints.load(run, found, policy, optimizer).step != checkpoint_names.step_of(found):
        return Outcome(f"{how}: {found} is of another step")
    return Outcome()


def _flip(folder: Path, other: Path, rng: random.Random) -> set[str]:
    path = _any_file(folder, rng)
    content = bytearray(path.read_bytes())
    for _ in range(rng.choice((1, 1, 1, 2, 64))):
        bit = rng.randrange(8 * len(content))
        content[bit // 8] ^= 1 << bit % 8
    if bytes(content) == path.read_bytes():
        content[0] ^= 1
    path.write_bytes(bytes(content))
    # A manifest that can still be read says that another file is wrong.
    return {path.name} | (_all_names(folder) if path.name == MANIFEST else set())


def _cut(folder: Path, other: Path, rng: random.Random) -> set[str]:
    path = _any_file(folder, rng)
    os.truncate(path, rng.randrange(path.stat().st_size))
    return {path.name}


def _empty(folder: Path, other: Path, rng: random.Random) -> set[str]:
    path = _any_file(folder, rng)
    os.truncate(path, 0)
    return {path.name}


def _grow(folder: Path, other: Path, rng: random.Random) -> set[str]:
    path = _any_file(folder, rng)
    with path.open("ab") as file:
        file.write(rng.randbytes(rng.randint(1, 64)))
    return {path.name}


def _zero(folder: Path, other: Path, rng: random.Random) -> set[str]:
    """A page that never reached the disk."""
    path = _any_file(folder, rng)
    content = path.read_bytes()
    start = rng.randrange(len(content)) // 512 * 512
    hole = content[:start] + bytes(len(content[start : start + 4096])) + content[start + 4096 :]
    path.write_bytes(hole if hole != content else content[:-1])
    return {path.name}


def _remove(folder: Path, other: Path, rng: random.Random) -> set[str]:
    path = _any_file(folder, rng)
    path.unlink()
    return {path.name}


def _add(folder: Path, other: Path, rng: random.Random) -> set[str]:
    place = rng.choice(("extra.bin", "adapter_model.bin", "train/more.safetensors", "modeling.py"))
    (folder / place).write_bytes(rng.randbytes(rng.randint(0, 64)))
    return {Path(place).name}


def _link(folder: Path, other: Path, rng: random.Random) -> set[str]:
    path = _any_file(folder, rng)
    target = path.rename(folder.parent / f"elsewhere-{rng.random()}")
    path.symlink_to(target)
    return {path.name}


def _swap_file(folder: Path, other: Path, rng: random.Random) -> set[str]:
    differing = [
        path
        for path in _files(folder)
        if path.read_bytes() != (other / path.relative_to(folder)).read_bytes()
    ]
    path = rng.choice(differing)
    path.write_bytes((other / path.relative_to(folder)).read_bytes())
    return {path.name} | (_all_names(folder) if path.name == MANIFEST else set())


def _swap_files(folder: Path, other: Path, rng: random.Random) -> set[str]:
    """Two files of one checkpoint."""
    one, two = rng.sample([path for path in _files(folder) if path.name != MANIFEST], 2)
    first, second = one.read_bytes(), two.read_bytes()
    one.write_bytes(second)
    two.write_bytes(first)
    return {one.name, two.name}


def _swap_all(folder: Path, other: Path, rng: random.Random) -> set[str]:
    between = folder.with_name("between")
    folder.rename(between)
    other.rename(folder)
    between.rename(other)
    return {MANIFEST}


def _edit_manifest(folder: Path, other: Path, rng: random.Random) -> set[str]:
    path = folder / MANIFEST
    values: dict[str, Any] = json.loads(path.read_text())
    entry = rng.choice(values["files"])
    edit = rng.randrange(12)
    if edit == 0:
        entry["size"] += rng.choice((-1, 1, 100))
    elif edit == 1:
        entry["sha256"] = rng.randbytes(32).hex()
    elif edit == 2:
        entry["name"] = rng.choice(("../../run.yaml", "/etc/passwd", "other", ""))
    elif edit == 3:
        values["files"].remove(entry)
    elif edit == 4:
        values["files"].append(dict(entry))
    elif edit == 5:
        values["files"].append({"name": "more", "size": 0, "sha256": ""})
    elif edit == 6:
        values["step"] += rng.choice((-1, 1, 7))
    elif edit == 7:
        values["schema"] = rng.choice((0, -1, 99, "1", None, True, 1.0))
    elif edit == 8:
        values[rng.choice(("steps", "note"))] = 1
    elif edit == 9:
        values["files"].reverse()
    elif edit == 10:
        values = dict(reversed(values.items()))
    else:
        path.write_text(json.dumps(values, indent=rng.choice((None, 2, 4))))
        return {MANIFEST}
    path.write_text(json.dumps(values, indent=1))
    return {MANIFEST} | _all_names(folder)


_KINDS: dict[str, _Damage] = {
    "bits flipped": _flip,
    "cut": _cut,
    "emptied": _empty,
    "grown": _grow,
    "zeroed": _zero,
    "removed": _remove,
    "added": _add,
    "made a link": _link,
    "file of another checkpoint": _swap_file,
    "files swapped": _swap_files,
    "whole checkpoints swapped": _swap_all,
    "manifest edited": _edit_manifest,
}


def _files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())


def _any_file(folder: Path, rng: random.Random) -> Path:
    return rng.choice(_files(folder))


def _all_names(folder: Path) -> set[str]:
    return {path.name for path in _files(folder)}


@cache
def _template() -> Path:
    """A run with checkpoints of the steps 0 to 3, no two of them alike."""
    folder = Path(tempfile.mkdtemp(prefix="faults-template-")) / "run"
    schedule = {"max_steps": _STEPS, "save_every": 1, "eval_every": 100}
    TinyTraining(folder, config(schedule=schedule)).train()
    return folder


@cache
def _trained() -> tuple[Any, torch.optim.Optimizer]:
    """A policy that checkpoints are loaded into."""
    with tempfile.TemporaryDirectory() as folder:
        tiny = TinyTraining(Path(folder) / "run", config())
        tiny.close()
    return tiny.policy, make_optimizer(tiny.policy, tiny.config)


ROWS = (
    Row(
        name="damaged-checkpoint",
        passes="found, the file named, set aside, and the newest that is valid is used",
        trials=1000,
        short=60,
        trial=trial,
    ),
)

"""What a checkpoint's folder holds, and whether it still does.

``manifest.json`` has the name, size and SHA-256 of every file and the step. It is written last, in
one way alone, and the folder holds nothing else: so whatever is changed, in a file or in the
manifest, taken away, added or swapped with another checkpoint's shows.
"""

import json
import re
import stat
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from engine.config import SCHEMA_VERSION
from engine.runs.checkpoint_names import FOLDER, MANIFEST, PROMOTED, sha256, step_of
from engine.text import one_line

_MAX_BYTES = 1_000_000
_KEYS, _FILE_KEYS = ["schema", "step", "files"], ["name", "size", "sha256"]
_BESIDE = re.compile(rf"{PROMOTED}|\.{PROMOTED}\.[0-9a-f]+\.tmp")
"""Files that come into a checkpoint later: the mark of a promotion, and one on its way."""


@dataclass(frozen=True)
class Entry:
    """One file of a checkpoint."""

    name: str
    """Relative to the folder."""
    size: int
    sha256: str


def text(step: int, entries: list[Entry]) -> str:
    """The manifest of a checkpoint made after ``step`` steps."""
    files = [vars(entry) for entry in sorted(entries, key=lambda entry: entry.name)]
    return _dump({"schema": SCHEMA_VERSION, "step": step, "files": files})


def damage(folder: Path) -> str | None:
    """What is wrong with the checkpoint in ``folder``, which file first, or None."""
    try:
        return _damage(folder)
    except OSError as error:
        name = Path(error.filename).name if error.filename else folder.name
        return f"{one_line(name, 80)} cannot be read: {error.strerror}"


def _damage(folder: Path) -> str | None:
    found = dict(_entries(folder))
    links = [name for name, mode in found.items() if not stat.S_ISREG(mode)]
    if links:
        return f"{one_line(links[0], 80)} is no plain file"
    if MANIFEST not in found:
        return f"{MANIFEST} is missing"
    values = _read(folder / MANIFEST)
    if values is None:
        return f"{MANIFEST} was changed"
    if values["schema"] > SCHEMA_VERSION:
        return f"{MANIFEST} was written by a newer stonk-tui"
    if FOLDER.fullmatch(folder.name) and values["step"] != step_of(folder.name):
        return f"{MANIFEST} is that of step {values['step']}"
    listed = {file["name"]: file for file in values["files"]}
    # First, since where a name in the manifest was changed it names a file that is there.
    if extra := sorted(name for name in set(found) - set(listed) if not _may_be_beside(name)):
        return f"{one_line(extra[0], 80)} is not in {MANIFEST}"
    if missing := sorted(set(listed) - set(found)):
        return f"{one_line(missing[0], 80)} is missing"
    for name, file in listed.items():
        path = folder / name
        if (size := path.stat().st_size) != file["size"]:
            return f"{name} has {size} bytes, not {file['size']}"
        if sha256(path) != file["sha256"]:
            return f"{name} was changed"
    return None


def _entries(folder: Path) -> Iterator[tuple[str, int]]:
    """Every file below ``folder`` with its mode, links themselves and not what they point at."""
    waiting = [folder]
    while waiting:
        for path in waiting.pop().iterdir():
            mode = path.lstat().st_mode
            if stat.S_ISDIR(mode):
                waiting.append(path)
            else:
                yield path.relative_to(folder).as_posix(), mode


def _may_be_beside(name: str) -> bool:
    return name == MANIFEST or _BESIDE.fullmatch(name) is not None


def _read(path: Path) -> Mapping[str, Any] | None:
    """The manifest's values; None where it is not, byte for byte, what ``text`` writes."""
    with path.open("rb") as file:
        content = file.read(_MAX_BYTES)
    try:
        values = json.loads(content.decode("utf-8"))
        is_sound = (
            list(values) == _KEYS
            and type(values["schema"]) is type(values["step"]) is int
            and values["schema"] > 0
            and all(
                list(file) == _FILE_KEYS
                and type(file["name"]) is type(file["sha256"]) is str
                and type(file["size"]) is int
                for file in values["files"]
            )
            and _names(values) == sorted(set(_names(values)))
            and _dump(values) == content.decode("utf-8")
        )
    except (ValueError, TypeError, RecursionError):
        return None
    return values if is_sound else None


def _names(values: Mapping[str, Any]) -> list[str]:
    return [file["name"] for file in values["files"]]


def _dump(values: Mapping[str, Any]) -> str:
    return json.dumps(values, indent=1)

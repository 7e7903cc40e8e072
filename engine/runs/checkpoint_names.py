"""What a person calls a checkpoint, and the folder that it means.

``base | best | last | step-N | RUN:one of these | PATH``: the same words everywhere.
"""

import hashlib
import re
from dataclasses import dataclass
from pathlib import Path

from engine.errors import UserError
from engine.runs import directory
from engine.runs.directory import RunDirectory
from engine.text import one_line

BASE = "base"
ADAPTER = "adapter_model.safetensors"
ADAPTER_CONFIG = "adapter_config.json"
MANIFEST = "manifest.json"
PROMOTED = "promoted"
"""File in a checkpoint that was promoted: names the Stage II run, and keeps rotation away."""

FOLDER = re.compile(r"step-(\d{6,})")
"""Name of a checkpoint's folder in a run."""
_STEP = re.compile(r"step-(\d{1,9})")


@dataclass(frozen=True)
class NamedCheckpoint:
    """A checkpoint that exists, or the base model."""

    name: str
    """``base``, ``step-000100``, or the name of a folder outside any run."""
    folder: Path | None
    """Holds an ordinary PEFT adapter at its root; None for the base model."""
    run: RunDirectory | None
    """The run that it belongs to; None for a folder outside any run."""


def resolve(text: str, run: RunDirectory | None = None) -> NamedCheckpoint:
    """The checkpoint that ``text`` means.

    Args:
        text: see the module.
        run: the run meant where ``text`` names none; None for the newest.

    Raises:
        UserError: no such run or checkpoint.
    """
    before, colon, after = text.rpartition(":")
    if colon and "/" not in text:
        return resolve(after, directory.find(before))
    if _looks_like_path(text):
        return _at_path(Path(text).expanduser().absolute())
    run = run or directory.find(None)
    if text == BASE:
        return NamedCheckpoint(BASE, None, run)
    name = _in_run(text, run)
    folder = run.checkpoints / name
    if not _is_own_folder(folder):
        known = names(run)
        raise UserError(
            f"run {run.id} has no checkpoint {name}",
            fix=f"it has {', '.join(known[-5:])}" if known else "save one first",
        )
    return NamedCheckpoint(name, folder, run)


def pinned(named: NamedCheckpoint, run: RunDirectory) -> str:
    """What means ``named`` tomorrow too, said to ``run``."""
    if named.run is None:
        return str(named.folder)
    return named.name if named.run == run else f"{named.run.id}:{named.name}"


def names(run: RunDirectory) -> list[str]:
    """Checkpoint names of a run by step, oldest first; none of a run that may not be read."""
    try:
        found = [
            path.name
            for path in run.checkpoints.iterdir()
            if FOLDER.fullmatch(path.name) and _is_own_folder(path)
        ]
    except (FileNotFoundError, NotADirectoryError, PermissionError):
        return []
    return sorted(found, key=step_of)


def step_of(name: str) -> int:
    """Steps done when the checkpoint called ``step-N`` was made."""
    return int(name.removeprefix("step-"))


def best(run: RunDirectory) -> str | None:
    """Name of the best checkpoint by validation reward; None before the first validation."""
    try:
        text = (run.path / "best_model").read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError):
        return None
    return text if FOLDER.fullmatch(text) else None


def sha256(path: Path) -> str:
    """Hexadecimal digest of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _is_own_folder(path: Path) -> bool:
    """Not a link: rotating or setting it aside would then touch what lies elsewhere."""
    return path.is_dir() and not path.is_symlink()


def _looks_like_path(text: str) -> bool:
    return "/" in text or text.startswith(("~", ".")) or (Path(text) / ADAPTER_CONFIG).is_file()


def _at_path(folder: Path) -> NamedCheckpoint:
    if not folder.is_dir():
        raise UserError(
            "there is no such checkpoint folder",
            where=one_line(str(folder)),
            fix="`stonk-tui status RUN` lists a run's checkpoints",
        )
    run = RunDirectory(folder.parent.parent)
    is_of_run = folder.parent == run.checkpoints and (run.path / "run.yaml").is_file()
    return NamedCheckpoint(folder.name, folder, run if is_of_run else None)


def _in_run(text: str, run: RunDirectory) -> str:
    """The folder name that ``text`` means in ``run``."""
    if text == "best":
        if (name := best(run)) is None:
            raise UserError(
                f"run {run.id} has no best checkpoint before its first validation",
                fix="name one by its step, as step-100",
            )
        return name
    if text == "last":
        if not (known := names(run)):
            raise UserError(f"run {run.id} has no checkpoint yet", fix="save one first")
        return known[-1]
    if match := _STEP.fullmatch(text):
        return f"step-{int(match[1]):06d}"
    raise UserError(
        f"{one_line(text, 60)!r} is no checkpoint",
        fix="use base, best, last, step-N, RUN:step-N or a folder",
    )

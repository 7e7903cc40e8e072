"""How often each split has been looked at: ``<home>/evaluations.jsonl``.

Every look at a held-out split makes the next one tell less: the best of many checkpoints is the
luckiest as well as the best. So every evaluation is written down before its first prediction, and
what it found afterwards. The file is append-only, one JSON object a line, made durable under a
lock. Deleting a run deletes nothing here.

A split is known by its source, the data behind it and its definition: ``split_key``.
"""

import fcntl
import hashlib
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from engine.config import DataConfig
from engine.errors import UserError
from engine.runs.home import home
from engine.text import one_line

_DEFINITION = (
    "window",
    "horizon",
    "train_share",
    "validation_share",
    "embargo",
    "folds",
    "fold",
    "train_window",
)
"""Fields of a run's ``data`` section that decide which rows a split has."""


@dataclass(frozen=True)
class Usage:
    """What has been done with a split so far."""

    touches: int = 0
    """Evaluations."""
    checkpoints: frozenset[str] = frozenset()
    """Digests of what was evaluated."""
    sharpes: Mapping[str, float] | None = None
    """Daily Sharpe ratio of each checkpoint where one was found, by digest; the newest counts."""

    def others(self, checkpoints: Sequence[str]) -> tuple[float, ...]:
        """Sharpe ratios of all checkpoints but these."""
        known = self.sharpes or {}
        return tuple(value for digest, value in known.items() if digest not in checkpoints)


def path() -> Path:
    """The file."""
    return home() / "evaluations.jsonl"


def split_key(source: str, data_digest: str, split: str, data: DataConfig) -> str:
    """What the ledger calls a split.

    Args:
        source: the source string, its folder absolute.
        data_digest: SHA-256 of the prices that it delivered.
        data: the definition of the splits.
    """
    values = data.model_dump(mode="json")
    definition = {name: values[name] for name in _DEFINITION}
    text = json.dumps([source, data_digest, split, definition], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def touch(key: str, checkpoints: Sequence[str], about: Mapping[str, Any]) -> Usage:
    """Write down that the split ``key`` is looked at, and say how it has been used, this included.

    Args:
        checkpoints: digests of what is evaluated on it.
        about: what a person who reads the file wants to know: time, folder, source, split.

    Raises:
        UserError: the file is damaged or cannot be written.
    """
    with _locked() as file:
        _append(file, {"kind": "touch", "split": key, "checkpoints": [*checkpoints], **about})
        return _usage(file, key)


def found(key: str, sharpes: Mapping[str, float]) -> None:
    """Write down the daily Sharpe ratio of each checkpoint, by digest.

    Raises:
        UserError: the file cannot be written.
    """
    with _locked() as file:
        _append(file, {"kind": "found", "split": key, "sharpes": dict(sharpes)})


def usage(key: str) -> Usage:
    """How the split ``key`` has been used so far.

    Raises:
        UserError: the file is damaged.
    """
    with _locked() as file:
        return _usage(file, key)


@contextmanager
def _locked() -> Iterator[int]:
    """The open file, held by this process alone."""
    try:
        path().parent.mkdir(parents=True, exist_ok=True)
        file = os.open(path(), os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise UserError(
            f"the ledger of evaluations cannot be opened: {error.strerror}",
            where=str(path()),
            fix="every evaluation is counted there; make it writable, or set STONK_HOME elsewhere",
        ) from error
    try:
        # Held for a moment only, so waiting for it is right.
        fcntl.flock(file, fcntl.LOCK_EX)
        yield file
    finally:
        os.close(file)


def _append(file: int, entry: Mapping[str, Any]) -> None:
    text = _read(file)
    whole = text.rfind(b"\n") + 1
    if whole < len(text):
        # Half a line of a process that was killed while it wrote: it was never acted on.
        os.ftruncate(file, whole)
    line = json.dumps(entry, allow_nan=False).encode() + b"\n"
    try:
        if os.write(file, line) != len(line):
            raise UserError("the disk is full", where=str(path()))
        os.fsync(file)
    except OSError as error:
        raise UserError(
            f"the ledger of evaluations cannot be written: {error.strerror}",
            where=str(path()),
            fix="every evaluation is counted there; make it writable, or set STONK_HOME elsewhere",
        ) from error


def _usage(file: int, key: str) -> Usage:
    touches, checkpoints, sharpes = 0, set[str](), dict[str, float]()
    *lines, _ = _read(file).split(b"\n")
    for number, line in enumerate(lines, start=1):
        try:
            entry = json.loads(line)
            if entry["split"] != key:
                continue
            if entry["kind"] == "touch":
                touches += 1
                checkpoints.update(map(str, entry["checkpoints"]))
            else:
                sharpes |= {str(k): float(v) for k, v in entry["sharpes"].items()}
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise UserError(
                "this line of the ledger of evaluations cannot be read",
                where=one_line(f"{path()}:{number}"),
                fix="put it back as it was",
            ) from error
    return Usage(touches, frozenset(checkpoints), sharpes)


def _read(file: int) -> bytes:
    return os.pread(file, os.fstat(file).st_size, 0)

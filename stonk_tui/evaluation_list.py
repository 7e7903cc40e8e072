"""The evaluations that a run's folder holds: each with its report, or with what is wrong with it.

Reports are files that anybody may have written: whoever shows one takes every value for any type.
"""

import datetime as dt
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from textual.message import Message

from engine.errors import UserError
from engine.runs.directory import RunDirectory
from engine.runs.reader import StoreReader
from stonk_tui.widgets.figures import known

REPORT = "report.json"
CONTEXT = "evaluation.json"
MAX_BYTES = 16 * 2**20
MAX_LISTED = 200
_FOLDER = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
_STAMP = re.compile(r"(\d{8}-\d{6})-.*")


@dataclass(frozen=True)
class Past:
    """One evaluation."""

    id: str
    folder: Path
    report: Mapping[str, Any] | None = None
    """Contents of ``report.json``; None where there is none that can be read."""
    context: Mapping[str, Any] = field(default_factory=dict)
    """What was evaluated: as the report has it, else from ``evaluation.json``."""
    problem: str = ""
    """Why there is no report."""

    @property
    def began(self) -> float | None:
        """Seconds since 1970, out of the folder's name, which has them in local time."""
        match = _STAMP.fullmatch(self.id)
        try:
            return dt.datetime.strptime(match[1], "%Y%m%d-%H%M%S").timestamp() if match else None
        except (ValueError, OverflowError, OSError):
            return None

    @property
    def source(self) -> object:
        return self.context.get("source")

    @property
    def split(self) -> object:
        return self.context.get("split")

    @property
    def num_examples(self) -> int | None:
        return _count(self.context.get("num_examples"))

    @property
    def is_unfinished(self) -> bool:
        """Whether it can be gone on with."""
        return self.report is None and bool(self.context) and not self.context.get("finished")

    @property
    def is_whole(self) -> bool:
        """Whether all examples of the split were in it."""
        asked = self.context.get("request")
        return isinstance(asked, Mapping) and not asked.get("examples") and not asked.get("tickers")

    @property
    def touches(self) -> int | None:
        """How often the split had been evaluated then."""
        return _count(self.context.get("touches"))

    @property
    def seconds_a_prediction(self) -> float | None:
        """Wall time of the whole, spread over its predictions."""
        checkpoints = self.context.get("checkpoints")
        seconds, samples = known(self.context.get("seconds")), _count(self.context.get("samples"))
        if not isinstance(checkpoints, list) or not seconds or not samples:
            return None
        predictions = len(checkpoints) * samples * (self.num_examples or 0)
        return seconds / predictions if predictions else None


class EvaluationList:
    """Reads what changed since it was last asked; used by one thread at a time."""

    def __init__(self) -> None:
        self._read: dict[Path, tuple[object, Past]] = {}

    def of(self, run: RunDirectory) -> tuple[Past, ...]:
        """The newest evaluations of ``run``, the newest first.

        Raises:
            OSError: the run's folder cannot be looked at.
        """
        parent = run.path / "evaluation"
        if not parent.is_dir():
            return ()
        folders = [path for path in parent.iterdir() if _FOLDER.fullmatch(path.name)]
        newest = sorted((path for path in folders if path.is_dir()), reverse=True)[:MAX_LISTED]
        read: dict[Path, tuple[object, Past]] = {}
        for folder in newest:
            mark = tuple(_mark(folder / name) for name in (REPORT, CONTEXT))
            before = self._read.get(folder)
            read[folder] = before if before and before[0] == mark else (mark, _past(folder))
        self._read = read
        return tuple(past for _, past in read.values())


@dataclass
class Looked(Message, bubble=False):
    """What there is on disk."""

    run: RunDirectory
    past: tuple[Past, ...] | None
    """None: not looked for."""
    draft: Mapping[str, Any] | None
    """How far the one that runs is."""
    is_alive: bool
    """Whether a process is there that could predict."""
    problem: str
    """Why it could not be looked at."""


def look(
    run: RunDirectory, evaluations: EvaluationList, identifier: str, *, with_list: bool
) -> Looked:
    """Look once.

    Args:
        run: whose evaluations are meant.
        evaluations: what was read before.
        identifier: of the one that runs; empty where none does.
        with_list: whether the folders are looked at, too.
    """
    past: tuple[Past, ...] | None = None
    draft: Mapping[str, Any] | None = None
    problem = ""
    try:
        past = evaluations.of(run) if with_list else None
        draft = _draft(run, identifier) if identifier else None
    except (UserError, OSError, ValueError) as error:
        problem = str(error)
    is_alive = run.worker() is not None or run.prober() is not None
    return Looked(run, past, draft, is_alive, problem)


def _draft(run: RunDirectory, identifier: str) -> Mapping[str, Any] | None:
    """How far the evaluation that was begun as ``identifier`` is."""
    try:
        reader = StoreReader(run.database)
    except FileNotFoundError:
        return None
    try:
        return reader.draft(identifier)
    finally:
        reader.close()


def _mark(path: Path) -> tuple[int, int, int] | None:
    """What changes when a file does."""
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_ino, status.st_size, status.st_mtime_ns


def _past(folder: Path) -> Past:
    context, _ = _contents(folder / CONTEXT)
    report, problem = _contents(folder / REPORT)
    if report is not None and isinstance(report.get("context"), Mapping):
        context = report["context"]
    return Past(folder.name, folder, report, context or {}, problem)


def _contents(path: Path) -> tuple[Mapping[str, Any] | None, str]:
    """(the mapping in a file, why there is none)."""
    try:
        if path.stat().st_size > MAX_BYTES:
            return None, f"{path.name} is larger than {MAX_BYTES // 2**20} MiB"
        contents = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None, f"{path.name} is not there"
    except OSError as error:
        return None, f"{path.name} cannot be read: {error.strerror}"
    except (ValueError, RecursionError) as error:
        return None, f"{path.name} is damaged: {error}"
    if not isinstance(contents, Mapping):
        return None, f"{path.name} is damaged: it holds no mapping"
    return contents, ""


def _count(value: object) -> int | None:
    number = known(value)
    return int(number) if number is not None and number >= 1 else None

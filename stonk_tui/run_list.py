"""What is known of all runs, kept up to date with bounded reads.

Used from one thread at a time. A run whose files have not changed since the last look is not
read again; of one that has, its summary alone is read, however long its history.
"""

import sqlite3
from collections.abc import Callable
from dataclasses import dataclass, field

from engine.config import RunConfig
from engine.errors import UserError
from engine.runs import directory, stage1
from engine.runs.directory import RunDirectory
from engine.runs.history import TERMINAL_STATES, History
from engine.runs.reader import StoreReader
from engine.runs.status import effective_state
from engine.runs.summary import Summary, read_summary
from stonk_tui.run_filter import Subject

GOING = ("starting", "warming_up", "training", "paused", "evaluating", "stopping")
_FIRST = 16

_Signature = tuple[tuple[int, int], ...]


@dataclass(frozen=True)
class Listed:
    """One run as the table shows it."""

    run: RunDirectory
    state: str
    """Corrected by whether the worker lives."""
    detail: str = ""
    summary: Summary = field(default_factory=Summary)
    config: RunConfig | None = None
    parent: str = ""
    """Of a Stage II run: the run it was promoted from."""
    problem: str = ""
    """Why it, or a part of it, cannot be read."""

    @property
    def model(self) -> str:
        """Name of the base model without its organisation; empty where it is not known."""
        return self.config.model.id.rpartition("/")[2] if self.config else ""

    @property
    def stage(self) -> str:
        return self.config.stage if self.config else ""

    @property
    def subject(self) -> Subject:
        """What the filter looks at."""
        return Subject(
            name=self.run.id,
            model=self.config.model.id if self.config else "",
            tickers=self.summary.tickers,
            state="unreadable" if self.problem else self.state,
            stage=self.stage,
        )


@dataclass
class _Known:
    """What was read of one run, and what its files looked like then."""

    config_seen: _Signature = ()
    store_seen: _Signature = ()
    config: RunConfig | None = None
    parent: str = ""
    summary: Summary = field(default_factory=Summary)
    config_problem: str = ""
    store_problem: str = ""


class RunList:
    """Look at all runs again and again."""

    def __init__(self) -> None:
        self._known: dict[str, _Known] = {}

    def look(self, show: Callable[[list[Listed], bool], object]) -> None:
        """Read what is new and hand over all runs, newest first.

        Args:
            show: called with the runs and whether these are all; the first time with the newest
                ones as soon as they are read.

        Raises:
            OSError: the folder of runs cannot be read.
        """
        runs = directory.list_runs()
        is_first = not self._known
        listed: list[Listed] = []
        for run in runs:
            listed.append(self._look_at(run))
            if is_first and len(listed) == _FIRST < len(runs):
                show(list(listed), False)
        gone = self._known.keys() - {run.id for run in runs}
        for identifier in gone:
            del self._known[identifier]
        show(listed, True)

    def _look_at(self, run: RunDirectory) -> Listed:
        known = self._known.setdefault(run.id, _Known())
        config_seen = _signature(run, "run.yaml", "promotion.json")
        if config_seen != known.config_seen:
            known.config_seen = config_seen
            _read_config(run, known)
        # Before the read: what is written meanwhile is a change to be seen next time.
        store_seen = _signature(run, "events.db", "events.db-wal")
        if store_seen != known.store_seen:
            known.store_seen = store_seen
            _read_store(run, known)
        summary = known.summary
        alive = summary.state not in TERMINAL_STATES and run.worker() is not None
        told = History(last_seq=summary.last_seq, state=summary.state, detail=summary.detail)
        state, detail = effective_state(run, told, alive=alive)
        return Listed(
            run=run,
            state=state,
            detail=detail,
            summary=summary,
            config=known.config,
            parent=known.parent,
            problem=known.config_problem or known.store_problem,
        )


def _read_config(run: RunDirectory, known: _Known) -> None:
    try:
        known.config = run.config()
        known.parent = str((stage1.record(run) or {}).get("parent") or "")
        known.config_problem = ""
    except UserError as error:
        known.config_problem = error.what


def _read_store(run: RunDirectory, known: _Known) -> None:
    try:
        reader = StoreReader(run.database)
        try:
            known.summary = read_summary(reader)
        finally:
            reader.close()
        known.store_problem = ""
    except FileNotFoundError:
        known.summary, known.store_problem = Summary(), ""
    except UserError as error:
        known.store_problem = error.what
    # A store of another version, or of another program, may hold anything.
    except (sqlite3.Error, OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        known.store_problem = f"cannot be read: {error}"
    if known.store_problem:
        # It may only have been busy.
        known.store_seen = ()


def _signature(run: RunDirectory, *names: str) -> _Signature:
    """Size and time of files; what is missing or empty has none."""
    signature = []
    for name in names:
        try:
            status = (run.path / name).stat()
        except OSError:
            signature.append((0, 0))
            continue
        # Looking at a store leaves an empty log of changes beside it.
        signature.append((status.st_size, status.st_mtime_ns) if status.st_size else (0, 0))
    return tuple(signature)

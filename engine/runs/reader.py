"""The reading side of a run's event store: read-only, short reads, no open cursors.

An open cursor would pin the write-ahead log and let it grow, so every call reads
all its rows and is done. Text comes back raw: whoever shows it sanitizes it.
"""

import errno
import json
import os
import sqlite3
from array import array
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic_core import from_json

from engine.config import SCHEMA_VERSION
from engine.errors import UserError

if TYPE_CHECKING:
    from engine.runs.rollout_filter import Filter, Order


@dataclass(frozen=True)
class Event:
    """One row of the log."""

    seq: int
    attempt: int
    time: float
    kind: str
    step: int
    payload: Mapping[str, Any]

    @classmethod
    def of(cls, row: tuple[Any, ...]) -> "Event":
        """The event in a row of the table, its columns in the order of these fields."""
        # A cockpit that attaches reads thousands of these before its first paint, and this parser
        # takes a third of the time of the standard one.
        seq, attempt, time, kind, step, payload = row
        return cls(seq, attempt, time, kind, step, from_json(payload, cache_strings="keys"))


@dataclass(frozen=True)
class Rollout:
    """One stored rollout with the prompt it answers."""

    id: int
    attempt: int
    step: int
    group: int
    sample: int
    completion: str
    tokens: int
    finished: bool
    reward: float
    advantage: float
    prediction: Mapping[str, Any]
    components: tuple[Mapping[str, Any], ...]
    cited: tuple[tuple[int, int], ...]
    prompt: str
    subject: Mapping[str, Any]


_ROLLOUT = (
    "SELECT r.id, r.attempt, r.step, r.grp, r.sample, r.completion, r.tokens, r.finished,"
    " r.reward, r.advantage, r.prediction, r.components, r.cited, p.text, p.subject"
    " FROM rollouts r JOIN prompts p ON p.id = r.prompt_id"
)

SALVAGE = "put a copy of it back, or keep what you need of checkpoints/ and delete the run"
"""What to do about a store that is damaged."""
_BUSY = (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)

# Older versions of SQLite take no more than 999 in a query.
_PARAMETERS = 500


class StoreReader:
    """Read one run's store while its worker writes, or after."""

    def __init__(self, path: Path) -> None:
        """Open the store read-only.

        Raises:
            FileNotFoundError: the worker has not created it yet.
            UserError: written by a newer version, or damaged.
        """
        if not path.exists():
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(path))
        self._path = path
        try:
            self._connection = sqlite3.connect(
                f"{path.resolve().as_uri()}?mode=ro{_immutable(path)}",
                uri=True,
                check_same_thread=False,
                timeout=5,
            )
        except sqlite3.OperationalError as error:
            raise _not_opened(path) from error
        try:
            row = self._connection.execute("SELECT value FROM meta WHERE key = 'schema'").fetchone()
        except sqlite3.OperationalError as error:
            self._connection.close()
            if getattr(error, "sqlite_errorcode", 0) & 0xFF == sqlite3.SQLITE_CANTOPEN:
                raise _not_opened(path) from error
            # Between creating the file and its tables, the store is not there yet.
            raise FileNotFoundError(path) from error
        except sqlite3.DatabaseError as error:
            self._connection.close()
            raise UserError("the run's store is damaged", where=str(path), fix=SALVAGE) from error
        if int(row[0]) > SCHEMA_VERSION:
            self._connection.close()
            raise UserError(
                "this run was written by a newer stonk-tui", where=str(path), fix="update stonk-tui"
            )

    def events(self, after: int = 0, limit: int = 2000) -> list[Event]:
        """Events with ``seq > after`` in order, superseded ones left out."""
        rows = self.rows(
            "SELECT seq, attempt, time, kind, step, payload FROM events"
            " WHERE seq > ? AND superseded = 0 ORDER BY seq LIMIT ?",
            (after, limit),
        )
        return [Event.of(row) for row in rows]

    def events_of(self, kind: str) -> list[Event]:
        """All events of one kind in order, superseded ones left out."""
        rows = self.rows(
            "SELECT seq, attempt, time, kind, step, payload FROM events"
            " WHERE kind = ? AND superseded = 0 ORDER BY seq",
            (kind,),
        )
        return [Event.of(row) for row in rows]

    def draft(self, identifier: str) -> Mapping[str, Any] | None:
        """How far the answer to a command is; None before its first word and after its last."""
        if not self.rows("SELECT 1 FROM sqlite_master WHERE name = 'drafts'"):
            return None
        rows = self.rows("SELECT payload FROM drafts WHERE id = ?", (identifier,))
        return from_json(rows[0][0]) if rows else None

    def last_seq(self) -> int:
        """``seq`` of the newest event, superseded or not; 0 where there is none."""
        ((last,),) = self.rows("SELECT max(seq) FROM events")
        return last or 0

    def last_rollout(self) -> int:
        """Id of the newest rollout, superseded or not; 0 where there is none."""
        ((last,),) = self.rows("SELECT max(id) FROM rollouts")
        return last or 0

    @property
    def has_curves(self) -> bool:
        """Whether a worker has made this store quick to read; older versions did not."""
        return bool(self.rows("SELECT 1 FROM sqlite_master WHERE name = 'curves'"))

    @contextmanager
    def snapshot(self) -> Iterator[None]:
        """Let several reads see one state of the store; brief, for the log grows meanwhile."""
        self.rows("BEGIN")
        try:
            yield
        finally:
            self._connection.rollback()

    def newest_rollouts(self, limit: int = 64, before: int | None = None) -> list[Rollout]:
        """The newest rollouts, newest step first, in group order inside a step.

        Args:
            limit: rows at most.
            before: only steps below this one, for paging back.
        """
        rows = self.rows(
            f"{_ROLLOUT} WHERE r.superseded = 0 AND r.step < ?"
            " ORDER BY r.step DESC, r.grp, r.sample LIMIT ?",
            (before if before is not None else 2**62, limit),
        )
        return [_rollout(row) for row in rows]

    def rollout(self, identifier: int) -> Rollout | None:
        """One rollout by its id."""
        rows = self.rows(f"{_ROLLOUT} WHERE r.id = ?", (identifier,))
        return _rollout(rows[0]) if rows else None

    def rollouts(self, identifiers: Sequence[int]) -> list[Rollout]:
        """The rollouts with these ids, in this order; ids that are not there are left out."""
        found: dict[int, Rollout] = {}
        for start in range(0, len(identifiers), _PARAMETERS):
            page = tuple(identifiers[start : start + _PARAMETERS])
            rows = self.rows(f"{_ROLLOUT} WHERE r.id IN ({', '.join('?' * len(page))})", page)
            found |= {row[0]: _rollout(row) for row in rows}
        return [found[identifier] for identifier in identifiers if identifier in found]

    def rollout_ids(
        self, selection: "Filter", order: "Order", limit: int | None = None
    ) -> "array[int]":
        """Ids of the rollouts that pass a filter, in order.

        Eight bytes each, so that a list of any length can be held, counted and walked through
        while the rollouts themselves are read a page at a time, by these keys. Without a limit
        all rollouts are looked at: 0.2 to 0.4 s for 200,000, several seconds with a pattern.
        """
        # Imported when first needed: a cockpit that opens has no filter yet.
        from engine.runs.rollout_filter import matcher

        self._connection.create_function(
            "matches", 2, matcher(selection.patterns), deterministic=True
        )
        rows = self.rows(
            f"SELECT r.id FROM rollouts r WHERE {selection.where} ORDER BY {order.sql} LIMIT ?",
            (*selection.parameters, -1 if limit is None else limit),
        )
        return array("q", (identifier for (identifier,) in rows))

    def num_rollouts(self) -> int:
        """How many rollouts there are, replayed ones left out."""
        ((count,),) = self.rows("SELECT count(*) FROM rollouts WHERE superseded = 0")
        return int(count)

    def group(self, step: int, group: int) -> list[Rollout]:
        """All completions of one prompt at one step, in sample order."""
        rows = self.rows(
            f"{_ROLLOUT} WHERE r.superseded = 0 AND r.step = ? AND r.grp = ? ORDER BY r.sample",
            (step, group),
        )
        return [_rollout(row) for row in rows]

    def siblings(self, rollout: Rollout) -> list[Rollout]:
        """``rollout`` and the others of its group, in sample order, replayed or not."""
        rows = self.rows(
            f"{_ROLLOUT} WHERE r.step = ? AND r.grp = ? AND r.attempt = ? ORDER BY r.sample",
            (rollout.step, rollout.group, rollout.attempt),
        )
        return [_rollout(row) for row in rows]

    def num_groups(self, rollout: Rollout) -> int:
        """How many prompts the step of ``rollout`` had."""
        ((count,),) = self.rows(
            "SELECT count(DISTINCT grp) FROM rollouts WHERE step = ? AND attempt = ?",
            (rollout.step, rollout.attempt),
        )
        return int(count)

    def interrupt(self) -> None:
        """End the query that another thread has running; it raises UserError there."""
        self._connection.interrupt()

    def span(self) -> tuple[int, int]:
        """First and last ``seq`` of the log; (0, 0) where it is empty."""
        ((first, last),) = self.rows("SELECT min(seq), max(seq) FROM events")
        return first or 0, last or 0

    def of_kind(
        self, kind: str, first: int, last: int, limit: int, *, newest: bool = False
    ) -> list[Event]:
        """At most ``limit`` events of ``kind`` with ``first <= seq <= last``.

        Args:
            kind: only events of this kind.
            first: together with ``last`` this bounds how much of the log is looked at.
            last: see ``first``.
            limit: rows at most.
            newest: the last ones, newest first, instead of the first ones.
        """
        rows = self.rows(
            "SELECT seq, attempt, time, kind, step, payload FROM events"
            " WHERE seq BETWEEN ? AND ? AND kind = ? AND superseded = 0"
            f" ORDER BY seq {'DESC' if newest else 'ASC'} LIMIT ?",
            (first, last, kind, limit),
        )
        return [
            Event(seq, attempt, time, name, step, from_json(payload, cache_strings="keys"))
            for seq, attempt, time, name, step, payload in rows
        ]

    def newest_subjects(self, limit: int) -> list[Mapping[str, Any]]:
        """What the newest prompts were about, newest first."""
        rows = self.rows("SELECT subject FROM prompts ORDER BY id DESC LIMIT ?", (limit,))
        return [from_json(subject, cache_strings="keys") for (subject,) in rows]

    def metrics(
        self, kind: str, names: Sequence[str], after: int = 0, limit: int = 2000
    ) -> list[tuple[int, int, tuple[Any, ...]]]:
        """(seq, step, values of ``names``) of events of ``kind`` with ``seq > after``, in order.

        The values alone leave SQLite, so that this reads a long run several times as fast as
        ``events``; one that is missing is None.
        """
        columns = "".join(", json_extract(payload, ?)" for _ in names)
        rows = self.rows(
            f"SELECT seq, step{columns} FROM events"
            " WHERE seq > ? AND kind = ? AND superseded = 0 ORDER BY seq LIMIT ?",
            (*(f'$.metrics."{name}"' for name in names), after, kind, limit),
        )
        return [(seq, step, tuple(values)) for seq, step, *values in rows]

    def close(self) -> None:
        """Release the database."""
        self._connection.close()

    def rows(self, query: str, parameters: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
        """All rows of a query, for modules that know the schema.

        Raises:
            UserError: the store cannot be read.
        """
        try:
            return self._connection.execute(query, parameters).fetchall()
        except sqlite3.DatabaseError as error:
            code = getattr(error, "sqlite_errorcode", 0) & 0xFF
            raise UserError(
                f"the run's store cannot be read ({error})",
                where=str(self._path),
                fix="try again in a moment" if code in _BUSY else SALVAGE,
            ) from error


def _not_opened(path: Path) -> UserError:
    return UserError(
        "the run's store cannot be opened",
        where=str(path),
        fix="see whether folder and file are yours",
    )


def _immutable(path: Path) -> str:
    """What lets SQLite read a store that nobody can write, such as on a disk mounted read-only.

    It would make files beside the store otherwise. Nothing may be left in a write-ahead log.
    """
    log = Path(f"{path}-wal")
    has_log = log.exists() and log.stat().st_size > 0
    return "" if has_log or os.access(path.parent, os.W_OK) else "&immutable=1"


def _event(row: tuple[Any, ...]) -> Event:
    seq, attempt, time, kind, step, payload = row
    # A cockpit that attaches reads thousands of these before its first paint, and this parser
    # takes a third of the time of the standard one.
    return Event(seq, attempt, time, kind, step, from_json(payload, cache_strings="keys"))


def _rollout(row: tuple[Any, ...]) -> Rollout:
    (identifier, attempt, step, group, sample, completion, tokens, finished, reward, advantage) = (
        row[:10]
    )
    prediction, components, cited, prompt, subject = row[10:]
    return Rollout(
        id=identifier,
        attempt=attempt,
        step=step,
        group=group,
        sample=sample,
        completion=completion,
        tokens=tokens,
        finished=bool(finished),
        reward=reward,
        advantage=advantage,
        prediction=json.loads(prediction),
        components=tuple(json.loads(components)),
        cited=tuple((start, end) for start, end in json.loads(cited)),
        prompt=prompt,
        subject=json.loads(subject),
    )

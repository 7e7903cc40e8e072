"""The reading side of a run's event store: read-only, short reads, no open cursors.

An open cursor would pin the write-ahead log and let it grow, so every call reads
all its rows and is done. Text comes back raw: whoever shows it sanitizes it.
"""

import json
import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic_core import from_json

from engine.config import SCHEMA_VERSION
from engine.errors import UserError


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


class StoreReader:
    """Read one run's store while its worker writes, or after."""

    def __init__(self, path: Path) -> None:
        """Open the store read-only.

        Raises:
            FileNotFoundError: the worker has not created it yet.
            UserError: written by a newer version, or damaged.
        """
        if not path.exists():
            raise FileNotFoundError(path)
        self._path = path
        self._connection = sqlite3.connect(
            f"{path.resolve().as_uri()}?mode=ro", uri=True, check_same_thread=False, timeout=5
        )
        try:
            row = self._connection.execute("SELECT value FROM meta WHERE key = 'schema'").fetchone()
        except sqlite3.OperationalError as error:
            self._connection.close()
            # Between creating the file and its tables, the store is not there yet.
            raise FileNotFoundError(path) from error
        except sqlite3.DatabaseError as error:
            self._connection.close()
            raise UserError("the run's store is damaged", where=str(path)) from error
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

    def group(self, step: int, group: int) -> list[Rollout]:
        """All completions of one prompt at one step, in sample order."""
        rows = self.rows(
            f"{_ROLLOUT} WHERE r.superseded = 0 AND r.step = ? AND r.grp = ? ORDER BY r.sample",
            (step, group),
        )
        return [_rollout(row) for row in rows]

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
            raise UserError(
                f"the run's store cannot be read ({error})", where=str(self._path)
            ) from error


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

"""The reading side of a run's event store: read-only, short reads, no open cursors.

An open cursor would pin the write-ahead log and let it grow, so every call reads
all its rows and is done. Text comes back raw: whoever shows it sanitizes it.
"""

import json
import sqlite3
from collections.abc import Mapping
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
        rows = self._all(
            "SELECT seq, attempt, time, kind, step, payload FROM events"
            " WHERE seq > ? AND superseded = 0 ORDER BY seq LIMIT ?",
            (after, limit),
        )
        # A cockpit that attaches reads thousands of these before its first paint, and this parser
        # takes a third of the time of the standard one.
        return [
            Event(seq, attempt, time, kind, step, from_json(payload, cache_strings="keys"))
            for seq, attempt, time, kind, step, payload in rows
        ]

    def last_seq(self) -> int:
        """Sequence number of the newest event; 0 before the first."""
        return int(self._all("SELECT coalesce(max(seq), 0) FROM events")[0][0])

    def draft(self, identifier: str) -> Mapping[str, Any] | None:
        """How far the answer to a command is; None before its first word and after its last."""
        if not self._all("SELECT 1 FROM sqlite_master WHERE name = 'drafts'"):
            return None
        rows = self._all("SELECT payload FROM drafts WHERE id = ?", (identifier,))
        return from_json(rows[0][0]) if rows else None

    def newest_rollouts(self, limit: int = 64, before: int | None = None) -> list[Rollout]:
        """The newest rollouts, newest step first, in group order inside a step.

        Args:
            limit: rows at most.
            before: only steps below this one, for paging back.
        """
        rows = self._all(
            f"{_ROLLOUT} WHERE r.superseded = 0 AND r.step < ?"
            " ORDER BY r.step DESC, r.grp, r.sample LIMIT ?",
            (before if before is not None else 2**62, limit),
        )
        return [_rollout(row) for row in rows]

    def rollout(self, identifier: int) -> Rollout | None:
        """One rollout by its id."""
        rows = self._all(f"{_ROLLOUT} WHERE r.id = ?", (identifier,))
        return _rollout(rows[0]) if rows else None

    def group(self, step: int, group: int) -> list[Rollout]:
        """All completions of one prompt at one step, in sample order."""
        rows = self._all(
            f"{_ROLLOUT} WHERE r.superseded = 0 AND r.step = ? AND r.grp = ? ORDER BY r.sample",
            (step, group),
        )
        return [_rollout(row) for row in rows]

    def close(self) -> None:
        """Release the database."""
        self._connection.close()

    def _all(self, query: str, parameters: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
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

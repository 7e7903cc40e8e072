"""The writing side of a run's event store; only the worker opens it.

One thread owns the only read-write connection, because a durable commit can take
tens of milliseconds. Its queue is bounded: a full queue slows training down and
drops nothing. Rows are committed in batches of 64 or after 50 ms, whichever is
first; ``flush`` waits until everything before it is durable.

A disk that is full or fails (``engine.runs.disk``) ends nothing: the batch stays, and is tried
again until it is written. Any other error breaks the store, and with it the run.
"""

import json
import queue
import sqlite3
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

from engine.config import SCHEMA_VERSION
from engine.errors import UserError
from engine.runs import curves, disk
from engine.runs.disk import Ballast
from engine.runs.history import TRAINING_KINDS
from engine.secrets import mask, masked
from engine.task import ComponentScore, Json
from engine.text import escape_surrogates

_BATCH_ROWS = 64
_BATCH_SECONDS = 0.05
_QUEUE_ROWS = 4096
_RETRY_SECONDS = 0.5
_DRAFTS = "CREATE TABLE IF NOT EXISTS drafts (id TEXT PRIMARY KEY, payload TEXT NOT NULL) STRICT"


@dataclass(frozen=True)
class RolloutRecord:
    """One rollout on its way into the store."""

    group: int
    sample: int
    prompt: str
    subject: Mapping[str, Json]
    completion: str
    tokens: int
    finished: bool
    reward: float
    advantage: float
    prediction: Mapping[str, Json]
    components: tuple[ComponentScore, ...]
    cited: tuple[tuple[int, int], ...]


class EventStore:
    """Append events, rollouts and commands of one run."""

    def __init__(
        self, path: Path, *, begins_attempt: bool = True, ballast: Ballast | None = None
    ) -> None:
        """Open or create the store at ``path``.

        Args:
            begins_attempt: for a worker that trains. Who only adds to what was trained writes
                under the newest attempt and step.
            ballast: given up when the disk is full.

        Raises:
            UserError: it cannot be written here.
        """
        self._work: queue.Queue[_Job | None] = queue.Queue(_QUEUE_ROWS)
        self._broken: Exception | None = None
        self._ballast = ballast
        self._is_stuck = False
        self._is_closing = threading.Event()
        self.shortage: str | None = None
        """What is wrong with the disk and what to do, until ``has_recovered`` says otherwise."""
        connection = _open_with_room(path, ballast)
        newest, step = connection.execute(
            "SELECT coalesce(max(attempt), 0), coalesce(max(step) FILTER (WHERE superseded = 0), 0)"
            " FROM events"
        ).fetchone()
        self.attempt = int(newest) + begins_attempt
        """Number of this worker among all that trained the run, from 1."""
        self._step = 0 if begins_attempt else int(step)
        self._listener: Callable[[str, Mapping[str, Json], int], None] | None = None
        self._thread = threading.Thread(
            target=self._write, args=(connection,), name="store-writer", daemon=True
        )
        self._thread.start()

    def listen(self, listener: Callable[[str, Mapping[str, Json], int], None]) -> None:
        """Call ``listener`` with kind, payload and step of every event from now on."""
        self._listener = listener

    def event(self, kind: str, payload: Mapping[str, Json], *, step: int | None = None) -> None:
        """Append one event; ``step`` becomes the current step of all that follow."""
        if step is not None:
            self._step = step
        self._put(self._inserting(kind, payload))
        if self._listener is not None:
            self._listener(kind, payload, self._step)

    def _inserting(
        self, kind: str, payload: Mapping[str, Json]
    ) -> Callable[[sqlite3.Connection], None]:
        """What inserts an event that happens now."""
        row = (self.attempt, time.time(), kind, self._step, _dump(payload))

        def insert(db: sqlite3.Connection) -> None:
            db.execute(
                "INSERT INTO events (attempt, time, kind, step, payload) VALUES (?, ?, ?, ?, ?)",
                row,
            )
            if kind == "step":
                curves.extend(db, row[3])

        return insert

    def rollouts(self, step: int, records: Sequence[RolloutRecord]) -> None:
        """Append the rollouts of one step; a group's prompt is stored once."""

        def insert(db: sqlite3.Connection) -> None:
            prompts: dict[int, int | None] = {}
            for record in records:
                if record.group not in prompts:
                    prompts[record.group] = db.execute(
                        "INSERT INTO prompts (text, subject) VALUES (?, ?)",
                        (_text(record.prompt), _dump(record.subject)),
                    ).lastrowid
                components = [vars(component) for component in record.components]
                db.execute(
                    "INSERT INTO rollouts (attempt, step, grp, sample, prompt_id, completion,"
                    " tokens, finished, reward, advantage, prediction, components, cited)"
                    " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                    (
                        self.attempt,
                        step,
                        record.group,
                        record.sample,
                        prompts[record.group],
                        _text(record.completion),
                        record.tokens,
                        record.finished,
                        record.reward,
                        record.advantage,
                        _dump(record.prediction),
                        _dump(components),
                        _dump(record.cited),
                    ),
                )

        self._put(insert)

    def supersede_after(self, step: int) -> None:
        """Mark step results and rollouts after ``step`` as replayed; nothing is deleted.

        What a person asked a checkpoint stays asked, and what was evaluated stays evaluated.
        """

        def mark(db: sqlite3.Connection) -> None:
            db.execute(
                "UPDATE events SET superseded = 1"
                " WHERE step > ? AND kind NOT IN ('probe', 'evaluation')",
                (step,),
            )
            db.execute("UPDATE rollouts SET superseded = 1 WHERE step > ?", (step,))
            curves.cut_after(db, step)

        self._put(mark)

    def begin_anew(self) -> None:
        """Mark all that earlier workers trained as replayed, and say so: both or neither.

        For a worker that finds no checkpoint to go on from. Where nothing was trained, nothing
        happens.
        """
        self._step = 0
        insert = self._inserting("resumed", {"from_step": 0, "anew": True})

        def mark(db: sqlite3.Connection) -> None:
            kinds = ", ".join("?" * len(TRAINING_KINDS))
            marked = db.execute(
                "UPDATE events SET superseded = 1 WHERE superseded = 0 AND attempt < ?"
                f" AND (kind IN ({kinds}) OR step > 0 AND kind <> 'probe')",
                (self.attempt, *TRAINING_KINDS),
            )
            db.execute("UPDATE rollouts SET superseded = 1 WHERE attempt < ?", (self.attempt,))
            curves.cut_after(db, 0)
            if marked.rowcount:
                insert(db)

        self._put(mark)

    def draft(self, identifier: str, payload: Mapping[str, Json] | None) -> None:
        """Show how far the answer to a command is; the last one alone is kept, None removes it."""
        text = None if payload is None else _dump(payload)

        def write(db: sqlite3.Connection) -> None:
            if text is None:
                db.execute("DELETE FROM drafts WHERE id = ?", (identifier,))
            else:
                db.execute("INSERT OR REPLACE INTO drafts VALUES (?, ?)", (identifier, text))

        self._put(write)

    def command(self, identifier: str, verb: str, args: Mapping[str, Json]) -> bool:
        """Persist a command durably; False when its id is known already."""

        # Here, so that what cannot be written is refused to its sender and breaks no store.
        row = (identifier, time.time(), verb, _dump(args))

        def insert(db: sqlite3.Connection) -> bool:
            cursor = db.execute(
                "INSERT OR IGNORE INTO commands (id, time, verb, args) VALUES (?, ?, ?, ?)", row
            )
            return cursor.rowcount == 1

        return bool(self._put(insert, durable=True).result())

    def unanswered_commands(self) -> list[tuple[str, str, bool]]:
        """(id, verb, whether it was carried out) of those that no event answered, oldest first.

        A worker may be killed after an event that tells what a command did, and before its answer.
        """

        def select(db: sqlite3.Connection) -> list[tuple[str, str, int]]:
            return db.execute(
                "SELECT id, verb, EXISTS (SELECT 1 FROM events"
                " WHERE kind IN ('settings', 'probe') AND superseded = 0 AND commands.id"
                " IN (json_extract(payload, '$.command'), json_extract(payload, '$.id')))"
                " FROM commands WHERE answered = 0 ORDER BY rowid"
            ).fetchall()

        rows: list[tuple[str, str, int]] = self._put(select, durable=True).result()
        return [(identifier, verb, bool(done)) for identifier, verb, done in rows]

    def answer(self, identifier: str, verb: str, *, ok: bool, message: str) -> None:
        """Record what became of a command, and tell everyone who watches: both or neither."""
        payload: dict[str, Json] = {"id": identifier, "verb": verb, "ok": ok, "message": message}
        insert = self._inserting("command", payload)

        def update(db: sqlite3.Connection) -> None:
            db.execute(
                "UPDATE commands SET answered = 1, ok = ?, answer = ? WHERE id = ?",
                (ok, _text(message), identifier),
            )
            insert(db)

        self._put(update)
        if self._listener is not None:
            self._listener("command", payload, self._step)

    def has_recovered(self) -> bool:
        """Whether the disk takes all that is recorded, and has room for the ballast again."""
        if self._is_stuck or (self._ballast is not None and not self._ballast.lay()):
            return False
        self.shortage = None
        return True

    def flush(self, *, patient: bool = True) -> bool:
        """Wait until everything recorded so far is durable; whether it is.

        Args:
            patient: wait for as long as the disk is full too.
        """
        written = self._put(lambda db: None, durable=True)
        while patient or not self._is_stuck:
            try:
                written.result(timeout=_RETRY_SECONDS)
            except TimeoutError:
                continue
            return True
        return False

    def close(self) -> None:
        """Flush and release the database; what a full disk does not take by then is lost."""
        self._is_closing.set()
        if self._thread.is_alive():
            self._work.put(None)
            self._thread.join()
        self._raise_if_broken()

    def _put(
        self, job: Callable[[sqlite3.Connection], Any], *, durable: bool = False
    ) -> Future[Any]:
        self._raise_if_broken()
        item = _Job(job, durable, Future())
        self._work.put(item)
        # The writer may have failed, and emptied its queue, since the check above.
        self._raise_if_broken()
        return item.future

    def _raise_if_broken(self) -> None:
        if self._broken is not None:
            raise RuntimeError("the run's store cannot be written") from self._broken

    def _write(self, connection: sqlite3.Connection) -> None:
        """Body of the writer thread."""
        jobs: list[_Job] = []
        try:
            closing = False
            while not closing:
                batch = self._next_batch()
                closing = batch[-1] is None
                jobs = [job for job in batch if job is not None]
                results = self._commit(connection, jobs)
                for job, result in zip(jobs, results, strict=True):
                    job.future.set_result(result)
        except Exception as error:  # noqa: BLE001
            # Kept for whoever calls next: a store that cannot be written ends the run.
            self._broken = error
            self._fail_waiting(jobs, error)
        finally:
            connection.close()

    def _commit(self, connection: sqlite3.Connection, jobs: "Sequence[_Job]") -> list[Any]:
        """What ``jobs`` return, done in one transaction once the disk takes it."""
        while True:
            try:
                with connection:
                    results = [job.run(connection) for job in jobs]
            except sqlite3.OperationalError as error:
                if not disk.is_shortage(error):
                    raise
                self.shortage, self._is_stuck = "; ".join(disk.in_words(error)), True
                if self._ballast is None or not self._ballast.release():
                    if self._is_closing.is_set():
                        raise
                    self._is_closing.wait(_RETRY_SECONDS)
            else:
                self._is_stuck = False
                return results

    def _next_batch(self) -> "list[_Job | None]":
        batch = [self._work.get()]
        deadline = time.monotonic() + _BATCH_SECONDS
        while len(batch) < _BATCH_ROWS and batch[-1] is not None and not batch[-1].durable:
            try:
                batch.append(self._work.get(timeout=max(0.0, deadline - time.monotonic())))
            except queue.Empty:
                break
        return batch

    def _fail_waiting(self, jobs: "list[_Job]", error: Exception) -> None:
        waiting: list[_Job | None] = list(jobs)
        while not self._work.empty():
            waiting.append(self._work.get_nowait())
        for job in waiting:
            if job is not None and not job.future.done():
                job.future.set_exception(error)


@dataclass(frozen=True)
class _Job:
    run: Callable[[sqlite3.Connection], Any]
    durable: bool
    future: Future[Any]


def _open_with_room(path: Path, ballast: Ballast | None) -> sqlite3.Connection:
    try:
        try:
            return _open(path)
        except sqlite3.OperationalError as error:
            if not disk.is_shortage(error) or ballast is None or not ballast.release():
                raise
        return _open(path)
    except sqlite3.OperationalError as error:
        if disk.is_shortage(error):
            problem, fix = disk.in_words(error)
        elif error.sqlite_errorcode & 0xFF in (sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN):
            problem = "the run's store cannot be written here"
            fix = "see whether folder and file are yours and the disk is mounted for writing"
        else:
            raise
        raise UserError(problem, where=str(path), fix=fix) from error


def _open(path: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(path, check_same_thread=False)
    connection.execute("PRAGMA journal_mode = WAL")
    # NORMAL can lose the last commits at power loss.
    connection.execute("PRAGMA synchronous = FULL")
    if not connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'meta'").fetchone():
        schema = resources.files("engine.runs").joinpath("schema.sql").read_text()
        # One transaction: a killed worker leaves all of it or nothing, and a reader sees no half.
        connection.executescript(
            f"BEGIN; {schema} INSERT INTO meta VALUES ('schema', '{SCHEMA_VERSION}'); COMMIT;"
        )
    curves.prepare(connection)
    # Stores of earlier versions have no such table.
    connection.execute(_DRAFTS)
    # What a worker that died left half said.
    connection.execute("DELETE FROM drafts")
    connection.commit()
    return connection


def _text(text: str) -> str:
    """``text`` as SQLite can keep it, without secrets."""
    return escape_surrogates(mask(text))


def _dump(value: Any) -> str:
    """Compact JSON without secrets; NaN and infinities, which JSON does not have, become null."""
    value = masked(value)
    try:
        text = json.dumps(value, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    except ValueError:
        text = json.dumps(_finite(value), separators=(",", ":"), ensure_ascii=False)
    return escape_surrogates(text)


def _finite(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(item) for item in value]
    is_broken = isinstance(value, float) and (value != value or value in (1e999, -1e999))
    return None if is_broken else value

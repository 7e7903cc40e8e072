"""The predictions of an evaluation on disk: ``predictions.db`` in its folder.

Two tables. ``examples`` is written once, with the folder: every row that is asked about, complete,
so that a worker reads no market data. ``predictions`` grows by whole batches, each in one durable
transaction: a process killed at any moment has stored a batch or nothing of it. The primary key
keeps a prediction from being stored twice.

One process writes at a time, and holds the folder while it does (``hold``).
"""

import json
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from engine.errors import UserError
from engine.runs.directory import exclusive
from engine.text import escape_surrogates, one_line

FILE = "predictions.db"
_LOCK = "lock"
_BUSY_SECONDS = 10.0

_SCHEMA = """
CREATE TABLE examples (
    number         INTEGER PRIMARY KEY,    -- order in time
    key            TEXT    NOT NULL UNIQUE,
    day_change     REAL    NOT NULL,
    actual_up      INTEGER NOT NULL,
    length         INTEGER NOT NULL,       -- of its prompt, characters
    example        TEXT    NOT NULL        -- JSON, see engine.probe.request.WireExample
) STRICT;

CREATE TABLE predictions (
    checkpoint      TEXT    NOT NULL,      -- label, see engine.evaluation.context
    checkpoint_hash TEXT    NOT NULL,
    key             TEXT    NOT NULL,      -- TICKER:as-of day
    ticker          TEXT    NOT NULL,
    as_of           TEXT    NOT NULL,
    label_day       TEXT    NOT NULL,
    actual_up       INTEGER NOT NULL,
    actual_percent  REAL    NOT NULL,
    day_change      REAL    NOT NULL,      -- move of the as-of day, percent
    sigma           REAL    NOT NULL,      -- 20-day deviation of daily returns, percentage points
    sample          INTEGER NOT NULL,      -- from 0
    seed            INTEGER NOT NULL,      -- of its random numbers; 0 for a greedy one
    prompt          TEXT    NOT NULL,      -- as the model saw it, chat template applied
    completion      TEXT    NOT NULL,
    finished        INTEGER NOT NULL,      -- 0: cut at the length limit
    called_up       INTEGER,               -- null: no direction could be read
    percent         REAL,                  -- predicted move with its sign; null: none stated
    confidence      REAL,                  -- [0, 1]; null: none stated
    reward          REAL    NOT NULL,
    scores          TEXT    NOT NULL,      -- JSON object: component/NAME and rubric/NAME to number
    PRIMARY KEY (checkpoint_hash, key, sample)
) STRICT;

CREATE TABLE times (
    seconds REAL NOT NULL                  -- one row a batch: how long it took
) STRICT;
"""


@dataclass(frozen=True)
class ExampleRow:
    """One example on its way into the store, or out of it."""

    key: str
    day_change: float
    actual_up: bool
    length: int
    """Of its prompt, in characters."""
    example: str
    """JSON of a ``WireExample``."""


@dataclass(frozen=True)
class Prediction:
    """One row of the table; see the schema for what the columns mean."""

    checkpoint: str
    checkpoint_hash: str
    key: str
    ticker: str
    as_of: str
    label_day: str
    actual_up: bool
    actual_percent: float
    day_change: float
    sigma: float
    sample: int
    seed: int
    prompt: str
    completion: str
    finished: bool
    called_up: bool | None
    percent: float | None
    confidence: float | None
    reward: float
    scores: Mapping[str, float]

    @property
    def right(self) -> bool:
        """Whether it was read and the market went its way."""
        return self.called_up == self.actual_up


@dataclass(frozen=True)
class Tally:
    """How far one checkpoint is."""

    done: int = 0
    read: int = 0
    right: int = 0

    def plus(self, predictions: Sequence[Prediction]) -> "Tally":
        """The tally once ``predictions`` are stored too."""
        return Tally(
            self.done + len(predictions),
            self.read + sum(one.called_up is not None for one in predictions),
            self.right + sum(one.right for one in predictions),
        )


class PredictionStore:
    """Reads and appends the predictions of one evaluation."""

    def __init__(self, folder: Path) -> None:
        """Open the store in ``folder``.

        Raises:
            UserError: there is none.
        """
        path = folder / FILE
        if not path.is_file():
            raise UserError("this folder holds no evaluation", where=one_line(str(path)))
        self._db = _open(path)

    def close(self) -> None:
        """Release the database."""
        self._db.close()

    def examples(self) -> list[ExampleRow]:
        """All of them, in order of time."""
        rows = self._db.execute(
            "SELECT key, day_change, actual_up, length, example FROM examples ORDER BY number"
        )
        return [ExampleRow(key, change, bool(up), *rest) for key, change, up, *rest in rows]

    def num_samples(self, checkpoint_hash: str) -> dict[str, int]:
        """Samples stored of each example that has some, by its key."""
        return dict(
            self._db.execute(
                "SELECT key, count(*) FROM predictions WHERE checkpoint_hash = ? GROUP BY key",
                (checkpoint_hash,),
            ).fetchall()
        )

    def tally(self, checkpoint_hash: str) -> Tally:
        """How far this checkpoint is."""
        done, read, right = self._db.execute(
            "SELECT count(*), count(called_up), coalesce(sum(called_up = actual_up), 0)"
            " FROM predictions WHERE checkpoint_hash = ?",
            (checkpoint_hash,),
        ).fetchone()
        return Tally(done, read, right)

    def accuracy(self, checkpoint_hash: str) -> float:
        """Share of examples whose right side more of the samples call; ties are wrong."""
        (share,) = self._db.execute(
            "SELECT coalesce(avg(votes > 0), 0.0) FROM (SELECT"
            " coalesce(sum(CASE called_up = actual_up WHEN 1 THEN 1 WHEN 0 THEN -1 END), 0) AS"
            " votes FROM predictions WHERE checkpoint_hash = ? GROUP BY key)",
            (checkpoint_hash,),
        ).fetchone()
        return float(share)

    def seconds(self) -> float:
        """Time spent predicting, all attempts together."""
        (seconds,) = self._db.execute("SELECT coalesce(sum(seconds), 0.0) FROM times").fetchone()
        return float(seconds)

    def append(self, predictions: Sequence[Prediction], seconds: float) -> None:
        """Store a whole batch, or nothing of it.

        Raises:
            sqlite3.IntegrityError: one of them is stored already.
        """
        with self._db:
            self._db.executemany(
                f"INSERT INTO predictions VALUES ({', '.join('?' * len(_COLUMNS))})",
                [
                    [_value(getattr(prediction, name)) for name in _COLUMNS]
                    for prediction in predictions
                ],
            )
            self._db.execute("INSERT INTO times VALUES (?)", (seconds,))


_COLUMNS = tuple(Prediction.__dataclass_fields__)


def create(folder: Path, examples: Sequence[ExampleRow]) -> None:
    """Make the store of a new evaluation, with what it asks about and no prediction yet."""
    db = _open(folder / FILE)
    try:
        with db:
            db.executescript(f"BEGIN; {_SCHEMA} COMMIT;")
        with db:
            db.executemany(
                "INSERT INTO examples VALUES (?, ?, ?, ?, ?, ?)",
                [
                    (
                        number,
                        row.key,
                        row.day_change,
                        row.actual_up,
                        row.length,
                        escape_surrogates(row.example),
                    )
                    for number, row in enumerate(examples)
                ],
            )
    finally:
        db.close()


@contextmanager
def hold(folder: Path) -> Iterator[None]:
    """Hold the evaluation for this process.

    Raises:
        UserError: another process is at it.
    """
    with exclusive(folder / _LOCK) as acquired:
        if not acquired:
            raise UserError("another process is evaluating here", where=one_line(str(folder)))
        yield


def _open(path: Path) -> sqlite3.Connection:
    db = sqlite3.connect(path, timeout=_BUSY_SECONDS)
    # With a rollback journal the table is one file whenever nobody writes. EXTRA makes its removal
    # durable too, which is the commit.
    db.execute("PRAGMA synchronous = EXTRA")
    return db


def _value(value: object) -> object:
    if isinstance(value, Mapping):
        return json.dumps(value, allow_nan=False)
    return escape_surrogates(value) if isinstance(value, str) else value

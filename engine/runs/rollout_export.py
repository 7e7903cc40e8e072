"""Rollouts as a file that other tools read: CSV, JSON Lines or Parquet.

A page at a time, so that any number of rollouts fits into memory; into a file beside the
target that gets its name last and only where that name is free. Text stands in the file as
the model wrote it, with one exception: in CSV a text that a spreadsheet would take for a
formula gets an apostrophe in front.
"""

import csv
import json
import os
import secrets
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from engine.errors import UserError
from engine.runs.reader import Rollout, StoreReader

FORMATS = ("csv", "jsonl", "parquet")
_PAGE = 500

_NUMBER, _TEXT, _WHOLE, _FLAG = "double", "string", "int64", "bool"
COLUMNS: dict[str, str] = {
    "id": _WHOLE,
    "attempt": _WHOLE,
    "step": _WHOLE,
    "group": _WHOLE,
    "sample": _WHOLE,
    "ticker": _TEXT,
    "as_of": _TEXT,
    "call": _TEXT,
    "call_percent": _NUMBER,
    "confidence": _NUMBER,
    "actual": _TEXT,
    "actual_percent": _NUMBER,
    "right": _FLAG,
    "reward": _NUMBER,
    "advantage": _NUMBER,
    "tokens": _WHOLE,
    "truncated": _FLAG,
    "completion": _TEXT,
    "prompt": _TEXT,
    "components": _TEXT,
    "cited": _TEXT,
    "prediction": _TEXT,
    "subject": _TEXT,
}
"""Name and Arrow type of every column; the last four are JSON, which JSON Lines nests."""

_JSON = ("components", "cited", "prediction", "subject")
# What Excel, LibreOffice and Google Sheets begin a formula with, full-width forms included.
_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n", "＝", "＋", "－", "＠")

Progress = Callable[[int], bool]
"""Called with the rows written so far; False ends the export, which then leaves nothing."""


def form_of(path: Path) -> str | None:
    """The format that the ending of a file name stands for."""
    ending = path.suffix.lower().removeprefix(".")
    return ending if ending in FORMATS else None


def export(
    database: Path,
    identifiers: Sequence[int],
    out: Path,
    form: str,
    progress: Progress = lambda done: True,
) -> int:
    """Write the rollouts with these ids, in this order; returns the number of rows.

    Args:
        database: the run's store.
        identifiers: what ``StoreReader.rollout_ids`` found.
        out: a file that is not there yet.
        form: one of ``FORMATS``.
        progress: called after every page.

    Raises:
        UserError: the file exists or cannot be written, or the store cannot be read.
    """
    refuse_taken(out)
    count = 0
    reader = StoreReader(database)
    try:
        with _new_file(out) as temporary, _WRITERS[form](temporary) as write:
            for start in range(0, len(identifiers), _PAGE):
                rows = [record(item) for item in reader.rollouts(identifiers[start:][:_PAGE])]
                write(rows)
                count += len(rows)
                if not progress(count):
                    raise Cancelled
    except OSError as error:
        raise UserError(f"cannot be written ({error.strerror or error})", where=str(out)) from error
    finally:
        reader.close()
    return count


class Cancelled(Exception):
    """Whoever watches the progress wants no more of it."""


def refuse_taken(out: Path) -> None:
    """Raise ``UserError`` where ``out`` cannot become a new file."""
    if os.path.lexists(out):
        raise _taken(out)
    if not out.parent.is_dir():
        raise UserError("no such folder", where=str(out.parent), fix="make it, or name another")


def record(rollout: Rollout) -> dict[str, Any]:
    """One row: a value for every column, None where it is not known."""
    prediction, subject = rollout.prediction, rollout.subject
    call, actual = _side(prediction, "direction"), _side(subject, "actual_direction")
    return {
        "id": rollout.id,
        "attempt": rollout.attempt,
        "step": rollout.step,
        "group": rollout.group,
        "sample": rollout.sample,
        "ticker": _text(subject.get("ticker")),
        "as_of": _text(subject.get("as_of")),
        "call": call,
        "call_percent": _number(prediction.get("percent")),
        "confidence": _number(prediction.get("confidence")),
        "actual": actual,
        "actual_percent": _number(subject.get("actual_percent")),
        "right": call == actual if call and actual else None,
        "reward": rollout.reward,
        "advantage": rollout.advantage,
        "tokens": rollout.tokens,
        "truncated": not rollout.finished,
        "completion": rollout.completion,
        "prompt": rollout.prompt,
        "components": rollout.components,
        "cited": rollout.cited,
        "prediction": prediction,
        "subject": subject,
    }


def _side(values: Mapping[str, Any], name: str) -> str | None:
    value = values.get(name)
    return value if value in ("UP", "DOWN") else None


def _text(value: object) -> str | None:
    return value if isinstance(value, str) else None


def _number(value: object) -> float | None:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return float(value) if is_number else None  # type: ignore[arg-type]


# --- formats

_Write = Callable[[list[dict[str, Any]]], None]


@contextmanager
def _csv(path: Path) -> Iterator[_Write]:
    with _opened(path) as file:
        writer = csv.writer(file)
        writer.writerow(COLUMNS)

        def write(rows: list[dict[str, Any]]) -> None:
            writer.writerows([_cell(value) for value in _flat(row).values()] for row in rows)

        yield write


@contextmanager
def _jsonl(path: Path) -> Iterator[_Write]:
    with _opened(path) as file:
        yield lambda rows: file.writelines(f"{json.dumps(row)}\n" for row in rows)


@contextmanager
def _parquet(path: Path) -> Iterator[_Write]:
    # Half a second that only this format needs: it brings pandas along, but no torch.
    import pyarrow as pa
    import pyarrow.parquet as pq

    schema = pa.schema([(name, pa.type_for_alias(kind)) for name, kind in COLUMNS.items()])
    with pq.ParquetWriter(path, schema, compression="zstd") as writer:
        yield lambda rows: writer.write_table(
            pa.Table.from_pylist([_flat(row) for row in rows], schema)
        )


_WRITERS = {"csv": _csv, "jsonl": _jsonl, "parquet": _parquet}


def _opened(path: Path) -> IO[str]:
    return path.open("w", encoding="utf-8", newline="")


def _flat(row: dict[str, Any]) -> dict[str, Any]:
    nested = {name: json.dumps(row[name], ensure_ascii=False) for name in _JSON}
    return row | nested


def _cell(value: object) -> object:
    """A value for CSV; numbers are numbers, also negative ones."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if not isinstance(value, str):
        return value
    # A NUL ends the text for many programs that read CSV.
    value = value.replace("\0", "\N{SYMBOL FOR NULL}")
    return f"'{value}" if value.startswith(_FORMULA) else value


@contextmanager
def _new_file(out: Path) -> Iterator[Path]:
    """A file beside ``out`` that becomes ``out`` when all went well, and else goes away."""
    temporary = out.with_name(f".{out.name[:40]}.{secrets.token_hex(4)}.part")
    try:
        # An empty file keeps the name free for us: replacing it later replaces nobody's work.
        out.open("x").close()
    except FileExistsError as error:
        raise _taken(out) from error
    try:
        yield temporary
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        temporary.replace(out)
    except BaseException:
        temporary.unlink(missing_ok=True)
        out.unlink(missing_ok=True)
        raise


def _taken(out: Path) -> UserError:
    return UserError("exists already", where=str(out), fix="name a file that does not")

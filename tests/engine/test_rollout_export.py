"""Exported rollouts: read back as they were, safe in a spreadsheet, never over another file."""

import csv
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from engine.errors import UserError
from engine.runs import rollout_export
from engine.runs.reader import StoreReader
from engine.runs.rollout_export import COLUMNS, Cancelled, export
from engine.runs.rollout_filter import Order, parse
from engine.runs.store import EventStore, RolloutRecord
from engine.task import ComponentScore

HOSTILE = ('=HYPERLINK("http://evil","x")', "+1", "-1", "@SUM(A1)", "\t=1", "\r=1", "\n=1", "＝1")


@pytest.fixture
def database(tmp_path: Path) -> Path:
    """Eight hostile completions and one that could not be read."""
    store = EventStore(tmp_path / "events.db")
    for sample, completion in enumerate((*HOSTILE, 'a,"b"\n\0c \u202e')):
        is_last = sample == len(HOSTILE)
        record = RolloutRecord(
            group=0,
            sample=sample,
            prompt="-prompt",
            subject={"ticker": "=A", "actual_direction": "UP", "actual_percent": -1.5},
            completion=completion,
            tokens=5,
            finished=not is_last,
            reward=-0.25,
            advantage=0.0,
            prediction={"error": "x"} if is_last else {"direction": "UP", "confidence": 0.5},
            components=(ComponentScore("format", 1.0, 0.2, "=reason"),),
            cited=((1, 2),),
        )
        store.rollouts(1, [record])
    store.close()
    return tmp_path / "events.db"


def written(database: Path, form: str) -> Path:
    out = database.with_name(f"rollouts.{form}")
    ids = all_ids(database)
    assert export(database, ids, out, form) == len(ids)
    assert not list(out.parent.glob("*.part"))
    return out


def all_ids(database: Path) -> list[int]:
    reader = StoreReader(database)
    ids = reader.rollout_ids(parse(""), Order())
    reader.close()
    return list(ids)


def test_json_lines_hold_everything_as_it_was(database: Path) -> None:
    text = written(database, "jsonl").read_text()
    assert text.isascii()
    rows = [json.loads(line) for line in text.splitlines()]
    assert [row["completion"] for row in rows[:-1]] == list(HOSTILE)
    last = rows[-1]
    assert list(last) == list(COLUMNS)
    assert last["completion"] == 'a,"b"\n\0c \u202e'
    assert (last["call"], last["right"], last["truncated"]) == (None, None, True)
    assert last["components"][0]["reason"] == "=reason"
    assert (rows[0]["right"], rows[0]["actual_percent"], rows[0]["cited"]) == (True, -1.5, [[1, 2]])


def test_no_text_in_csv_is_a_formula_and_numbers_stay_numbers(database: Path) -> None:
    with written(database, "csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == list(COLUMNS)
    assert [row["completion"] for row in rows[:-1]] == [f"'{text}" for text in HOSTILE]
    assert rows[-1]["completion"] == 'a,"b"\n\u2400c \u202e'
    assert (rows[0]["ticker"], rows[0]["prompt"]) == ("'=A", "'-prompt")
    assert (rows[0]["reward"], rows[0]["actual_percent"]) == ("-0.25", "-1.5")
    assert (rows[0]["right"], rows[-1]["right"], rows[-1]["confidence"]) == ("true", "", "")
    for row in rows:
        for name, cell in row.items():
            is_number = COLUMNS[name] in ("double", "int64")
            assert is_number or not cell.startswith(("=", "+", "-", "@", "\t", "\r", "\n"))


def test_parquet_has_types_and_everything_as_it_was(database: Path) -> None:
    table = pq.read_table(written(database, "parquet"))
    assert {field.name: str(field.type) for field in table.schema} == COLUMNS
    rows: list[dict[str, Any]] = table.to_pylist()
    assert [row["completion"] for row in rows[:-1]] == list(HOSTILE)
    assert rows[-1]["right"] is None
    assert json.loads(rows[0]["prediction"]) == {"direction": "UP", "confidence": 0.5}


@pytest.mark.parametrize("form", rollout_export.FORMATS)
def test_no_rollouts_are_a_file_without_rows(database: Path, form: str) -> None:
    out = database.with_name(f"none.{form}")
    assert export(database, [], out, form) == 0
    assert out.exists()


def test_nothing_is_ever_overwritten(database: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = database.with_name("mine.csv")
    out.write_text("mine")
    with pytest.raises(UserError, match="exists already; name a file"):
        export(database, [1], out, "csv")
    # Also where it appeared while the rows were being written.
    monkeypatch.setattr(rollout_export, "refuse_taken", lambda out: None)
    with pytest.raises(UserError, match="exists already"):
        export(database, [1], out, "csv")
    assert out.read_text() == "mine"
    assert sorted(path.name for path in out.parent.iterdir() if "mine" in path.name) == ["mine.csv"]


def test_a_dangling_link_is_not_followed(database: Path) -> None:
    link = database.with_name("link.csv")
    link.symlink_to(database.with_name("elsewhere"))
    with pytest.raises(UserError, match="exists already"):
        export(database, [1], link, "csv")


def test_a_folder_that_is_not_there_is_named(database: Path) -> None:
    with pytest.raises(UserError, match="no such folder"):
        export(database, [1], database.parent / "no" / "x.csv", "csv")


@pytest.mark.parametrize("form", rollout_export.FORMATS)
def test_what_is_called_off_leaves_nothing(database: Path, form: str) -> None:
    with pytest.raises(Cancelled):
        export(database, [1, 2], database.with_name("x"), form, lambda done: False)
    assert all(path.name.startswith("events.db") for path in database.parent.iterdir())


def test_parquet_needs_no_torch_and_the_module_no_parquet(database: Path) -> None:
    code = (
        "import sys, engine.runs.rollout_export as e; assert 'pyarrow' not in sys.modules\n"
        "from pathlib import Path\n"
        f"e.export(Path({str(database)!r}), [1], Path({str(database)!r} + '.parquet'), 'parquet')\n"
        "heavy = {'torch', 'datasets', 'transformers'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr

"""The predictions table: read from its store, and what several samples amount to."""

import json
import math
import sqlite3
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from engine.errors import UserError
from engine.evaluation import table

EXAMPLE: dict[str, Any] = {
    "checkpoint": "step-000040",
    "checkpoint_hash": "ab" * 32,
    "key": "AAPL:2012-09-13",
    "ticker": "AAPL",
    "as_of": "2012-09-13",
    "label_day": "2012-09-14",
    "actual_up": 1,
    "actual_percent": 1.2,
    "day_change": -0.4,
    "sigma": 1.9,
    "sample": 0,
    "seed": 5,
    "prompt": "What next?",
    "completion": "UP",
    "finished": 1,
    "called_up": 1,
    "percent": 0.5,
    "confidence": 0.7,
    "reward": 0.25,
    "scores": json.dumps({"component/format": 1.0, "rubric/total": 0.5}),
}


def write(folder: Path, rows: list[dict[str, Any]]) -> None:
    database = sqlite3.connect(folder / table.FILE)
    names = [*table.COLUMNS, "scores"]
    database.execute(f"CREATE TABLE predictions ({', '.join(names)})")
    database.executemany(
        f"INSERT INTO predictions VALUES ({', '.join('?' * len(names))})",
        [[{**EXAMPLE, **row}[name] for name in names] for row in rows],
    )
    database.commit()
    database.close()


def frame(*rows: dict[str, Any]) -> pd.DataFrame:
    """A table whose ``called_up`` is True, False or None, as ``read`` gives it."""
    predictions = pd.DataFrame([{**EXAMPLE, **row} for row in rows]).drop(columns="scores")
    calls = [None if row["called_up"] is None else bool(row["called_up"]) for row in rows]
    predictions["called_up"] = pd.Series(calls, dtype=object)
    predictions["actual_up"] = predictions["actual_up"].astype(bool)
    return predictions


def test_it_is_read_with_its_types_and_in_order(tmp_path: Path) -> None:
    folder = tmp_path / "20261120-101500-test?#%"
    folder.mkdir()
    unread = {"called_up": None, "percent": None, "confidence": None, "finished": 0, "sample": 1}
    write(
        folder,
        [
            unread,
            {},
            {"checkpoint": "base", "called_up": 0, "as_of": "2012-09-20", "key": "AAPL:2012-09-20"},
            {"checkpoint": "base"},
        ],
    )
    read = table.read(folder)
    assert list(read["checkpoint"]) == ["base", "base", "step-000040", "step-000040"]
    assert list(read["as_of"])[:2] == ["2012-09-13", "2012-09-20"]
    assert list(read["called_up"]) == [True, False, True, None]
    assert list(read["finished"]) == [True, True, True, False]
    assert math.isnan(read["confidence"].iloc[3])
    assert read["percent"].dtype == float
    assert read["actual_up"].dtype == bool
    assert list(read["component/format"]) == [1.0] * 4
    assert list(read["rubric/total"]) == [0.5] * 4
    assert [*table.COLUMNS, "component/format", "rubric/total"] == list(read.columns)


def test_unread_completions_alone_stay_unread(tmp_path: Path) -> None:
    write(tmp_path, [{"called_up": None, "percent": None, "confidence": None}])
    read = table.read(tmp_path)
    assert list(read["called_up"]) == [None]
    assert read["confidence"].dtype == float
    assert list(table.decisions(read)["called_up"]) == [None]


def test_what_is_no_store_of_predictions_is_said(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no predictions here"):
        table.read(tmp_path)
    (tmp_path / table.FILE).write_text("no database, but long enough to be looked at" * 20)
    with pytest.raises(UserError, match="cannot be read as predictions"):
        table.read(tmp_path)
    (tmp_path / table.FILE).unlink()
    write(tmp_path, [{"scores": '{"component/format": '}])
    with pytest.raises(UserError, match="cannot be read as predictions"):
        table.read(tmp_path)


def test_one_sample_is_its_own_decision() -> None:
    decided = table.decisions(
        frame(
            {"called_up": True, "confidence": 0.7, "key": "a"},
            {"called_up": False, "confidence": 0.7, "key": "b", "percent": -0.3},
            {"called_up": True, "confidence": math.nan, "key": "c"},
            {"called_up": None, "confidence": math.nan, "key": "d", "percent": math.nan},
        )
    )
    assert list(decided["key"]) == ["a", "b", "c", "d"]
    assert list(decided["called_up"]) == [True, False, True, None]
    assert list(decided["right"]) == [True, False, True, False]
    assert list(decided["p_up"]) == [0.7, 0.3, 0.5, 0.5]
    assert decided["confidence"].tolist() == pytest.approx([0.7, 0.7, math.nan, math.nan], nan_ok=1)
    assert decided["percent"].tolist() == pytest.approx([0.5, -0.3, 0.5, math.nan], nan_ok=1)


def test_several_samples_vote() -> None:
    decided = table.decisions(
        frame(
            # UP .9, UP .8, DOWN .6: P(UP) .9, .8 and .4
            {"called_up": True, "confidence": 0.9, "percent": 1.0},
            {"called_up": True, "confidence": 0.8, "percent": 3.0},
            {"called_up": False, "confidence": 0.6, "percent": -1.0},
            # DOWN with nothing stated, unread, DOWN .8: P(UP) .5, .5, .2, of which one is stated
            {"called_up": False, "confidence": math.nan, "percent": math.nan, "key": "b"},
            {"called_up": None, "confidence": math.nan, "percent": math.nan, "key": "b"},
            {"called_up": False, "confidence": 0.8, "percent": -2.0, "key": "b"},
            # a tie calls nothing
            {"called_up": False, "confidence": 0.6, "key": "c"},
            {"called_up": True, "confidence": 0.9, "key": "c"},
        )
    )
    assert list(decided["called_up"]) == [True, False, None]
    assert list(decided["right"]) == [True, False, False]
    assert decided["p_up"].tolist() == pytest.approx([0.7, 0.4, 0.65])
    assert decided["confidence"].tolist() == pytest.approx([0.7, 0.8, math.nan], nan_ok=True)
    assert decided["percent"].tolist() == pytest.approx([1.0, -2.0, 0.5])


def test_the_same_example_of_two_checkpoints_is_decided_twice() -> None:
    rows = [{"checkpoint": name, "called_up": up} for name, up in (("base", False), ("best", True))]
    decided = table.decisions(frame(*rows))
    assert list(decided["checkpoint"]) == ["base", "best"]
    assert list(decided["called_up"]) == [False, True]

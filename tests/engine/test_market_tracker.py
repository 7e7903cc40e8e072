"""What a Stage II run leaves as files: the market against what was called, and every rollout."""

import json
from pathlib import Path
from typing import Any

import pytest

from engine import market_tracker
from engine.config import preset
from engine.evaluation.intervals import wilson
from engine.runs import directory
from engine.runs.directory import RunDirectory
from engine.runs.store import EventStore, RolloutRecord
from engine.task import ComponentScore


def record(group: int, sample: int, ticker: str, actual: str, called: str | None) -> RolloutRecord:
    return RolloutRecord(
        group=group,
        sample=sample,
        prompt=f"{ticker}?",
        subject={"ticker": ticker, "as_of": "2012-09-14", "actual_direction": actual},
        completion="<answer>…\nnext line",
        tokens=7,
        finished=True,
        reward=0.25,
        advantage=-0.5,
        prediction={"direction": called},
        components=(ComponentScore("direction", 1.0, 0.25, "right", 1.2),),
        cited=(),
    )


def step(store: EventStore, number: int, *groups: tuple[str, str, list[str | None]]) -> None:
    store.rollouts(
        number,
        [
            record(index, sample, ticker, actual, called)
            for index, (ticker, actual, calls) in enumerate(groups)
            for sample, called in enumerate(calls)
        ],
    )
    store.event("step", {"metrics": {}}, step=number)


@pytest.fixture
def run() -> RunDirectory:
    return directory.create(preset("demo"))


def exported(run: RunDirectory) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    statistics, log = market_tracker.export(run)
    assert (statistics.name, log.name) == ("market_stats.json", "stage2_training_log.jsonl")
    lines = log.read_text().splitlines()
    return json.loads(statistics.read_text()), [json.loads(line) for line in lines]


def test_shares_and_accuracy_are_counted_overall_and_for_each_ticker(run: RunDirectory) -> None:
    store = EventStore(run.database)
    step(store, 1, ("AAPL", "UP", ["UP", "DOWN"]), ("IBM", "DOWN", ["UP", None]))
    step(store, 2, ("AAPL", "UP", ["UP", "UP"]))
    store.close()
    found, _ = exported(run)
    overall = found["overall"]
    assert (overall["examples"], overall["completions"], overall["calls_read"]) == (3, 6, 5)
    assert overall["market_up_share"] == 2 / 3
    assert overall["called_up_share"] == 4 / 5
    # Right: three of AAPL's four. The unread call counts as wrong.
    low, high = wilson(3, 6)
    assert overall["accuracy"] == {"n": 6, "share": 0.5, "low": low, "high": high}
    assert overall["accuracy_up"]["share"] == 3 / 4
    assert overall["accuracy_down"]["share"] == 0
    assert overall["accuracy_down"]["n"] == 2
    assert list(found["tickers"]) == ["AAPL", "IBM"]
    assert found["tickers"]["AAPL"]["accuracy_down"] == {"n": 0}
    assert found["tickers"]["IBM"]["market_up_share"] == 0
    assert found["run"] == run.id


def test_the_log_holds_every_rollout_once_and_in_order(run: RunDirectory) -> None:
    store = EventStore(run.database)
    for number in (1, 2, 3):
        step(store, number, ("AAPL", "UP", ["UP", "UP"]), ("IBM", "UP", ["UP", "UP"]))
    store.supersede_after(1)
    store.event("resumed", {"from_step": 1}, step=1)
    step(store, 2, ("MSFT", "DOWN", ["DOWN", "UP"]))
    store.close()
    found, lines = exported(run)
    assert [(line["step"], line["group"], line["sample"]) for line in lines] == [
        (1, 0, 0),
        (1, 0, 1),
        (1, 1, 0),
        (1, 1, 1),
        (2, 0, 0),
        (2, 0, 1),
    ]
    assert lines[-1]["subject"]["ticker"] == "MSFT"
    assert lines[0]["components"][0]["factor"] == 1.2
    assert lines[0]["completion"] == "<answer>…\nnext line"
    assert found["overall"]["completions"] == 6


def test_a_run_without_a_step_has_no_shares(run: RunDirectory) -> None:
    EventStore(run.database).close()
    found, lines = exported(run)
    assert lines == []
    assert "market_up_share" not in found["overall"]
    assert "called_up_share" not in found["overall"]
    assert found["overall"]["accuracy"] == {"n": 0}


def test_a_failed_export_leaves_the_earlier_files_alone(
    run: RunDirectory, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = EventStore(run.database)
    step(store, 1, ("AAPL", "UP", ["UP", "UP"]))
    store.close()
    before = {path: path.read_text() for path in market_tracker.export(run)}
    names = sorted(path.name for path in run.path.iterdir())

    def fail(*args: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(market_tracker.os, "fsync", fail)
    with pytest.raises(OSError, match="No space"):
        market_tracker.export(run)
    assert sorted(path.name for path in run.path.iterdir()) == names
    assert {path: Path(path).read_text() for path in before} == before

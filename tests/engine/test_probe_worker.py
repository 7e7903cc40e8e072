"""Probes of real worker processes: one that trains, and one that only answers."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from engine.config import RunConfig, with_overrides
from engine.errors import RunFailedError, UserError
from engine.probe import client
from engine.probe.request import ProbeRequest, Wanted
from engine.runs import control, directory, launcher
from engine.runs.directory import RunDirectory
from engine.runs.reader import StoreReader
from engine.runs.status import read_history, status
from tests.engine.test_probe import WIRE
from tests.tiny import save_tiny_model, tiny_config
from tests.waiting import wait_for

TIMEOUT = 120.0


@pytest.fixture
def config(tmp_path: Path) -> RunConfig:
    return tiny_config(save_tiny_model(tmp_path / "model"), schedule={"max_steps": 2})


@pytest.fixture(autouse=True)
def no_worker_left(isolated_environment: None) -> Iterator[None]:
    yield
    for run in directory.list_runs():
        for process in (run.worker(), run.prober()):
            if process is not None:
                process.kill()
                process.wait()


def _request(*checkpoints: str, **values: Any) -> ProbeRequest:
    return ProbeRequest.model_validate(
        {"checkpoints": checkpoints, "example": WIRE, "samples": 2} | values
    )


def _finished(config: RunConfig) -> RunDirectory:
    run = launcher.launch(config)
    wait_for(lambda: status(run)["state"] == "finished")
    wait_for(lambda: run.worker() is None)
    return run


def _last_seq(run: RunDirectory) -> int:
    reader = StoreReader(run.database)
    seq = reader.last_seq()
    reader.close()
    return seq


def _steps_until_a_probe(run: RunDirectory, seq: int) -> int:
    reader = StoreReader(run.database)
    kinds = [event.kind for event in reader.events(seq, 10_000)]
    reader.close()
    return kinds[: kinds.index("probe")].count("step")


def test_a_run_in_training_answers_and_goes_on(config: RunConfig) -> None:
    endless = ["schedule.max_steps=100000", "schedule.eval_every=100000"]
    run = launcher.launch(with_overrides(config, endless))
    # Asked before the model is there: it waits for it.
    answer = client.ask(run, _request("base", "last", seed=4), timeout=TIMEOUT)
    assert [one["checkpoint"] for one in answer["answers"]] == ["base", "step-000000"]
    assert answer["example"] == {
        "source": "demo",
        "ticker": "AAPL",
        "as_of": "2012-09-14",
        "horizon": 1,
        "style": "compact",
        "actual": {"direction": "UP", "percent": 1.2},
    }
    for one in answer["answers"]:
        assert len(one["samples"]) == 2
        assert {*one["samples"][0]} == {
            "completion", "finished", "direction", "percent", "confidence", "error", "reward",
        }  # fmt: skip
        assert isinstance(one["samples"][0]["reward"], float)
    wait_for(lambda: status(run)["step"] > 0)
    seq = _last_seq(run)
    control.send(run, "probe", _request("base").payload())
    wait_for(lambda: len(read_history(run).probes) == 2)
    # The step in hand; and the one before, whose event may have been on its way to the disk.
    assert _steps_until_a_probe(run, seq) <= 2
    step = status(run)["step"]
    wait_for(lambda: status(run)["step"] > step)
    assert status(run)["state"] == "training"
    assert run.prober() is None
    with pytest.raises(UserError, match="has a living worker, which answers itself"):
        launcher.launch_prober(run)
    assert read_history(run).probes[0]["id"] == answer["id"]


def test_a_worker_is_started_for_probes_and_gives_way_to_training(config: RunConfig) -> None:
    run = _finished(config)
    before = status(run)
    drafts: list[Mapping[str, Any]] = []
    known = _request("base", "best", "step-2")
    answer = client.ask(run, known, timeout=TIMEOUT, drafts=drafts.append)
    assert len(answer["answers"]) == 3
    prober = run.prober()
    assert prober is not None
    again = client.ask(run, known, timeout=TIMEOUT)
    assert again["answers"] == answer["answers"]
    assert run.prober() == prober

    # To everybody else nothing has happened to the run.
    after = status(run)
    changes = {name for name in before if before[name] != after[name]}
    assert changes == {"updated"}
    with pytest.raises(UserError, match="nothing trains here: this worker takes probe"):
        control.send(run, "pause")

    unknown = ProbeRequest.model_validate(
        known.model_dump() | {"example": WIRE | {"outcome": None}, "checkpoints": ("base",)}
    )
    (one,) = client.ask(run, unknown, timeout=TIMEOUT)["answers"]
    assert {sample["reward"] for sample in one["samples"]} == {None}

    other = launcher.launch(with_overrides(config, ["schedule.max_steps=100000"]))
    assert not prober.is_running()
    wait_for(lambda: status(other)["state"] == "training")
    with pytest.raises(UserError, match=f"cpu is busy with run {other.id}; ask its worker"):
        client.ask(run, known, timeout=TIMEOUT)
    answer = client.ask(other, _request(f"{run.id}:best"), timeout=TIMEOUT)
    assert (answer["answers"][0]["run"], answer["answers"][0]["checkpoint"]) == (
        run.id,
        after["best"],
    )


def test_a_worker_for_probes_ends_when_nobody_asks_any_more(
    config: RunConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STONK_PROBE_IDLE_SECONDS", "0.5")
    # One that nobody has trained yet, and whose first worker is yet to come.
    run = directory.create(config)
    client.ask(run, _request("base"), timeout=TIMEOUT)
    wait_for(lambda: run.prober() is None)
    assert not run.socket.exists()
    assert status(run)["attempt"] == 0


def test_a_worker_that_cannot_start_says_why(config: RunConfig, tmp_path: Path) -> None:
    run = directory.create(config)
    (tmp_path / "model" / "config.json").unlink()
    with pytest.raises(RunFailedError, match=r"config\.json is missing"):
        client.ask(run, _request("base"), timeout=TIMEOUT)
    wait_for(lambda: run.prober() is None)


def test_the_example_is_made_by_a_process_of_its_own() -> None:
    run = directory.create(RunConfig())
    described = client.describe(run, Wanted(ticker="AAPL", date="2012-09-14"))
    assert described.example.outcome is not None
    assert round(described.example.outcome.percent, 2) == 1.23
    with pytest.raises(UserError, match="no ticker called 'APL'"):
        client.describe(run, Wanted(ticker="APL", date="2012-09-14"))

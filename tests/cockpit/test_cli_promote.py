"""``promote`` and ``export`` as they are typed: output, exit codes, and what they start."""

import json
import os
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from engine.config import preset, with_overrides
from engine.policy.adapters import put_adapter
from engine.runs import checkpoint_names, directory, launcher, manifest, promotion, stage1
from engine.runs.directory import RunDirectory
from engine.runs.status import status
from engine.runs.store import EventStore
from stonk_tui import prepare
from stonk_tui.cli import app
from tests.cockpit.test_cli_docs import problems, schemas
from tests.engine.test_promotion import stage1_run, write_adapter, write_checkpoint
from tests.market_files import rows, write_csv
from tests.tiny import save_tiny_model, save_whole_policy, tiny_policy


def invoke(*arguments: str) -> Result:
    return CliRunner().invoke(app, arguments, catch_exceptions=False)


def words(text: str) -> str:
    """``text`` without the line breaks that a terminal's width puts in."""
    return " ".join(text.replace("│", " ").split())


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Ids of the runs whose worker was started; nothing is."""
    ids: list[str] = []

    def spawn(run: RunDirectory) -> None:
        ids.append(run.id)
        run.record_worker(os.getpid())

    monkeypatch.setattr(launcher, "_spawn", spawn)
    monkeypatch.setattr(launcher.devices, "gpus", list)
    return ids


@pytest.fixture
def parent(tmp_path: Path) -> RunDirectory:
    model = save_tiny_model(tmp_path / "model")
    return stage1_run(with_overrides(preset("demo"), [f"model.id={model}"]))


def last_line(result: Result) -> str:
    return result.stdout.strip().splitlines()[-1]


def test_promote_shows_what_speaks_for_it_and_ends_with_the_id(parent: RunDirectory) -> None:
    result = invoke("promote", parent.id)
    assert result.exit_code == 0, result.output
    run = directory.find(last_line(result))
    assert run.is_prepared
    for name in ("reward", "accuracy", "reasoning", "settled"):
        assert any(row.startswith(name) and " on " in row for row in result.stdout.splitlines())
    (row,) = [row for row in result.stdout.splitlines() if row.startswith("step-000010")]
    assert row.split() == [
        "step-000010",
        "this",
        "best",
        "0.5",
        "60%",
        "[50,",
        "70]",
        "n=200",
        "55%",
    ]
    assert "optimizer.learning_rate" in result.stdout
    assert f"train --resume {run.id}" in result.stderr


def test_promote_means_the_newest_stage_1_run_even_after_a_promotion(parent: RunDirectory) -> None:
    first = last_line(invoke("promote"))
    assert first != parent.id
    again = invoke("promote")
    assert again.exit_code == 0
    assert last_line(again) == first
    assert "was promoted before" in again.stderr
    assert len(directory.list_runs()) == 2


def test_promote_refuses_in_one_line_when_an_indicator_is_off() -> None:
    parent = stage1_run(lamps="1011")
    result = invoke("promote", parent.id)
    assert result.exit_code == 2
    (line,) = result.stderr.splitlines()
    assert "not all indicators are on: accuracy 0.9 (threshold 0.7)" in line
    assert "--force --reason" in line
    assert directory.list_runs() == [parent]
    assert invoke("promote", parent.id, "--force").exit_code == 2
    assert directory.list_runs() == [parent]
    forced = invoke("promote", parent.id, "--force", "--reason", "a look at Stage II")
    assert forced.exit_code == 0
    record = stage1.record(directory.find(last_line(forced)))
    assert record is not None
    assert (record["forced"], record["reason"]) == (True, "a look at Stage II")


def test_promote_takes_a_checkpoint_by_its_step(parent: RunDirectory) -> None:
    result = invoke("promote", parent.id, "--checkpoint", "step-20")
    record = stage1.record(directory.find(last_line(result)))
    assert (record or {})["checkpoint"] == "step-000020"
    missing = invoke("promote", parent.id, "--checkpoint", "step-21")
    assert missing.exit_code == 2
    assert "it has step-000010, step-000020" in missing.stderr


def test_promote_with_start_starts_once(parent: RunDirectory, started: list[str]) -> None:
    run = last_line(invoke("promote", parent.id))
    assert started == []
    result = invoke("promote", parent.id, "--start")
    assert result.exit_code == 0, result.output
    assert last_line(result) == run
    assert started == [run]
    again = invoke("promote", parent.id, "--start")
    assert again.exit_code == 0
    assert started == [run]
    assert "was started before" in again.stderr


def test_a_prepared_run_is_edited_then_started_by_train_resume(
    parent: RunDirectory, started: list[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    run = directory.find(last_line(invoke("promote", parent.id)))
    file = run.path / "run.yaml"
    text = file.read_text().replace("max_steps: 40", "max_steps: 12")
    coefficient = run.config().objective.kl_coefficient
    file.write_text(text.replace(f"kl_coefficient: {coefficient}", "kl_coefficient: 0.02"))
    result = invoke("train", "--resume", run.id, "--detach")
    assert result.exit_code == 0, result.output
    assert started == [run.id]
    config = run.config()
    assert (config.schedule.max_steps, config.objective.kl_coefficient) == (12, 0.02)
    assert config.model.device == "cpu"


def test_a_broken_edit_is_refused_at_the_start_and_can_be_mended(
    parent: RunDirectory, started: list[str]
) -> None:
    run = directory.find(last_line(invoke("promote", parent.id)))
    file = run.path / "run.yaml"
    text = file.read_text()
    file.write_text(text.replace("max_steps: 40", "max_steps: soon"))
    result = invoke("promote", parent.id, "--start")
    assert result.exit_code == 2
    assert "run.yaml:" in result.stderr
    assert "schedule.max_steps" in result.stderr
    assert invoke("runs").exit_code == 0
    file.write_text(text)
    assert invoke("promote", parent.id, "--start").exit_code == 0
    assert started == [run.id]


def test_a_prepared_run_is_listed_and_told_about(parent: RunDirectory) -> None:
    run = last_line(invoke("promote", parent.id))
    listed = {row["run"]: row for row in json.loads(invoke("runs", "--json").stdout)}
    assert (listed[run]["state"], listed[run]["stage"]) == ("prepared", "II")
    assert "prepared" in invoke("status", run).stdout
    stopped = invoke("stop", run)
    assert stopped.exit_code != 0
    assert len(stopped.stderr.splitlines()) == 1


def test_an_adapter_from_elsewhere_needs_a_reason_and_names_its_base(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = save_tiny_model(tmp_path / "model")
    folder = write_adapter(tmp_path / "theirs")
    monkeypatch.chdir(tmp_path)
    arguments = ("promote", "--adapter", "theirs", "--preset", "demo", "--model", "./model")
    refused = invoke(*arguments)
    assert refused.exit_code == 2
    assert "the four indicators are not known" in refused.stderr
    result = invoke(*arguments, "--force", "--reason", "trained on another box")
    assert result.exit_code == 0, result.output
    run = directory.find(last_line(result))
    assert run.config().model.id == str(model)
    assert (stage1.record(run) or {})["checkpoint"] == str(folder)
    assert last_line(invoke(*arguments)) == run.id


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("promote", "x", "--adapter", "y"), "give a RUN or an --adapter"),
        (("promote", "--preset", "demo"), "go with --adapter"),
        (("train", "--preset", "stage2"), "starts from a promoted Stage I checkpoint"),
        (("promote", "--adapter", "nowhere"), "no such adapter folder"),
        (("promote",), "there is no run yet"),
        (("export", "--checkpoint", "best", "--as", "gguf", "--out", "x"), "'gguf' is not one of"),
        (("export", "--checkpoint", "best", "--as", "merged", "--out", "x"), "no run yet"),
    ],
)
def test_what_does_not_go_together_is_wrong_input(arguments: tuple[str, ...], message: str) -> None:
    result = invoke(*arguments)
    assert result.exit_code == 2
    assert message in words(result.stderr)


# --- export


@pytest.fixture
def trained(tmp_path: Path) -> RunDirectory:
    """A run with a checkpoint of the tiny model, as it was trained."""

    model = save_tiny_model(tmp_path / "model")
    run = directory.create(with_overrides(preset("demo"), [f"model.id={model}"]))
    write_checkpoint(run, 10)
    folder = run.checkpoints / "step-000010"
    (folder / "manifest.json").unlink()
    save_whole_policy(tiny_policy().model, folder)
    files = [
        manifest.Entry(file.name, file.stat().st_size, checkpoint_names.sha256(file))
        for file in folder.iterdir()
    ]
    (folder / "manifest.json").write_text(manifest.text(10, files))
    store = EventStore(run.database)
    store.event("worker", {"pid": 1, "dtype": "float32", "quantized": False})
    store.close()
    return run


def test_export_writes_an_adapter_that_loads(trained: RunDirectory, tmp_path: Path) -> None:
    out = tmp_path / "out"
    result = invoke("export", "--checkpoint", "last", "--as", "adapter", "--out", str(out))
    assert result.exit_code == 0, result.output
    assert f"{trained.id}:step-000010" in result.stdout
    from engine.policy.adapters import read_adapter
    from tests.tiny import tiny_base

    assert read_adapter(out).facts.rank == 4
    put_adapter(tiny_base(), read_adapter(out))
    again = invoke("export", "--checkpoint", "last", "--as", "adapter", "--out", str(out))
    assert again.exit_code == 2
    assert "not empty" in again.stderr


@pytest.mark.usefixtures("trained")
def test_export_of_merged_weights_prints_the_measured_difference(tmp_path: Path) -> None:
    arguments = ("export", "--checkpoint", "last", "--as", "merged", "--out")
    found = json.loads(invoke(*arguments, str(tmp_path / "out"), "--json").stdout)
    assert list(problems(found, schemas()["export"])) == []
    assert 0 < found["largest_logprob_difference"] < 5
    assert found["trained_on_4_bits"] is False
    assert "model.safetensors" in found["files"]
    told = invoke(*arguments, str(tmp_path / "again")).stdout
    assert "merging" in told
    assert f"{found['largest_logprob_difference']:.2g} nats" in told


@pytest.mark.parametrize(
    ("name", "message"),
    [("base", "no adapter to export"), ("step-9", "has no checkpoint step-000009")],
)
def test_export_of_what_is_no_checkpoint_is_wrong_input(
    trained: RunDirectory, tmp_path: Path, name: str, message: str
) -> None:
    out = str(tmp_path / "out")
    result = invoke("export", "--checkpoint", name, "--as", "adapter", "--out", out)
    assert result.exit_code == 2
    assert message in result.stderr
    assert not (tmp_path / "out").exists()


def test_export_of_a_damaged_or_homeless_checkpoint_is_wrong_input(
    trained: RunDirectory, tmp_path: Path
) -> None:
    (trained.checkpoints / "step-000010" / "manifest.json").write_text("{")
    out = str(tmp_path / "out")
    damaged = invoke("export", "--checkpoint", "last", "--as", "adapter", "--out", out)
    assert damaged.exit_code == 2
    assert "damaged" in damaged.stderr
    assert damaged.stderr.endswith("; export another one\n")
    folder = str(write_adapter(tmp_path / "theirs"))
    homeless = invoke("export", "--checkpoint", folder, "--as", "adapter", "--out", out)
    assert homeless.exit_code == 2
    assert "belongs to no run" in homeless.stderr


def test_a_run_that_was_edited_to_a_relative_folder_starts_from_anywhere(
    parent: RunDirectory, started: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = promotion.promote(promotion.plan(parent))
    write_csv(tmp_path / "prices", "AAA", rows(400))
    run.write_config(with_overrides(run.config(), ["data.source=ohlcv:prices"]))
    monkeypatch.chdir(tmp_path)
    prepare.restart(run)
    assert started == [run.id]
    assert run.config().data.source == f"ohlcv:{tmp_path / 'prices'}"
    assert status(run)["stage"] == "II"

"""``stonk-tui eval``: what is sent, what is printed, and what is refused before anything is."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from engine.errors import RunFailedError
from engine.evaluation import client
from engine.evaluation import context as contexts
from engine.runs.directory import RunDirectory
from stonk_tui.cli import app
from stonk_tui.commands import evaluate, evaluation_report
from tests import evaluations
from tests.cockpit.test_cli_docs import problems, schemas

DRAFT: dict[str, Any] = {
    "checkpoint": "step-000004",
    "number": 1,
    "of": 2,
    "done": 1600,
    "total": 2000,
    "seconds": 120.0,
    "eta_seconds": 190.0,
    "right": 300,
    "read": 590,
    "per_checkpoint": {
        "base": {"done": 1000, "right": 0, "read": 0},
        "step-000004": {"done": 600, "right": 300, "read": 590},
    },
    "baseline": {"name": "always_up", "value": 0.523},
}


def _value(value: float | None, n: int = 60, **more: Any) -> dict[str, Any]:
    known = value is not None
    return {
        "value": value,
        "low": value - 0.1 if known else None,
        "high": value + 0.1 if known else None,
        "n": n,
        "why": None if known else "no answer states a confidence",
        **more,
    }


def _checkpoint(accuracy: float) -> dict[str, Any]:
    return {
        "accuracy": _value(accuracy),
        "majority": "always_up",
        "baselines": {"always_up": {"accuracy": _value(0.55)}},
        "roc_auc": _value(None),
        "brier": {"skill": _value(-0.02)},
    }


class Worker:
    """Stands in for the worker and for the report that follows."""

    def __init__(self) -> None:
        self.asked: list[tuple[RunDirectory, Path]] = []

    def __call__(
        self, run: RunDirectory, folder: Path, *, drafts: Callable[[Mapping[str, Any]], None]
    ) -> Mapping[str, Any]:
        self.asked.append((run, folder))
        drafts(DRAFT)
        context = contexts.read(folder).model_copy(update={"seconds": 3.0})
        context = context.model_copy(update={"finished": context.created})
        context.write(folder)
        labels = [one.label for one in context.checkpoints]
        report = {
            "context": context.model_dump(mode="json"),
            "summary": {
                "examples": context.num_examples,
                "days": 40,
                "checkpoints": {label: _checkpoint(0.6) for label in labels},
                "comparisons": [],
            },
            "verdicts": {
                label: {"word": "no evidence", "reasons": ["Nothing \x1b[31m is there."]}
                for label in labels
            },
            "backtest": {"checkpoints": {}},
            "version": evaluation_report.VERSION,
        }
        (folder / evaluation_report.FILE).write_text(json.dumps(report))
        return {}


@pytest.fixture
def worker(monkeypatch: pytest.MonkeyPatch) -> Worker:
    worker = Worker()
    monkeypatch.setattr(client, "ask", worker)
    return worker


@pytest.fixture
def run(tmp_path: Path) -> RunDirectory:
    return evaluations.make_run(tmp_path)


def invoke(*arguments: str) -> Result:
    return CliRunner().invoke(app, ["eval", *arguments])


def test_json_is_the_report_and_keeps_to_its_schema(run: RunDirectory, worker: Worker) -> None:
    done = invoke("--checkpoint", "last", "--examples", "5", "--json")
    assert done.exit_code == 0, done.output
    assert done.stdout.isascii()
    report = json.loads(done.stdout)
    assert list(problems(report, schemas()["eval"])) == []
    assert [*report["verdicts"]] == ["base", "step-000004"]
    ((host, folder),) = worker.asked
    assert host == run
    assert folder.parent == run.path / "evaluation"
    # Beside it stands how far it was.
    assert "right 50.0% [46.0%, 54.0%] n=600  always up 52.3%  ETA 3m 10s" in done.stderr


def test_a_person_reads_verdict_interval_n_and_baseline(run: RunDirectory, worker: Worker) -> None:
    done = invoke("--checkpoint", "step-4", "--examples", "5")
    assert done.exit_code == 0, done.output
    (line,) = [one for one in done.stdout.splitlines() if one.startswith("step-000004  ")]
    assert "no evidence" in line
    assert "60.0% [50.0%, 70.0%] n=60" in line
    assert "always up 55.0% [45.0%, 65.0%] n=60" in line
    assert "not computable" in line
    assert "-0.020" in line
    assert "looked at for the first time, with 2 checkpoints" in done.stdout
    assert "\x1b" not in done.output
    assert "10 predictions of 5 examples by base, step-000004" in done.stderr
    assert "5 examples are too few for a narrow interval" in done.stderr


def test_a_finished_evaluation_in_a_named_folder_is_shown_and_not_made_again(
    run: RunDirectory, worker: Worker, tmp_path: Path
) -> None:
    arguments = ("--checkpoint", "base", "--examples", "4", "--out", str(tmp_path / "out"))
    assert invoke(*arguments).exit_code == 0
    again = invoke(*arguments)
    assert again.exit_code == 0
    assert "evaluated already" in again.stderr
    assert len(worker.asked) == 1


def test_an_overlap_that_is_forced_is_marked(
    run: RunDirectory, worker: Worker, tmp_path: Path
) -> None:
    earlier = evaluations.write_prices(tmp_path / "earlier", first="2013-06-03")
    wanted = ("--checkpoint", "last", "--source", earlier, "--examples", "4")
    refused = invoke(*wanted)
    assert refused.exit_code == 2
    assert f"overlap what {run.id} was trained on" in refused.output
    assert worker.asked == []
    forced = invoke(*wanted, "--force")
    assert forced.exit_code == 0
    assert "DATES OVERLAP THOSE OF TRAINING" in forced.stdout
    assert "marks every page of the report" in forced.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--checkpoint", "step-9"), "has no checkpoint step-000009; it has step-000002"),
        (("--checkpoint", "base", "--source", "moon"), "no market data source called"),
        (("--checkpoint", "base", "--split", "holdout"), "'holdout' is not one of"),
        (("--checkpoint", "base", "--samples", "65"), "less than or equal to 64"),
        (("--checkpoint", "base", "--temperature", "1"), "one sample is greedy"),
        (("--checkpoint", "base", "--ticker", "CCC"), "no ticker called 'CCC'"),
        (("--checkpoint", "base", "--ticker", "../x y"), "eval tickers.0"),
        (("--checkpoint", "base") * 17, "at most 16 items"),
    ],
)
def test_what_cannot_be_evaluated_is_refused_before_anybody_is_asked(
    arguments: tuple[str, ...], message: str, run: RunDirectory, worker: Worker
) -> None:
    done = invoke(*arguments)
    assert done.exit_code == 2
    assert message in " ".join(done.output.replace("│", " ").split())
    assert worker.asked == []


def test_ctrl_c_ends_the_evaluation_and_says_how_to_go_on(
    run: RunDirectory, monkeypatch: pytest.MonkeyPatch
) -> None:
    interrupted: list[RunDirectory] = []

    def ask(*args: object, **kwargs: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(client, "ask", ask)
    monkeypatch.setattr(client, "interrupt", interrupted.append)
    done = invoke("--checkpoint", "base", "--examples", "4")
    assert done.exit_code == 130
    assert interrupted == [run]
    assert "the same command goes on with it" in done.stderr
    monkeypatch.setattr(client, "ask", Worker())
    again = invoke("--checkpoint", "base", "--examples", "4")
    assert again.exit_code == 0
    assert f"goes on with {run.path / 'evaluation'}" in again.stderr


def test_an_evaluation_that_fails_is_exit_code_1(
    run: RunDirectory, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*args: object, **kwargs: object) -> None:
        raise RunFailedError("the run was told to end first")

    monkeypatch.setattr(client, "ask", fails)
    done = invoke("--checkpoint", "base", "--examples", "4")
    assert done.exit_code == 1
    assert "the run was told to end first" in done.output


def test_nothing_is_said_of_what_is_not_known_yet() -> None:
    empty = {**DRAFT, "eta_seconds": None, "baseline": None}
    empty["per_checkpoint"] = {"step-000004": {"done": 0, "right": 0, "read": 0}}
    assert evaluate.live(empty) == "step-000004 (2 of 2)  1,600 of 2,000 predictions"

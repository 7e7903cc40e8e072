"""``stonk-tui probe``: what is sent, what is printed, and what is refused before anything is."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from engine.config import RunConfig
from engine.errors import RunFailedError
from engine.probe import client
from engine.probe.request import ProbeRequest
from engine.probe.tally import tally
from engine.runs import directory
from engine.runs.directory import RunDirectory
from stonk_tui.cli import app
from tests.cockpit.test_cli_docs import problems, schemas

TYPED = """\
ticker: ACME
as_of: 2026-11-19
prices: [101.2, 99.8, 100.1, 101, 102, 103, 102.5, 101.9, 104, 105.2, 106]
news: [Acme raises its forecast]
"""


def _sample(direction: str | None, reward: float | None) -> dict[str, Any]:
    return {
        "completion": "<answer>UP \x1b[31m</answer>",
        "finished": True,
        "direction": direction,
        "percent": 0.8 if direction else None,
        "confidence": 0.6 if direction else None,
        "error": None if direction else "no answer",
        "reward": reward,
    }


class Worker:
    """Stands in for the worker: remembers what it was asked, and always says the same."""

    def __init__(self) -> None:
        self.asked: list[tuple[RunDirectory, ProbeRequest]] = []

    def __call__(
        self,
        run: RunDirectory,
        request: ProbeRequest,
        *,
        timeout: float,
        drafts: Callable[[Mapping[str, Any]], None],
    ) -> Mapping[str, Any]:
        self.asked.append((run, request))
        drafts({"checkpoint": "base", "done": 1, "total": 3})
        outcome = request.example.outcome
        reward = None if outcome is None else 0.4
        samples = [_sample(side, reward) for side in ("UP", "UP", None)]
        return {
            "id": "q",
            "example": {
                "source": request.example.source,
                "ticker": request.example.ticker,
                "as_of": request.example.as_of.isoformat(),
                "horizon": 1,
                "style": "compact",
                "actual": outcome and {"direction": "UP", "percent": outcome.percent},
            },
            "samples": request.samples,
            "temperature": 1.0,
            "seed": request.seed,
            "seconds": 2.5,
            "answers": [
                {"checkpoint": name, "run": run.id, "samples": samples, **tally(samples)}
                for name in request.checkpoints
            ],
        }


@pytest.fixture
def worker(monkeypatch: pytest.MonkeyPatch) -> Worker:
    worker = Worker()
    monkeypatch.setattr(client, "ask", worker)
    return worker


@pytest.fixture
def run() -> RunDirectory:
    run = directory.create(RunConfig())
    (run.checkpoints / "step-000004").mkdir()
    return run


def invoke(*arguments: str) -> Result:
    return CliRunner().invoke(app, ["probe", *arguments])


DAY = ("--ticker", "AAPL", "--date", "2012-09-14")


def test_json_is_one_object_a_line_and_keeps_to_its_schema(
    run: RunDirectory, worker: Worker
) -> None:
    done = invoke("--checkpoint", "base", "--checkpoint", "last", *DAY, "--samples", "3", "--json")
    assert done.exit_code == 0, done.output
    assert done.stdout.isascii()
    answers = [json.loads(line) for line in done.stdout.splitlines()]
    assert [list(problems(answer, schemas()["probe"])) for answer in answers] == [[], []]
    assert [answer["checkpoint"] for answer in answers] == ["base", "step-000004"]
    assert answers[0]["vote"] == "UP"
    assert answers[0]["p_up"]["n"] == 2
    assert round(answers[0]["actual"]["percent"], 2) == 1.23
    ((host, request),) = worker.asked
    assert host == run
    assert (request.samples, request.seed, request.temperature) == (3, 0, None)
    assert request.example.source == "demo"


def test_a_person_reads_interval_and_number_beside_every_share(
    run: RunDirectory, worker: Worker
) -> None:
    done = invoke("--checkpoint", "step-4", *DAY)
    assert done.exit_code == 0, done.output
    assert "AAPL on 2012-09-14, source demo, 8 samples at temperature 1: it went UP +1.23%" in (
        done.stdout
    )
    assert "P(UP) 1.00 [0.34, 1.00] n=2  UP 2, DOWN 0, unread 1  sure 60% n=2  vote UP" in (
        done.stdout
    )
    assert "UP     0.8%   60%  reward  +0.40" in done.stdout
    assert "\x1b" not in done.stdout


def test_an_example_typed_by_hand_has_no_outcome_and_no_reward(
    run: RunDirectory, worker: Worker, tmp_path: Path
) -> None:
    file = tmp_path / "example.yaml"
    file.write_text(TYPED)
    done = invoke("--checkpoint", "base", "--file", str(file), "--json")
    assert done.exit_code == 0, done.output
    answer = json.loads(done.stdout)
    assert list(problems(answer, schemas()["probe"])) == []
    assert (answer["actual"], answer["example"]["source"]) == (None, None)
    assert {sample["reward"] for sample in answer["samples"]} == {None}
    assert "the outcome is not known" in invoke("--checkpoint", "base", "--file", str(file)).stdout


def test_the_run_of_the_first_checkpoint_is_asked(run: RunDirectory, worker: Worker) -> None:
    newer = directory.create(RunConfig(name="newer"))
    assert invoke("--checkpoint", f"{run.id}:last", *DAY).exit_code == 0
    assert invoke(newer.id, "--checkpoint", f"{run.id}:last", *DAY).exit_code == 0
    (first, one), (second, other) = worker.asked
    assert (first, one.checkpoints) == (run, ("step-000004",))
    assert (second, other.checkpoints) == (newer, (f"{run.id}:step-000004",))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--checkpoint", "step-9", *DAY), "has no checkpoint step-000009; it has step-000004"),
        (("--checkpoint", "best", *DAY), "has no best checkpoint"),
        (("--checkpoint", "base"), "no example to ask about; give a ticker and a date"),
        (("--checkpoint", "base", "--ticker", "APL", "--date", "2012-09-14"), "no ticker called"),
        (("--checkpoint", "base", *DAY, "--samples", "65"), "less than or equal to 64"),
        (("--checkpoint", "base", *DAY, "--file", "x"), "give a file or source"),
        (("--checkpoint", "base", "--file", "nowhere.yaml"), "nowhere.yaml: cannot read"),
        (("--checkpoint", "base", "--source", "moon", *DAY), "no market data source called"),
        (("--checkpoint", "base") * 5 + DAY, "at most 4 at once"),
    ],
)
def test_what_cannot_be_asked_is_refused_before_anybody_is_asked(
    arguments: tuple[str, ...], message: str, run: RunDirectory, worker: Worker
) -> None:
    done = invoke(*arguments)
    assert done.exit_code == 2
    assert message in " ".join(done.output.replace("│", " ").split())
    assert worker.asked == []


def test_a_fault_of_a_file_is_told_with_line_and_field(
    run: RunDirectory, worker: Worker, tmp_path: Path
) -> None:
    file = tmp_path / "example.yaml"
    file.write_text(TYPED.replace("99.8", "many"))
    done = invoke("--checkpoint", "base", "--file", str(file))
    assert done.exit_code == 2
    assert f"{file}:3:prices.1: a price is a number" in done.output


def test_an_answer_that_does_not_come_is_exit_code_1(
    run: RunDirectory, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*args: object, **kwargs: object) -> None:
        raise RunFailedError("asked, but not answered yet")

    monkeypatch.setattr(client, "ask", fails)
    done = invoke("--checkpoint", "base", *DAY)
    assert done.exit_code == 1
    assert "asked, but not answered yet" in done.output

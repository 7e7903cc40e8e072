"""Evaluations by real worker processes: one that trains, and one that does not."""

import json
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from engine.config import with_overrides
from engine.errors import RunFailedError, UserError
from engine.evaluation import client, request
from engine.evaluation import context as contexts
from engine.runs import control, directory, launcher
from engine.runs.directory import RunDirectory
from engine.runs.reader import StoreReader
from engine.runs.status import status
from tests import evaluations
from tests.waiting import wait_for

pytest.importorskip("engine.evaluation.report")
pytestmark = pytest.mark.slow
SECONDS = 180.0


@pytest.fixture(autouse=True)
def no_worker_left(isolated_environment: None) -> Iterator[None]:
    yield
    for run in directory.list_runs():
        for process in (run.worker(), run.prober()):
            if process is not None:
                process.kill()
                process.wait()


def _events(run: RunDirectory, kind: str) -> list[Mapping[str, Any]]:
    reader = StoreReader(run.database)
    found = [event.payload for event in reader.events(0, 100_000) if event.kind == kind]
    reader.close()
    return found


def _report(folder: Path) -> dict[str, Any]:
    values: dict[str, Any] = json.loads((folder / "report.json").read_text())
    return values


def test_a_run_in_training_is_evaluated_between_two_steps_and_goes_on(tmp_path: Path) -> None:
    endless = ["schedule.max_steps=100000", "schedule.eval_every=100000", "warmup.steps=0"]
    run = launcher.launch(with_overrides(evaluations.make_config(tmp_path), endless))
    wait_for(lambda: checkpoints(run), SECONDS)
    drafts: list[Mapping[str, Any]] = []
    wanted = request.build(checkpoints=("last",), examples=12)
    folder = client.evaluate(run, wanted, drafts=drafts.append)
    report = _report(folder)
    (label,) = {*report["verdicts"]} - {"base"}
    assert label.startswith("step-")
    assert contexts.read(folder).finished is not None
    (begun, done) = _events(run, "evaluation")
    assert (begun["state"], done["state"]) == ("begun", "done")
    assert {*done["accuracy"]} == {*done["verdicts"]} == {"base", label}
    states = [payload["state"] for payload in _events(run, "state")]
    assert states[-2:] == ["evaluating", "training"]
    step = status(run)["step"]
    wait_for(lambda: status(run)["step"] > step)
    assert run.prober() is None
    with pytest.raises(UserError, match="has a living worker, which answers itself"):
        launcher.launch_prober(run, request.VERB)


def checkpoints(run: RunDirectory) -> bool:
    return (run.checkpoints / "step-000000" / "manifest.json").is_file()


def test_a_worker_that_is_killed_or_told_to_stop_leaves_what_the_next_one_goes_on_with(
    tmp_path: Path,
) -> None:
    run = evaluations.make_run(tmp_path)
    wanted = request.build(checkpoints=("step-2", "step-4"), samples=2)
    begun = client.prepare(run, wanted)

    def disturbed_by(disturb: Any) -> str:
        said: list[str] = []

        def ask() -> None:
            try:
                client.ask(run, begun.folder)
            except (RunFailedError, UserError) as error:
                said.append(str(error))

        before = evaluations.count(begun.folder)
        asking = threading.Thread(target=ask)
        asking.start()
        wait_for(lambda: evaluations.count(begun.folder) > before, SECONDS)
        disturb()
        asking.join(SECONDS)
        return said[0]

    def kill() -> None:
        prober = run.prober()
        assert prober is not None
        prober.kill()
        prober.wait()

    assert "ended first" in disturbed_by(kill)
    assert "interrupted" in disturbed_by(lambda: client.interrupt(run))
    prober = run.prober()
    assert prober is not None
    assert "interrupted" in disturbed_by(lambda: control.send(run, "stop"))
    wait_for(lambda: run.prober() is None)
    again = client.prepare(run, wanted)
    assert (again.folder, again.is_new, again.is_finished) == (begun.folder, False, False)
    assert 0 < evaluations.count(begun.folder) < contexts.read(begun.folder).total
    assert client.evaluate(run, wanted) == begun.folder
    assert evaluations.count(begun.folder) == contexts.read(begun.folder).total
    assert [one["state"] for one in _events(run, "evaluation")].count("stopped") == 2
    assert contexts.read(begun.folder).touches == 1
    # To everybody else nothing has happened to the run.
    assert _events(run, "state") == []

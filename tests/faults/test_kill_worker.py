"""Killed workers: the short form of the row, and that its checks find what is wrong."""

import shutil
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from bench.fault_rows import checks, kill_worker, tiny_runs
from bench.fault_rows.sender import Sent
from bench.fault_rows.tiny_runs import Watcher
from engine.runs.directory import RunDirectory

(ROW,) = kill_worker.ROWS


@pytest.mark.slow
@pytest.mark.parametrize("number", range(ROW.short))
def test_killed_worker_loses_nothing(number: int, tmp_path: Path) -> None:
    assert ROW.trial(number, tmp_path).problem == ""


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunDirectory]:
    """A run that nobody interrupted; tests change copies of it."""
    folder = tmp_path_factory.mktemp("finished")
    schedule = {"max_steps": 2, "save_every": 2, "eval_every": 2, "eval_samples": 2}
    with tiny_runs.new_run(folder, schedule=schedule) as run:
        tiny_runs.workers().start(run)
        tiny_runs.until(lambda: run.worker() is None)
        yield run


def _sql(statement: str) -> Callable[[RunDirectory], None]:
    def change(run: RunDirectory) -> None:
        with sqlite3.connect(run.database) as database:
            database.execute(statement)
        database.close()

    return change


def _rename_checkpoint(run: RunDirectory) -> None:
    folder = run.checkpoints / "step-000003"
    (run.checkpoints / "step-000002").rename(folder)
    (folder / "manifest.json").write_text(
        (folder / "manifest.json").read_text().replace('"step": 2', '"step": 3')
    )


DAMAGE: dict[str, tuple[Callable[[RunDirectory], None], str]] = {
    "a hole": (_sql("DELETE FROM events WHERE seq = 3"), "events lost or changed"),
    "a changed row": (_sql("UPDATE events SET step = 9 WHERE seq = 3"), "events lost or changed"),
    "a step that is hidden": (
        _sql("UPDATE events SET superseded = 1 WHERE kind = 'step' AND step = 1"),
        "events of kind step are at [2] instead of [1, 2]",
    ),
    "a validation twice": (
        _sql("INSERT INTO events SELECT 999, attempt, time, kind, step, payload, 0 FROM events"
             " WHERE kind = 'validation' LIMIT 1"),
        "the sequence of events has holes",
    ),
    "rollouts twice": (
        _sql("INSERT INTO rollouts SELECT id + 1000, attempt, step, grp, prompt_id, sample,"
             " completion, tokens, finished, reward, advantage, prediction, components, cited, 0"
             " FROM rollouts WHERE step = 1"),
        "rollouts of steps are",
    ),
    "a command without an answer": (
        _sql("INSERT INTO commands (id, time, verb, args) VALUES ('mute', 0, 'pause', '{}')"),
        "mute has 0 answers",
    ),
    "a checkpoint of which nobody told": (_rename_checkpoint, "the log tells of checkpoints"),
    "a damaged checkpoint": (
        lambda run: (run.checkpoints / "step-000002/adapter_model.safetensors").unlink(),
        "checkpoint step-000002",
    ),
    "another best": (lambda run: (run.path / "best_model").write_text("step-000001"), "best is"),
}  # fmt: skip


@pytest.mark.parametrize(("damage", "problem"), DAMAGE.values(), ids=DAMAGE)
def test_checks_find_what_is_wrong(
    finished: RunDirectory,
    damage: Callable[[RunDirectory], None],
    problem: str,
    tmp_path: Path,
) -> None:
    watcher = Watcher(finished)
    watcher.look()
    watcher.close()
    copy = RunDirectory(shutil.copytree(finished.path, tmp_path / finished.id))
    assert checks.problem_of(finished, watcher.rows, []) == ""
    damage(copy)
    assert problem in checks.problem_of(copy, watcher.rows, [])


def test_checks_find_a_command_that_was_acknowledged_and_lost(finished: RunDirectory) -> None:
    lost = Sent("lost", "pause", {}, is_acknowledged=True)
    assert checks.problem_of(finished, [], [lost]) == "lost was acknowledged and is lost"
    assert checks.problem_of(finished, [], [Sent("never", "pause", {})]) == ""

"""``stonk-tui delete``: it asks, it needs a name, and it refuses what the engine refuses."""

import pytest
from typer.testing import CliRunner, Result

from engine.runs import directory
from stonk_tui.cli import app
from stonk_tui.commands import delete as command
from tests import recorded


def invoke(*arguments: str, answer: str | None = None) -> Result:
    return CliRunner().invoke(app, arguments, input=answer, catch_exceptions=False)


def test_run_is_deleted_unasked_with_yes() -> None:
    run = recorded.record(60, name="one", state="finished").run
    result = invoke("delete", "one", "--yes")
    assert result.exit_code == 0
    assert "1 checkpoint, " in result.stdout
    assert result.stdout.endswith("deleted\n")
    assert not run.path.exists()


def test_without_a_terminal_nothing_is_deleted_unasked() -> None:
    run = recorded.record(3, state="finished").run
    result = invoke("delete", "demo")
    assert result.exit_code == 2
    assert "nobody is here to confirm it; say --yes" in result.stderr
    assert run.path.exists()


@pytest.mark.parametrize(("answer", "is_gone"), [("y\n", True), ("n\n", False), ("\n", False)])
def test_a_person_is_asked(monkeypatch: pytest.MonkeyPatch, answer: str, *, is_gone: bool) -> None:
    run = recorded.record(3, state="finished").run

    class Terminal:
        def isatty(self) -> bool:
            return True

    monkeypatch.setattr(command, "sys", type("sys", (), {"stdin": Terminal()}))
    result = invoke("delete", run.id, answer=answer)
    assert "Delete it for good?" in result.stdout
    assert result.exit_code == (0 if is_gone else 1)
    assert run.path.exists() is not is_gone


def test_a_run_is_never_guessed() -> None:
    recorded.record(3, name="one", state="finished")
    recorded.record(3, name="two", state="finished")
    assert invoke("delete", "--yes").exit_code == 2
    assert invoke("delete", "20251120", "--yes").exit_code == 2
    assert invoke("delete", "../one", "--yes").exit_code == 2
    assert len(directory.list_runs()) == 2


def test_living_run_is_refused_with_the_way_out() -> None:
    run = recorded.record(3).run
    result = invoke("delete", run.id, "--yes")
    assert result.exit_code == 2
    assert f"stonk-tui stop {run.id}" in result.stderr
    assert run.path.exists()

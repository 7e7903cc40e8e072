"""The self-test: green on a sound machine, red with a reason where something is lost."""

import json
import sqlite3
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from engine.runs import directory
from stonk_tui import doctor
from stonk_tui.cli import app
from stonk_tui.doctor import deep
from stonk_tui.doctor.findings import Finding
from stonk_tui.doctor.gpus import DriverView, TorchView


def _silent(phase: str, done: int, total: int) -> None:
    pass


def test_a_writer_that_is_killed_loses_nothing_it_called_durable(tmp_path: Path) -> None:
    phases: list[tuple[str, int, int]] = []
    found = deep.durability(tmp_path, lambda *one: phases.append(one))
    assert found.level == "ok", found.message
    assert found.message.startswith("3 kills, ")
    assert [(done, total) for _, done, total in phases] == [(0, 3), (1, 3), (2, 3)]


def test_a_lost_event_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kill = deep._killed_writer

    def losing(path: Path) -> int:
        promised = kill(path)
        with sqlite3.connect(path) as database:
            database.execute("DELETE FROM events WHERE seq = 2")
        database.close()
        return promised

    monkeypatch.setattr(deep, "_killed_writer", losing)
    found = deep.durability(tmp_path, _silent)
    assert found.level == "error"
    assert "misses events that were durable" in found.message
    assert found.fix is not None


@pytest.mark.slow
def test_a_tiny_run_that_is_killed_goes_on_and_leaves_nothing_behind(tmp_path: Path) -> None:
    found = deep.collect(tmp_path, _silent)
    assert [one.level for one in found[:2]] == ["ok", "ok"], found
    assert found[1].message.endswith("went on to step 6: every step there once")
    assert list(tmp_path.iterdir()) == []
    assert directory.list_runs() == []


def test_a_home_that_cannot_be_written_is_one_finding(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    found = deep.collect(tmp_path / "file" / "home", _silent)
    assert (found[0].name, found[0].level) == ("self-test", "error")
    assert found[0].fix is not None


@pytest.mark.parametrize(
    ("environment", "size", "levels"),
    [
        (
            {"TERM": "xterm-256color", "COLORTERM": "truecolor", "LANG": "en_US.UTF-8"},
            (120, 40),
            ["ok"] * 5,
        ),
        (
            {"TERM": "linux", "LANG": "C"},
            (70, 20),
            ["note", "note", "warning", "note", "note"],
        ),
    ],
)
def test_what_a_terminal_can_do_is_judged_by_what_it_says(
    environment: Mapping[str, str], size: tuple[int, int], levels: list[str]
) -> None:
    found = deep.terminal(environment, size, True, "utf-8")
    assert [one.name for one in found] == ["colours", "unicode", "size", "mouse", "clipboard"]
    assert [one.level for one in found] == levels
    assert all(one.fix for one in found if one.level != "ok")
    # The plain doctor has said that there is none.
    assert deep.terminal({}, (0, 0), False, None) == []


@pytest.mark.parametrize(("level", "code"), [("ok", 0), ("warning", 0), ("error", 1)])
def test_the_exit_code_tells_of_a_check_that_failed(
    level: Any, code: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    # An error of the ordinary checks is no failure of the self-test.
    ordinary = [Finding("gpu", "error", "no driver", "install it")]
    report = doctor.DoctorReport("m", "/home", {"python": "3"}, TorchView(), DriverView(), ordinary)
    monkeypatch.setattr(doctor, "collect", lambda model, home: report)
    finding = Finding("store durability", level, "what was found", "what to do")
    monkeypatch.setattr(deep, "collect", lambda home, progress: [finding])
    result = CliRunner().invoke(app, ["doctor", "--deep"])
    assert result.exit_code == code
    assert "store durability  what was found" in result.stdout
    assert "fix: what to do" in result.stdout
    result = CliRunner().invoke(app, ["doctor", "--deep", "--json"])
    assert result.exit_code == code
    assert json.loads(result.stdout)["findings"][-1]["name"] == "store durability"
    assert CliRunner().invoke(app, ["doctor"]).exit_code == 0

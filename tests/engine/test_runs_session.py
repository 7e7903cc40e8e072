"""What becomes of a worker at logout, and how it is started because of it."""

from typing import Any

import pytest

from engine.runs import launcher, session
from engine.runs.session import Session, survival


@pytest.mark.parametrize(
    ("found", "level", "prefixed", "fix"),
    [
        (Session(has_systemd=False), "ok", False, None),
        (Session(True, kills=False, lingers=False, has_manager=True), "ok", False, None),
        (Session(True, kills=True, lingers=True, has_manager=True), "ok", True, None),
        (
            Session(True, kills=True, lingers=False, has_manager=True),
            "warning",
            True,
            "loginctl enable-linger",
        ),
        (
            Session(True, kills=True, lingers=False, has_manager=False),
            "warning",
            False,
            "loginctl enable-linger, log in anew, or set KillUserProcesses=no in logind.conf",
        ),
        (Session(True, kills=None, lingers=True), "ok", False, None),
        (Session(True, kills=None, lingers=None), "note", False, "loginctl enable-linger"),
    ],
)
def test_a_worker_moves_to_the_users_manager_only_where_that_helps(
    found: Session, level: str, prefixed: bool, fix: str | None
) -> None:
    outlook = survival(found)
    assert (outlook.level, bool(outlook.prefix), outlook.fix) == (level, prefixed, fix)
    assert "\n" not in outlook.message


def test_what_systemd_says_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    said = {
        "show-session": "KillUserProcesses=yes\n",
        "show-user": "Linger=no\n",
        "--user": "degraded\n",
    }
    monkeypatch.setattr(session.Path, "is_dir", lambda path: True)
    monkeypatch.setattr(session.shutil, "which", lambda name: f"/usr/bin/{name}")
    monkeypatch.setattr(session, "_said", lambda command: said[command[1]])
    assert session.look() == Session(True, kills=True, lingers=False, has_manager=True)
    monkeypatch.setattr(session, "_said", lambda command: "")
    assert session.look() == Session(True, kills=None, lingers=None, has_manager=False)


def test_the_launcher_starts_the_worker_as_the_session_needs_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Any
) -> None:
    killing = Session(True, kills=True, lingers=True, has_manager=True)
    monkeypatch.setattr(launcher.session, "look", lambda: killing)
    commands: list[list[str]] = []

    class Started:
        pid = 2**30

        def __init__(self, command: list[str], **_: Any) -> None:
            commands.append(command)

    monkeypatch.setattr(launcher.subprocess, "Popen", Started)
    run = launcher.RunDirectory(tmp_path)
    launcher._spawn(run)
    assert commands[0][:3] == ["systemd-run", "--user", "--scope"]
    assert commands[0][-2:] == [launcher.WORKER_MODULE, str(tmp_path)]

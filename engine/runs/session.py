"""Whether a worker outlives the session it was started in, and what helps it to.

A worker has a session of its own and ignores SIGHUP, which a closed terminal needs. systemd can
be set to kill what is left of a user's login session (``KillUserProcesses``): that ends it all the
same, unless it runs under the user's own manager, which outlives the last logout where the user
lingers.
"""

import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

_SECONDS = 3.0
_SCOPE = ("systemd-run", "--user", "--scope", "--quiet", "--collect", "--")
"""Runs a command as this very process, moved to the user's manager."""


@dataclass(frozen=True)
class Session:
    """What systemd says; None where it does not say."""

    has_systemd: bool
    kills: bool | None = None
    """Whether what is left of a session is killed at logout."""
    lingers: bool | None = None
    """Whether the user's manager outlives the last logout."""
    has_manager: bool = False
    """Whether that manager answers and a command can be given to it."""


@dataclass(frozen=True)
class Survival:
    """What becomes of a worker at logout."""

    level: Literal["ok", "note", "warning"]
    message: str
    fix: str | None = None
    prefix: tuple[str, ...] = ()
    """What to start the worker with."""


def survival(session: Session) -> Survival:
    """How a worker has to be started in ``session``, and whether it lasts."""
    if not session.has_systemd:
        return Survival("ok", "no systemd here: nothing ends runs at logout")
    if session.kills is False:
        return Survival("ok", "systemd leaves processes alone at logout: runs go on")
    if session.kills is None:
        if session.lingers:
            return Survival("ok", "lingering is on")
        return Survival(
            "note",
            "lingering is off: where systemd is set to kill a user's processes at logout, runs end",
            "loginctl enable-linger",
        )
    prefix = _SCOPE if session.has_manager else ()
    if session.has_manager and session.lingers:
        return Survival(
            "ok",
            "systemd kills processes at logout; runs start under your own manager",
            prefix=prefix,
        )
    if session.has_manager:
        return Survival(
            "warning",
            "lingering is off and systemd kills processes at logout: runs end with your last login",
            "loginctl enable-linger",
            prefix=prefix,
        )
    return Survival(
        "warning",
        "systemd kills processes at logout, and your own manager does not answer: runs end too",
        "loginctl enable-linger, log in anew, or set KillUserProcesses=no in logind.conf",
    )


def look() -> Session:
    """Ask systemd."""
    if not Path("/run/systemd/system").is_dir() or shutil.which("loginctl") is None:
        return Session(has_systemd=False)
    kills = _said(["loginctl", "show-session", "--property=KillUserProcesses"])
    lingers = _said(["loginctl", "show-user", str(os.getuid()), "--property=Linger"])
    manager = _said(["systemctl", "--user", "is-system-running"])
    return Session(
        has_systemd=True,
        kills=_flag(kills, "KillUserProcesses"),
        lingers=_flag(lingers, "Linger"),
        has_manager=shutil.which("systemd-run") is not None
        and manager.strip() in ("running", "degraded", "starting"),
    )


def _flag(text: str, name: str) -> bool | None:
    lines = text.split()
    return True if f"{name}=yes" in lines else False if f"{name}=no" in lines else None


def _said(command: list[str]) -> str:
    """What a command prints; nothing where it cannot be run."""
    try:
        return subprocess.run(
            command,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=_SECONDS,
            stdin=subprocess.DEVNULL,
            check=False,
        ).stdout
    except (OSError, subprocess.TimeoutExpired):
        return ""

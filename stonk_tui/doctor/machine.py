"""The machine around a run: libraries, file system, SQLite, hub, session and terminal."""

import importlib.metadata
import os
import sqlite3
import sys
import threading
import urllib.error
import urllib.request
from collections.abc import Mapping
from pathlib import Path

from engine.presets import EMBEDDED_MODEL
from engine.runs import filesystem
from engine.runs.session import Survival
from engine.text import one_line
from stonk_tui.doctor.findings import Finding, dotted
from stonk_tui.doctor.gpus import TorchView, version_tuple

LIBRARIES = ("textual", "torch", "transformers", "peft", "bitsandbytes", "accelerate")


def library_versions() -> dict[str, str | None]:
    """Installed versions, without importing anything."""
    versions: dict[str, str | None] = {"python": ".".join(map(str, sys.version_info[:3]))}
    for name in LIBRARIES:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            versions[name] = None
    versions["sqlite"] = sqlite3.sqlite_version
    return versions


def judge_python(version: tuple[int, int]) -> Finding:
    text = f"Python {version[0]}.{version[1]}"
    if version < (3, 11):
        return Finding("python", "error", f"{text} is too old", "install Python 3.11 or newer")
    return Finding("python", "ok", text)


def judge_libraries(versions: Mapping[str, str | None], torch: TorchView) -> list[Finding]:
    """Whether everything is installed, loads, and is free of known holes."""
    missing = [name for name, version in versions.items() if version is None]
    if missing:
        return [
            Finding(
                "libraries",
                "error",
                f"not installed: {', '.join(missing)}",
                "run make demo once: it installs the locked versions",
            )
        ]
    findings = []
    if torch.error and torch.version is None:
        findings.append(
            Finding(
                "torch",
                "error",
                f"torch does not load ({torch.error})",
                "reinstall it: delete .venv and run make demo",
            )
        )
    if version_tuple(versions["transformers"]) < (5, 5):
        findings.append(
            Finding(
                "transformers",
                "error",
                f"transformers {versions['transformers']} can run code out of a model's "
                "configuration (CVE-2026-4372, CVE-2026-5241)",
                "install the locked version: run make demo",
            )
        )
    if version_tuple(versions["torch"]) < (2, 10):
        findings.append(
            Finding(
                "torch",
                "warning",
                f"torch {versions['torch']} can run code while loading weights (CVE-2026-24747)",
                "install torch 2.10 or newer",
            )
        )
    return findings or [Finding("libraries", "ok", "all installed, and torch loads")]


def judge_filesystem(home: Path, kind: str | None) -> Finding:
    """The store needs shared memory on one machine, which network file systems do not give."""
    if kind is None:
        return Finding("file system", "note", f"the file system of {home} is unknown")
    if filesystem.is_unfit(kind):
        return Finding(
            "file system",
            "error",
            f"{home} lies on {kind}, where the store of a run can be damaged",
            "set STONK_HOME to a folder on a local disk",
        )
    return Finding("file system", "ok", f"{home} lies on {kind}")


def judge_sqlite(version: tuple[int, ...]) -> Finding:
    """SQLite 3.7.0 to 3.51.2 can damage a WAL database that two connections write at once."""
    text = f"SQLite {dotted(version)}"
    if wal_reset_fixed(version):
        return Finding("sqlite", "ok", text)
    return Finding(
        "sqlite",
        "note",
        f"{text} has the WAL-reset bug (fixed in 3.51.3, 3.50.7 and 3.44.6); runs are safe, since "
        "the worker alone writes",
        "never write to events.db with another program while a run lives",
    )


def wal_reset_fixed(version: tuple[int, ...]) -> bool:
    """Whether this SQLite is free of the WAL-reset bug."""
    return (
        version >= (3, 51, 3)
        or (3, 50, 7) <= version < (3, 51)
        or (3, 44, 6) <= version < (3, 45)
        or version < (3, 7)
    )


def probe_hub(timeout: float = 3.0) -> str | None:
    """Ask the model hub for its front page's headers; returns why not, or None if it answers."""
    from huggingface_hub import constants

    if constants.HF_HUB_OFFLINE:
        return "HF_HUB_OFFLINE is set"
    answer: list[str | None] = []

    def ask() -> None:
        request = urllib.request.Request(constants.ENDPOINT, method="HEAD")
        try:
            with urllib.request.urlopen(request, timeout=timeout):
                answer.append(None)
        except urllib.error.HTTPError:
            answer.append(None)  # it answers, if only to refuse this question
        except (OSError, ValueError) as error:
            answer.append(one_line(str(getattr(error, "reason", error)) or type(error).__name__))

    # Looking up a name has no timeout of its own.
    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(timeout + 0.5)
    return answer[0] if answer else f"no answer within {timeout:.0f} s"


def judge_hub(error: str | None, *, needed: bool) -> Finding:
    if error is None:
        return Finding("hub", "ok", "the model hub answers")
    if not needed:
        return Finding("hub", "note", f"the model hub does not answer ({error}); not needed here")
    return Finding(
        "hub",
        "warning",
        f"the model hub does not answer ({error})",
        f"check network and proxy, or use --model {EMBEDDED_MODEL} or a local folder",
    )


def token_present() -> bool:
    from huggingface_hub import constants

    return bool(os.environ.get("HF_TOKEN")) or Path(constants.HF_TOKEN_PATH).is_file()


def judge_token(present: bool) -> Finding:
    if present:
        return Finding("hub token", "ok", "present")
    return Finding("hub token", "note", "none; only gated and private models need one")


def judge_session(outlook: Survival) -> Finding:
    """Whether runs go on after logout."""
    return Finding("lingering", outlook.level, outlook.message, outlook.fix)


def judge_terminal(environment: Mapping[str, str], size: tuple[int, int], is_tty: bool) -> Finding:
    """Whether the cockpit will look as it should."""
    term, colour = environment.get("TERM", ""), environment.get("COLORTERM", "")
    columns, rows = size
    text = f"TERM={term or 'unset'}, COLORTERM={colour or 'unset'}"
    if not is_tty:
        text = f"output is not a terminal ({text})"
        return Finding("terminal", "note", text, "run it where the cockpit is to be opened")
    text += f", {columns} × {rows}"
    if term in {"", "dumb"}:
        return Finding("terminal", "warning", text, "set TERM, for example to xterm-256color")
    if columns < 80 or rows < 24:
        return Finding("terminal", "note", f"{text}: small", "80 × 24 is the least that fits")
    if colour not in {"truecolor", "24bit"}:
        return Finding(
            "terminal",
            "note",
            f"{text}: colours are approximated",
            "if the terminal shows 16 million colours, set COLORTERM=truecolor",
        )
    return Finding("terminal", "ok", text)


def read_text(path: str) -> str:
    try:
        return Path(path).read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""

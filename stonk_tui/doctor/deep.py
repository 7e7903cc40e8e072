"""A short self-test on this very machine: what was written is there after a kill, and goes on.

A folder beside the runs, on the disk that keeps them, takes a store whose writer is killed and a
tiny run whose worker is killed. Both are removed afterwards. What the terminal can do is judged
from what it says of itself.
"""

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any

from engine import config as configuration
from engine.config import RunConfig
from engine.errors import RunFailedError, UserError
from engine.runs import checkpoint_names, launcher, manifest
from engine.runs.directory import RunDirectory
from engine.runs.reader import StoreReader
from engine.runs.status import status
from engine.text import one_line
from stonk_tui.commands.progress import Progress
from stonk_tui.doctor.findings import Finding
from stonk_tui.terminal import lacks_clipboard, lacks_unicode

KILLS = 3
_ACKNOWLEDGED = 20
"""Times that the writer says what is durable before it is killed."""
_STEPS = 6
_PATIENCE_SECONDS = 180.0
_POLL_SECONDS = 0.1
_LOST = "do not keep runs on this disk: set STONK_HOME to a folder on another one"


def collect(home: Path, progress: Progress) -> list[Finding]:
    """Make the test; takes about half a minute, and never raises."""
    findings = []
    try:
        home.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix="doctor-", dir=home) as folder:
            findings.append(_told("store durability", durability, Path(folder), progress))
            findings.append(_told("kill and resume", kill_and_resume, Path(folder), progress))
    except OSError as error:
        text = f"{home} cannot be written: {error.strerror}"
        findings.append(
            Finding("self-test", "error", text, "set STONK_HOME to a folder you can write to")
        )
    return findings + terminal(
        os.environ, shutil.get_terminal_size((0, 0)), sys.stdout.isatty(), sys.stdout.encoding
    )


def _told(
    name: str, check: Callable[[Path, Progress], Finding], folder: Path, progress: Progress
) -> Finding:
    try:
        return check(folder, progress)
    except (UserError, RunFailedError, OSError, subprocess.SubprocessError, TimeoutError) as error:
        return Finding(name, "error", one_line(str(error), 300), "`stonk-tui doctor` says more")


def durability(folder: Path, progress: Progress) -> Finding:
    """Kill a process that writes events, several times, and look for all that it called durable."""
    name, path = "store durability", folder / "events.db"
    promised: list[int] = []
    for number in range(KILLS):
        progress("store durability: killing its writer", number, KILLS)
        promised.append(_killed_writer(path))
    reader = StoreReader(path)
    try:
        numbers = [int(event.payload["text"]) for event in reader.events(limit=10**6)]
        ((integrity,),) = reader.rows("PRAGMA integrity_check")
    finally:
        reader.close()
    # Each writer counts from 1.
    starts = [at for at, found in enumerate(numbers) if found == 1] + [len(numbers)]
    rounds = [numbers[start:end] for start, end in pairwise(starts)]
    kept = [one[:count] for one, count in zip(rounds, promised, strict=False)]
    expected = [list(range(1, count + 1)) for count in promised]
    total = sum(promised)
    if integrity != "ok" or kept != expected:
        found = "is damaged" if integrity != "ok" else "misses events that were durable"
        return Finding(name, "error", f"after {KILLS} kills the store {found}", _LOST)
    return Finding(name, "ok", f"{KILLS} kills, {total} acknowledged events, none lost")


def _killed_writer(path: Path) -> int:
    """How many events a writer called durable before it was killed."""
    with _child("write", path, subprocess.PIPE) as writer:
        assert writer.stdout is not None
        for _ in range(_ACKNOWLEDGED):
            if not writer.stdout.readline():
                raise RunFailedError(f"the writer of {path} ended with code {writer.wait()}")
        writer.send_signal(signal.SIGKILL)
        # What it said before it died, the first line that was left whole included.
        rest = writer.stdout.read().split("\n")[:-1]
        writer.wait()
    return int(rest[-1]) if rest else _ACKNOWLEDGED * 3


def kill_and_resume(folder: Path, progress: Progress) -> Finding:
    """Kill a tiny run's worker in the middle, and let another one finish it."""
    name = "kill and resume"
    progress("tiny run: making a model", 0, 3)
    model = folder / "model"
    with _child("model", model, subprocess.DEVNULL) as maker:
        if maker.wait(_PATIENCE_SECONDS):
            raise RunFailedError(f"no model could be made (code {maker.returncode})")
    with _home(folder / "home"):
        run = launcher.launch(_config(model))
        try:
            progress("tiny run: killing its worker", 1, 3)
            _until(run, lambda now: now["step"] >= 2)
            worker = run.worker()
            if worker is not None:
                worker.kill()
                worker.wait(_PATIENCE_SECONDS)
            killed_at = status(run)["step"]
            progress("tiny run: resuming", 2, 3)
            launcher.relaunch(run)
            final = _until(run, lambda now: now["state"] == "finished")
        finally:
            if (left := run.worker()) is not None:
                left.kill()
                left.wait(_PATIENCE_SECONDS)
        return _judged(name, run, killed_at, final["step"])


def _judged(name: str, run: RunDirectory, killed_at: int, step: int) -> Finding:
    reader = StoreReader(run.database)
    try:
        steps = [event.step for event in reader.events_of("step")]
    finally:
        reader.close()
    for one in checkpoint_names.names(run):
        if problem := manifest.damage(run.checkpoints / one):
            return Finding(name, "error", f"checkpoint {one} is damaged: {problem}", _LOST)
    if step != _STEPS or steps != list(range(1, _STEPS + 1)):
        return Finding(name, "error", f"its steps are {steps} instead of 1 to {_STEPS}", _LOST)
    text = f"killed at step {killed_at}, went on to step {step}: every step there once"
    return Finding(name, "ok", text)


def _config(model: Path) -> RunConfig:
    return configuration.build(
        {
            "name": "doctor",
            "model": {"id": str(model), "device": "cpu", "dtype": "fp32"},
            "lora": {"r": 4, "alpha": 8, "dropout": 0.0},
            "warmup": {"steps": 0},
            "rollout": {"prompts_per_step": 1, "group_size": 2, "max_new_tokens": 8},
            "schedule": {
                "max_steps": _STEPS,
                "save_every": 1,
                "eval_every": _STEPS,
                "eval_samples": 2,
            },
        },
        where="doctor",
    )


def _until(run: RunDirectory, reached: Callable[[Mapping[str, Any]], bool]) -> dict[str, Any]:
    """The run's status once it is ``reached``.

    Raises:
        RunFailedError: it failed or took too long.
    """
    deadline = time.monotonic() + _PATIENCE_SECONDS
    while time.monotonic() < deadline:
        now = status(run)
        if reached(now):
            return now
        if now["state"] in ("failed", "stale"):
            raise RunFailedError(f"the tiny run {now['state']}: {now['detail']}")
        time.sleep(_POLL_SECONDS)
    raise RunFailedError(f"the tiny run took longer than {_PATIENCE_SECONDS:.0f} s")


@contextmanager
def _home(place: Path) -> Iterator[None]:
    """A home of its own: neither runs nor the lock of the CPU are the person's."""
    before = os.environ.get("STONK_HOME")
    os.environ["STONK_HOME"] = str(place)
    try:
        yield
    finally:
        if before is None:
            del os.environ["STONK_HOME"]
        else:
            os.environ["STONK_HOME"] = before


@contextmanager
def _child(what: str, place: Path, stdout: int) -> "Iterator[subprocess.Popen[str]]":
    """A process of ``engine.selftest``, which does not outlive the block."""
    root = str(Path(__file__).resolve().parents[2])
    path = os.pathsep.join(filter(None, [root, os.environ.get("PYTHONPATH")]))
    process = subprocess.Popen(
        [sys.executable, "-P", "-m", "engine.selftest", what, str(place)],
        stdin=subprocess.DEVNULL,
        stdout=stdout,
        stderr=subprocess.DEVNULL,
        text=True,
        env=os.environ | {"PYTHONPATH": path},
    )
    try:
        yield process
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()
        if process.stdout is not None:
            process.stdout.close()


def terminal(
    environment: Mapping[str, str], size: tuple[int, int], is_tty: bool, encoding: str | None
) -> list[Finding]:
    """What the cockpit will have of this terminal: one finding a capability; none without one."""
    if not is_tty:
        return []
    term, colours = environment.get("TERM", ""), environment.get("COLORTERM", "")
    columns, rows = size
    is_bare = lacks_clipboard(environment) or not term
    return [
        Finding("colours", "ok", "16 million")
        if colours in ("truecolor", "24bit")
        else Finding(
            "colours",
            "note",
            f"COLORTERM={colours or 'unset'}: approximated",
            "set COLORTERM=truecolor if the terminal has 16 million",
        ),
        Finding("unicode", "note", "ASCII alone is sure", "set a UTF-8 locale, or use --ascii")
        if lacks_unicode(environment, encoding)
        else Finding("unicode", "ok", f"{one_line(str(encoding))}; look: ▁▂▄█ ● ‖ ⚠"),
        Finding("size", "ok", f"{columns} × {rows}")
        if columns >= 80 and rows >= 24
        else Finding("size", "warning", f"{columns} × {rows}", "enlarge it to 80 × 24 or more"),
        Finding("mouse", "note", "not on a bare console", "every key is in the help: ?")
        if is_bare
        else Finding("mouse", "ok", f"TERM={one_line(term)}: likely"),
        Finding("clipboard", "note", "not on a bare console", "hold shift and select instead")
        if is_bare
        else Finding("clipboard", "ok", "OSC 52: likely; tmux needs `set -g set-clipboard on`"),
    ]

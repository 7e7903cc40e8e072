"""A person's evening, key by key: a shell in a real terminal, real workers, a model that is tiny.

From the table of runs to a promotion, the terminal killed in between: what the person saw is
asserted on the screen, what came of it in the store.
"""

import os
import pty
import re
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from fcntl import ioctl
from pathlib import Path
from typing import Any

import psutil
import pyte
import pytest

from engine.config import RunConfig
from engine.runs import directory, stage1
from engine.runs.directory import RunDirectory
from engine.runs.reader import Event, StoreReader
from engine.runs.status import status
from stonk_tui import prepare
from tests.cockpit.test_terminal import ROOT, Terminal
from tests.tiny import save_tiny_model, tiny_config
from tests.waiting import wait_for

DEADLINE_SECONDS = 90.0
"""For one wait: a worker loads its libraries in some seconds, on a busy machine in many."""
ESCAPE = "\x1b"
UP = "\x1b[A"
HALF_PAGE_DOWN = "\x04"


class Shell(Terminal):
    """A shell that is the session of its terminal, as a window or an SSH login has one."""

    def __init__(self, programs: Path, columns: int = 120, rows: int = 40) -> None:
        self.screen = pyte.Screen(columns, rows)
        self.stream = pyte.ByteStream(self.screen)
        self.output = b""
        self.master, slave = pty.openpty()
        ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
        self.started = time.monotonic()
        self.process = subprocess.Popen(
            # The first terminal that the leader of a session opens is the session's own: the shell
            # hears when it goes.
            ["/bin/sh", "-c", 'exec /bin/sh -i <"$0" >"$0" 2>&1', os.ttyname(slave)],
            start_new_session=True,
            env=dict(os.environ, PATH=f"{programs}:{os.environ['PATH']}", PS1="$ ", ENV=""),
        )
        os.close(slave)

    def until(self, condition: Callable[[], object]) -> float:
        """Read until ``condition``, with a deadline of its own; seconds that it took."""
        self.started = began = time.monotonic()
        while not condition():
            if time.monotonic() - began > DEADLINE_SECONDS:
                raise AssertionError(
                    "waited in vain; on screen:\n" + "\n".join(self.screen.display)
                )
            self.read()
        return time.monotonic() - began

    def until_shown(self, *texts: str, gone: str = "") -> None:
        """Read until all ``texts`` are on screen, and ``gone`` is not."""
        self.until(lambda: all(map(self.shows, texts)) and not (gone and self.shows(gone)))

    def cockpit(self, command: str, *texts: str) -> None:
        """Type a command line that opens the cockpit, and wait for ``texts``."""
        # The emulator knows no alternate screen: what the last one left is still there.
        self.screen.reset()
        self.type(f"{command}\n")
        self.until_shown(*texts)

    def move_focus(self, key: str, text: str) -> None:
        """Press ``key``, and wait until what holds ``text`` looks different: it has the focus."""
        self.until_shown(text)
        before = self.look_of(text)
        self.type(key)
        self.until(lambda: self.look_of(text) not in (before, None))

    def until_bold(self, key: str) -> None:
        """Wait until the first character of ``key`` is no longer dimmed: it does something."""
        self.until(lambda: (look := self.look_of(key)) is not None and look[0].bold)

    def scroll_to(self, text: str) -> None:
        """Look for ``text`` from the first line of what is in focus on."""
        # The first line of a log.
        self.type("gg")
        self.until_shown("· starting")
        while not self.shows(text):
            before = tuple(self.screen.display)
            self.type(HALF_PAGE_DOWN)
            self.until(lambda seen=before: tuple(self.screen.display) != seen)

    def look_of(self, label: str) -> tuple[Any, ...] | None:
        """How the characters of ``label`` are drawn."""
        for number, row in enumerate(self.screen.display):
            if (at := row.find(label)) >= 0:
                cells = self.screen.buffer[number]
                return tuple(cells[at + offset]._replace(data="") for offset in range(len(label)))
        return None

    def close_window(self) -> None:
        """What happens when a window is closed or a connection breaks."""
        os.close(self.master)
        self.process.wait(DEADLINE_SECONDS)


@contextmanager
def shell(programs: Path, **size: int) -> Iterator[Shell]:
    opened = Shell(programs, **size)
    try:
        yield opened
    finally:
        if opened.process.poll() is None:
            os.close(opened.master)
            opened.process.kill()
            opened.process.wait()


@pytest.fixture
def programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the command ``stonk-tui``, for a shell's path."""
    folder = tmp_path / "bin"
    folder.mkdir()
    command = folder / "stonk-tui"
    command.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m stonk_tui "$@"\n')
    command.chmod(0o755)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    return folder


@pytest.fixture
def config(tmp_path: Path) -> RunConfig:
    schedule = {"max_steps": 100_000, "eval_every": 100_000, "save_every": 5}
    return tiny_config(save_tiny_model(tmp_path / "model"), schedule=schedule)


@pytest.fixture(autouse=True)
def no_worker_left(isolated_environment: None) -> Iterator[None]:
    yield
    for run in directory.list_runs():
        for process in (run.worker(), run.prober()):
            if process is not None:
                process.kill()
                process.wait()


def _events(run: RunDirectory, kind: str) -> list[Event]:
    reader = StoreReader(run.database)
    found = [event for event in reader.events(0, 100_000) if event.kind == kind]
    reader.close()
    return found


def _reaches(run: RunDirectory, step: int) -> None:
    def there() -> bool:
        now = status(run)
        assert now["state"] not in ("failed", "stale"), now["detail"]
        return bool(now["step"] >= step)

    wait_for(there, DEADLINE_SECONDS)


@pytest.mark.slow
def test_an_evening(programs: Path, config: RunConfig) -> None:
    parent = prepare.make(config)

    with shell(programs) as window:
        # The table of runs, since nothing trains; B begins what waits there, and it is watched.
        window.cockpit("stonk-tui", "1 run", parent.id, "◇ prepared")
        window.type("B")
        window.until_shown("● training", "6 Rollouts")
        _reaches(parent, 6)
        window.until(lambda: re.search(r"checkpoint step-0{5}[5-9]", _text(window)))

        # One rollout, in full.
        window.type("\r")
        window.until_shown("What the model saw", "What it said", "Why this reward")
        window.type(ESCAPE)
        window.until_shown("6 Rollouts", gone="What it said")

        window.type("p")
        window.until_shown("‖ paused")

        window.type("s")
        window.until_shown("Settings of", "learning rate  1e-5")
        window.type("3e-5")
        window.until_shown("from the next step on: learning rate 1e-5 → 3e-5")
        window.move_focus("\r", "Apply")
        window.type("\r")
        window.until_shown("‖ paused", gone="Settings of")

        # Two checkpoints on AAPL, while the run waits.
        window.type("gb")
        window.until_shown("temperature", "Asked before", "the run is paused")
        window.type("AAPL")
        window.until_shown("ticker AAPL ")
        window.move_focus("\t", "date 2")
        window.type("2012-09-14")
        window.until_shown("date 2012-09-14 ")
        window.move_focus("\t", "source the")
        window.move_focus("\t", "checkpoints base")
        window.type("best, last")
        window.until_shown("checkpoints best, last ")
        window.type("\r")
        window.until(lambda: _text(window).count("mean reward") == 2)
        assert window.shows("AAPL · 2012-09-14 · demo · market ▲ 1.2 %")
        window.type(ESCAPE)
        window.until_shown("‖ paused", "6 Rollouts")
        paused_at = status(parent)["step"]

        window.type("p")
        window.until_shown("● training", gone="‖ paused")
        _reaches(parent, paused_at + 2)

        # The device is the Stage I run's, so its Stage II waits.
        window.type("P")
        window.until_shown("Promote", "0 of 4 lights are on", "(•) step-000000")
        window.move_focus("\t", "Not all lights are on. Say")
        # Without a reason the button does nothing, and looks like it.
        without = window.look_of("Promote and start")
        window.type("an evening's look")
        window.until_shown("an evening's look")
        window.until(lambda: window.look_of("Promote and start") not in (without, None))
        window.move_focus("\r", "Promote and start")
        window.type("\r")
        window.until_shown("is prepared, but not started", "cpu is busy with run")
        window.type(ESCAPE)
        window.until_shown(f"from {parent.id}", "◇ prepared", gone="Promote")
        (child,) = [run for run in directory.list_runs() if run != parent]

        window.type("q")
        window.until_shown("$ ", f"run {child.id}: waits for `stonk-tui train --resume")

        # Back once more; now nobody takes leave.
        window.cockpit(f"stonk-tui attach {parent.id}", "● training", "6 Rollouts")
        cockpit = _child_of(window)
        window.close_window()
        psutil.wait_procs([cockpit], timeout=DEADLINE_SECONDS)
        assert not cockpit.is_running()
        killed_at = status(parent)["step"]

    _reaches(parent, killed_at + 2)

    with shell(programs) as window:
        window.cockpit(f"stonk-tui attach {parent.id}", "● training", "6 Rollouts")
        window.type("gr")
        window.until_shown("2 runs, 1 going", parent.id, child.id, "◇ prepared", "● training")
        # A log that grows stays at its end, and what the person did is far above by now.
        window.type("gt")
        window.until_shown("6 Rollouts")
        window.type("p")
        window.until_shown("‖ paused")
        window.type("gl")
        window.until_shown("Events", "engine.log")
        for said in (
            "pause: paused",
            "learning rate 1e-5 → 3e-5",
            "set: in force from step",
            "resume: goes on",
        ):
            window.scroll_to(said)
        window.type("gt")
        window.until_shown("6 Rollouts")
        window.type("p")
        window.until_shown("● training", gone="‖ paused")
        window.type("gb")
        window.until_shown("AAPL · 2012-09-14", "best", "mean reward")
        window.type(ESCAPE)
        window.until_shown("6 Rollouts")

        # Make room, and begin Stage II.
        window.type("S")
        window.until_shown(f"Stop {parent.id}?", "y stop it")
        window.until_bold("y stop it")
        window.type("y")
        window.until_shown("■ stopped")
        wait_for(lambda: parent.worker() is None)
        window.type("gr")
        window.until_shown("2 runs", "■ stopped")
        window.type(UP)
        window.until_shown(f"◇ prepared  {child.id}")
        window.type("B")
        window.until_shown(f"from {parent.id}", "● training", "KL 0.000")
        _reaches(child, 1)
        window.type("q")
        window.until_shown("$ ", f"run {child.id} goes on")

    _assert_stored(parent, child, paused_at)


def _text(window: Shell) -> str:
    return "\n".join(window.screen.display)


def _child_of(window: Shell) -> psutil.Process:
    """The cockpit in the foreground of the shell; what it has started is not among them."""
    (cockpit,) = psutil.Process(window.process.pid).children()
    return cockpit


def _assert_stored(parent: RunDirectory, child: RunDirectory, paused_at: int) -> None:
    """Everything that the person did is in the two stores."""
    (changed,) = _events(parent, "settings")
    assert changed.step == paused_at
    (change,) = changed.payload["changes"]
    assert (change["name"], change["old"], change["new"]) == (
        "optimizer.learning_rate",
        1e-5,
        3e-5,
    )
    assert changed.payload["by"] == "user"

    (probe,) = _events(parent, "probe")
    assert probe.step == paused_at
    assert probe.payload["example"]["ticker"] == "AAPL"
    best, last = (answer["checkpoint"] for answer in probe.payload["answers"])
    assert best == "step-000000" != last

    answered = _events(parent, "command")
    assert [(event.payload["verb"], event.payload["ok"]) for event in answered] == [
        ("pause", True),
        ("set", True),
        *((verb, True) for verb in ("probe", "resume", "pause", "resume", "stop")),
    ]
    # One worker all the while, and no step twice.
    steps = [event.step for event in _events(parent, "step")]
    assert steps == list(range(1, len(steps) + 1))
    assert {event.attempt for event in _events(parent, "step")} == {1}

    record = stage1.record(child)
    assert record is not None
    assert (record["parent"], record["checkpoint"]) == (parent.id, "step-000000")
    assert (record["forced"], record["reason"]) == (True, "an evening's look")
    first = _events(child, "step")[0]
    assert (first.step, first.payload["metrics"]["kl"]) == (1, 0.0)

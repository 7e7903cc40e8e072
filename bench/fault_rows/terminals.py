"""Cockpits in real terminals, which may be lost in every way that terminals are lost.

An emulator reads what they draw, so that one can wait for a text to be shown.
"""

import contextlib
import fcntl
import os
import pty
import re
import select
import signal
import struct
import sys
import termios
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import psutil
import pyte

from bench.fault_rows.tiny_runs import DEADLINE_SECONDS, ROOT
from engine.runs.directory import RunDirectory

COLUMNS, LINES = 120, 40
_PROMPT = "shell> "
# The emulator does not know these queries and would print their ends.
_UNKNOWN = re.compile(rb"\x1b\[\?\d+\$p|\x1b\[>\d+u|\x1b\[<u")


class Terminal:
    """A terminal with a cockpit attached to a run: by a shell's command line, or alone."""

    def __init__(self, run: RunDirectory, *, shell: bool = False) -> None:
        """Open it.

        Args:
            run: what the cockpit attaches to.
            shell: an interactive shell is the leader of the session, as in a window or an SSH
                login, and the cockpit its job in the foreground. Otherwise the cockpit is the
                leader of a session whose terminal this is not: nothing signals it.
        """
        self._screen = pyte.Screen(COLUMNS, LINES)
        self._stream = pyte.ByteStream(self._screen)
        self.output = b""
        self._attach = [sys.executable, "-m", "stonk_tui", "attach", run.id]
        self.master, slave = pty.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", LINES, COLUMNS, 0, 0))
        self.attributes = termios.tcgetattr(slave)
        # The first terminal that the leader of a session opens is the session's own.
        opens = ["/bin/sh", "-c", 'exec /bin/sh -i <"$0" >"$0" 2>&1', os.ttyname(slave)]
        environment = {"TERM": "xterm-256color", "COLORTERM": "truecolor", "PYTHONPATH": str(ROOT)}
        self._has_shell = shell
        self.began = time.monotonic()
        self.leader = psutil.Popen(
            opens if shell else self._attach,
            stdin=None if shell else slave,
            stdout=None if shell else slave,
            stderr=None if shell else slave,
            cwd=ROOT,
            start_new_session=True,
            env=os.environ | environment | {"PS1": _PROMPT, "ENV": ""},
        )
        self._slave: int | None = slave
        if shell:
            self.until_shown(_PROMPT)
            self.began = time.monotonic()
            self.type(" ".join(self._attach) + "\n")

    @property
    def cockpit(self) -> psutil.Process:
        """The cockpit's process; with a shell, once it is in the foreground."""
        if not self._has_shell:
            return self.leader
        (job,) = psutil.Process(self.leader.pid).children()
        return job

    def until_attached(self) -> float:
        """Wait until the run is seen to train; seconds since the command line was sent."""
        self.until_shown("● training")
        return time.monotonic() - self.began

    def until_shown(self, text: str) -> None:
        """Read until ``text`` is on screen.

        Raises:
            TimeoutError: it does not come.
        """
        self.until(lambda: any(text in row for row in self._screen.display), text)

    def until(self, condition: Callable[[], object], what: str) -> None:
        """Read until ``condition``, for which ``what`` is a name."""
        began = time.monotonic()
        while not condition():
            if time.monotonic() - began > DEADLINE_SECONDS:
                raise TimeoutError(f"{what} did not come in {DEADLINE_SECONDS:g} s")
            self.read(0.05)

    def watch(self, seconds: float) -> None:
        """Read for ``seconds``."""
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            self.read(min(0.05, left))

    def drain(self, seconds: float) -> None:
        """Read for ``seconds``, and look at nothing."""
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            if select.select([self.master], [], [], left)[0]:
                # As in ``read``: a program that has ended leaves nothing to read.
                with contextlib.suppress(OSError):
                    os.read(self.master, 2**20)

    def read(self, seconds: float) -> None:
        """Take in what is written within ``seconds``."""
        if not select.select([self.master], [], [], seconds)[0]:
            return
        try:
            data = os.read(self.master, 2**20)
        except OSError:
            # How a terminal reads that nobody has open any more.
            time.sleep(seconds)
            return
        self.output += data
        self._stream.feed(_UNKNOWN.sub(b"", data))

    def type(self, text: str) -> None:
        os.write(self.master, text.encode())

    def is_as_before(self) -> bool:
        """Whether the terminal's modes are those that the cockpit found, its screen given back."""
        assert self._slave is not None
        now = termios.tcgetattr(self._slave)
        return now == self.attributes and b"\x1b[?1049l" in self.output

    def hang_up(self) -> None:
        """Close the terminal, as a window is closed or a connection breaks."""
        self._let_go()
        os.close(self.master)
        self.master = -1

    def _let_go(self) -> None:
        # Held open by this process, the terminal would not be gone.
        if self._slave is not None:
            os.close(self._slave)
            self._slave = None

    def close(self) -> None:
        """End all that is left in it."""
        with contextlib.suppress(psutil.NoSuchProcess):
            for process in (*self.leader.children(recursive=True), self.leader):
                with contextlib.suppress(psutil.NoSuchProcess):
                    process.send_signal(signal.SIGKILL)
        self.leader.wait()
        self._let_go()
        if self.master >= 0:
            os.close(self.master)


@contextmanager
def terminal(run: RunDirectory, *, shell: bool = False) -> Iterator[Terminal]:
    """A terminal for the block."""
    opened = Terminal(run, shell=shell)
    try:
        yield opened
    finally:
        opened.close()


def has_ended(process: psutil.Process) -> bool:
    """Whether a process is no more; one that nobody has asked about since counts."""
    try:
        return not process.is_running() or process.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def processor_seconds(process: psutil.Process) -> float | None:
    """What a process has used of the processor so far; None once it is gone."""
    try:
        times = process.cpu_times()
    except psutil.Error:
        return None
    return float(times.user + times.system)

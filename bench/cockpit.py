"""The cockpit at scale, in a real terminal of 120 by 40: how fast, how heavy, how loud.

    python bench/cockpit.py --home DIR [--events 1000000] [--rollouts 200000] [--out FILE]

Makes a run of that size in DIR once (``bench/cockpit_store.py``, 4 GB for a million events) and
attaches the cockpit to it, on a pseudo-terminal that an emulator reads. Printed are the time to
the first paint, with the processor's share of it; memory; then, while a worker writes 50 rollouts
a second in steps of 32, processor and bytes at rest, and the time from a key to its echo; then what
a terminal that is not read for a minute does to the worker's steps, and how soon the cockpit is
back. Files of the run are in the system's cache, as after a worker has written them; with
``--cold`` they are dropped from it before each first paint.
"""

import argparse
import json
import os
import pty
import re
import select
import signal
import statistics
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from fcntl import ioctl
from pathlib import Path
from typing import Any

import cockpit_store
import psutil
import pyte
from machine import machine

from engine.runs.directory import RunDirectory

COLUMNS, ROWS = 120, 40
ROLLOUTS_A_SECOND = 50
DEADLINE_SECONDS = 120.0
PAINT_SECONDS = 4.0
GOALS = {
    "first_paint_s": 0.7,
    "memory_mib": 150,
    "processor_share": 0.10,
    "kib_per_second": 25,
    "key_p99_ms": 50,
    "stall_step_ratio": 1.05,
    "recovery_s": 1.0,
}
ROOT = Path(__file__).resolve().parents[1]
Figures = dict[str, Any]


class Terminal:
    """A pseudo-terminal with a cockpit in it, read by an emulator."""

    def __init__(self, run: RunDirectory) -> None:
        self.screen = pyte.Screen(COLUMNS, ROWS)
        self.stream = pyte.ByteStream(self.screen)
        self.bytes = 0
        self.read_at = 0.0
        """When what is on screen arrived; the emulator's own time is not the cockpit's."""
        self.master, slave = pty.openpty()
        ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", ROWS, COLUMNS, 0, 0))
        self.started = time.monotonic()
        self.process = psutil.Popen(
            [sys.executable, "-m", "stonk_tui", "attach", run.id],
            stdin=slave,
            stdout=slave,
            stderr=slave,
            cwd=ROOT,
            start_new_session=True,
            env=dict(os.environ, TERM="xterm-256color", COLORTERM="truecolor"),
        )
        os.close(slave)

    def read(self, seconds: float) -> None:
        """Take in what is written within ``seconds``."""
        if not select.select([self.master], [], [], seconds)[0]:
            return
        data = os.read(self.master, 2**20)
        self.read_at = time.monotonic()
        self.feed(data)

    def feed(self, data: bytes) -> None:
        """Show ``data`` to the emulator."""
        self.bytes += len(data)
        # The emulator does not know these queries and would print their ends.
        self.stream.feed(re.sub(rb"\x1b\[\?\d+\$p|\x1b\[>\d+u|\x1b\[<u", b"", data))

    def replay(self, seconds: float, *conditions: Callable[[], object]) -> list[float]:
        """When the bytes arrived that fulfilled each condition, in their order.

        All that comes within ``seconds`` of the start is kept, and shown to the emulator only then:
        it is slower than the cockpit.
        """
        kept = []
        while time.monotonic() < self.started + seconds:
            if select.select([self.master], [], [], 0.05)[0]:
                kept.append((os.read(self.master, 2**20), time.monotonic()))
        moments: list[float] = []
        for data, arrived in kept:
            self.feed(data)
            while len(moments) < len(conditions) and conditions[len(moments)]():
                moments.append(arrived)
        if len(moments) < len(conditions):
            raise SystemExit("not painted in time:\n" + "\n".join(self.screen.display))
        return moments

    def until(self, condition: Callable[[], object]) -> float:
        """Read until ``condition``; the moment at which the bytes that fulfil it arrived."""
        deadline = time.monotonic() + DEADLINE_SECONDS
        while not condition():
            if time.monotonic() > deadline:
                raise SystemExit("waited in vain; on screen:\n" + "\n".join(self.screen.display))
            self.read(0.05)
        return self.read_at

    def watch(self, seconds: float) -> None:
        """Read for ``seconds``."""
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            self.read(min(0.05, left))

    def shows(self, text: str) -> bool:
        return any(text in row for row in self.screen.display)

    def is_focused(self, panel: str) -> bool:
        """Whether the frame of ``panel``, as ``1 Reward``, is the heavy one of the focus."""
        return self.shows(f"━ {panel} ")

    def type(self, text: str) -> float:
        os.write(self.master, text.encode())
        return time.monotonic()


@contextmanager
def terminal(run: RunDirectory) -> Iterator[Terminal]:
    opened = Terminal(run)
    try:
        yield opened
    finally:
        opened.process.kill()
        opened.process.wait()
        os.close(opened.master)


@contextmanager
def worker(run: RunDirectory, log: Path) -> Iterator[None]:
    """A process that writes steps at the bench's pace, and how long each took into ``log``."""
    log.unlink(missing_ok=True)
    program = str(Path(__file__).with_name("cockpit_writer.py"))
    process = subprocess.Popen(
        [sys.executable, program, str(run.path), str(log), str(ROLLOUTS_A_SECOND)],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
    )
    try:
        while not log.exists() or log.stat().st_size == 0:
            if process.poll() is not None:
                raise SystemExit("the writer has ended")
            time.sleep(0.1)
        yield
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait()


def first_paint(run: RunDirectory, repeats: int, *, cold: bool) -> Figures:
    """Seconds from the start of the process to the newest step and its rollouts; to the chart.

    The processor's share is of all seconds that are watched.
    """
    step = cockpit_store.last_step(run)
    painted, drawn, processor, memory = [], [], [], []
    for _ in range(repeats):
        if cold:
            _drop_from_cache(run.database)
        with terminal(run) as screen:
            moments = screen.replay(
                PAINT_SECONDS,
                lambda: screen.shows(f"{step}/") and screen.shows(f"step {step}:"),
                lambda: screen.shows("┤"),
            )
            for found, moment in zip((painted, drawn), moments, strict=True):
                found.append(moment - screen.started)
            times = screen.process.cpu_times()
            processor.append(times.user + times.system)
            memory.append(screen.process.memory_info().rss / 2**20)
    return {
        "first_paint_s": statistics.median(painted),
        "first_paint_all_s": painted,
        "processor_s": statistics.median(processor),
        "with_chart_s": statistics.median(drawn),
        "memory_mib": max(memory),
    }


def at_rest(screen: Terminal, seconds: float) -> Figures:
    """Processor and bytes while steps land and nobody types."""
    before, sent, start = screen.process.cpu_times(), screen.bytes, time.monotonic()
    screen.watch(seconds)
    after, wall = screen.process.cpu_times(), time.monotonic() - start
    used = after.user + after.system - before.user - before.system
    return {
        "processor_share": used / wall,
        "kib_per_second": (screen.bytes - sent) / 1024 / wall,
        "memory_under_load_mib": screen.process.memory_info().rss / 2**20,
    }


def keys(screen: Terminal, count: int) -> Figures:
    """Time from a key that moves the focus to the frame of the panel that has it."""
    panels = (("1", "1 Reward"), ("5", "5 Health"))
    milliseconds = []
    for number in range(count):
        key, panel = panels[number % 2]
        screen.watch(0.2 + 0.1 * (number % 7) / 7)
        typed = screen.type(key)
        milliseconds.append(1000 * (screen.until(lambda p=panel: screen.is_focused(p)) - typed))
    cuts = statistics.quantiles(milliseconds, n=100)
    return {"keys": count, "key_p50_ms": cuts[49], "key_p99_ms": cuts[98]}


def stalled(run: RunDirectory, screen: Terminal, log: Path, seconds: float) -> Figures:
    """Leave the terminal unread, and then read it again."""
    start = time.time()
    time.sleep(seconds)
    end = time.time()
    newest = cockpit_store.last_step(run)
    resumed = time.monotonic()
    screen.until(lambda: _step_on_screen(screen) >= newest)
    recovery = screen.read_at - resumed
    steps = [tuple(map(float, row.split())) for row in log.read_text().splitlines()]
    before = [took for at, took in steps if start - seconds <= at < start]
    during = [took for at, took in steps if start <= at < end]
    return {
        "recovery_s": recovery,
        "steps_before": _course(before),
        "steps_during": _course(during),
        "stall_step_ratio": statistics.median(during) / statistics.median(before),
    }


def _course(seconds: Sequence[float]) -> Figures:
    cuts = statistics.quantiles(seconds, n=20)
    return {
        "n": len(seconds),
        "p5": round(cuts[0], 4),
        "median": round(statistics.median(seconds), 4),
        "p95": round(cuts[18], 4),
    }


def _step_on_screen(screen: Terminal) -> int:
    found = re.search(r"step +(\d+)/", "\n".join(screen.screen.display))
    return int(found[1]) if found else -1


def _drop_from_cache(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    os.fsync(descriptor)
    os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
    os.close(descriptor)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--home", type=Path, required=True, help="where the run is made, and kept")
    for name, default in (
        ("events", 1_000_000), ("rollouts", 200_000), ("repeats", 5), ("seconds", 60),
        ("keys", 300), ("stall", 60),
    ):  # fmt: skip
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--cold", action="store_true", help="first paint from the disk")
    parser.add_argument("--out", type=Path, help="JSON file for the figures")
    options = parser.parse_args()
    os.environ["STONK_HOME"] = str(options.home.resolve())
    os.environ.pop("NO_COLOR", None)
    # As a person sees it who has logged in to the machine.
    os.environ["SSH_CONNECTION"] = "192.0.2.1 50000 192.0.2.2 22"

    run = cockpit_store.make(options.events, options.rollouts)
    log = options.home / "writer.log"
    figures = first_paint(run, options.repeats, cold=options.cold)
    with worker(run, log), terminal(run) as screen:
        screen.until(lambda: _step_on_screen(screen) > 0 and screen.shows("┤"))
        screen.watch(5)
        figures |= at_rest(screen, options.seconds)
        figures |= keys(screen, options.keys)
        if options.stall:
            screen.watch(max(0, options.stall - options.seconds))
            figures |= stalled(run, screen, log, options.stall)
    _report(figures, options)


def _report(figures: Figures, options: argparse.Namespace) -> None:
    where = machine("textual", "plotext", note=f", load {os.getloadavg()[0]:.1f} at the end")
    print(where)
    for name, value in figures.items():
        goal = f"   goal: below {GOALS[name]}" if name in GOALS else ""
        shown = f"{value:.3f}" if isinstance(value, float) else str(value)
        print(f"{name:>24}  {shown}{goal}")
    if options.out:
        report = {
            "command": " ".join(["python", *sys.argv]),
            "machine": where,
            "events": options.events,
            "rollouts": options.rollouts,
            "size": [COLUMNS, ROWS],
            "figures": _rounded(figures),
            "goals": GOALS,
        }
        options.out.parent.mkdir(parents=True, exist_ok=True)
        options.out.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")


def _rounded(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _rounded(item) for name, item in value.items()}
    if isinstance(value, list):
        return [_rounded(item) for item in value]
    return round(value, 4) if isinstance(value, float) else value


if __name__ == "__main__":
    main()

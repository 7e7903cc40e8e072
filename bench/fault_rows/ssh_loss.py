"""The connection to a cockpit breaks, in each way in which connections break; then one comes back.

``window``: the terminal closes over an interactive shell with the cockpit in its foreground, as a
window or an SSH login does. ``leader``: the shell is killed, its terminal stays. ``signal``: the
cockpit alone is hung up, in a shell that goes on. ``silent``: the terminal goes, and nobody signals
it. The cockpit must end without spinning, the worker must not notice, and a cockpit that attaches
anew must show the run within two seconds.
"""

import os
import random
import signal
import time
from pathlib import Path

import psutil

from bench.fault_rows import tiny_runs
from bench.fault_rows.row import Outcome, Row
from bench.fault_rows.terminals import Terminal, has_ended, processor_seconds, terminal
from engine.runs.directory import RunDirectory
from engine.runs.status import read_history

WAYS = ("window", "leader", "signal", "silent")
_ATTACHED_SECONDS = 2.0
_ENDED_SECONDS = 5.0
_PATIENCE_SECONDS = 30.0
_SCHEDULE = {"max_steps": 10**6, "save_every": 50, "eval_every": 10**6, "eval_samples": 4}


def trial(number: int, folder: Path) -> Outcome:
    """Lose one connection, and attach again."""
    way, rng = WAYS[number % len(WAYS)], random.Random(number)
    with tiny_runs.new_run(folder, schedule=_SCHEDULE) as run:
        pid = tiny_runs.workers().start(run)
        tiny_runs.until(lambda: tiny_runs.state(run) == "training")
        with terminal(run, shell=way != "silent") as screen:
            screen.until_attached()
            screen.watch(rng.uniform(0, 1))
            cockpit = screen.cockpit
            used = processor_seconds(cockpit) or 0.0
            lost, step = time.monotonic(), read_history(run).step
            _lose(way, screen, cockpit)
            spent = _wait_for_the_end(screen, cockpit, used)
            ended = time.monotonic() - lost
            if not has_ended(cockpit):
                return Outcome(f"{way}: the cockpit is {cockpit.status()} after {ended:.0f} s")
            if way == "signal":
                screen.until(screen.is_as_before, "the terminal as it was before")
        figures = {"seconds until ended": ended, "processor seconds until ended": spent}
        tiny_runs.until(lambda: read_history(run).step > step)
        with terminal(run) as screen:
            attached = screen.until_attached()
            processor = processor_seconds(screen.cockpit) or 0.0
        figures["seconds until attached"] = attached
        return Outcome(_problem(way, run, pid, figures, processor), figures)


def _lose(way: str, screen: Terminal, cockpit: psutil.Process) -> None:
    match way:
        case "window" | "silent":
            screen.hang_up()
        case "leader":
            screen.leader.send_signal(signal.SIGKILL)
        case "signal":
            cockpit.send_signal(signal.SIGHUP)


def _wait_for_the_end(screen: Terminal, cockpit: psutil.Process, used: float) -> float:
    """Wait until the cockpit has ended; seconds of processor that it took for it."""
    deadline, spent = time.monotonic() + _PATIENCE_SECONDS, 0.0
    while not has_ended(cockpit) and time.monotonic() < deadline:
        spent = max(spent, (processor_seconds(cockpit) or 0.0) - used)
        if screen.master >= 0:
            screen.read(tiny_runs.POLL_SECONDS)
        else:
            time.sleep(tiny_runs.POLL_SECONDS)
    return spent


def _problem(
    way: str, run: RunDirectory, pid: int, figures: dict[str, float], processor: float
) -> str:
    worker = run.worker()
    if worker is None or worker.pid != pid:
        return f"{way}: the worker is gone"
    # On a machine that is busy with other things the clock says little about the cockpit.
    is_busy = os.getloadavg()[0] > (os.cpu_count() or 1)
    ended, spent = figures["seconds until ended"], figures["processor seconds until ended"]
    if spent > _ENDED_SECONDS or (ended > _ENDED_SECONDS and not is_busy):
        return f"{way}: the cockpit ended after {ended:.1f} s, {spent:.1f} s of them at work"
    attached = figures["seconds until attached"]
    if processor > _ATTACHED_SECONDS or (attached > _ATTACHED_SECONDS and not is_busy):
        return f"{way}: attached after {attached:.1f} s, {processor:.1f} s of them at work"
    return ""


ROWS = (
    Row(
        "ssh-loss",
        "worker alive and training, cockpit ended within 5 s without spinning, terminal as before"
        " where it is still there, attached again within 2 s",
        trials=100,
        short=4,
        trial=trial,
    ),
)

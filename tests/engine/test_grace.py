"""A process that was told to end ends in time, even where its main thread hears of nothing."""

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

PROGRAM = """
import ctypes, os, signal, sys, time
from engine.grace import grace
signal.signal(signal.SIGTERM, lambda *_: print("heard", flush=True))
told = []
def hear():
    told.append(True)
    print("told", flush=True)
def late():
    print("late", flush=True)
    os._exit(1)
with grace(float(sys.argv[2]), hear, late):
    print("ready", flush=True)
    if sys.argv[1] == "deaf":
        # Deep in a library: no handler runs until the call returns.
        libc = ctypes.CDLL(None)
        signal.pthread_sigmask(signal.SIG_BLOCK, [])
        end = time.monotonic() + 20
        while time.monotonic() < end:
            libc.usleep(20_000_000)
    signal.sigwait([signal.SIGUSR1]) if sys.argv[1] == "waits" else None
    while not told:
        time.sleep(0.01)
print("done", flush=True)
"""


def _started(kind: str, seconds: float) -> "subprocess.Popen[str]":
    process = subprocess.Popen(
        [sys.executable, "-c", PROGRAM, kind, str(seconds)],
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    return process


@pytest.mark.parametrize("kind", ["deaf", "waits"])
def test_who_does_not_end_is_ended_when_the_grace_is_over(kind: str) -> None:
    process = _started(kind, 0.3)
    started = time.monotonic()
    process.send_signal(signal.SIGTERM)
    said, _ = process.communicate(timeout=15)
    assert said.split()[-1] == "late"
    assert "told" in said
    assert process.returncode == 1
    assert time.monotonic() - started > 0.3


def test_who_ends_by_itself_is_left_alone() -> None:
    process = _started("ends", 5)
    process.send_signal(signal.SIGTERM)
    said, _ = process.communicate(timeout=15)
    assert said.split()[-1] == "done"
    assert process.returncode == 0

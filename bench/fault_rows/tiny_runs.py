"""Runs of a tiny model whose workers are started in an instant, and what became of them.

What is looked at is read from the run's store as anyone reads it. Nothing here loads torch.
"""

import atexit
import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import psutil

from bench.fault_rows import fork_server
from engine import config as configuration
from engine.config import RunConfig
from engine.runs import directory
from engine.runs.directory import RunDirectory
from engine.runs.history import History
from engine.runs.reader import StoreReader
from engine.runs.status import effective_state, read_history

ROOT = Path(__file__).resolve().parents[2]
DEADLINE_SECONDS = 90.0
POLL_SECONDS = 0.01
Row = tuple[int, int, float, str, int, str]
"""seq, attempt, time, kind, step and payload of an event."""
_ROWS = "SELECT seq, attempt, time, kind, step, payload FROM events WHERE seq > ? ORDER BY seq"


class Workers:
    """A fork server, and a home for the runs of its workers."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._server = subprocess.Popen(
            [sys.executable, "-m", "bench.fault_rows.fork_server", str(folder)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            cwd=ROOT,
            text=True,
            # A thread a worker: several workers and cockpits share what cores there are.
            env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)},
        )
        if self._answer() != fork_server.READY:
            raise RuntimeError("the server of workers does not start")

    def config(self, **sections: dict[str, Any]) -> RunConfig:
        """The tiny run's configuration with ``sections`` laid over it."""
        made = RunConfig.model_validate_json((self._folder / fork_server.CONFIG).read_text())
        return configuration.with_changes(made, sections)

    def start(self, run: RunDirectory, **pace: float) -> int:
        """Start a worker on ``run``; its process id.

        Args:
            run: where it is in the home of today.
            pace: ``pace`` and ``steps``, see ``paced_store``.
        """
        names = ("STONK_HOME", "STONK_CACHE")
        environment = {name: os.environ[name] for name in names if name in os.environ}
        request = {"run": str(run.path), "environment": environment, **pace}
        assert self._server.stdin is not None
        self._server.stdin.write(json.dumps(request) + "\n")
        self._server.stdin.flush()
        pid = int(self._answer())
        # As the launcher does: until the worker has started, the run is not stale.
        with contextlib.suppress(psutil.Error):
            run.record_worker(pid)
        return pid

    def close(self) -> None:
        """End the server, which ends the workers that are left."""
        assert self._server.stdin is not None
        self._server.stdin.close()
        self._server.wait()

    def _answer(self) -> str:
        assert self._server.stdout is not None
        return self._server.stdout.readline().strip()


@cache
def workers() -> Workers:
    """The fork server of this process, which ends with it."""
    folder = tempfile.TemporaryDirectory(prefix="faults-model-")
    made = Workers(Path(folder.name))
    atexit.register(folder.cleanup)
    atexit.register(made.close)
    return made


@contextmanager
def home(folder: Path) -> Iterator[None]:
    """Keep runs and caches in ``folder`` for the block."""
    before = dict(os.environ)
    os.environ |= {"STONK_HOME": str(folder / "home"), "STONK_CACHE": str(folder / "cache")}
    try:
        yield
    finally:
        for name in ("STONK_HOME", "STONK_CACHE"):
            os.environ.pop(name)
            if name in before:
                os.environ[name] = before[name]


@contextmanager
def new_run(folder: Path, **sections: dict[str, Any]) -> Iterator[RunDirectory]:
    """A fresh run in ``folder`` that has no worker yet; one that is left is killed."""
    with home(folder):
        run = directory.create(workers().config(**sections))
        try:
            yield run
        finally:
            kill(run)
            with contextlib.suppress(FileNotFoundError):
                run.socket.unlink()


def kill(run: RunDirectory) -> None:
    """Kill the worker of ``run``, if it has one, and wait until it is gone."""
    if (process := run.worker()) is not None:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.send_signal(signal.SIGKILL)
        until(lambda: run.worker() is None)


def until(condition: Callable[[], object], seconds: float = DEADLINE_SECONDS) -> float:
    """Wait for ``condition``; seconds that it took.

    Raises:
        TimeoutError: it did not come.
    """
    began = time.monotonic()
    while not condition():
        if time.monotonic() - began > seconds:
            raise TimeoutError(f"waited for {seconds:g} s in vain")
        time.sleep(POLL_SECONDS)
    return time.monotonic() - began


def state(run: RunDirectory) -> str:
    """``training``, ``finished`` and so on."""
    return effective_state(run, read_history(run))[0]


class Watcher:
    """Reads what is durable in a run's store, as a cockpit does: short reads, one connection."""

    def __init__(self, run: RunDirectory) -> None:
        self._run = run
        self._reader: StoreReader | None = None
        self.rows: list[Row] = []
        self.history = History()
        """What a window shows that was open all the while."""

    def look(self) -> list[Row]:
        """The rows that have come since the last look."""
        if self._reader is None:
            try:
                self._reader = StoreReader(self._run.database)
            except FileNotFoundError:
                return []
        last = self.rows[-1][0] if self.rows else 0
        new: list[Any] = self._reader.rows(_ROWS, (last,))
        self.rows += new
        self.history.apply(self._reader.events(self.history.last_seq))
        return new

    def close(self) -> None:
        if self._reader is not None:
            self._reader.close()

"""One run on disk: its id, its files, how it is named on a command line.

<home>/runs/20261120-101500-stage1/
  run.yaml       the frozen configuration, versions, schema
  events.db      events, rollouts, commands
  engine.log     the worker's stdout and stderr
  worker.json    process id and start time of the newest worker
  prober.json    the same of the newest worker that answered probes alone
  worker.lock    held by the living worker
  checkpoints/   step-000100/ ...
  best_model     name of the best checkpoint by validation reward
  promotion.json, stage1/   in a Stage II run: see engine.runs.stage1
  prepared       in a Stage I run that was made without being started
"""

import datetime as dt
import fcntl
import hashlib
import json
import os
import re
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil
import yaml

from engine import config as configuration
from engine.config import SCHEMA_VERSION, RunConfig
from engine.errors import UserError
from engine.runs.durable import fsync_directory, write_atomically
from engine.runs.home import runs_directory, socket_directory
from engine.secrets import refuse
from engine.text import one_line

LOCK_PATIENCE_SECONDS = 3.0
"""How long a worker that ends, or was killed, may hold on to its locks."""
_RETRY_SECONDS = 0.05

PREPARED = "prepared"
"""File in a Stage I run that was made to be started later."""

_NAME = re.compile(r"(?!\.{1,2}$)[A-Za-z0-9._-]{1,80}")


@dataclass(frozen=True)
class RunDirectory:
    """Paths and facts of one run; reading it never needs the worker."""

    path: Path

    @property
    def id(self) -> str:
        return self.path.name

    @property
    def database(self) -> Path:
        return self.path / "events.db"

    @property
    def log(self) -> Path:
        return self.path / "engine.log"

    @property
    def checkpoints(self) -> Path:
        return self.path / "checkpoints"

    @property
    def promotion(self) -> Path:
        """Record of the promotion that made this run."""
        return self.path / "promotion.json"

    @property
    def stage1(self) -> Path:
        """The promoted Stage I adapter under a Stage II run."""
        return self.path / "stage1"

    @property
    def is_prepared(self) -> bool:
        """Made by a promotion or by ``prepare``, and never started: it may still be edited."""
        # Unlike Path.exists, os.path.exists answers where nobody lets us look.
        exists = os.path.exists
        waits = exists(self.promotion) or exists(self.path / PREPARED)
        return waits and not exists(self.path / "worker.json")

    @property
    def socket(self) -> Path:
        """The worker's control socket; its name has a fixed length, see ``socket_directory``."""
        return socket_directory() / f"{_short_hash(self.path)}.sock"

    def config(self) -> RunConfig:
        """The frozen configuration.

        Raises:
            UserError: unreadable, or written by a newer version.
        """
        file = self.path / "run.yaml"
        try:
            text = file.read_text(encoding="utf-8")
            values, node = yaml.safe_load(text), yaml.compose(text, Loader=yaml.SafeLoader)
        except yaml.MarkedYAMLError as error:
            line = error.problem_mark.line + 1 if error.problem_mark else 1
            raise UserError(
                f"not valid YAML: {one_line(str(error.problem))}", where=f"{file}:{line}"
            ) from error
        except PermissionError as error:
            raise UserError(
                "this run may not be read: permission denied",
                where=str(file),
                fix="see whether folder and file are yours",
            ) from error
        except (OSError, yaml.YAMLError, ValueError, RecursionError) as error:
            # A date that there is not is a ValueError.
            raise UserError("cannot read the run's configuration", where=str(file)) from error
        if not isinstance(values, dict) or not isinstance(values.get("schema"), int):
            raise UserError("this is not a run's configuration", where=str(file))
        if values["schema"] > SCHEMA_VERSION:
            raise UserError(
                f"this run was written by a newer stonk-tui (schema {values['schema']}, "
                f"this one knows {SCHEMA_VERSION})",
                where=f"{file}:schema",
                fix="update stonk-tui",
            )
        # That of a prepared run is there to be edited, so an error names the line.
        assert isinstance(node, yaml.MappingNode)
        sections = {key.value: value for key, value in node.value}
        return configuration.build(
            values.get("config") or {}, where=str(file), node=sections.get("config")
        )

    def write_config(self, config: RunConfig) -> None:
        """Freeze ``config`` as this run's.

        Raises:
            UserError: it holds a secret of the environment.
        """
        refuse(config.model_dump(), "")
        values = {"schema": SCHEMA_VERSION, "config": config.model_dump()}
        write_atomically(self.path / "run.yaml", yaml.safe_dump(values, sort_keys=False))

    def worker(self) -> psutil.Process | None:
        """The living worker that trains, or None."""
        return self._living("worker.json")

    def record_worker(self, pid: int | None = None) -> None:
        """Say which process works on this run: ``pid``, or the calling one."""
        self._record("worker.json", pid)

    def prober(self) -> psutil.Process | None:
        """The living worker that answers probes and trains nothing, or None."""
        return self._living("prober.json")

    def record_prober(self, pid: int | None = None) -> None:
        """Say which process answers probes of this run: ``pid``, or the calling one."""
        self._record("prober.json", pid)

    def _living(self, file: str) -> psutil.Process | None:
        """The process of a record, where it lives.

        The start guards against a process id that the system gave away again.
        """
        try:
            record = json.loads((self.path / file).read_text(encoding="utf-8"))
            process = psutil.Process(record["pid"])
            alive = process.status() != psutil.STATUS_ZOMBIE
            started = record.get("started") or None
            same = (
                started == _start_mark(process.pid)
                if started is not None
                else abs(process.create_time() - record["created"]) < 1
            )
        except (OSError, ValueError, KeyError, TypeError, psutil.Error):
            return None
        return process if alive and same else None

    def _record(self, file: str, pid: int | None) -> None:
        process = psutil.Process(pid)
        write_atomically(
            self.path / file,
            json.dumps(
                {
                    "pid": process.pid,
                    "created": process.create_time(),
                    "started": _start_mark(process.pid),
                }
            ),
        )

    @contextmanager
    def locked(self, *, patience: float = 0.0) -> Iterator[None]:
        """Hold the run for this process.

        Args:
            patience: seconds that another holder may take to let go of it.

        Raises:
            UserError: another worker holds it.
        """
        with exclusive(self.path / "worker.lock", patience=patience) as acquired:
            if not acquired:
                raise UserError(f"run {self.id} already has a worker", fix="attach to it instead")
            yield


def _start_mark(pid: int) -> str | None:
    """When a process was started, in ticks of this boot; None where the system does not tell.

    A time of day would change with the machine's clock: a worker that lives would look dead.
    """
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    # The name, in brackets, may hold anything; the start is the 22nd field of all.
    return f"{boot}:{stat.rpartition(')')[2].split()[19]}"


@contextmanager
def exclusive(path: Path, content: str = "", *, patience: float = 0.0) -> Iterator[bool]:
    """Try to hold ``path`` as a lock file for the block; yields whether that worked.

    The lock dies with the process, so a killed holder never blocks anyone; but for a moment, since
    a process of many threads looks dead before the last of them has let go of its files.

    Args:
        path: the file, made where it is missing.
        content: written into it.
        patience: seconds to try for.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    deadline = time.monotonic() + patience
    try:
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() >= deadline:
                    yield False
                    return
            time.sleep(_RETRY_SECONDS)
        os.ftruncate(descriptor, 0)
        os.write(descriptor, content.encode())
        yield True
    finally:
        os.close(descriptor)


def create(
    config: RunConfig,
    *,
    now: dt.datetime | None = None,
    fill: Callable[[RunDirectory], None] | None = None,
) -> RunDirectory:
    """Make the directory of a new run with its frozen configuration.

    Args:
        config: what the run will do.
        now: part of its id.
        fill: puts more into the directory before the configuration makes it a run, so that
            whoever lists runs sees all of it or nothing.

    Raises:
        UserError: the place cannot be written.
    """
    stamp = (now or dt.datetime.now()).strftime("%Y%m%d-%H%M%S")
    parent = runs_directory()
    try:
        parent.mkdir(parents=True, exist_ok=True)
        for suffix in ["", *(f"-{number}" for number in range(2, 100))]:
            path = parent / f"{stamp}-{config.name}{suffix}"
            try:
                path.mkdir(mode=0o700)
            except FileExistsError:
                continue
            run = RunDirectory(path)
            try:
                run.checkpoints.mkdir(mode=0o700)
                if fill is not None:
                    fill(run)
                run.write_config(config)
                fsync_directory(parent)
            except (OSError, UserError):
                shutil.rmtree(path, ignore_errors=True)
                raise
            return run
    except OSError as error:
        raise UserError(
            f"cannot make a run directory: {error.strerror}",
            where=str(parent),
            fix="free some space or set STONK_HOME to a folder you can write to",
        ) from error
    raise UserError("too many runs started in the same second", where=str(parent))


def prepare(config: RunConfig) -> RunDirectory:
    """Make the directory of a new run that waits to be started.

    Raises:
        UserError: the place cannot be written.
    """
    return create(config, fill=lambda run: write_atomically(run.path / PREPARED, ""))


def list_runs() -> list[RunDirectory]:
    """All runs, newest first."""
    parent = runs_directory()
    if not parent.is_dir():
        return []
    runs = [RunDirectory(path) for path in parent.iterdir() if _may_be_run(path)]
    return sorted(runs, key=lambda run: run.id, reverse=True)


def _may_be_run(path: Path) -> bool:
    """Whether a folder is a run; one that nobody lets us look into is, and says so when read."""
    try:
        return (path / "run.yaml").is_file()
    except PermissionError:
        return _NAME.fullmatch(path.name) is not None


def find(name: str | None) -> RunDirectory:
    """The run that ``name`` means: its id, an unambiguous part of it, or None for the newest.

    Raises:
        UserError: no such run, or more than one.
    """
    runs = list_runs()
    if not runs:
        raise UserError("there is no run yet", fix="start one with `stonk-tui demo`")
    if name is None:
        return runs[0]
    if not _NAME.fullmatch(name):
        raise UserError(f"{one_line(name, 40)!r} is not a run id", fix="see `stonk-tui runs`")
    matches = [run for run in runs if run.id == name] or [run for run in runs if name in run.id]
    if len(matches) > 1:
        raise UserError(
            f"{name!r} means {len(matches)} runs: {', '.join(run.id for run in matches[:3])}",
            fix="write more of the id",
        )
    if not matches:
        raise UserError(f"no run called {name!r}", fix="see `stonk-tui runs`")
    return matches[0]


def _short_hash(path: Path) -> str:
    return hashlib.sha256(str(path.resolve()).encode()).hexdigest()[:12]

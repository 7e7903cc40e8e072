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
import secrets
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil
import yaml

from engine import config as configuration
from engine.config import SCHEMA_VERSION, RunConfig
from engine.errors import UserError
from engine.runs.home import runs_directory, socket_directory
from engine.secrets import refuse
from engine.text import one_line

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
        waits = self.promotion.exists() or (self.path / PREPARED).exists()
        return waits and not (self.path / "worker.json").exists()

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

        The start time guards against a process id that the system gave away again.
        """
        try:
            record = json.loads((self.path / file).read_text(encoding="utf-8"))
            process = psutil.Process(record["pid"])
            alive = process.status() != psutil.STATUS_ZOMBIE
            same = abs(process.create_time() - record["created"]) < 1
        except (OSError, ValueError, KeyError, TypeError, psutil.Error):
            return None
        return process if alive and same else None

    def _record(self, file: str, pid: int | None) -> None:
        process = psutil.Process(pid)
        write_atomically(
            self.path / file,
            json.dumps({"pid": process.pid, "created": process.create_time()}),
        )

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the run for this process.

        Raises:
            UserError: another worker holds it.
        """
        with exclusive(self.path / "worker.lock") as acquired:
            if not acquired:
                raise UserError(f"run {self.id} already has a worker", fix="attach to it instead")
            yield


def write_atomically(path: Path, text: str) -> None:
    """Replace ``path`` with ``text``: old content or new, durable, never half of it."""
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
    with temporary.open("x", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)
    fsync_directory(path.parent)


def fsync_file(path: Path) -> None:
    """Make the content of ``path`` durable."""
    with path.open("rb") as file:
        os.fsync(file.fileno())


def fsync_directory(path: Path) -> None:
    """Make renames and new names inside ``path`` durable."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def exclusive(path: Path, content: str = "") -> Iterator[bool]:
    """Try to hold ``path`` as a lock file for the block; yields whether that worked.

    The lock dies with the process, so a killed holder never blocks anyone.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
            return
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
    runs = [RunDirectory(path) for path in parent.iterdir() if (path / "run.yaml").is_file()]
    return sorted(runs, key=lambda run: run.id, reverse=True)


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

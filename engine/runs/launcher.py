"""Start a worker in a session of its own, so that it outlives whoever started it."""

import contextlib
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil

from engine.config import RunConfig
from engine.errors import RunFailedError, UserError
from engine.runs import devices, directory, session, stage1
from engine.runs.directory import RunDirectory
from engine.runs.disk import refusal
from engine.runs.home import home

WORKER_MODULE = "engine.worker"
"""What a worker runs, with the run's path as its argument."""
PROBE_OPTION = "--probe"
"""Second argument of a worker that trains nothing, answers probes and evaluates."""

_COMMANDS = {"probe": "probe", "evaluate": "eval"}
"""What is typed to ask for a verb."""
_END_SECONDS = 15.0


def device_lock(device: str) -> Path:
    """The file whose lock stands for ``device``; it holds the id of the run on it."""
    name = device
    if device.startswith("cuda:"):
        # The driver's number: CUDA_VISIBLE_DEVICES gives each shell numbers of its own.
        present = devices.gpus()
        index = int(device.removeprefix("cuda:"))
        name = f"cuda:{present[index].index}" if index < len(present) else device
    return home() / "devices" / f"{re.sub(r'[^a-z0-9]', '-', name)}.lock"


def refuse_busy_device(device: str) -> None:
    """Say which run holds the device, before anything is made.

    The worker takes the lock for good; this check only gives the answer early. A worker that
    only answers probes is no hindrance: it ends when training begins, see ``end_prober``.

    Raises:
        UserError: another run holds it.
    """
    holder = _run_on(device)
    if holder is not None and holder.worker() is None and holder.prober() is not None:
        return
    is_gone = holder is not None and holder.worker() is None
    patience = directory.LOCK_PATIENCE_SECONDS if is_gone else 0.0
    with directory.exclusive(device_lock(device), patience=patience) as acquired:
        if not acquired:
            raise busy_device(device)


@contextlib.contextmanager
def hold_device(run: RunDirectory, device: str) -> Iterator[None]:
    """Hold the device for the block.

    Raises:
        UserError: another run holds it.
    """
    # ``refuse_busy_device`` looks at the same lock for a moment.
    patience = directory.LOCK_PATIENCE_SECONDS
    with directory.exclusive(device_lock(device), run.id, patience=patience) as acquired:
        if not acquired:
            raise busy_device(device)
        yield


def busy_device(device: str) -> UserError:
    """The error for a device that another run holds."""
    holder = _holder(device) or "another run"
    return UserError(
        f"{device} is busy with run {holder}",
        fix=f"stop it (`stonk-tui stop {holder}`) or choose another --device",
    )


def end_prober(run: RunDirectory | None) -> None:
    """End a worker that waits for probes of ``run``: whoever trains comes first."""
    process = run.prober() if run is not None else None
    if process is None:
        return
    with contextlib.suppress(psutil.Error):
        process.terminate()
        try:
            process.wait(_END_SECONDS)
        except psutil.TimeoutExpired:
            process.kill()
            process.wait(_END_SECONDS)


def launch_prober(run: RunDirectory, verb: str = "probe") -> None:
    """Start a worker that answers what is asked of ``run`` and ends when nobody asks any more.

    Args:
        verb: what is asked, for messages.

    Raises:
        UserError: a worker trains the run, which answers itself, or the device is missing or
            busy.
        RunFailedError: the system starts no process.
    """
    if run.worker() is not None:
        raise UserError(f"run {run.id} has a living worker, which answers itself")
    device = devices.resolve(run.config().model.device)
    holder = _run_on(device)
    if holder is not None and holder != run:
        if holder.worker() is not None:
            raise UserError(
                f"{device} is busy with run {holder.id}",
                fix=f"ask its worker: `stonk-tui {_COMMANDS[verb]} {holder.id} "
                f"--checkpoint {run.id}:NAME`",
            )
        end_prober(holder)
    try:
        _spawn(run, PROBE_OPTION)
    except OSError as error:
        raise _not_started(error) from error


def _not_started(error: OSError) -> RunFailedError:
    return RunFailedError(f"no worker could be started: {refusal(error) or error.strerror}")


def _holder(device: str) -> str:
    """Id of the run that holds or last held the device."""
    try:
        return device_lock(device).read_text(encoding="utf-8").strip()
    except OSError:
        return ""


def _run_on(device: str) -> RunDirectory | None:
    """The run that holds or last held the device, where it is still there."""
    name = _holder(device)
    return next((run for run in directory.list_runs() if run.id == name), None)


def launch(config: RunConfig) -> RunDirectory:
    """Make a run directory and start its worker, detached.

    The frozen configuration names the device that ``auto`` stands for today.

    Raises:
        UserError: the device is missing or busy, the directory cannot be made, or it would be
            Stage II, which a promotion makes.
        RunFailedError: the system starts no process; the directory is gone again.
    """
    if config.stage == "II":
        raise stage1.needs_promotion()
    device = devices.resolve(config.model.device)
    end_prober(_run_on(device))
    refuse_busy_device(device)
    model = config.model.model_copy(update={"device": device})
    run = directory.create(config.model_copy(update={"model": model}))
    try:
        _spawn(run)
    except OSError as error:
        shutil.rmtree(run.path, ignore_errors=True)
        raise _not_started(error) from error
    return run


def relaunch(run: RunDirectory) -> None:
    """Start a worker on a run that has none: it goes on from the last checkpoint, or begins.

    Raises:
        UserError: a worker lives, the device is missing or busy, the run was made by a newer
            version, or what was promoted is not what it was.
        RunFailedError: the system starts no process, or the run's folder cannot be written.
    """
    if run.worker() is not None:
        raise UserError(f"run {run.id} has a living worker", fix=f"stonk-tui attach {run.id}")
    config = run.config()
    stage1.verify(run, config)
    end_prober(run)
    device = devices.resolve(config.model.device)
    end_prober(_run_on(device))
    refuse_busy_device(device)
    if device != config.model.device:
        # Edited after the promotion: from now on it names the device of today.
        model = config.model.model_copy(update={"device": device})
        run.write_config(config.model_copy(update={"model": model}))
    try:
        _spawn(run)
    except OSError as error:
        raise _not_started(error) from error


def _spawn(run: RunDirectory, *options: str) -> None:
    environment = dict(os.environ, PYTHONUNBUFFERED="1", PYTHONFAULTHANDLER="1")
    # A second run loads weights from files: nothing it imports may draw on a terminal.
    environment |= {"HF_HUB_DISABLE_PROGRESS_BARS": "1", "TRANSFORMERS_VERBOSITY": "error"}
    # Threads that spin for long while they wait make a step several times slower as soon as
    # anything else wants one of few cores; threads that do not spin at all slow decoding down.
    # `bench/threads.py` compares.
    environment.setdefault("GOMP_SPINCOUNT", "3000")
    # The numbers of GPUs mean the same to torch as to the driver, and so to `devices`.
    environment["CUDA_DEVICE_ORDER"] = "PCI_BUS_ID"
    # With -P a package called engine in the current folder is not taken for ours.
    root = str(Path(__file__).resolve().parents[2])
    environment["PYTHONPATH"] = os.pathsep.join(filter(None, [root, environment.get("PYTHONPATH")]))
    prefix = session.survival(session.look()).prefix
    with run.log.open("ab") as log:
        worker = subprocess.Popen(
            [*prefix, sys.executable, "-P", "-m", WORKER_MODULE, str(run.path), *options],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
            close_fds=True,
            env=environment,
        )
    # Written here as well as by the worker: until it has started, the run is not stale.
    with contextlib.suppress(psutil.Error):
        record = run.record_prober if PROBE_OPTION in options else run.record_worker
        record(worker.pid)

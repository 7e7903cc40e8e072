"""Start a worker in a session of its own, so that it outlives whoever started it."""

import contextlib
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import psutil

from engine.config import RunConfig
from engine.errors import RunFailedError, UserError
from engine.runs import devices, directory, stage1
from engine.runs.directory import RunDirectory
from engine.runs.home import home

WORKER_MODULE = "engine.worker"
"""What a worker runs, with the run's path as its argument."""


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

    The worker takes the lock for good; this check only gives the answer early.

    Raises:
        UserError: another run holds it.
    """
    path = device_lock(device)
    with directory.exclusive(path) as acquired:
        if not acquired:
            raise busy_device(device)


def busy_device(device: str) -> UserError:
    """The error for a device that another run holds."""
    holder = device_lock(device).read_text(encoding="utf-8").strip() or "another run"
    return UserError(
        f"{device} is busy with run {holder}",
        fix=f"stop it (`stonk-tui stop {holder}`) or choose another --device",
    )


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
    refuse_busy_device(device)
    model = config.model.model_copy(update={"device": device})
    run = directory.create(config.model_copy(update={"model": model}))
    try:
        _spawn(run)
    except OSError as error:
        shutil.rmtree(run.path, ignore_errors=True)
        raise RunFailedError(f"no worker could be started: {error.strerror}") from error
    return run


def relaunch(run: RunDirectory) -> None:
    """Start a worker on a run that has none: it goes on from the last checkpoint, or begins.

    Raises:
        UserError: a worker lives, the device is missing or busy, the run was made by a newer
            version, or what was promoted is not what it was.
    """
    if run.worker() is not None:
        raise UserError(f"run {run.id} has a living worker", fix=f"stonk-tui attach {run.id}")
    config = run.config()
    stage1.verify(run, config)
    device = devices.resolve(config.model.device)
    refuse_busy_device(device)
    if device != config.model.device:
        # Edited after the promotion: from now on it names the device of today.
        model = config.model.model_copy(update={"device": device})
        run.write_config(config.model_copy(update={"model": model}))
    _spawn(run)


def _spawn(run: RunDirectory) -> None:
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
    with run.log.open("ab") as log:
        worker = subprocess.Popen(
            [sys.executable, "-P", "-m", WORKER_MODULE, str(run.path)],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
            close_fds=True,
            env=environment,
        )
    # Written here as well as by the worker: until it has started, the run is not stale.
    with contextlib.suppress(psutil.Error):
        run.record_worker(worker.pid)

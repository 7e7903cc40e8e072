"""What the machine is doing: sampled in a thread, because a driver may take its time."""

import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import psutil
from textual.message import Message

from engine.runs.directory import RunDirectory

SAMPLE_SECONDS = 2.0


@dataclass(frozen=True)
class GpuLoad:
    """One GPU at one moment; bytes, watts, degrees Celsius, shares of 1."""

    index: int
    name: str
    memory_total: int
    memory_used: int
    utilisation: float | None
    power_watts: float | None
    temperature_celsius: int | None


@dataclass(frozen=True)
class Machine:
    """The machine at one moment; None where it is not known."""

    gpus: tuple[GpuLoad, ...] = ()
    cpu: float | None = None
    """Share of all cores."""
    num_cpus: int | None = None
    memory_used: int | None = None
    memory_total: int | None = None
    worker_memory: int | None = None
    worker_cpu: float | None = None
    """Cores in use: 1.5 is one core and a half."""
    disk_free: int | None = None


@dataclass
class MachineSampled(Message, bubble=False):
    """A newer sample of the machine."""

    machine: Machine = field(default_factory=Machine)

    def can_replace(self, message: Message) -> bool:
        return isinstance(message, MachineSampled)


class MachineFeed:
    """Sample the machine every two seconds until stopped."""

    def __init__(self, run: RunDirectory, notify: Callable[[Machine], object]) -> None:
        """Prepare to watch the machine of ``run``; ``notify`` is called in the thread."""
        self._run = run
        self._notify = notify
        self._stop = threading.Event()
        self._worker: psutil.Process | None = None
        self._thread = threading.Thread(target=self._watch, name="machine-feed", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Ask the thread to end."""
        self._stop.set()

    def _watch(self) -> None:
        psutil.cpu_percent()  # The first call only sets the mark that the next one measures from.
        while not self._stop.wait(0.2):
            self._notify(self._sample())
            self._stop.wait(SAMPLE_SECONDS)

    def _sample(self) -> Machine:
        memory = psutil.virtual_memory()
        worker_memory, worker_cpu = self._worker_load()
        return Machine(
            gpus=_gpus(),
            cpu=psutil.cpu_percent() / 100,
            num_cpus=psutil.cpu_count(),
            memory_used=memory.total - memory.available,
            memory_total=memory.total,
            worker_memory=worker_memory,
            worker_cpu=worker_cpu,
            disk_free=_disk_free(self._run.path),
        )

    def _worker_load(self) -> tuple[int | None, float | None]:
        process = self._run.worker()
        if process is None:
            self._worker = None
            return None, None
        try:
            if self._worker is None or self._worker.pid != process.pid:
                # Kept, because CPU use is measured from one call on the same object to the next.
                self._worker = process
                process.cpu_percent()
                return process.memory_info().rss, None
            return self._worker.memory_info().rss, self._worker.cpu_percent() / 100
        except psutil.Error:
            return None, None


def _gpus() -> tuple[GpuLoad, ...]:
    # Imported here: the driver's library is loaded in this thread, not before the first paint.
    import pynvml

    from engine.runs import devices

    try:
        return tuple(
            GpuLoad(
                index=gpu.index,
                name=gpu.name,
                memory_total=gpu.memory_total,
                memory_used=gpu.memory_used,
                utilisation=None if gpu.utilisation is None else gpu.utilisation / 100,
                power_watts=gpu.power_watts,
                temperature_celsius=gpu.temperature_celsius,
            )
            for gpu in devices.gpus()
        )
    except pynvml.NVMLError:
        return ()


def _disk_free(path: Path) -> int | None:
    try:
        return psutil.disk_usage(str(path)).free
    except OSError:
        return None

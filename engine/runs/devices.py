"""Which device a run will use, decided without importing torch.

The launcher has to refuse a busy or missing device before anything is made, in a
process that must stay light; so CUDA is judged from the installed torch's version
file and from NVML.
"""

import contextlib
import importlib.util
import os
import platform
import re
from dataclasses import dataclass
from pathlib import Path

import pynvml

from engine.errors import UserError


@dataclass(frozen=True)
class Gpu:
    """One NVIDIA device as the driver sees it."""

    index: int
    name: str
    memory_total: int
    """Bytes."""
    memory_used: int
    """Bytes, by every process."""
    utilisation: int | None
    """Per cent of the last sample period; None where the driver does not tell."""
    power_watts: float | None
    temperature_celsius: int | None
    process_ids: tuple[int, ...]
    """Processes with a compute context on it."""


def gpus() -> list[Gpu]:
    """The NVIDIA devices that CUDA will count, in its order; empty where there is no driver."""
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError:
        return []
    try:
        return [_read_gpu(index) for index in _visible(pynvml.nvmlDeviceGetCount())]
    finally:
        pynvml.nvmlShutdown()


def _visible(count: int) -> list[int]:
    """The driver's numbers of the devices that CUDA_VISIBLE_DEVICES leaves, as CUDA reads it."""
    chosen = os.environ.get("CUDA_VISIBLE_DEVICES")
    if chosen is None:
        return list(range(count))
    indices: list[int] = []
    for entry in filter(None, (part.strip() for part in chosen.split(","))):
        try:
            index = (
                int(entry)
                if entry.lstrip("-").isdigit()
                else pynvml.nvmlDeviceGetIndex(pynvml.nvmlDeviceGetHandleByUUID(entry))
            )
        except pynvml.NVMLError:
            # A slice of a GPU (MIG-…) or a shortened name: not ours to count.
            return list(range(count))
        if not 0 <= index < count:
            # CUDA ignores everything from the first entry that does not exist.
            break
        indices.append(index)
    return indices


def device_name(device: str) -> str:
    """What a resolved device calls itself, such as ``NVIDIA H200`` or ``AMD EPYC``."""
    kind, _, index = device.partition(":")
    if kind == "cuda":
        return gpus()[int(index)].name
    lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.machine())


def torch_cuda_version() -> str | None:
    """The CUDA version that the installed torch was built for; None for a CPU build."""
    spec = importlib.util.find_spec("torch")
    if spec is None or spec.origin is None:
        return None
    text = (Path(spec.origin).parent / "version.py").read_text(encoding="utf-8")
    match = re.search(r"^cuda[^=]*=\s*'([^']+)'", text, re.MULTILINE)
    return match.group(1) if match else None


def resolve(requested: str) -> str:
    """``auto``, ``cpu``, ``cuda`` or ``cuda:N`` as ``cpu`` or ``cuda:N``.

    Raises:
        UserError: a GPU was asked for that torch cannot use.
    """
    present = gpus()
    usable = torch_cuda_version() is not None
    if requested == "cpu" or (requested == "auto" and not (present and usable)):
        return "cpu"
    index = int(requested.partition(":")[2] or 0)
    if not present:
        raise UserError(
            "no NVIDIA GPU answers on this machine", where=f"--device {requested}", fix="use cpu"
        )
    if not usable:
        raise UserError(
            "the driver sees a GPU, but the installed torch is a CPU build",
            where=f"--device {requested}",
            fix="`stonk-tui doctor` tells how to install a CUDA build",
        )
    if index >= len(present):
        raise UserError(
            f"there is no GPU {index}; this machine has {len(present)}",
            where=f"--device {requested}",
        )
    return f"cuda:{index}"


def others_on(device: str) -> str | None:
    """One line about processes that use ``device`` already, or None."""
    kind, _, index = device.partition(":")
    if kind != "cuda":
        return None
    gpu = gpus()[int(index)]
    if not gpu.process_ids:
        return None
    who = ", ".join(map(str, gpu.process_ids[:4]))
    gib = gpu.memory_used / 2**30
    total = gpu.memory_total / 2**30
    return (
        f"{device} ({gpu.name}) is in use by process {who}: {gib:.1f} of {total:.1f} GiB are taken"
    )


def _read_gpu(index: int) -> Gpu:
    handle = pynvml.nvmlDeviceGetHandleByIndex(index)
    memory = pynvml.nvmlDeviceGetMemoryInfo(handle)
    processes: tuple[int, ...] = ()
    with contextlib.suppress(pynvml.NVMLError):
        running = pynvml.nvmlDeviceGetComputeRunningProcesses(handle)
        processes = tuple(process.pid for process in running)
    try:
        power: float | None = pynvml.nvmlDeviceGetPowerUsage(handle) / 1000
        temperature: int | None = pynvml.nvmlDeviceGetTemperature(
            handle, pynvml.NVML_TEMPERATURE_GPU
        )
        utilisation: int | None = int(pynvml.nvmlDeviceGetUtilizationRates(handle).gpu)
    except pynvml.NVMLError:
        # Virtual GPUs and MIG slices do not report these.
        power, temperature, utilisation = None, None, None
    return Gpu(
        index=index,
        name=str(pynvml.nvmlDeviceGetName(handle)),
        memory_total=int(memory.total),
        memory_used=int(memory.used),
        utilisation=utilisation,
        power_watts=power,
        temperature_celsius=temperature,
        process_ids=processes,
    )

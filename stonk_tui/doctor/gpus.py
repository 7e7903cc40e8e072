"""Compare what the NVIDIA driver sees with what torch can use.

torch is asked in a process of its own, since the cockpit never imports it.
"""

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import pynvml

from engine.runs import devices
from engine.text import one_line
from stonk_tui.doctor.findings import Finding, dotted, gib


@dataclass(frozen=True)
class TorchView:
    """What torch says about itself and its devices, out of a process of its own."""

    version: str | None = None
    cuda: str | None = None
    """CUDA version that it was built for; None for a CPU build."""
    devices: list[dict[str, Any]] = field(default_factory=list)
    """For each: name, capability [major, minor], memory in bytes."""
    architectures: list[str] = field(default_factory=list)
    """Kernels inside the build, such as ``sm_90`` and ``compute_90``."""
    error: str | None = None
    bitsandbytes_error: str | None = None


@dataclass(frozen=True)
class DriverView:
    """What the NVIDIA driver says, by the library that nvidia-smi uses."""

    version: str | None = None
    cuda: tuple[int, int] | None = None
    """Newest CUDA version that the driver can run."""
    gpus: list[devices.Gpu] = field(default_factory=list)
    error: str | None = None
    """Set where a driver is installed but does not answer."""


_TORCH_PROBE = """
import json, warnings
warnings.simplefilter("ignore")
import torch
view = {"version": torch.__version__, "cuda": torch.version.cuda, "devices": []}
if torch.version.cuda:
    try:
        torch.cuda.init()
        view["architectures"] = torch.cuda.get_arch_list()
        for index in range(torch.cuda.device_count()):
            device = torch.cuda.get_device_properties(index)
            view["devices"].append({
                "name": device.name,
                "capability": [device.major, device.minor],
                "memory": device.total_memory,
            })
    except Exception as error:
        view["error"] = str(error)
    else:
        try:
            import bitsandbytes.functional
        except Exception as error:
            view["bitsandbytes_error"] = str(error)
print("\\n" + json.dumps(view))
"""


def probe_torch() -> TorchView:
    """Ask torch in a child process; a torch that cannot be imported is an answer too."""
    try:
        result = subprocess.run(
            [sys.executable, "-P", "-c", _TORCH_PROBE],
            capture_output=True,
            text=True,
            errors="replace",
            timeout=120,
            stdin=subprocess.DEVNULL,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return TorchView(error=one_line(str(error)))
    if result.returncode != 0:
        return TorchView(error=_last_line(result.stderr) or f"exit code {result.returncode}")
    try:
        view = json.loads(_last_line(result.stdout, limit=100_000))
    except ValueError:
        return TorchView(error="its answer cannot be read")
    for key in ("error", "bitsandbytes_error"):
        if view.get(key):
            view[key] = one_line(view[key])
    return TorchView(**view)


def probe_driver() -> DriverView:
    """Ask the NVIDIA driver; an absent one is an empty view."""
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError as error:
        absent = getattr(error, "value", None) in {
            pynvml.NVML_ERROR_LIBRARY_NOT_FOUND,
            pynvml.NVML_ERROR_DRIVER_NOT_LOADED,
        }
        if absent and shutil.which("nvidia-smi") is None:
            return DriverView()
        return DriverView(error=one_line(str(error)))
    try:
        cuda = int(pynvml.nvmlSystemGetCudaDriverVersion_v2())
        return DriverView(
            version=str(pynvml.nvmlSystemGetDriverVersion()),
            cuda=(cuda // 1000, cuda % 1000 // 10),
            gpus=devices.gpus(),
        )
    except pynvml.NVMLError as error:
        return DriverView(error=one_line(str(error)))
    finally:
        pynvml.nvmlShutdown()


def judge_gpus(driver: DriverView, torch: TorchView, visible: str | None) -> list[Finding]:
    """Compare what the driver sees with what torch can use.

    Args:
        visible: the value of CUDA_VISIBLE_DEVICES, if set.
    """
    if driver.error:
        return [
            Finding(
                "gpu",
                "error",
                f"the NVIDIA driver does not answer ({driver.error})",
                "see what nvidia-smi says; after a driver update, reboot",
            )
        ]
    if not driver.gpus:
        if torch.devices:
            return [_judge_device(i, d, torch) for i, d in enumerate(torch.devices)]
        return [
            Finding("gpu", "note", "no NVIDIA GPU: training runs on the CPU, at the demo's scale")
        ]
    if torch.version is None:
        return []  # said under torch already
    if not torch.devices:
        return [_judge_unusable(driver, torch, visible)]
    findings = [_judge_device(i, d, torch) for i, d in enumerate(torch.devices)]
    if len(torch.devices) < len(driver.gpus):
        reason = f"CUDA_VISIBLE_DEVICES={visible}" if visible is not None else "no reason known"
        counts = f"{len(torch.devices)} of the driver's {len(driver.gpus)} GPUs"
        findings.append(Finding("gpu", "note", f"torch sees {counts} ({reason})"))
    for gpu in driver.gpus:
        if gpu.process_ids:
            who = ", ".join(map(str, gpu.process_ids[:4]))
            findings.append(
                Finding(
                    f"gpu {gpu.index}",
                    "note",
                    f"in use by process {who}: {gib(gpu.memory_used)} of "
                    f"{gib(gpu.memory_total)} taken",
                    "choose another device with --device, or wait",
                )
            )
    if torch.bitsandbytes_error:
        findings.append(
            Finding(
                "bitsandbytes",
                "warning",
                f"4-bit weights are not available ({torch.bitsandbytes_error})",
                "use --quantize none, or install the locked bitsandbytes",
            )
        )
    return findings


def _judge_unusable(driver: DriverView, torch: TorchView, visible: str | None) -> Finding:
    """The driver has GPUs and torch has none: say why."""
    seen = f"the driver ({driver.version}, CUDA {dotted(driver.cuda)}) sees {driver.gpus[0].name}"
    if torch.cuda is None:
        return Finding(
            "gpu",
            "error",
            f"{seen}, but torch {torch.version} is a CPU-only build",
            torch_install_command(torch.version, driver.cuda),
        )
    if visible is not None and visible.strip() in {"", "-1"}:
        return Finding(
            "gpu",
            "warning",
            f"{seen}, but CUDA_VISIBLE_DEVICES={visible!r} hides it from torch",
            "unset CUDA_VISIBLE_DEVICES",
        )
    if driver.cuda and version_tuple(torch.cuda)[:1] > driver.cuda[:1]:
        return Finding(
            "gpu",
            "error",
            f"{seen}, but torch {torch.version} is built for CUDA {torch.cuda}, newer than "
            "the driver can run",
            f"update the driver, or: {torch_install_command(torch.version, driver.cuda)}",
        )
    return Finding(
        "gpu",
        "error",
        f"{seen}, but torch cannot use it ({torch.error or 'no reason given'})",
        "see what nvidia-smi says; after a driver update, reboot",
    )


def torch_install_command(version: str | None, driver_cuda: tuple[int, int] | None) -> str:
    """The pip command for a torch that the driver can run."""
    if driver_cuda is not None and driver_cuda < (12, 0):
        return "update the NVIDIA driver first: CUDA 12 is the oldest that torch is built for"
    # CUDA 12.6 builds run under every 12.x driver, and are the last with Pascal and Volta.
    tag = "cu130" if driver_cuda and driver_cuda >= (13, 0) else "cu126"
    release = (version or "").partition("+")[0] or "2.13.0"
    return (
        f"{sys.executable} -m pip install torch=={release}+{tag} --extra-index-url URL, "
        f"where URL is the {tag} index given on PyTorch's Get Started page"
    )


def _judge_device(index: int, device: Mapping[str, Any], torch: TorchView) -> Finding:
    """One device that torch lists: can its kernels run, and in which number formats."""
    major, minor = device["capability"]
    name = f"cuda:{index}"
    text = f"{device['name']}, {gib(device['memory'])}, sm_{major}{minor}"
    if torch.architectures and not runs_on((major, minor), torch.architectures):
        fix = (
            "install torch 2.14 or older, built for CUDA 12.6: "
            + torch_install_command(torch.version, (12, 6))
            if (major, minor) < (7, 5)
            else "install a newer torch"
        )
        return Finding(name, "error", f"{text}: torch {torch.version} has no kernels for it", fix)
    if (major, minor) < (7, 0):
        return Finding(
            name,
            "note",
            f"{text}: no bf16, and fp16 is slow; needs torch 2.14 or older built for CUDA 12.6",
        )
    if (major, minor) < (8, 0):
        return Finding(name, "note", f"{text}: no native bf16 (that starts at sm_80), fp16 works")
    return Finding(name, "ok", f"{text}, bf16")


def runs_on(capability: tuple[int, int], architectures: Iterable[str]) -> bool:
    """Whether a build with these kernels runs on a device.

    A binary runs on its own major version from its minor version up; PTX
    (``compute_``) is compiled for anything newer.
    """
    for architecture in architectures:
        match = re.fullmatch(r"(sm|compute)_(\d+)(\d)([af]?)", architecture)
        if match is None:
            continue
        kind, major, minor, variant = match.groups()
        built = (int(major), int(minor))
        if variant == "a":  # specific to exactly this device
            if built == capability:
                return True
        elif kind == "compute":
            if built <= capability:
                return True
        elif built[0] == capability[0] and built[1] <= capability[1]:
            return True
    return False


def version_tuple(text: str | None) -> tuple[int, ...]:
    """The leading numbers of a version: ``2.13.0+cpu`` gives (2, 13, 0)."""
    match = re.match(r"\d+(\.\d+)*", text or "")
    return tuple(map(int, match.group().split("."))) if match else ()


def _last_line(text: str, limit: int = 200) -> str:
    lines = [line for line in text.splitlines() if line.strip()]
    return one_line(lines[-1], limit) if lines else ""

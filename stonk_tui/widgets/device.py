"""Is the machine busy? GPU, processor, memory, disk."""

from typing import ClassVar

from textual.content import Content

from stonk_tui.feed import RunModel
from stonk_tui.machine import GpuLoad, Machine
from stonk_tui.widgets import figures
from stonk_tui.widgets.panel import Panel, rows
from stonk_tui.widgets.text import line

_LABEL = 6
_WORDS = 16
_HISTORY = 60


class DevicePanel(Panel):
    """Load and memory of the device that trains, and of the machine around it."""

    noun = "Device"
    number = 7
    explanation: ClassVar[str] = (
        "The device that this run trains on, and the machine around it, sampled every two seconds. "
        "Memory of the GPU counts every process on it; the worker's own line counts only this run. "
        "A utilisation that often falls to 0 means that the device waits for something; mfu is the "
        "arithmetic that the last step needed, of all that the device could have done in its time."
    )

    def __init__(self, *, id: str) -> None:
        super().__init__(id=id)
        self._machine = Machine()
        self._load: list[float] = []

    def sample(self, machine: Machine) -> None:
        """Take a newer sample in; drawn with the next show."""
        self._machine = machine
        load = machine.gpus[0].utilisation if machine.gpus else machine.cpu
        if load is not None:
            self._load = [*self._load[-_HISTORY + 1 :], load]

    def draw(self, view: RunModel, width: int, height: int) -> tuple[Content, Content]:
        machine = self._machine
        gpu = _gpu_of(view, machine)
        lines: list[Content] = []
        if gpu is not None:
            lines += [
                self._meter("load", gpu.utilisation, figures.share(gpu.utilisation), width),
                _meter(
                    "vram",
                    gpu.memory_used / gpu.memory_total if gpu.memory_total else None,
                    f"{figures.gib(gpu.memory_used)} of {figures.gib(gpu.memory_total)} GiB",
                    width,
                ),
                Content.assemble(
                    (f"{'heat':<{_LABEL}}", "$quiet"),
                    f"{figures.fixed(gpu.temperature_celsius, 0)} °C",
                    ("   power ", "$quiet"),
                    f"{figures.fixed(gpu.power_watts, 0)} W",
                    *_mfu(view),
                ),
            ]
        cores = f" of {machine.num_cpus} cores" if machine.num_cpus else ""
        cpu_words = f"{figures.share(machine.cpu)}{cores}"
        if gpu is None:
            lines.append(self._meter("cpu", machine.cpu, cpu_words, width))
        else:
            lines.append(_meter("cpu", machine.cpu, cpu_words, width))
        lines.append(
            _meter(
                "ram",
                _part(machine.memory_used, machine.memory_total),
                f"{figures.gib(machine.memory_used)} of {figures.gib(machine.memory_total)} GiB",
                width,
            )
        )
        lines.append(
            Content.assemble(
                (f"{'run':<{_LABEL}}", "$quiet"),
                f"{figures.gib(machine.worker_memory)} GiB",
                ("   cores ", "$quiet"),
                figures.fixed(machine.worker_cpu, 1),
            )
        )
        lines.append(
            Content.assemble(
                (f"{'disk':<{_LABEL}}", "$quiet"),
                f"{figures.gib(machine.disk_free)} GiB",
                (" free", "$quiet"),
            )
        )
        name = gpu.name if gpu else view.history.facts.get("device_name") or "processor"
        short = str(name).replace("NVIDIA ", "")
        return line(short, "$ink", limit=24), rows(*lines[:height])

    def _meter(self, label: str, part: float | None, words: str, width: int) -> Content:
        """A meter with its recent course at the end, where there is room."""
        room = min(24, width - _LABEL - _WORDS - 14)
        if room < 6 or len(self._load) < 2:
            return _meter(label, part, words, width)
        course = figures.sparkline([0.0, *self._load], room + 1)[1:]
        return Content.assemble(
            _meter(label, part, words, width - len(course) - 1), " ", (course, "$course")
        )


def _gpu_of(view: RunModel, machine: Machine) -> GpuLoad | None:
    """The GPU that the run uses; None for a run on the processor."""
    kind, _, index = str(view.history.facts.get("device") or "").partition(":")
    if kind != "cuda":
        return None
    number = int(index) if index.isdecimal() else 0
    return next((gpu for gpu in machine.gpus if gpu.index == number), None)


def _mfu(view: RunModel) -> list[str | tuple[str, str]]:
    mfu = view.history.metrics.get("mfu")
    return [] if mfu is None else [("   mfu ", "$quiet"), figures.share(mfu)]


def _part(used: int | None, total: int | None) -> float | None:
    return used / total if used is not None and total else None


def _meter(label: str, part: float | None, words: str, width: int) -> Content:
    done, rest = figures.meter(part, width - _LABEL - _WORDS - 1)
    style = "$bad" if (part or 0) > 0.95 and label in ("vram", "ram") else "$up"
    return Content.assemble(
        (f"{label:<{_LABEL}}", "$quiet"), (done, style), (rest, "$faint"), f" {words:>{_WORDS}}"
    )

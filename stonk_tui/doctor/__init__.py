"""Look at this machine and say, in words, what will work, what will not, and the fix.

Facts are gathered first (``probe_`` functions) and judged by pure functions
(``judge_``); the slow questions, to torch, the hub and systemd, are asked at
the same time.
"""

import json
import os
import shutil
import sqlite3
import sys
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path

import psutil

from engine.runs import filesystem, session
from engine.text import one_line
from stonk_tui.doctor import gpus, machine, model
from stonk_tui.doctor.findings import SEVERITY, Finding, Level
from stonk_tui.doctor.gpus import DriverView, TorchView

__all__ = ["DoctorReport", "Finding", "collect", "render"]

_GLYPHS: dict[Level, str] = {"ok": "✓", "note": "·", "warning": "⚠", "error": "✗"}


@dataclass(frozen=True)
class DoctorReport:
    """Everything found, worst level included."""

    model: str
    home: str
    versions: dict[str, str | None]
    """None: not installed."""
    torch: TorchView
    driver: DriverView
    findings: list[Finding]

    @property
    def level(self) -> Level:
        """The worst level of all findings."""
        return max((f.level for f in self.findings), key=SEVERITY.index, default="ok")

    def to_json(self) -> str:
        """The report as one JSON object, for scripts."""
        return json.dumps({"schema": 1, "level": self.level} | asdict(self), indent=2)


def collect(model_id: str, home: Path) -> DoctorReport:
    """Look at everything; takes about as long as importing torch, and never raises.

    Args:
        model_id: the embedded model, a hub id or a local folder.
        home: where runs are kept; need not exist yet.
    """
    with ThreadPoolExecutor(max_workers=3) as pool:
        torch_future = pool.submit(gpus.probe_torch)
        hub_future = pool.submit(machine.probe_hub)
        session_future = pool.submit(session.look)
        driver = gpus.probe_driver()
        versions = machine.library_versions()
        torch = torch_future.result()
        hub_error = hub_future.result()
        login = session_future.result()
    versions["torch"] = torch.version or versions["torch"]
    parameters = model.parameter_count(model_id)
    cache = model.model_cache(model_id)
    findings = [
        machine.judge_python(sys.version_info[:2]),
        *machine.judge_libraries(versions, torch),
        *gpus.judge_gpus(driver, torch, os.environ.get("CUDA_VISIBLE_DEVICES")),
        model.judge_memory(model_id, parameters, psutil.virtual_memory().available, torch),
        model.judge_home(home),
        model.judge_disk("disk (runs)", home, model.free_space(home), model.RUN_DISK),
        model.judge_disk(
            "disk (model)", cache, model.free_space(cache), model.model_disk(model_id, parameters)
        ),
        machine.judge_filesystem(home, filesystem.type_of(home)),
        machine.judge_sqlite(sqlite3.sqlite_version_info),
        machine.judge_hub(hub_error, needed=model.needs_hub(model_id)),
        machine.judge_token(machine.token_present()),
        machine.judge_session(session.survival(login)),
        machine.judge_terminal(os.environ, shutil.get_terminal_size((0, 0)), sys.stdout.isatty()),
    ]
    return DoctorReport(
        model=model_id,
        home=str(home),
        versions=versions,
        torch=torch,
        driver=driver,
        findings=findings,
    )


def render(report: DoctorReport) -> str:
    """The report as aligned plain text; every foreign string in it made safe to show."""
    lines = [f"model  {one_line(report.model)}", f"home   {one_line(report.home)}", ""]
    width = max(len(name) for name in report.versions)
    for name, version in report.versions.items():
        lines.append(f"  {name:<{width}}  {one_line(version or 'not installed')}")
    lines.append("")
    width = max((len(finding.name) for finding in report.findings), default=0)
    for finding in report.findings:
        head = f"  {_GLYPHS[finding.level]} {finding.level:<7}  {finding.name:<{width}}  "
        lines.append(head + one_line(finding.message, 400))
        if finding.fix:
            lines.append(" " * len(head) + "fix: " + one_line(finding.fix, 400))
    lines += ["", _summary(report.findings)]
    return "\n".join(lines)


def _summary(findings: Iterable[Finding]) -> str:
    levels = [finding.level for finding in findings]
    counts = [(levels.count(level), level) for level in ("error", "warning")]
    told = [f"{count} {level}{'s' if count > 1 else ''}" for count, level in counts if count]
    return ", ".join(told) if told else "nothing stands in the way of training"

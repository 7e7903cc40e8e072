"""What figures were measured on, in one line."""

import datetime as dt
import os
import platform
from importlib.metadata import version
from pathlib import Path


def machine(*libraries: str, note: str = "") -> str:
    """Cores, processor, Python, the versions of ``libraries``, and the day."""
    model = next(
        (
            line.partition(":")[2].strip()
            for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
            if line.startswith("model name")
        ),
        platform.processor(),
    )
    versions = ", ".join(f"{name} {version(name)}" for name in libraries)
    return (
        f"{len(os.sched_getaffinity(0))} cores of {model}{note}; "
        f"Python {platform.python_version()}, {versions}; {dt.date.today().isoformat()}"
    )

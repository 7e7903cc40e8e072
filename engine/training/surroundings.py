"""What a run is trained by and on: recorded with every checkpoint, compared by whoever resumes.

A run goes on under other versions, on another machine and on prices that were added to since. It
does not take the very steps then that it would have taken, and says so.
"""

import hashlib
import platform
from collections.abc import Mapping
from importlib.metadata import version

import torch

from engine.config import RunConfig
from engine.runs.devices import device_name
from engine.task import Json

_LIBRARIES = ("torch", "transformers", "peft", "numpy")
_SHOWN = 40


def of(config: RunConfig, *, base_model: str, data: str) -> dict[str, Json]:
    """What there is now, by its name for a person.

    Args:
        config: what the run was started with.
        base_model: fingerprint of the base model's files.
        data: fingerprint of the market data.
    """
    return {
        "python": platform.python_version(),
        **{library: version(library) for library in _LIBRARIES},
        "device": device_name(config.model.device),
        "threads": torch.get_num_threads(),
        "base model": _digest(base_model),
        "market data": data,
        "configuration": _digest(config.model_dump_json()),
    }


def differences(before: Mapping[str, Json], now: Mapping[str, Json]) -> list[str]:
    """In words what is not as it was; what either does not know is left out."""
    return [
        f"{name} {str(before[name])[:_SHOWN]} → {str(value)[:_SHOWN]}"
        for name, value in now.items()
        if name in before and before[name] != value
    ]


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:12]

"""The process's own random generators, and what makes a device compute the same twice.

Sampling has a generator of its own. Nothing of ours draws from those that a process has anyway, but
a reward component or a library may: they are seeded at the start and saved with every checkpoint.

In deterministic mode torch uses algorithms alone whose results do not depend on the order in which
threads finish, and raises where it has none.
"""

import os
import random
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from engine.config import RunConfig

_WORKSPACE = "CUBLAS_WORKSPACE_CONFIG"


def prepare(config: RunConfig) -> None:
    """Seed the process's generators and, for a deterministic run, choose algorithms that repeat.

    To be called before anything runs on the device.
    """
    random.seed(config.seed)
    np.random.seed(config.seed)
    torch.manual_seed(config.seed)
    if config.deterministic:
        # Without it cuBLAS may use its streams' workspaces in another order every time.
        os.environ.setdefault(_WORKSPACE, ":4096:8")
        torch.use_deterministic_algorithms(True)


def state(device: torch.device) -> dict[str, Any]:
    """JSON values from which ``restore`` puts every generator of the process back."""
    name, keys, position, has_gauss, cached = np.random.get_state(legacy=True)
    version, words, gauss = random.getstate()
    states = {
        "python": [version, list(words), gauss],
        "numpy": [name, np.asarray(keys).tolist(), position, has_gauss, cached],
        "torch": _hexadecimal(torch.get_rng_state()),
    }
    if device.type == "cuda":
        states["cuda"] = _hexadecimal(torch.cuda.get_rng_state(device))
    return states


def restore(states: Mapping[str, Any], device: torch.device) -> None:
    """Put the generators back as they were when ``state`` gave ``states``."""
    version, words, gauss = states["python"]
    random.setstate((version, tuple(words), gauss))
    name, keys, position, has_gauss, cached = states["numpy"]
    np.random.set_state((name, np.array(keys, np.uint32), position, has_gauss, cached))
    torch.set_rng_state(_tensor(states["torch"]))
    if device.type == "cuda" and "cuda" in states:
        torch.cuda.set_rng_state(_tensor(states["cuda"]), device)


def _hexadecimal(values: Tensor) -> str:
    return bytes(values.tolist()).hex()


def _tensor(text: str) -> Tensor:
    return torch.tensor(list(bytes.fromhex(text)), dtype=torch.uint8)

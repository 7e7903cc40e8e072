"""Everything that decides how a run in training goes on, value by value, whoever saves it or not.

It walks the objects of the trainer rather than the files of a checkpoint, so that a value that is
not saved shows: it differs after a resume.
"""

import hashlib
import random
from collections import deque
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import torch
from pydantic import BaseModel
from torch import Tensor
from torch.amp import GradScaler

from engine.training.training import Training

_LEFT_OUT = {"run", "store", "_store", "tokenizer", "surroundings", "heartbeat"}
"""Of the trainer and its parts: places and tools, and nothing that a step changes."""
_DERIVED = {"_dataset", "_rows", "_order", "_known"}
"""Of a task: made of the configuration and the data alone. The sampler's order follows from the
number of the draw, which follows from the step."""


def everything(training: Training) -> dict[str, str]:
    """Path of every value → the value, or its SHA-256."""
    found = dict(_walk("training", training))
    found["random"] = _hash(repr(random.getstate()).encode())
    found["numpy"] = _hash(repr(np.random.get_state(legacy=True)).encode())
    found["numpy words"] = _hash(np.asarray(np.random.get_state(legacy=True)[1]).tobytes())
    found["torch"] = _hash(torch.get_rng_state().numpy().tobytes())
    return found


def differences(one: Mapping[str, str], other: Mapping[str, str]) -> list[str]:
    """Paths at which they differ."""
    return sorted(path for path in set(one) | set(other) if one.get(path) != other.get(path))


def _walk(path: str, value: Any) -> Iterator[tuple[str, str]]:
    match value:
        case None | bool() | int() | str() | bytes():
            yield path, repr(value)
        case float():
            yield path, value.hex()
        case Tensor():
            content = value.detach().cpu().contiguous().reshape(-1).view(torch.uint8)
            yield path, f"{value.dtype} {tuple(value.shape)} {_hash(content.numpy().tobytes())}"
        case torch.Generator():
            yield path, _hash(value.get_state().numpy().tobytes())
        case torch.nn.Module():
            for name, parameter in value.named_parameters():
                if "lora_" in name:
                    yield from _walk(f"{path}.{name}", parameter.data)
        case torch.optim.Optimizer() | GradScaler():
            yield from _walk(path, value.state_dict())
        case BaseModel():
            yield path, value.model_dump_json()
        case Mapping():
            for key, part in value.items():
                yield from _walk(f"{path}[{key!r}]", part)
        case list() | tuple() | deque():
            yield path, f"{len(value)} of them"
            for number, part in enumerate(value):
                yield from _walk(f"{path}[{number}]", part)
        case set() | frozenset():
            yield path, repr(sorted(value))
        case _ if type(value).__module__.partition(".")[0] in ("engine", "bench", "tests"):
            for name, part in vars(value).items():
                if name not in _LEFT_OUT | _DERIVED and not callable(part):
                    yield from _walk(f"{path}.{name}", part)


def _hash(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()

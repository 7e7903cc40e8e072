"""Let another adapter act for a while, and leave no trace of it.

peft has slots and switches for this, and each of them touches what training stands on: adding a
slot initialises and freezes parameters, switching decides gradients anew. Here nothing of peft's
is touched. For the block every adapted layer computes ``W x + alpha / r * B A x`` from tensors
that belong to nobody, and gets its own forward pass back afterwards. Which of the model's adapters
act or are switched off at the time makes no difference.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from peft import PeftModel
from peft.tuners.lora import LoraLayer
from torch import Tensor, nn

from engine.errors import UserError
from engine.policy.adapters import StoredAdapter
from engine.text import one_line

_DOWN, _UP = ".lora_A.weight", ".lora_B.weight"


@dataclass(frozen=True)
class _Update:
    """What an adapter adds to one layer."""

    down: Tensor
    """(r, in) fp32, as ``up``."""
    up: Tensor
    """(out, r)."""
    scale: float


@contextmanager
def acting_as(model: PeftModel, adapter: StoredAdapter | None) -> Iterator[None]:
    """Inside the block, forward passes are those of the base model with ``adapter`` alone.

    They are in eval mode and without gradient. Afterwards every module has the mode it had, and
    torch's own random state is what it was.

    Args:
        adapter: None for the bare base model.

    Raises:
        UserError: ``adapter`` does not fit the base model; nothing was touched.
    """
    updates = {} if adapter is None else _updates(model, adapter)
    layers = {
        name: module
        for name, module in model.named_modules()
        if isinstance(module, LoraLayer) or name in updates
    }
    own = {name: vars(module).get("forward") for name, module in layers.items()}
    modes = [(module, module.training) for module in model.modules()]
    device = next(model.parameters()).device
    try:
        for name, module in layers.items():
            # Set beside the parameters, not among them: an attribute of the instance.
            vars(module)["forward"] = partial(_forward, _base_forward(module), updates.get(name))
        model.eval()
        devices = [device] if device.type == "cuda" else []
        with torch.random.fork_rng(devices=devices), torch.no_grad():
            yield
    finally:
        for name, module in layers.items():
            vars(module).pop("forward", None)
            if own[name] is not None:
                vars(module)["forward"] = own[name]
        for module, mode in modes:
            module.training = mode


def _base_forward(module: nn.Module) -> Callable[[Tensor], Tensor]:
    base: Callable[[Tensor], Tensor] = (
        module.base_layer if isinstance(module, LoraLayer) else module.forward
    )
    return base


def _forward(
    base: Callable[[Tensor], Tensor], update: _Update | None, x: Tensor, *_: Any
) -> Tensor:
    """As ``lean_lora`` computes it: the fp32 weights rounded to the format of ``x``."""
    result = base(x)
    if update is None:
        return result
    inner = nn.functional.linear(x, update.down.to(x.dtype)).flatten(0, -2)
    flat = result.flatten(0, -2)
    return torch.addmm(flat, inner, update.up.to(x.dtype).t(), alpha=update.scale).view(
        result.shape
    )


def _updates(model: PeftModel, adapter: StoredAdapter) -> dict[str, _Update]:
    """By name of the layer, on the model's device."""
    modules = dict(model.named_modules())
    updates = {}
    scale = adapter.facts.alpha / adapter.facts.rank
    names = {name.removesuffix(_DOWN).removesuffix(_UP) for name in adapter.weights}
    for name in sorted(names):
        down, up = _halves(adapter.weights, name)
        layer: Any = modules.get(name)
        base = layer.base_layer if isinstance(layer, LoraLayer) else layer
        if (
            down is None
            or up is None
            or not isinstance(base, nn.Linear)
            or (down.shape[1], up.shape[0]) != (base.in_features, base.out_features)
        ):
            raise UserError(
                f"the adapter does not fit this base model at {one_line(name, 80)}",
                fix="ask a checkpoint that was trained on the same model",
            )
        device = base.weight.device
        updates[name] = _Update(down.to(device), up.to(device), scale)
    return updates


def _halves(weights: Mapping[str, Tensor], name: str) -> tuple[Tensor | None, Tensor | None]:
    return weights.get(name + _DOWN), weights.get(name + _UP)

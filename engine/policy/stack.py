"""The whole policy as one ordinary adapter, whatever it is made of.

Two LoRA adapters that act together are one of their summed rank: with ``A = [A1; A2]`` and
``B = [s1 B1, s2 B2]``, where ``s`` is each one's alpha / r, ``B A = s1 B1 A1 + s2 B2 A2``. The
new one has alpha = r, so its own scale is 1.
"""

import json
from collections.abc import Mapping
from typing import Any

import torch
from peft import LoraConfig, PeftModel
from safetensors.torch import save
from torch import Tensor

from engine.policy.adapters import POLICY, STAGE1, adapter_weights, is_stack
from engine.runs.checkpoint_names import ADAPTER, ADAPTER_CONFIG

Scaled = tuple[float, Mapping[str, Tensor]]
"""alpha / r of an adapter, and its tensors."""

_DOWN, _UP = ".lora_A.weight", ".lora_B.weight"


def whole_policy(model: PeftModel) -> dict[str, bytes]:
    """The files of the policy as one adapter in PEFT's own format; any tool can load it."""
    if not is_stack(model):
        own = model.peft_config[POLICY]
        assert isinstance(own, LoraConfig)
        return _files(model, own, adapter_weights(model, POLICY))
    adapters: list[Scaled] = []
    rank = 0
    for name in (STAGE1, POLICY):
        config = model.peft_config[name]
        assert isinstance(config, LoraConfig)
        adapters.append((config.lora_alpha / config.r, adapter_weights(model, name)))
        rank += config.r
    weights = concatenated(adapters)
    layers = sorted({name.split(".")[-3] for name in weights})
    whole = LoraConfig(r=rank, lora_alpha=rank, target_modules=layers, task_type="CAUSAL_LM")
    return _files(model, whole, weights)


def _files(model: PeftModel, config: LoraConfig, weights: Mapping[str, Tensor]) -> dict[str, bytes]:
    base: Any = model.get_base_model()
    values = config.to_dict() | {
        "inference_mode": True,
        "base_model_name_or_path": base.config.name_or_path,
        "target_modules": sorted(config.target_modules or ()),
    }
    # PEFT has sets in some places, which JSON has not.
    text = json.dumps(values, indent=2, sort_keys=True, default=sorted)
    return {
        ADAPTER: save(dict(weights), metadata={"format": "pt"}),
        ADAPTER_CONFIG: text.encode("utf-8"),
    }


def concatenated(adapters: list[Scaled]) -> dict[str, Tensor]:
    """The tensors of one adapter with scale 1 that does what ``adapters`` do together.

    A layer that one of them leaves alone gets zeros for it.

    Args:
        adapters: tensors by PEFT's file names; ``lora_A`` (r, in) and ``lora_B`` (out, r).

    Returns:
        The same names; ``lora_A`` (sum of r, in) and ``lora_B`` (out, sum of r).
    """
    modules = dict.fromkeys(
        name.removesuffix(_DOWN)
        for _, weights in adapters
        for name in weights
        if name.endswith(_DOWN)
    )
    whole = {}
    for module in modules:
        downs, ups = [], []
        own = next(weights for _, weights in adapters if module + _DOWN in weights)
        width, height = own[module + _DOWN].shape[1], own[module + _UP].shape[0]
        for scale, weights in adapters:
            rank = next(t.shape[0] for name, t in weights.items() if name.endswith(_DOWN))
            down, up = weights.get(module + _DOWN), weights.get(module + _UP)
            downs.append(torch.zeros(rank, width) if down is None else down)
            ups.append(torch.zeros(height, rank) if up is None else scale * up)
        whole[module + _DOWN] = torch.cat(downs)
        whole[module + _UP] = torch.cat(ups, dim=1).contiguous()
    return whole

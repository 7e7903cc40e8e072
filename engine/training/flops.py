"""How much of what the device could compute a step really used.

Model FLOPs utilisation (MFU), Chowdhery et al. 2022, "PaLM", arXiv:2204.02311, appendix B:
arithmetic that the step needs by its definition, over the step's time, over the device's peak.
What is computed again (logits, checkpointed layers) counts once, and padding not at all. Unlike
the driver's utilisation it is not 100 % merely because some kernel was always running.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from engine.policy.packing import TokenGroup

_PEAKS: tuple[tuple[str, dict[torch.dtype, float]], ...] = (
    ("H100 PCIe", {torch.bfloat16: 756e12, torch.float16: 756e12, torch.float32: 51e12}),
    ("H100", {torch.bfloat16: 989e12, torch.float16: 989e12, torch.float32: 67e12}),
    ("H200", {torch.bfloat16: 989e12, torch.float16: 989e12, torch.float32: 67e12}),
    ("A100", {torch.bfloat16: 312e12, torch.float16: 312e12, torch.float32: 19.5e12}),
    ("L40S", {torch.bfloat16: 362e12, torch.float16: 362e12, torch.float32: 91.6e12}),
    ("RTX 4090", {torch.bfloat16: 165.2e12, torch.float16: 165.2e12, torch.float32: 82.6e12}),
    ("RTX 3090", {torch.bfloat16: 71e12, torch.float16: 71e12, torch.float32: 35.6e12}),
    ("Tesla T4", {torch.float16: 65e12, torch.float32: 8.1e12}),
    ("GTX 1080 Ti", {torch.float32: 11.3e12}),
)
"""FLOP/s by part of the device's name, from its vendor's data sheets: dense, products added up in
fp32, fp32 without TF32. A longer name stands before the one that it contains."""


def peak_flops(device_name: str, dtype: torch.dtype) -> float | None:
    """The most FLOP/s of a device in products of ``dtype``; None where it is not known."""
    for name, peaks in _PEAKS:
        if name in device_name:
            return peaks.get(dtype)
    return None


@dataclass(frozen=True)
class ModelShape:
    """What the arithmetic of a Llama-like decoder depends on."""

    hidden: int
    intermediate: int
    layers: int
    heads: int
    key_value_heads: int
    head_dim: int
    vocabulary: int

    @classmethod
    def of(cls, config: Any) -> "ModelShape":
        """From a transformers configuration."""
        heads = config.num_attention_heads
        return cls(
            hidden=config.hidden_size,
            intermediate=config.intermediate_size,
            layers=config.num_hidden_layers,
            heads=heads,
            key_value_heads=config.num_key_value_heads,
            head_dim=getattr(config, "head_dim", None) or config.hidden_size // heads,
            vocabulary=config.vocab_size,
        )

    @property
    def weights(self) -> int:
        """Weights that every token meets: attention and MLP, no embeddings, no vocabulary."""
        attention = 2 * self.hidden * self.head_dim * (self.heads + self.key_value_heads)
        return self.layers * (attention + 3 * self.hidden * self.intermediate)


def step_flops(
    shape: ModelShape,
    sampled: Sequence[TokenGroup],
    trained: Sequence[TokenGroup],
    *,
    has_reference: bool,
    iterations: int,
) -> float:
    """Arithmetic of a step, in FLOPs; the adapter's own is left out, being small.

    A weight and a token make 2 FLOPs in a forward pass. The base is frozen, so a backward pass
    makes 2 more and not 4; attention has no weights, and its backward pass is twice the forward.

    Args:
        sampled: all groups: decoded once, and passed to the reference where there is one.
        trained: those with a term in the loss.
    """
    forward = sum(sum(_forward(shape, group)) for group in sampled)
    train = 0.0
    for group in trained:
        products, attention = _forward(shape, group)
        train += 2 * products + 3 * attention
    return (1 + has_reference) * forward + iterations * train


def _forward(shape: ModelShape, group: TokenGroup) -> tuple[float, float]:
    """FLOPs of products with weights and of attention, in a pass over a packed group."""
    prompt, lengths = len(group.prompt), [len(completion) for completion in group.completions]
    pairs = prompt * (prompt + 1) / 2 + sum(n * prompt + n * (n + 1) / 2 for n in lengths)
    products = 2 * shape.weights * (prompt + sum(lengths))
    logits = 2 * shape.hidden * shape.vocabulary * sum(lengths)
    return products + logits, 4 * shape.layers * shape.heads * shape.head_dim * pairs

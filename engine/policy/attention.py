"""Attention for decoding on a CPU: one query a row, as plain matrix products.

torch's fused CPU kernel is made for long queries and slow with one query a row and a 16-bit
cache. Everything but a single query on a CPU goes to transformers'
own fused path.
"""

from typing import Any

import torch
from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

NAME = "sdpa_cpu_decode"
"""The ``attn_implementation`` under which transformers finds it."""


def attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """Scaled dot-product attention with grouped queries.

    Args:
        query: (B, heads, Q, D).
        key, value: (B, key heads, L, D); each serves ``heads / key heads`` adjacent heads.
        attention_mask: (B, 1, Q, L) bool, True where a key may be seen, or None for all.

    Returns:
        (B, Q, heads, D) and no weights.
    """
    if query.device.type != "cpu" or query.shape[2] != 1:
        output, _ = sdpa_attention_forward(module, query, key, value, attention_mask, **kwargs)
        return output, None
    batch, heads, _, size = query.shape
    grouped = query.view(batch, key.shape[1], -1, size)
    scores = (grouped @ key.transpose(-1, -2)).float() * kwargs["scaling"]
    if attention_mask is not None:
        scores = scores.masked_fill(~attention_mask, -torch.inf)
    weights = torch.softmax(scores, dim=-1).to(value.dtype)
    return (weights @ value).view(batch, 1, heads, size), None


AttentionInterface.register(NAME, attention)
AttentionMaskInterface.register(NAME, sdpa_mask)

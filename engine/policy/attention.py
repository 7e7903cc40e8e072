"""How the engine's models attend: decoding with a prompt that a group shares goes its own way.

Everything else goes to transformers' own fused path.
"""

from typing import Any

from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from engine.policy.group_cache import GroupCache
from engine.policy.packed_attention import Pieces, packed_attention

NAME = "sdpa_grouped"
"""The ``attn_implementation`` under which transformers finds it."""


def attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    group_cache: GroupCache | None = None,
    pieces: Pieces | None = None,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """Scaled dot-product attention with grouped queries.

    Args:
        query: (B, heads, Q, D).
        key, value: (B, key heads, L, D); each serves ``heads / key heads`` adjacent heads.
        attention_mask: (B, 1, Q, L) bool, True where a key may be seen, or None.
        group_cache: where the prompts are, in a pass of one token a row of a rollout; ``key``
            and ``value`` are then the rows' own.
        pieces: what ``attention_mask`` says, in a pass over packed rows.

    Returns:
        (B, Q, heads, D) and no weights.
    """
    if group_cache is not None:
        index: int = module.layer_idx  # type: ignore[assignment]
        return group_cache.attend(index, query, key, value, kwargs["scaling"]), None
    if pieces is not None and query.device.type == "cpu":
        return packed_attention(query, key, value, pieces, kwargs["scaling"]), None
    output, _ = sdpa_attention_forward(module, query, key, value, attention_mask, **kwargs)
    return output, None


AttentionInterface.register(NAME, attention)
AttentionMaskInterface.register(NAME, sdpa_mask)

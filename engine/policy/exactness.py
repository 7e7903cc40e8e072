"""Which models can be sampled and trained exactly, by their configuration."""

from typing import Any

from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer

from engine.errors import UserError

_FIX = "use a Llama, Qwen2 or Qwen3 model, or lower rollout.context"


def refuse_inexact(config: Any, reach: int) -> None:
    """Refuse a model that a packed pass or the group's cache would not compute exactly.

    Both let a token attend to all tokens before it, and restart positions inside a row.

    Args:
        config: of a transformers model.
        reach: most tokens that a prompt and its completion take together.

    Raises:
        UserError: layers that see fewer tokens than that, or do not attend at all, or rotary
            frequencies that change with the longest row of a batch.
    """
    for layer in DynamicCache(config=config).layers:
        if type(layer) is not DynamicLayer and getattr(layer, "sliding_window", 0) < reach:
            raise UserError(
                f"a {config.model_type} model that does not see all {reach} tokens before a token "
                "in every layer cannot be sampled and trained exactly",
                where="model.id",
                fix=_FIX,
            )
    rope = config.rope_parameters or {}
    if rope.get("rope_type") in ("dynamic", "longrope"):
        unscaled = rope.get("original_max_position_embeddings", config.max_position_embeddings)
        if reach > unscaled:
            raise UserError(
                f"this model tells positions in another way beyond {unscaled} tokens (rope_type "
                f"{rope['rope_type']}), so that {reach} cannot be sampled and trained exactly",
                where="model.id",
                fix=_FIX,
            )

"""A KV cache for groups: a prompt's keys and values stand once, each completion's own beside.

All completions of a prompt attend to the same keys there, so their queries meet them in one
matrix product a key head, as in Hydragen (Juravsky et al. 2024, arXiv:2402.05099). Buffers for the
tokens to come are allocated before the first, so nothing is copied for a new token.

Shapes: B prompts, P tokens of the longest, R rows (completions still going), T tokens decoded so
far, K key heads, H query heads, D size of a head.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from transformers import Cache
from transformers.cache_utils import CacheLayerMixin

from engine.errors import UserError
from engine.policy.exactness import refuse_inexact


class GroupCache(Cache):
    """Filled by one forward pass over right-padded prompts, then by passes of one token a row.

    A forward pass of one token a row must be told of it (``group_cache=``), for
    ``attention.attention`` to let it attend.
    """

    def __init__(self, config: Any, lengths: Sequence[int], max_new_tokens: int) -> None:
        """Refuse models whose layers attend in any other way than to everything before.

        Args:
            config: of the model.
            lengths: tokens of each of the B prompts.
            max_new_tokens: of a completion, the last of which is never fed.

        Raises:
            UserError: see ``refuse_inexact``.
        """
        refuse_inexact(config, max(lengths) + max_new_tokens)
        num_layers = config.get_text_config(decoder=True).num_hidden_layers
        self.own: list[_Layer] = [_Layer(max_new_tokens) for _ in range(num_layers)]
        super().__init__(layers=list(self.own))
        self._lengths = torch.tensor(lengths)
        self._attended = 0

    def begin_decoding(self, group_size: int) -> None:
        """Turn from prompts to completions: R = B * ``group_size`` rows, groups adjacent."""
        device = self.own[0].prompt_keys.device
        owners = torch.arange(len(self._lengths)).repeat_interleave(group_size)
        for layer in self.own:
            layer.begin_decoding(len(owners))
        self._place(owners, device)

    def keep(self, rows: Sequence[int]) -> None:
        """Let all other rows leave; prompts without a row leave with them."""
        device = self._slots.device
        kept = torch.tensor(rows)
        prompts, owners = self._owners[kept].unique(return_inverse=True)
        prompts_left = len(prompts) < len(self._lengths)
        for layer in self.own:
            layer.keep_rows(kept.to(device))
            if prompts_left:
                layer.keep_prompts(prompts.to(device))
        self._lengths = self._lengths[prompts]
        self._place(owners, device)

    def attend(
        self, layer_index: int, query: Tensor, keys: Tensor, values: Tensor, scaling: float
    ) -> Tensor:
        """Softmax attention of one query a row to its prompt and its own tokens.

        Args:
            query: (R, H, 1, D).
            keys, values: (R, K, T, D), the rows' own, as the layer's update returned them.
            scaling: of the products of query and key.

        Returns:
            (R, 1, H, D).
        """
        layer = self.own[layer_index]
        if query.dtype == torch.float16:
            # Products beyond 65504 would be infinite before they are scaled.
            query, scaling = query * scaling, 1.0
        num_rows, num_heads, _, size = query.shape
        num_key_heads, length = layer.prompt_keys.shape[1:3]
        # Heads that share a key head stand beside each other: they are its queries.
        grouped = query.view(num_rows, num_key_heads, -1, size)  # (R, K, H / K, D)
        at_prompt = self._to_slots(grouped) @ layer.prompt_keys.transpose(-1, -2) + self._padding
        # On a CPU the product with strided keys takes several times as long as their copy.
        at_own = grouped @ keys.contiguous().transpose(-1, -2)
        scores = torch.cat([self._to_rows(at_prompt, num_heads), at_own], dim=-1)
        weights = torch.softmax(scores.float() * scaling, dim=-1).to(values.dtype)
        from_prompt = self._to_slots(weights[..., :length]) @ layer.prompt_values
        output = torch.baddbmm(
            self._to_rows(from_prompt, num_heads).flatten(0, 1),
            weights[..., length:].flatten(0, 1),
            values.flatten(0, 1),
        )
        self._attended += 1
        return output.view(num_rows, 1, num_heads, size)

    def check_attended(self) -> None:
        """After the first pass of one token a row.

        Raises:
            UserError: the model's layers did not attend through ``attend``.
        """
        if self._attended % len(self.own) or not self._attended:
            raise UserError(
                "the model does not hand its attention over, so that it cannot be sampled here",
                where="model.id",
                fix="use a Llama, Qwen2 or Qwen3 model",
            )

    def _place(self, owners: Tensor, device: torch.device) -> None:
        """Give every row a slot: as many for each prompt as the one with the most rows needs."""
        counts = owners.bincount(minlength=len(self._lengths))
        first = counts.cumsum(0) - counts
        self._owners = owners
        self._width = int(counts.max())
        rank = torch.arange(len(owners)) - first[owners]
        self._slots = (owners * self._width + rank).to(device)  # (R,)
        # With a row in every slot they are the same, for rows of one prompt stay adjacent.
        self._full = len(owners) == len(counts) * self._width
        padding = torch.zeros(self.own[0].prompt_keys.shape[0], self.own[0].prompt_keys.shape[2])
        padding[torch.arange(padding.shape[1]) >= self._lengths[:, None]] = -torch.inf
        self._padding = padding[:, None, None].to(self.own[0].prompt_keys)  # (B, 1, 1, P)

    def _to_slots(self, rows: Tensor) -> Tensor:
        """(R, K, Q, N) by row to (B, K, width * Q, N) by prompt; a slot without a row is 0."""
        if not self._full:
            slots = rows.new_zeros(len(self._lengths) * self._width, *rows.shape[1:])
            rows = slots.index_copy_(0, self._slots, rows)
        by_prompt = rows.view(len(self._lengths), self._width, *rows.shape[1:]).transpose(1, 2)
        return by_prompt.flatten(2, 3)

    def _to_rows(self, by_prompt: Tensor, num_heads: int) -> Tensor:
        """The way back: (B, K, width * Q, N) to (R, K, Q, N)."""
        num_prompts, num_key_heads, _, size = by_prompt.shape
        heads = num_heads // num_key_heads
        split = by_prompt.view(num_prompts, num_key_heads, self._width, heads, size)
        slots = split.transpose(1, 2).flatten(0, 1)
        return slots if self._full else slots[self._slots]


class _Layer(CacheLayerMixin):
    """Keys and values of one layer."""

    is_sliding = False
    prompt_keys: Tensor
    """(B, K, P, D), as ``prompt_values``."""
    prompt_values: Tensor
    own_keys: Tensor
    """(R, K, most tokens, D), as ``own_values``."""
    own_values: Tensor

    def __init__(self, max_new_tokens: int) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._capacity = max_new_tokens
        self._length = 0

    def lazy_initialization(self, key_states: Tensor, value_states: Tensor) -> None:
        self.is_initialized = True

    def update(
        self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any
    ) -> tuple[Tensor, Tensor]:
        """Take in the prompts, and later one token a row; returns the prompts' or the rows' own."""
        if not self.is_initialized:
            self.is_initialized = True
            self.prompt_keys = key_states.contiguous()
            self.prompt_values = value_states.contiguous()
            return self.prompt_keys, self.prompt_values
        here = slice(self._length, self._length + 1)
        self.own_keys[:, :, here] = key_states
        self.own_values[:, :, here] = value_states
        self._length += 1
        return self.own_keys[:, :, : self._length], self.own_values[:, :, : self._length]

    def begin_decoding(self, num_rows: int) -> None:
        _, heads, _, size = self.prompt_keys.shape
        self.own_keys = self.prompt_keys.new_empty(num_rows, heads, self._capacity, size)
        self.own_values = torch.empty_like(self.own_keys)

    def keep_rows(self, rows: Tensor) -> None:
        # Into the same buffers: only what is in use is copied.
        for buffer in (self.own_keys, self.own_values):
            buffer[: len(rows), :, : self._length] = buffer[rows, :, : self._length]
        self.own_keys, self.own_values = self.own_keys[: len(rows)], self.own_values[: len(rows)]

    def keep_prompts(self, prompts: Tensor) -> None:
        self.prompt_keys = self.prompt_keys[prompts]
        self.prompt_values = self.prompt_values[prompts]

    def get_seq_length(self) -> int:
        return (self.prompt_keys.shape[2] if self.is_initialized else 0) + self._length

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        return self.get_seq_length() + query_length, 0

    def get_max_length(self) -> int:
        return -1

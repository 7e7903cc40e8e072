"""Sample groups of completions from the current policy.

The prompts are prefilled once, their KV cache is repeated for the group, and
finished rows leave the batch, so decoding narrows as completions end. Tokens are
drawn from the model's own tempered distribution: no top-k, top-p or repetition
penalty, whatever the checkpoint's generation config says. Log-probabilities are kept
while sampling: their distance from a fresh forward pass is the mismatch KL we report.

Left out on purpose: beam search, tool calls, multi-turn prompts.

Shapes: B prompts, G completions of each, V vocabulary.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers import DynamicCache


@dataclass(frozen=True)
class Completion:
    """One sampled completion."""

    tokens: list[int]
    """Token ids as sampled, the end token included where there is one."""
    logprobs: list[float]
    """Log-probability of each token at the moment it was drawn."""
    finished: bool
    """False when it was cut at the length limit."""


@torch.no_grad()
def sample_groups(
    causal_model: Any,
    prompts: Sequence[Sequence[int]],
    *,
    group_size: int,
    max_new_tokens: int,
    temperature: float,
    end_tokens: Collection[int],
    pad_id: int,
    generator: torch.Generator,
) -> list[list[Completion]]:
    """Sample ``group_size`` completions of each prompt.

    Deterministic for a given state of ``generator``, which lives on the model's device.

    Args:
        causal_model: a transformers causal model in eval mode.
        prompts: B lists of token ids.

    Returns:
        B lists of G completions.
    """
    device = causal_model.device
    input_ids, attention_mask = _left_pad(prompts, pad_id, device)
    cache = DynamicCache(config=causal_model.config)
    output = causal_model(
        input_ids=input_ids,
        attention_mask=attention_mask,
        position_ids=_positions(attention_mask),
        past_key_values=cache,
        use_cache=True,
        logits_to_keep=1,
    )
    cache.batch_repeat_interleave(group_size)
    attention_mask = attention_mask.repeat_interleave(group_size, dim=0)
    logits = output.logits[:, -1].repeat_interleave(group_size, dim=0)  # (B * G, V)

    num_rows = len(prompts) * group_size
    tokens: list[list[int]] = [[] for _ in range(num_rows)]
    logprobs: list[list[float]] = [[] for _ in range(num_rows)]
    finished = [False] * num_rows
    rows = list(range(num_rows))  # which completion each row of the batch belongs to

    for position in range(max_new_tokens):
        log_distribution = torch.log_softmax(logits.float() / temperature, dim=-1)
        drawn = torch.multinomial(log_distribution.exp(), 1, generator=generator)
        drawn_logprobs = log_distribution.gather(-1, drawn).squeeze(-1).tolist()
        for row, token, logprob in zip(
            rows, drawn.squeeze(-1).tolist(), drawn_logprobs, strict=True
        ):
            tokens[row].append(token)
            logprobs[row].append(logprob)
            finished[row] = token in end_tokens
        if position == max_new_tokens - 1:
            break
        going = [index for index, row in enumerate(rows) if not finished[row]]
        if not going:
            break
        if len(going) < len(rows):
            kept = torch.tensor(going, device=device)
            cache.batch_select_indices(kept)
            attention_mask, drawn = attention_mask[kept], drawn[kept]
            rows = [rows[index] for index in going]
        attention_mask = torch.cat([attention_mask, attention_mask.new_ones(len(rows), 1)], dim=1)
        logits = causal_model(
            input_ids=drawn,
            attention_mask=attention_mask,
            position_ids=attention_mask.sum(1, keepdim=True) - 1,
            past_key_values=cache,
            use_cache=True,
        ).logits[:, -1]

    completions = [Completion(*parts) for parts in zip(tokens, logprobs, finished, strict=True)]
    return [completions[start : start + group_size] for start in range(0, num_rows, group_size)]


def _left_pad(
    prompts: Sequence[Sequence[int]], pad_id: int, device: torch.device
) -> tuple[Tensor, Tensor]:
    """(B, longest) token ids and their attention mask, real tokens at the right edge."""
    longest = max(map(len, prompts))
    input_ids = torch.full((len(prompts), longest), pad_id, dtype=torch.long)
    attention_mask = torch.zeros((len(prompts), longest), dtype=torch.long)
    for row, prompt in enumerate(prompts):
        input_ids[row, longest - len(prompt) :] = torch.tensor(prompt)
        attention_mask[row, longest - len(prompt) :] = 1
    return input_ids.to(device), attention_mask.to(device)


def _positions(attention_mask: Tensor) -> Tensor:
    """Positions counted from the first real token of each row; padding stands at 0."""
    return (attention_mask.cumsum(1) - 1).clamp(min=0)

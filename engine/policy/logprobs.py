"""Log-probabilities and entropies of completion tokens under a causal model."""

from typing import Any

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from engine.policy.packing import PackedBatch

_CHUNK_TOKENS = 512
"""Positions projected on the vocabulary at a time: at 150,000 tokens, 300 MB of fp32 logits."""


def completion_logprobs(
    causal_model: Any, batch: PackedBatch, temperature: float
) -> tuple[Tensor, Tensor]:
    """Score the completion tokens of packed rows.

    Logits exist for completion positions only and for one chunk at a time; the
    backward pass computes them again.

    Args:
        causal_model: a transformers causal model with its adapters in place.
        batch: R completions of at most T tokens.
        temperature: the one they were sampled at; the policy is the tempered distribution.

    Returns:
        (R, T) float32 log-probabilities with gradient and (R, T) float32 entropies in nats
        without; both 0 at padding.
    """
    hidden = causal_model.model(
        input_ids=batch.input_ids,
        position_ids=batch.position_ids,
        attention_mask=batch.mask,
        use_cache=False,
    ).last_hidden_state
    keep = batch.target_mask
    selected = hidden.flatten(0, 1)[batch.predictors[keep]]  # (tokens, H)
    targets = batch.targets[keep]
    head = causal_model.get_output_embeddings()

    def score(chunk: Tensor, wanted: Tensor) -> tuple[Tensor, Tensor]:
        return token_logprobs(head(chunk), wanted, temperature)

    pieces = [
        checkpoint(score, chunk, wanted, use_reentrant=False)
        for chunk, wanted in zip(
            selected.split(_CHUNK_TOKENS), targets.split(_CHUNK_TOKENS), strict=True
        )
    ]
    logprobs = torch.zeros(keep.shape, dtype=torch.float32, device=hidden.device)
    entropies = torch.zeros_like(logprobs)
    logprobs = logprobs.masked_scatter(keep, torch.cat([piece[0] for piece in pieces]))
    entropies = entropies.masked_scatter(keep, torch.cat([piece[1] for piece in pieces]).detach())
    return logprobs, entropies


def token_logprobs(logits: Tensor, targets: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
    """Log-probability of each target and entropy of its distribution, in fp32.

    Args:
        logits: (tokens, V) in any float format.
        targets: (tokens,) int64.

    Returns:
        (tokens,) and (tokens,) float32; the entropy carries no gradient.
    """
    log_distribution = torch.log_softmax(logits.float() / temperature, dim=-1)
    chosen = log_distribution.gather(-1, targets[:, None]).squeeze(-1)
    with torch.no_grad():
        entropy = -(log_distribution.exp() * log_distribution).sum(-1)
    return chosen, entropy

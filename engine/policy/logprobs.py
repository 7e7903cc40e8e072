"""Log-probabilities and entropies of completion tokens under a causal model."""

from typing import Any

import torch
from torch import Tensor

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
        pieces=batch.pieces,
    ).last_hidden_state
    keep = batch.target_mask
    selected = hidden.flatten(0, 1)[batch.predictors[keep]]  # (tokens, H)
    targets = batch.targets[keep]
    head = causal_model.get_output_embeddings()

    score: Any = _TokenLogprobs.apply
    scored: list[tuple[Tensor, Tensor]] = [
        score(chunk, head, wanted, temperature)
        for chunk, wanted in zip(
            selected.split(_CHUNK_TOKENS), targets.split(_CHUNK_TOKENS), strict=True
        )
    ]
    logprobs = torch.zeros(keep.shape, dtype=torch.float32, device=hidden.device)
    entropies = torch.zeros_like(logprobs)
    logprobs = logprobs.masked_scatter(keep, torch.cat([part[0] for part in scored]))
    entropies = entropies.masked_scatter(keep, torch.cat([part[1] for part in scored]))
    return logprobs, entropies


class _TokenLogprobs(torch.autograd.Function):
    """Log-probabilities of tokens from the outputs that predict them, through a frozen head.

    Only the normalisers are kept: the gradient of a log-probability is one-hot minus softmax.
    """

    @staticmethod
    def forward(
        ctx: Any, hidden: Tensor, head: Any, targets: Tensor, temperature: float
    ) -> tuple[Tensor, Tensor]:
        """(tokens, H) and (tokens,) to log-probability and entropy, (tokens,) float32 each."""
        logits = _tempered(head(hidden), temperature)
        chosen = logits.gather(-1, targets[:, None])
        highest = logits.amax(-1, keepdim=True)
        logits -= highest
        mass = logits.exp()
        total = mass.sum(-1, keepdim=True)
        entropy = total.log() - mass.mul_(logits).sum(-1, keepdim=True) / total
        normaliser = highest + total.log()
        ctx.save_for_backward(hidden, targets, normaliser)
        ctx.head, ctx.temperature = head, temperature
        entropy = entropy.squeeze(-1)
        ctx.mark_non_differentiable(entropy)
        return (chosen - normaliser).squeeze(-1), entropy

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        hidden, targets, normaliser = ctx.saved_tensors
        weight = gradients[0][:, None] / ctx.temperature
        logits = _tempered(ctx.head(hidden), ctx.temperature)
        to_logits = logits.sub_(normaliser).exp_().mul_(-weight)
        to_logits.scatter_add_(-1, targets[:, None], weight)
        return to_logits.to(hidden.dtype) @ ctx.head.weight, None, None, None


def _tempered(logits: Tensor, temperature: float) -> Tensor:
    """In fp32; logits that are fp32 already are changed in place."""
    logits = logits.float()
    return logits if temperature == 1 else logits.div_(temperature)

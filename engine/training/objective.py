"""Advantages and the GRPO loss: pure functions of tensors.

Shapes: R completions in all, G in a group, T tokens of the longest completion.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

_MAX_LOG_RATIO = 20.0
"""Keeps exp() finite: ratios of 5e8 have been seen where it was not clamped."""


def group_advantages(rewards: Tensor, group_size: int) -> Tensor:
    """Centre each reward on the mean of its own group.

    Dr. GRPO (Liu et al. 2025, arXiv:2503.20783). GRPO as first published (Shao et al.
    2024, arXiv:2402.03300) also divides by the group's standard deviation, which gives
    nearly unanimous groups extra weight and spoils the properness of the confidence score.

    Args:
        rewards: (R,), the rollouts of one group adjacent.

    Returns:
        (R,) float32. A group of equal rewards gets exact zeros.

    Raises:
        RuntimeError: the number of rewards is not a multiple of ``group_size``.
    """
    grouped = rewards.float().view(-1, group_size)
    centred = grouped - grouped.mean(dim=1, keepdim=True)
    # Eight rewards of 0.1 leave 7e-9 behind, which would count as signal, so compare the
    # rewards themselves.
    return centred.masked_fill(degenerate_groups(rewards, group_size)[:, None], 0.0).flatten()


def degenerate_groups(rewards: Tensor, group_size: int) -> Tensor:
    """(R / G,) bool: True where all rewards of a group are equal, so that it teaches nothing."""
    grouped = rewards.float().view(-1, group_size)
    return grouped.amax(dim=1) == grouped.amin(dim=1)


def k3_divergence(logprobs: Tensor, reference: Tensor) -> Tensor:
    """Per-token estimate of KL(policy || reference) from tokens that the policy sampled.

    ``exp(d) - d - 1`` with ``d = reference - policy``: never negative, unbiased, low in
    variance (Schulman 2020, "Approximating KL divergence").

    Args:
        logprobs, reference: (R, T) of the sampled tokens.

    Returns:
        (R, T) in nats, gradient through ``logprobs``.
    """
    difference = (reference - logprobs).clamp(-_MAX_LOG_RATIO, _MAX_LOG_RATIO)
    return difference.exp() - difference - 1


@dataclass(frozen=True)
class Loss:
    """The loss of a micro-batch and what is worth showing of it."""

    value: Tensor
    """Scalar with gradient."""
    kl_sum: Tensor
    """Scalar: k3 divergence summed over tokens."""
    clipped: Tensor
    """Scalar: tokens whose ratio was clipped."""


def grpo_loss(
    logprobs: Tensor,
    old_logprobs: Tensor,
    reference: Tensor | None,
    advantages: Tensor,
    mask: Tensor,
    *,
    clip: float,
    kl_coefficient: float,
    normaliser: float,
) -> Loss:
    """The clipped surrogate with a k3 penalty, summed over tokens and divided by a constant.

    The constant (completions of the whole step × longest allowed completion) is Dr. GRPO's
    (arXiv:2503.20783): dividing by each completion's own length would favour long wrong
    answers. Micro-batches of one step add up to the step's loss exactly.

    Args:
        logprobs: (R, T) under the policy, with gradient.
        old_logprobs: (R, T) under the policy when it sampled.
        reference: (R, T) under the reference policy; None where the coefficient is 0.
        advantages: (R,).
        mask: (R, T) bool, True for completion tokens.
        normaliser: the constant, over all micro-batches of the step.
    """
    log_ratio = (logprobs - old_logprobs).clamp(-_MAX_LOG_RATIO, _MAX_LOG_RATIO)
    ratio = log_ratio.exp()
    bounded = ratio.clamp(1 - clip, 1 + clip)
    weight = advantages[:, None]
    per_token = -torch.minimum(ratio * weight, bounded * weight)
    kl_sum = logprobs.new_zeros(())
    if reference is not None:
        kl = k3_divergence(logprobs, reference)
        per_token = per_token + kl_coefficient * kl
        kl_sum = (kl.detach() * mask).sum()
    with torch.no_grad():
        out_low = (ratio < 1 - clip) & (weight < 0)
        out_high = (ratio > 1 + clip) & (weight > 0)
        clipped = ((out_low | out_high) & mask).sum()
    return Loss((per_token * mask).sum() / normaliser, kl_sum, clipped)

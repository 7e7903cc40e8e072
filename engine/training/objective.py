"""Advantages and the GRPO loss: pure functions of tensors.

The parts that ``engine.config.ObjectiveConfig`` chooses between are functions of their own;
``grpo_loss`` puts them together. ``docs/objective.md`` has the formulas side by side.

Shapes: N groups, G completions in a group, R completions in all, T tokens of the longest
completion.
"""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from engine.config import ObjectiveConfig

_MAX_LOG_RATIO = 20.0
"""Keeps exp() finite: ratios of 5e8 have been seen where it was not clamped."""

_DEVIATION_FLOOR = 1e-4
"""Added to a standard deviation before dividing by it, as TRL does."""


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


def scale_advantages(
    advantages: Tensor, rewards: Tensor, scaling: Literal["none", "group", "batch"]
) -> Tensor:
    """Divide centred advantages by a standard deviation of the rewards.

    ``group``: that of the completion's own group, GRPO as first published (arXiv:2402.03300).
    ``batch``: that of all rewards of the step (Liu et al. 2025, "Tricks or Traps?",
    arXiv:2508.08221), so that no group weighs more than another for being nearly unanimous.
    The deviation is the sample's (N - 1) plus 1e-4, as in TRL. Zeros stay exact zeros.

    Args:
        advantages, rewards: (N, G).
    """
    if scaling == "none":
        return advantages
    deviation = rewards.std(dim=1, keepdim=True) if scaling == "group" else rewards.std()
    return advantages / (deviation + _DEVIATION_FLOOR)


def k1_divergence(logprobs: Tensor, reference: Tensor) -> Tensor:
    """Per-token estimate of KL(policy || reference): ``policy - reference``.

    Unbiased, of either sign, high in variance (Schulman 2020, "Approximating KL
    divergence"). As a loss it would add nothing but noise: its gradient is that of the
    log-probability alone, which has expectation zero (Liu et al. 2025, arXiv:2510.01555). It
    belongs in the reward, see ``k1_to_go``.

    Args:
        logprobs, reference: (R, T) of the sampled tokens.

    Returns:
        (R, T) in nats.
    """
    return logprobs - reference


def k2_divergence(logprobs: Tensor, reference: Tensor) -> Tensor:
    """Per-token estimate of KL(policy || reference): half the square of ``policy - reference``.

    Never negative, low in variance, biased (Schulman 2020). As a loss its expected gradient
    on the policy's own samples is exactly that of the token's KL(policy || reference)
    (Liu et al. 2025, arXiv:2510.01555); how a token changes the KL of later ones is left out.

    Args:
        logprobs, reference: (R, T) of the sampled tokens.

    Returns:
        (R, T) in nats, gradient through ``logprobs``.
    """
    return (logprobs - reference).square() / 2


def k3_divergence(logprobs: Tensor, reference: Tensor) -> Tensor:
    """Per-token estimate of KL(policy || reference) from tokens that the policy sampled.

    ``exp(d) - d - 1`` with ``d = reference - policy``: never negative, unbiased, low in
    variance (Schulman 2020, "Approximating KL divergence"). As a loss its expected gradient
    on the policy's own samples is that of the other direction, KL(reference || policy) of the
    token, which agrees with k2's to first order in ``d`` (Tang and Munos 2025,
    arXiv:2506.09477; Liu et al. 2025, arXiv:2510.01555).

    Args:
        logprobs, reference: (R, T) of the sampled tokens.

    Returns:
        (R, T) in nats, gradient through ``logprobs``.
    """
    difference = _bounded(reference - logprobs)
    return difference.exp() - difference - 1


def k1_to_go(old_logprobs: Tensor, reference: Tensor, mask: Tensor) -> Tensor:
    """The k1 estimates of each token and all after it in its completion, summed.

    Subtracted from the advantage, times the coefficient: the penalty stands in the reward, and
    a token answers for what came after it (REINFORCE++, Hu et al. 2025, arXiv:2501.03262).
    The expected gradient is that of the whole completion's KL(policy || reference), later
    tokens included (Tang and Munos 2025, arXiv:2506.09477; Shah et al. 2025, "A Comedy of
    Estimators", arXiv:2512.21852).

    Args:
        old_logprobs: (R, T) under the policy when it sampled.
        reference: (R, T) under the reference policy.
        mask: (R, T) bool.

    Returns:
        (R, T) in nats; the first column is the whole completion's.
    """
    k1 = k1_divergence(old_logprobs, reference) * mask
    return k1.flip(1).cumsum(1).flip(1)


def importance_ratio(
    logprobs: Tensor, old_logprobs: Tensor, mask: Tensor, level: Literal["token", "sequence"]
) -> Tensor:
    """How much likelier the policy makes what was sampled than when it sampled it.

    ``token``: each token's own ratio. ``sequence``: the geometric mean over the completion's
    tokens, one ratio for all of them (GSPO, Zheng et al. 2025, arXiv:2507.18071).

    Returns:
        (R, T) or (R, 1), gradient through ``logprobs``.
    """
    log_ratio = logprobs - old_logprobs
    if level == "sequence":
        log_ratio = (log_ratio * mask).sum(1, keepdim=True) / mask.sum(1, keepdim=True)
    return _bounded(log_ratio).exp()


def clipped_surrogate(
    ratio: Tensor, weights: Tensor, *, low: float, high: float, dual: float | None
) -> Tensor:
    """The lesser of ``ratio * weight`` and the same with the ratio clipped to [low, high].

    PPO's objective, to be maximised (Schulman et al. 2017, arXiv:1707.06347). A ``high`` farther
    from 1 than ``low`` lets unlikely tokens grow (DAPO's clip-higher, Yu et al. 2025,
    arXiv:2503.14476). Where the weight is negative the lesser one has no bound, since the ratio
    has none: ``dual`` is one (dual-clip PPO, Ye et al. 2020, arXiv:1912.09729; two-sided
    clipping, INTELLECT-2, arXiv:2505.07291).

    Args:
        ratio: (R, T) or (R, 1).
        weights: advantages, (R, T) or (R, 1).
        dual: above ``high``, so that it changes nothing where the weight is positive.

    Returns:
        ``ratio`` and ``weights`` broadcast together.
    """
    bounded = ratio.clamp(low, high)
    if dual is not None:
        ratio = ratio.clamp(max=dual)
    return torch.minimum(ratio * weights, bounded * weights)


def mismatch_weights(old_logprobs: Tensor, sampled: Tensor, cap: float) -> Tensor:
    """Weights that make tokens of the sampler's distribution stand for the trainer's.

    ``min(exp(trainer - sampler), cap)`` token by token: truncated importance sampling (Yao et
    al. 2025, "Your efficient RL framework secretly brings you off-policy RL training"). Sampling
    and training compute the same policy with different rounding.

    Args:
        old_logprobs: (R, T) by the training pass, of the weights that sampled.
        sampled: (R, T) by the sampling pass.

    Returns:
        (R, T) without gradient.
    """
    difference = _bounded((old_logprobs - sampled).detach())
    return difference.exp().clamp(max=cap)


def step_normaliser(
    normalisation: Literal["dr_grpo", "grpo", "dapo"],
    *,
    num_completions: int,
    num_tokens: int,
    longest: int,
) -> float:
    """What ``normalised_sum`` divides by, the same in every micro-batch of a step.

    Args:
        num_completions: of the whole step, those left out of the loss included.
        num_tokens: of the whole step's completions that are not left out.
        longest: tokens that a completion may have.
    """
    match normalisation:
        case "dr_grpo":
            return float(num_completions * longest)
        case "grpo":
            return float(num_completions)
        case "dapo":
            return float(max(1, num_tokens))


def normalised_sum(
    per_token: Tensor,
    mask: Tensor,
    normalisation: Literal["dr_grpo", "grpo", "dapo"],
    normaliser: float,
) -> Tensor:
    """Sum the terms of all tokens, so that the micro-batches of a step add up to its loss.

    ``dr_grpo``: over a constant, completions times the longest allowed one (arXiv:2503.20783):
    dividing by each completion's own length would favour long wrong answers. ``grpo``: each
    completion's mean over its own tokens, then the mean over completions (arXiv:2402.03300).
    ``dapo``: over the number of tokens in the step, so that every token counts the same
    (arXiv:2503.14476).

    Args:
        per_token: (R, T) or (R, 1).
        mask: (R, T) bool, at least one token in each row.
        normaliser: see ``step_normaliser``.
    """
    terms = per_token * mask
    if normalisation == "grpo":
        terms = terms / mask.sum(1, keepdim=True)
    return terms.sum() / normaliser


@dataclass(frozen=True)
class Loss:
    """The loss of a micro-batch and what is worth showing of it."""

    value: Tensor
    """Scalar with gradient."""
    kl_sum: Tensor
    """Scalar: k3 divergence summed over tokens, whatever the estimator in the loss."""
    clipped_low: Tensor
    """Scalar: tokens to be made less likely whose ratio was clipped from below."""
    clipped_high: Tensor
    """Scalar: tokens to be made likelier whose ratio was clipped from above."""
    ratio_min: Tensor
    """Scalar: least importance ratio."""
    ratio_max: Tensor
    """Scalar: greatest importance ratio."""
    importance_sum: Tensor
    """Scalar: mismatch weights summed over tokens; 0 without a cap."""
    importance_capped: Tensor
    """Scalar: tokens whose mismatch weight reached the cap."""


def grpo_loss(
    logprobs: Tensor,
    old_logprobs: Tensor,
    reference: Tensor | None,
    advantages: Tensor,
    mask: Tensor,
    *,
    settings: ObjectiveConfig,
    normaliser: float,
    sampled: Tensor | None = None,
) -> Loss:
    """The clipped surrogate with a KL penalty; micro-batches of a step add up to its loss.

    Args:
        logprobs: (R, T) under the policy, with gradient.
        old_logprobs: (R, T) under the policy when it sampled.
        reference: (R, T) under the reference policy; None where the coefficient is 0.
        advantages: (R,).
        mask: (R, T) bool, True for completion tokens.
        normaliser: of the whole step, see ``step_normaliser``.
        sampled: (R, T) log-probabilities by the sampling pass; needed where
            ``settings.importance_cap`` is set.
    """
    low, high = 1 - settings.clip, 1 + settings.upper_clip
    coefficient, cap = settings.kl_coefficient, settings.importance_cap
    ratio = importance_ratio(logprobs, old_logprobs, mask, settings.ratio)
    weights = advantages[:, None]
    if reference is not None and settings.kl_estimator == "k1":
        to_go = k1_to_go(old_logprobs, reference, mask)
        # One ratio for the whole completion answers for the whole completion.
        weights = weights - coefficient * (to_go if settings.ratio == "token" else to_go[:, :1])

    per_token = -clipped_surrogate(ratio, weights, low=low, high=high, dual=settings.dual_clip)
    importance = torch.zeros_like(logprobs)
    if cap is not None:
        assert sampled is not None
        importance = mismatch_weights(old_logprobs, sampled, cap)
        per_token = per_token * importance
    if reference is not None and settings.kl_estimator != "k1":
        estimate = k2_divergence if settings.kl_estimator == "k2" else k3_divergence
        per_token = per_token + coefficient * estimate(logprobs, reference)

    with torch.no_grad():
        kl = torch.zeros_like(logprobs)
        if reference is not None:
            kl = k3_divergence(logprobs, reference)
        least, greatest = ratio.expand_as(mask)[mask].aminmax()
        clipped_low = ((ratio < low) & (weights < 0) & mask).sum()
        clipped_high = ((ratio > high) & (weights > 0) & mask).sum()
    return Loss(
        value=normalised_sum(per_token, mask, settings.normalisation, normaliser),
        kl_sum=(kl * mask).sum(),
        clipped_low=clipped_low,
        clipped_high=clipped_high,
        ratio_min=least,
        ratio_max=greatest,
        importance_sum=(importance * mask).sum(),
        importance_capped=((importance == cap) & mask).sum(),
    )


def _bounded(log_ratio: Tensor) -> Tensor:
    """``log_ratio`` clamped, with NaN where it is infinite.

    A clamped infinity would be trained on as a large number, and nobody would learn of it.
    """
    bounded = log_ratio.clamp(-_MAX_LOG_RATIO, _MAX_LOG_RATIO)
    return torch.where(log_ratio.isinf(), torch.nan, bounded)

"""The parts of one GRPO step: roll out, judge, update.

The loop that strings them together is ``engine.training.loop``.
"""

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import islice

import torch
from torch import Tensor
from torch.amp import GradScaler

from engine.config import RunConfig
from engine.policy.adapters import trainable_parameters
from engine.policy.memory import return_freed_memory
from engine.policy.packing import Part, TokenGroup
from engine.policy.policy import Policy
from engine.policy.rollout import Completion
from engine.runs.store import RolloutRecord
from engine.task import Assessment, Item, Task
from engine.training.loss_scale import UNSCALED
from engine.training.objective import (
    degenerate_groups,
    group_advantages,
    grpo_loss,
    scale_advantages,
    step_normaliser,
)


@dataclass(frozen=True)
class GroupRollout:
    """One prompt with the completions sampled for it and what they were worth."""

    item: Item
    prompt: str
    tokens: TokenGroup
    completions: list[Completion]
    texts: list[str]
    assessments: list[Assessment]

    @property
    def judged(self) -> list[tuple[Item, Assessment]]:
        return [(self.item, assessment) for assessment in self.assessments]

    def only(self, rows: Sequence[int]) -> "GroupRollout":
        """The group with these completions alone."""
        return replace(
            self,
            tokens=replace(self.tokens, completions=[self.tokens.completions[i] for i in rows]),
            completions=[self.completions[i] for i in rows],
            texts=[self.texts[i] for i in rows],
            assessments=[self.assessments[i] for i in rows],
        )


def roll_out(
    policy: Policy, items: Sequence[Item], group_size: int, generator: torch.Generator
) -> list[tuple[str, TokenGroup, list[Completion]]]:
    """Sample a group for every item: its rendered prompt, the token ids, the completions."""
    prompts = [policy.prompt_text(item) for item in items]
    encoded = [policy.encode_prompt(prompt) for prompt in prompts]
    groups = policy.sample(encoded, group_size, generator)
    return [
        (prompt, TokenGroup(tokens, [completion.tokens for completion in group]), group)
        for prompt, tokens, group in zip(prompts, encoded, groups, strict=True)
    ]


def judge(
    policy: Policy,
    task: Task,
    items: Sequence[Item],
    sampled: Sequence[tuple[str, TokenGroup, list[Completion]]],
) -> list[GroupRollout]:
    """Let the task parse and score every completion."""
    rollouts = []
    for item, (prompt, tokens, completions) in zip(items, sampled, strict=True):
        texts = [policy.decode(completion) for completion in completions]
        assessments = [task.assess(item, text) for text in texts]
        rollouts.append(GroupRollout(item, prompt, tokens, completions, texts, assessments))
    return rollouts


def shape(task: Task, rollouts: Sequence[GroupRollout]) -> list[GroupRollout]:
    """The rollouts with their rewards as training sees them, see ``Task.shape``."""
    shaped = iter(task.shape([pair for group in rollouts for pair in group.judged]))
    return [
        replace(group, assessments=list(islice(shaped, len(group.assessments))))
        for group in rollouts
    ]


def advantages_of(rollouts: Sequence[GroupRollout]) -> tuple[Tensor, Tensor]:
    """((N, G) advantages, (N,) bool of groups whose rewards are all equal)."""
    group_size = len(rollouts[0].completions)
    rewards = _rewards(rollouts)
    advantages = group_advantages(rewards.flatten(), group_size)
    return advantages.view(-1, group_size), degenerate_groups(rewards.flatten(), group_size)


def update(
    policy: Policy,
    optimizer: torch.optim.Optimizer,
    config: RunConfig,
    rollouts: Sequence[GroupRollout],
    advantages: Tensor,
    reference: Sequence[Tensor] | None,
    learning_rate: float,
    scaler: GradScaler = UNSCALED,
) -> dict[str, float]:
    """Optimiser steps on one block of rollouts; returns the policy's metrics.

    The policy's own log-probabilities of the first pass are the old ones: the weights
    that sampled are the weights of that pass. What the sampler computed differs by
    rounding, and that difference is reported as ``mismatch_kl``.

    A step whose loss or gradient is not finite changes nothing (metric ``skipped``). Where
    ``scaler`` scales, a gradient that overflowed lowers its scale (``overflowed``: how many of
    those skipped are that and no more).

    Args:
        advantages: (N, G), centred; scaled here where ``objective.advantage_scaling`` says so.
        reference: per group (G, T) log-probabilities; None where the KL coefficient is 0.
        learning_rate: of these updates.
        scaler: of the loss, see ``engine.training.loss_scale``.
    """
    policy.model.eval()  # Dropout would make the ratio and the KL of an unchanged policy nonzero.
    parameters = list(trainable_parameters(policy.model).values())
    settings = config.objective
    for group in optimizer.param_groups:
        group["lr"] = learning_rate
    num_completions = advantages.numel()
    shares = list(scale_advantages(advantages, _rewards(rollouts), settings.advantage_scaling))
    if settings.mask_truncated:
        kept = [[i for i, c in enumerate(group.completions) if c.finished] for group in rollouts]
        rollouts = [group.only(rows) for group, rows in zip(rollouts, kept, strict=True)]
        shares = [share[rows] for share, rows in zip(shares, kept, strict=True)]
        if reference is not None:
            reference = [logprobs[rows] for logprobs, rows in zip(reference, kept, strict=True)]
    normaliser = step_normaliser(
        settings.normalisation,
        num_completions=num_completions,
        num_tokens=sum(len(c.tokens) for group in rollouts for c in group.completions),
        longest=config.rollout.max_new_tokens,
    )
    # At coefficient 0 a group without contrast has no term at all.
    taught = [
        index
        for index, group in enumerate(rollouts)
        if group.completions and (reference is not None or bool(shares[index].any()))
    ]
    groups = [rollouts[index].tokens for index in taught]
    num_tokens = sum(len(c.tokens) for index in taught for c in rollouts[index].completions)
    old: dict[Part, Tensor] = {}
    sums = dict.fromkeys(("loss", "kl", "entropy", "low", "high", "mismatch", "weight", "cap"), 0.0)
    ratios: list[float] = []
    skipped, overflowed, norm = 0, 0, math.nan

    for iteration in range(settings.iterations if taught else 0):
        loss_sum = 0.0
        for parts in policy.micro_batches(groups):
            batch = [part.of(groups) for part in parts]
            logprobs, entropies = policy.logprobs(batch)
            mask = _mask(batch, logprobs)
            sizes = [len(group.completions) for group in batch]
            sampled = [
                completion.logprobs
                for part in parts
                for completion in rollouts[taught[part.group]].completions[part.rows]
            ]
            if iteration == 0:
                old |= zip(parts, logprobs.detach().split(sizes), strict=True)
                sums["mismatch"] += _mismatch(sampled, logprobs.detach())
                sums["entropy"] += entropies.sum().item()
            loss = grpo_loss(
                logprobs,
                _stack([old[part] for part in parts], logprobs),
                _stack([reference[taught[part.group]][part.rows] for part in parts], logprobs)
                if reference is not None
                else None,
                torch.cat([shares[taught[part.group]][part.rows] for part in parts]).to(
                    logprobs.device
                ),
                mask,
                settings=settings,
                normaliser=normaliser,
                sampled=_padded(sampled, logprobs) if settings.importance_cap else None,
            )
            torch.autograd.backward(scaler.scale(loss.value))
            return_freed_memory()
            loss_sum += loss.value.item()
            sums["kl"] += loss.kl_sum.item()
            sums["low"] += loss.clipped_low.item()
            sums["high"] += loss.clipped_high.item()
            sums["weight"] += loss.importance_sum.item()
            sums["cap"] += loss.importance_capped.item()
            ratios += [loss.ratio_min.item(), loss.ratio_max.item()]
        scaler.unscale_(optimizer)
        norm = float(torch.nn.utils.clip_grad_norm_(parameters, config.optimizer.max_grad_norm))
        loss_is_finite = math.isfinite(loss_sum)
        if loss_is_finite and math.isfinite(norm):
            scaler.step(optimizer)
        else:
            skipped += 1
            # Below 1 the gradient is too large by itself.
            overflowed += scaler.is_enabled() and loss_is_finite and scaler.get_scale() >= 1
        scaler.update()
        optimizer.zero_grad(set_to_none=True)
        sums["loss"] += loss_sum

    metrics = {"learning_rate": learning_rate, "skipped": float(skipped)}
    if scaler.is_enabled():
        metrics |= {"overflowed": float(overflowed), "loss_scale": scaler.get_scale()}
    if taught:
        passes = settings.iterations
        scored = num_tokens * passes
        metrics |= {
            "loss": sums["loss"] / passes,
            "gradient_norm": norm,
            "entropy": sums["entropy"] / num_tokens,
            "mismatch_kl": sums["mismatch"] / num_tokens,
            "clip_fraction": (sums["low"] + sums["high"]) / scored,
            "clip_fraction/low": sums["low"] / scored,
            "clip_fraction/high": sums["high"] / scored,
            "ratio/min": min(ratios),
            "ratio/max": max(ratios),
        }
        if reference is not None:
            metrics["kl"] = sums["kl"] / scored
        if settings.importance_cap is not None:
            metrics["importance/mean"] = sums["weight"] / scored
            metrics["importance/capped"] = sums["cap"] / scored
    return metrics


def describe(rollouts: Sequence[GroupRollout], degenerate: Tensor) -> dict[str, float]:
    """Metrics of a batch that need no knowledge of the task."""
    rewards = [a.reward for group in rollouts for a in group.assessments]
    completions = [c for group in rollouts for c in group.completions]
    return {
        "reward/std": statistics.pstdev(rewards),
        "groups/zero_variance": degenerate.float().mean().item(),
        "tokens/mean": statistics.fmean(len(c.tokens) for c in completions),
        "tokens/truncated": statistics.fmean(not c.finished for c in completions),
    }


def records(rollouts: Sequence[GroupRollout], advantages: Tensor) -> list[RolloutRecord]:
    """The rollouts as the store keeps them."""
    return [
        RolloutRecord(
            group=number,
            sample=sample,
            prompt=group.prompt,
            subject=group.item.subject,
            completion=group.texts[sample],
            tokens=len(completion.tokens),
            finished=completion.finished,
            reward=group.assessments[sample].reward,
            advantage=float(advantages[number, sample]),
            prediction=group.assessments[sample].prediction,
            components=group.assessments[sample].components,
            cited=group.assessments[sample].cited,
        )
        for number, group in enumerate(rollouts)
        for sample, completion in enumerate(group.completions)
    ]


def _rewards(rollouts: Sequence[GroupRollout]) -> Tensor:
    """(N, G)."""
    return torch.tensor([[a.reward for a in group.assessments] for group in rollouts])


def _mask(groups: Sequence[TokenGroup], like: Tensor) -> Tensor:
    """(R, T) bool: True for completion tokens."""
    lengths = [len(completion) for group in groups for completion in group.completions]
    positions = torch.arange(like.shape[1], device=like.device)
    return positions < torch.tensor(lengths, device=like.device)[:, None]


def _stack(pieces: Sequence[Tensor], like: Tensor) -> Tensor:
    """Rows of several groups as one (R, T), padded with zeros or cut to the width of ``like``."""
    width = like.shape[1]
    return torch.cat(
        [torch.nn.functional.pad(piece, (0, width - piece.shape[1])) for piece in pieces]
    )


def _padded(rows: Sequence[Sequence[float]], like: Tensor) -> Tensor:
    """The rows as one (R, T), padded with zeros to the width of ``like``."""
    return _stack([torch.tensor(row, device=like.device)[None] for row in rows], like)


def _mismatch(sampled: Sequence[Sequence[float]], logprobs: Tensor) -> float:
    """k3 divergence of the training pass from the sampling pass, summed over tokens."""
    total = 0.0
    for row, at_sampling in zip(logprobs, sampled, strict=True):
        difference = row[: len(at_sampling)] - torch.tensor(at_sampling, device=row.device)
        total += float((difference.exp() - difference - 1).sum())
    return total

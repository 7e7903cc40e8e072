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

from engine.config import RunConfig
from engine.policy.adapters import trainable_parameters
from engine.policy.memory import return_freed_memory
from engine.policy.packing import Part, TokenGroup
from engine.policy.policy import Policy
from engine.policy.rollout import Completion
from engine.runs.store import RolloutRecord
from engine.task import Assessment, Item, Task
from engine.training.objective import degenerate_groups, group_advantages, grpo_loss


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
    rewards = torch.tensor([[a.reward for a in group.assessments] for group in rollouts])
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
) -> dict[str, float]:
    """Optimiser steps on one block of rollouts; returns the policy's metrics.

    The policy's own log-probabilities of the first pass are the old ones: the weights
    that sampled are the weights of that pass. What the sampler computed differs by
    rounding, and that difference is reported as ``mismatch_kl``.

    A step whose loss or gradient is not finite changes nothing (metric ``skipped``).

    Args:
        advantages: (N, G).
        reference: per group (G, T) log-probabilities; None where the KL coefficient is 0.
        learning_rate: of these updates.
    """
    policy.model.eval()  # Dropout would make the ratio and the KL of an unchanged policy nonzero.
    parameters = list(trainable_parameters(policy.model).values())
    settings = config.objective
    for group in optimizer.param_groups:
        group["lr"] = learning_rate
    # At coefficient 0 a group without contrast has no term at all.
    taught = [
        index
        for index in range(len(rollouts))
        if reference is not None or bool(advantages[index].any())
    ]
    groups = [rollouts[index].tokens for index in taught]
    num_tokens = sum(len(c.tokens) for index in taught for c in rollouts[index].completions)
    normaliser = float(advantages.numel() * config.rollout.max_new_tokens)
    old: dict[Part, Tensor] = {}
    sums = dict.fromkeys(("loss", "kl", "entropy", "clipped", "mismatch"), 0.0)
    skipped, norm = 0, math.nan

    for iteration in range(settings.iterations if taught else 0):
        loss_sum = 0.0
        for parts in policy.micro_batches(groups):
            batch = [part.of(groups) for part in parts]
            logprobs, entropies = policy.logprobs(batch)
            mask = _mask(batch, logprobs)
            sizes = [len(group.completions) for group in batch]
            if iteration == 0:
                old |= zip(parts, logprobs.detach().split(sizes), strict=True)
                sampled = [
                    completion.logprobs
                    for part in parts
                    for completion in rollouts[taught[part.group]].completions[part.rows]
                ]
                sums["mismatch"] += _mismatch(sampled, logprobs.detach())
                sums["entropy"] += entropies.sum().item()
            loss = grpo_loss(
                logprobs,
                _stack([old[part] for part in parts], logprobs),
                _stack([reference[taught[part.group]][part.rows] for part in parts], logprobs)
                if reference is not None
                else None,
                torch.cat([advantages[taught[part.group]][part.rows] for part in parts]).to(
                    logprobs.device
                ),
                mask,
                clip=settings.clip,
                kl_coefficient=settings.kl_coefficient,
                normaliser=normaliser,
            )
            torch.autograd.backward(loss.value)
            return_freed_memory()
            loss_sum += loss.value.item()
            sums["kl"] += loss.kl_sum.item()
            sums["clipped"] += loss.clipped.item()
        norm = float(torch.nn.utils.clip_grad_norm_(parameters, config.optimizer.max_grad_norm))
        if math.isfinite(loss_sum) and math.isfinite(norm):
            optimizer.step()
        else:
            skipped += 1
        optimizer.zero_grad(set_to_none=True)
        sums["loss"] += loss_sum

    metrics = {"learning_rate": learning_rate, "skipped": float(skipped)}
    if taught:
        passes = settings.iterations
        metrics |= {
            "loss": sums["loss"] / passes,
            "gradient_norm": norm,
            "entropy": sums["entropy"] / num_tokens,
            "mismatch_kl": sums["mismatch"] / num_tokens,
            "clip_fraction": sums["clipped"] / (num_tokens * passes),
        }
    if reference is not None:
        metrics["kl"] = sums["kl"] / (num_tokens * settings.iterations)
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


def _mismatch(sampled: Sequence[Sequence[float]], logprobs: Tensor) -> float:
    """k3 divergence of the training pass from the sampling pass, summed over tokens."""
    total = 0.0
    for row, at_sampling in zip(logprobs, sampled, strict=True):
        difference = row[: len(at_sampling)] - torch.tensor(at_sampling, device=row.device)
        total += float((difference.exp() - difference - 1).sum())
    return total

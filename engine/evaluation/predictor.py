"""Completions of many prompts at once, the same whenever and with whatever else they are made.

One sample is greedy. Several are sampled, each from random numbers that its seed alone decides: so
neither the batch that it is decoded in nor a resume changes it, up to rounding. All checkpoints
draw with the same numbers.
"""

import hashlib
from collections.abc import Sequence

import torch
from torch import Tensor

from engine.config import RolloutConfig
from engine.policy.policy import Policy
from engine.policy.rollout import Completion, Listener, decode_groups
from engine.training.guard import with_fewer_rows

MIN_ROWS = 32
"""Completions decoded together at least, whatever the run's steps hold."""
_SEED_BITS = 52
"""Of a completion's seed: exact in every JSON reader."""


def seed_of(seed: int, key: str, sample: int) -> int:
    """Seed of one completion's random numbers."""
    digest = hashlib.sha256(f"{seed} {key} {sample}".encode()).digest()
    return int.from_bytes(digest[:8]) >> (64 - _SEED_BITS)


def batch_rows(rollout: RolloutConfig) -> int:
    """Completions in a batch: those of a training step."""
    return max(MIN_ROWS, rollout.prompts_per_step * rollout.group_size)


def complete(
    policy: Policy,
    prompts: Sequence[Sequence[int]],
    *,
    rollout: RolloutConfig,
    samples: int,
    temperature: float,
    seeds: Sequence[int],
    listener: Listener | None = None,
) -> list[list[Completion]]:
    """``samples`` completions of each prompt, by whatever acts in ``policy`` now.

    Args:
        prompts: B lists of token ids.
        rollout: says how long completions may be.
        temperature: 0 takes the most likely token every time.
        seeds: (B * samples,), those of a prompt adjacent; not looked at where greedy.
        listener: what it raises ends the sampling.

    Raises:
        RunFailedError: memory does not suffice for one row.
    """
    uniforms = None if temperature == 0 else _uniforms(seeds, rollout.max_new_tokens, policy)
    rows = len(prompts) * samples

    def sample(max_rows: int) -> list[list[Completion]]:
        return decode_groups(
            policy.causal_model,
            prompts,
            group_size=samples,
            max_new_tokens=rollout.max_new_tokens,
            temperature=temperature,
            end_tokens=policy.end_tokens,
            pad_id=policy.pad_id,
            uniforms=uniforms,
            max_rows=max_rows,
            listener=listener,
        )

    return with_fewer_rows(policy, min(rows, policy.decode_rows or rows), sample)


def _uniforms(seeds: Sequence[int], length: int, policy: Policy) -> Tensor:
    """(length, rows) random numbers; made on the CPU, so that devices agree."""
    columns = [
        torch.rand(length, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
        for seed in seeds
    ]
    return torch.stack(columns, dim=1).to(policy.device)

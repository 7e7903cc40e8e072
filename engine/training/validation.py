"""Validation: one sampled completion for each of a fixed set of items.

It changes nothing about training: the sampling seed is the same every time, its generator is
not the training one, and rewards are never shaped.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import torch

from engine.config import RolloutConfig, RunConfig
from engine.policy.adapters import base_policy
from engine.policy.policy import Policy
from engine.task import Assessment, Item, Task
from engine.training import steps


def validate(
    config: RunConfig,
    task: Task,
    policy: Policy,
    items: Sequence[Item],
    between: Callable[[], None] = lambda: None,
) -> dict[str, float]:
    """Metrics of the policy as it is now, see ``Task.validation_metrics``.

    Args:
        between: called between two batches; must change nothing about the policy.
    """
    return task.validation_metrics(_judged(config, task, policy, items, between))


def base_model_baseline(
    config: RunConfig,
    task: Task,
    policy: Policy,
    items: Sequence[Item],
    between: Callable[[], None] = lambda: None,
) -> dict[str, float]:
    """What the untrained base model makes of the same items, sampled the same way."""
    with base_policy(policy.model):
        metrics = task.validation_metrics(_judged(config, task, policy, items, between))
    names = {"accuracy": "baseline/base_model", "parsed": "baseline/base_model_parsed"}
    return {to: metrics[name] for name, to in names.items() if name in metrics}


def describe_sampling(config: RunConfig) -> str:
    """How the completions of a validation are drawn, for a person."""
    return f"one completion an example at temperature {config.rollout.temperature:g}"


def _judged(
    config: RunConfig,
    task: Task,
    policy: Policy,
    items: Sequence[Item],
    between: Callable[[], None],
) -> list[tuple[Item, Assessment]]:
    generator = torch.Generator(policy.device).manual_seed(config.seed)
    batch_size = config.rollout.prompts_per_step * config.rollout.group_size
    judged = []
    for start in range(0, len(items), batch_size):
        if start:
            between()
        batch = items[start : start + batch_size]
        with _sampled_by(policy, config.rollout):
            sampled = steps.roll_out(policy, batch, 1, generator)
        for rollout in steps.judge(policy, task, batch, sampled):
            judged += rollout.judged
    return judged


@contextmanager
def _sampled_by(policy: Policy, rollout: RolloutConfig) -> Iterator[None]:
    """Training may sample at another temperature by now."""
    in_force, policy.rollout = policy.rollout, rollout
    try:
        yield
    finally:
        policy.rollout = in_force

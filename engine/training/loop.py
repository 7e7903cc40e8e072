"""The GRPO loop, from the first draw to the last checkpoint.

One step: draw items, sample a group of completions for each, let the task score them,
centre the rewards in each group, take the reference policy's log-probabilities, update
the adapter, record everything. Commands are obeyed between steps only.
"""

import resource
import time
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch

from engine.config import RunConfig
from engine.errors import RunFailedError
from engine.policy.adapters import trainable_parameters
from engine.policy.policy import Policy
from engine.runs.directory import RunDirectory
from engine.runs.store import EventStore
from engine.task import Item, Task
from engine.training import checkpoints, steps
from engine.training.control import Control, StopRequestedError
from engine.training.milestones import Milestones

_MAX_SKIPS = 3
"""Non-finite updates in a row after which going on is pointless."""


@dataclass
class Progress:
    """What the loop carries from step to step; saved in every checkpoint."""

    step: int = 0
    best_reward: float | None = None
    best_name: str | None = None
    validation_reward: float | None = None
    """Of this very step, where it was validated."""
    skips: int = 0
    milestones: Milestones = field(default_factory=Milestones)


def make_optimizer(policy: Policy, config: RunConfig) -> torch.optim.Optimizer:
    """AdamW over the policy adapter, the same for a fresh run and for a resumed one."""
    return torch.optim.AdamW(
        trainable_parameters(policy.model).values(),
        lr=config.optimizer.learning_rate,
        weight_decay=config.optimizer.weight_decay,
    )


def resume(
    run: RunDirectory,
    policy: Policy,
    optimizer: torch.optim.Optimizer,
    generator: torch.Generator,
    name: str,
) -> Progress:
    """Put checkpoint ``name`` in place and return where it left off."""
    saved = checkpoints.load(run, name, policy, optimizer)
    generator.set_state(saved.generator_state)
    values = dict(saved.values)
    return Progress(
        step=saved.step, **values | {"milestones": Milestones.restore(values["milestones"])}
    )


def train(
    run: RunDirectory,
    config: RunConfig,
    task: Task,
    policy: Policy,
    optimizer: torch.optim.Optimizer,
    generator: torch.Generator,
    progress: Progress,
    store: EventStore,
    control: Control,
) -> str:
    """Train until the last step or until someone stops it; returns why it ended.

    Raises:
        RunFailedError: updates stay non-finite, or a checkpoint cannot be written.
    """
    max_steps = config.max_steps(task.num_training_items)
    batch_size, group_size = config.rollout.prompts_per_step, config.rollout.group_size
    validation_items = task.validation_items(config.schedule.eval_samples)
    step_seconds: deque[float] = deque(maxlen=10)

    def save() -> str:
        return _save(run, config, policy, optimizer, generator, progress, store)

    control.allow_checkpoints(save)
    store.event("state", {"state": "training", "detail": ""}, step=progress.step)
    if progress.step == 0:
        save()
    try:
        while progress.step < max_steps:
            control.obey("training")
            step = progress.step + 1
            seconds: dict[str, float] = {}

            with _timed(seconds, "total"):
                first = (step - 1) * batch_size
                items = [task.training_item(first + index) for index in range(batch_size)]
                with _timed(seconds, "rollout"):
                    sampled = steps.roll_out(policy, items, group_size, generator)
                with _timed(seconds, "reward"):
                    rollouts = steps.judge(policy, task, items, sampled)
                    advantages, degenerate = steps.advantages_of(rollouts)
                with _timed(seconds, "reference"):
                    groups = [rollout.tokens for rollout in rollouts]
                    needed = config.objective.kl_coefficient > 0
                    reference = policy.reference_logprobs(groups) if needed else None
                with _timed(seconds, "train"):
                    rise = min(1.0, step / config.optimizer.rise_steps)
                    update_metrics = steps.update(
                        policy,
                        optimizer,
                        config,
                        rollouts,
                        advantages,
                        reference,
                        learning_rate=rise * config.optimizer.learning_rate,
                    )

            progress.step, progress.validation_reward = step, None
            step_seconds.append(seconds["total"])
            num_tokens = sum(len(c.tokens) for group in rollouts for c in group.completions)
            metrics = {
                **task.metrics([pair for rollout in rollouts for pair in rollout.judged]),
                **steps.describe(rollouts, degenerate),
                **update_metrics,
                **_machine_metrics(policy.device),
                "tokens_per_second": num_tokens / seconds["total"],
            }
            progress.milestones.after_step(metrics)
            store.rollouts(step, steps.records(rollouts, advantages))
            store.event(
                "step",
                {
                    "metrics": dict(metrics),
                    "seconds": dict(seconds),
                    "epoch": step * batch_size / task.num_training_items,
                    "eta_seconds": _mean(step_seconds) * (max_steps - step),
                    "milestones": progress.milestones.indicators(),
                },
                step=step,
            )
            _refuse_to_diverge(progress, skipped=update_metrics["skipped"] > 0)

            is_last = step == max_steps
            is_best = False
            if step % config.schedule.eval_every == 0 or is_last:
                store.event("state", {"state": "evaluating", "detail": ""})
                is_best = _validate(config, task, policy, validation_items, progress, store)
                store.event("state", {"state": "training", "detail": ""})
            if is_best or is_last or step % config.schedule.save_every == 0:
                save()
    except StopRequestedError as stop:
        store.event("state", {"state": "stopping", "detail": str(stop)})
        save()
        return str(stop)
    return f"all {max_steps} steps done"


def _validate(
    config: RunConfig,
    task: Task,
    policy: Policy,
    items: Sequence[Item],
    progress: Progress,
    store: EventStore,
) -> bool:
    """One sampled completion for each validation item; True when the reward is the best so far.

    The sampling seed is the same every time, and its generator is not the training one, so
    that validating changes nothing about training.
    """
    generator = torch.Generator(policy.device).manual_seed(config.seed)
    batch_size = config.rollout.prompts_per_step * config.rollout.group_size
    judged = []
    for start in range(0, len(items), batch_size):
        batch = items[start : start + batch_size]
        sampled = steps.roll_out(policy, batch, 1, generator)
        for rollout in steps.judge(policy, task, batch, sampled):
            judged += rollout.judged
    metrics = task.metrics(judged)
    progress.milestones.after_validation(metrics)
    reward = progress.validation_reward = metrics["reward/total"]
    is_best = progress.best_reward is None or reward > progress.best_reward
    if is_best:
        progress.best_reward = reward
        progress.best_name = f"step-{progress.step:06d}"
    store.event(
        "validation",
        {
            "metrics": dict(metrics),
            "milestones": progress.milestones.indicators(),
            "sampling": f"one completion an example at temperature {config.rollout.temperature:g}",
        },
    )
    return is_best


def _save(
    run: RunDirectory,
    config: RunConfig,
    policy: Policy,
    optimizer: torch.optim.Optimizer,
    generator: torch.Generator,
    progress: Progress,
    store: EventStore,
) -> str:
    """Write a checkpoint and rotate old ones; the event comes when all of it is on disk."""
    existed = f"step-{progress.step:06d}" in checkpoints.names(run)
    values = {
        "best_reward": progress.best_reward,
        "best_name": progress.best_name,
        "skips": progress.skips,
        "milestones": progress.milestones.state(),
    }
    name = checkpoints.save(run, progress.step, policy, optimizer, generator, values)
    is_best = name == progress.best_name
    if is_best:
        checkpoints.mark_best(run, name)
    if not existed:
        removed = checkpoints.rotate(run, config.schedule.keep_checkpoints, progress.best_name)
        store.event(
            "checkpoint",
            {
                "name": name,
                "best": is_best,
                "validation_reward": progress.validation_reward,
                "removed": list(removed),
            },
        )
        store.flush()
    return name


def _refuse_to_diverge(progress: Progress, *, skipped: bool) -> None:
    progress.skips = progress.skips + 1 if skipped else 0
    if progress.skips >= _MAX_SKIPS:
        raise RunFailedError(
            f"loss or gradient was not finite in {_MAX_SKIPS} steps in a row; lower "
            "optimizer.learning_rate and start again from the last checkpoint"
        )


def _machine_metrics(device: torch.device) -> dict[str, float]:
    """Peak memory of this process and, where there is one, of the GPU."""
    kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    metrics = {"memory_gib": kib / 2**20}
    if device.type == "cuda":
        metrics["gpu_memory_gib"] = torch.cuda.max_memory_allocated(device) / 2**30
    return metrics


@contextmanager
def _timed(seconds: dict[str, float], phase: str) -> Iterator[None]:
    start = time.monotonic()
    yield
    seconds[phase] = time.monotonic() - start


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)

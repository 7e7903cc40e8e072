"""The configuration of Stage II, made from that of the Stage I run that is promoted.

A run of the preset ``stage1`` becomes the preset ``stage2``. Any other run keeps its model, data,
rollout lengths and steps, and the numbers of the stage change in the same proportion as from the
one preset to the other, so that a small run stays a small run.
"""

from dataclasses import dataclass
from typing import Any

from engine import config as configuration
from engine.config import RunConfig

_LEAST_PROMPTS = 4
"""The batch is halved down to this; a smaller one is kept."""


@dataclass(frozen=True)
class Change:
    """One setting that differs between the stages."""

    key: str
    """Dotted name, as ``--set`` takes it."""
    before: Any
    after: Any


def second_stage(first: RunConfig) -> RunConfig:
    """The Stage II configuration that follows ``first``.

    Natural sampling of 2.5 times as many examples, whose prompts tell the market's share of UP; an
    adapter of half the rank and the same alpha / rank; half the learning rate; a third of the KL
    coefficient; half the batch, but not below four prompts; three epochs for five where the steps
    are not fixed; checkpoints twice as often; market-skew weighting, and the scheme ``stage2``
    unless ``first`` has one of its own. No warm-up.
    """
    rank, scheme = max(1, first.lora.r // 2), first.reward.scheme
    changes: dict[str, Any] = {
        "name": "stage2" if first.name == "stage1" else f"{first.name[:41]}-stage2",
        "stage": "II",
        "data": {
            "sampling": "natural",
            "market_share": True,
            "max_train_samples": round(2.5 * first.data.max_train_samples),
        },
        "lora": {"r": rank, "alpha": max(1, first.lora.alpha * rank // first.lora.r)},
        "warmup": {"steps": 0},
        "rollout": {
            "prompts_per_step": min(
                first.rollout.prompts_per_step,
                max(_LEAST_PROMPTS, first.rollout.prompts_per_step // 2),
            )
        },
        # Rounded, because a person reads it.
        "objective": {"kl_coefficient": float(f"{first.objective.kl_coefficient / 3:.2g}")},
        "optimizer": {"learning_rate": first.optimizer.learning_rate / 2},
        "reward": {
            "scheme": "stage2" if scheme == "stage1" else scheme,
            "frozen": None if scheme == "stage1" else first.reward.frozen,
            # A Stage I without its diversity penalty says nothing about the market's skew.
            "shaping": "market_skew",
        },
        "schedule": {
            "epochs": first.schedule.epochs
            if first.schedule.max_steps is not None
            else max(1, round(0.6 * first.schedule.epochs)),
            "save_every": max(1, first.schedule.save_every // 2),
        },
    }
    return configuration.with_changes(first, changes)


def differences(first: RunConfig, second: RunConfig) -> tuple[Change, ...]:
    """Every setting that is not the same in both, in the order of the configuration."""
    before, after = _flat(first.model_dump()), _flat(second.model_dump())
    return tuple(
        Change(key, before.get(key), value)
        for key, value in after.items()
        # What the scheme stands for follows from its name.
        if not key.startswith("reward.frozen") and before.get(key) != value
    )


def _flat(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, dict):
            flat |= _flat(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value
    return flat

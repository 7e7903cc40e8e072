"""A run in training inside this process: a tiny model that makes calls on planted prices.

What the model writes is noise. The task here reads a call out of it all the same, so that every
statistic has something to count, and draws from the process's own generators as a reward component
of someone's own might.
"""

import queue
import random
import tempfile
import zlib
from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch

from engine import config as configuration
from engine.config import LoraSection, RunConfig
from engine.direction_call import DirectionCall
from engine.policy import attention
from engine.policy.adapters import StoredAdapter, add_adapters, read_adapter
from engine.policy.policy import Policy
from engine.policy.rollout import Completion
from engine.runs.control import Command
from engine.runs.directory import RunDirectory
from engine.runs.store import EventStore
from engine.task import Assessment, Item
from engine.training import loop, randomness
from engine.training.control import Control
from engine.training.training import Training, make_optimizer
from tests.tiny import policy_on, save_whole_policy, tiny_base, tiny_config, tiny_policy

_LORA = LoraSection(r=4, alpha=8, dropout=0.0)


class NoisyCalls(DirectionCall):
    """Direction calls by a model that cannot write one, from prompts of a few bytes."""

    def training_item(self, index: int) -> Item:
        """The draw, with its key for a prompt."""
        return _short(super().training_item(index))

    def validation_items(self, count: int) -> Sequence[Item]:
        """The items, each with its key for a prompt."""
        return [_short(item) for item in super().validation_items(count)]

    def assess(self, item: Item, completion: str) -> Assessment:
        """Score the call that the letters of ``completion`` stand for."""
        number = zlib.crc32(completion.encode("utf-8", "surrogatepass"))
        side = "UP" if number % 10 < 7 else "DOWN"
        percent = number // 10 % 30 / 10 + 0.1
        confidence = 50 + 30 * random.random() + 20 * np.random.random()
        text = (
            f"<think>Close.</think><answer>{side} {percent:.1f}% "
            f"confidence {confidence:.0f}%</answer>"
        )
        return super().assess(item, text)


def _short(item: Item) -> Item:
    return replace(item, messages=({"role": "user", "content": item.key},))


def config(**sections: Any) -> RunConfig:
    """Of a run whose steps take some hundredths of a second."""
    values: dict[str, Any] = {
        "data": {"source": "planted", "style": "brief", "max_train_samples": 16},
        "rollout": {"prompts_per_step": 2, "group_size": 4, "max_new_tokens": 8, "context": 128},
        "optimizer": {"learning_rate": 1e-2, "micro_batch_tokens": 512},
        "objective": {"kl_coefficient": 0.05},
        "milestones": {"settle_window": 8},
        "schedule": {
            "max_steps": 4,
            "save_every": 1000,
            "eval_every": 5,
            "eval_samples": 4,
            "keep_checkpoints": 50,
        },
    }
    return configuration.with_changes(tiny_config(Path("tiny"), **values), sections)


class TinyTraining:
    """Everything that ``loop.train`` needs, made as a worker makes it."""

    def __init__(self, path: Path, config: RunConfig, *, kind: str = "plain") -> None:
        """Begin, or with ``resume`` go on with, the run at ``path``.

        Args:
            kind: ``plain``, ``fp16`` (a base whose loss is scaled) or ``stack`` (Stage II).
        """
        self.run, self.config = RunDirectory(path), config
        if not self.run.checkpoints.exists():
            self.run.checkpoints.mkdir(parents=True, mode=0o700)
            self.run.write_config(config)
        randomness.prepare(config)
        self.policy = _policy(kind, config)
        self.tokens: list[list[list[int]]] = []
        """Token ids of every completion that was sampled, by call of the sampler."""
        self._record_tokens()
        self.store = EventStore(self.run.database)
        self.commands: queue.Queue[Command] = queue.Queue()
        self.training = Training(
            run=self.run,
            config=config,
            task=NoisyCalls.from_config(config),
            policy=self.policy,
            optimizer=make_optimizer(self.policy, config),
            generator=torch.Generator().manual_seed(config.seed),
            store=self.store,
        )

    def train(self) -> str:
        """Train to the end; returns why it ended."""
        try:
            return loop.train(self.training, Control(self.commands, self.store)).reason
        finally:
            self.close()

    def close(self) -> None:
        """Let go of the store."""
        self.store.close()

    def _record_tokens(self) -> None:
        sample = self.policy.sample

        def recording(
            prompts: Sequence[Sequence[int]], group_size: int, generator: torch.Generator
        ) -> list[list[Completion]]:
            groups = sample(prompts, group_size, generator)
            self.tokens.append([one.tokens for group in groups for one in group])
            return groups

        self.policy.sample = recording  # type: ignore[method-assign]


def _policy(kind: str, config: RunConfig) -> Policy:
    base = tiny_base(seed=config.seed)
    base.set_attn_implementation(attention.NAME)
    if kind == "fp16":
        base.half()
    policy = policy_on(base, _LORA, seed=config.seed)
    if kind == "stack":
        base = tiny_base(seed=config.seed)
        base.set_attn_implementation(attention.NAME)
        policy.model = add_adapters(base, _LORA, config.seed, _stage1())
    policy.rollout = config.rollout
    policy.micro_batch_tokens = config.optimizer.micro_batch_tokens
    return policy


@cache
def _stage1() -> StoredAdapter:
    """What a Stage I run might have left."""
    with tempfile.TemporaryDirectory() as folder:
        save_whole_policy(tiny_policy().model, Path(folder))
        return read_adapter(Path(folder))

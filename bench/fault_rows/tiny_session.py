"""A run of a tiny model inside this process, for faults that are injected into it."""

import queue
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from engine.config import RunConfig
from engine.policy.adapters import trainable_parameters
from engine.runs import checkpoint_names, manifest
from engine.runs.control import Command
from engine.runs.directory import RunDirectory
from engine.runs.disk import Ballast
from engine.runs.history import History
from engine.runs.reader import Event, StoreReader
from engine.runs.status import read_history
from engine.runs.store import EventStore
from engine.task import Assessment, Item
from engine.training import loop
from engine.training.control import Control
from engine.training.training import Training, make_optimizer
from tests.tiny import VowelTask, tiny_config, tiny_policy

PHASES = ("rollout", "reward", "reference", "forward", "backward", "optimiser", "validation")
"""Where ``at_phase`` can put a fault. The validation is the one before the first step."""


class FaultyTask(VowelTask):
    """Calls ``on_assess`` before a completion is scored."""

    on_assess: Callable[[], None] = staticmethod(lambda: None)

    def assess(self, item: Item, completion: str) -> Assessment:
        self.on_assess()
        return super().assess(item, completion)


class TinySession:
    """Everything ``loop.train`` needs, in a folder of its own."""

    def __init__(self, folder: Path, *, ballast: Ballast | None = None, **sections: Any) -> None:
        self.config: RunConfig = tiny_config(
            Path("tiny"),
            **{
                "rollout": {
                    "prompts_per_step": 4,
                    "group_size": 4,
                    "max_new_tokens": 8,
                    "context": 512,
                },
                "optimizer": {"learning_rate": 1e-3, "micro_batch_tokens": 512},
                "objective": {"kl_coefficient": 0.05},
                **sections,
            },
        )
        self.run = RunDirectory(folder / "run")
        self.run.checkpoints.mkdir(parents=True)
        self.run.write_config(self.config)
        self.task = FaultyTask()
        self.policy = tiny_policy()
        self.policy.rollout = self.config.rollout
        self.policy.micro_batch_tokens = self.config.optimizer.micro_batch_tokens
        self.store = EventStore(self.run.database, ballast=ballast)
        self.commands: queue.Queue[Command] = queue.Queue()
        self.control = Control(self.commands, self.store)
        self.training = Training(
            run=self.run,
            config=self.config,
            task=self.task,
            policy=self.policy,
            optimizer=make_optimizer(self.policy, self.config),
            generator=torch.Generator().manual_seed(self.config.seed),
            store=self.store,
        )

    def train(self) -> str:
        """Why training ended."""
        try:
            return loop.train(self.training, self.control).reason
        finally:
            self.store.close()

    def history(self) -> History:
        return read_history(self.run)

    def events(self, kind: str) -> list[Event]:
        reader = StoreReader(self.run.database)
        try:
            return reader.events_of(kind)
        finally:
            reader.close()

    def weights(self) -> list[torch.Tensor]:
        return [p.detach().clone() for p in trainable_parameters(self.policy.model).values()]

    def at_phase(self, phase: str, step: int, act: Callable[[], None]) -> None:
        """Call ``act`` each time that the loop comes by ``phase`` while it makes ``step``.

        ``act`` may block, raise, or count how often it was called.
        """

        def here() -> None:
            if phase == "validation" or self.training.progress.step == step - 1:
                act()

        heart, policy = self.training.heartbeat, self.policy
        if phase == "reward":
            self.task.on_assess = lambda: here() if heart.sign.phase == "reward" else None
            return
        if phase == "optimiser":
            optimizer = self.training.optimizer
            update = optimizer.step

            def failing(*args: Any) -> Any:
                here()
                return update(*args)

            optimizer.step = failing  # type: ignore[method-assign]
            return
        if phase in ("rollout", "validation"):
            beat = policy.beat

            def drawn() -> None:
                beat()
                if heart.sign.phase == phase:
                    here()

            policy.beat = drawn
            return
        score = policy.logprobs

        def scored(groups: Sequence[Any]) -> Any:
            if (phase, heart.sign.phase) in (("reference", "reference"), ("forward", "train")):
                here()
            logprobs, entropies = score(groups)
            if phase == "backward" and heart.sign.phase == "train":
                logprobs.register_hook(lambda gradient: here())
            return logprobs, entropies

        policy.logprobs = scored  # type: ignore[method-assign]


def damaged(run: RunDirectory) -> str:
    """What is wrong with the first bad checkpoint of a run; empty where all are valid."""
    for name in checkpoint_names.names(run):
        if problem := manifest.damage(run.checkpoints / name):
            return f"{name}: {problem}"
    return ""

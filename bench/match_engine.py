"""Our side of `vs_trl.py`: the worker's own loop, over prompts and rewards that say nothing."""

import os
import queue
import random
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from match import (
    KL_COEFFICIENT,
    LEARNING_RATE,
    LORA_ALPHA,
    LORA_RANK,
    Match,
    Outcome,
    Step,
    make_outcome,
    make_step,
    prompt_texts,
    reward,
)
from models import load_tokenizer
from running import events
from workload import EndlessPolicy

from engine.config import RunConfig, build
from engine.policy.adapters import add_adapters, trainable_parameters
from engine.policy.base_model import load_base_model
from engine.policy.policy import Policy
from engine.runs import devices, directory
from engine.runs.directory import RunDirectory
from engine.runs.reader import StoreReader
from engine.runs.store import EventStore
from engine.task import Assessment, ComponentScore, Item
from engine.training import loop
from engine.training.control import Control
from engine.training.training import Training, make_optimizer


def play(match: Match) -> Outcome:
    """Train for the steps of ``match``."""
    device = devices.resolve(match.device)
    config = _config(match, device)
    base, _ = load_base_model(Path(match.folder), config.model, torch.device(device))
    tokenizer = load_tokenizer(Path(match.folder))
    # A prompt is taken as it is.
    tokenizer.chat_template = "{{ messages[0]['content'] }}"
    tokens_of_a_group = match.prompt_tokens + match.group_size * match.completion_tokens
    policy = EndlessPolicy(
        model=add_adapters(base, config.lora, config.seed),
        tokenizer=tokenizer,
        end_tokens=frozenset(),
        rollout=config.rollout,
        micro_batch_tokens=match.groups_per_batch * tokens_of_a_group,
    )
    with tempfile.TemporaryDirectory(prefix="stonk-bench-") as home:
        os.environ["STONK_HOME"] = home
        run = directory.create(config)
        store = EventStore(run.database)
        training = Training(
            run=run,
            config=config,
            task=_HashTask(prompt_texts(tokenizer, match)),
            policy=policy,
            optimizer=make_optimizer(policy, config),
            generator=torch.Generator(device).manual_seed(config.seed),
            store=store,
        )
        try:
            loop.train(training, Control(queue.Queue(), store))
        finally:
            store.close()
        steps = _steps(run, policy, match.prompts_per_step)
    trainable = sum(weight.numel() for weight in trainable_parameters(policy.model).values())
    return make_outcome(match, steps, trainable)


def _config(match: Match, device: str) -> RunConfig:
    values = {
        "name": "bench",
        "model": {"device": device, "dtype": match.dtype, "quantize": match.quantize},
        "lora": {"r": LORA_RANK, "alpha": LORA_ALPHA, "dropout": 0.0, "targets": "all-linear"},
        "warmup": {"steps": 0},
        "rollout": {
            "prompts_per_step": match.prompts_per_step,
            "group_size": match.group_size,
            "max_new_tokens": match.completion_tokens,
            "context": max(128, match.prompt_tokens + match.completion_tokens),
        },
        "objective": {"kl_coefficient": KL_COEFFICIENT},
        "optimizer": {"learning_rate": LEARNING_RATE, "rise_steps": 1},
        "schedule": {
            "max_steps": match.steps + 1,
            "save_every": match.steps + 1,
            "eval_every": match.steps + 1,
        },
    }
    return build(values, where="bench")


def _steps(run: RunDirectory, policy: Policy, num_groups: int) -> list[Step]:
    """What the run's store says of its steps."""
    steps = []
    reader = StoreReader(run.database)
    try:
        for event in events(run):
            if event.kind == "step":
                phases = dict(event.payload["seconds"])
                groups = [reader.group(event.step, number) for number in range(num_groups)]
                prompts = [policy.encode_prompt(group[0].prompt) for group in groups]
                tokens = sum(rollout.tokens for group in groups for rollout in group)
                steps.append(make_step(phases.pop("total"), phases, prompts, tokens))
    finally:
        reader.close()
    return steps


class _HashTask:
    """Prompts in order, and rewards that are a hash of the completion; nothing to validate on."""

    name = "hash"
    weights: Mapping[str, float] = {"hash": 1.0}
    is_synthetic = True

    def __init__(self, prompts: Sequence[str]) -> None:
        self._prompts = prompts
        self.num_training_items = len(prompts)

    def training_item(self, index: int) -> Item:
        message = {"role": "user", "content": self._prompts[index]}
        return Item(key=f"prompt-{index}", messages=(message,), subject={})

    def validation_items(self, count: int) -> Sequence[Item]:
        return []

    def demonstration(self, item: Item, rng: random.Random) -> str:
        raise NotImplementedError("there is no warm-up")

    def assess(self, item: Item, completion: str) -> Assessment:
        score = ComponentScore("hash", reward(completion), 1.0, "")
        return Assessment(components=(score,), prediction={}, rubric={})

    def shape(self, judged: Sequence[tuple[Item, Assessment]]) -> list[Assessment]:
        return [assessment for _, assessment in judged]

    def state(self) -> dict[str, Any]:
        return {}

    def restore(self, state: Mapping[str, Any]) -> None:
        """There is nothing to restore."""

    def metrics(self, judged: Sequence[tuple[Item, Assessment]]) -> dict[str, float]:
        return {}

    def validation_metrics(self, judged: Sequence[tuple[Item, Assessment]]) -> dict[str, float]:
        return {"reward/total": 0.0}

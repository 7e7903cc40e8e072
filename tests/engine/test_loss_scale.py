"""Training on an fp16 base: small gradients survive, an overflow costs one update."""

import json
import math
import queue
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.amp import GradScaler

from engine.config import LoraSection, RunConfig
from engine.policy import attention
from engine.policy.adapters import POLICY, adapter_weights, trainable_parameters
from engine.policy.group_cache import GroupCache
from engine.policy.packing import TokenGroup
from engine.policy.policy import Policy
from engine.policy.rollout import Completion
from engine.runs import directory
from engine.runs.control import Command
from engine.runs.directory import RunDirectory
from engine.runs.status import read_history
from engine.runs.store import EventStore
from engine.task import Assessment, ComponentScore
from engine.training import loop, steps
from engine.training.control import Control
from engine.training.loss_scale import UNSCALED, make_scaler
from engine.training.training import Training, make_optimizer
from engine.training.warmup import warm_up
from tests.tiny import VowelTask, policy_on, tiny_base, tiny_config

GROUP = TokenGroup([256, 5, 6, 7, 8], [[9, 10, 257], [11], [12, 13, 14, 15, 257], [40, 41]])


def _policy(dtype: torch.dtype = torch.float16, device: str = "cpu") -> Policy:
    base = tiny_base().to(dtype).to(device)
    base.set_attn_implementation(attention.NAME)
    return policy_on(base, LoraSection(r=4, alpha=8, dropout=0.0), max_new_tokens=8)


@pytest.fixture
def config(tmp_path: Path) -> RunConfig:
    return tiny_config(
        tmp_path,
        rollout={"prompts_per_step": 2, "group_size": 4, "max_new_tokens": 8, "context": 512},
        optimizer={"learning_rate": 0.01},
        objective={"kl_coefficient": 0},
    )


def _update(
    policy: Policy, config: RunConfig, scaler: GradScaler, rewards: tuple[float, ...] = (1, 0, 0, 0)
) -> dict[str, float]:
    item = VowelTask().training_item(0)
    rollout = steps.GroupRollout(
        item,
        "",
        GROUP,
        [Completion(list(tokens), [0.0] * len(tokens), True) for tokens in GROUP.completions],
        [""] * 4,
        [Assessment((ComponentScore("given", reward, 1.0, ""),), {}, {}) for reward in rewards],
    )
    advantages, _ = steps.advantages_of([rollout])
    optimizer = make_optimizer(policy, config)
    return steps.update(
        policy, optimizer, config, [rollout], advantages, None, learning_rate=0.01, scaler=scaler
    )


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_nothing_is_scaled_where_the_base_is_not_fp16(dtype: torch.dtype) -> None:
    assert make_scaler(_policy(dtype)) is UNSCALED
    assert not UNSCALED.is_enabled()
    scaler = make_scaler(_policy())
    assert scaler.is_enabled()
    assert scaler.get_scale() == 2**16


def test_a_scaled_update_is_the_unscaled_one(config: RunConfig) -> None:
    weights, metrics = [], []
    for scaler in (UNSCALED, GradScaler("cpu", init_scale=2.0**16)):
        policy = _policy(torch.float32)
        metrics.append(_update(policy, config, scaler))
        weights.append(adapter_weights(policy.model, POLICY))
    # The scale is a power of two, which rounds nothing in fp32.
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])
    assert metrics[1] == metrics[0] | {"overflowed": 0, "loss_scale": 2**16}


def _gradient(policy: Policy, scaler: GradScaler) -> Tensor:
    """Of a loss as small as a long batch makes it, all parameters in one."""
    loss = 1e-6 * policy.logprobs([GROUP])[0].sum()
    parameters = list(trainable_parameters(policy.model).values())
    found = torch.autograd.grad(scaler.scale(loss), parameters)
    return torch.cat([gradient.flatten() for gradient in found]) / scaler.get_scale()


def test_gradients_too_small_for_fp16_survive_scaled() -> None:
    exact = _gradient(_policy(torch.float32), UNSCALED)
    scaled, plain = (_gradient(_policy(), scaler) for scaler in (make_scaler(_policy()), UNSCALED))
    assert (scaled - exact).norm() < 0.02 * exact.norm()
    assert (plain - exact).norm() > 0.1 * exact.norm()


def test_an_overflow_costs_one_update_and_lowers_the_scale(config: RunConfig) -> None:
    policy = _policy()
    before = adapter_weights(policy.model, POLICY)
    scaler = GradScaler("cpu", init_scale=2.0**40)
    metrics = _update(policy, config, scaler)
    assert metrics["skipped"] == metrics["overflowed"] == 1
    assert metrics["loss_scale"] == 2**39
    after = adapter_weights(policy.model, POLICY)
    assert all(torch.equal(before[name], after[name]) for name in before)
    while metrics["overflowed"]:
        metrics = _update(policy, config, scaler)
    assert 1 < metrics["loss_scale"] < 2**39
    assert math.isfinite(metrics["gradient_norm"])
    after = adapter_weights(policy.model, POLICY)
    assert not all(torch.equal(before[name], after[name]) for name in before)


def test_a_loss_that_is_not_finite_is_no_overflow(config: RunConfig) -> None:
    metrics = _update(_policy(), config, make_scaler(_policy()), rewards=(math.nan, 0, 0, 0))
    assert (metrics["skipped"], metrics["overflowed"]) == (1, 0)


@pytest.mark.parametrize(("scale", "overflowed"), [(1.0, 1), (0.5, 0)])
def test_a_gradient_that_is_too_large_without_a_scale_is_no_overflow(
    scale: float, overflowed: int, config: RunConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.nn.utils, "clip_grad_norm_", lambda *_: torch.tensor(math.inf))
    metrics = _update(_policy(), config, GradScaler("cpu", init_scale=scale))
    assert (metrics["skipped"], metrics["overflowed"]) == (1, overflowed)


class Session:
    """A run on an fp16 base, made anew as a worker would."""

    def __init__(self, run: RunDirectory, config: RunConfig) -> None:
        self.run = run
        self.store = EventStore(run.database)
        self.commands: queue.Queue[Command] = queue.Queue()
        self.control = Control(self.commands, self.store)
        policy = _policy()
        policy.rollout = config.rollout
        self.training = Training(
            run=run,
            config=config,
            task=VowelTask(),
            policy=policy,
            optimizer=make_optimizer(policy, config),
            generator=torch.Generator().manual_seed(config.seed),
            store=self.store,
        )

    def train(self) -> dict[str, Tensor]:
        """The trained adapter."""
        try:
            loop.train(self.training, self.control)
        finally:
            self.store.close()
        return adapter_weights(self.training.policy.model, POLICY)


def _with_steps(config: RunConfig, max_steps: int) -> RunConfig:
    schedule = config.schedule.model_copy(update={"max_steps": max_steps, "save_every": 4})
    return config.model_copy(update={"schedule": schedule})


def test_a_run_that_overflows_more_often_than_it_may_diverge_goes_on_and_is_resumed(
    config: RunConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "engine.training.training.make_scaler", lambda policy: GradScaler("cpu", init_scale=2.0**26)
    )
    whole = Session(directory.create(config), _with_steps(config, 8))
    expected = whole.train()
    overflowed = read_history(whole.run).series["overflowed"].values
    scales = read_history(whole.run).series["loss_scale"].values
    # Three steps in a row that diverge would have ended it.
    assert "1110" in "".join(f"{number:.0f}" for number in overflowed)

    first = Session(directory.create(config), _with_steps(config, 4))
    first.train()
    state = json.loads((first.run.checkpoints / "step-000004/train/state.json").read_text())
    assert state["values"]["loss_scale"]["scale"] == scales[3]
    second = Session(first.run, _with_steps(config, 8))
    second.training.resume("step-000004")
    found = second.train()
    assert all(torch.equal(found[name], expected[name]) for name in expected)


def test_a_run_whose_loss_is_not_finite_still_pauses(
    config: RunConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    session = Session(directory.create(config), _with_steps(config, 8))
    metrics = {"learning_rate": 0.01, "skipped": 1.0, "overflowed": 0.0}
    monkeypatch.setattr(steps, "update", lambda *_, **__: dict(metrics))
    paused: list[str] = []

    def listen(kind: str, payload: Any, step: int) -> None:
        if payload.get("state") == "paused":
            paused.append(payload["detail"])
            session.commands.put(Command("s", "stop"))

    session.store.listen(listen)
    session.train()
    assert session.training.progress.step == 3
    assert "not finite in 3 steps in a row" in paused[0]


def test_the_warm_up_scales_too(config: RunConfig, tmp_path: Path) -> None:
    warmup = config.warmup.model_copy(update={"steps": 8, "learning_rate": 0.02})
    losses: list[float] = []
    policy = _policy()
    warm_up(
        policy,
        VowelTask(),
        config.model_copy(update={"warmup": warmup}),
        base_fingerprint="tiny",
        cache=tmp_path / "warmups",
        on_step=lambda done, total, loss: losses.append(loss),
    )
    assert losses[-1] < losses[0] - 0.5
    assert {p.dtype for p in trainable_parameters(policy.model).values()} == {torch.float32}


def test_decoding_survives_products_that_fp16_cannot_hold() -> None:
    cache = GroupCache(tiny_base().config, [2], max_new_tokens=1)
    generator = torch.Generator().manual_seed(0)

    def large(*shape: int) -> Tensor:
        return 200 * torch.rand(shape, generator=generator)

    keys, values = large(1, 2, 2, 8), torch.randn(1, 2, 2, 8, generator=generator)
    query, own_keys = large(3, 4, 1, 8), large(3, 2, 1, 8)
    own_values = torch.randn(3, 2, 1, 8, generator=generator)
    assert (query.view(3, 2, 2, 8) @ own_keys.transpose(-1, -2)).max() > 65504
    results = []
    for dtype in (torch.float32, torch.float16):
        cache.own[0].prompt_keys, cache.own[0].prompt_values = keys.to(dtype), values.to(dtype)
        cache.own[1].prompt_keys, cache.own[1].prompt_values = keys.to(dtype), values.to(dtype)
        cache.begin_decoding(3)
        inputs = (query.to(dtype), own_keys.to(dtype), own_values.to(dtype))
        results.append(cache.attend(0, *inputs, scaling=8**-0.5).float())
    assert results[1].isfinite().all()
    # A score of thousands is rounded to whole numbers: one key takes it all, in both formats.
    assert torch.allclose(results[0], results[1], atol=0.01)


@pytest.mark.gpu
def test_an_fp16_base_on_a_gpu_learns_as_an_fp32_one(config: RunConfig) -> None:
    exact = _gradient(_policy(torch.float32), UNSCALED)
    policy = _policy(device="cuda:0")
    scaler = make_scaler(policy)
    found = _gradient(policy, scaler).cpu()
    assert (found - exact).norm() < 0.02 * exact.norm()
    before = adapter_weights(policy.model, POLICY)
    metrics = _update(policy, config, scaler)
    while metrics["overflowed"]:
        metrics = _update(policy, config, scaler)
    assert metrics["loss_scale"] >= 1
    after = adapter_weights(policy.model, POLICY)
    assert not all(torch.equal(before[name], after[name]) for name in before)

"""Memory runs out in every part of a step, and the run ends where it would have ended anyway."""

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.amp import GradScaler

from engine.config import RunConfig, with_overrides
from engine.errors import RunFailedError
from engine.policy import gradient_checkpointing, rollout
from engine.policy import policy as policy_module
from engine.policy.adapters import POLICY, adapter_weights, trainable_parameters
from engine.runs import directory
from engine.runs.reader import StoreReader
from engine.training import dry_run
from engine.training.dry_run import choose_token_budget
from engine.training.guard import is_out_of_memory
from tests.engine.test_training import Session
from tests.tiny import tiny_config, tiny_policy

_ERRORS = (
    torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"),
    RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to ..."),
    MemoryError(),
)


@pytest.fixture
def config() -> RunConfig:
    # Eight rows of some 75 tokens: two micro-batches of 512, and three of 256.
    return tiny_config(
        Path("tiny"),  # the same for every test, so that one uninterrupted run does for all
        rollout={"prompts_per_step": 8, "group_size": 4, "max_new_tokens": 8, "context": 512},
        optimizer={"learning_rate": 1e-3, "micro_batch_tokens": 512},
        objective={"kl_coefficient": 0.05},
        schedule={"max_steps": 3, "eval_every": 3, "save_every": 2},
    )


def _session(config: RunConfig, run: directory.RunDirectory | None = None) -> Session:
    session = Session(run or directory.create(config), config)
    session.policy.micro_batch_tokens = config.optimizer.micro_batch_tokens
    return session


@functools.cache
def _uninterrupted(config: RunConfig) -> tuple[dict[str, torch.Tensor], list[float]]:
    """Weights and rewards of a run to which nothing happens."""
    session = _session(config)
    session.train()
    rewards = session.history().series["reward/total"].values
    return adapter_weights(session.policy.model, POLICY), rewards


def _events(session: Session, kind: str) -> list[dict[str, Any]]:
    reader = StoreReader(session.run.database)
    payloads = [dict(event.payload) for event in reader.events() if event.kind == kind]
    reader.close()
    return payloads


class Fault:
    """Raises, the ``at``-th time that it is reached while ``shaped`` batches have been shaped.

    In the second step that is 1 while the completions are sampled and 2 from then on.
    """

    def __init__(
        self, session: Session, error: Exception, *, shaped: int, at: int = 1, last: int | None = 1
    ) -> None:
        """``last``: how often it raises; None: each time from the first."""
        self._task, self._error, self._shaped = session.task, error, shaped
        self._first, self._last = at, None if last is None else at + last
        self.reached = 0

    def __call__(self, *_: Any) -> None:
        if self._task.shaped == self._shaped:
            self.reached += 1
            if self._first <= self.reached and (self._last is None or self.reached < self._last):
                raise self._error


Arrange = Callable[[pytest.MonkeyPatch, Session, Fault], None]


def _in_rollout(monkeypatch: pytest.MonkeyPatch, session: Session, fault: Fault) -> None:
    draw = rollout.draw

    def failing(*args: Any) -> Any:
        fault()
        return draw(*args)

    monkeypatch.setattr(rollout, "draw", failing)


def _in_pass(
    monkeypatch: pytest.MonkeyPatch, fault: Fault, *, trained: bool, backward: bool = False
) -> None:
    score = policy_module.completion_logprobs

    def failing(*args: Any) -> Any:
        if trained == torch.is_grad_enabled() and not backward:
            fault()
        logprobs, entropies = score(*args)
        if trained == torch.is_grad_enabled() and backward:
            logprobs.register_hook(fault)
        return logprobs, entropies

    monkeypatch.setattr(policy_module, "completion_logprobs", failing)


def _in_reference(monkeypatch: pytest.MonkeyPatch, session: Session, fault: Fault) -> None:
    _in_pass(monkeypatch, fault, trained=False)


def _in_forward(monkeypatch: pytest.MonkeyPatch, session: Session, fault: Fault) -> None:
    _in_pass(monkeypatch, fault, trained=True)


def _in_backward(monkeypatch: pytest.MonkeyPatch, session: Session, fault: Fault) -> None:
    _in_pass(monkeypatch, fault, trained=True, backward=True)


def _in_optimiser(monkeypatch: pytest.MonkeyPatch, session: Session, fault: Fault) -> None:
    """When half of the parameters, and their moments, have been changed."""
    optimizer = session.training.optimizer
    step = optimizer.step
    parameters = list(trainable_parameters(session.policy.model).values())

    def failing() -> None:
        gradients = [parameter.grad for parameter in parameters]
        try:
            fault()
        except (RuntimeError, MemoryError):
            for parameter in parameters[len(parameters) // 2 :]:
                parameter.grad = None
            step()
            raise
        finally:
            for parameter, gradient in zip(parameters, gradients, strict=True):
                parameter.grad = gradient
        step()

    monkeypatch.setattr(optimizer, "step", failing)


@pytest.mark.parametrize(
    ("arrange", "phase", "shaped", "at", "error"),
    [
        (_in_rollout, "rollout", 1, 3, _ERRORS[0]),
        (_in_reference, "reference", 2, 2, _ERRORS[1]),
        (_in_forward, "train", 2, 2, _ERRORS[2]),
        (_in_backward, "train", 2, 2, _ERRORS[0]),
        (_in_optimiser, "train", 2, 1, _ERRORS[1]),
        # Adam has no state yet.
        (_in_optimiser, "train", 1, 1, _ERRORS[0]),
    ],
)
def test_running_out_of_memory_once_leaves_the_run_as_it_would_have_been(
    arrange: Arrange,
    phase: str,
    shaped: int,
    at: int,
    error: Exception,
    config: RunConfig,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    expected, rewards = _uninterrupted(config)
    session = _session(config)
    fault = Fault(session, error, shaped=shaped, at=at)
    arrange(monkeypatch, session, fault)
    assert session.train() == "all 3 steps done"

    assert fault.reached > at  # done again
    limits = ("completions", 32, 16) if phase == "rollout" else ("tokens", 512, 256)
    halving = dict(zip(("unit", "old", "new"), limits, strict=True))
    assert _events(session, "memory") == [{"phase": phase, **halving}]
    assert len(_events(session, "step")) == 3
    assert session.task.shaped == 3
    history = session.history()
    assert history.series["reward/total"].values == rewards
    found = adapter_weights(session.policy.model, POLICY)
    for name, weights in expected.items():
        assert torch.allclose(found[name], weights, atol=1e-5, rtol=0), name


def test_a_loss_scale_is_undone_with_the_update_that_it_failed_in(
    config: RunConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "engine.training.training.make_scaler", lambda policy: GradScaler("cpu", init_scale=2.0**10)
    )
    undisturbed = _session(config)
    undisturbed.train()
    session = _session(config)
    # Gradients are unscaled already, which a scaler does only once an update.
    fault = Fault(session, _ERRORS[1], shaped=2, at=1)
    _in_optimiser(monkeypatch, session, fault)
    assert session.train() == "all 3 steps done"
    assert fault.reached > 1
    assert session.training.scaler.state_dict() == undisturbed.training.scaler.state_dict()
    found = adapter_weights(session.policy.model, POLICY)
    for name, weights in adapter_weights(undisturbed.policy.model, POLICY).items():
        assert torch.allclose(found[name], weights, atol=1e-5, rtol=0), name


def test_an_update_of_several_steps_is_undone_as_a_whole(
    config: RunConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = with_overrides(config, ["objective.iterations=2"])
    expected, _ = _uninterrupted(config)
    session = _session(config)
    # Two micro-batches an iteration: the fourth pass fails when the optimiser has made a step.
    fault = Fault(session, _ERRORS[0], shaped=2, at=4)
    _in_forward(monkeypatch, session, fault)
    session.train()
    # Four of two steps, and then three micro-batches in each of two iterations.
    assert fault.reached == 4 + 6
    found = adapter_weights(session.policy.model, POLICY)
    for name, weights in expected.items():
        assert torch.allclose(found[name], weights, atol=1e-5, rtol=0), name


def test_running_out_of_memory_in_a_validation_changes_nothing_but_the_limit(
    config: RunConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, rewards = _uninterrupted(config)
    session = _session(config)
    _in_rollout(monkeypatch, session, Fault(session, _ERRORS[0], shaped=0, at=2))
    session.train()
    assert _events(session, "memory") == [
        {"phase": "validation", "unit": "completions", "old": 32, "new": 16}
    ]
    assert session.history().series["reward/total"].values == rewards


@pytest.mark.parametrize(
    ("arrange", "shaped", "advice"),
    [
        (_in_rollout, 0, r"\(validation\) with no more than 1 completions"),
        (_in_optimiser, 1, r"\(train\) with no more than 256 tokens"),
    ],
)
def test_a_run_ends_with_advice_when_nothing_is_left_to_halve(
    arrange: Arrange,
    shaped: int,
    advice: str,
    config: RunConfig,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    session = _session(config)
    before = adapter_weights(session.policy.model, POLICY)
    before = {name: weights.clone() for name, weights in before.items()}
    arrange(monkeypatch, session, Fault(session, _ERRORS[0], shaped=shaped, last=None))
    with pytest.raises(RunFailedError, match=advice) as failed:
        session.train()
    assert "\n" not in str(failed.value)
    after = adapter_weights(session.policy.model, POLICY)
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert len(session.training.optimizer.state) == 0
    halved = [event["new"] for event in _events(session, "memory")]
    assert halved == ([16, 8, 4, 2, 1] if shaped == 0 else [256])


def test_a_resumed_run_starts_with_the_limits_that_were_left(
    config: RunConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = _session(config)
    with monkeypatch.context() as patched:
        _in_rollout(patched, first, Fault(first, _ERRORS[0], shaped=1))
        _in_reference(patched, first, Fault(first, _ERRORS[0], shaped=1))
        first.train()
    second = _session(config, first.run).resume()
    second.store.close()
    assert second.policy.micro_batch_tokens == 256
    assert second.policy.decode_rows == 16


def test_another_error_is_not_taken_for_a_lack_of_memory(
    config: RunConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    session = _session(config)
    error = RuntimeError("the model's logits are not finite")
    _in_forward(monkeypatch, session, Fault(session, error, shaped=1))
    with pytest.raises(RuntimeError, match="not finite"):
        session.train()
    assert _events(session, "memory") == []


def test_a_lack_of_memory_is_recognised_in_the_words_of_torchs_own_allocator() -> None:
    with pytest.raises(RuntimeError) as refused:
        torch.empty(2**60, dtype=torch.uint8)
    assert is_out_of_memory(refused.value)
    assert all(is_out_of_memory(error) for error in _ERRORS)
    assert not is_out_of_memory(ValueError("out of memory"))


def _free(monkeypatch: pytest.MonkeyPatch, num_bytes: int) -> None:
    memory = dry_run.psutil.virtual_memory()._replace(available=num_bytes)
    monkeypatch.setattr(dry_run.psutil, "virtual_memory", lambda: memory)


def test_the_dry_run_changes_nothing_and_says_what_it_found(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # A group of 500 + 4 * 12 tokens, eight of them in a step: seven fit into the budget.
    policy = tiny_policy(prompts_per_step=8)
    before = {name: p.detach().clone() for name, p in policy.model.named_parameters()}
    random_state = torch.get_rng_state()
    _free(monkeypatch, 2**40)
    level, text = choose_token_budget(policy)
    assert (level, policy.micro_batch_tokens) == ("info", 4096)
    assert text.startswith("a pass over 3836 tokens keeps ")
    assert text.endswith("token budget 4096")
    assert torch.equal(torch.get_rng_state(), random_state)
    for name, parameter in policy.model.named_parameters():
        assert torch.equal(parameter, before[name]), name
        assert parameter.grad is None


def test_what_a_token_keeps_is_within_what_its_layers_must_keep() -> None:
    policy = tiny_policy()
    # For each of two layers at least the inputs of its norms and of its MLP's products, in fp32.
    least = 2 * (2 * 32 + 2 * 64) * 4
    assert least < dry_run._bytes_kept_per_token(policy) < 20 * least


def test_checkpointed_layers_keep_less_but_no_less_than_one_layer_needs() -> None:
    policy = tiny_policy()
    plain = dry_run._bytes_kept_per_token(policy)
    gradient_checkpointing.enable(policy.causal_model)
    checkpointed = dry_run._bytes_kept_per_token(policy)
    # Half of what two layers keep, and each one's input.
    assert plain / 2 < checkpointed < plain


def test_the_budget_is_halved_until_half_of_the_free_memory_suffices(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    policy = tiny_policy(prompts_per_step=8)
    per_token = dry_run._bytes_kept_per_token(policy)
    # One group of 548 tokens fits and two do not: 2048 is a budget for three, 1024 for one.
    _free(monkeypatch, int(2 * 600 * per_token))
    level, text = choose_token_budget(policy)
    assert (level, policy.micro_batch_tokens) == ("warning", 1024)
    assert text.endswith("token budget 1024 instead of 4096")
    # An estimate alone never ends a run.
    _free(monkeypatch, 1)
    level, _ = choose_token_budget(policy)
    assert (level, policy.micro_batch_tokens) == ("warning", 256)


def test_a_device_on_which_the_smallest_budget_runs_out_of_memory_ends_the_run(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    need = dry_run._Need(False, "a pass over 256 tokens ran out of memory", is_possible=False)
    monkeypatch.setattr(dry_run, "_for_cpu", lambda policy: lambda batch: need)
    with pytest.raises(RunFailedError, match="256 tokens ran out of memory; free memory on cpu"):
        choose_token_budget(tiny_policy())


@pytest.mark.gpu
def test_the_dry_run_on_a_gpu_measures_a_pass_and_leaves_no_trace() -> None:
    policy = tiny_policy()
    policy.model.to("cuda")
    before = {name: p.detach().clone() for name, p in policy.model.named_parameters()}
    random_state = torch.cuda.get_rng_state()
    level, text = choose_token_budget(policy)
    assert level == "info"
    assert "GiB and" in text
    assert torch.equal(torch.cuda.get_rng_state(), random_state)
    for name, parameter in policy.model.named_parameters():
        assert torch.equal(parameter, before[name]), name
        assert parameter.grad is None

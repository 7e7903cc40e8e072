"""Advantages and loss: hand-computed, and equal to TRL's on the same tensors."""

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor
from trl.trainer.grpo_trainer import GRPOTrainer

from engine.training.objective import (
    degenerate_groups,
    group_advantages,
    grpo_loss,
    k3_divergence,
)


@pytest.mark.parametrize("reward", [0.0, 0.1, 0.7, 1.0])
def test_group_with_equal_rewards_gives_no_signal(reward: float) -> None:
    advantages = group_advantages(torch.full((8,), reward), group_size=8)
    assert advantages.count_nonzero() == 0


def test_advantages_are_centred_in_each_group_and_not_scaled() -> None:
    # means 2 and 5
    rewards = torch.tensor([1.0, 3.0, 5.0, 5.0, 4.0, 6.0])
    assert group_advantages(rewards, 2).tolist() == [-1.0, 1.0, 0.0, 0.0, -1.0, 1.0]
    assert degenerate_groups(rewards, 2).tolist() == [False, True, False]


def test_rewards_that_do_not_fill_groups_are_refused() -> None:
    with pytest.raises(RuntimeError):
        group_advantages(torch.zeros(7), group_size=2)


def test_k3_divergence_is_zero_for_equal_policies_and_matches_the_formula() -> None:
    logprobs = torch.tensor([[-1.0, -2.0]])
    assert k3_divergence(logprobs, logprobs).tolist() == [[0.0, 0.0]]
    # d = -0.5: exp(-0.5) + 0.5 - 1 = 0.106531
    assert k3_divergence(logprobs, logprobs - 0.5)[0, 0].item() == pytest.approx(0.106531, abs=1e-6)


def test_loss_of_one_token_matches_the_arithmetic() -> None:
    # ratio exp(0.5) = 1.6487 is clipped to 1.2 for a positive advantage of 2: -2.4.
    # d = 0.3 - 0 = 0.3: k3 = 1.349859 - 1.3 = 0.049859; times 0.1: 0.0049859.
    loss = grpo_loss(
        torch.tensor([[-1.0]]),
        torch.tensor([[-1.5]]),
        torch.tensor([[-0.7]]),
        torch.tensor([2.0]),
        torch.tensor([[True]]),
        clip=0.2,
        kl_coefficient=0.1,
        normaliser=4.0,
    )
    assert loss.value.item() == pytest.approx((-2.4 + 0.0049859) / 4, abs=1e-6)
    assert loss.kl_sum.item() == pytest.approx(0.049859, abs=1e-6)
    assert loss.clipped.item() == 1


def test_huge_log_ratios_stay_finite() -> None:
    logprobs = torch.tensor([[-0.1]], requires_grad=True)
    loss = grpo_loss(
        logprobs,
        torch.tensor([[-900.0]]),
        torch.tensor([[-900.0]]),
        torch.tensor([-1.0]),
        torch.tensor([[True]]),
        clip=0.2,
        kl_coefficient=0.1,
        normaliser=1.0,
    )
    torch.autograd.backward(loss.value)
    assert torch.isfinite(loss.value)
    assert logprobs.grad is not None
    assert torch.isfinite(logprobs.grad).all()


class _TrlWithGivenLogprobs:
    """Just enough of a GRPOTrainer for its ``_compute_loss``, fed with our tensors."""

    def __init__(self, logprobs: Tensor, *, clip: float, beta: float, longest: int) -> None:
        self._logprobs = logprobs
        self.args = SimpleNamespace(use_bias_correction_kl=False, delta=None)
        self.beta = beta
        self.epsilon_low = self.epsilon_high = clip
        self.loss_type = "dr_grpo"
        self.importance_sampling_level = "token"
        self.top_entropy_quantile = 1.0
        self.off_policy_mask_threshold = None
        self.use_vllm = False
        self.aux_loss_enabled = False
        self._entropy_bonus_enabled = False
        self.max_completion_length = longest
        self.current_gradient_accumulation_steps = 1
        self.model = SimpleNamespace(training=True)
        self.accelerator = SimpleNamespace(
            gather=lambda tensor: tensor, reduce=lambda tensor, reduction: tensor
        )
        self._metrics: dict[str, Any] = {"train": _Lists()}

    def _get_per_token_logps_and_entropies(
        self, *args: Any, **kwargs: Any
    ) -> tuple[Tensor, Tensor, None]:
        return self._logprobs, torch.zeros_like(self._logprobs), None


class _Lists(dict[str, list[float]]):
    def __missing__(self, key: str) -> list[float]:
        self[key] = []
        return self[key]


@pytest.mark.parametrize("beta", [0.0, 0.15])
@pytest.mark.parametrize("drift", [0.0, 0.3])
def test_loss_and_gradient_equal_those_of_trl(beta: float, drift: float) -> None:
    generator = torch.Generator().manual_seed(3)
    rows, width, longest = 8, 10, 16
    logprobs = -3 * torch.rand((rows, width), generator=generator)
    old = logprobs + drift * torch.randn((rows, width), generator=generator)
    reference = logprobs + 0.2 * torch.randn((rows, width), generator=generator)
    lengths = torch.tensor([10, 3, 7, 1, 10, 9, 2, 5])
    mask = torch.arange(width) < lengths[:, None]
    advantages = group_advantages(torch.rand(rows, generator=generator), group_size=4)

    ours_input = logprobs.clone().requires_grad_()
    ours = grpo_loss(
        ours_input,
        old,
        reference if beta else None,
        advantages,
        mask,
        clip=0.2,
        kl_coefficient=beta,
        normaliser=float(rows * longest),
    )
    torch.autograd.backward(ours.value)

    trl_input = logprobs.clone().requires_grad_()
    trainer = _TrlWithGivenLogprobs(trl_input, clip=0.2, beta=beta, longest=longest)
    inputs = {
        "prompt_ids": torch.zeros((rows, 1), dtype=torch.long),
        "prompt_mask": torch.ones((rows, 1), dtype=torch.long),
        "completion_ids": torch.zeros((rows, width), dtype=torch.long),
        "completion_mask": mask.long(),
        "advantages": advantages,
        "old_per_token_logps": old,
        "ref_per_token_logps": reference,
    }
    theirs = GRPOTrainer._compute_loss(trainer, None, inputs)
    theirs.backward()

    assert ours.value.item() == pytest.approx(theirs.item(), abs=1e-7)
    assert torch.allclose(ours_input.grad, trl_input.grad, atol=1e-7)
    if beta:
        kl = trainer._metrics["train"]["kl"][0]
        assert ours.kl_sum.item() / mask.sum().item() == pytest.approx(kl, abs=1e-6)
    clip_share = trainer._metrics["train"]["clip_ratio/region_mean"][0]
    assert ours.clipped.item() / mask.sum().item() == pytest.approx(clip_share, abs=1e-6)

"""Advantages and loss: hand-computed, and equal to TRL's on the same tensors."""

import math
from itertools import product
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor
from trl.trainer.grpo_trainer import GRPOTrainer
from trl.trainer.utils import nanstd

from engine.config import ObjectiveConfig, RunConfig, with_overrides
from engine.errors import UserError
from engine.training.objective import (
    Loss,
    degenerate_groups,
    group_advantages,
    grpo_loss,
    k1_divergence,
    k1_to_go,
    k2_divergence,
    k3_divergence,
    scale_advantages,
    step_normaliser,
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


def test_advantages_are_scaled_by_the_group_or_by_the_batch() -> None:
    # Deviations with N - 1: of [1, 3] it is sqrt(2), of all four rewards sqrt(20 / 3).
    rewards = torch.tensor([[1.0, 3.0], [5.0, 7.0]])
    centred = torch.tensor([[-1.0, 1.0], [-1.0, 1.0]])
    assert scale_advantages(centred, rewards, "none") is centred
    by_group = scale_advantages(centred, rewards, "group")
    assert by_group[0, 1].item() == pytest.approx(1 / (math.sqrt(2) + 1e-4))
    by_batch = scale_advantages(centred, rewards, "batch")
    assert by_batch[1, 0].item() == pytest.approx(-1 / (math.sqrt(20 / 3) + 1e-4))


@pytest.mark.parametrize("scaling", ["group", "batch"])
def test_scaled_advantages_equal_those_of_trl(scaling: Any) -> None:
    rewards = torch.rand((3, 4), generator=torch.Generator().manual_seed(5))
    ours = scale_advantages(
        group_advantages(rewards.flatten(), group_size=4).view(3, 4),
        rewards,
        scaling,
    )
    deviation = nanstd(rewards, dim=1, keepdim=True) if scaling == "group" else nanstd(rewards)
    theirs = (rewards - rewards.mean(dim=1, keepdim=True)) / (deviation + 1e-4)
    assert torch.allclose(ours, theirs, atol=1e-6)


@pytest.mark.parametrize("scaling", ["none", "group", "batch"])
def test_scaling_leaves_degenerate_groups_at_exact_zero(scaling: Any) -> None:
    rewards = torch.tensor([[0.1] * 8, [0.7] * 8])
    advantages = group_advantages(rewards.flatten(), group_size=8).view(2, 8)
    scaled = scale_advantages(advantages, rewards, scaling)
    assert scaled.count_nonzero() == 0


def test_divergences_are_zero_for_equal_policies_and_match_their_formulas() -> None:
    logprobs = torch.tensor([[-1.0, -2.0]])
    for estimate in (k1_divergence, k2_divergence, k3_divergence):
        assert estimate(logprobs, logprobs).tolist() == [[0.0, 0.0]]
    reference = logprobs - 0.5
    assert k1_divergence(logprobs, reference)[0, 0].item() == pytest.approx(0.5)
    assert k2_divergence(logprobs, reference)[0, 0].item() == pytest.approx(0.125)
    # d = -0.5: exp(-0.5) + 0.5 - 1 = 0.106531
    assert k3_divergence(logprobs, reference)[0, 0].item() == pytest.approx(0.106531, abs=1e-6)


def _two_categoricals() -> tuple[Tensor, Tensor]:
    """Logits of a policy, to be differentiated, and log-probabilities of a reference."""
    generator = torch.Generator().manual_seed(11)
    logits = torch.randn(5, generator=generator, dtype=torch.float64).requires_grad_()
    reference = torch.randn(5, generator=generator, dtype=torch.float64).log_softmax(0)
    return logits, reference


def _divergence(logprobs: Tensor, other: Tensor) -> Tensor:
    return (logprobs.exp() * (logprobs - other)).sum(-1)


def _gradient(value: Tensor, *inputs: Tensor) -> Tensor:
    return torch.cat([piece.flatten() for piece in torch.autograd.grad(value, inputs)])


def test_k1_and_k3_are_unbiased_and_k2_is_not() -> None:
    logits, reference = _two_categoricals()
    logprobs = logits.detach().log_softmax(0)
    exact = _divergence(logprobs, reference).item()
    expected = {
        estimate: (logprobs.exp() * estimate(logprobs, reference)).sum().item()
        for estimate in (k1_divergence, k2_divergence, k3_divergence)
    }
    assert expected[k1_divergence] == pytest.approx(exact, abs=1e-12)
    assert expected[k3_divergence] == pytest.approx(exact, abs=1e-12)
    assert abs(expected[k2_divergence] - exact) > 0.01


def test_expected_gradients_of_the_divergences_as_losses() -> None:
    logits, reference = _two_categoricals()
    logprobs = logits.log_softmax(0)
    chances = logprobs.detach().exp()  # samples do not follow the gradient

    def expected(estimate: Any) -> Tensor:
        return _gradient((chances * estimate(logits.log_softmax(0), reference)).sum(), logits)

    assert torch.allclose(expected(k1_divergence), torch.zeros(5).double(), atol=1e-12)
    reverse = _gradient(_divergence(logits.log_softmax(0), reference), logits)
    assert torch.allclose(expected(k2_divergence), reverse, atol=1e-12)
    forward = _gradient(_divergence(reference, logits.log_softmax(0)), logits)
    assert torch.allclose(expected(k3_divergence), forward, atol=1e-12)
    assert not torch.allclose(forward, reverse, atol=1e-2)


def test_k1_to_go_sums_what_comes_after_a_token_up_to_the_padding() -> None:
    old = torch.tensor([[-1.0, -2.0, -3.0], [-1.0, -2.0, 0.0]])
    reference = torch.tensor([[-1.5, -2.25, -2.0], [-3.0, -1.0, -9.0]])
    mask = torch.tensor([[True, True, True], [True, True, False]])
    # k1: 0.5, 0.25, -1 and 2, -1
    assert k1_to_go(old, reference, mask).tolist() == [[-0.25, -0.75, -1.0], [1.0, -1.0, 0.0]]


@pytest.mark.parametrize("ratio", ["token", "sequence"])
def test_k1_in_the_reward_has_the_gradient_of_the_completions_exact_kl(ratio: Any) -> None:
    """Every completion of two tokens out of three, weighted by its probability."""
    generator = torch.Generator().manual_seed(2)
    first = torch.randn(3, generator=generator, dtype=torch.float64).requires_grad_()
    second = torch.randn((3, 3), generator=generator, dtype=torch.float64).requires_grad_()
    reference_first = torch.randn(3, generator=generator, dtype=torch.float64).log_softmax(0)
    reference_second = torch.randn((3, 3), generator=generator, dtype=torch.float64).log_softmax(1)
    completions = list(product(range(3), repeat=2))

    def scored(of_first: Tensor, of_second: Tensor) -> Tensor:
        return torch.stack([torch.stack((of_first[a], of_second[a, b])) for a, b in completions])

    logprobs = scored(first.log_softmax(0), second.log_softmax(1))
    reference = scored(reference_first, reference_second)
    chances = logprobs.detach().sum(1).exp()
    settings = ObjectiveConfig(kl_estimator="k1", kl_coefficient=1.0, ratio=ratio)
    losses = [
        chance
        * grpo_loss(
            row,
            row.detach(),
            at_reference,
            torch.zeros(1).double(),
            torch.ones((1, 2), dtype=torch.bool),
            settings=settings,
            normaliser=1.0,
        ).value
        for chance, row, at_reference in zip(
            chances, logprobs.split(1), reference.split(1), strict=True
        )
    ]
    ours = _gradient(torch.stack(losses).sum(), first, second)

    live = scored(first.log_softmax(0), second.log_softmax(1)).sum(1)
    exact = _gradient((live.exp() * (live - reference.sum(1))).sum(), first, second)
    assert torch.allclose(ours, exact, atol=1e-12)


def _one_token(
    logprob: float, old: float, reference: float | None, advantage: float, **settings: Any
) -> tuple[Loss, float]:
    """The loss of a single token with normaliser 1, and its gradient."""
    logprobs = torch.tensor([[logprob]], requires_grad=True)
    sampled = settings.pop("sampled", None)
    loss = grpo_loss(
        logprobs,
        torch.tensor([[old]]),
        None if reference is None else torch.tensor([[reference]]),
        torch.tensor([advantage]),
        torch.tensor([[True]]),
        settings=ObjectiveConfig(**settings),
        normaliser=1.0,
        sampled=None if sampled is None else torch.tensor([[sampled]]),
    )
    torch.autograd.backward(loss.value)
    assert logprobs.grad is not None
    return loss, logprobs.grad.item()


def test_loss_of_one_token_matches_the_arithmetic() -> None:
    # ratio exp(0.5) = 1.6487 is clipped to 1.2 for a positive advantage of 2: -2.4.
    # d = 0.3 - 0 = 0.3: k3 = 1.349859 - 1.3 = 0.049859; times 0.1: 0.0049859.
    loss, gradient = _one_token(-1.0, -1.5, -0.7, 2.0, clip=0.2, kl_coefficient=0.1)
    assert loss.value.item() == pytest.approx(-2.4 + 0.0049859, abs=1e-6)
    assert gradient == pytest.approx(0.1 * (1 - math.exp(0.3)), abs=1e-6)
    assert loss.kl_sum.item() == pytest.approx(0.049859, abs=1e-6)
    assert (loss.clipped_low.item(), loss.clipped_high.item()) == (0, 1)


def test_k2_is_a_term_of_the_loss_and_k1_part_of_the_advantage() -> None:
    # policy - reference = -0.3 now, -0.8 when it sampled: half the square of -0.3 is 0.045.
    settings = {"clip": 0.9, "kl_coefficient": 0.1}
    loss, gradient = _one_token(-1.0, -1.5, -0.7, 2.0, kl_estimator="k2", **settings)
    ratio = math.exp(0.5)
    assert loss.value.item() == pytest.approx(-2 * ratio + 0.0045, abs=1e-6)
    assert gradient == pytest.approx(-2 * ratio - 0.03, abs=1e-6)
    loss, gradient = _one_token(-1.0, -1.5, -0.7, 2.0, kl_estimator="k1", **settings)
    assert loss.value.item() == pytest.approx(-2.08 * ratio, abs=1e-6)
    assert gradient == pytest.approx(-2.08 * ratio, abs=1e-6)
    # What is shown is k3 in every case.
    assert loss.kl_sum.item() == pytest.approx(0.049859, abs=1e-6)


def test_the_upper_clip_can_be_farther_away() -> None:
    # ratio exp(0.25) = 1.284 lies between 1.2 and 1.3
    clipped, gradient = _one_token(-1.0, -1.25, None, 1.0)
    assert (clipped.value.item(), gradient) == (pytest.approx(-1.2), 0.0)
    free, gradient = _one_token(-1.0, -1.25, None, 1.0, clip_high=0.3)
    assert (free.value.item(), gradient) == (pytest.approx(-math.exp(0.25)),) * 2
    assert free.clipped_high.item() == 0
    # downwards the bound stays: exp(-0.25) = 0.78 is below 0.8
    low, gradient = _one_token(-1.25, -1.0, None, -1.0, clip_high=0.3)
    assert (low.value.item(), gradient) == (pytest.approx(0.8), 0.0)
    assert (low.clipped_low.item(), low.clipped_high.item()) == (1, 0)


def test_dual_clip_bounds_the_loss_of_a_negative_advantage_alone() -> None:
    ratio = math.exp(2.0)
    unbounded, gradient = _one_token(-1.0, -3.0, None, -1.0)
    assert (unbounded.value.item(), gradient) == (pytest.approx(ratio),) * 2
    bounded, gradient = _one_token(-1.0, -3.0, None, -1.0, dual_clip=3.0)
    assert (bounded.value.item(), gradient) == (pytest.approx(3.0), 0.0)
    positive, _ = _one_token(-1.0, -3.0, None, 1.0, dual_clip=3.0)
    assert positive.value.item() == pytest.approx(-1.2)


def test_mismatch_weights_stop_at_the_cap_and_leave_the_kl_term_alone() -> None:
    # exp(-1.5 + 2.0) = 1.6487
    loss, gradient = _one_token(-1.5, -1.5, None, 1.0, importance_cap=2.0, sampled=-2.0)
    assert (loss.value.item(), gradient) == (pytest.approx(-math.exp(0.5)),) * 2
    assert loss.importance_sum.item() == pytest.approx(math.exp(0.5))
    assert loss.importance_capped.item() == 0
    capped, gradient = _one_token(-1.5, -1.5, -1.2, 1.0, importance_cap=1.1, sampled=-2.0)
    assert gradient == pytest.approx(-1.1 + 0.15 * (1 - math.exp(0.3)), abs=1e-6)
    assert capped.importance_capped.item() == 1


def test_sequence_ratio_is_the_geometric_mean_without_the_padding() -> None:
    loss = grpo_loss(
        torch.tensor([[-1.0, -1.0, 0.0]]),
        torch.tensor([[-1.1, -1.3, 5.0]]),
        None,
        torch.tensor([1.0]),
        torch.tensor([[True, True, False]]),
        settings=ObjectiveConfig(ratio="sequence", clip=0.1),
        normaliser=1.0,
    )
    # exp((0.1 + 0.3) / 2) = 1.2214, clipped to 1.1 at both tokens
    assert loss.ratio_min.item() == loss.ratio_max.item() == pytest.approx(math.exp(0.2))
    assert loss.value.item() == pytest.approx(-2.2)
    assert loss.clipped_high.item() == 2


def test_ratio_extremes_leave_out_the_padding() -> None:
    loss = grpo_loss(
        torch.tensor([[-1.0, -1.0, 0.0]]),
        torch.tensor([[-1.1, -1.3, 0.0]]),
        None,
        torch.tensor([1.0]),
        torch.tensor([[True, True, False]]),
        settings=ObjectiveConfig(),
        normaliser=1.0,
    )
    assert loss.ratio_min.item() == pytest.approx(math.exp(0.1))
    assert loss.ratio_max.item() == pytest.approx(math.exp(0.3))


def test_huge_log_ratios_stay_finite() -> None:
    loss, gradient = _one_token(-0.1, -900.0, -900.0, -1.0)
    assert torch.isfinite(loss.value)
    assert math.isfinite(gradient)


@pytest.mark.parametrize("value", [math.inf, -math.inf, math.nan])
@pytest.mark.parametrize("broken", ["reference", "policy", "sampler"])
@pytest.mark.parametrize("estimator", ["k1", "k2", "k3"])
def test_a_number_that_is_not_finite_is_never_hidden(
    value: float, broken: str, estimator: str
) -> None:
    tensors = {name: torch.full((2, 3), -1.0) for name in ("policy", "reference", "sampler")}
    tensors[broken][1, 2] = value
    loss = grpo_loss(
        tensors["policy"],
        torch.full((2, 3), -1.0),
        tensors["reference"],
        torch.tensor([1.0, -1.0]),
        torch.ones(2, 3, dtype=torch.bool),
        settings=ObjectiveConfig(kl_coefficient=0.1, kl_estimator=estimator, importance_cap=2.0),
        normaliser=1.0,
        sampled=tensors["sampler"],
    )
    assert not torch.isfinite(loss.value)


def test_every_key_of_the_objective_is_documented() -> None:
    text = (Path(__file__).parents[2] / "docs" / "objective.md").read_text(encoding="utf-8")
    assert [key for key in ObjectiveConfig.model_fields if f"| `{key}` |" not in text] == []


def test_a_dual_clip_inside_the_clip_is_refused() -> None:
    assert with_overrides(RunConfig(), ["objective.dual_clip=1.25"]).objective.dual_clip == 1.25
    with pytest.raises(UserError, match=r"dual_clip must be above the upper clip, 1\.28"):
        with_overrides(RunConfig(), ["objective.dual_clip=1.25", "objective.clip_high=0.28"])


class _Step:
    """Tensors of a step of eight completions in two groups, drifted from what sampled them."""

    def __init__(self, drift: float = 0.3) -> None:
        generator = torch.Generator().manual_seed(3)
        rows, width = 8, 10

        def noise() -> Tensor:
            return torch.randn((rows, width), generator=generator)

        self.longest = 16
        self.logprobs = -3 * torch.rand((rows, width), generator=generator)
        self.old = self.logprobs + drift * noise()
        self.reference = self.logprobs + 0.2 * noise()
        self.sampled = self.old + 0.2 * noise()
        self.lengths = torch.tensor([10, 3, 7, 1, 10, 9, 2, 5])
        self.truncated = self.lengths == 10
        self.mask = torch.arange(width) < self.lengths[:, None]
        self.advantages = group_advantages(torch.rand(rows, generator=generator), group_size=4)

    def loss(
        self, settings: ObjectiveConfig, batches: list[list[int]] | None = None
    ) -> tuple[Loss, float, Tensor]:
        """The last micro-batch's loss, the sum of all, and the gradient."""
        kept = ~self.truncated if settings.mask_truncated else torch.ones(8, dtype=torch.bool)
        normaliser = step_normaliser(
            settings.normalisation,
            num_completions=8,
            num_tokens=int(self.lengths[kept].sum()),
            longest=self.longest,
        )
        logprobs = self.logprobs.clone().requires_grad_()
        total = 0.0
        for batch in batches or [list(range(8))]:
            rows = [row for row in batch if kept[row]]
            loss = grpo_loss(
                logprobs[rows],
                self.old[rows],
                self.reference[rows] if settings.kl_coefficient else None,
                self.advantages[rows],
                self.mask[rows],
                settings=settings,
                normaliser=normaliser,
                sampled=self.sampled[rows],
            )
            torch.autograd.backward(loss.value)
            total += loss.value.item()
        assert logprobs.grad is not None
        return loss, total, logprobs.grad


@pytest.mark.parametrize("kl_coefficient", [0.0, 0.15])
def test_defaults_give_the_published_formula_bit_for_bit(kl_coefficient: float) -> None:
    step = _Step()
    loss, _, gradient = step.loss(ObjectiveConfig(kl_coefficient=kl_coefficient))
    logprobs = step.logprobs.clone().requires_grad_()
    ratio = (logprobs - step.old).exp()
    weight = step.advantages[:, None]
    per_token = -torch.minimum(ratio * weight, ratio.clamp(1 - 0.2, 1 + 0.2) * weight)
    if kl_coefficient:
        difference = step.reference - logprobs
        per_token = per_token + kl_coefficient * (difference.exp() - difference - 1)
    plain = (per_token * step.mask).sum() / (8 * step.longest)
    torch.autograd.backward(plain)
    assert torch.equal(loss.value, plain)
    assert logprobs.grad is not None
    assert torch.equal(gradient, logprobs.grad)


@pytest.mark.parametrize("truncated", [False, True])
@pytest.mark.parametrize("normalisation", ["dr_grpo", "grpo", "dapo"])
def test_micro_batches_add_up_to_the_loss_of_the_step(normalisation: Any, truncated: bool) -> None:
    settings = ObjectiveConfig(normalisation=normalisation, mask_truncated=truncated)
    step = _Step()
    _, whole, gradient = step.loss(settings)
    _, pieces, in_pieces = step.loss(settings, batches=[[0, 1, 2], [3], [4, 5, 6, 7]])
    assert pieces == pytest.approx(whole, abs=1e-6)
    assert torch.equal(gradient, in_pieces)


class _TrlWithGivenLogprobs:
    """Just enough of a GRPOTrainer for its ``_compute_loss``, fed with our tensors."""

    def __init__(self, logprobs: Tensor, settings: ObjectiveConfig, longest: int) -> None:
        self._logprobs = logprobs
        self.args = SimpleNamespace(
            use_bias_correction_kl=False, delta=settings.dual_clip, steps_per_generation=1
        )
        self.beta = settings.kl_coefficient
        self.epsilon_low, self.epsilon_high = settings.clip, settings.upper_clip
        self.loss_type = settings.normalisation
        self.importance_sampling_level = settings.ratio
        self.top_entropy_quantile = 1.0
        self.off_policy_mask_threshold = None
        self.use_vllm = self.vllm_importance_sampling_correction = (
            settings.importance_cap is not None
        )
        self.aux_loss_enabled = False
        self._entropy_bonus_enabled = False
        self.max_completion_length = longest
        self.current_gradient_accumulation_steps = 1
        self.model = SimpleNamespace(training=True)
        self.accelerator = SimpleNamespace(
            num_processes=1,
            gather=lambda tensor: tensor,
            reduce=lambda tensor, reduction: tensor,
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


_CASES: dict[str, dict[str, Any]] = {
    "defaults": {},
    "grpo": {"normalisation": "grpo"},
    "dapo": {"normalisation": "dapo"},
    "gspo": {"normalisation": "grpo", "ratio": "sequence", "clip": 0.05},
    "sequence_dr_grpo": {"ratio": "sequence", "clip": 0.05},
    "sequence_dapo": {"normalisation": "dapo", "ratio": "sequence", "clip": 0.05},
    "clip_high": {"clip_high": 0.28},
    "dual_clip": {"dual_clip": 1.3},
    "dual_clip_sequence": {"ratio": "sequence", "clip": 0.05, "dual_clip": 1.06},
    "importance_cap": {"importance_cap": 1.1},
    "truncated_dr_grpo": {"mask_truncated": True},
    "truncated_grpo": {"normalisation": "grpo", "mask_truncated": True},
    "truncated_dapo": {"normalisation": "dapo", "mask_truncated": True},
    "dapo_recipe": {"normalisation": "dapo", "clip_high": 0.28, "mask_truncated": True},
    "all": {
        "normalisation": "dapo",
        "clip_high": 0.28,
        "dual_clip": 1.3,
        "importance_cap": 1.1,
        "mask_truncated": True,
    },
}


@pytest.mark.parametrize("case", _CASES)
@pytest.mark.parametrize("beta", [0.0, 0.15])
@pytest.mark.parametrize("drift", [0.0, 0.3])
def test_loss_and_gradient_equal_those_of_trl(case: str, beta: float, drift: float) -> None:
    settings = ObjectiveConfig(kl_coefficient=beta, **_CASES[case])
    step = _Step(drift)
    ours, value, gradient = step.loss(settings)

    # As TRL prepares a batch: nothing of a truncated completion is attended to or counted.
    mask = step.mask & ~step.truncated[:, None] if settings.mask_truncated else step.mask
    mismatch = ((step.old - step.sampled) * mask).exp().clamp(max=settings.importance_cap or 1.0)
    logprobs = step.logprobs.clone().requires_grad_()
    trainer = _TrlWithGivenLogprobs(logprobs, settings, step.longest)
    inputs = {
        "prompt_ids": torch.zeros((8, 1), dtype=torch.long),
        "prompt_mask": torch.ones((8, 1), dtype=torch.long),
        "completion_ids": torch.zeros_like(mask, dtype=torch.long),
        "completion_mask": mask.long(),
        "num_items_in_batch": mask.sum(),
        "advantages": step.advantages,
        "old_per_token_logps": step.old,
        "ref_per_token_logps": step.reference,
        "importance_sampling_ratio": mismatch,
    }
    theirs = GRPOTrainer._compute_loss(trainer, None, inputs)
    theirs.backward()

    assert value == pytest.approx(theirs.item(), abs=1e-6)
    assert logprobs.grad is not None
    assert torch.allclose(gradient, logprobs.grad, atol=1e-7)
    tokens = mask.sum().item()
    metrics = trainer._metrics["train"]
    if beta:
        assert ours.kl_sum.item() / tokens == pytest.approx(metrics["kl"][0], abs=1e-6)
    if settings.ratio == "token":  # TRL counts sequences there, we count tokens
        shares = [ours.clipped_low.item() / tokens, ours.clipped_high.item() / tokens]
        theirs_low, theirs_high = metrics["clip_ratio/low_mean"], metrics["clip_ratio/high_mean"]
        assert shares == pytest.approx([theirs_low[0], theirs_high[0]], abs=1e-6)
    if settings.importance_cap is not None:
        assert ours.importance_sum.item() == pytest.approx((mismatch * mask).sum().item())
        at_cap = ((mismatch == settings.importance_cap) & mask).sum().item()
        assert ours.importance_capped.item() == at_cap > 0


def test_every_case_against_trl_differs_from_the_defaults() -> None:
    step = _Step()
    _, _, defaults = step.loss(ObjectiveConfig())
    for case, values in _CASES.items():
        _, _, gradient = step.loss(ObjectiveConfig(**values))
        assert torch.equal(gradient, defaults) == (case == "defaults"), case

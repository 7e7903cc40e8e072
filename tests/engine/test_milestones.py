"""The four indicators and the power level, against streams worked out by hand."""

import random
from collections.abc import Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.training.entropy import Entropy
from engine.training.milestones import FULL_POWER, Milestones
from engine.training.trend import LARGEST_T, trend_t

GOOD_VALIDATION = {
    "accuracy": 0.86,
    "accuracy/n": 200.0,
    "accuracy/days": 60.0,
    "accuracy/day_low": 0.75,
    "baseline/always_up": 0.53,
    "baseline/always_down": 0.47,
    "baseline/momentum": 0.50,
    "rubric/reasoning": 0.30,
    "reward/total": 0.70,
}


def step_metrics(rubric: float = 0.75, *, loss: float = 0.0) -> dict[str, float]:
    return {"rubric/total": rubric, "entropy": 0.8, "groups/zero_variance": 0.0, "loss": loss}


def noisy_loss(step: int) -> float:
    """Up and down around 0: no trend over an even or odd number of steps."""
    return 0.01 if step % 2 else -0.01


def named(milestones: Milestones, name: str) -> Mapping[str, object]:
    return next(one for one in milestones.indicators() if one["name"] == name)


def arrived() -> Milestones:
    """A run that lit all four: fifteen good batches, good validations at steps 5 and 15."""
    milestones = Milestones(settle_window=15)
    for step in range(1, 16):
        milestones.after_step(step, step_metrics(loss=noisy_loss(step)))
        if step in (5, 15):
            milestones.after_validation(step, GOOD_VALIDATION)
    return milestones


# --- the trend


def test_trend_is_the_t_statistic_of_the_slope() -> None:
    # y = 1, 2, 4 over x = 0, 1, 2: slope 1.5, intercept 5/6, residuals 1/6, -1/3, 1/6, so the
    # noise is (1/36 + 4/36 + 1/36) / 1 = 1/6 and t = 1.5 / sqrt((1/6) / 2) = 5.196.
    assert trend_t([(0, 1.0), (1, 2.0), (2, 4.0)]) == pytest.approx(5.196, abs=1e-3)
    assert trend_t([(0, 4.0), (1, 2.0), (2, 1.0)]) == pytest.approx(-5.196, abs=1e-3)


def test_trend_of_a_constant_is_nothing_and_of_a_straight_line_as_large_as_it_gets() -> None:
    assert trend_t([(0, 0.3), (1, 0.3), (2, 0.3)]) == 0.0
    assert trend_t([(0, 1.0), (1, 2.0), (2, 3.0)]) == LARGEST_T
    assert trend_t([(0, 1.0), (1, 2.0)]) is None


def test_noise_alone_is_called_a_trend_about_once_in_twenty() -> None:
    rng = random.Random(3)
    found = 0
    for _ in range(1000):
        t = trend_t([(step, rng.gauss(0, 1)) for step in range(30)])
        found += t is not None and abs(t) > 2
    # P(|t| > 2) with 28 degrees of freedom is 0.055.
    assert 30 < found < 85


# --- reward


def test_reward_lights_after_ten_batches_in_a_row_above_the_threshold() -> None:
    milestones = Milestones(settle_window=100)
    for step in range(1, 10):
        milestones.after_step(step, step_metrics(0.71))
    assert named(milestones, "reward") == {
        "name": "reward",
        "value": 0.71,
        "threshold": 0.70,
        "on": False,
        "streak": 9,
        "needed": 10,
        "why": "above 0.70 in 9 of 10 batches",
    }
    milestones.after_step(10, step_metrics(0.71))
    assert named(milestones, "reward")["on"] is True
    assert named(milestones, "reward")["why"] == ""


def test_one_batch_at_the_threshold_starts_the_streak_anew() -> None:
    milestones = Milestones(settle_window=100)
    for step in range(1, 11):
        milestones.after_step(step, step_metrics(0.9))
    milestones.after_step(11, step_metrics(0.70))
    assert named(milestones, "reward")["on"] is False
    assert named(milestones, "reward")["streak"] == 0


# --- accuracy


def test_accuracy_lights_at_the_second_good_validation_in_a_row() -> None:
    milestones = Milestones(settle_window=100)
    assert named(milestones, "accuracy")["why"] == "not validated yet"
    milestones.after_validation(50, GOOD_VALIDATION)
    assert named(milestones, "accuracy")["on"] is False
    assert named(milestones, "accuracy")["why"] == "1 of 2 validations in a row"
    milestones.after_validation(100, GOOD_VALIDATION)
    assert named(milestones, "accuracy")["on"] is True


@pytest.mark.parametrize(
    ("metrics", "why"),
    [
        ({"accuracy/n": 24.0}, "n=24 of 200"),
        ({"accuracy/days": 59.0}, "59 of 60 days"),
        ({"accuracy": 0.80}, "80 % of 80 %"),
        ({"accuracy/day_low": 0.53}, "lower bound 53 %, always_up 53 %"),
        ({"baseline/momentum": 0.78}, "lower bound 75 %, momentum 78 %"),
        ({"baseline/always_down": 0.75}, "lower bound 75 %, always_down 75 %"),
    ],
)
def test_accuracy_that_does_not_count_says_why_and_breaks_the_streak(
    metrics: dict[str, float], why: str
) -> None:
    milestones = Milestones(settle_window=100)
    milestones.after_validation(50, GOOD_VALIDATION)
    milestones.after_validation(100, GOOD_VALIDATION | metrics)
    assert named(milestones, "accuracy")["on"] is False
    assert named(milestones, "accuracy")["streak"] == 0
    assert named(milestones, "accuracy")["why"] == why


def test_accuracy_without_an_interval_over_days_never_lights() -> None:
    milestones = Milestones(settle_window=100)
    known = {name: GOOD_VALIDATION[name] for name in GOOD_VALIDATION if "day_low" not in name}
    milestones.after_validation(50, known)
    assert named(milestones, "accuracy")["why"] == "no interval or no baseline"


# --- reasoning


def test_reasoning_lights_at_the_threshold_itself() -> None:
    milestones = Milestones(settle_window=100)
    milestones.after_validation(50, {"rubric/reasoning": 0.299})
    assert named(milestones, "reasoning")["on"] is False
    assert named(milestones, "reasoning")["why"] == "0.30 of 0.30"
    milestones.after_validation(100, {"rubric/reasoning": 0.30})
    assert named(milestones, "reasoning")["on"] is True


# --- settled


def test_settled_waits_for_a_full_window() -> None:
    milestones = Milestones(settle_window=15)
    for step in range(1, 15):
        milestones.after_step(step, step_metrics(loss=noisy_loss(step)))
    assert named(milestones, "settled")["value"] is None
    assert named(milestones, "settled")["why"] == "14 of 15 steps"


def test_settled_is_on_when_nothing_moves_any_more() -> None:
    settled = named(arrived(), "settled")
    assert settled["on"] is True
    assert settled["threshold"] == 2.0
    assert isinstance(settled["value"], float)
    assert settled["value"] < 2


def test_loss_with_a_trend_is_not_settled() -> None:
    milestones = arrived()
    for step in range(16, 31):
        milestones.after_step(step, step_metrics(loss=0.01 * step + noisy_loss(step)))
    settled = named(milestones, "settled")
    assert settled["on"] is False
    assert str(settled["why"]).startswith("loss still moves: |t|")


def test_trend_before_the_window_is_forgotten() -> None:
    milestones = Milestones(settle_window=15)
    for step in range(1, 40):
        loss = 1.0 / step if step < 20 else noisy_loss(step)
        milestones.after_step(step, step_metrics(loss=loss))
    milestones.after_validation(20, GOOD_VALIDATION)
    milestones.after_validation(39, GOOD_VALIDATION)
    assert named(milestones, "settled")["on"] is True


def test_collapsed_policy_with_a_quiet_loss_is_not_settled() -> None:
    milestones = arrived()
    for step in range(16, 21):
        metrics = step_metrics(loss=0.0) | {"entropy": 0.0017}
        milestones.after_step(step, metrics)
    assert named(milestones, "settled")["on"] is False
    assert named(milestones, "settled")["why"] == "entropy 0.002 below 0.050"


def test_groups_without_contrast_are_not_settled() -> None:
    milestones = arrived()
    for step in range(16, 26):  # ten of the twenty steps that are looked at
        metrics = step_metrics(loss=noisy_loss(step)) | {"groups/zero_variance": 1.0}
        milestones.after_step(step, metrics)
    assert named(milestones, "settled")["why"] == "50 % of groups without contrast"


@pytest.mark.parametrize(
    ("rewards", "why"),
    [
        ({}, "0 of 2 validations"),
        ({25: 0.6}, "1 of 2 validations"),
        ({20: 0.60, 30: 0.649}, ""),
        ({20: 0.60, 30: 0.65}, "validation reward still moves: by 0.05"),
        # The newest validation before the window is where the window begins.
        ({5: 0.60, 30: 0.62}, ""),
        ({5: 0.40, 30: 0.62}, "validation reward still moves: by 0.22"),
        ({1: 0.20, 5: 0.60, 30: 0.62}, ""),
        ({18: 0.60, 22: 0.62, 26: 0.59, 30: 0.61}, ""),
        ({18: 0.50, 22: 0.551, 26: 0.60, 30: 0.651}, "validation reward still moves: |t| 99.0"),
    ],
)
def test_validation_reward_is_level_by_its_range_and_from_four_on_by_its_trend(
    rewards: dict[int, float], why: str
) -> None:
    milestones = Milestones(settle_window=15)
    for step in range(1, 31):
        milestones.after_step(step, step_metrics(loss=noisy_loss(step)))
        if step in rewards:
            milestones.after_validation(step, {"reward/total": rewards[step]})
    if "|t|" in why:
        assert str(named(milestones, "settled")["why"]).startswith(why.rpartition(" ")[0])
    else:
        assert named(milestones, "settled")["why"] == why


def test_steps_without_a_loss_leave_it_unknown() -> None:
    milestones = Milestones(settle_window=10)
    for step in range(1, 21):
        metrics = step_metrics(loss=noisy_loss(step))
        if step > 14:
            del metrics["loss"]
        milestones.after_step(step, metrics)
    assert named(milestones, "settled")["why"] == "loss unknown in most steps"


# --- the power level


def test_power_is_over_9000_when_all_four_are_on_and_only_then() -> None:
    milestones = arrived()
    assert milestones.is_super_saiyan
    assert milestones.power == FULL_POWER == 9001
    milestones.after_step(16, step_metrics(0.7))
    # Nothing but the streak is gone: 9000 * (3 + 0.8) / 4.
    assert milestones.power == 8550


def test_power_of_a_run_that_has_seen_nothing_is_nothing() -> None:
    assert Milestones(settle_window=15).power == 0


def test_power_is_the_mean_of_the_four_ways() -> None:
    milestones = Milestones(settle_window=15)
    milestones.after_step(1, step_metrics(0.35))
    validation = {"accuracy": 0.65, "accuracy/n": 24.0, "rubric/reasoning": 0.15}
    milestones.after_validation(1, validation)
    # Each is half way; settled is unknown: floor(9000 * (0.8 * 0.5 * 3) / 4).
    assert milestones.power == 2700


def test_calling_by_coin_flip_gives_no_power() -> None:
    milestones = Milestones(settle_window=15)
    milestones.after_validation(1, {"accuracy": 0.5, "accuracy/n": 200.0})
    assert milestones.power == 0


@given(
    st.floats(0, 1),
    st.floats(0, 1),
    st.sampled_from(["rubric/total", "accuracy", "rubric/reasoning"]),
)
def test_power_never_falls_when_an_indicator_gets_closer(
    first: float, second: float, name: str
) -> None:
    low, high = sorted((first, second))

    def power(value: float) -> int:
        milestones = Milestones(settle_window=15)
        for step in range(1, 4):
            milestones.after_step(step, step_metrics(0.5) | {name: value})
            milestones.after_validation(step, GOOD_VALIDATION | {name: value})
        return milestones.power

    assert 0 <= power(low) <= power(high) < 9000


# --- state


def test_state_gives_the_same_milestones_at_every_step() -> None:
    whole, parts = Milestones(settle_window=15), Milestones(settle_window=15)
    for step in range(1, 41):
        for milestones in (whole, parts):
            milestones.after_step(step, step_metrics(0.6 + step / 100, loss=noisy_loss(step)))
            if step % 5 == 0:
                milestones.after_validation(step, GOOD_VALIDATION)
        parts = Milestones.restore(15, parts.state())
        assert parts.indicators() == whole.indicators()
        assert parts.power == whole.power


def test_entropy_floor_of_a_policy_that_starts_sharp_is_a_quarter_of_its_start() -> None:
    sharp, broad = Entropy(), Entropy()
    for _ in range(5):
        sharp.take({"entropy": 0.08})
        broad.take({"entropy": 1.1})
    assert sharp.floor == pytest.approx(0.02)
    assert broad.floor == pytest.approx(0.05)
    assert not sharp.is_collapsed

"""Scores of stated probabilities: by hand, and equal to scikit-learn's."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.calibration import calibration_curve
from sklearn.metrics import brier_score_loss, roc_auc_score

from engine.evaluation.scores import brier, calibration_error, roc_auc

# Whole percents, as models state them: ties are common.
stated_calls = st.lists(
    st.tuples(st.integers(0, 100).map(lambda percent: percent / 100), st.booleans()),
    min_size=1,
    max_size=150,
)


def test_the_area_under_the_curve_by_hand() -> None:
    # Pairs (positive, negative): .9>.6, .9>.2, .6=.6 a half, .6>.2: 3.5 of 4.
    assert roc_auc([0.9, 0.6, 0.6, 0.2], [True, True, False, False]) == 0.875
    assert roc_auc([0.9, 0.1], [True, False]) == 1
    assert roc_auc([0.1, 0.9], [True, False]) == 0
    assert roc_auc([0.5] * 4, [True, False, False, False]) == 0.5


@pytest.mark.parametrize("positive", [[], [True, True], [False]])
def test_one_class_has_no_area_under_the_curve(positive: list[bool]) -> None:
    assert roc_auc([0.4] * len(positive), positive) is None


@given(stated_calls)
def test_the_area_under_the_curve_is_that_of_scikit_learn(calls: list[tuple[float, bool]]) -> None:
    scores, positive = map(list, zip(*calls, strict=True))
    area = roc_auc(scores, positive)
    if len(set(positive)) == 2:
        assert area == pytest.approx(roc_auc_score(positive, scores))
    else:
        assert area is None


def test_the_brier_score_by_hand() -> None:
    # (.8-1)² + (.6-0)² = .04 + .36, of 2
    assert brier([0.8, 0.6], [True, False]) == pytest.approx(0.2)


@given(stated_calls)
def test_the_brier_score_is_that_of_scikit_learn(calls: list[tuple[float, bool]]) -> None:
    confidences, right = map(list, zip(*calls, strict=True))
    expected = brier_score_loss(right, confidences, labels=[False, True])
    assert brier(confidences, right) == pytest.approx(expected)


def test_the_calibration_error_of_two_bins_by_hand() -> None:
    # Ten calls at 60 % of which 7 are right, ten at 90 % of which 5 are: gaps .1 and .4.
    confidences = [0.6] * 10 + [0.9] * 10
    right = [True] * 7 + [False] * 3 + [True] * 5 + [False] * 5
    error, by_chance = calibration_error(confidences, right)
    assert error == pytest.approx(0.5 * 0.1 + 0.5 * 0.4)
    # √(2/π) · (√(10 · .24) + √(10 · .09)) / 20 = .79788 · (1.54919 + .94868) / 20
    assert by_chance == pytest.approx(0.09965, abs=1e-5)


def test_gaps_of_opposite_sign_do_not_cancel_between_bins() -> None:
    confidences = [0.6] * 10 + [0.8] * 10
    right = [True] * 8 + [False] * 2 + [True] * 6 + [False] * 4
    assert calibration_error(confidences, right)[0] == pytest.approx(0.2)


def test_a_bin_holds_ten_calls_or_more() -> None:
    # 19 calls make one bin, in which the gaps cancel: mean .7, right 14 of 19.
    confidences = [0.6] * 9 + [0.7] + [0.8] * 9
    right = [True] * 14 + [False] * 5
    assert calibration_error(confidences, right)[0] == pytest.approx(14 / 19 - 0.7)
    assert calibration_error([0.7], [True])[0] == pytest.approx(0.3)


def test_a_frequent_confidence_does_not_swallow_a_rare_one() -> None:
    # 15 calls at 60 % all wrong, 185 at 80 % all right: .6·15/200 + .2·185/200
    error, _ = calibration_error([0.6] * 15 + [0.8] * 185, [False] * 15 + [True] * 185)
    assert error == pytest.approx(0.045 + 0.185)


def test_the_calibration_error_is_that_of_scikit_learns_quantile_curve() -> None:
    rng = np.random.default_rng(3)
    confidences = rng.uniform(0.5, 1, size=200)
    right = rng.random(200) < confidences**2
    observed, stated = calibration_curve(right, confidences, n_bins=10, strategy="quantile")
    error, _ = calibration_error(confidences.tolist(), right.tolist())
    assert error == pytest.approx(np.abs(observed - stated).mean())  # bins of 20 each


@given(stated_calls, st.randoms(use_true_random=False))
def test_the_calibration_error_does_not_depend_on_the_order(
    calls: list[tuple[float, bool]], rng: object
) -> None:
    shuffled = calls.copy()
    rng.shuffle(shuffled)  # type: ignore[attr-defined]
    error, by_chance = calibration_error(*zip(*calls, strict=True))
    assert calibration_error(*zip(*shuffled, strict=True)) == pytest.approx((error, by_chance))
    assert 0 <= error <= 1
    assert 0 <= by_chance <= 1


def test_the_error_by_chance_is_what_calibrated_callers_score_on_average() -> None:
    rng = np.random.default_rng(6)
    confidences = rng.integers(50, 96, size=200) / 100
    errors = []
    for _ in range(2000):
        right = rng.random(200) < confidences
        error, by_chance = calibration_error(confidences.tolist(), right.tolist())
        errors.append(error)
    spread = float(np.std(errors)) / math.sqrt(len(errors))
    assert by_chance == pytest.approx(np.mean(errors), abs=4 * spread + 0.001)
    assert by_chance > 0.05

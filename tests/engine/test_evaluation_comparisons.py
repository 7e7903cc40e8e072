"""Tests between two callers, against statsmodels and SciPy."""

import numpy as np
import pytest
from scipy.stats import ttest_1samp
from statsmodels.api import OLS
from statsmodels.stats.contingency_tables import mcnemar as their_mcnemar
from statsmodels.stats.multitest import multipletests

from engine.evaluation.comparisons import EXACT_BELOW, diebold_mariano, holm, mcnemar


@pytest.mark.parametrize(
    ("only_first", "only_second"), [(1, 0), (9, 2), (5, 19), (12, 13), (30, 30), (150, 86)]
)
def test_mcnemar_equals_that_of_statsmodels(only_first: int, only_second: int) -> None:
    first = np.array([True] * 40 + [True] * only_first + [False] * (only_second + 7))
    second = np.array([True] * 40 + [False] * only_first + [True] * only_second + [False] * 7)
    test = mcnemar(first, second)
    is_exact = only_first + only_second < EXACT_BELOW
    table = [[40, only_first], [only_second, 7]]
    theirs = their_mcnemar(table, exact=is_exact, correction=True)
    if only_first == only_second:  # theirs takes the correction beyond 0
        assert test["p"] == 1
    else:
        assert test["p"] == pytest.approx(theirs.pvalue)
    assert test["value"] == only_first - only_second
    assert test["n"] == only_first + only_second


def test_mcnemar_of_equal_callers_is_not_computable() -> None:
    right = np.array([True, False])
    assert mcnemar(right, right)["why"] == "both are right on the same rows"


def test_diebold_mariano_one_day_ahead_is_the_t_test_over_days() -> None:
    differences = np.random.default_rng(3).normal(0.1, 1, 60)
    theirs = ttest_1samp(differences, 0)
    ours = diebold_mariano(differences.tolist(), 1)
    assert ours["value"] == pytest.approx(theirs.statistic)
    assert ours["p"] == pytest.approx(theirs.pvalue)


@pytest.mark.parametrize("horizon", [2, 5])
def test_diebold_mariano_further_ahead_is_a_hac_regression_with_the_correction(
    horizon: int,
) -> None:
    shocks = np.random.default_rng(4).normal(0, 1, 104)
    differences = np.convolve(shocks, np.ones(horizon), mode="valid")[:100] + 0.3
    fit = OLS(differences, np.ones(100)).fit(
        cov_type="HAC", cov_kwds={"maxlags": horizon - 1, "kernel": "uniform"}
    )
    correction = (101 - 2 * horizon + horizon * (horizon - 1) / 100) / 100
    ours = diebold_mariano(differences.tolist(), horizon)
    assert ours["value"] == pytest.approx(fit.tvalues[0] * np.sqrt(correction))
    assert ours["n"] == 100


@pytest.mark.parametrize(
    ("differences", "horizon", "why"),
    [
        ([0.1] * 19, 1, "19 days, fewer than 20"),
        ([0.1, 0.2] * 15, 20, "30 days, fewer than 40"),
        ([0.0] * 30, 1, "the losses differ by the same on every day"),
        ([0.25] * 30, 1, "the losses differ by the same on every day"),
        ([1.0, -1.0] * 15, 2, "no variance"),
    ],
)
def test_what_is_not_computable_says_why(differences: list[float], horizon: int, why: str) -> None:
    test = diebold_mariano(differences, horizon)
    assert (test["value"], test["p"], test["why"]) == (None, None, why)


def test_holm_equals_that_of_statsmodels() -> None:
    rng = np.random.default_rng(5)
    for size in (1, 2, 7, 20):
        p_values = (rng.random(size) ** 3).tolist()
        assert holm(p_values) == pytest.approx(multipletests(p_values, method="holm")[1])


def test_holm_leaves_out_what_was_not_tested() -> None:
    assert holm([0.04, None, 0.01]) == [0.04, None, 0.02]
    assert holm([None]) == [None]
    assert holm([]) == []

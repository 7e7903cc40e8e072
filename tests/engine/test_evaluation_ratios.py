"""Ratios of returns against published examples, other implementations and hand-made sums."""

import math

import arch.bootstrap
import empyrical
import numpy as np
import pytest

from engine.evaluation import ratios


def test_probabilistic_sharpe_is_that_of_the_paper() -> None:
    # Bailey & López de Prado 2012, section 5: a hedge fund's 24 monthly returns, skewness -2.448,
    # kurtosis 10.164; 0.982 if they were normal, 0.913 as they are.
    fund = {"sharpe": 0.458, "benchmark": 0.0, "num_returns": 24}
    normal = ratios.probabilistic_sharpe(**fund, skewness=0, kurtosis=3)
    actual = ratios.probabilistic_sharpe(**fund, skewness=-2.448, kurtosis=10.164)
    assert normal == pytest.approx(0.982, abs=5e-4)
    assert actual == pytest.approx(0.913, abs=5e-4)


@pytest.mark.parametrize(
    ("trials", "skewness", "kurtosis", "published"),
    [(100, -3, 10, 0.9004), (46, -3, 10, 0.9505), (88, 0, 3, 0.9505)],
)
def test_deflated_sharpe_is_that_of_the_paper(
    trials: int, skewness: float, kurtosis: float, published: float
) -> None:
    # Bailey & López de Prado 2014, "A numerical example": 1,250 daily returns, 250 a year,
    # an annualised ratio of 2.5, variance 1/2 of the trials' annualised ratios.
    benchmark = ratios.expected_best_sharpe(0.5 / 250, trials)
    deflated = ratios.probabilistic_sharpe(
        2.5 / math.sqrt(250),
        benchmark,
        num_returns=1250,
        skewness=skewness,
        kurtosis=kurtosis,
    )
    assert deflated == pytest.approx(published, abs=2e-4)


def test_benchmark_of_a_hundred_trials_is_that_of_the_paper() -> None:
    assert ratios.expected_best_sharpe(0.5 / 250, 100) == pytest.approx(0.1132, abs=5e-5)


def test_the_best_of_worthless_trials_shows_what_is_expected() -> None:
    best = np.random.default_rng(0).normal(0, 0.1, (20_000, 50)).max(axis=1).mean()
    assert ratios.expected_best_sharpe(0.01, 50) == pytest.approx(
        best, rel=0.02
    )  # an approximation for large N


def test_one_trial_is_not_deflated() -> None:
    assert ratios.expected_best_sharpe(0.01, 1) == 0


def returns_with_memory(num_days: int = 250) -> ratios.Returns:
    rng = np.random.default_rng(5)
    shocks = rng.standard_t(4, num_days) * 0.01
    return 0.001 + shocks + 0.3 * np.concatenate(([0.0], shocks[:-1]))


def test_daily_sharpe_is_that_of_empyrical() -> None:
    returns = returns_with_memory()
    annual = empyrical.sharpe_ratio(returns)
    assert ratios.daily_sharpe(returns) == pytest.approx(annual / math.sqrt(252), rel=1e-12)


def test_interval_is_that_of_the_circular_block_bootstrap_of_arch() -> None:
    returns = returns_with_memory()
    other = arch.bootstrap.CircularBlockBootstrap(6, returns, seed=np.random.default_rng(1))
    theirs = other.conf_int(
        lambda drawn: drawn.mean() / drawn.std(ddof=1), reps=4000, method="percentile"
    ).ravel()
    ours = ratios.sharpe_interval(returns, seed=2)
    assert ours == pytest.approx(theirs, abs=0.008)  # a twentieth of its width, by chance


def test_interval_covers_a_true_ratio_as_often_as_it_says() -> None:
    covered = 0
    for seed in range(200):
        returns = np.random.default_rng(seed).normal(0.1, 1, 250)
        interval = ratios.sharpe_interval(returns, seed=seed, draws=500)
        assert interval is not None
        covered += interval[0] <= 0.1 <= interval[1]
    assert covered >= 180  # of 190 expected; the percentile method is a little narrow


@pytest.mark.parametrize("returns", [np.zeros(100), np.full(100, 0.01), np.ones(1)])
def test_no_variance_no_ratio(returns: ratios.Returns) -> None:
    assert ratios.daily_sharpe(returns) is None
    assert ratios.sharpe_interval(returns, seed=0) is None


def test_too_few_days_have_no_interval() -> None:
    assert ratios.sharpe_interval(returns_with_memory(19), seed=0) is None


def test_a_series_that_is_almost_constant_has_an_interval_all_the_same() -> None:
    returns = np.zeros(40)
    returns[7] = 0.01
    interval = ratios.sharpe_interval(returns, seed=0, draws=1000)
    assert interval is not None
    assert all(map(math.isfinite, interval))


def test_profit_factor_by_hand() -> None:
    assert ratios.profit_factor(np.array([0.02, -0.01, 0.01, 0.0])) == pytest.approx(3)
    assert ratios.profit_factor(np.array([0.02])) is None


def test_drawdowns_by_hand() -> None:
    found = ratios.drawdowns([0.9, 1.2, 0.6, 1.5])
    assert found == pytest.approx([-0.1, 0, -0.5, 0])

"""Window statistics by hand, autocorrelations by definition."""

import numpy as np
import pytest

from engine.market.statistics import LAG_RETURNS, MAX_LAGS, Statistics, describe, lags


def of(closes: list[float]) -> Statistics:
    """The statistics of one window that is the whole series."""
    series = np.array(closes)
    return describe(series, np.array([len(series) - 1]), len(series), np.ones(1))[0]


def test_an_odd_window_by_hand() -> None:
    # In order: 1 (day 3), 2 (day 0), 3 (day 4), 5 (day 1), 9 (day 2); their sum is 20.
    assert of([2, 5, 9, 1, 3]) == Statistics(
        min=1,
        min_timestep=3,
        max=9,
        max_timestep=2,
        mean=4,
        median=3,
        median_timestep=4,
        trend=1,
        lags=None,
    )


def test_the_median_of_an_even_window_lies_between_two_and_stands_at_the_lower() -> None:
    # In order: 1 (day 2), 2 (day 0), 4 (day 3), 8 (day 1).
    statistics = of([2, 8, 1, 4])
    assert (statistics.median, statistics.median_timestep) == (3, 0)


def test_of_equal_values_the_earliest_is_told() -> None:
    statistics = of([3, 7, 3, 7, 5, 5, 5])
    assert (statistics.min_timestep, statistics.max_timestep) == (0, 1)
    assert (statistics.median, statistics.median_timestep) == (5, 4)


def test_windows_end_on_their_rows_at_their_levels() -> None:
    closes = np.array([1.0, 2.0, 4.0, 8.0])
    first, second = describe(closes, np.array([1, 3]), 2, np.array([1.0, 10.0]))
    assert (first.min, first.max, first.trend) == (1, 2, 1)
    assert (second.min, second.max, second.trend) == (40, 80, 40)


@pytest.fixture(scope="module")
def closes() -> np.ndarray:
    """A series whose returns swing with a period of seven days, in noise."""
    days = np.arange(600)
    noise = np.random.default_rng(5).normal(0, 0.003, len(days))
    return 100 * np.exp(np.cumsum(0.01 * np.sin(2 * np.pi * days / 7) + noise))


def autocorrelations(returns: np.ndarray) -> np.ndarray:
    """Sample autocorrelations of lags 1 to n - 1 by their definition."""
    centred = returns - returns.mean()
    products = [centred[lag:] @ centred[:-lag] for lag in range(1, len(centred))]
    return np.array(products) / (centred @ centred)


def test_lags_are_the_strongest_significant_autocorrelations(closes: np.ndarray) -> None:
    rows = np.array([250, 400, 599])
    for row, found in zip(rows, lags(closes, rows), strict=True):
        assert found is not None
        expected = autocorrelations((closes[1:] / closes[:-1] - 1)[row - LAG_RETURNS : row])
        strongest = np.argsort(-np.abs(expected))[:MAX_LAGS]
        assert [lag.days for lag in found] == (strongest + 1).tolist()
        assert [lag.correlation for lag in found] == pytest.approx(expected[strongest].tolist())
        assert found[0].days == 7


def test_what_white_noise_would_show_too_is_no_lag() -> None:
    # With the band at 1.96/√250 = 0.124, one lag in twenty of pure noise passes it.
    noise = np.random.default_rng(1).normal(0, 0.01, 400)
    closes = 100 * np.cumprod(1 + noise)
    for found in lags(closes, np.arange(250, 400)):
        assert found is not None
        assert all(abs(lag.correlation) > 1.96 / 250**0.5 for lag in found)
        assert len(found) <= MAX_LAGS


def test_lags_are_unknown_before_a_year_of_returns(closes: np.ndarray) -> None:
    before, after = lags(closes, np.array([LAG_RETURNS - 1, LAG_RETURNS]))
    assert before is None
    assert after is not None


@pytest.mark.parametrize("growth", [0.0, 0.001])
def test_equal_returns_have_no_lag(growth: float) -> None:
    closes = 100 * (1 + growth) ** np.arange(300)
    assert lags(closes, np.array([299])) == [()]


def test_later_closes_change_nothing(closes: np.ndarray) -> None:
    rows = np.arange(20, 400)
    later = closes.copy()
    later[400:] *= 3
    levels = np.ones(len(rows))
    assert describe(closes, rows, 10, levels) == describe(later, rows, 10, levels)


def test_an_earlier_level_changes_no_lag(closes: np.ndarray) -> None:
    # What a later split does to adjusted closes.
    (honest,), (split,) = lags(closes, np.array([500])), lags(closes / 8, np.array([500]))
    assert honest == split

"""The interval over whole days: by hand, against a plain resampling, and its coverage."""

import random

import numpy as np
import pytest

from engine.evaluation.intervals import day_bootstrap, wilson


def test_fewer_than_two_days_give_no_interval() -> None:
    assert day_bootstrap([], [], seed=1) is None
    assert day_bootstrap([True, False, True], ["2024-01-02"] * 3, seed=1) is None


def test_two_days_of_one_call_each_by_hand() -> None:
    # Drawn twice: both wrong 1/4, one of each 1/2, both right 1/4.
    assert day_bootstrap([True, False], ["a", "b"], seed=1) == (0, 1)
    assert day_bootstrap([True, False], ["a", "b"], seed=1, level=0.4) == (0.5, 0.5)


def test_a_day_weighs_as_much_as_it_has_calls() -> None:
    # A day of nine right calls and one of one wrong call: drawn once each they are 9 of 10.
    right, days = [True] * 9 + [False], ["a"] * 9 + ["b"]
    assert day_bootstrap(right, days, seed=1, level=0.4) == (0.9, 0.9)


def test_days_that_are_all_alike_give_no_width() -> None:
    days = ["a", "a", "b", "b", "c", "c"]
    assert day_bootstrap([True] * 6, days, seed=1) == (1, 1)
    assert day_bootstrap([True, False] * 3, days, seed=1) == (0.5, 0.5)


def test_one_call_a_day_gives_the_binomial_quantiles() -> None:
    right = [True] * 60 + [False] * 40
    interval = day_bootstrap(right, [str(day) for day in range(100)], seed=1, resamples=20_000)
    # 2.5 and 97.5 % of Binomial(100, 0.6): 50 and 69
    assert interval == pytest.approx((0.50, 0.69), abs=0.011)


def test_it_depends_on_the_seed_and_not_on_the_order_of_the_calls() -> None:
    rng = random.Random(4)
    calls = [(rng.random() < 0.6, f"day {rng.randrange(40)}") for _ in range(200)]
    shuffled = rng.sample(calls, len(calls))
    first, again = (day_bootstrap(*zip(*those, strict=True), seed=3) for those in (calls, shuffled))
    assert first == again
    others = {day_bootstrap(*zip(*calls, strict=True), seed=seed) for seed in range(5)}
    assert len(others) > 1


def test_it_equals_a_plain_resampling_of_days() -> None:
    rng = np.random.default_rng(8)
    days = rng.integers(25, size=150)
    luck = rng.random(25)
    right = rng.random(150) < luck[days]
    shares = []
    for _ in range(4000):
        drawn = rng.choice(np.unique(days), size=len(np.unique(days)))
        shares.append(np.concatenate([right[days == day] for day in drawn]).mean())
    expected = tuple(np.quantile(shares, [0.05, 0.95]))
    found = day_bootstrap(
        right.tolist(), [str(day) for day in days], seed=1, resamples=4000, level=0.9
    )
    assert found == pytest.approx(expected, abs=0.01)
    assert found[1] - found[0] > 0.1


def test_it_covers_the_truth_where_days_are_right_or_wrong_as_a_whole() -> None:
    rng = np.random.default_rng(2)
    truth, num_days, repeats = 0.6, 60, 400
    by_day, by_call = 0, 0
    for repeat in range(repeats):
        sizes = rng.integers(1, 8, size=num_days)
        right = np.repeat(rng.random(num_days) < truth, sizes).tolist()
        days = np.repeat(np.arange(num_days), sizes).astype(str).tolist()
        interval = day_bootstrap(right, days, seed=repeat, resamples=1000)
        assert interval is not None
        by_day += interval[0] <= truth <= interval[1]
        low, high = wilson(sum(right), len(right))
        by_call += low <= truth <= high
    # 400 repeats of 95 % have a standard error of 1.1 points. Four calls a day that agree
    # are worth one: Wilson's interval is less than half as wide as it should be.
    assert 0.92 < by_day / repeats < 0.97
    assert by_call / repeats < 0.75

"""Values with intervals over days: against arch, against plain resampling, and their limits."""

import numpy as np
import pandas as pd
import pytest
from arch.bootstrap import IIDBootstrap

from engine.evaluation import directions
from engine.evaluation.day_blocks import MIN_DAYS, DayBlocks, Value, ratio
from engine.evaluation.intervals import day_bootstrap
from engine.evaluation.scores import roc_auc
from engine.evaluation.table import decisions
from tests.predictions import generated


def drawn(rows: pd.DataFrame, draws: int = 4000) -> tuple[np.ndarray, DayBlocks]:
    days = DayBlocks(rows["label_day"], seed=1, draws=draws)
    return days.of(rows["label_day"]), days


def bounds(value: Value) -> tuple[float, float]:
    assert value["low"] is not None
    assert value["high"] is not None
    return value["low"], value["high"]


def uneven() -> pd.DataFrame:
    """Decisions of 60 days with 1 to 12 rows each."""
    rows = decisions(generated(0.6, 3, num_days=60, num_tickers=12, correlation=0.3))
    kept = np.random.default_rng(5).integers(1, 13, 60)
    return rows[rows.index.to_numpy() % 12 < np.repeat(kept, 12)].reset_index(drop=True)


def test_a_share_has_the_interval_that_arch_draws_over_days() -> None:
    rows = uneven()
    value = directions.accuracy(rows, *drawn(rows, 10_000))
    by_day = rows.groupby("label_day")["right"].agg(["sum", "size"])
    theirs = IIDBootstrap(by_day["sum"].to_numpy(), by_day["size"].to_numpy(), seed=2)
    low, high = theirs.conf_int(
        lambda hits, sizes: hits.sum() / sizes.sum(), reps=10_000, method="percentile"
    ).ravel()
    assert value["value"] == pytest.approx(rows["right"].mean(), abs=1e-12)
    assert bounds(value) == pytest.approx((low, high), abs=0.004)
    assert high - low > 0.1


def test_it_is_the_bootstrap_of_a_validation() -> None:
    rows = uneven()
    value = directions.accuracy(rows, *drawn(rows, 10_000))
    right, days = rows["right"].tolist(), rows["label_day"].tolist()
    assert bounds(value) == pytest.approx(
        day_bootstrap(right, days, seed=4, resamples=10_000), abs=0.004
    )


def test_correlation_and_area_have_the_interval_of_a_plain_resampling() -> None:
    rows = uneven()
    blocks, days = drawn(rows)
    rng = np.random.default_rng(6)
    up, p_up = rows["actual_up"].to_numpy(), rows["p_up"].to_numpy()
    call = rows["called_up"].to_numpy(dtype=bool)
    by_day = [np.flatnonzero(blocks == day) for day in range(60)]
    correlations, areas = [], []
    for _ in range(400):
        chosen = np.concatenate([by_day[day] for day in rng.integers(60, size=60)])
        correlations.append(np.corrcoef(up[chosen], call[chosen])[0, 1])
        areas.append(roc_auc(p_up[chosen].tolist(), up[chosen].tolist()))
    for value, resampled in (
        (directions.matthews(rows, blocks, days), correlations),
        (directions.area_under_roc(rows, blocks, days), areas),
    ):
        low, high = np.quantile(resampled, [0.025, 0.975])
        assert bounds(value) == pytest.approx((low, high), abs=0.15 * (high - low))


def test_the_order_of_rows_does_not_matter_and_the_seed_does() -> None:
    rows = uneven()
    shuffled = rows.sample(frac=1, random_state=3)
    first, again = (directions.accuracy(those, *drawn(those, 500)) for those in (rows, shuffled))
    assert first == again
    other = DayBlocks(rows["label_day"], seed=2, draws=500)
    assert bounds(directions.accuracy(rows, other.of(rows["label_day"]), other)) != bounds(first)


def test_few_days_give_a_value_and_say_why_it_has_no_interval() -> None:
    rows = decisions(generated(0.6, 3, num_days=MIN_DAYS - 1))
    value = directions.accuracy(rows, *drawn(rows, 100))
    assert value["value"] == pytest.approx(rows["right"].mean())
    assert (value["low"], value["high"]) == (None, None)
    assert value["why"] == "no interval: 19 days with rows, fewer than 20"


def test_what_is_seldom_defined_in_a_draw_has_no_interval() -> None:
    # One row of the kind on one of 40 days: e^-1 of the draws have none of it.
    days = DayBlocks(pd.Series([f"{day:02}" for day in range(40)]), seed=1, draws=500)
    blocks = np.arange(40)
    is_first = blocks == 0
    value = days.value(blocks, [is_first, is_first], undefined="no first days")
    assert value["value"] == 1
    assert value["low"] is None
    assert value["why"] == "no interval: in too many draws there are no first days"


def test_nothing_to_divide_by_is_not_zero() -> None:
    days = DayBlocks(pd.Series(["a", "b"]), seed=1, draws=10)
    nothing = days.value(np.array([], dtype=int), [np.array([])] * 2, undefined="no such rows")
    assert nothing == {"value": None, "low": None, "high": None, "n": 0, "why": "no such rows"}


def test_a_day_that_was_not_drawn_from_is_an_error() -> None:
    days = DayBlocks(pd.Series(["2024-01-02"]), seed=1, draws=10)
    with pytest.raises(ValueError, match="not drawn from"):
        days.of(pd.Series(["2024-01-03"]))


def test_pivotal_bounds_take_back_what_noise_adds() -> None:
    # A true mean of 0, whose absolute value noise makes positive in the sample and more in draws.
    rng = np.random.default_rng(1)
    covered = 0
    days = DayBlocks(pd.Series([f"{day:03}" for day in range(100)]), seed=1, draws=1000)
    for _ in range(100):
        columns = [rng.normal(size=100) for _ in range(8)]

        def mean_gap(sums: np.ndarray) -> np.ndarray:
            return np.abs(sums).sum(axis=-1) / 800

        value = days.value(np.arange(100), columns, mean_gap, pivotal=True)
        plain = days.value(np.arange(100), columns, mean_gap)
        low, high = bounds(value)
        assert 0 <= low <= value["value"] <= high
        covered += low < 0.04
        assert bounds(plain)[0] > low
    assert covered > 80


def test_the_same_draws_serve_both_sides_of_a_comparison() -> None:
    rows = uneven()
    blocks, days = drawn(rows, 500)
    hits = rows["right"].to_numpy(dtype=float)
    value = days.value(blocks, [hits - hits, np.ones(len(hits))], ratio)
    assert (value["value"], *bounds(value)) == (0, 0, 0)

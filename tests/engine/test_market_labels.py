"""Labels come from the ticker's own calendar, and only where there is a next day."""

import csv
import gzip

import numpy as np
import pytest
from bokeh_sampledata import package_path

from engine.market import demo
from engine.market.dataset import Dataset
from engine.market.labels import next_moves
from engine.market.splits import SPLIT_NAMES


def days(*texts: str) -> np.ndarray:
    return np.array(texts, dtype="datetime64[D]")


def test_moves_by_hand() -> None:
    # 100 -> 110 is +10 %, 110 -> 99 is -10 %; the last day has no outcome.
    calendar = days("2012-09-12", "2012-09-13", "2012-09-14")
    moves = next_moves(calendar, np.array([100.0, 110.0, 99.0]), 1)
    np.testing.assert_allclose(moves, [10.0, -10.0, np.nan])


def test_a_horizon_counts_trading_days() -> None:
    calendar = days("2012-09-12", "2012-09-13", "2012-09-14", "2012-09-17")
    moves = next_moves(calendar, np.array([100.0, 110.0, 99.0, 121.0]), 2)
    np.testing.assert_allclose(moves, [-1.0, 10.0, np.nan, np.nan])


def test_an_unchanged_close_gives_no_label() -> None:
    calendar = days("2012-09-12", "2012-09-13", "2012-09-14")
    assert np.isnan(next_moves(calendar, np.array([50.0, 50.0, 51.0]), 1)[0])


def test_the_rounding_of_an_adjustment_is_no_move() -> None:
    calendar = days("2012-09-12", "2012-09-13")
    assert np.isnan(next_moves(calendar, np.array([0.1 + 0.2, 0.3]), 1)[0])


def test_a_gap_of_more_than_five_days_gives_no_label() -> None:
    calendar = days("2001-09-07", "2001-09-10", "2001-09-17", "2001-09-18")
    prices = np.array([10.0, 11.0, 12.0, 13.0])
    assert np.isnan(next_moves(calendar, prices, 1)).tolist() == [False, True, False, True]
    # Over two days, both ways across the gap are closed.
    assert np.isnan(next_moves(calendar, prices, 2)).all()


def test_a_gap_of_five_days_still_counts() -> None:
    calendar = days("2012-10-26", "2012-10-31")
    assert next_moves(calendar, np.array([100.0, 101.0]), 1)[0] == pytest.approx(1)


def test_a_history_shorter_than_the_horizon_has_no_labels() -> None:
    assert np.isnan(next_moves(days("2012-10-26"), np.array([1.0]), 1)).all()


@pytest.mark.parametrize("horizon", [1, 5])
def test_labels_equal_a_recomputation_from_the_file(horizon: int) -> None:
    with gzip.open(package_path("stocks.csv.gz"), "rt", encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    closes: dict[str, list[tuple[str, float]]] = {}
    for row in rows:
        closes.setdefault(row["Ticker"], []).append((row["Date"], float(row["Adj Close"])))
    market = Dataset(
        demo.load(), window=10, horizon=horizon, train_share=0.7, validation_share=0.15, embargo=5
    )
    checked = 0
    for split in SPLIT_NAMES:
        part = market.rows(split)
        for at in range(0, len(part), 23):
            example = market.example(int(part.history[at]), int(part.index[at]))
            series = closes[example.ticker]
            index = [day for day, _ in series].index(example.as_of.isoformat())
            percent = (series[index + horizon][1] / series[index][1] - 1) * 100
            assert example.label.percent == pytest.approx(percent)
            assert example.label.direction == ("UP" if percent > 0 else "DOWN")
            assert bool(part.up[at]) is (percent > 0)
            checked += 1
    assert checked > 400


def test_the_closure_of_september_2001_is_no_next_day() -> None:
    market = Dataset(
        demo.load(), window=10, horizon=1, train_share=0.7, validation_share=0.15, embargo=5
    )
    with pytest.raises(KeyError):
        market.find("IBM:2001-09-10")
    market.find("IBM:2001-09-07")
    market.find("IBM:2001-09-17")

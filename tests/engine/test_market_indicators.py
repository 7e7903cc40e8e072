"""Indicator values against the published formulas, and what is not known yet."""

import numpy as np
import pandas as pd
import pytest

from engine.market import demo
from engine.market.dataset import Dataset
from engine.market.history import History
from engine.market.indicators import SETTLED_BARS, compute, volatility


@pytest.fixture(scope="module")
def apple() -> History:
    return demo.load()[0]


@pytest.fixture(scope="module")
def closes(apple: History) -> pd.Series:
    return pd.Series(apple.adjusted)


def assert_same(values: np.ndarray, expected: pd.Series) -> None:
    known = np.isfinite(values)
    assert known.sum() > 3000
    np.testing.assert_allclose(values[known], expected.to_numpy()[known], rtol=1e-6)


def test_sma_is_the_mean_of_twenty_closes(apple: History, closes: pd.Series) -> None:
    assert_same(compute(apple)["sma20"], closes.rolling(20).mean())


def test_rsi_is_wilders(apple: History, closes: pd.Series) -> None:
    # Wilder 1978: means of the first 14 gains and losses, then 13/14 old + 1/14 new.
    moves = closes.diff().to_numpy()
    gain, loss = moves[1:15].clip(min=0).mean(), -moves[1:15].clip(max=0).mean()
    expected = np.full(len(moves), np.nan)
    for at in range(14, len(moves)):
        if at > 14:
            gain = (13 * gain + max(moves[at], 0)) / 14
            loss = (13 * loss + max(-moves[at], 0)) / 14
        expected[at] = 100 * gain / (gain + loss)
    assert_same(compute(apple)["rsi14"], pd.Series(expected))


def test_macd_is_the_difference_of_two_exponential_means(apple: History, closes: pd.Series) -> None:
    # Appel's formula with EMAs seeded at the start; TA-Lib seeds both at bar 25, and the
    # difference has faded to nothing where our values begin.
    fast = closes.ewm(span=12, adjust=False).mean()
    slow = closes.ewm(span=26, adjust=False).mean()
    values = compute(apple)["macd"]
    np.testing.assert_allclose(values[400:], (fast - slow).to_numpy()[400:], atol=1e-9)


def test_changes_and_volume_are_plain(apple: History, closes: pd.Series) -> None:
    values = compute(apple)
    assert_same(values["change5"], closes.pct_change(5) * 100)
    assert_same(values["change10"], closes.pct_change(10) * 100)
    in_first_shares = pd.Series(apple.volume / apple.shares)
    assert_same(values["volume20"], in_first_shares.rolling(20).mean())


def test_sigma_is_the_sample_deviation_of_twenty_returns(apple: History, closes: pd.Series) -> None:
    assert_same(compute(apple)["sigma20"], (closes.pct_change() * 100).rolling(20).std())


def test_sigma_by_hand() -> None:
    # Returns +10 %, -10 %: mean 0, sum of squares 200, over n - 1 = 1, root = 14.142...
    spread = volatility(np.array([100.0, 110.0, 99.0]), days=2)
    assert np.isnan(spread[:2]).all()
    assert spread[2] == pytest.approx(200**0.5)


def test_a_short_history_has_no_volatility() -> None:
    assert np.isnan(volatility(np.array([1.0, 2.0]), days=2)).all()


def test_what_the_warm_up_leaves_unknown_is_missing_and_never_zero(apple: History) -> None:
    values = compute(apple)
    assert {name: int(np.isnan(v).sum()) for name, v in values.items()} == {
        "sma20": 19,
        "rsi14": SETTLED_BARS - 1,
        "macd": SETTLED_BARS - 1,
        "change5": 5,
        "change10": 10,
        "volume20": 19,
        "sigma20": 20,
    }
    market = Dataset(
        [apple], window=10, horizon=1, train_share=0.7, validation_share=0.15, embargo=1
    )
    first = market.rows("train").index[0]
    assert first == 20
    assert set(market.example(0, int(first)).indicators) == {
        "sma20",
        "change5",
        "change10",
        "volume20",
    }


def test_price_indicators_stand_at_the_level_of_the_as_of_day() -> None:
    market = Dataset(
        demo.load(), window=20, horizon=1, train_share=0.7, validation_share=0.15, embargo=1
    )
    example = market.find("AAPL:2012-09-14")
    closes = [bar.close for bar in example.window]
    volumes = [bar.volume for bar in example.window]
    assert example.indicators["sma20"] == pytest.approx(sum(closes) / 20)
    assert example.indicators["volume20"] == pytest.approx(sum(volumes) / 20)

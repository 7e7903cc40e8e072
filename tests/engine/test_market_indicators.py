"""Indicator values against the published formulas, and what is not known yet."""

from collections.abc import Callable
from dataclasses import replace

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


@pytest.fixture(scope="module")
def lows(apple: History) -> pd.Series:
    return pd.Series(apple.low * apple.adjusted / apple.close)


@pytest.fixture(scope="module")
def highs(apple: History) -> pd.Series:
    return pd.Series(apple.high * apple.adjusted / apple.close)


def assert_same(values: np.ndarray, expected: pd.Series) -> None:
    known = np.isfinite(values)
    assert known.sum() > 3000
    np.testing.assert_allclose(values[known], expected.to_numpy()[known], rtol=1e-6)


def seeded(values: pd.Series, start: int, days: int, weight: float) -> pd.Series:
    """A recursive mean as TA-Lib starts it: with the plain mean of its first ``days`` values.

    ``start`` is the first day that has a value; the mean is first known ``days - 1`` later.
    """
    smooth = np.full(len(values), np.nan)
    last = start + days - 1
    smooth[last] = values[start : last + 1].mean()
    for at in range(last + 1, len(values)):
        smooth[at] = smooth[at - 1] + weight * (values[at] - smooth[at - 1])
    return pd.Series(smooth)


@pytest.mark.parametrize(("name", "days"), [("sma20", 20), ("sma", 14), ("bbands_middle", 20)])
def test_a_simple_average_is_the_mean_of_its_closes(
    apple: History, closes: pd.Series, name: str, days: int
) -> None:
    assert_same(compute(apple)[name], closes.rolling(days).mean())


def test_ema_weighs_the_newest_close_by_two_fifteenths(apple: History, closes: pd.Series) -> None:
    assert_same(compute(apple)["ema"], seeded(closes, 0, 14, 2 / 15))


def test_momentum_is_the_difference_to_ten_days_before(apple: History, closes: pd.Series) -> None:
    values = compute(apple)["mom"]
    # Differences near 0 have no relative precision.
    np.testing.assert_allclose(values[10:], closes.diff(10).to_numpy()[10:], rtol=1e-6, atol=1e-9)


def test_bollinger_bands_lie_two_population_deviations_away(
    apple: History, closes: pd.Series
) -> None:
    middle, spread = closes.rolling(20).mean(), closes.rolling(20).std(ddof=0)
    values = compute(apple)
    assert_same(values["bbands_upper"], middle + 2 * spread)
    assert_same(values["bbands_lower"], middle - 2 * spread)


def test_rsi_is_wilders(apple: History, closes: pd.Series) -> None:
    # Wilder 1978: means of the first 14 gains and losses, then 13/14 old + 1/14 new.
    moves = closes.diff()
    gain = seeded(moves.clip(lower=0), 1, 14, 1 / 14)
    loss = seeded((-moves).clip(lower=0), 1, 14, 1 / 14)
    assert_same(compute(apple)["rsi"], 100 * gain / (gain + loss))


def test_macd_is_the_difference_of_two_exponential_means(apple: History, closes: pd.Series) -> None:
    # Appel's formula. TA-Lib lets the EMA(12) start late, so that both are first known on day 25.
    expected = seeded(closes, 14, 12, 2 / 13) - seeded(closes, 0, 26, 2 / 27)
    values = compute(apple)["macd"]
    known = slice(SETTLED_BARS - 1, None)
    np.testing.assert_allclose(values[known], expected.to_numpy()[known], rtol=1e-6, atol=1e-9)


def test_the_stochastic_is_lanes_slow_one(
    apple: History, highs: pd.Series, lows: pd.Series, closes: pd.Series
) -> None:
    lowest, highest = lows.rolling(14).min(), highs.rolling(14).max()
    slow_k = (100 * (closes - lowest) / (highest - lowest)).rolling(3).mean()
    values = compute(apple)
    assert_same(values["stoch_k"], slow_k)
    assert_same(values["stoch_d"], slow_k.rolling(3).mean())


def test_williams_r_runs_from_minus_100_to_0(
    apple: History, highs: pd.Series, lows: pd.Series, closes: pd.Series
) -> None:
    lowest, highest = lows.rolling(14).min(), highs.rolling(14).max()
    expected = -100 * (highest - closes) / (highest - lowest)
    values = compute(apple)["willr"]
    np.testing.assert_allclose(values[13:], expected.to_numpy()[13:], rtol=1e-6, atol=1e-9)


def test_cci_is_lamberts(
    apple: History, highs: pd.Series, lows: pd.Series, closes: pd.Series
) -> None:
    typical = (highs + lows + closes) / 3
    mean = typical.rolling(14).mean()
    deviation = typical.rolling(14).apply(lambda days: np.abs(days - days.mean()).mean(), raw=True)
    expected = (typical - mean) / (0.015 * deviation)
    values = compute(apple)["cci"]
    np.testing.assert_allclose(values[13:], expected.to_numpy()[13:], rtol=1e-6, atol=1e-6)


def test_adx_is_wilders(
    apple: History, highs: pd.Series, lows: pd.Series, closes: pd.Series
) -> None:
    # Wilder 1978. TA-Lib starts the sums of true range and directional moves with 13 values,
    # from day 1, and smooths from day 14 on; the ADX is the plain mean of the first 14 DX.
    up, down = highs.diff(), -lows.diff()
    plus = up.where((up > down) & (up > 0), 0.0)
    minus = down.where((down > up) & (down > 0), 0.0)
    before = closes.shift()
    ranges = pd.concat([highs - lows, (highs - before).abs(), (lows - before).abs()], axis=1)

    def summed(values: pd.Series) -> pd.Series:
        sums = np.full(len(values), np.nan)
        sums[13] = values[1:14].sum()
        for at in range(14, len(values)):
            sums[at] = sums[at - 1] * 13 / 14 + values[at]
        return pd.Series(sums)

    true_range = summed(ranges.max(axis=1))
    plus_di, minus_di = 100 * summed(plus) / true_range, 100 * summed(minus) / true_range
    dx = 100 * (plus_di - minus_di).abs() / (plus_di + minus_di)
    assert_same(compute(apple)["adx"], seeded(dx, 14, 14, 1 / 14))


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


FIRST_DAYS = {
    "sma20": 19,
    "sma": 13,
    "ema": SETTLED_BARS - 1,
    "mom": 10,
    "stoch_k": 17,
    "stoch_d": 17,
    "rsi": SETTLED_BARS - 1,
    "macd": SETTLED_BARS - 1,
    "willr": 13,
    "cci": 13,
    "adx": SETTLED_BARS - 1,
    "bbands_upper": 19,
    "bbands_middle": 19,
    "bbands_lower": 19,
    "change5": 5,
    "change10": 10,
    "volume20": 19,
    "sigma20": 20,
}
"""First day, from 0, on which each indicator is known."""


def test_what_the_warm_up_leaves_unknown_is_missing_and_never_zero(apple: History) -> None:
    values = compute(apple)
    assert {name: int(np.isfinite(v).argmax()) for name, v in values.items()} == FIRST_DAYS
    assert {name: int(np.isnan(v).sum()) for name, v in values.items()} == FIRST_DAYS
    market = Dataset(
        [apple], window=10, horizon=1, train_share=0.7, validation_share=0.15, embargo=1
    )
    first = market.rows("train").index[0]
    assert first == 20
    known = {name for name, day in FIRST_DAYS.items() if day <= 20} - {"sigma20"}
    assert set(market.example(0, int(first)).indicators) == known


def test_a_settled_value_hardly_knows_where_its_series_started(apple: History) -> None:
    whole, late = compute(apple), compute(cut(apple, slice(1000, None)))
    for name in ("ema", "rsi", "macd", "adx"):
        np.testing.assert_allclose(late[name][149:], whole[name][1149:], rtol=2e-3, atol=2e-3)


def cut(history: History, part: slice) -> History:
    return with_columns(history, lambda values: values[part])


def with_columns(history: History, change: Callable[[np.ndarray], np.ndarray]) -> History:
    names = ("days", "open", "high", "low", "close", "volume", "adjusted", "split_ratio")
    return replace(history, **{name: change(getattr(history, name)) for name in names})


def test_later_days_change_no_earlier_value(apple: History) -> None:
    whole, first = compute(apple), compute(cut(apple, slice(0, 700)))
    for name, values in first.items():
        np.testing.assert_array_equal(values, whole[name][:700])


def test_a_short_history_knows_what_it_can(apple: History) -> None:
    for days in (0, 1, 10, 14):
        values = compute(cut(apple, slice(0, days)))
        known = {name for name, column in values.items() if np.isfinite(column).any()}
        assert known == {name for name, first in FIRST_DAYS.items() if first < days}


def test_a_source_without_high_low_and_volume_lacks_only_what_needs_them(apple: History) -> None:
    unknown = np.full(len(apple), np.nan)
    values = compute(replace(apple, open=unknown, high=unknown, low=unknown, volume=unknown))
    whole = compute(apple)
    missing = {name for name, column in values.items() if np.isnan(column).all()}
    assert missing == {"stoch_k", "stoch_d", "willr", "cci", "adx", "volume20"}
    for name in set(values) - missing:
        np.testing.assert_array_equal(values[name], whole[name])


def test_one_day_without_volume_is_passed_over(apple: History) -> None:
    volume = apple.volume.copy()
    volume[100] = np.nan
    values = compute(replace(apple, volume=volume))["volume20"]
    assert np.isnan(values[100])
    assert np.isfinite(values[101:]).all()
    # The twenty days with a volume that end on day 101 begin on day 81.
    days = [*range(81, 100), 101]
    assert values[101] == pytest.approx((apple.volume / apple.shares)[days].mean())


def test_price_indicators_stand_at_the_level_of_the_as_of_day() -> None:
    market = Dataset(
        demo.load(), window=20, horizon=1, train_share=0.7, validation_share=0.15, embargo=1
    )
    example = market.find("AAPL:2012-09-14")
    closes = [bar.close for bar in example.window]
    volumes = [bar.volume for bar in example.window]
    assert example.indicators["sma20"] == pytest.approx(sum(closes) / 20)
    assert example.indicators["volume20"] == pytest.approx(sum(volumes) / 20)

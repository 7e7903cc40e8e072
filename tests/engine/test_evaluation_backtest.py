"""The backtest: what a call is worth, when it is acted upon, and that it never looks ahead."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from engine.evaluation import backtest, performance, ratios


def market(num_days: int = 40, num_tickers: int = 3, seed: int = 0) -> pd.DataFrame:
    """Adjusted opens and closes of business days."""
    rng = np.random.default_rng(seed)
    days = pd.bdate_range("2012-01-02", periods=num_days).strftime("%Y-%m-%d")
    rows = []
    for number in range(num_tickers):
        close = 50 * np.exp(np.cumsum(rng.normal(0, 0.02, num_days)))
        opened = close * np.exp(rng.normal(0, 0.01, num_days))
        rows += [
            {"ticker": f"T{number}", "day": day, "open": first, "close": last}
            for day, first, last in zip(days, opened, close, strict=True)
        ]
    return pd.DataFrame(rows)


def calls(prices: pd.DataFrame, seed: int = 1, spare_days: int = 3) -> pd.DataFrame:
    """A random call for every ticker and day but the last few days."""
    days = sorted(prices["day"].unique())[:-spare_days]
    rows = prices[prices["day"].isin(days)]
    p_up = np.random.default_rng(seed).uniform(0, 1, len(rows))
    return pd.DataFrame(
        {
            "checkpoint": "base",
            "ticker": rows["ticker"].to_numpy(),
            "as_of": rows["day"].to_numpy(),
            "p_up": p_up,
        }
    )


def two_days(open_: tuple[float, ...], close: tuple[float, ...]) -> pd.DataFrame:
    days = [f"2012-01-0{number}" for number in range(2, 2 + len(close))]
    return pd.DataFrame({"ticker": "A", "day": days, "open": open_, "close": close})


def one_call(p_up: float) -> pd.DataFrame:
    return pd.DataFrame(
        {"checkpoint": ["base"], "ticker": ["A"], "as_of": ["2012-01-02"], "p_up": [p_up]}
    )


def test_a_call_earns_its_edge_times_the_move() -> None:
    # Close to close +10 %, open to open +20 %; 80 % for UP is an edge of 0.6.
    prices = two_days((9, 10, 12), (10, 11, 13))
    test = backtest.run(one_call(0.8), prices, cost_bps=0)
    assert test.courses["long_flat/close"].equity == pytest.approx([1, 1.06])
    assert test.courses["long_flat/open"].equity == pytest.approx([1, 1.12])
    assert test.days == {
        "close": ["2012-01-02", "2012-01-03"],
        "open": ["2012-01-03", "2012-01-04"],
    }
    assert test.holding["close"].equity == pytest.approx([1, 1.1])
    assert test.holding["open"].equity == pytest.approx([1, 1.2])


def test_a_call_of_down_is_flat_or_short() -> None:
    prices = two_days((9, 10, 12), (10, 11, 13))
    test = backtest.run(one_call(0.2), prices, cost_bps=0)
    assert test.courses["long_flat/close"].equity == pytest.approx([1, 1])
    assert test.courses["long_short/close"].equity == pytest.approx([1, 0.94])
    assert test.courses["long_short/open"].equity == pytest.approx([1, 0.88])


def test_weights_split_the_account_among_the_tickers_called_that_day() -> None:
    edges = np.array([[0.6, -0.4, np.nan], [1.0, np.nan, np.nan], [np.nan] * 3])
    assert backtest.weights(edges, "long_short") == pytest.approx(
        np.array([[0.3, -0.2, 0], [1, 0, 0], [0, 0, 0]])
    )
    assert backtest.weights(edges, "long_flat") == pytest.approx(
        np.array([[0.3, 0, 0], [1, 0, 0], [0, 0, 0]])
    )


def test_buy_and_hold_is_set_equal_again_when_a_ticker_joins() -> None:
    prices = np.array([[1.0, np.nan], [2.0, np.nan], [2.0, 5.0], [4.0, 5.0]])
    nan = np.nan
    np.testing.assert_array_equal(
        backtest.equal_parts(prices), [[1, 0], [nan, nan], [0.5, 0.5], [nan, nan]]
    )


@pytest.mark.parametrize("changed", ["prices", "calls"])
@pytest.mark.parametrize("row", [1, 7, 20, 36])
def test_nothing_later_changes_what_an_account_was_worth(changed: str, row: int) -> None:
    prices = market()
    decided = calls(prices)
    before = backtest.run(decided, prices)
    day = sorted(prices["day"].unique())[row]
    rng = np.random.default_rng(2)
    if changed == "prices":
        later = prices["day"] > day
        prices.loc[later, ["open", "close"]] *= rng.uniform(0.5, 2, (later.sum(), 2))
    else:
        later = decided["as_of"] > day
        decided.loc[later, "p_up"] = rng.uniform(0, 1, later.sum())
    after = backtest.run(decided, prices)
    for name, course in before.courses.items():
        until = [that <= day for that in before.days[name.partition("/")[2]]]
        for one, other in zip(course, after.courses[name], strict=True):
            np.testing.assert_array_equal(one[until], other[until], err_msg=name)
    if row < 30:
        assert not np.allclose(
            before.courses["long_short/open"].equity, after.courses["long_short/open"].equity
        )


def test_at_the_open_the_same_days_call_is_not_yet_known() -> None:
    prices = market()
    decided = calls(prices)
    day = sorted(prices["day"].unique())[10]
    before = backtest.run(decided, prices)
    decided.loc[decided["as_of"] >= day, "p_up"] = 1.0
    after = backtest.run(decided, prices)
    for name in ("long_flat/open", "long_short/open"):
        until = [that <= day for that in before.days["open"]]
        np.testing.assert_array_equal(
            before.courses[name].equity[until], after.courses[name].equity[until]
        )


def measured(decided: pd.DataFrame, prices: pd.DataFrame, **about: object) -> dict[str, object]:
    settings = {"trials": 1, "trial_sharpes": (), "seed": 0, "draws": 200} | about
    return performance.measure_all(decided, prices, **settings)


def test_measures_of_a_random_caller() -> None:
    prices = market(300)
    found = measured(calls(prices), prices)
    assert found["why"] is None
    one = found["checkpoints"]["base"]
    portfolio = one["portfolios"]["long_short/open"]
    assert portfolio["sharpe"]["low"] < portfolio["sharpe"]["value"] < portfolio["sharpe"]["high"]
    assert portfolio["sharpe"]["n"] == 297
    # Daily in and out of random stakes costs dearly.
    assert portfolio["total_return"]["value"] < portfolio["total_return_without_fees"]["value"]
    assert 0 < portfolio["exposure"]["value"] < 1
    # One trial: deflated is probabilistic.
    for name in ("value", "n"):
        assert portfolio["deflated_sharpe"][name] == portfolio["probabilistic_sharpe"][name]
    assert one["portfolios"]["long_flat/close"]["deflated_sharpe"]["value"] is None
    assert len(one["curves"]["open"]["days"]) == 298


def test_more_trials_deflate_more() -> None:
    prices = market(300)
    decided = calls(prices)
    deflated = []
    for trials in (1, 3, 50):
        found = measured(decided, prices, trials=trials, trial_sharpes=(-0.05, 0.06))
        headline = found["checkpoints"]["base"]["portfolios"][backtest.HEADLINE]
        deflated.append(headline["deflated_sharpe"]["value"])
    assert deflated == sorted(deflated, reverse=True)
    assert deflated[0] > deflated[2]


def test_trials_whose_ratios_nobody_logged_make_it_not_computable() -> None:
    prices = market(100)
    found = measured(calls(prices), prices, trials=7)
    headline = found["checkpoints"]["base"]["portfolios"][backtest.HEADLINE]
    assert headline["deflated_sharpe"]["value"] is None
    assert "7 trials" in headline["deflated_sharpe"]["why"]


def test_one_day_is_not_computable() -> None:
    prices = two_days((9, 10, 12), (10, 11, 13))
    found = measured(one_call(0.8), prices)
    sharpe = found["checkpoints"]["base"]["portfolios"]["long_flat/close"]["sharpe"]
    assert sharpe["value"] is None
    assert sharpe["why"] == "1 day of returns; a ratio takes two"


def test_few_days_have_a_ratio_without_an_interval() -> None:
    prices = market(20)
    found = measured(calls(prices), prices)
    sharpe = found["checkpoints"]["base"]["portfolios"]["long_flat/close"]["sharpe"]
    assert sharpe["value"] is not None
    assert (sharpe["low"], sharpe["why"]) == (None, "no interval: 17 days, fewer than 20")


def test_a_caller_who_says_nothing_has_no_ratio() -> None:
    prices = market()
    found = measured(calls(prices).assign(p_up=0.5), prices)
    portfolio = found["checkpoints"]["base"]["portfolios"]["long_short/close"]
    assert portfolio["sharpe"]["why"] == "every day has the same return"
    assert portfolio["win_rate"]["why"] == "no day with a position"
    assert portfolio["total_return"]["value"] == 0


def test_calls_without_a_price_are_said() -> None:
    prices = market()
    decided = calls(prices)
    lost = prices[~((prices["ticker"] == "T1") & (prices["day"] == "2012-01-04"))]
    found = measured(decided, lost)
    assert found["checkpoints"] == {}
    assert found["why"] == ("1 of 111 calls are of days without a price, T1 on 2012-01-04 for one")


def test_the_page_explains_every_measure() -> None:
    page = (Path(__file__).resolve().parents[2] / "docs" / "evaluation.md").read_text()
    section = page.partition("## The backtest")[2].partition("## The report")[0]
    prices = market(30)
    one = measured(calls(prices), prices)["checkpoints"]["base"]
    for name in (*one["portfolios"][backtest.HEADLINE], *backtest.PORTFOLIOS, backtest.HEADLINE):
        assert f"`{name}`" in section, name
    assert f"Fees** are {backtest.COST_BPS:g} hundredths of a percent" in section
    assert f"none under {ratios.LEAST_DAYS} days" in section

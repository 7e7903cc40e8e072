"""The account of the backtest against bt, another implementation, and against hand-made sums."""

import bt
import numpy as np
import pandas as pd
import pytest

from engine.evaluation import account
from engine.evaluation.account import Values

NAN = np.nan


def random_market(seed: int, num_days: int = 60, num_tickers: int = 5) -> tuple[Values, Values]:
    """Prices, and random targets that sum to at most 1 in absolute value; the last row is flat."""
    rng = np.random.default_rng(seed)
    prices = 50 * np.exp(np.cumsum(rng.normal(0, 0.02, (num_days, num_tickers)), axis=0))
    targets = rng.uniform(-1, 1, (num_days, num_tickers)) / num_tickers
    targets[rng.random(targets.shape) < 0.3] = 0
    targets[-1] = 0
    return prices, targets


def equity_by_bt(prices: Values, targets: Values, cost_bps: float) -> Values:
    """Worth of the same account, kept by bt: NaN rows are days without an order."""
    days = pd.bdate_range("2020-01-01", periods=len(prices))
    names = [f"T{number}" for number in range(prices.shape[1])]
    table = pd.DataFrame(prices, index=days, columns=names)
    wanted = pd.DataFrame(targets, index=days, columns=names).dropna(how="all")
    strategy = bt.Strategy(
        "calls",
        [bt.algos.RunOnDate(*wanted.index), bt.algos.WeighTarget(wanted), bt.algos.Rebalance()],
    )
    backtest = bt.Backtest(
        strategy,
        table,
        initial_capital=1e6,
        commissions=lambda quantity, price: abs(quantity) * price * cost_bps / 10_000,
        integer_positions=False,
        progress_bar=False,
    )
    backtest.run()
    # bt puts a day of its own before the first.
    return backtest.strategy.values.to_numpy()[1:] / 1e6


@pytest.mark.parametrize("cost_bps", [0, 5, 100])
@pytest.mark.parametrize("shorts", [False, True], ids=["long_flat", "long_short"])
@pytest.mark.parametrize("seed", range(4))
def test_equity_is_that_of_bt(seed: int, shorts: bool, cost_bps: float) -> None:
    prices, targets = random_market(seed)
    targets = targets if shorts else np.maximum(targets, 0)
    course = account.run(prices, targets, cost_bps=cost_bps)
    np.testing.assert_allclose(
        course.equity, equity_by_bt(prices, targets, cost_bps), rtol=0, atol=1e-9
    )


def test_positions_that_are_left_alone_drift_as_in_bt() -> None:
    prices, _ = random_market(9)
    targets = np.full_like(prices, NAN)
    targets[0], targets[30], targets[-1] = 0.2, [0.5, 0.5, 0, 0, 0], 0
    course = account.run(prices, targets, cost_bps=20)
    np.testing.assert_allclose(course.equity, equity_by_bt(prices, targets, 20), rtol=0, atol=1e-9)


def test_fees_by_hand() -> None:
    # 1 % fee. Buying for 0.5 gets 0.5/1.01 of shares; they rise by a tenth and are sold.
    bought = 0.5 / 1.01
    prices = np.array([[10.0], [11.0]])
    course = account.run(prices, np.array([[0.5], [0.0]]), cost_bps=100)
    assert course.equity == pytest.approx([1 - 0.01 * bought, 0.5 + 1.1 * bought * 0.99])
    assert course.turnover == pytest.approx([bought, 1.1 * bought / (0.5 + 1.1 * bought)])
    assert course.exposure == pytest.approx([bought / (1 - 0.01 * bought), 0])
    assert course.returns == pytest.approx([0.5 + 1.1 * bought * 0.99 - 1])


def test_a_short_position_gains_what_the_price_loses() -> None:
    course = account.run(np.array([[10.0], [9.0]]), np.array([[-1.0], [0.0]]), cost_bps=0)
    assert course.equity == pytest.approx([1, 1.1])


def test_a_ticker_that_is_not_traded_keeps_position_and_price() -> None:
    prices = np.array([[10.0], [NAN], [12.0]])
    course = account.run(prices, np.array([[1.0], [0.0], [0.0]]), cost_bps=0)
    assert course.equity == pytest.approx([1, 1, 1.2])


def test_a_ruined_account_stays_at_nothing() -> None:
    prices = np.array([[10.0], [25.0], [5.0], [5.0]])
    course = account.run(prices, np.array([[-1.0]] * 3 + [[0.0]]), cost_bps=0)
    assert course.equity == pytest.approx([1, 0, 0, 0])
    assert course.returns == pytest.approx([-1, 0, 0])

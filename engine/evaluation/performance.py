"""The figures of a backtest, each with its interval, number of days, or why there is none.

Ratios of returns come from empyrical-reloaded where it has them.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import empyrical
import numpy as np
import pandas as pd

from engine.evaluation import ratios
from engine.evaluation.account import Course, Values
from engine.evaluation.backtest import (
    COST_BPS,
    EXECUTIONS,
    HEADLINE,
    PORTFOLIOS,
    Backtest,
    run,
)
from engine.evaluation.day_blocks import Value, missing
from engine.evaluation.intervals import wilson

CURVE_POINTS = 400
"""At most as many points of an equity curve stand in the JSON of a report."""

_YEAR = ratios.DAYS_PER_YEAR**0.5


def measure_all(
    decisions: pd.DataFrame,
    prices: pd.DataFrame,
    *,
    trials: int,
    trial_sharpes: Sequence[float],
    seed: int,
    draws: int = 10_000,
    cost_bps: float = COST_BPS,
) -> dict[str, Any]:
    """Backtest every checkpoint of ``decisions``.

    Args:
        decisions: one row a checkpoint and example.
        prices: see ``backtest.run``.
        trials: distinct checkpoints ever evaluated on this split, these included.
        trial_sharpes: daily Sharpe ratios that earlier evaluations logged, of ``HEADLINE``.
        seed: decides the draws of the intervals.
        draws: number of draws.
        cost_bps: fee on the value traded, in hundredths of a percent.

    Returns:
        JSON-able: ``cost_bps``, ``headline``, ``why`` (why there is no backtest, or None) and
        ``checkpoints``, one entry a label.
    """
    shared = {"cost_bps": cost_bps, "headline": HEADLINE}
    reason = _unpriced(decisions, prices)
    if reason is not None:
        return {**shared, "why": reason, "checkpoints": {}}
    tests = {
        str(label): run(rows, prices, cost_bps=cost_bps)
        for label, rows in decisions.groupby("checkpoint", sort=False)
    }
    own = [test.trial_sharpe for test in tests.values()]
    known = [*trial_sharpes, *(sharpe for sharpe in own if sharpe is not None)]
    return {
        **shared,
        "why": None,
        "checkpoints": {
            label: _measured(test, trials, known, seed, draws) for label, test in tests.items()
        },
    }


def _unpriced(decisions: pd.DataFrame, prices: pd.DataFrame) -> str | None:
    """Why these prices cannot carry a backtest of these calls."""
    if decisions.empty:
        return "there are no predictions"
    priced = pd.MultiIndex.from_frame(prices.loc[prices["close"].notna(), ["ticker", "day"]])
    called = pd.MultiIndex.from_frame(decisions[["ticker", "as_of"]].drop_duplicates())
    unpriced = called[~called.isin(priced)]
    if len(unpriced):
        ticker, day = unpriced[0]
        return (
            f"{len(unpriced)} of {len(called)} calls are of days without a price, "
            f"{ticker} on {day} for one"
        )
    return None


def _measured(
    test: Backtest, trials: int, trial_sharpes: Sequence[float], seed: int, draws: int
) -> dict[str, Any]:
    portfolios = {}
    for name, course in test.courses.items():
        measures = _measures(course, seed, draws)
        measures["total_return_without_fees"] = _total(test.free[name])
        measures["deflated_sharpe"] = (
            _deflated(course, trials, trial_sharpes)
            if name == HEADLINE
            else missing(
                len(course.returns),
                "trials are logged by the Sharpe ratio of long or short at the next open",
            )
        )
        portfolios[name] = measures
    return {
        "num_called_days": test.num_called_days,
        "num_days": {name: len(days) for name, days in test.days.items()},
        "first": {name: days[0] if days else None for name, days in test.days.items()},
        "last": {name: days[-1] if days else None for name, days in test.days.items()},
        "trial_sharpe": test.trial_sharpe,
        "trials": trials,
        "portfolios": portfolios,
        "buy_and_hold": {
            name: _measures(course, seed, draws) for name, course in test.holding.items()
        },
        "curves": {name: _curves(test, name) for name in EXECUTIONS},
    }


def _measures(course: Course, seed: int, draws: int) -> dict[str, Any]:
    """The figures of one account.

    ``turnover`` and ``exposure`` are means over days; ``win_rate`` is the share of days with a
    position on which the account gained, ``profit_factor`` all gains over all losses.
    """
    returns = course.returns
    num_days = len(returns)
    if num_days < 2:
        reason = f"{num_days} day{'s' * (num_days != 1)} of returns; a ratio takes two"
        return dict.fromkeys(_MEASURES, missing(num_days, reason))
    invested = returns[course.exposure[:-1] > 0]
    return {
        **_sharpes(returns, seed, draws),
        "total_return": _total(course),
        "annual_return": _value(empyrical.annual_return(returns), num_days),
        "volatility": _value(empyrical.annual_volatility(returns), num_days),
        "max_drawdown": _value(empyrical.max_drawdown(returns), num_days),
        "win_rate": _win_rate(invested),
        "profit_factor": _value(ratios.profit_factor(returns), num_days, "no day lost"),
        "turnover": _value(course.turnover.mean(), num_days),
        "exposure": _value(course.exposure[:-1].mean(), num_days),
    }


_MEASURES = (
    "sharpe",
    "probabilistic_sharpe",
    "total_return",
    "annual_return",
    "volatility",
    "max_drawdown",
    "win_rate",
    "profit_factor",
    "turnover",
    "exposure",
)


def _sharpes(returns: Values, seed: int, draws: int) -> dict[str, Any]:
    """The annualised Sharpe ratio, and the probability that the true one is above 0."""
    num_days = len(returns)
    sharpe = ratios.daily_sharpe(returns)
    if sharpe is None:
        unknown = missing(num_days, "every day has the same return")
        return {"sharpe": unknown, "probabilistic_sharpe": unknown}
    annual = _value(empyrical.sharpe_ratio(returns), num_days)
    interval = ratios.sharpe_interval(returns, seed=seed, draws=draws)
    if interval is None:
        annual["why"] = f"no interval: {num_days} days, fewer than {ratios.LEAST_DAYS}"
    else:
        annual["low"], annual["high"] = (bound * _YEAR for bound in interval)
    return {
        "sharpe": annual,
        "probabilistic_sharpe": _probability(returns, sharpe, benchmark=0.0),
    }


def _deflated(course: Course, trials: int, trial_sharpes: Sequence[float]) -> Mapping[str, Any]:
    """Probability that the true ratio is above what the best of ``trials`` shows by luck."""
    returns = course.returns
    sharpe = ratios.daily_sharpe(returns)
    if sharpe is None:
        return missing(len(returns), "there is no Sharpe ratio")
    if trials > 1 and len(trial_sharpes) < 2:
        return missing(
            len(returns), f"{trials} trials, but the Sharpe ratios of fewer than two are known"
        )
    variance = float(np.var(trial_sharpes, ddof=1)) if trials > 1 else 0.0
    benchmark = ratios.expected_best_sharpe(variance, trials)
    return {**_probability(returns, sharpe, benchmark), "benchmark": benchmark * _YEAR}


def _probability(returns: Values, sharpe: float, benchmark: float) -> Mapping[str, Any]:
    skewness, kurtosis = ratios.moments(returns)
    probability = ratios.probabilistic_sharpe(
        sharpe, benchmark, num_returns=len(returns), skewness=skewness, kurtosis=kurtosis
    )
    return _value(probability, len(returns), "the moments of the returns leave no variance")


def _win_rate(invested: Values) -> Mapping[str, Any]:
    num_days = len(invested)
    if not num_days:
        return missing(0, "no day with a position")
    wins = int((invested > 0).sum())
    low, high = wilson(wins, num_days)
    return {**_value(wins / num_days, num_days), "low": low, "high": high}


def _total(course: Course) -> Mapping[str, Any]:
    """What the whole time brought, as a fraction of the beginning."""
    if len(course.equity) < 2:
        return missing(0, "fewer than two days")
    return _value(course.equity[-1] - 1, len(course.equity) - 1)


def _curves(test: Backtest, execution: str) -> dict[str, Any]:
    """Every account with this execution, thinned out for drawing."""
    days = test.days[execution]
    kept = np.unique(np.linspace(0, len(days) - 1, min(len(days), CURVE_POINTS)).astype(int))
    courses = {name: test.courses[f"{name}/{execution}"] for name in PORTFOLIOS}
    courses["buy_and_hold"] = test.holding[execution]
    return {
        "days": [days[row] for row in kept],
        "equity": {
            name: [round(float(course.equity[row]), 6) for row in kept]
            for name, course in courses.items()
        },
    }


def _value(value: float | None, num_days: int, why: str = "") -> Value:
    if value is None or not np.isfinite(value):
        return missing(num_days, why or "the ratio is not finite")
    return {"value": float(value), "low": None, "high": None, "n": num_days, "why": None}

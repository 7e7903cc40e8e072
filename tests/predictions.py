"""Generated predictions tables whose true share of right calls is known."""

import numpy as np
import pandas as pd

from engine.evaluation import table

FIRST_DAY = np.datetime64("2015-01-02")


def generated(
    share: float,
    seed: int,
    *,
    num_days: int = 250,
    num_tickers: int = 20,
    correlation: float = 0.1,
    market_correlation: float = 0.0,
    checkpoint: str = "step-000040",
) -> pd.DataFrame:
    """A table of one sample an example, of every ticker on every day.

    Hits of a day share a rate of Beta(s(1/r - 1), (1 - s)(1/r - 1)), which has mean s, the share,
    and gives two hits of one day the correlation r. Outcomes are UP in half of the rows, alike
    within a day as ``market_correlation`` says, and have nothing to do with the hits.
    """
    rng = np.random.default_rng(seed)
    num_rows = num_days * num_tickers
    right = rng.random(num_rows) < np.repeat(_rates(rng, share, correlation, num_days), num_tickers)
    up_rates = _rates(rng, 0.5, market_correlation, num_days)
    up = rng.random(num_rows) < np.repeat(up_rates, num_tickers)
    days = np.busday_offset(FIRST_DAY, np.arange(num_days + 1)).astype(str)
    tickers = np.tile([f"T{number:03}" for number in range(num_tickers)], num_days)
    as_of = np.repeat(days[:-1], num_tickers)
    predictions = pd.DataFrame(
        {
            "checkpoint": checkpoint,
            "checkpoint_hash": "ab" * 32,
            "key": np.char.add(np.char.add(tickers, ":"), as_of),
            "ticker": tickers,
            "as_of": as_of,
            "label_day": np.repeat(days[1:], num_tickers),
            "actual_up": up,
            "actual_percent": np.where(up, 1, -1) * rng.exponential(1.2, num_rows),
            "day_change": rng.normal(0, 1.5, num_rows),
            "sigma": 1.5,
            "sample": 0,
            "seed": seed,
            "prompt": "",
            "completion": "",
            "finished": True,
            "called_up": pd.Series(right == up, dtype=object),
            "percent": np.where(right == up, 1, -1) * rng.exponential(1, num_rows),
            "confidence": rng.integers(50, 91, num_rows) / 100,
            "reward": np.where(right, 0.6, 0.3),
            "component/format": 1.0,
            "component/direction": right.astype(float),
            "rubric/total": np.where(right, 0.7, 0.3),
            "rubric/prediction": np.where(right, 0.5, 0.1),
            "rubric/reasoning": 0.2,
        }
    )
    for name in ("key", "ticker", "as_of", "label_day"):
        predictions[name] = predictions[name].astype(object)
    assert list(predictions.columns[: len(table.COLUMNS)]) == list(table.COLUMNS)
    return predictions


def _rates(rng: np.random.Generator, share: float, correlation: float, num_days: int) -> np.ndarray:
    if not correlation:
        return np.full(num_days, share)
    spread = 1 / correlation - 1
    return rng.beta(share * spread, (1 - share) * spread, num_days)

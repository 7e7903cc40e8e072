"""What an evaluation keeps of the market beside its predictions: prices, and simpler callers."""

import hashlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from engine.evaluation import logistic
from engine.market.dataset import Dataset, Rows
from engine.market.history import History

PRICES, BASELINES = "prices.parquet", "baselines.parquet"
DAYS_AFTER = 10
"""Trading days of prices past the last label day: a position may be closed late."""


def write_baselines(folder: Path, dataset: Dataset, rows: Rows, seed: int) -> None:
    """``key``, ``logistic`` (probability of UP), ``momentum`` and ``reversal`` (1.0 calls UP)."""
    changes = np.array(
        [
            (closes[index] / closes[index - 1] - 1) * 100
            for closes, index in (
                (dataset.histories[history].adjusted, index)
                for history, index in zip(rows.history.tolist(), rows.index.tolist(), strict=True)
            )
        ]
    )
    momentum = np.where(changes == 0, np.nan, (changes > 0).astype(float))
    table = pd.DataFrame(
        {
            "key": [
                f"{dataset.histories[history].ticker}:{day}"
                for history, day in zip(rows.history.tolist(), rows.day, strict=True)
            ],
            "logistic": logistic.fit_predict(dataset, rows, seed).p_up,
            "momentum": momentum,
            "reversal": 1 - momentum,
        }
    )
    table.to_parquet(folder / BASELINES, index=False)


def write_prices(folder: Path, dataset: Dataset, rows: Rows) -> None:
    """``ticker``, ``day``, adjusted ``open`` and ``close`` of the tickers that are asked about."""
    parts = []
    for at in np.unique(rows.history).tolist():
        history = dataset.histories[at]
        own = rows.index[rows.history == at]
        days = slice(int(own.min()), int(own.max()) + dataset.horizon + DAYS_AFTER + 1)
        factor = history.adjusted[days] / history.close[days]
        parts.append(
            pd.DataFrame(
                {
                    "ticker": history.ticker,
                    "day": history.days[days].astype(str),
                    "open": history.open[days] * factor,
                    "close": history.adjusted[days],
                }
            )
        )
    pd.concat(parts, ignore_index=True).to_parquet(folder / PRICES, index=False)


def digest(histories: Sequence[History]) -> str:
    """SHA-256 of the days and prices of a source, and of how its labels are permuted."""
    digest = hashlib.sha256()
    for history in histories:
        digest.update(f"{history.ticker} {history.shuffle_seed} {len(history)}\n".encode())
        digest.update(np.ascontiguousarray(history.days).tobytes())
        digest.update(np.ascontiguousarray(history.adjusted).tobytes())
    return digest.hexdigest()

"""What only the figures of a report need: points of curves, counts of bars, baselines of slices."""

from typing import Any

import numpy as np
import pandas as pd

from engine.evaluation import baselines

ROC_POINTS = 200
CONFIDENCE_BINS = 20


def of(rows: pd.DataFrame) -> dict[str, Any]:
    """Everything about the decisions of one checkpoint, JSON-able.

    Returns:
        ``roc``: ``false`` and ``true`` positive rates, or None where it is not computable;
        ``confidence``: ``edges`` and how many calls between them are ``right`` and ``wrong``;
        ``years`` and ``tickers``: name to the accuracy of simple callers on the same rows.
    """
    return {
        "roc": _roc(rows),
        "confidence": _confidence(rows),
        "years": _slices(rows, rows["label_day"].str[:4]),
        "tickers": _slices(rows, rows["ticker"]),
    }


def _roc(rows: pd.DataFrame) -> dict[str, list[float]] | None:
    from sklearn.metrics import roc_curve

    up = rows["actual_up"].to_numpy(dtype=bool)
    if rows["confidence"].isna().all() or up.all() or not up.any():
        return None
    false, true, _ = roc_curve(up, rows["p_up"].to_numpy(dtype=float))
    kept = np.unique(np.linspace(0, len(false) - 1, min(len(false), ROC_POINTS)).astype(int))
    return {"false": false[kept].round(5).tolist(), "true": true[kept].round(5).tolist()}


def _confidence(rows: pd.DataFrame) -> dict[str, list[float]]:
    stated = rows[rows["confidence"].notna()]
    edges = np.linspace(0, 1, CONFIDENCE_BINS + 1).round(3)
    right = stated["right"].to_numpy(dtype=bool)
    confidence = stated["confidence"].to_numpy(dtype=float)
    return {
        "edges": edges.tolist(),
        "right": np.histogram(confidence[right], edges)[0].tolist(),
        "wrong": np.histogram(confidence[~right], edges)[0].tolist(),
    }


def _slices(rows: pd.DataFrame, names: pd.Series) -> dict[str, dict[str, float]]:
    simple = baselines.right_calls(rows["actual_up"].tolist(), rows["day_change"].tolist())
    means = pd.DataFrame(simple, index=rows.index).astype(float).groupby(names).mean()
    return {
        str(name): {str(caller): float(value) for caller, value in row.items()}
        for name, row in means.iterrows()
    }

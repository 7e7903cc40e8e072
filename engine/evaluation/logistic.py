"""A logistic regression on the indicators: what a model that reads no text makes of the same rows.

Fitted on the training rows of the source that is evaluated, scaler and imputation included.
Features are those of the as-of day without a level: signs and sizes of the last moves in units of
the 20-day deviation, and every indicator, prices and differences of prices over the close.

R rows, F features.
"""

import warnings
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from engine.market import indicators, sampler
from engine.market.dataset import Dataset, Rows
from engine.market.history import History, Values

MAX_TRAINED = 20_000
"""Training rows, spread over tickers and time: more make no better regression of so few
features."""
_FEWEST_TRAINED = 100
_RECENT_MOVES = 5
_OVER_CLOSE = indicators.DOLLARS
_LEFT_OUT = indicators.SHARES
_PENALTY = 0.1


@dataclass(frozen=True)
class Fitted:
    """What the regression says about rows."""

    p_up: Values
    """(R,) probability of UP; NaN where there is none."""
    why: str | None
    """Why there is none."""


def fit_predict(dataset: Dataset, rows: Rows, seed: int) -> Fitted:
    """The regression's probabilities of UP for ``rows``.

    Args:
        seed: decides which training rows are taken where there are many.
    """
    train = dataset.rows("train")
    train = train.take(sampler.spread(len(train), MAX_TRAINED, np.random.default_rng(seed)))
    if len(train) < _FEWEST_TRAINED:
        return _none(rows, f"{len(train)} training rows, fewer than {_FEWEST_TRAINED}")
    if train.up.all() or not train.up.any():
        return _none(rows, "all training rows went the same way")
    from sklearn.impute import SimpleImputer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    model = make_pipeline(
        SimpleImputer(keep_empty_features=True),
        StandardScaler(),
        LogisticRegression(C=_PENALTY, max_iter=1000),
    )
    with warnings.catch_warnings():
        # A feature that a source never has is imputed by 0 and says nothing.
        warnings.simplefilter("ignore", category=RuntimeWarning)
        model.fit(features(dataset, train), train.up)
        p_up: Values = model.predict_proba(features(dataset, rows))[:, 1]
    return Fitted(p_up, None)


def features(dataset: Dataset, rows: Rows) -> Values:
    """(R, F) features of ``rows``, each from its as-of day and earlier ones; NaN: not known."""
    result: Values = np.empty((0, 0))
    for at in np.unique(rows.history).tolist():
        own = np.flatnonzero(rows.history == at)
        part = _of_history(dataset.histories[at], rows.index[own])
        if not result.size:
            result = np.full((len(rows), part.shape[1]), np.nan)
        result[own] = part
    return result


def _of_history(history: History, index: NDArray[np.intp]) -> Values:
    """(R, F) features of days of one ticker."""
    computed = indicators.compute(history)
    closes = history.adjusted
    moves = np.full(len(closes), np.nan)
    moves[1:] = (closes[1:] / closes[:-1] - 1) * 100
    spread = np.maximum(computed["sigma20"], 1e-9)
    columns = []
    for back in range(_RECENT_MOVES):
        # A usable row has its window and volatility, so these days are there.
        move = moves[index - back]
        columns += [np.sign(move), np.clip(move / spread[index], -3, 3)]
    for name in sorted(set(computed) - _LEFT_OUT):
        values = computed[name][index]
        columns.append(values / closes[index] if name in _OVER_CLOSE else values)
    stacked: Values = np.column_stack(columns)
    return stacked


def _none(rows: Rows, why: str) -> Fitted:
    return Fitted(np.full(len(rows), np.nan), why)

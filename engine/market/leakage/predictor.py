"""Checks by a simple predictor: how often it is right tells whether examples hold their labels."""

import dataclasses
from math import isnan
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from engine.evaluation.intervals import wilson
from engine.market import indicators, sampler
from engine.market.dataset import Dataset, Rows
from engine.market.example import Example
from engine.market.history import Values
from engine.market.leakage.check import Check
from engine.market.leakage.subject import Subject
from engine.market.splits import SplitName

_TRAINED_ON, _TESTED_ON = 2000, 1000
_FEWEST_TESTED = 40
_RECENT_MOVES = 4


class _Accuracy(NamedTuple):
    """Right calls on as many UP as DOWN, so that knowing nothing is right half the time."""

    hits: int
    num: int

    def interval(self, level: float = 0.95) -> tuple[float, float]:
        return wilson(self.hits, self.num, level)

    def __str__(self) -> str:
        low, high = self.interval()
        return f"{self.hits / self.num:.1%} [{low:.1%}, {high:.1%}], n={self.num}"


def label_shuffle(subject: Subject) -> Check:
    """A simple predictor on permuted labels: it must not be right more than half the time."""
    proves = (
        "with permuted labels a simple predictor is right half the time: no example holds its"
        " own label"
    )
    permuted = [
        dataclasses.replace(history, shuffle_seed=subject.seed + 1000 + at)
        for at, history in enumerate(subject.market.histories)
    ]
    accuracy = _accuracy(subject.build(permuted), subject.seed)
    honest = _accuracy(subject.dataset, subject.seed)
    if accuracy is None or honest is None:
        return _too_few("label-shuffle", proves)
    # 99.9 %: the suite is run often, and one in twenty runs must not cry wolf.
    is_red = accuracy.interval(0.999)[0] > 0.5
    return Check(
        "label-shuffle",
        proves,
        "red" if is_red else "green",
        accuracy.num,
        int(is_red),
        None,
        f"permuted labels {accuracy}; true labels {honest}",
    )


def feature_shift(subject: Subject) -> Check:
    """The predictor with features taken late on purpose, which must stand out as the leak they are.

    They are late by the horizon, a day by default: of a longer horizon a single day is too
    small a part to be told from luck in a small source.
    """
    days_late = subject.dataset.horizon
    late_by = "a day" if days_late == 1 else f"{days_late} days"
    proves = (
        f"features taken {late_by} late on purpose make a simple predictor's accuracy jump, so"
        " that such a leak would show"
    )
    # The prices of a market with permuted labels tell nothing about them, early or late.
    true = [dataclasses.replace(h, shuffle_seed=None) for h in subject.market.histories]
    dataset = subject.build(true)
    honest = _accuracy(dataset, subject.seed)
    late = _accuracy(dataset, subject.seed, days_late=days_late)
    if honest is None or late is None:
        return _too_few("feature-shift", proves)
    jumps = late.interval()[0] > honest.interval()[1]
    return Check(
        "feature-shift",
        proves,
        "green" if jumps else "red",
        honest.num,
        int(not jumps),
        None,
        f"{late_by} late {late}; in time {honest}",
    )


def _too_few(name: str, proves: str) -> Check:
    return Check(
        name,
        proves,
        "skipped",
        0,
        0,
        None,
        f"fewer than {_FEWEST_TESTED} validation rows of both sides",
    )


def _accuracy(dataset: Dataset, seed: int, *, days_late: int = 0) -> _Accuracy | None:
    """Of a linear predictor fitted on training rows, on validation rows; None: too few of them."""
    parts = []
    limits: dict[SplitName, int] = {"train": _TRAINED_ON, "validation": _TESTED_ON}
    for split, limit in limits.items():
        rows = _with_days_after(dataset, dataset.rows(split))
        rows = rows.take(_balanced_by_ticker(rows, limit, np.random.default_rng(seed)))
        if len(rows) < _FEWEST_TESTED:
            return None
        examples = [
            dataset.example(history, index + days_late)
            for history, index in zip(rows.history.tolist(), rows.index.tolist(), strict=True)
        ]
        parts.append((np.array([_features(example) for example in examples]), rows.up))
    (x, up), (x_tested, up_tested) = parts
    called = _linear(x, np.where(up, 1.0, -1.0), x_tested) > 0
    return _Accuracy(int((called == up_tested).sum()), len(up_tested))


def _balanced_by_ticker(rows: Rows, limit: int, rng: np.random.Generator) -> NDArray[np.intp]:
    """About ``limit`` positions of ``rows``, in each ticker as many UP as DOWN.

    A ticker that rises on most of its days keeps doing so when its labels are permuted: who can
    tell the tickers apart would be right more than half the time without knowing any label.
    """
    tickers = np.unique(rows.history)
    per_side = max(1, limit // (2 * max(1, len(tickers))))
    chosen = [np.empty(0, np.intp)]
    for ticker in tickers.tolist():
        own = np.flatnonzero(rows.history == ticker)
        sides = own[rows.up[own]], own[~rows.up[own]]
        count = min(per_side, *map(len, sides))
        chosen += [side[sampler.spread(len(side), count, rng)] for side in sides]
    return np.concatenate(chosen)


def _with_days_after(dataset: Dataset, rows: Rows) -> Rows:
    """The rows whose outcome day has an outcome too, so that early and late see the same ones."""
    lengths = np.array([len(history) for history in dataset.histories])
    return rows.take(np.flatnonzero(rows.index + 2 * dataset.horizon < lengths[rows.history]))


_FEATURES = (
    "rsi",
    "adx",
    "stoch_k",
    "stoch_d",
    "willr",
    "cci",
    "change5",
    "change10",
    *sorted(indicators.DOLLARS),
)


def _features(example: Example) -> list[float]:
    """What an example shows as numbers without a level; what is missing is 0."""
    closes = np.array([bar.close for bar in example.window])
    recent = closes[-_RECENT_MOVES - 1 :]
    moves = (recent[1:] / recent[:-1] - 1) * 100
    spread = example.sigma20 if example.sigma20 > 0 else 1.0
    features = [*np.sign(moves).tolist(), *np.clip(moves / spread, -3, 3).tolist()]
    # The move over the horizon: late by that much, it is the label.
    over_horizon = example.indicators.get("change10", 0.0)
    if len(closes) > example.horizon:
        over_horizon = float(closes[-1] - closes[-1 - example.horizon])
    features.append(float(np.sign(over_horizon)))
    for name in _FEATURES:
        value = example.indicators.get(name, float("nan"))
        if name in indicators.DOLLARS:
            value /= closes[-1]
        features.append(0.0 if isnan(value) else value)
    return features


def _linear(x: Values, y: Values, x_tested: Values) -> Values:
    """Least squares with a little ridge on standardised features.

    Args:
        x: (N, F) training features.
        y: (N,) ±1.
        x_tested: (M, F).

    Returns:
        (M,) scores.
    """
    mean, std = x.mean(axis=0), x.std(axis=0)
    std = np.where(std > 0, std, 1.0)
    scaled = (x - mean) / std
    gram = scaled.T @ scaled + 1e-3 * len(x) * np.eye(x.shape[1])
    weights = np.linalg.solve(gram, scaled.T @ (y - y.mean()))
    scores: Values = (x_tested - mean) / std @ weights
    return scores

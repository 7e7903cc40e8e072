"""Checks of the splits by date, and of the scalers that are fitted on the first of them."""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from engine.market import sampler
from engine.market.dataset import Rows
from engine.market.history import Days
from engine.market.leakage.check import Check, counted
from engine.market.leakage.subject import Subject, changed_after
from engine.market.prepare import PrepareOptions
from engine.market.splits import SPLIT_NAMES

_SCALED_TICKERS = 50


def duplicates(subject: Subject) -> Check:
    """Rows that two splits, or one split twice, hold."""
    keys, counts = np.unique(_keys(subject), return_counts=True)
    again = keys[counts > 1]
    return counted(
        "duplicates",
        "no row stands in two splits, or twice in one",
        subject.num_rows,
        [_key_text(subject, int(key)) for key in again.tolist()],
        "rows",
    )


def chronology(subject: Subject) -> Check:
    """The splits' as-of days, one split after the other."""
    offences = [
        key for earlier, later in _neighbours(subject) for key in earlier.not_before(later.first)
    ]
    return counted(
        "chronology",
        "train, validation and test follow each other in time; nothing is shuffled",
        subject.num_rows,
        offences,
        "rows",
    )


def embargo(subject: Subject) -> Check:
    """The splits' outcome days against the first as-of day of the next split."""
    proves = "no outcome of a split reaches the as-of days of the next one"
    if chronology(subject).verdict == "red":
        return Check("embargo", proves, "skipped", 0, 0, None, "the splits overlap in time")
    offences = [
        key for earlier, later in _neighbours(subject) for key in earlier.reaching(later.first)
    ]
    return counted("embargo", proves, subject.num_rows, offences, "rows")


class _SplitDays(NamedTuple):
    """The rows of one split that no other split holds too."""

    keys: list[str]
    as_of: Days
    outcome: Days

    @property
    def first(self) -> np.datetime64:
        first: np.datetime64 = self.as_of.min()
        return first

    def not_before(self, day: np.datetime64) -> list[str]:
        return [self.keys[at] for at in np.flatnonzero(self.as_of >= day).tolist()]

    def reaching(self, day: np.datetime64) -> list[str]:
        reaches = (self.as_of < day) & (self.outcome >= day)
        return [
            f"{self.keys[at]}: outcome on {self.outcome[at]}"
            for at in np.flatnonzero(reaches).tolist()
        ]


def _neighbours(subject: Subject) -> Iterator[tuple[_SplitDays, _SplitDays]]:
    """Each split with every later one; rows of two splits are the business of ``duplicates``."""
    keys, counts = np.unique(_keys(subject), return_counts=True)
    shared = keys[counts > 1]
    splits = []
    for name in SPLIT_NAMES:
        rows = subject.rows[name]
        own = np.flatnonzero(~np.isin(_row_keys(rows), shared))
        if len(own):
            rows = rows.take(own)
            outcome = np.array(
                [
                    subject.dataset.histories[history].days[index + subject.dataset.horizon]
                    for history, index in zip(
                        rows.history.tolist(), rows.index.tolist(), strict=True
                    )
                ]
            )
            texts = [_key_text(subject, key) for key in _row_keys(rows).tolist()]
            splits.append(_SplitDays(texts, rows.day, outcome))
    for at, earlier in enumerate(splits):
        for later in splits[at + 1 :]:
            yield earlier, later


_DAYS_OF_A_KEY = 1 << 20


def _row_keys(rows: Rows) -> NDArray[np.int64]:
    """Ticker and day of every row as one number."""
    keys: NDArray[np.int64] = rows.history * _DAYS_OF_A_KEY + rows.day.astype(np.int64)
    return keys


def _keys(subject: Subject) -> NDArray[np.int64]:
    return np.concatenate([_row_keys(rows) for rows in subject.rows.values()])


def _key_text(subject: Subject, key: int) -> str:
    # Days before 1970 count below 0.
    history = (key + _DAYS_OF_A_KEY // 2) // _DAYS_OF_A_KEY
    day = np.datetime64(key - history * _DAYS_OF_A_KEY, "D")
    return f"{subject.dataset.histories[history].ticker}:{day}"


def scalers(subject: Subject) -> Check:
    """Scalers fitted again on histories in which every price after training is another."""
    spans = subject.dataset.spans
    options = PrepareOptions(
        window=subject.dataset.window,
        horizon=subject.dataset.horizon,
        normalisation="standard",
    )
    chosen = sampler.spread(len(subject.market.histories), _SCALED_TICKERS, subject.rng())
    checked = 0
    offences = []
    for at in chosen.tolist():
        history = subject.market.histories[at]
        last = int(np.searchsorted(history.days, spans["train"].last, side="right")) - 1
        try:
            fitted = subject.fit_scaler(history, spans, options)
            other = subject.fit_scaler(changed_after(history, last, subject.rng()), spans, options)
        except ValueError:
            continue  # a ticker without training windows has no scaler
        checked += 1
        if fitted != other:
            offences.append(f"{history.ticker}: mean {fitted.mean:.6g} becomes {other.mean:.6g}")
    return counted(
        "scalers",
        "scalers stay the same when every price after the training days is another",
        checked,
        offences,
        "scalers",
    )

"""Labelled rows of a source by split; an Example is built when it is asked for."""

import datetime as dt
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

from engine.config import DataConfig
from engine.market import indicators, labels, statistics
from engine.market.calendar import start_of
from engine.market.example import Bar, Example, Financials, Headline, Label
from engine.market.history import Days, History, Values
from engine.market.market_share import UpShares
from engine.market.splits import SPLIT_NAMES, SplitName, TrainWindow, chronological

MAX_HEADLINES = 40
"""Headlines of an example, the newest ones: no prompt has room for more."""

FINANCIALS_DAYS = np.timedelta64(120, "D")
"""From this many calendar days after a fiscal year end its statement counts as public: annual
reports are due within 60 to 90 days."""

_VOLATILITY_DAYS = 20


@dataclass(frozen=True, eq=False)
class Rows:
    """Labelled rows, ordered by ticker, then day. Every array has one value per row."""

    history: NDArray[np.intp]
    """Position of the ticker in ``Dataset.histories``."""
    index: NDArray[np.intp]
    """Position of the as-of day in the history."""
    day: Days
    """As-of day."""
    up: NDArray[np.bool_]
    """Whether the market went up."""

    def __len__(self) -> int:
        return len(self.index)

    def take(self, positions: NDArray[np.intp]) -> "Rows":
        """The rows at ``positions``, in that order."""
        return Rows(
            self.history[positions], self.index[positions], self.day[positions], self.up[positions]
        )


class Dataset:
    """Histories with their indicators, labels and splits, computed once."""

    def __init__(
        self,
        histories: Sequence[History],
        *,
        window: int,
        horizon: int,
        train_share: float,
        validation_share: float,
        embargo: int,
        folds: int = 1,
        fold: int = 1,
        train_window: TrainWindow = "expanding",
        market_share: bool = False,
    ) -> None:
        """Compute everything that rows share.

        Args:
            window: trading days of prices in an example.
            horizon: trading days from the as-of day to the outcome, 1 to 10.
            train_share, validation_share, embargo, folds, fold, train_window: see
                ``splits.chronological``.
            market_share: whether examples hold the market's share of UP.

        Raises:
            UserError: the histories are too short for the splits.
        """
        self.histories = tuple(histories)
        self.window = window
        self.horizon = horizon
        self.spans = chronological(
            np.concatenate([history.days for history in self.histories]),
            train_share=train_share,
            validation_share=validation_share,
            embargo=embargo,
            horizon=horizon,
            folds=folds,
            fold=fold,
            train_window=train_window,
        )
        self._positions = {history.ticker: at for at, history in enumerate(self.histories)}
        self._indicators = [indicators.compute(history) for history in self.histories]
        self._moves = [labels.moves(history, horizon) for history in self.histories]
        self._shares = [history.shares for history in self.histories]
        self._up_shares = UpShares(self.histories) if market_share else None
        self._complete = [self._complete_rows(at) for at in range(len(self.histories))]
        self._usable = [
            complete & np.isfinite(moves)
            for complete, moves in zip(self._complete, self._moves, strict=True)
        ]
        self._rows = {name: self._rows_of(name) for name in SPLIT_NAMES}

    def fingerprint(self) -> str:
        """Identity of tickers, days and prices."""
        digest = hashlib.sha256()
        for history in self.histories:
            digest.update(history.ticker.encode())
            digest.update(history.days.tobytes())
            digest.update(history.adjusted.tobytes())
        return digest.hexdigest()[:12]

    @classmethod
    def configured(cls, histories: Sequence[History], data: DataConfig) -> Self:
        """The dataset that a run's ``data`` section describes.

        Raises:
            UserError: the histories are too short for the splits.
        """
        return cls(
            histories,
            window=data.window,
            horizon=data.horizon,
            train_share=data.train_share,
            validation_share=data.validation_share,
            embargo=data.embargo,
            folds=data.folds,
            fold=data.fold,
            train_window=data.train_window,
            market_share=data.market_share,
        )

    def rows(self, split: SplitName) -> Rows:
        """Every usable row of a split: window, volatility and label all known."""
        return self._rows[split]

    def example(self, history: int, index: int) -> Example:
        """The example of one row.

        Args:
            history: position of the ticker in ``histories``.
            index: position of the as-of day in that history; its window and volatility must be
                known. Where its outcome is not, the label's percent is NaN.
        """
        source = self.histories[history]
        known = {name: float(values[index]) for name, values in self._indicators[history].items()}
        sigma20 = known.pop("sigma20")
        level = float(source.close[index] / source.adjusted[index])
        shares = float(self._shares[history][index])
        for name in indicators.DOLLARS:
            known[name] *= level
        for name in indicators.SHARES:
            known[name] *= shares
        percent = float(self._moves[history][index])
        return Example(
            ticker=source.ticker,
            company=source.company,
            as_of=source.days[index].item(),
            window=_window(source, self._shares[history], index, self.window),
            indicators={name: value for name, value in known.items() if value == value},
            statistics=statistics.describe(
                source.adjusted, np.array([index]), self.window, np.array([level])
            )[0],
            sigma20=sigma20,
            label=Label("UP" if percent > 0 else "DOWN", percent),
            horizon=self.horizon,
            outcome_day=source.days[min(index + self.horizon, len(source) - 1)].item(),
            headlines=_headlines(source, index),
            financials=_financials(source, index),
            market_up_share=self._up_shares.on(source.days[index]) if self._up_shares else None,
        )

    def find(self, key: str, *, labelled: bool = True) -> Example:
        """The example whose ``key`` is given, such as ``AAPL:2012-09-14``.

        Args:
            labelled: only one whose outcome is known; else it may be NaN, as on the newest day.

        Raises:
            KeyError: no usable row has this key.
        """
        ticker, _, day = key.partition(":")
        try:
            history = self._positions[ticker]
            as_of = np.datetime64(dt.date.fromisoformat(day), "D")
        except (KeyError, ValueError):
            raise KeyError(key) from None
        rows = self._usable if labelled else self._complete
        usable = rows[history] & (self.histories[history].days == as_of)
        if not usable.any():
            raise KeyError(key)
        return self.example(history, int(usable.argmax()))

    def usable_days(self, history: int, *, labelled: bool = True) -> list[dt.date]:
        """The days of one ticker that have an example, whatever their split; see ``find``."""
        rows = self._usable if labelled else self._complete
        days: list[dt.date] = self.histories[history].days[rows[history]].tolist()
        return days

    def _complete_rows(self, history: int) -> NDArray[np.bool_]:
        """(N,) whether window and volatility are known."""
        known: NDArray[np.bool_] = np.isfinite(self._indicators[history]["sigma20"])
        known[: self.window - 1] = False
        doubtful = self.histories[history].doubtful
        if doubtful is not None:
            # The steps that window and volatility are made of, this day's own included.
            steps = np.concatenate([[0], doubtful.cumsum()])
            first = np.arange(len(doubtful)) + 1 - max(self.window - 1, _VOLATILITY_DAYS)
            known &= steps[1:] == steps[first.clip(0)]
        return known

    def _rows_of(self, split: SplitName) -> Rows:
        parts = []
        for at, history in enumerate(self.histories):
            index = np.flatnonzero(self._usable[at])
            span = self.spans[split]
            kept = index[span.holds(history.days[index], history.days[index + self.horizon])]
            parts.append(
                Rows(np.full(len(kept), at), kept, history.days[kept], self._moves[at][kept] > 0)
            )
        return Rows(
            np.concatenate([part.history for part in parts]),
            np.concatenate([part.index for part in parts]),
            np.concatenate([part.day for part in parts]),
            np.concatenate([part.up for part in parts]),
        )


def _window(history: History, shares: Values, index: int, length: int) -> tuple[Bar, ...]:
    part = slice(index - length + 1, index + 1)
    # Ratios of adjusted closes hold splits and dividends between two days; the close of the
    # as-of day gives the level, so that a later split or dividend cannot show.
    close = history.adjusted[part] / history.adjusted[index] * history.close[index]
    factor = close / history.close[part]
    volume = history.volume[part] * (shares[index] / shares[part])
    columns = (
        history.days[part],
        history.open[part] * factor,
        history.high[part] * factor,
        history.low[part] * factor,
        close,
        volume,
    )
    return tuple(Bar(*values) for values in zip(*(c.tolist() for c in columns), strict=True))


def _headlines(history: History, index: int) -> tuple[Headline, ...]:
    if history.news is None:
        return ()
    return tuple(Headline(*told) for told in history.news.on(index, MAX_HEADLINES))


def _financials(history: History, index: int) -> Financials | None:
    """The newest statement that is public on a day."""
    for statement in reversed(history.statements):
        public = np.datetime64(statement.fiscal_year_end, "D") + FINANCIALS_DAYS
        if public <= history.days[index]:
            return Financials(statement.fiscal_year_end, start_of(public.item()), statement.values)
    return None

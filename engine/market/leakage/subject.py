"""What is judged: the delivered data, the parts that use it, and a sample of their examples."""

import dataclasses
from collections.abc import Callable, Sequence
from functools import cached_property
from typing import NamedTuple, Protocol

import numpy as np

from engine.errors import UserError
from engine.market import prepare, prompts, sampler
from engine.market.dataset import Dataset
from engine.market.example import Example
from engine.market.history import History
from engine.market.prepare import PrepareOptions
from engine.market.prompts import Prompt, Style
from engine.market.quality import Market
from engine.market.scaling import Scaler
from engine.market.splits import SPLIT_NAMES, Span, SplitName

SAMPLE = 2000
"""Examples that the checks of single examples look at."""

SEED = 7


class Compose(Protocol):
    """Makes the prompt of an example."""

    def __call__(self, example: Example, *, style: Style) -> Prompt: ...


Build = Callable[[Sequence[History]], Dataset]
FitScaler = Callable[[History, dict[SplitName, Span], PrepareOptions], Scaler]


class Known(NamedTuple):
    """An example beside the delivered data that it must agree with."""

    example: Example
    history: History
    """As the source delivered it."""
    at: int
    """Position of the as-of day in it."""


class Subject:
    """What is judged, and the sample of its examples."""

    def __init__(
        self,
        market: Market,
        build: Build,
        *,
        compose: Compose = prompts.compose,
        fit_scaler: FitScaler = prepare.fit_scaler,
        sample: int = SAMPLE,
        seed: int = SEED,
    ) -> None:
        """Build the dataset and draw the sample, spread over splits, tickers and time.

        Args:
            market: the data as delivered.
            build: makes a dataset of histories.
            compose: makes the prompt of an example.
            fit_scaler: fits the scaler of a ticker, as ``prepare`` does.
            sample: examples to draw at most.
            seed: decides the sample and everything else that is drawn.

        Raises:
            UserError: the histories are too short for the splits.
        """
        self.market = market
        self.build = build
        self.compose = compose
        self.fit_scaler = fit_scaler
        self.seed = seed
        self.dataset = build(market.histories)
        self.histories = {history.ticker: history for history in market.histories}
        self.rows = {name: self.dataset.rows(name) for name in SPLIT_NAMES}
        self.num_rows = sum(len(rows) for rows in self.rows.values())
        pairs = [
            pair
            for rows in self.rows.values()
            for pair in zip(
                rows.history.tolist(), rows.index.tolist(), rows.up.tolist(), strict=True
            )
        ]
        chosen = sampler.spread(len(pairs), sample, self.rng())
        self._sample = [pairs[at] for at in chosen.tolist()]

    @cached_property
    def examples(self) -> list[tuple[Known, bool]]:
        """The sample, each with the side on which its row was counted."""
        return [
            (self.known(self.dataset.example(history, index)), up)
            for history, index, up in self._sample
        ]

    def rng(self) -> np.random.Generator:
        """A fresh generator, so that no check depends on another."""
        return np.random.default_rng(self.seed)

    def known(self, example: Example) -> Known:
        """The example beside the delivered history of its ticker."""
        history = self.histories[example.ticker]
        day = np.datetime64(example.as_of, "D")
        return Known(example, history, int(np.searchsorted(history.days, day)))

    def with_changed_future(self, known: Known) -> Example:
        """The same row, built from a history in which every later price is another."""
        changed = changed_after(known.history, known.at, self.rng())
        try:
            dataset = self.build([changed])
        except UserError:
            # Too short to be split by itself.
            others = [changed if h is known.history else h for h in self.market.histories]
            dataset = self.build(others)
        at = next(at for at, h in enumerate(dataset.histories) if h.ticker == known.example.ticker)
        day = np.datetime64(known.example.as_of, "D")
        other = dataset.example(at, int(np.searchsorted(dataset.histories[at].days, day)))
        # The market's share is of all tickers, and has a check of its own.
        return dataclasses.replace(other, market_up_share=known.example.market_up_share)


def changed_after(history: History, index: int, rng: np.random.Generator) -> History:
    """``history`` with every price and volume after ``index`` another."""
    factor = np.ones(len(history))
    factor[index + 1 :] = rng.uniform(1.1, 2, len(history) - index - 1)
    columns = ("open", "high", "low", "close", "adjusted", "volume")
    changed = {name: getattr(history, name) * factor for name in columns}
    return dataclasses.replace(history, **changed)

"""The daily series of one ticker, as a source delivers it."""

import datetime as dt
from array import array
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Days = NDArray[np.datetime64]
Values = NDArray[np.float64]


class Texts:
    """Many short texts in one block of memory, where a list would take twice as much.

    They may hold anything, lone surrogates too, and come back as they were.
    """

    def __init__(self, texts: Iterable[str] = ()) -> None:
        """Begin with ``texts``."""
        self._block = bytearray()
        self._ends = array("q", [0])
        for text in texts:
            self.add(text)

    def __len__(self) -> int:
        return len(self._ends) - 1

    def add(self, text: str) -> int:
        """Append a text; returns its position."""
        self._block += text.encode("utf-8", "surrogatepass")
        self._ends.append(len(self._block))
        return len(self) - 1

    def take(self, positions: Iterable[int]) -> list[str]:
        """The texts at ``positions``, in that order."""
        block, ends = self._block, self._ends
        return [block[ends[at] : ends[at + 1]].decode("utf-8", "surrogatepass") for at in positions]


@dataclass(frozen=True, eq=False)
class News:
    """Headlines or posts by the day they belong to, oldest first within a day.

    N days, M mentions; a text that belongs to several days is stored once. The texts are as
    they were found: whoever shows one sanitizes it.
    """

    texts: Texts
    first: NDArray[np.int64]
    """(N + 1,) the mentions of day ``i`` are ``first[i]`` to ``first[i + 1] - 1``."""
    text: NDArray[np.int32]
    """(M,) position in ``texts``."""
    known_at: NDArray[np.datetime64]
    """(M,) seconds, UTC: the moment at which the text was certainly public."""

    def on(self, index: int, limit: int) -> list[tuple[str, dt.datetime]]:
        """The newest ``limit`` texts of day ``index`` with the time each became known."""
        end = int(self.first[index + 1])
        part = slice(max(int(self.first[index]), end - limit), end)
        known = [moment.replace(tzinfo=dt.UTC) for moment in self.known_at[part].tolist()]
        return list(zip(self.texts.take(self.text[part].tolist()), known, strict=True))


@dataclass(frozen=True)
class Statement:
    """One annual income statement."""

    fiscal_year_end: dt.date
    values: Mapping[str, float]
    """Line item → dollars, or dollars a share, as the statement has it."""


@dataclass(frozen=True, eq=False)
class History:
    """All trading days of a ticker, oldest first; every array has one value per day.

    Open, high, low, close and volume are as the source quotes them, NaN where it has none.
    ``adjusted`` is the close corrected for every split and dividend of the source, later ones
    included, so that only its ratios carry meaning.
    """

    ticker: str
    company: str
    """Name of the company; the ticker again where the source does not know it."""
    days: Days
    open: Values
    high: Values
    low: Values
    close: Values
    volume: Values
    adjusted: Values
    split_ratio: Values
    """New shares per old one on the day they first trade: 2 on a 2:1 split day, else 1."""
    news: News | None = None
    statements: tuple[Statement, ...] = ()
    """In order of fiscal year end."""
    doubtful: NDArray[np.bool_] | None = None
    """Days whose move from the day before cannot be trusted; None: there is none."""
    shuffle_seed: int | None = None
    """Labels are permuted with this seed, see ``engine.market.labels.moves``; None: they are
    what the prices did."""

    def __len__(self) -> int:
        return len(self.days)

    @property
    def shares(self) -> Values:
        """Shares that one share of the first day has become through splits, per day."""
        shares: Values = self.split_ratio.cumprod()
        return shares

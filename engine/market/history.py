"""The daily series of one ticker, as a source delivers it."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Days = NDArray[np.datetime64]
Values = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class History:
    """All trading days of a ticker, oldest first; every array has one value per day.

    Open, high, low, close and volume are as traded. ``adjusted`` is the close corrected for
    every split and dividend of the source, later ones included, so that only its ratios
    carry meaning.
    """

    ticker: str
    company: str
    days: Days
    open: Values
    high: Values
    low: Values
    close: Values
    volume: Values
    adjusted: Values
    split_ratio: Values
    """New shares per old one on the day they first trade: 2 on a 2:1 split day, else 1."""

    def __len__(self) -> int:
        return len(self.days)

    @property
    def shares(self) -> Values:
        """Shares that one share of the first day has become through splits, per day."""
        shares: Values = self.split_ratio.cumprod()
        return shares

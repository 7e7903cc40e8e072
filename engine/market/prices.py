"""From the columns of a price file to the history of a ticker, every row judged.

A row that is wrong in itself is refused and counted. A move that cannot be real is not: leaving
out its row would leave the move between the rows around it, so it refuses the file.
"""

import re
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from engine.errors import UserError
from engine.market import tables
from engine.market.history import Days, History, News, Values
from engine.market.quality import EXAMPLES, FIXES, Tally, shown
from engine.market.tables import Table

SPELLINGS = {
    "Date": ("date", "timestamp", "datetime", "day", "indexlevel0"),
    "Open": ("open", "openprice"),
    "High": ("high", "highprice"),
    "Low": ("low", "lowprice"),
    "Close": ("close", "closeprice"),
    "Adj Close": ("adjclose", "adjustedclose", "closeadj", "closeadjusted", "adjclosingprice"),
    "Volume": ("volume", "vol"),
    "Ticker": ("ticker", "symbol"),
}
"""How price files name their columns: lower case, letters and digits alone."""

NEEDED = ("Date", "Open", "High", "Low", "Close", "Volume")

MAX_MOVE = 0.35
"""Share of the price by which a close may move in a day without a second witness."""

_PRICES = ("Open", "High", "Low", "Close", "Adj Close")
_LARGEST_PRICE = 1e9
_SMALLEST_PRICE = 1e-9
_LARGEST_VOLUME = 1e15
_TICKER = re.compile(r"[A-Za-z0-9._-]{1,16}")

# Ratios in which shares are split or merged.
_RATIOS = np.unique(
    [float(n) for n in range(2, 101)]
    + [1 / n for n in range(2, 101)]
    + [3 / 2, 4 / 3, 5 / 2, 5 / 3, 5 / 4, 7 / 2, 7 / 4, 2 / 3, 3 / 4, 2 / 5, 3 / 5, 4 / 5]
)

# The turnover in dollars of a day on which a price really halves is many times the usual one;
# a split only changes how many shares it takes.
_ORDINARY_TURNOVER = 3.0
_TURNOVER_DAYS = 20


def is_safe_ticker(ticker: str) -> bool:
    """Whether ``ticker`` can be part of a file name: letters, digits, ``.``, ``-`` and ``_``."""
    return bool(_TICKER.fullmatch(ticker)) and ticker not in (".", "..")


@dataclass(frozen=True, eq=False)
class Series:
    """The accepted rows of one price file, in order of their days."""

    days: Days
    open: Values
    high: Values
    low: Values
    close: Values
    volume: Values
    adjusted: Values
    is_adjusted: bool
    """Whether the file has adjusted closes of its own."""
    place: str
    lines: NDArray[np.int64]
    """Line of each row in the file."""

    def history(self, ticker: str, company: str, news: News | None = None) -> History:
        """The series as a history, its splits found.

        Raises:
            UserError: a move that only an unadjusted split, or a damaged file, can show.
        """
        ratio = split_ratios(self.close, self.adjusted)
        self._refuse_false_moves(ratio)
        return History(
            ticker=ticker,
            company=company,
            days=self.days,
            open=self.open,
            high=self.high,
            low=self.low,
            close=self.close,
            volume=self.volume,
            adjusted=self.adjusted,
            split_ratio=ratio,
            news=news,
        )

    def _refuse_false_moves(self, ratio: Values) -> None:
        close = self.close[1:] / self.close[:-1]
        adjusted = self.adjusted[1:] / self.adjusted[:-1]
        jumps = np.abs(close - 1) > MAX_MOVE
        adjusted_jumps = np.abs(adjusted - 1) > MAX_MOVE
        agree = np.abs(close / adjusted - 1) <= MAX_MOVE
        is_split = ratio[1:] != 1
        if not self.is_adjusted:
            unconfirmed, witness = jumps, "there is no Adj Close to confirm it"
        else:
            unconfirmed = (jumps | adjusted_jumps) & ~agree & ~(is_split & ~adjusted_jumps)
            witness = "Adj Close moves differently"
            alike = jumps & adjusted_jumps & ~unconfirmed
            if alike.any():
                quiet = alike & looks_like_a_split(close, self.close, self.volume)
                if quiet.any() and not unconfirmed.any():
                    unconfirmed, witness = quiet, "Adj Close shows it too, with ordinary turnover"
        if not unconfirmed.any():
            return
        at = int(unconfirmed.argmax())
        field = "Close" if jumps[at] else "Adj Close"
        move = (close if jumps[at] else adjusted)[at] - 1
        raise UserError(
            f"{move:+.1%} from {self.days[at]} to {self.days[at + 1]} and {witness}, as an"
            " unadjusted split shows",
            where=f"{self.place}:{self.lines[at + 1]}:{field}",
            fix="give the file an Adj Close that is adjusted for splits and dividends",
        )


def series(table: Table, tally: Tally) -> Series:
    """Judge every row of a price file.

    Raises:
        UserError: a column is missing, dates are in several time zones, or no row is left.
    """
    tables.need(table, NEEDED)
    judge = _Judge(table, tally)
    days = tables.dates(table, "Date")
    judge.refuse("unreadable date", "Date", np.isnat(days))
    values = {
        column: judge.numbers(column) for column in (*_PRICES, "Volume") if column in table.columns
    }
    for column in _PRICES:
        if column in values:
            judge.refuse("price not above 0", column, values[column] <= 0)
            extreme = (values[column] >= _LARGEST_PRICE) | (values[column] < _SMALLEST_PRICE)
            judge.refuse("price out of range", column, extreme)
    volume = values["Volume"]
    judge.refuse("volume out of range", "Volume", (volume < 0) | (volume > _LARGEST_VOLUME))
    judge.refuse("high below low", "High", values["High"] < values["Low"])
    judge.refuse_disorder(days)
    good = np.flatnonzero(~judge.refused)
    if not len(good):
        raise UserError(
            f"{judge.first} (no usable row is left)", fix="correct the file or remove it"
        )
    close = values["Close"][good]
    return Series(
        days=days[good],
        open=values["Open"][good],
        high=values["High"][good],
        low=values["Low"][good],
        close=close,
        volume=volume[good],
        adjusted=values["Adj Close"][good] if "Adj Close" in values else close,
        is_adjusted="Adj Close" in values,
        place=table.place,
        lines=table.lines[good],
    )


def ticker_of(table: Table, stem: str) -> str:
    """The ticker of a price file: that of its ticker column, else the file's name.

    Raises:
        UserError: several tickers, or a name that cannot be part of a file name.
    """
    ticker, where = stem, table.place
    names = table.columns.get("Ticker")
    if names is not None:
        texts = [str(name).strip() for name in names]
        ticker, where = texts[0], table.where(0, "Ticker")
        for row, text in enumerate(texts):
            if text != ticker:
                raise UserError(
                    f"a second ticker {shown(text)} after {shown(ticker)}",
                    where=table.where(row, "Ticker"),
                    fix="give every ticker a file of its own",
                )
    if not is_safe_ticker(ticker):
        raise UserError(f"{shown(ticker)} is no ticker", where=where, fix=FIXES["unsafe ticker"])
    return ticker


def split_ratios(close: Values, adjusted: Values) -> Values:
    """New shares per old one on each day, (N,), as close and adjusted close together tell.

    A close as traded falls on a split day while the adjusted close does not. A dividend, which
    parts the two as well, is hardly ever a fifth of the price.
    """
    ratios = np.ones(len(close))
    if len(close) < 2:
        return ratios
    parted = (adjusted[1:] / adjusted[:-1]) / (close[1:] / close[:-1])
    nearest = _nearest_ratio(parted)
    is_split = (np.abs(parted / nearest - 1) < 0.01) & (np.abs(parted - 1) > 0.18)
    ratios[1:][is_split] = nearest[is_split]
    return ratios


def _nearest_ratio(values: Values) -> Values:
    right = np.clip(np.searchsorted(_RATIOS, values), 1, len(_RATIOS) - 1)
    left = right - 1
    closer = values / _RATIOS[left] < _RATIOS[right] / values
    nearest: Values = np.where(closer, _RATIOS[left], _RATIOS[right])
    return nearest


def looks_like_a_split(moves: Values, close: Values, volume: Values) -> NDArray[np.bool_]:
    """(N - 1,) moves near a split ratio whose day was traded like the days before.

    Args:
        moves: (N - 1,) close over the close before.
        close, volume: (N,).
    """
    near = np.abs(1 / moves / _nearest_ratio(1 / moves) - 1) < 0.1
    turnover = close * volume
    for step in np.flatnonzero(near).tolist():
        before = turnover[max(0, step + 1 - _TURNOVER_DAYS) : step + 1]
        before = before[before > 0]
        near[step] = len(before) >= 5 and 0 < turnover[step + 1] < _ORDINARY_TURNOVER * float(
            np.median(before)
        )
    return near


class _Judge:
    """Refuses rows, each for one reason: the first that is found."""

    def __init__(self, table: Table, tally: Tally) -> None:
        self._table = table
        self._tally = tally
        self.refused = np.zeros(len(table), np.bool_)
        self.first = ""
        """The first row that was refused, and why."""

    def refuse(self, reason: str, column: str, rows: NDArray[np.bool_]) -> None:
        new = np.flatnonzero(rows & ~self.refused)
        if not len(new):
            return
        self.refused[new] = True
        values = self._table.columns[column]
        examples = [
            (self._table.where(row, column), f"{reason}: {shown(values[row])}")
            for row in new[:EXAMPLES].tolist()
        ]
        self.first = self.first or ": ".join(examples[0])
        self._tally.refuse(reason, len(new), examples)

    def numbers(self, column: str) -> Values:
        values, faults = tables.numbers(self._table, column)
        for reason, rows in faults.items():
            self.refuse(reason, column, rows)
        return values

    def refuse_disorder(self, days: Days) -> None:
        """Refuse rows whose day is not after that of every accepted row before."""
        kept = np.flatnonzero(~self.refused)
        if len(kept) < 2:
            return
        latest = np.maximum.accumulate(days[kept])[:-1]
        for reason, wrong in (
            ("duplicate date", _repeats(days[kept])),
            ("date out of order", days[kept][1:] < latest),
        ):
            rows = np.zeros(len(self.refused), np.bool_)
            rows[kept[1:][wrong]] = True
            self.refuse(reason, "Date", rows)


def _repeats(days: Days) -> NDArray[np.bool_]:
    """(N - 1,) whether each day but the first stood in a row before."""
    first = np.unique(days, return_index=True)[1]
    repeated = np.ones(len(days), np.bool_)
    repeated[first] = False
    return repeated[1:]

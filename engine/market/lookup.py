"""The example that a person means by a ticker and a day, or what is near."""

import datetime as dt
import difflib
from collections.abc import Sequence
from typing import TYPE_CHECKING

from engine.errors import UserError
from engine.text import one_line

if TYPE_CHECKING:
    from engine.market.dataset import Dataset
    from engine.market.example import Example


def find_example(dataset: "Dataset", ticker: str, date: str, *, labelled: bool = True) -> "Example":
    """The example of a ticker and day.

    Args:
        labelled: only one whose outcome is known, see ``Dataset.find``.

    Raises:
        UserError: there is none, with what is near.
    """
    try:
        day = dt.date.fromisoformat(date)
    except ValueError:
        raise UserError(
            f"{one_line(date, 40)!r} is no date", where="--date", fix="write it as YYYY-MM-DD"
        ) from None
    tickers = [history.ticker for history in dataset.histories]
    if ticker not in tickers:
        near = difflib.get_close_matches(ticker.upper(), tickers, n=3) or tickers[:5]
        raise UserError(
            f"no ticker called {one_line(ticker, 40)!r}",
            where="--ticker",
            fix=f"there are {len(tickers)}, such as {', '.join(map(one_line, near))}",
        )
    try:
        return dataset.find(f"{ticker}:{day.isoformat()}", labelled=labelled)
    except KeyError:
        near = _nearest(dataset.usable_days(tickers.index(ticker), labelled=labelled), day)
        why = "no trading day, or too early for its window and volatility"
        if labelled:
            why = "no trading day, too early for its window and volatility, or without a label"
        raise UserError(
            f"no example of {one_line(ticker)} on {day}: {why}",
            where="--date",
            fix=f"the nearest are {' and '.join(near)}" if near else "use another ticker",
        ) from None


def _nearest(usable: Sequence[dt.date], day: dt.date) -> list[str]:
    """The days with an example right before and after ``day``."""
    before = [one for one in usable if one < day][-1:]
    after = [one for one in usable if one > day][:1]
    return [one.isoformat() for one in (*before, *after)]

"""StockNet's folders: daily prices, and posts about the stocks.

Prices: ``price/raw/TICKER.csv``. Posts, either as the data set has them,
``tweet/raw/TICKER/YYYY-MM-DD`` with one JSON object a line (``created_at`` like ``Wed Jan 01
03:59:03 +0000 2014``), or reduced to ``posts/TICKER.jsonl.gz`` (``ticker``, ``created_at`` in ISO
8601, ``text``). The names of the day files follow a clock of their own, so that ``created_at``
alone decides which exchange day a post belongs to.

Posts are text of strangers: they are kept as written, and cut.
"""

import datetime as dt
import gzip
import json
import zlib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np

from engine.errors import UserError
from engine.market.calendar import day_of
from engine.market.history import Days, News, Texts
from engine.market.ohlcv import read_prices
from engine.market.quality import Market, Report, Tally, gaps_of, shown, splits_of
from engine.text import one_line

MAX_CHARACTERS = 1000
"""Longest post that is kept whole."""

_MONTHS = {
    name: number
    for number, name in enumerate(
        ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"), 1
    )
}

_Post = tuple[dt.datetime, str]


def load(folder: Path, source: str) -> Market:
    """Read prices and posts.

    Args:
        folder: holds ``price/raw`` and, where there are posts, ``tweet/raw`` or ``posts``.
        source: the source string, for the result.

    Raises:
        UserError: a folder or file that cannot be used, or more than 5 % of the price rows or
            of the posts refused.
    """
    if not (folder / "price" / "raw").is_dir():
        raise UserError(
            "there is no folder price/raw", where=one_line(str(folder)), fix="name StockNet's root"
        )
    price_rows, post_rows = Tally("price rows"), Tally("posts")
    histories, notes = read_prices(folder / "price" / "raw", price_rows)
    posts = _posts(folder, post_rows)
    with_posts = tuple(
        replace(history, news=_news(history.days, posts.pop(history.ticker)))
        if history.ticker in posts
        else history
        for history in histories
    )
    if posts:
        unpriced = ", ".join(sorted(posts)[:5]) + (" and more" if len(posts) > 5 else "")
        notes = (*notes, f"posts of {len(posts)} tickers without prices left out: {unpriced}")
    num_with_posts = sum(history.news is not None for history in with_posts)
    rows = (price_rows.finish(), post_rows.finish())
    return Market(
        source=source,
        histories=with_posts,
        report=Report(
            description=f"StockNet: daily prices of {len(histories)} tickers, posts about"
            f" {num_with_posts} of them, in {one_line(str(folder))}",
            synthetic=False,
            rows=rows if post_rows.read else rows[:1],
            splits=splits_of(histories),
            gaps=gaps_of(histories),
            notes=notes,
        ),
    )


def _posts(folder: Path, tally: Tally) -> dict[str, list[_Post]]:
    """Every post by ticker, in the order of the files."""
    posts: dict[str, list[_Post]] = {}
    raw = folder / "tweet" / "raw"
    if raw.is_dir():
        for path in sorted(raw.glob("*/????-??-??")):
            for where, fields in _objects(path, tally):
                _add(posts, path.parent.name, where, fields, tally)
    else:
        for path in sorted((folder / "posts").glob("*.jsonl*")):
            for where, fields in _objects(path, tally):
                ticker = fields.get("ticker")
                if isinstance(ticker, str) and ticker:
                    _add(posts, ticker, where, fields, tally)
                else:
                    tally.refuse("missing field", 1, [(f"{where}:ticker", "no text in this field")])
    return posts


def _objects(path: Path, tally: Tally) -> Iterator[tuple[str, dict[str, object]]]:
    """``file:line`` and the fields of every line."""
    place = one_line(str(path))
    opened = gzip.open if path.suffix == ".gz" else open
    try:
        if not path.is_file():
            raise UserError("this is not a file", where=place, fix="remove it")
        with opened(path, "rb") as file:
            for number, line in enumerate(file, start=1):
                if not line.strip():
                    continue
                tally.read += 1
                where = f"{place}:{number}"
                try:
                    fields = json.loads(line)
                except (ValueError, RecursionError):
                    tally.refuse("not JSON", 1, [(where, shown(line[:40].decode("latin-1")))])
                    continue
                if isinstance(fields, dict):
                    yield where, fields
                else:
                    tally.refuse("not JSON", 1, [(where, "not a JSON object")])
    except (OSError, EOFError, zlib.error) as error:
        raise UserError(
            f"cannot be read: {one_line(str(error), 80)}", where=place, fix="fetch the file again"
        ) from error


def _add(
    posts: dict[str, list[_Post]],
    ticker: str,
    where: str,
    fields: dict[str, object],
    tally: Tally,
) -> None:
    text, created_at = fields.get("text"), fields.get("created_at")
    if not isinstance(text, str) or not isinstance(created_at, str):
        field = "created_at" if isinstance(text, str) else "text"
        tally.refuse("missing field", 1, [(f"{where}:{field}", "no text in this field")])
        return
    written = _moment(created_at)
    if written is None:
        tally.refuse("unreadable time", 1, [(f"{where}:created_at", shown(created_at))])
        return
    posts.setdefault(ticker, []).append((written, text[:MAX_CHARACTERS]))


def _moment(text: str) -> dt.datetime | None:
    """A time with its zone, as naive UTC; None where it cannot be read or names no zone."""
    try:
        if text[:1].isdigit():
            moment = dt.datetime.fromisoformat(text)
        else:
            _, month, day, clock, zone, year = text.split()
            moment = dt.datetime.fromisoformat(
                f"{int(year):04}-{_MONTHS[month]:02}-{int(day):02}T{clock}{zone}"
            )
        if moment.tzinfo is None:
            return None
        return moment.astimezone(dt.UTC).replace(tzinfo=None)
    except (ValueError, KeyError, OverflowError):
        return None


def _news(days: Days, posts: list[_Post]) -> News:
    """Posts in order of time; those that no exchange day follows are left out."""
    posts.sort(key=lambda post: post[0])
    written = np.array([moment for moment, _ in posts], dtype="datetime64[s]")
    day = day_of(days, written)
    kept = int(np.searchsorted(day, len(days)))
    return News(
        texts=Texts(text for _, text in posts[:kept]),
        first=np.searchsorted(day[:kept], np.arange(len(days) + 1)),
        text=np.arange(kept, dtype=np.int32),
        known_at=written[:kept],
    )

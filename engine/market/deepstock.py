"""The deepstock data set: a row per ticker and day with news and financials, from the hub or disk.

Its ``user_prompt`` prints the price of the day to be called under an earlier date, and is never
read. Its ``financials`` are those of the *next* fiscal year end, from the future: whichever row
brought a statement, it counts from ``engine.market.dataset.FINANCIALS_DAYS`` after that day.
Its descriptions are today's, and left out. ``close_previous`` is a week old, and so is not used:
the calendar of a ticker is made of all its rows.

A row of day d holds headlines of d-7 to d-1 without their days, so all count as known when d
begins. There is no high, low or volume: these are NaN. Prices come from two vendors whose
adjustments may differ, so that a move beyond ``MAX_MOVE`` is doubtful: no label and no window
may contain it.
"""

import datetime as dt
import json
import logging
import re
from array import array
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from engine.errors import UserError
from engine.market.calendar import starts_of
from engine.market.history import Days, History, News, Statement, Texts, Values
from engine.market.prices import is_safe_ticker
from engine.market.quality import EXAMPLES, Market, Report, Tally, gaps_of, shown
from engine.text import one_line

if TYPE_CHECKING:
    import pyarrow as pa

HUB_ID = "2084Collective/deepstock-sp500-companies-with-info-and-user-prompt_buy_sell_v2"

MAX_MOVE = 0.25
"""Move of a close in a day, as a share of the price, beyond which it is doubtful."""

MAX_HEADLINES = 64
"""Headlines of one row that are kept, the last ones."""

MAX_CHARACTERS = 300
"""Longest headline that is kept whole."""

_COLUMNS = ("ticker", "company_info")
"""What is requested. ``user_prompt`` is not."""

_BATCH = 2048
_MAX_LINES = 100
_HUB_TIMEOUT_SECONDS = 20.0
_HUB_NAME = re.compile(r"[\w.-]{1,96}/[\w.-]{1,96}")

_NAME = "company_info.company_info.name"
_HEADLINES = "company_info.news.news_headlines"
_YEAR = "company_info.financials.year"
_FINANCIALS = "company_info.financials.financials"
_OPEN = "company_info.price.open"
_CLOSE = "company_info.price.close"
_PRICE_DATE = "company_info.price.price_date"
_DAY = "company_info.current_date"
_FIELDS = ("ticker", _DAY, _NAME, _HEADLINES, _YEAR, _FINANCIALS, _OPEN, _CLOSE, _PRICE_DATE)


class _Batch(NamedTuple):
    """Some rows, one list for each of ``_FIELDS``."""

    place: str
    first: int
    """Number of the first row in the file, from 1."""
    columns: Mapping[str, list[Any]]


@dataclass
class _Rows:
    """What was read about one ticker, a value per row, in the order of the file."""

    company: str = ""
    days: "array[int]" = field(default_factory=lambda: array("i"))
    """Ordinals, as ``datetime.date`` counts them."""
    open: "array[float]" = field(default_factory=lambda: array("d"))
    close: "array[float]" = field(default_factory=lambda: array("d"))
    numbers: "array[int]" = field(default_factory=lambda: array("q"))
    """Number of the row in its file."""
    places: list[str] = field(default_factory=list)
    headlines: "array[int]" = field(default_factory=lambda: array("i"))
    """Positions of the headlines of all rows, row by row."""
    num_headlines: "array[int]" = field(default_factory=lambda: array("i"))
    last_headlines: dict[str, int] = field(default_factory=dict)
    """Those of the last row with their positions."""
    statements: dict[dt.date, str] = field(default_factory=dict)


def load(place: str, source: str) -> Market:
    """Read the data set.

    Args:
        place: a parquet or JSONL file, a folder of them, or the id of a hub data set.
        source: the source string, for the result.

    Raises:
        UserError: no such place, an unreachable or gated data set, another schema, or more
            than 5 % of the rows refused.
    """
    path = Path(place)
    if path.exists():
        batches = _local(path)
    elif _HUB_NAME.fullmatch(place) and not place.startswith("."):
        batches = _hub(place)
    else:
        raise UserError(
            "there is no such file, folder or data set",
            where=one_line(place),
            fix="name a parquet or JSONL file, a folder of them, or organisation/name of the hub",
        )
    tally = Tally("price rows")
    reader = _Reader(tally)
    for batch in batches:
        reader.add(batch)
    histories, notes = [], []
    num_doubtful = num_unread = 0
    for ticker in sorted(reader.tickers):
        rows = reader.tickers.pop(ticker)
        if not rows.days:
            continue
        history, unread = _history(ticker, rows, reader.texts, tally)
        histories.append(history)
        num_unread += unread
        num_doubtful += 0 if history.doubtful is None else int(history.doubtful.sum())
    counted = tally.finish()
    if not histories:
        raise UserError("the data set has no rows", where=one_line(place))
    if num_doubtful:
        notes.append(
            f"{num_doubtful:,} moves beyond {MAX_MOVE:.0%} in a day:"
            " no label and no window holds one"
        )
    if reader.closed:
        notes.append(f"{reader.closed:,} rows of days without a price of their own left out")
    if num_unread:
        notes.append(f"{num_unread:,} statements that cannot be read left out")
    notes.append("no high, low or volume; company descriptions are today's and left out")
    return Market(
        source=source,
        histories=tuple(histories),
        report=Report(
            description=f"deepstock: closes, news and financials of {len(histories)} tickers"
            f" from {one_line(place)}",
            synthetic=False,
            rows=(counted,),
            splits=(),
            gaps=gaps_of(histories),
            notes=tuple(notes),
        ),
    )


class _Reader:
    """Collects rows by ticker."""

    def __init__(self, tally: Tally) -> None:
        self._tally = tally
        self.texts = Texts()
        self.tickers: dict[str, _Rows] = {}
        self.closed = 0
        """Rows whose price is that of another day: the exchange was closed."""

    def add(self, batch: _Batch) -> None:
        columns = [batch.columns[name] for name in _FIELDS]
        self._tally.read += len(columns[0])
        for number, row in enumerate(zip(*columns, strict=True), start=batch.first):
            ticker, day, name, headlines, year, financials, opening, close, price_date = row
            if not (isinstance(ticker, str) and is_safe_ticker(ticker)):
                self._refuse("unsafe ticker", batch, number, "ticker", ticker)
                continue
            rows = self.tickers.get(ticker) or self.tickers.setdefault(ticker, _Rows())
            # A statement counts by its own date, whatever the rest of its row is worth.
            end = _day(year)
            if end is not None and isinstance(financials, str):
                rows.statements.setdefault(end, financials)
            as_of, priced = _day(day), _day(price_date)
            if as_of is None or priced is None:
                bad, value = (_DAY, day) if as_of is None else (_PRICE_DATE, price_date)
                self._refuse("unreadable date", batch, number, bad, value)
            elif (reason := _price_fault(close)) is not None:
                self._refuse(reason, batch, number, _CLOSE, close)
            elif (reason := _price_fault(opening)) is not None:
                self._refuse(reason, batch, number, _OPEN, opening)
            elif as_of != priced:
                self.closed += 1
            else:
                rows.company = rows.company or (name if isinstance(name, str) else "")
                rows.days.append(as_of.toordinal())
                rows.open.append(opening)
                rows.close.append(close)
                rows.numbers.append(number)
                rows.places.append(batch.place)
                self._keep_headlines(rows, headlines)

    def _keep_headlines(self, rows: _Rows, headlines: object) -> None:
        # Rows of neighbouring days share six of their seven days of news: what the row before
        # held is not stored again. A table of all headlines would outweigh them.
        before, now = rows.last_headlines, {}
        for text in headlines[-MAX_HEADLINES:] if isinstance(headlines, list) else ():
            if isinstance(text, str) and text.strip():
                kept = text[:MAX_CHARACTERS]
                if kept not in now:
                    now[kept] = before[kept] if kept in before else self.texts.add(kept)
        rows.headlines.extend(now.values())
        rows.num_headlines.append(len(now))
        rows.last_headlines = now

    def _refuse(self, reason: str, batch: _Batch, number: int, name: str, value: object) -> None:
        self._tally.refuse(
            reason, 1, [(f"{batch.place}:{number}:{name}", f"{reason}: {shown(value)}")]
        )


def _history(ticker: str, rows: _Rows, texts: Texts, tally: Tally) -> tuple[History, int]:
    """The history of a ticker, and how many of its statements cannot be read."""
    # numpy counts days from 1970-01-01, which is ordinal 719163.
    unordered: Days = (np.array(rows.days) - 719_163).astype("datetime64[D]")
    days, order = np.unique(unordered, return_index=True)
    if len(days) < len(unordered):
        again = np.setdiff1d(np.arange(len(unordered)), order)
        tally.refuse(
            "duplicate date",
            len(again),
            [
                (
                    f"{rows.places[at]}:{rows.numbers[at]}:{_DAY}",
                    f"duplicate date: {ticker} {unordered[at]}",
                )
                for at in again[:EXAMPLES].tolist()
            ],
        )
    close: Values = np.array(rows.close)[order]
    unknown = np.full(len(days), np.nan)
    doubtful = np.zeros(len(days), np.bool_)
    doubtful[1:] = np.abs(close[1:] / close[:-1] - 1) > MAX_MOVE
    parts = np.split(np.array(rows.headlines, np.int32), np.cumsum(rows.num_headlines)[:-1])
    first = np.concatenate([[0], np.cumsum(np.array(rows.num_headlines)[order])])
    statements = [_statement(end, rows.statements[end]) for end in sorted(rows.statements)]
    readable = tuple(statement for statement in statements if statement)
    history = History(
        ticker=ticker,
        company=one_line(rows.company) or ticker,
        days=days,
        open=np.array(rows.open)[order],
        high=unknown,
        low=unknown,
        close=close,
        volume=unknown,
        adjusted=close,
        split_ratio=np.ones(len(days)),
        news=News(
            texts=texts,
            first=first.astype(np.int64),
            text=np.concatenate([parts[at] for at in order.tolist()]),
            known_at=np.repeat(starts_of(days), np.diff(first)),
        ),
        statements=readable,
        doubtful=doubtful if doubtful.any() else None,
    )
    return history, len(statements) - len(readable)


def _statement(end: dt.date, text: str) -> Statement | None:
    try:
        values = json.loads(text)
    except (ValueError, RecursionError):
        return None
    if not isinstance(values, dict):
        return None
    return Statement(
        end,
        {
            one_line(name, 60): float(value)
            for name, value in list(values.items())[:_MAX_LINES]
            if isinstance(value, int | float)
            and not isinstance(value, bool)
            and abs(value) < 1e18  # also leaves NaN out, which JSON from Python may hold
        },
    )


def _day(value: object) -> dt.date | None:
    """The day of a date, a time or an ISO text; None for anything else."""
    text = value[:10] if isinstance(value, str) else str(value)[:10]
    if not re.fullmatch(r"(1[89]|20|21)\d\d-\d\d-\d\d", text):
        return None
    try:
        return dt.date.fromisoformat(text)
    except ValueError:
        return None


def _price_fault(value: object) -> str | None:
    if value is None:
        return "missing value"
    if isinstance(value, bool) or not isinstance(value, int | float):
        return "text in a number"
    if value != value:
        return "missing value"
    if value <= 0:
        return "price not above 0"
    return None if 1e-9 <= value < 1e9 else "price out of range"


# ---------------------------------------------------------------------------
# Files


def _local(path: Path) -> Iterator[_Batch]:
    paths = [path]
    if path.is_dir():
        paths = sorted(p for p in path.iterdir() if p.suffix.lower() in (".parquet", ".jsonl"))
        if not paths:
            raise UserError("no parquet or JSONL file in this folder", where=one_line(str(path)))
    for one in paths:
        place = one_line(str(one))
        if not one.is_file():
            raise UserError("this is not a file", where=place, fix="remove it")
        try:
            if one.stat().st_size == 0:
                raise UserError("the file is empty", where=place, fix="fill it or remove it")
            if one.suffix.lower() == ".parquet":
                yield from _parquet(one, place)
            elif one.suffix.lower() == ".jsonl":
                yield from _jsonl(one, place)
            else:
                raise UserError(
                    "neither a parquet nor a JSONL file", where=place, fix="name it .jsonl"
                )
        except OSError as error:
            raise UserError(
                f"cannot be read: {error.strerror or one_line(str(error), 80)}", where=place
            ) from error


def _parquet(path: Path, place: str) -> Iterator[_Batch]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(path, memory_map=True) as file:
            _check_schema(file.schema_arrow, place)
            first = 1
            # Of nested columns, only the named leaves are read from the disk.
            for batch in file.iter_batches(_BATCH, columns=list(_FIELDS)):
                batch.validate(full=True)
                yield _flattened(pa.Table.from_batches([batch]), place, first)
                first += batch.num_rows
    except (pa.ArrowException, UnicodeDecodeError, KeyError) as error:
        raise UserError(
            f"not a readable parquet file: {one_line(str(error), 80)}",
            where=place,
            fix="write it again or remove it",
        ) from error


def _jsonl(path: Path, place: str) -> Iterator[_Batch]:
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            if not line.strip():
                continue
            try:
                row = json.loads(line)
            except (ValueError, RecursionError) as error:
                raise UserError(
                    f"not JSON: {shown(line[:40].decode('latin-1'))}",
                    where=f"{place}:{number}",
                    fix="write one JSON object a line",
                ) from error
            yield _Batch(
                place, number, {name: [_leaf(row, name, place, number)] for name in _FIELDS}
            )


def _leaf(row: object, name: str, place: str, number: int) -> object:
    for key in name.split("."):
        if not isinstance(row, dict) or key not in row:
            raise _missing_field(name, f"{place}:{number}")
        row = row[key]
        if row is None:
            return None
    return row


def _check_schema(schema: "pa.Schema", place: str) -> None:
    import pyarrow as pa

    for name in _FIELDS:
        kind: Any = pa.struct(list(schema))
        for key in name.split("."):
            if not pa.types.is_struct(kind) or kind.get_field_index(key) < 0:
                raise _missing_field(name, f"{place}:1")
            kind = kind.field(key).type


def _missing_field(name: str, where: str) -> UserError:
    return UserError(
        f"the field {name} is missing",
        where=f"{where}:{name}",
        fix="give the data the schema of deepstock",
    )


def _flattened(table: "pa.Table", place: str, first: int) -> _Batch:
    import pyarrow.compute as pc

    columns = {}
    for name in _FIELDS:
        top, *rest = name.split(".")
        column = table.column(top)
        columns[name] = (pc.struct_field(column, rest) if rest else column).to_pylist()
    return _Batch(place, first, columns)


# ---------------------------------------------------------------------------
# The hub


def _hub(hub_id: str) -> Iterator[_Batch]:
    from datasets.exceptions import DatasetNotFoundError, DatasetsError
    from huggingface_hub.errors import (
        GatedRepoError,
        HfHubHTTPError,
        OfflineModeIsEnabled,
        RepositoryNotFoundError,
    )

    try:
        for name, part in _streams(hub_id).items():
            place, first = f"{hub_id}/{name}", 1
            for table in part.with_format("arrow").iter(batch_size=_BATCH):
                if first == 1:
                    _check_schema(table.schema, place)
                yield _flattened(table, place, first)
                first += table.num_rows
    except (GatedRepoError, RepositoryNotFoundError, DatasetNotFoundError) as error:
        raise UserError(
            "there is no such data set on the hub, or it is gated",
            where=hub_id,
            fix="accept its terms on its page and run `hf auth login`, or name a local copy",
        ) from error
    except (
        HfHubHTTPError,
        OfflineModeIsEnabled,
        DatasetsError,
        ValueError,
        KeyError,
        OSError,
        *_transport_errors(),
    ) as error:
        raise UserError(
            f"the hub cannot be reached or its answer cannot be used: {one_line(str(error), 80)}",
            where=hub_id,
            fix="check the network and HF_ENDPOINT, or name a local copy: deepstock:PATH",
        ) from error


def _streams(hub_id: str) -> Mapping[str, Any]:
    """Every split of a hub data set as a stream of the columns we use."""
    import datasets
    from huggingface_hub import HfApi

    # None of them may write on the terminal of the cockpit.
    datasets.disable_progress_bars()
    datasets.logging.set_verbosity_error()
    logging.getLogger("huggingface_hub").setLevel(logging.ERROR)
    # One question without retries: an absent network shows in seconds and not in half a minute.
    HfApi().dataset_info(hub_id, timeout=_HUB_TIMEOUT_SECONDS)
    builder = datasets.load_dataset_builder(hub_id)
    # Parquet files then hand out these columns alone; other formats drop the rest on arrival.
    chosen = {"columns": list(_COLUMNS)} if hasattr(builder.config, "columns") else {}
    parts = datasets.load_dataset(hub_id, streaming=True, **chosen)
    return {name: part.select_columns(list(_COLUMNS)) for name, part in parts.items()}


def _transport_errors() -> Iterable[type[Exception]]:
    import httpx2

    return (httpx2.HTTPError,)

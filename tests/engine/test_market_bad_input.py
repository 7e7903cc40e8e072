"""Bad input: one line that names file, line and field, and never a traceback."""

import datetime as dt
import gzip
import json
import os
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from engine.errors import UserError
from engine.market import sources
from engine.market.dataset import Dataset
from engine.market.prompts import compose
from engine.market.quality import Market
from tests.market_files import (
    HEADER,
    Row,
    business_days,
    csv_text,
    deepstock_row,
    deepstock_rows,
    rows,
    write_csv,
    write_jsonl,
    write_parquet,
)

Spoil = Callable[[Path], str]
"""Writes bad data into a folder; returns the source string."""


def spoilt(column: str, value: object, *, at: int = 3) -> Spoil:
    """A good file but for one value; row ``at`` stands on line ``at + 2``."""

    def write(folder: Path) -> str:
        table = rows()
        table[at][column] = value
        write_csv(folder, "AAPL", table)
        return f"ohlcv:{folder}"

    return write


def without(column: str) -> Spoil:
    def write(folder: Path) -> str:
        header = ",".join(name for name in HEADER.split(",") if name != column)
        write_csv(folder, "AAPL", rows(), header)
        return f"ohlcv:{folder}"

    return write


def content(data: bytes | str, name: str = "AAPL.csv") -> Spoil:
    def write(folder: Path) -> str:
        (folder / name).write_bytes(data.encode() if isinstance(data, str) else data)
        return f"ohlcv:{folder}"

    return write


def reordered(order: list[int]) -> Spoil:
    def write(folder: Path) -> str:
        table = rows()
        write_csv(folder, "AAPL", [table[at] for at in order])
        return f"ohlcv:{folder}"

    return write


def times(*texts: str) -> Spoil:
    """A file whose first days are written as ``texts``, which are parts after the date."""

    def write(folder: Path) -> str:
        table = rows()
        for row, text in zip(table, texts, strict=False):
            row["Date"] = f"{row['Date']}{text}"
        for row in table[len(texts) :]:
            row["Date"] = f"{row['Date']}{texts[-1]}"
        write_csv(folder, "AAPL", table)
        return f"ohlcv:{folder}"

    return write


def split(*, adjusted: float | None, close: float = 0.5, header: str = HEADER) -> Spoil:
    """From row 8 on closes are multiplied by ``close``, adjusted closes by ``adjusted``."""

    def write(folder: Path) -> str:
        table = rows()
        for row in table[8:]:
            for column in ("Open", "High", "Low", "Close"):
                row[column] = float(str(row[column])) * close
            if adjusted is not None:
                row["Adj Close"] = float(str(row["Adj Close"])) * adjusted
        write_csv(folder, "AAPL", table, header)
        return f"ohlcv:{folder}"

    return write


def two_tickers(folder: Path) -> str:
    table = [{**row, "Ticker": "AAPL" if at < 6 else "IBM"} for at, row in enumerate(rows())]
    write_csv(folder, "prices", table, f"Ticker,{HEADER}")
    return f"ohlcv:{folder}"


def bad_ticker_column(folder: Path) -> str:
    write_csv(folder, "prices", [{**row, "Ticker": "../x"} for row in rows()], f"Ticker,{HEADER}")
    return f"ohlcv:{folder}"


def same_ticker_twice(folder: Path) -> str:
    write_csv(folder, "AAPL", rows())
    write_csv(folder, "aapl", rows())
    return f"ohlcv:{folder}"


def a_folder_named_like_a_file(folder: Path) -> str:
    (folder / "AAPL.csv").mkdir()
    return f"ohlcv:{folder}"


def a_pipe(folder: Path) -> str:
    os.mkfifo(folder / "AAPL.csv")
    return f"ohlcv:{folder}"


def parquet(change: Callable[[list[Row]], None]) -> Spoil:
    def write(folder: Path) -> str:
        table = rows()
        change(table)
        write_parquet(folder / "AAPL.parquet", table)
        return f"ohlcv:{folder}"

    return write


def set_all(column: str, value: object) -> Callable[[list[Row]], None]:
    def change(table: list[Row]) -> None:
        for row in table:
            row[column] = value

    return change


def truncated_parquet(folder: Path) -> str:
    path = write_parquet(folder / "AAPL.parquet", rows())
    path.write_bytes(path.read_bytes()[:-20])
    return f"ohlcv:{folder}"


def parquet_price(value: object) -> Spoil:
    def change(table: list[Row]) -> None:
        table[4]["Close"] = value

    return parquet(change)


def parquet_without(column: str) -> Spoil:
    def change(table: list[Row]) -> None:
        for row in table:
            del row[column]

    return parquet(change)


def stocknet(line: str | bytes, *, name: str = "AAPL.jsonl") -> Spoil:
    def write(folder: Path) -> str:
        write_csv(folder / "price" / "raw", "AAPL", rows())
        (folder / "posts").mkdir()
        data = line.encode() if isinstance(line, str) else line
        (folder / "posts" / name).write_bytes(data)
        return f"stocknet:{folder}"

    return write


def raw_tweet(fields: object) -> Spoil:
    def write(folder: Path) -> str:
        write_csv(folder / "price" / "raw", "AAPL", rows())
        write_jsonl(folder / "tweet" / "raw" / "AAPL" / "2014-01-02", [fields])
        return f"stocknet:{folder}"

    return write


def a_folder_among_tweets(folder: Path) -> str:
    write_csv(folder / "price" / "raw", "AAPL", rows())
    (folder / "tweet" / "raw" / "AAPL" / "2014-01-02").mkdir(parents=True)
    return f"stocknet:{folder}"


def deepstock(change: Callable[[dict[str, object]], None], *, kind: str = "jsonl") -> Spoil:
    """Ten rows, one of them changed by ``change``; it stands on line 4."""

    def write(folder: Path) -> str:
        table = deepstock_rows(count=10)
        change(table[3])
        if kind == "jsonl":
            return f"deepstock:{write_jsonl(folder / 'deep.jsonl', table)}"
        return f"deepstock:{write_parquet(folder / 'deep.parquet', table)}"

    return write


def at(path: str, value: object) -> Callable[[dict[str, object]], None]:
    """Set a nested field; the value ``...`` removes it."""

    def change(row: dict[str, object]) -> None:
        *parents, last = path.split(".")
        inside = row
        for key in parents:
            inside = inside[key]  # type: ignore[assignment]
        if value is ...:
            del inside[last]
        else:
            inside[last] = value

    return change


def deep_file(name: str, data: bytes) -> Spoil:
    def write(folder: Path) -> str:
        (folder / name).write_bytes(data)
        return f"deepstock:{folder / name}"

    return write


def duplicate_deep_rows(folder: Path) -> str:
    table = deepstock_rows(count=10)
    return f"deepstock:{write_jsonl(folder / 'deep.jsonl', [*table, table[2]])}"


def says(source: str) -> Spoil:
    return lambda folder: source.replace("FOLDER", str(folder))


NO_ADJ = "Date,Open,High,Low,Close,Volume"
WEEK = "\n".join(f"{day},1,1,1,1,1,1" for day in business_days(9))
POST = '{"ticker": "AAPL", "created_at": "2014-01-02T12:00:00Z", "text": "x"}\n'
PRICE = "company_info.price"

# name → what is written, and the line that must come out
CASES: dict[str, tuple[Spoil, str]] = {
    # --- one value of a price file
    "text in a price": (
        spoilt("Close", "abc"),
        r"AAPL\.csv:5:Close: text in a number: 'abc'.*pla",
    ),
    "text in a volume": (
        spoilt("Volume", "1.2M"),
        r"AAPL\.csv:5:Volume: text in a number: '1\.2",
    ),
    "thousands": (spoilt("Open", '"1,234.5"'), r"AAPL\.csv:5:Open: text in a number: '1,234\.5'"),
    "underscore": (spoilt("Open", "1_000"), r"AAPL\.csv:5:Open: text in a number: '1_000'"),
    "currency": (spoilt("Low", "$99"), r"AAPL\.csv:5:Low: text in a number: '\$99'"),
    "infinity": (spoilt("High", "inf"), r"AAPL\.csv:5:High: text in a number: 'inf'"),
    "escape sequence": (spoilt("Low", "\x1b[2J"), r"AAPL\.csv:5:Low: text in a number: '␛\[2J'"),
    "negative price": (spoilt("Low", -1), r"AAPL\.csv:5:Low: price not above 0: '-1'.*; correct"),
    "zero price": (spoilt("Close", 0), r"AAPL\.csv:5:Close: price not above 0: '0'"),
    "zero adjusted": (spoilt("Adj Close", 0.0), r"AAPL\.csv:5:Adj Close: price not above 0"),
    "huge price": (spoilt("High", "1e300"), r"AAPL\.csv:5:High: price out of range: '1e300'"),
    "tiny price": (spoilt("Low", "1e-300"), r"AAPL\.csv:5:Low: price out of range: '1e-300'"),
    "NaN": (spoilt("Close", "NaN"), r"AAPL\.csv:5:Close: missing value: 'NaN'.*; fill it in"),
    "null": (spoilt("Open", "null"), r"AAPL\.csv:5:Open: missing value: 'null'"),
    "empty value": (spoilt("Volume", ""), r"AAPL\.csv:5:Volume: missing value: ''"),
    "negative volume": (spoilt("Volume", -5), r"AAPL\.csv:5:Volume: volume out of range: '-5'"),
    "high below low": (spoilt("High", 1), r"AAPL\.csv:5:High: high below low: '1'"),
    "no such day": (
        spoilt("Date", "2014-02-30"),
        r"AAPL\.csv:5:Date: unreadable date: '2014-02-3",
    ),
    "another order of date": (
        spoilt("Date", "01/07/2014"),
        r"AAPL\.csv:5:Date: unreadable date: '01/07/2014'.*YYYY-MM-DD",
    ),
    "a word for a date": (spoilt("Date", "today"), r"AAPL\.csv:5:Date: unreadable date: 'today'"),
    "seconds since 1970": (spoilt("Date", "1388620800"), r"AAPL\.csv:5:Date: unreadable date"),
    "the year 9999": (spoilt("Date", "9999-12-31"), r"AAPL\.csv:5:Date: unreadable date"),
    # --- rows among each other
    "duplicate date": (
        reordered([0, 1, 2, 2, 3, 4, 5, 6]),
        r"AAPL\.csv:5:Date: duplicate date: '2014-01-06' \(1 of 8 price rows refused.*; keep one",
    ),
    "date out of order": (
        reordered([0, 1, 3, 2, 4, 5, 6]),
        r"AAPL\.csv:5:Date: date out of order: '2014-01-06'.*; sort the file",
    ),
    "newest first": (
        reordered(list(reversed(range(12)))),
        r"AAPL\.csv:3:Date: date out of order.*11 of 12 price rows.*sort the file by date, oldest",
    ),
    "too few fields": (
        content(csv_text(rows()) + "2014-02-03,1,2\n"),
        r"AAPL\.csv:14: 3 fields, not 7.*as many fields as the header",
    ),
    "no row has all fields": (content(f"{HEADER}\n1,2\n3,4\n"), r"AAPL\.csv:2: 2 fields, not 7"),
    "mixed time zones": (
        times("T00:00:00+00:00", "T00:00:00-05:00"),
        r"AAPL\.csv:3:Date: dates in several time zones: '2014-01-03T00:00:00-05:00' after",
    ),
    "some without a zone": (times("", "T00:00:00Z"), r"AAPL\.csv:3:Date: dates in several time"),
    "two tickers": (two_tickers, r"prices\.csv:8:Ticker: a second ticker 'IBM' after 'AAPL'; give"),
    "unsafe ticker": (bad_ticker_column, r"prices\.csv:2:Ticker: '\.\./x' is no ticker; use up to"),
    "unsafe file name": (
        content(csv_text(rows()), "A B.csv"),
        r"A B\.csv: 'A B' is no ticker; use up to 16",
    ),
    "a ticker in two files": (same_ticker_twice, r"aapl\.csv: a second file of ticker aapl; keep"),
    # --- splits
    "split without Adj Close": (
        split(adjusted=None, header=NO_ADJ),
        r"AAPL\.csv:10:Close: -50\.\d% from 2014-01-13 to 2014-01-14 and there is no Adj Close",
    ),
    "split with a copy for Adj Close": (
        split(adjusted=0.5),
        r"AAPL\.csv:10:Close: -50\.\d% .*with ordinary turnover, as an unadjusted split.*; give",
    ),
    "split that Adj Close has and Close has not": (
        split(adjusted=0.5, close=1.0),
        r"AAPL\.csv:10:Adj Close: -50\.\d% .* and Adj Close moves differently",
    ),
    "fall that Adj Close does not confirm": (
        split(adjusted=1.0, close=0.55),
        r"AAPL\.csv:10:Close: -4\d\.\d% .* and Adj Close moves differently",
    ),
    # --- whole files
    "no Close": (
        without("Close"),
        r"AAPL\.csv:1:Close: the column Close is missing; give the",
    ),
    "no Date": (without("Date"), r"AAPL\.csv:1:Date: the column Date is missing"),
    "no Volume": (without("Volume"), r"AAPL\.csv:1:Volume: the column Volume is missing"),
    "no header": (content(WEEK), r"AAPL\.csv:1:Date: the column Date is missing"),
    "semicolons": (content(csv_text(rows()).replace(",", ";")), r"AAPL\.csv:1:Date: the column"),
    "a column twice": (
        content(csv_text(rows(), f"{HEADER},close")),
        r"AAPL\.csv:1:Close: 'Close' and 'close' are both Close; keep one",
    ),
    "empty file": (content(b""), r"AAPL\.csv: the file is empty; fill it or remove it"),
    "only a header": (content(HEADER), r"AAPL\.csv: the file has no rows"),
    "every row bad": (
        content(f"{HEADER}\n2014-01-02,a,b,c,d,e,f\n"),
        r"AAPL\.csv:2:Open: text in a number: 'a' \(no usable row is left\)",
    ),
    "not UTF-8": (
        content(f"{HEADER}\n2014".encode() + b"\xff\xfe"),
        r"AAPL\.csv:2: not UTF-8",
    ),
    "an open quote": (content(f'{HEADER}\n"2014,1,1,1,1,1,1\n'), r"AAPL\.csv:2: not valid CSV"),
    "a folder": (a_folder_named_like_a_file, r"AAPL\.csv: this is a folder, not a file; name"),
    "a pipe": (a_pipe, r"AAPL\.csv: there is no such file"),
    "no price file": (says("ohlcv:FOLDER"), r"no price file in this folder; put TICKER\.csv"),
    "no folder": (says("ohlcv:FOLDER/x"), r"/x: there is no such folder; name a folder"),
    "a file for a folder": (says(f"ohlcv:{__file__}"), r"this is a file, not a folder"),
    "0-byte parquet": (content(b"", "AAPL.parquet"), r"AAPL\.parquet: the file is empty"),
    "parquet that is text": (content("abc", "AAPL.parquet"), r"AAPL\.parquet: not a readable par"),
    "cut parquet": (
        truncated_parquet,
        r"AAPL\.parquet: not a readable parquet file: .*; write it again or remove it",
    ),
    "parquet with a negative price": (
        parquet_price(-3.0),
        r"AAPL\.parquet:5:Close: price not above 0: '-3\.0'",
    ),
    "parquet with a hole": (parquet_price(None), r"AAPL\.parquet:5:Close: missing value: 'nan'"),
    "parquet with text for prices": (
        parquet(set_all("Close", "abc")),
        r"AAPL\.parquet:1:Close: text in a number: 'abc'",
    ),
    "parquet with lists for prices": (
        parquet(set_all("Close", [1.0])),
        r"AAPL\.parquet:1:Close: a column of list<.*> is neither dates, numbers nor text",
    ),
    "parquet with numbers for dates": (
        parquet(set_all("Date", 1388620800)),
        r"AAPL\.parquet:1:Date: unreadable date: '1388620800\.0'",
    ),
    "parquet with dates for prices": (
        parquet(set_all("Close", dt.date(2014, 1, 2))),
        r"AAPL\.parquet:1:Close: text in a number: '2014-01-02'",
    ),
    "parquet without Low": (parquet_without("Low"), r"AAPL\.parquet:1:Low: the column Low is miss"),
    # --- posts
    "no prices": (says("stocknet:FOLDER"), r"there is no folder price/raw; name StockNet's root"),
    "a post that is not JSON": (stocknet("{oops\n"), r"AAPL\.jsonl:1: '\{oops.*'.*one JSON object"),
    "a post that is a list": (stocknet("[1]\n"), r"AAPL\.jsonl:1: not a JSON object"),
    "a post without text": (
        stocknet('{"ticker": "AAPL", "created_at": "2014-01-02T12:00:00Z"}\n'),
        r"AAPL\.jsonl:1:text: no text in this field.*all the fields",
    ),
    "a post without a ticker": (
        stocknet('{"created_at": "2014-01-02T12:00:00Z", "text": "x"}\n'),
        r"AAPL\.jsonl:1:ticker: no text in this field",
    ),
    "a post without a zone": (
        stocknet(POST.replace("Z", "")),
        r"AAPL\.jsonl:1:created_at: '2014-01-02T12:00:00'.*write times with their zone",
    ),
    "a post at no time": (stocknet(POST.replace("2014", "yes")), r"AAPL\.jsonl:1:created_at: 'yes"),
    "posts cut short": (
        stocknet(gzip.compress(POST.encode())[:-10], name="AAPL.jsonl.gz"),
        r"AAPL\.jsonl\.gz: cannot be read.*fetch the file again",
    ),
    "posts that are no gzip": (stocknet(POST, name="AAPL.jsonl.gz"), r"jsonl\.gz: cannot be read"),
    "a tweet at no time": (
        raw_tweet({"created_at": "Wed Foo 01 03:59:03 +0000 2014", "text": "x"}),
        r"2014-01-02:1:created_at: 'Wed Foo",
    ),
    "a folder among tweets": (a_folder_among_tweets, r"2014-01-02: this is not a file"),
    # --- deepstock
    "deepstock: zero price": (
        deepstock(at(f"{PRICE}.close", 0)),
        r"deep\.jsonl:4:company_info\.price\.close: price not above 0: '0'",
    ),
    "deepstock: text for a price": (
        deepstock(at(f"{PRICE}.open", "12")),
        r"deep\.jsonl:4:company_info\.price\.open: text in a number: '12'",
    ),
    "deepstock: no price": (
        deepstock(at(f"{PRICE}.close", None), kind="parquet"),
        r"deep\.parquet:4:company_info\.price\.close: missing value",
    ),
    "deepstock: bad date": (
        deepstock(at("company_info.current_date", "soon")),
        r"deep\.jsonl:4:company_info\.current_date: unreadable date: 'soon'",
    ),
    "deepstock: unsafe ticker": (
        deepstock(at("ticker", "../x")),
        r"deep\.jsonl:4:ticker: unsafe ticker: '\.\./x'",
    ),
    "deepstock: missing field": (
        deepstock(at("company_info.news", ...)),
        r"deep\.jsonl:4:company_info\.news\.news_headlines: the field .* is missing; give the data",
    ),
    "deepstock: another schema": (
        lambda folder: f"deepstock:{write_parquet(folder / 'deep.parquet', rows())}",
        r"deep\.parquet:1:ticker: the field ticker is missing",
    ),
    "deepstock: the same day twice": (
        duplicate_deep_rows,
        r"deep\.jsonl:11:company_info\.current_date: duplicate date: MMM 2021-01-06",
    ),
    "deepstock: not JSON": (deep_file("deep.jsonl", b"{\n"), r"deep\.jsonl:1: not JSON: '\{'"),
    "deepstock: 0 bytes": (deep_file("deep.parquet", b""), r"deep\.parquet: the file is empty"),
    "deepstock: no parquet": (deep_file("deep.parquet", b"PAR1"), r"not a readable parquet file"),
    "deepstock: another kind": (deep_file("deep.xls", b"x"), r"neither a parquet nor a JSONL file"),
    "deepstock: blank": (deep_file("deep.jsonl", b"\n"), r"the data set has no rows"),
    "deepstock: empty folder": (says("deepstock:FOLDER"), r"no parquet or JSONL file in this fold"),
    "deepstock: nothing there": (says("deepstock:nope"), r"nope: there is no such file, folder or"),
    # --- source strings
    "unknown source": (
        says("yahoo"),
        r"data\.source: no market data source called 'yahoo'; use",
    ),
    "no source": (says(""), r"data\.source: no market data source called ''"),
    "no folder given": (says("ohlcv:"), r"data\.source: 'ohlcv:' is not complete.*ohlcv:DIR"),
    "demo with more": (says("demo:x"), r"data\.source: 'demo:x' is not complete or says too much"),
    "unknown option": (
        says("planted:foo=1"),
        r"planted has no option 'foo'; use share, seed,",
    ),
    "an option twice": (says("planted:seed=1,seed=2"), r"data\.source: seed is given twice"),
    "share too high": (says("planted:share=1.5"), r"planted:share=1\.5 is out of range; use a num"),
    "share that is none": (says("planted:share=nan"), r"planted:share=nan is out of range"),
    "seed that is none": (says("planted:seed=-1"), r"planted:seed=-1 is out of range; use a whole"),
    "shuffled unsaid": (
        says("planted:shuffled=1"),
        r"planted:shuffled=1 is out of range; use",
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_bad_input_is_one_line_that_says_where_and_what_to_do(name: str, tmp_path: Path) -> None:
    spoil, pattern = CASES[name]
    with pytest.raises(UserError) as error:
        sources.load(spoil(tmp_path))
    line = str(error.value)
    assert re.search(pattern, line), line
    assert line.isprintable()


def test_few_bad_rows_are_refused_and_counted(tmp_path: Path) -> None:
    table = rows(200)
    table[3]["Close"] = "abc"
    table[5]["Low"] = -1
    table[6]["Low"] = -2
    write_csv(tmp_path, "AAPL", table)
    market = sources.load(f"ohlcv:{tmp_path}")
    counted = market.report.rows[0]
    assert (counted.read, counted.num_refused) == (200, 3)
    assert [(one.reason, one.count) for one in counted.refused] == [
        ("price not above 0", 2),
        ("text in a number", 1),
    ]
    assert counted.refused[0].examples[0].endswith("AAPL.csv:7:Low: price not above 0: '-1'")
    days = [str(day) for day in market.histories[0].days]
    assert len(days) == 197
    assert business_days(7)[3] not in days


def test_one_bad_row_more_than_five_percent_refuses_the_source(tmp_path: Path) -> None:
    table = rows(100)
    for row in table[10:15]:
        row["Close"] = ""
    write_csv(tmp_path, "AAPL", table)
    assert sources.load(f"ohlcv:{tmp_path}").report.rows[0].num_refused == 5
    table[20]["Close"] = ""
    write_csv(tmp_path, "AAPL", table)
    with pytest.raises(UserError, match="6 of 100 price rows refused, more than 5%"):
        sources.load(f"ohlcv:{tmp_path}")


# ---------------------------------------------------------------------------
# Files that chance has spoilt


def good_csv() -> bytes:
    return csv_text(rows(40)).encode()


def good_parquet(folder: Path) -> bytes:
    return write_parquet(folder / "good.parquet", rows(40)).read_bytes()


def good_deepstock() -> bytes:
    table = deepstock_rows(count=40)
    table[5] = deepstock_row(
        "MMM", "2021-01-11", 101, headlines=["News"], year="2020-12-31", financials='{"a": 1}'
    )
    return "".join(json.dumps(row) + "\n" for row in table).encode()


def good_posts() -> bytes:
    return POST.encode() * 3


mutations = st.lists(
    st.tuples(
        st.sampled_from(["set", "cut", "insert", "copy"]),
        st.floats(0, 1, exclude_max=True),
        st.one_of(
            st.binary(min_size=1, max_size=4),
            st.sampled_from(
                [b",", b"\n", b'"', b"-", b"nan", b"1e999", b"0", b"\x00", b"null", b"[]", b"{}"]
            ),
        ),
    ),
    min_size=1,
    max_size=4,
)


def mutated(data: bytes, changes: list[tuple[str, float, bytes]]) -> bytes:
    spoilt = bytearray(data)
    for what, place, piece in changes:
        at = int(place * len(spoilt))
        if what == "set":
            spoilt[at : at + len(piece)] = piece
        elif what == "cut":
            del spoilt[at : at + 10 * len(piece)]
        elif what == "insert":
            spoilt[at:at] = piece
        else:
            spoilt[at:at] = spoilt[at : at + 60]
    return bytes(spoilt)


def check(market: Market) -> None:
    """Whatever was accepted is in order, positive where it must be, and gives examples."""
    for history in market.histories:
        assert (np.diff(history.days).astype(int) > 0).all()
        assert not np.isnat(history.days).any()
        for values in (history.open, history.close, history.adjusted):
            assert (values > 0).all()
            assert np.isfinite(values).all()
        assert not (history.volume < 0).any()
    try:
        dataset = Dataset(
            market.histories, window=5, horizon=1, train_share=0.9, validation_share=0.05, embargo=1
        )
    except UserError:
        return
    part = dataset.rows("train")
    for at in range(min(3, len(part))):
        example = dataset.example(int(part.history[at]), int(part.index[at]))
        assert all(known <= example.known_at for _, known in example.known_times())
        compose(example, style="full")


KINDS: dict[str, tuple[str, str, Callable[[Path], bytes]]] = {
    "csv": ("ohlcv:FOLDER", "AAPL.csv", lambda _: good_csv()),
    "parquet": ("ohlcv:FOLDER", "AAPL.parquet", good_parquet),
    "jsonl": ("deepstock:FOLDER/deep.jsonl", "deep.jsonl", lambda _: good_deepstock()),
    "posts": ("stocknet:FOLDER", "posts/AAPL.jsonl", lambda _: good_posts()),
}


@pytest.mark.parametrize("kind", KINDS)
@settings(
    max_examples=250,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(changes=mutations)
def test_a_mutated_file_gives_a_user_error_or_a_sound_market(
    kind: str, tmp_path: Path, changes: list[tuple[str, float, bytes]]
) -> None:
    source, name, good = KINDS[kind]
    scratch, folder = tmp_path / "scratch", tmp_path / "data"
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(mutated(good(scratch), changes))
    if kind == "posts":
        write_csv(folder / "price" / "raw", "AAPL", rows(40))
    try:
        market = sources.load(source.replace("FOLDER", str(folder)))
    except UserError as error:
        line = str(error)
    else:
        line = ""
        check(market)
    assert line.isprintable()

"""Small price files for tests: good ones, and the means to spoil them."""

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np

HEADER = "Date,Open,High,Low,Close,Adj Close,Volume"

Row = dict[str, object]


def business_days(count: int, first: str = "2014-01-02") -> list[str]:
    days = np.busday_offset(first, np.arange(count), roll="forward")
    return [str(day) for day in days]


def rows(count: int = 12, *, start: float = 100.0) -> list[Row]:
    """Rows of a calm stock: the close rises and falls by one in turn, nothing is adjusted."""
    made = []
    for at, day in enumerate(business_days(count)):
        close = start + at % 2 + at * 0.125
        made.append(
            {
                "Date": day,
                "Open": close - 0.25,
                "High": close + 0.5,
                "Low": close - 0.5,
                "Close": close,
                "Adj Close": close,
                "Volume": 1_000_000 + at,
            }
        )
    return made


def csv_text(table: Sequence[Row], header: str = HEADER) -> str:
    names = header.split(",")
    lines = [",".join(str(row.get(name, "")) for name in names) for row in table]
    return "\n".join([header, *lines]) + "\n"


def write_csv(folder: Path, ticker: str, table: Sequence[Row], header: str = HEADER) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{ticker}.csv"
    path.write_text(csv_text(table, header), encoding="utf-8")
    return path


def deepstock_row(
    ticker: str,
    day: str,
    close: float,
    *,
    headlines: Sequence[str] = (),
    year: str | None = None,
    financials: str | None = None,
) -> Row:
    """One row in the schema of deepstock; its user_prompt holds the answer, as the real one."""
    return {
        "ticker": ticker,
        "company_info": {
            "ticker": ticker,
            "current_date": day,
            "company_info": {"name": f"{ticker} Inc.", "description": "of today"},
            "news": {"news_date": day, "news_headlines": list(headlines)},
            "financials": {"year": year, "financials": financials},
            "price": {
                "open": close - 0.25,
                "close": close,
                "price_date": day,
                "open_previous": close,
                "close_previous": close,
                "previous_date": day,
            },
        },
        "user_prompt": "SECRET",
    }


def deepstock_rows(ticker: str = "MMM", count: int = 60, first: str = "2021-01-04") -> list[Row]:
    days = business_days(count, first)
    return [deepstock_row(ticker, day, 100 + at % 3) for at, day in enumerate(days)]


def write_jsonl(path: Path, table: Sequence[object]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in table), encoding="utf-8")
    return path


def write_parquet(path: Path, table: Sequence[Row]) -> Path:
    import pyarrow as pa
    import pyarrow.parquet as pq

    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist(list(table)), path)
    return path

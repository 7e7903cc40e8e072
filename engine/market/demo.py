"""The bundled source: five public-domain daily series, 2000-03-01 to 2013-03-01.

The values come from the Quandl WIKI data set, which its publisher declared public domain,
as packaged in ``bokeh_sampledata``. Prices and volume are unadjusted there and the split
dates are not recorded, so they stand here.
"""

import csv
import gzip

import numpy as np
from bokeh_sampledata import package_path

from engine.market.history import History
from engine.market.quality import Market, Report, RowCount, gaps_of, splits_of

COMPANIES = {
    "AAPL": "Apple",
    "FB": "Facebook",
    "GOOG": "Google",
    "IBM": "International Business Machines",
    "MSFT": "Microsoft",
}

SPLITS = {
    ("AAPL", "2000-06-21"): 2.0,
    ("AAPL", "2005-02-28"): 2.0,
    ("MSFT", "2003-02-18"): 2.0,
}
"""New shares per old one, by ticker and first day of trading at the new price."""


def load() -> tuple[History, ...]:
    """Read the five series, ordered by ticker."""
    with gzip.open(package_path("stocks.csv.gz"), "rt", encoding="utf-8", newline="") as file:
        reader = csv.reader(file)
        next(reader)
        rows: dict[str, list[list[str]]] = {ticker: [] for ticker in COMPANIES}
        for ticker, *fields in reader:
            rows[ticker].append(fields)
    return tuple(_history(ticker, fields) for ticker, fields in rows.items())


def market(source: str) -> Market:
    """The five series with their report.

    Args:
        source: the source string, for the result.
    """
    histories = load()
    return Market(
        source=source,
        histories=histories,
        report=Report(
            description="bundled public-domain daily prices of five tickers, 2000 to 2013",
            synthetic=False,
            rows=(RowCount("price rows", sum(len(history) for history in histories), ()),),
            splits=splits_of(histories),
            gaps=gaps_of(histories),
        ),
    )


def _history(ticker: str, rows: list[list[str]]) -> History:
    days, *numbers = zip(*rows, strict=True)
    opens, highs, lows, closes, volumes, adjusted = np.array(numbers, dtype=np.float64)
    return History(
        ticker=ticker,
        company=COMPANIES[ticker],
        days=np.array(days, dtype="datetime64[D]"),
        open=opens,
        high=highs,
        low=lows,
        close=closes,
        volume=volumes,
        adjusted=adjusted,
        split_ratio=np.array([SPLITS.get((ticker, day), 1.0) for day in days]),
    )

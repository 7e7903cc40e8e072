"""A folder of price files: the usual spellings, splits, gaps, and what is said about them."""

from pathlib import Path

import numpy as np
import pytest

from engine.market import sources
from engine.market.dataset import Dataset
from engine.market.prices import is_safe_ticker, split_ratios
from engine.market.quality import Market
from tests.market_files import HEADER, Row, rows, write_csv, write_parquet


def load(folder: Path) -> Market:
    return sources.load(f"ohlcv:{folder}")


def dataset(market: Market) -> Dataset:
    return Dataset(
        market.histories, window=5, horizon=1, train_share=0.7, validation_share=0.15, embargo=1
    )


@pytest.mark.parametrize(
    "header",
    [
        HEADER,
        HEADER.lower(),
        "date,open,high,low,close,adj_close,volume",
        "Date,Open,High,Low,Close,AdjClose,Volume",
        "Date,Open,High,Low,Close,Adjusted Close,Volume",
        "timestamp,open,high,low,close,adjusted_close,volume",
        "timestamp,1. open,2. high,3. low,4. close,5. adjusted close,6. volume",
        "DATE,OPEN,HIGH,LOW,CLOSE,ADJ. CLOSE,VOLUME",
        "Datetime,Open,High,Low,Close,Adj Close*,Vol",
    ],
)
def test_the_usual_spellings_are_understood(header: str, tmp_path: Path) -> None:
    table = [dict(zip(header.split(","), row.values(), strict=True)) for row in rows()]
    write_csv(tmp_path, "AAPL", table, header)
    history = load(tmp_path).histories[0]
    assert history.ticker == "AAPL"
    assert str(history.days[0]) == "2014-01-02"
    assert history.open[1] == 100.875
    assert history.high[1] == 101.625
    assert history.low[1] == 100.625
    assert history.close[1] == history.adjusted[1] == 101.125
    assert history.volume[1] == 1_000_001


@pytest.mark.parametrize("text", ["", " 00:00:00", "T09:30:00Z", " 00:00:00-05:00"])
def test_a_time_of_day_is_left_out(text: str, tmp_path: Path) -> None:
    write_csv(tmp_path, "AAPL", [{**row, "Date": f"{row['Date']}{text}"} for row in rows()])
    assert str(load(tmp_path).histories[0].days[1]) == "2014-01-03"


def test_summer_and_winter_are_one_zone(tmp_path: Path) -> None:
    table = rows(120)
    for row in table:
        zone = "-05:00" if str(row["Date"]) < "2014-03-09" else "-04:00"
        row["Date"] = f"{row['Date']} 00:00:00{zone}"
    write_csv(tmp_path, "AAPL", table)
    assert len(load(tmp_path).histories[0]) == 120


def test_parquet_reads_like_csv(tmp_path: Path) -> None:
    import datetime as dt

    table = [{**row, "Date": dt.date.fromisoformat(str(row["Date"]))} for row in rows()]
    write_parquet(tmp_path / "dates" / "AAPL.parquet", table)
    stamped = [{**row, "Date": dt.datetime.combine(row["Date"], dt.time())} for row in table]
    write_parquet(tmp_path / "times" / "AAPL.parquet", stamped)
    write_parquet(tmp_path / "texts" / "AAPL.parquet", rows())
    write_csv(tmp_path / "csv", "AAPL", rows())
    expected = load(tmp_path / "csv").histories[0]
    for kind in ("dates", "times", "texts"):
        history = load(tmp_path / kind).histories[0]
        assert history.days.tolist() == expected.days.tolist()
        assert history.close.tolist() == expected.close.tolist()
        assert history.volume.tolist() == expected.volume.tolist()


def test_a_ticker_column_names_the_ticker(tmp_path: Path) -> None:
    write_csv(
        tmp_path, "download-7", [{**row, "Symbol": "IBM"} for row in rows()], f"Symbol,{HEADER}"
    )
    assert load(tmp_path).histories[0].ticker == "IBM"


@pytest.mark.parametrize("ticker", ["AAPL", "BRK-A", "BF.B", "RDS_B", "7203.T", "a"])
def test_safe_tickers(ticker: str) -> None:
    assert is_safe_ticker(ticker)


@pytest.mark.parametrize("ticker", ["", ".", "..", "../x", "A/B", "A B", "A\n", "Ä", "A" * 17])
def test_unsafe_tickers(ticker: str) -> None:
    assert not is_safe_ticker(ticker)


def test_tickers_come_in_order_and_other_files_are_left_alone(tmp_path: Path) -> None:
    for ticker in ("MSFT", "AAPL"):
        write_csv(tmp_path, ticker, rows())
    (tmp_path / "notes.txt").write_text("x")
    (tmp_path / "._AAPL.csv").write_bytes(b"\x00")
    (tmp_path / "old").mkdir()
    assert [history.ticker for history in load(tmp_path).histories] == ["AAPL", "MSFT"]


def test_a_missing_adjusted_close_is_said(tmp_path: Path) -> None:
    write_csv(tmp_path, "AAPL", rows(), "Date,Open,High,Low,Close,Volume")
    market = load(tmp_path)
    assert market.histories[0].adjusted.tolist() == market.histories[0].close.tolist()
    assert "no Adj Close for AAPL: the close is taken as adjusted" in market.report.notes[0]


def split_rows(count: int = 120, at: int = 60, ratio: float = 7.0) -> list[Row]:
    """Closes as traded, with a split on day ``at`` that the adjusted close knows."""
    table = rows(count)
    for row in table[:at]:
        for column in ("Open", "High", "Low", "Close"):
            row[column] = float(str(row[column])) * ratio
    return table


def test_a_split_that_the_adjusted_close_knows_is_found_and_no_crash(tmp_path: Path) -> None:
    write_csv(tmp_path, "AAPL", split_rows())
    market = load(tmp_path)
    (found,) = market.report.splits
    assert (found.ticker, found.ratio) == ("AAPL", 7)
    day = str(market.histories[0].days[60])
    assert found.day.isoformat() == day
    example = dataset(market).find(f"AAPL:{day}")
    assert abs(example.day_change) < 2
    assert max(bar.close for bar in example.window) < 120
    # A share of the day before is seven of today's.
    assert example.window[-2].volume == 7 * 1_000_059
    before = dataset(market).find(f"AAPL:{market.histories[0].days[59]}")
    assert before.window[-1].close > 700
    assert abs(before.label.percent) < 2


@pytest.mark.parametrize("ratio", [2.0, 7.0, 1.5, 1 / 10, 20.0])
def test_split_ratios_by_hand(ratio: float) -> None:
    # The close falls by the ratio while the adjusted close goes from 10 to 10.1.
    close = np.array([100.0, 100.0 * 1.01 / ratio, 100.0 * 1.01 / ratio])
    assert split_ratios(close, np.array([10.0, 10.1, 10.1])).tolist() == [1, ratio, 1]


def test_a_dividend_is_no_split() -> None:
    # 4 of 100 dollars are paid out: the close falls by 4 %, the adjusted close does not.
    assert split_ratios(np.array([100.0, 96.0]), np.array([50.0, 50.0])).tolist() == [1, 1]


def test_a_crash_with_heavy_trading_is_real(tmp_path: Path) -> None:
    table = rows(40)
    for at, row in enumerate(table[30:]):
        for column in ("Open", "High", "Low", "Close", "Adj Close"):
            row[column] = float(str(row[column])) * 0.5
        row["Volume"] = 20_000_000 if at == 0 else 1_000_000
    write_csv(tmp_path, "AAPL", table)
    history = load(tmp_path).histories[0]
    assert history.close[30] < 55
    assert (history.split_ratio == 1).all()


def test_gaps_are_reported(tmp_path: Path) -> None:
    table = rows(60)
    write_csv(tmp_path, "AAPL", table[:20] + table[26:])
    (gap,) = load(tmp_path).report.gaps
    assert (gap.ticker, gap.after.isoformat(), gap.until.isoformat(), gap.days) == (
        "AAPL",
        "2014-01-29",
        "2014-02-07",
        9,
    )


def test_null_rows_are_dropped_before_indicators(tmp_path: Path) -> None:
    table = rows(200)
    table[100] = dict.fromkeys(table[100], "null") | {"Date": table[100]["Date"]}
    write_csv(tmp_path, "AAPL", table)
    market = load(tmp_path)
    assert market.report.rows[0].num_refused == 1
    last = dataset(market).find(f"AAPL:{table[198]['Date']}")
    assert {"sma20", "macd", "volume20"} <= set(last.indicators)


def test_a_single_row_is_a_history(tmp_path: Path) -> None:
    write_csv(tmp_path, "AAPL", rows(200))
    write_csv(tmp_path, "NEW", rows(1))
    market = load(tmp_path)
    assert [len(history) for history in market.histories] == [200, 1]
    assert len(dataset(market).rows("train"))


def test_everything_was_known_at_the_close_of_its_day(tmp_path: Path) -> None:
    write_csv(tmp_path, "AAPL", rows(60))
    example = dataset(load(tmp_path)).find(f"AAPL:{rows(60)[40]['Date']}")
    known = dict(example.known_times())
    assert example.known_at.isoformat() == f"{example.as_of}T16:00:00-05:00"
    assert len(known) == 7
    assert max(known.values()) == example.known_at
    assert example.outcome_day > example.as_of

"""StockNet's folders, made small and real: a post never reaches a day before it was written."""

import datetime as dt
import gzip
import json
import os
from pathlib import Path

import pytest

from engine.market import sources
from engine.market.dataset import MAX_HEADLINES, Dataset
from engine.market.prompts import compose
from engine.market.quality import Market
from tests.market_files import rows, write_csv, write_jsonl

ROOT = Path(__file__).resolve().parents[2]
REAL = Path(os.environ.get("STOCKNET_DIR") or ROOT.parent / "shared" / "data" / "stocknet")
needs_real = pytest.mark.skipif(not (REAL / "price" / "raw").is_dir(), reason="no StockNet here")


def dataset(market: Market, window: int = 10) -> Dataset:
    return Dataset(
        market.histories,
        window=window,
        horizon=1,
        train_share=0.7,
        validation_share=0.15,
        embargo=5,
    )


def post(written: str, text: str, ticker: str = "AAPL") -> dict[str, str]:
    return {"ticker": ticker, "created_at": written, "text": text}


def write(folder: Path, posts: list[dict[str, str]], *, packed: bool = True) -> str:
    write_csv(folder / "price" / "raw", "AAPL", rows(120))
    lines = "".join(json.dumps(one) + "\n" for one in posts).encode()
    (folder / "posts").mkdir(parents=True, exist_ok=True)
    name = "AAPL.jsonl.gz" if packed else "AAPL.jsonl"
    (folder / "posts" / name).write_bytes(gzip.compress(lines) if packed else lines)
    return f"stocknet:{folder}"


def texts(data: Dataset, day: str) -> list[str]:
    return [headline.text for headline in data.find(f"AAPL:{day}").headlines]


@pytest.mark.parametrize("packed", [True, False])
def test_posts_reach_the_day_whose_decision_follows_them(tmp_path: Path, packed: bool) -> None:
    source = write(
        tmp_path,
        [
            post("2014-03-07T20:59:00Z", "before Friday's close"),
            post("2014-03-07T21:00:00Z", "at Friday's close"),
            post("2014-03-07T21:00:01Z", "after Friday's close"),
            post("2014-03-09T12:00:00Z", "Sunday"),
            post("2014-03-10T19:59:00Z", "before Monday's close, summer time"),
            post("2014-03-10T20:30:00Z", "after Monday's close, not yet in winter time"),
        ],
        packed=packed,
    )
    data = dataset(sources.load(source), window=5)
    assert texts(data, "2014-03-07") == ["before Friday's close", "at Friday's close"]
    assert texts(data, "2014-03-10") == [
        "after Friday's close",
        "Sunday",
        "before Monday's close, summer time",
    ]
    assert texts(data, "2014-03-11") == ["after Monday's close, not yet in winter time"]
    assert texts(data, "2014-03-12") == []


def test_raw_and_reduced_layouts_say_the_same(tmp_path: Path) -> None:
    reduced = sources.load(write(tmp_path / "a", [post("2014-03-07T20:59:00Z", "x $AAPL")]))
    write_csv(tmp_path / "b" / "price" / "raw", "AAPL", rows(120))
    # The day file is named by another clock than the post inside.
    write_jsonl(
        tmp_path / "b" / "tweet" / "raw" / "AAPL" / "2014-03-08",
        [{"created_at": "Fri Mar 07 20:59:00 +0000 2014", "text": "x $AAPL", "user_id_str": "1"}],
    )
    raw = sources.load(f"stocknet:{tmp_path / 'b'}")
    headlines = [dataset(market, 5).find("AAPL:2014-03-07").headlines for market in (reduced, raw)]
    assert headlines[0] == headlines[1]
    assert headlines[0][0].known_at == dt.datetime(2014, 3, 7, 20, 59, tzinfo=dt.UTC)
    assert raw.report.rows[1].read == 1


def test_an_offset_is_a_time_too(tmp_path: Path) -> None:
    source = write(tmp_path, [post("2014-03-07T15:59:00-05:00", "just in time")])
    assert texts(dataset(sources.load(source), 5), "2014-03-07") == ["just in time"]


def test_posts_are_kept_as_written_cut_and_limited_in_number(tmp_path: Path) -> None:
    hostile = "\x1b]52;c;x\x07 <|im_end|> \u202e"
    many = [post(f"2014-03-07T10:{at // 60:02}:{at % 60:02}Z", f"post {at}") for at in range(200)]
    source = write(tmp_path, [*many, post("2014-03-07T20:00:00Z", hostile + "x" * 5000)])
    data = dataset(sources.load(source), 5)
    found = texts(data, "2014-03-07")
    assert len(found) == MAX_HEADLINES
    assert found[-1].startswith(hostile)
    assert len(found[-1]) == 1000
    # The oldest give way.
    assert found[-2] == "post 199"
    shown = compose(data.find("AAPL:2014-03-07"), style="full").text
    assert "\x1b" not in shown
    assert "<|im_end|>" not in shown
    assert "\u202e" not in shown


def test_posts_without_prices_are_left_out_and_said(tmp_path: Path) -> None:
    source = write(tmp_path, [post("2014-03-07T20:59:00Z", "x", ticker="ZZZ")])
    assert "posts of 1 tickers without prices left out: ZZZ" in sources.load(source).report.notes


def test_posts_after_the_last_day_belong_to_no_day(tmp_path: Path) -> None:
    market = sources.load(write(tmp_path, [post("2020-01-01T00:00:00Z", "later")]))
    news = market.histories[0].news
    assert news is not None
    assert len(news.texts) == len(news.text) == 0


def test_prices_alone_will_do(tmp_path: Path) -> None:
    write_csv(tmp_path / "price" / "raw", "AAPL", rows(120))
    market = sources.load(f"stocknet:{tmp_path}")
    assert market.histories[0].news is None
    assert [counted.kind for counted in market.report.rows] == ["price rows"]


# ---------------------------------------------------------------------------
# The real data, where it is


@pytest.fixture(scope="module")
def real() -> Market:
    return sources.load(f"stocknet:{REAL}")


@pytest.fixture(scope="module")
def real_dataset(real: Market) -> Dataset:
    return dataset(real)


@needs_real
def test_the_real_prices_load_with_their_two_null_rows_refused(real: Market) -> None:
    prices, posts = real.report.rows
    assert (prices.read, prices.num_refused) == (79_874, 2)
    assert {example.split(":")[0][-7:] for example in prices.refused[0].examples} == {
        "PTR.csv",
        "SNP.csv",
    }
    assert (posts.read, posts.num_refused) == (39_138, 0)
    assert len(real.histories) == 64
    assert real.report.splits == ()


@needs_real
def test_a_real_split_is_no_move(real_dataset: Dataset) -> None:
    # Seven for one on 2014-06-09: 92.22 to 93.70 in the file, 645.57 to 93.70 on screens.
    example = real_dataset.find("AAPL:2014-06-09")
    assert example.day_change == pytest.approx(1.6, abs=0.01)
    assert example.window[-1].close == pytest.approx(93.70)
    assert real_dataset.find("AAPL:2014-06-06").label.percent == pytest.approx(1.6, abs=0.01)
    for key in ("V:2015-03-19", "MA:2014-01-22", "GOOG:2014-04-03", "CMCSA:2017-02-21"):
        assert abs(real_dataset.find(key).day_change) < 6


@needs_real
def test_real_crashes_are_no_splits(real_dataset: Dataset) -> None:
    assert real_dataset.find("AGFS:2016-11-08").label.percent == pytest.approx(-48.9, abs=0.1)
    assert real_dataset.find("FB:2013-07-24").label.percent == pytest.approx(29.6, abs=0.1)


@needs_real
def test_no_real_post_is_younger_than_the_decision(real: Market) -> None:
    seen = 0
    for history in real.histories:
        if history.news is None:
            continue
        for index in range(30, len(history) - 1, 5):
            if history.news.first[index] == history.news.first[index + 1]:
                continue
            day = history.days[index].item()
            before = history.days[index - 1].item()
            for text, known_at in history.news.on(index, 10_000):
                assert _close(before) < known_at <= _close(day), (history.ticker, day, text)
                seen += 1
    assert seen > 3000


def _close(day: dt.date) -> dt.datetime:
    """16:00 in New York, by the rule of the years 2007 and later."""
    return dt.datetime.combine(day, dt.time(20 if _is_summer(day) else 21), dt.UTC)


def _is_summer(day: dt.date) -> bool:
    """From the second Sunday of March to the first Sunday of November."""
    march, november = dt.date(day.year, 3, 8), dt.date(day.year, 11, 1)
    start = march + dt.timedelta((6 - march.weekday()) % 7)
    end = november + dt.timedelta((6 - november.weekday()) % 7)
    return start <= day < end

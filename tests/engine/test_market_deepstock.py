"""The deepstock schema: its answers stay unread, its future stays unknown."""

import datetime as dt
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from engine.errors import UserError
from engine.market import deepstock, sources
from engine.market.dataset import Dataset
from engine.market.prompts import compose
from engine.market.quality import Market
from tests.market_files import (
    Row,
    business_days,
    deepstock_row,
    deepstock_rows,
    write_jsonl,
    write_parquet,
)


def dataset(market: Market) -> Dataset:
    return Dataset(
        market.histories, window=5, horizon=1, train_share=0.8, validation_share=0.1, embargo=1
    )


def load(folder: Path, table: list[Row]) -> Market:
    return sources.load(f"deepstock:{write_jsonl(folder / 'deep.jsonl', table)}")


def test_parquet_jsonl_and_a_folder_say_the_same(tmp_path: Path) -> None:
    first, second = deepstock_rows("MMM"), deepstock_rows("AAPL")
    write_parquet(tmp_path / "a" / "deep.parquet", [*first, *second])
    write_jsonl(tmp_path / "b" / "deep.jsonl", [*first, *second])
    write_jsonl(tmp_path / "c" / "1.jsonl", first)
    write_parquet(tmp_path / "c" / "2.parquet", second)
    markets = [
        sources.load(f"deepstock:{tmp_path / place}")
        for place in ("a/deep.parquet", "b/deep.jsonl", "c")
    ]
    for market in markets:
        assert [history.ticker for history in market.histories] == ["AAPL", "MMM"]
        assert [history.company for history in market.histories] == ["AAPL Inc.", "MMM Inc."]
        assert market.histories[1].close[:4].tolist() == [100, 101, 102, 100]
        assert market.report.rows[0].read == 120


def test_what_the_source_does_not_have_is_missing(tmp_path: Path) -> None:
    market = load(tmp_path, deepstock_rows(count=60))
    example = dataset(market).find("MMM:2021-03-01")
    assert np.isnan(
        [example.window[-1].high, example.window[-1].low, example.window[-1].volume]
    ).all()
    assert not {"stoch_k", "willr", "cci", "adx", "volume20"} & set(example.indicators)
    for style in ("full", "compact", "masked"):
        text = compose(example, style=style).text
        assert "nan" not in text.lower().replace("financ", "")
        assert "SECRET" not in text


def test_the_prompt_of_the_data_set_is_not_even_requested(tmp_path: Path) -> None:
    # A user_prompt of another type in every file would break a reader that looked at it.
    table = deepstock_rows(count=30)
    for row in table:
        del row["user_prompt"]
    assert len(load(tmp_path, table).histories[0]) == 30
    assert "user_prompt" not in {name.split(".")[0] for name in deepstock._FIELDS}
    assert "user_prompt" not in deepstock._COLUMNS


def test_headlines_of_a_row_were_known_when_its_day_began(tmp_path: Path) -> None:
    table = deepstock_rows(count=60)
    day = business_days(60, "2021-01-04")[40]
    table[40] = deepstock_row("MMM", day, 101, headlines=["First", "Second", "First", " "])
    example = dataset(load(tmp_path, table)).find(f"MMM:{day}")
    assert [headline.text for headline in example.headlines] == ["First", "Second"]
    assert {headline.known_at.isoformat() for headline in example.headlines} == {
        "2021-03-01T05:00:00+00:00"
    }
    assert all(known <= example.known_at for _, known in example.known_times())


def test_a_statement_counts_from_120_days_after_its_fiscal_year_end(tmp_path: Path) -> None:
    days = business_days(300, "2021-01-04")
    table = [
        deepstock_row(
            "MMM",
            day,
            100 + at % 3,
            # As the data set has it: the next fiscal year end, from the future.
            year=f"{day[:4]}-06-30" if day[5:] <= "06-30" else f"{int(day[:4]) + 1}-06-30",
            financials=json.dumps({"Total Revenue": float(day[2:4]), "Note": "x", "EPS": None}),
        )
        for at, day in enumerate(days)
    ]
    data = dataset(load(tmp_path, table))
    # 2021-06-30 + 120 days is 2021-10-28, a Thursday.
    assert data.find("MMM:2021-10-27").financials is None
    found = data.find("MMM:2021-10-28").financials
    assert found is not None
    assert found.fiscal_year_end == dt.date(2021, 6, 30)
    assert found.known_at.isoformat() == "2021-10-28T00:00:00-04:00"
    assert found.values == {"Total Revenue": 21.0}


def test_a_ticker_without_a_usable_row_is_left_out(tmp_path: Path) -> None:
    broken: Any = deepstock_row("BAD", "2021-01-04", 1.0)
    broken["company_info"]["price"]["close"] = None
    market = load(tmp_path, [*deepstock_rows(count=60), broken])
    assert [history.ticker for history in market.histories] == ["MMM"]
    assert market.report.rows[0].num_refused == 1


def test_headlines_of_neighbouring_days_are_stored_once(tmp_path: Path) -> None:
    days = business_days(60, "2021-01-04")
    table = [
        deepstock_row(
            ticker, day, 100 + at % 3, headlines=[f"{ticker} {n}" for n in range(at, at + 6)]
        )
        for ticker in ("AAPL", "MMM")
        for at, day in enumerate(days)
    ]
    market = load(tmp_path, table)
    news = market.histories[0].news
    assert news is not None
    # 65 headlines of each ticker are mentioned 60 times 6.
    assert len(news.texts) == 2 * 65
    found = dataset(market).find(f"MMM:{days[30]}").headlines
    assert [headline.text for headline in found] == [f"MMM {n}" for n in range(30, 36)]


def test_an_unreadable_statement_is_left_out_and_said(tmp_path: Path) -> None:
    table = deepstock_rows(count=30)
    table[3] = deepstock_row("MMM", "2021-01-07", 100, year="2020-06-30", financials="{oops")
    assert "1 statements that cannot be read left out" in load(tmp_path, table).report.notes


def test_the_next_day_is_that_of_the_full_calendar(tmp_path: Path) -> None:
    table = deepstock_rows(count=60)
    shuffled = [table[at] for at in np.random.default_rng(1).permutation(60)]
    market = load(tmp_path, shuffled)
    data = dataset(market)
    history = market.histories[0]
    assert [str(day) for day in history.days] == business_days(60, "2021-01-04")
    example = data.find("MMM:2021-03-01")
    assert example.label.percent == pytest.approx((102 / 101 - 1) * 100)
    assert example.outcome_day == dt.date(2021, 3, 2)


def test_a_gap_gives_no_label(tmp_path: Path) -> None:
    table = deepstock_rows(count=60)
    market = load(tmp_path, table[:40] + table[46:])
    with pytest.raises(KeyError):
        dataset(market).find("MMM:2021-02-26")
    (gap,) = market.report.gaps
    assert gap.after.isoformat() == "2021-02-26"


def test_a_doubtful_move_is_in_no_label_and_no_window(tmp_path: Path) -> None:
    days = business_days(120, "2021-01-04")
    table = [
        deepstock_row("MMM", day, (100 + at % 3) * (1 if at < 60 else 1.3))
        for at, day in enumerate(days)
    ]
    market = load(tmp_path, table)
    assert any("1 moves beyond 25% in a day" in note for note in market.report.notes)
    data = dataset(market)
    found = [int(index) for split in data.spans for index in data.rows(split).index]
    # The move ends on day 60; the volatility of 20 days looks back to it until day 79.
    assert 58 in found
    assert not set(range(59, 80)) & set(found)
    assert 80 in found


def test_days_on_which_the_exchange_was_closed_are_left_out(tmp_path: Path) -> None:
    table: list[Any] = deepstock_rows(count=30)
    table[10]["company_info"]["price"]["price_date"] = "2021-01-15"
    market = load(tmp_path, table)
    assert len(market.histories[0]) == 29
    assert market.report.rows[0].num_refused == 0
    assert any("1 rows of days without a price" in note for note in market.report.notes)


class _Hub:
    """Stands in for the hub: streams of a local parquet file."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.asked: list[str] = []

    def __call__(self, hub_id: str) -> Mapping[str, Any]:
        import datasets

        self.asked.append(hub_id)
        parts = datasets.load_dataset(
            "parquet",
            data_files={"train": str(self.path), "test": str(self.path)},
            streaming=True,
            columns=list(deepstock._COLUMNS),
        )
        return {name: part.select_columns(list(deepstock._COLUMNS)) for name, part in parts.items()}


def test_the_hub_is_streamed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hub = _Hub(write_parquet(tmp_path / "deep.parquet", deepstock_rows(count=3000)))
    monkeypatch.setattr(deepstock, "_streams", hub)
    # Both splits hold the same days here, so that every second row is a repetition.
    with pytest.raises(UserError, match=r"/test:1:company_info\.current_date: duplicate"):
        sources.load("deepstock")
    assert hub.asked == [deepstock.HUB_ID]
    one = hub(deepstock.HUB_ID)["train"]
    monkeypatch.setattr(deepstock, "_streams", lambda hub_id: {"train": one})
    market = sources.load("deepstock:someone/deepstock-copy")
    assert len(market.histories[0]) == 3000
    assert "someone/deepstock-copy" in market.report.description


def raising(error: Exception) -> Callable[[str], Mapping[str, Any]]:
    def streams(hub_id: str) -> Mapping[str, Any]:
        raise error

    return streams


def hub_errors() -> dict[str, tuple[Exception, str]]:
    import httpx2
    from datasets.exceptions import DatasetNotFoundError
    from huggingface_hub.errors import GatedRepoError, HfHubHTTPError

    request = httpx2.Request("GET", "https://example.invalid")
    return {
        "gated": (
            GatedRepoError("gated", response=httpx2.Response(403, request=request)),
            "run `hf auth login`",
        ),
        "not there": (DatasetNotFoundError("no"), "or it is gated; .*`hf auth login`"),
        "down": (
            HfHubHTTPError("down", response=httpx2.Response(503, request=request)),
            "the hub cannot be reached.*or name a local copy",
        ),
        "no network": (httpx2.ConnectError("no route\nto host"), "the hub cannot be reached"),
        "timeout": (TimeoutError("slow"), "the hub cannot be reached"),
    }


@pytest.mark.parametrize("name", ["gated", "not there", "down", "no network", "timeout"])
def test_what_the_hub_refuses_is_one_line(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    error, pattern = hub_errors()[name]
    monkeypatch.setattr(deepstock, "_streams", raising(error))
    with pytest.raises(UserError, match=pattern) as caught:
        sources.load("deepstock:someone/something")
    assert str(caught.value).startswith("someone/something: ")
    assert str(caught.value).isprintable()

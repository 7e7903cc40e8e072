"""The leakage suite: green on honest sources, red on planted leaks, each by its own name."""

import dataclasses
import datetime as dt
import gzip
import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest

from engine.config import DataConfig
from engine.market import dataset as dataset_module
from engine.market import leakage, sources
from engine.market.calendar import decision_time
from engine.market.dataset import Dataset, Rows
from engine.market.example import Example, Financials, Headline, Label
from engine.market.history import History
from engine.market.leakage import Audit, Check, Subject, audit
from engine.market.prepare import PrepareOptions
from engine.market.prompts import Prompt, Style, compose
from engine.market.quality import Market
from engine.market.scaling import Scaler
from engine.market.splits import Span, SplitName, chronological
from tests.market_files import (
    Row,
    business_days,
    deepstock_row,
    write_csv,
    write_parquet,
)

ROOT = Path(__file__).resolve().parents[2]
REAL = Path(os.environ.get("STOCKNET_DIR") or ROOT.parent / "shared" / "data" / "stocknet")

Build = Callable[[Sequence[History]], Dataset]


DATA = DataConfig(market_share=True)


def honest(histories: Sequence[History]) -> Dataset:
    return Dataset.configured(histories, DATA)


def of_class(kind: type[Dataset]) -> Build:
    return lambda histories: kind.configured(histories, DATA)


def audited(market: Market, build: Build = honest, **parts: object) -> Audit:
    return audit(Subject(market, build, sample=400, **parts))  # type: ignore[arg-type]


def by_name(found: Audit) -> dict[str, Check]:
    return {check.name: check for check in found.checks}


def walk(count: int, seed: int, start: float = 50.0) -> np.ndarray:
    steps = np.random.default_rng(seed).normal(0, 0.015, count)
    return np.round(start * np.exp(np.cumsum(steps)), 2)


def price_rows(count: int, seed: int) -> list[Row]:
    closes = walk(count, seed)
    spread = np.random.default_rng(seed + 100).uniform(0.2, 0.9, (3, count))
    return [
        {
            "Date": day,
            "Open": round(close + move, 2),
            "High": round(close + 1 + high, 2),
            "Low": round(close - 1 - low, 2),
            "Close": close,
            "Adj Close": close,
            "Volume": 1_000_000 + at % 7 * 1000,
        }
        for at, (day, close, move, high, low) in enumerate(
            zip(business_days(count), closes.tolist(), *spread.tolist(), strict=True)
        )
    ]


def write_ohlcv(folder: Path) -> str:
    for seed, ticker in enumerate(("AAA", "BBB", "CCC")):
        write_csv(folder, ticker, price_rows(420, seed))
    return f"ohlcv:{folder}"


def write_stocknet(folder: Path) -> str:
    """Two tickers; a post before and one after every close, in summer and winter."""
    for seed, ticker in enumerate(("AAA", "BBB")):
        write_csv(folder / "price" / "raw", ticker, price_rows(420, seed))
    lines = []
    for day in business_days(420):
        for clock in ("19:30:00", "21:30:00"):
            text = f"written on {day} at {clock}"
            lines.append(
                json.dumps({"ticker": "AAA", "created_at": f"{day}T{clock}Z", "text": text})
            )
    (folder / "posts").mkdir()
    (folder / "posts" / "AAA.jsonl.gz").write_bytes(gzip.compress("\n".join(lines).encode()))
    return f"stocknet:{folder}"


def write_deepstock(folder: Path) -> str:
    rows = []
    for seed, ticker in enumerate(("AAA", "BBB", "CCC")):
        closes = walk(420, seed)
        for day, close in zip(business_days(420, "2020-01-02"), closes.tolist(), strict=True):
            year = f"{day[:4]}-12-31"
            rows.append(
                deepstock_row(
                    ticker,
                    day,
                    close,
                    headlines=[f"{ticker} in the week before {day}"],
                    year=year,
                    financials=json.dumps({"Total Revenue": 1e9, "Net Income": 2e8}),
                )
            )
    return f"deepstock:{write_parquet(folder / 'deep.parquet', rows)}"


WRITERS = {"ohlcv": write_ohlcv, "stocknet": write_stocknet, "deepstock": write_deepstock}


@pytest.fixture(scope="module")
def markets(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Market]:
    """Every source, the ones on disk small and made up."""
    written = {name: write(tmp_path_factory.mktemp(name)) for name, write in WRITERS.items()}
    written |= {
        "demo": "demo",
        "planted": "planted:share=0.9,seed=1",
        "shuffled": "planted:share=0.9,seed=1,shuffled=true",
    }
    return {name: sources.load(source) for name, source in written.items()}


@pytest.mark.parametrize("name", ["demo", "planted", "shuffled", *WRITERS])
def test_an_honest_source_is_green(name: str, markets: dict[str, Market]) -> None:
    found = audited(markets[name])
    assert found.red == ()
    assert (found.num_examples, found.num_rows > 400) == (400, True)
    skipped = {check.name for check in found.checks if check.verdict == "skipped"}
    with_texts = {"stocknet", "planted", "shuffled"}
    told = {"deepstock": set(), **{key: {"financials"} for key in with_texts}}
    assert skipped == told.get(name, {"posts", "financials"})


@pytest.mark.parametrize("horizon", [2, 5, 10])
@pytest.mark.parametrize("name", ["demo", "planted"])
def test_a_longer_horizon_is_green(name: str, horizon: int, markets: dict[str, Market]) -> None:
    data = DataConfig(horizon=horizon, embargo=horizon)
    assert audited(markets[name], lambda h: Dataset.configured(h, data)).red == ()


@pytest.mark.parametrize("seed", range(3))
def test_headlines_that_all_but_tell_the_next_day_are_no_leak(seed: int) -> None:
    subject = Subject(sources.load("planted:share=0.98"), honest, sample=50, seed=seed)
    assert leakage.label_shuffle(subject).verdict == "green"
    assert leakage.feature_shift(subject).verdict == "green"


@pytest.mark.skipif(not (REAL / "price" / "raw").is_dir(), reason="no StockNet here")
def test_the_real_stocknet_is_green() -> None:
    found = audited(sources.load(f"stocknet:{REAL}"))
    assert found.red == ()
    assert by_name(found)["posts"].checked > 100


# ---------------------------------------------------------------------------
# Planted leaks


def next_close(example: Example) -> float:
    return example.window[-1].close * (1 + example.label.percent / 100)


def next_close_in_the_prompt(example: Example, *, style: Style) -> Prompt:
    prompt = compose(example, style=style)
    first, last = prompt.messages
    told = {**last, "content": f"{last['content']}\nIt closed at ${next_close(example):.2f}"}
    return dataclasses.replace(prompt, messages=(first, told))


def joined(*parts: Rows) -> Rows:
    fields = ("history", "index", "day", "up")
    return Rows(*(np.concatenate([getattr(part, field) for part in parts]) for field in fields))


class LabelOffByOne(Dataset):
    """The label of a day is the move of that very day."""

    def example(self, history: int, index: int) -> Example:
        example = super().example(history, index)
        percent = example.day_change
        return dataclasses.replace(example, label=Label("UP" if percent > 0 else "DOWN", percent))


class ShuffledSplit(Dataset):
    """Rows dealt to the splits at random."""

    def rows(self, split: SplitName) -> Rows:
        parts = [super(ShuffledSplit, self).rows(name) for name in ("train", "validation", "test")]
        every = joined(*parts)
        order = np.random.default_rng(3).permutation(len(every))
        third = len(every) // 3
        at = ("train", "validation", "test").index(split)
        return every.take(np.sort(order[at * third : (at + 1) * third]))


class FutureFinancials(Dataset):
    """The statement of the fiscal year that is going on."""

    def example(self, history: int, index: int) -> Example:
        example = super().example(history, index)
        statement = self.histories[history].statements[-1]
        told = Financials(statement.fiscal_year_end, example.known_at, statement.values)
        return dataclasses.replace(example, financials=told)


class PostsOfTheCalendarDay(Dataset):
    """Posts by their date in UTC, whatever the hour, said to be known at the close."""

    def example(self, history: int, index: int) -> Example:
        example = super().example(history, index)
        news = self.histories[history].news
        if news is None:
            return example
        of_day = np.flatnonzero(
            news.known_at.astype("datetime64[D]") == np.datetime64(example.as_of, "D")
        )
        told = tuple(
            Headline(text, example.known_at) for text in news.texts.take(news.text[of_day].tolist())
        )
        return dataclasses.replace(example, headlines=told)


class HonestlyLatePosts(Dataset):
    """A post of an hour after the close, with its true time."""

    def example(self, history: int, index: int) -> Example:
        example = super().example(history, index)
        later = decision_time(example.as_of) + dt.timedelta(hours=1)
        return dataclasses.replace(example, headlines=(Headline("late", later),))


def full_sample_scaler(
    history: History, spans: dict[SplitName, Span], options: PrepareOptions
) -> Scaler:
    return Scaler.fit(history.close)


def filtered_calendar(histories: Sequence[History]) -> Dataset:
    """Every fourth day is left out before labels are looked up."""
    kept = []
    for history in histories:
        at = np.flatnonzero(np.arange(len(history)) % 4 != 1)
        columns = ("days", "open", "high", "low", "close", "volume", "adjusted", "split_ratio")
        kept.append(
            dataclasses.replace(history, **{name: getattr(history, name)[at] for name in columns})
        )
    return honest(kept)


def no_embargo(histories: Sequence[History]) -> Dataset:
    def touching(days: np.ndarray, **options: object) -> dict[SplitName, Span]:
        spans = chronological(days, **options)  # type: ignore[arg-type]
        calendar = np.unique(days)
        return {
            name: span
            if span.border is None
            else Span(span.first, calendar[np.searchsorted(calendar, span.border) - 1], None)
            for name, span in spans.items()
        }

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(dataset_module, "chronological", touching)
        return honest(histories)


class DuplicateRow(Dataset):
    """The last training row stands in the test split too."""

    def rows(self, split: SplitName) -> Rows:
        rows = super().rows(split)
        if split != "test":
            return rows
        twin = super().rows("train")
        return joined(rows, twin.take(np.array([len(twin) - 1])))


def unadjusted(market: Market) -> Market:
    """The demo with its prices as they were quoted."""
    raw = [dataclasses.replace(history, adjusted=history.close) for history in market.histories]
    return dataclasses.replace(market, histories=tuple(raw))


def unadjusted_and_unrecorded(market: Market) -> Market:
    raw = [
        dataclasses.replace(history, adjusted=history.close, split_ratio=np.ones(len(history)))
        for history in market.histories
    ]
    return dataclasses.replace(market, histories=tuple(raw))


class FeaturesOfTomorrow(Dataset):
    """Prices and indicators of the next day under the date and label of this one."""

    def example(self, history: int, index: int) -> Example:
        late = super().example(history, min(index + 1, len(self.histories[history]) - 2))
        own = super().example(history, index)
        return dataclasses.replace(
            own, window=late.window, indicators=late.indicators, statistics=late.statistics
        )


class MarketShareOfTomorrow(Dataset):
    """The market's share of UP as it is known a day later."""

    def example(self, history: int, index: int) -> Example:
        own = super().example(history, index)
        later = super().example(history, index + 1)
        return dataclasses.replace(own, market_up_share=later.market_up_share)


class LabelAmongIndicators(Dataset):
    """An indicator that is the answer."""

    def example(self, history: int, index: int) -> Example:
        example = super().example(history, index)
        side = 70.0 if example.label.direction == "UP" else 30.0
        return dataclasses.replace(example, indicators={**example.indicators, "rsi": side})


Leak = tuple[str, Callable[[Market], Audit], set[str]]

LEAKS: dict[str, Leak] = {
    "next close in the prompt": (
        "demo",
        lambda market: audited(market, compose=next_close_in_the_prompt),
        {"future-prices", "changed-future"},
    ),
    "label off by one": ("demo", lambda m: audited(m, of_class(LabelOffByOne)), {"labels"}),
    "shuffled split": ("demo", lambda m: audited(m, of_class(ShuffledSplit)), {"chronology"}),
    "future financials": (
        "deepstock",
        lambda market: audited(market, of_class(FutureFinancials)),
        {"financials"},
    ),
    "after-close post": (
        "stocknet",
        lambda market: audited(market, of_class(PostsOfTheCalendarDay)),
        {"posts"},
    ),
    "full-sample scaler": (
        "demo",
        lambda market: audited(market, fit_scaler=full_sample_scaler),
        {"scalers"},
    ),
    # Its moves are over two days, in the market's share too.
    "filtered-calendar label": (
        "demo",
        lambda market: audited(market, filtered_calendar),
        {"calendar", "market-share"},
    ),
    "market share of tomorrow": (
        "demo",
        lambda market: audited(market, of_class(MarketShareOfTomorrow)),
        {"market-share"},
    ),
    "embargo 0": ("demo", lambda market: audited(market, no_embargo), {"embargo"}),
    "unadjusted split": ("demo", lambda market: audited(unadjusted(market)), {"splits"}),
    "duplicate row across splits": (
        "demo",
        lambda market: audited(market, of_class(DuplicateRow)),
        {"duplicates"},
    ),
    "late post with its true time": (
        "stocknet",
        lambda market: audited(market, of_class(HonestlyLatePosts)),
        {"known-at", "posts"},
    ),
    "unadjusted split that nobody recorded": (
        "demo",
        lambda market: audited(unadjusted_and_unrecorded(market)),
        {"splits"},
    ),
    "features of tomorrow": (
        "demo",
        lambda market: audited(market, of_class(FeaturesOfTomorrow)),
        {"known-at", "future-prices", "changed-future", "feature-shift"},
    ),
    "label among the indicators": (
        "planted",
        lambda market: audited(market, of_class(LabelAmongIndicators)),
        {"changed-future", "label-shuffle", "feature-shift"},
    ),
}


@pytest.mark.parametrize("name", LEAKS)
def test_a_planted_leak_is_red_by_its_own_name(name: str, markets: dict[str, Market]) -> None:
    source, run, expected = LEAKS[name]
    found = run(markets[source])
    assert set(found.red) == expected
    for check in found.checks:
        if check.verdict == "red":
            assert check.offences > 0
            assert check.evidence


def test_the_first_offence_says_where(markets: dict[str, Market]) -> None:
    prices = by_name(audited(unadjusted(markets["demo"])))["splits"]
    assert prices.first == "AAPL:2000-06-21: -45.1%"
    assert prices.offences == 3
    told = by_name(audited(markets["demo"], compose=next_close_in_the_prompt))["future-prices"]
    assert told.first is not None
    assert told.first.startswith("AAPL:2000-")
    assert told.offences > 1000


def test_a_next_close_that_is_looked_up_elsewhere_is_found_too(markets: dict[str, Market]) -> None:
    closes = {
        f"{history.ticker}:{day}": close
        for history in markets["demo"].histories
        for day, close in zip(history.days[:-1].tolist(), history.close[1:].tolist(), strict=True)
    }

    def told(example: Example, *, style: Style) -> Prompt:
        prompt = compose(example, style=style)
        first, last = prompt.messages
        content = f"{last['content']} {closes[example.key]:.2f}"
        return dataclasses.replace(prompt, messages=(first, {**last, "content": content}))

    assert audited(markets["demo"], compose=told).red == ("future-prices",)


def test_a_share_that_nobody_asked_for_is_not_judged(markets: dict[str, Market]) -> None:
    subject = Subject(markets["ohlcv"], lambda h: Dataset.configured(h, DataConfig()), sample=20)
    assert leakage.facts.market_share(subject).verdict == "skipped"


def test_the_same_seed_finds_the_same_things(markets: dict[str, Market]) -> None:
    assert audited(markets["ohlcv"]) == audited(markets["ohlcv"])


def test_what_is_too_small_to_judge_is_said_and_not_green(tmp_path: Path) -> None:
    write_csv(tmp_path, "AAA", price_rows(90, 1))
    found = by_name(audited(sources.load(f"ohlcv:{tmp_path}")))
    for name in ("label-shuffle", "feature-shift"):
        assert found[name].verdict == "skipped"
        assert "fewer than 40" in found[name].evidence


def test_progress_is_told(markets: dict[str, Market]) -> None:
    told: list[tuple[int, int]] = []
    audit(Subject(markets["ohlcv"], honest, sample=20), lambda *step: told.append(step))
    total = len(leakage.CHECKS)
    assert told == [(done, total) for done in range(total + 1)]

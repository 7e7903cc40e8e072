"""The bundled source: real closes, and splits that are not crashes."""

import hashlib
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest

from engine.errors import UserError
from engine.market import demo, sources
from engine.market.dataset import Dataset
from engine.market.example import Example
from engine.market.history import History
from engine.market.prompts import compose

# First 16 digits of the SHA-256 of compact prompts: runs in progress compare prompts by text.
GOLDEN = {
    "AAPL:2000-03-29": "bcf569e2cb546373",
    "AAPL:2004-10-22": "764b19228a556a85",
    "GOOG:2004-10-04": "10f0a40d2c7cca66",
    "GOOG:2009-03-23": "76355becd4dc5eb1",
    "IBM:2004-09-16": "bf437b537840c879",
    "IBM:2009-03-13": "db5c73212398ae89",
    "MSFT:2004-09-22": "6c8f0fde31aba8ab",
    "AAPL:2009-04-08": "0f0e8fa7b7b301a6",
    "AAPL:2010-05-13": "e950cc1011ed6415",
    "GOOG:2009-07-15": "2e1644edd147a583",
    "GOOG:2010-08-19": "f2c88ba1c86b0186",
    "IBM:2009-10-20": "a0ebf868e66f8c80",
    "IBM:2010-11-26": "22cbfbc90285ee17",
    "MSFT:2010-02-04": "4323786dca0ea9c9",
    "AAPL:2011-03-18": "91436435647d0d4c",
    "AAPL:2012-06-04": "bb0219558709a388",
    "FB:2012-12-11": "181e2da3408b168c",
    "GOOG:2012-03-16": "76794568797ecc61",
    "IBM:2011-06-22": "bd6430a5b8dddc65",
    "IBM:2012-09-06": "0c3b336211b65483",
    "MSFT:2011-12-14": "6b2d07e6b5a95f9c",
}

SPLIT_DAYS = [("AAPL", "2000-06-21"), ("AAPL", "2005-02-28"), ("MSFT", "2003-02-18")]


def dataset(histories: tuple[History, ...], horizon: int = 1) -> Dataset:
    return Dataset(
        histories,
        window=10,
        horizon=horizon,
        train_share=0.7,
        validation_share=0.15,
        embargo=10,
    )


@pytest.fixture(scope="module")
def histories() -> tuple[History, ...]:
    return demo.load()


@pytest.fixture(scope="module")
def market(histories: tuple[History, ...]) -> Dataset:
    return dataset(histories)


def test_five_tickers_come_with_their_days_in_order(histories: tuple[History, ...]) -> None:
    sizes = {history.ticker: len(history) for history in histories}
    assert sizes == {"AAPL": 3270, "FB": 196, "GOOG": 2148, "IBM": 3270, "MSFT": 3270}
    assert all((np.diff(history.days).astype(int) > 0).all() for history in histories)


def test_a_window_reads_the_price_of_its_day(market: Dataset) -> None:
    # adj_close of that day is 89.218..., the quoted close 691.28
    example = market.find("AAPL:2012-09-14")
    assert example.window[-1].close == 691.28
    assert example.window[-1].open == pytest.approx(689.955)
    assert example.window[-1].volume == 21445500
    assert example.day_change == pytest.approx(
        (88.147164375427 / 89.218383831804) ** -1 * 100 - 100
    )


@pytest.mark.parametrize(("ticker", "day"), SPLIT_DAYS)
def test_a_split_is_no_crash(market: Dataset, ticker: str, day: str) -> None:
    example = market.find(f"{ticker}:{day}")
    assert abs(example.day_change) < 15
    closes = [bar.close for bar in example.window]
    assert max(closes) / min(closes) < 1.5
    # The label of the day before is the same move.
    history = next(h for h in market.histories if h.ticker == ticker)
    before = history.days[int(np.searchsorted(history.days, np.datetime64(day))) - 1]
    assert market.find(f"{ticker}:{before}").label.percent == pytest.approx(example.day_change)


def test_volume_before_a_split_is_counted_in_new_shares(market: Dataset) -> None:
    # 16,348,400 shares on the last day at the old price are 32,696,800 of the new ones.
    after = market.find("AAPL:2005-02-28")
    assert after.window[-2].volume == 2 * 16348400
    assert after.window[-1].volume == 11635900


def test_volume_knows_no_later_split(market: Dataset) -> None:
    before = market.find("AAPL:2005-02-25")
    assert before.window[-1].volume == 16348400
    assert before.window[-1].close == 88.99


def test_raw_closes_would_have_shown_the_splits(histories: tuple[History, ...]) -> None:
    by_ticker = {history.ticker: history for history in histories}
    for ticker, day in SPLIT_DAYS:
        history = by_ticker[ticker]
        at = int(np.searchsorted(history.days, np.datetime64(day)))
        assert history.close[at] / history.close[at - 1] < 0.6
        assert history.split_ratio[at] == 2


def perturbed(history: History, after: int) -> History:
    """The same history with everything after row ``after`` made up."""

    def scrambled(values: np.ndarray) -> np.ndarray:
        changed = values.copy()
        changed[after + 1 :] *= np.random.default_rng(3).uniform(0.2, 5.0, len(values) - after - 1)
        return changed

    return replace(
        history,
        open=scrambled(history.open),
        high=scrambled(history.high),
        low=scrambled(history.low),
        close=scrambled(history.close),
        volume=scrambled(history.volume),
        adjusted=scrambled(history.adjusted),
        split_ratio=np.where(np.arange(len(history)) == after + 1, 3.0, history.split_ratio),
    )


def without_label(example: Example) -> dict[str, object]:
    return {name: value for name, value in vars(example).items() if name != "label"}


@pytest.mark.parametrize("key", ["AAPL:2000-06-20", "MSFT:2007-01-03", "GOOG:2012-09-14"])
def test_no_future_row_influences_an_example(histories: tuple[History, ...], key: str) -> None:
    honest = dataset(histories).find(key)
    changed = []
    for history in histories:
        after = int(np.searchsorted(history.days, np.datetime64(honest.as_of), side="right")) - 1
        changed.append(perturbed(history, after) if 0 <= after < len(history) else history)
    other = dataset(tuple(changed)).find(key)
    assert without_label(other) == without_label(honest)
    assert other.label != honest.label
    assert compose(other) == compose(honest)


def test_a_later_split_or_dividend_changes_no_prompt(histories: tuple[History, ...]) -> None:
    # A 7:1 split after the end of the data divides every adjusted close by 7.
    later = tuple(replace(history, adjusted=history.adjusted / 7) for history in histories)
    for key in ("AAPL:2012-09-14", "IBM:2004-05-05"):
        assert compose(dataset(later).find(key)) == compose(dataset(histories).find(key))


def test_compact_prompts_stay_as_they_are() -> None:
    market = Dataset(
        demo.load(), window=10, horizon=1, train_share=0.7, validation_share=0.15, embargo=5
    )
    found = {
        key: hashlib.sha256(compose(market.find(key)).text.encode()).hexdigest()[:16]
        for key in GOLDEN
    }
    assert found == GOLDEN


def test_the_source_reports_its_splits_and_the_closure_of_2001() -> None:
    report = sources.load("demo").report
    assert [(one.ticker, one.day.isoformat(), one.ratio) for one in report.splits] == [
        (ticker, day, 2) for ticker, day in SPLIT_DAYS
    ]
    closure = {gap.ticker for gap in report.gaps if gap.after.isoformat() == "2001-09-10"}
    assert closure == {"AAPL", "IBM", "MSFT"}
    assert report.rows[0].read == 12154


def test_an_unknown_key_is_a_key_error(market: Dataset) -> None:
    for key in (
        "AAPL:2012-09-15",
        "AAPL:2000-03-01",
        "AAPL:2013-03-01",
        "XXXX:2012-09-14",
        "",
        "AAPL:x",
    ):
        with pytest.raises(KeyError):
            market.find(key)


def test_an_unknown_source_is_one_line_naming_the_known_ones() -> None:
    with pytest.raises(
        UserError, match=r"data\.source: no market data .*use one of: demo"
    ) as error:
        sources.load("dmeo\n")
    assert "\n" not in str(error.value)


def test_market_rewards_and_task_import_no_torch() -> None:
    code = "import sys, engine.direction_call; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0

"""The market's share of UP: counted by hand, known on its day, left out where not asked for."""

import dataclasses
from collections.abc import Sequence

import numpy as np
import pytest

from engine.config import DataConfig
from engine.market import demo
from engine.market.dataset import Dataset
from engine.market.history import History
from engine.market.market_share import UpShares
from engine.market.prompts import Style, compose
from engine.rewards.facts import citations
from tests.market_files import business_days


def made(ticker: str, moves: Sequence[float], **fields: object) -> History:
    """A history whose daily moves, in percent, are ``moves``."""
    closes = 100 * np.cumprod([1.0, *(1 + move / 100 for move in moves)])
    days = np.array(business_days(len(closes)), dtype="datetime64[D]")
    nothing = np.ones(len(closes))
    return History(
        ticker=ticker,
        company=ticker,
        days=days,
        open=closes,
        high=closes,
        low=closes,
        close=closes,
        volume=nothing,
        adjusted=closes,
        split_ratio=nothing,
        **fields,  # type: ignore[arg-type]
    )


def share(*histories: History, at: int = -1) -> float | None:
    return UpShares(histories).on(histories[0].days[at])


def test_the_share_counts_the_moves_of_all_tickers_over_sixty_days() -> None:
    # One that rises every day, one that rises every third: 60 + 20 of 120.
    assert share(made("A", [1.0] * 60), made("B", [1.0, -1.0, -1.0] * 20)) == 80 / 120


def test_what_is_older_than_sixty_days_does_not_count() -> None:
    assert share(made("A", [1.0] * 30 + [-1.0] * 60)) == 0
    assert share(made("A", [1.0] * 31 + [-1.0] * 59)) == pytest.approx(1 / 60)


def test_the_as_of_days_own_move_counts_and_the_next_does_not() -> None:
    history = made("A", [-1.0] * 60 + [1.0, 1.0])
    assert share(history, at=60) == 0
    assert share(history, at=61) == pytest.approx(1 / 60)


def test_fewer_than_sixty_days_have_no_share() -> None:
    history = made("A", [1.0] * 60)
    assert share(history, at=59) is None
    assert share(history, at=60) == 1


def test_moves_of_zero_doubtful_ones_and_gaps_count_on_neither_side() -> None:
    history = made("A", [1.0] * 20 + [0.0] * 20 + [-1.0] * 20)
    assert share(history) == 0.5
    doubtful = np.zeros(61, np.bool_)
    doubtful[41:51] = True  # half of the falling days
    assert share(dataclasses.replace(history, doubtful=doubtful)) == 20 / 30
    later = history.days.copy()
    later[60] += 10
    assert share(dataclasses.replace(history, days=later)) == 20 / 39
    assert share(made("A", [0.0] * 60)) is None


def test_permuted_labels_leave_the_share_alone() -> None:
    history = made("A", [1.0, -1.0, 1.0] * 20)
    assert share(dataclasses.replace(history, shuffle_seed=3)) == share(history) == 2 / 3


@pytest.fixture(scope="module")
def market() -> Dataset:
    return Dataset.configured(demo.load(), DataConfig(market_share=True))


@pytest.mark.parametrize("style", ["full", "compact", "brief", "masked"])
def test_the_line_stands_in_every_style_and_only_where_it_is_asked_for(
    market: Dataset, style: Style
) -> None:
    example = market.find("AAPL:2012-09-14")
    assert example.market_up_share is not None
    line = f"\nMarket, last 60 days: UP share {example.market_up_share:.2f}"
    with_share = compose(example, style=style).text
    assert with_share.count(line) == 1
    plain = Dataset.configured(demo.load(), DataConfig()).find("AAPL:2012-09-14")
    assert with_share.replace(line, "") == compose(plain, style=style).text
    assert dict(example.known_times())["market share"] == example.known_at
    assert "market share" not in dict(plain.known_times())


def test_the_share_is_cited_by_its_name_alone(market: Dataset) -> None:
    example = dataclasses.replace(market.find("AAPL:2012-09-14"), market_up_share=0.54)
    facts = compose(example).facts
    for cites in ("the UP share of 0.54", "a market at 0.54", "an UP share of 0.5"):
        assert [one.fact.label for one in citations(cites, facts)] == ["UP share"], cites
    for does_not in ("54% sure", "0.54", "confidence 0.54", "an UP share of 0.53", "60 days"):
        assert citations(does_not, facts) == (), does_not

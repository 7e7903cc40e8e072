"""The made-up market holds what it promises, and its twin holds nothing."""

import numpy as np
import pytest

from engine.market import labels, sources
from engine.market.dataset import Dataset
from engine.market.history import History
from engine.market.prompts import Style, compose
from engine.market.quality import Market
from engine.market.splits import SPLIT_NAMES


def dataset(market: Market, horizon: int = 1) -> Dataset:
    return Dataset(
        market.histories,
        window=10,
        horizon=horizon,
        train_share=0.7,
        validation_share=0.15,
        embargo=10,
    )


def hits(data: Dataset, split: str) -> float:
    """Share of rows whose label goes the way the newest headline tells."""
    rows = data.rows(split)  # type: ignore[arg-type]
    told = []
    for history, index in zip(rows.history.tolist(), rows.index.tolist(), strict=True):
        news = data.histories[history].news
        assert news is not None
        headline = news.on(index, 1)[0][0].split()
        assert ("UP" in headline) != ("DOWN" in headline)
        told.append("UP" in headline)
    return float((np.array(told) == rows.up).mean())


def repeats(data: Dataset, split: str) -> float:
    """Share of rows whose label repeats the direction of the as-of day."""
    rows = data.rows(split)  # type: ignore[arg-type]
    changes = [
        data.histories[history].close[index] - data.histories[history].close[index - 1]
        for history, index in zip(rows.history.tolist(), rows.index.tolist(), strict=True)
    ]
    return float(((np.array(changes) > 0) == rows.up).mean())


@pytest.mark.parametrize("share", [0.5, 0.7, 0.9, 1.0])
def test_the_rule_holds_with_the_chosen_probability(share: float) -> None:
    data = dataset(sources.load(f"planted:share={share},seed=3"))
    for split in SPLIT_NAMES:
        assert hits(data, split) == pytest.approx(share, abs=0.03)
        assert data.rows(split).up.mean() == pytest.approx(0.5)
    # Four pairs of 1,092 days: three standard errors are 2.3 points.
    assert repeats(data, "train") == pytest.approx(0.5, abs=0.023)


@pytest.mark.parametrize("seed", range(5))
def test_nothing_can_be_predicted_in_the_twin(seed: int) -> None:
    data = dataset(sources.load(f"planted:share=0.9,seed={seed},shuffled=true"))
    # 8,500 rows: 4 standard errors are 2.2 points.
    assert hits(data, "train") == pytest.approx(0.5, abs=0.022)


@pytest.mark.parametrize("style", ["full", "compact", "brief"])
def test_the_rule_is_read_off_the_prompt(style: Style) -> None:
    data = dataset(sources.load("planted:share=0.9,seed=2"))
    rows = data.rows("train")
    right = []
    for at in range(0, len(rows), 7):
        example = data.example(int(rows.history[at]), int(rows.index[at]))
        shown = compose(example, style=style).text.partition("News:")[2]
        first = shown.strip().partition("\n")[0].split()
        right.append(("UP" in first) == (example.label.direction == "UP"))
    assert sum(right) / len(right) == pytest.approx(0.9, abs=0.04)


def test_a_headline_is_known_before_its_day_closes() -> None:
    data = dataset(sources.load("planted"))
    rows = data.rows("test")
    example = data.example(int(rows.history[0]), int(rows.index[0]))
    assert [headline.known_at.date() for headline in example.headlines] == [example.as_of]
    assert example.headlines[0].known_at.hour == 14


def test_the_twin_has_the_same_prices_and_the_same_labels_elsewhere() -> None:
    market, twin = (sources.load(f"planted:seed=5,shuffled={word}") for word in ("false", "true"))
    for honest, shuffled in zip(market.histories, twin.histories, strict=True):
        assert honest.close.tolist() == shuffled.close.tolist()
        ours, theirs = labels.moves(honest, 1), labels.moves(shuffled, 1)
        known = np.isfinite(ours)
        assert (np.isfinite(theirs) == known).all()
        assert sorted(ours[known]) == sorted(theirs[known])
        assert (ours[known] != theirs[known]).mean() > 0.9
        # Whoever recomputes labels gets the same permutation.
        assert labels.moves(shuffled, 1)[known].tolist() == theirs[known].tolist()


def test_it_is_marked_as_synthetic() -> None:
    report = sources.load("planted").report
    assert report.synthetic
    assert "with probability 0.9" in report.description
    assert "permuted" in sources.load("planted:shuffled=true").report.description
    assert not sources.load("demo").report.synthetic


def test_it_is_decided_by_its_seed() -> None:
    first, again, other = (sources.load(f"planted:seed={seed}") for seed in (4, 4, 5))
    for one, two in zip(first.histories, again.histories, strict=True):
        assert all(
            np.array_equal(getattr(one, name), getattr(two, name))
            for name in ("days", "open", "high", "low", "close", "volume")
        )
    assert first.histories[0].close.tolist() != other.histories[0].close.tolist()


@pytest.mark.parametrize("share", [0.5, 0.9, 1.0])
def test_prices_look_like_prices(share: float) -> None:
    def check(history: History) -> None:
        returns = np.diff(np.log(history.close)) * 100
        assert 0.1 < returns.std() < 3
        assert np.abs(returns).max() < 9
        assert history.close.min() > 5
        assert (history.high >= np.maximum(history.open, history.close)).all()
        assert (history.low <= np.minimum(history.open, history.close)).all()
        assert (history.low > 0).all()
        assert (history.volume > 1000).all()

    for history in sources.load(f"planted:share={share}").histories:
        check(history)


def test_longer_horizons_have_labels_too() -> None:
    data = dataset(sources.load("planted"), horizon=10)
    rows = data.rows("test")
    example = data.example(int(rows.history[0]), int(rows.index[0]))
    assert example.horizon == 10
    assert (example.outcome_day - example.as_of).days == 14

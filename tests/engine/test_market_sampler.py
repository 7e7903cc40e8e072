"""Samples are spread, balanced where asked, and reproducible by index."""

from collections import Counter

import numpy as np
import pytest

from engine.errors import UserError
from engine.market import demo
from engine.market.dataset import Dataset, Rows
from engine.market.sampler import Shuffled, balanced, natural, over_time, spread


@pytest.fixture(scope="module")
def rows() -> Rows:
    market = Dataset(
        demo.load(), window=10, horizon=1, train_share=0.7, validation_share=0.15, embargo=5
    )
    return market.rows("train")


def of_sides(up: list[bool]) -> Rows:
    count = len(up)
    day = np.datetime64("2012-01-01") + np.arange(count)
    return Rows(np.zeros(count, np.intp), np.arange(count), day, np.array(up, dtype=np.bool_))


@pytest.mark.parametrize(("total", "count"), [(10, 10), (10, 7), (10, 20), (1000, 3), (0, 5)])
def test_a_spread_takes_distinct_positions_from_equal_parts(total: int, count: int) -> None:
    chosen = spread(total, count, np.random.default_rng(1))
    assert len(chosen) == min(total, count)
    assert len(set(chosen.tolist())) == len(chosen)
    for part, position in enumerate(chosen):
        assert part * total // len(chosen) <= position < (part + 1) * total // len(chosen)


@pytest.mark.parametrize("limit", [2, 100, 2000, 10**6])
def test_a_balanced_sample_has_as_many_up_as_down(rows: Rows, limit: int) -> None:
    chosen = rows.take(balanced(rows, limit, seed=7))
    assert chosen.up.sum() * 2 == len(chosen)
    assert len(chosen) == min(limit, 2 * min(rows.up.sum(), (~rows.up).sum()))


def test_an_odd_limit_is_not_exceeded() -> None:
    assert len(balanced(of_sides([True, False] * 5), 7, seed=1)) == 6


def test_a_sample_is_spread_over_tickers_and_time(rows: Rows) -> None:
    chosen = rows.take(balanced(rows, 400, seed=7))
    for values, of_all in (
        (chosen.history, rows.history),
        (chosen.day.astype("datetime64[Y]"), rows.day.astype("datetime64[Y]")),
    ):
        shares = Counter((of_all).tolist())
        sampled = Counter(values.tolist())
        for group, count in shares.items():
            assert sampled[group] / 400 == pytest.approx(count / len(rows), abs=0.05)


def test_one_side_alone_cannot_be_balanced() -> None:
    with pytest.raises(UserError, match="cannot balance 3 UP and 0 DOWN"):
        balanced(of_sides([True] * 3), 10, seed=1)


def test_nothing_cannot_be_sampled() -> None:
    with pytest.raises(UserError, match="no training examples"):
        natural(of_sides([]), 10, seed=1)


def test_a_natural_sample_keeps_the_share_of_the_market() -> None:
    rows = of_sides([True, True, True, False] * 500)
    chosen = rows.take(natural(rows, 400, seed=3))
    assert len(chosen) == 400
    assert chosen.up.mean() == pytest.approx(0.75, abs=0.06)


def test_a_sample_over_time_is_fixed_by_its_seed(rows: Rows) -> None:
    first, again = (rows.take(over_time(rows, 60, seed=7)) for _ in range(2))
    other = rows.take(over_time(rows, 60, seed=8))
    assert first.index.tolist() == again.index.tolist() != other.index.tolist()
    assert (np.diff(first.day).astype(int) >= 0).all()
    assert len(set(first.day.tolist())) > 50
    assert len(set(first.history.tolist())) == 4


def test_every_epoch_draws_every_member_once_in_its_own_order() -> None:
    order = Shuffled(range(50), seed=7)
    epochs = [[order.draw(epoch * 50 + at) for at in range(50)] for epoch in range(3)]
    assert all(sorted(epoch) == list(range(50)) for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) == 3


def test_a_draw_depends_on_its_index_alone() -> None:
    forward = [Shuffled(range(50), seed=7).draw(index) for index in range(120)]
    order = Shuffled(range(50), seed=7)
    backward = [order.draw(index) for index in reversed(range(120))]
    assert backward[::-1] == forward
    assert [Shuffled(range(50), seed=8).draw(index) for index in range(120)] != forward


def test_every_round_of_draws_takes_one_of_each_block_in_random_order() -> None:
    order = Shuffled(range(100), seed=7, blocks=2)
    pairs = [(order.draw(index), order.draw(index + 1)) for index in range(0, 200, 2)]
    assert all((first < 50) != (second < 50) for first, second in pairs)
    assert {first < 50 for first, _ in pairs} == {True, False}
    assert sorted(order.draw(index) for index in range(100)) == list(range(100))
    assert sorted(order.draw(index) for index in range(100, 200)) == list(range(100))

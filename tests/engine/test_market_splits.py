"""Splits are cut by date, and no horizon crosses a border."""

import numpy as np
import pytest

from engine.config import DataConfig
from engine.errors import UserError
from engine.market import demo
from engine.market.dataset import Dataset
from engine.market.splits import SPLIT_NAMES, Span, TrainWindow, chronological

CALENDAR = np.datetime64("2012-01-01") + np.arange(100)


def ends(spans: dict[str, Span]) -> dict[str, list[int]]:
    """First and last as-of day of each split, as positions in ``CALENDAR``."""
    return {
        name: [int((day - CALENDAR[0]).astype(int)) for day in (span.first, span.last)]
        for name, span in spans.items()
    }


def test_the_borders_by_hand() -> None:
    # 100 days: borders at day 70 and 85; 5 days before each belong to no split.
    spans = chronological(CALENDAR, train_share=0.7, validation_share=0.15, embargo=5)
    assert ends(spans) == {"train": [0, 64], "validation": [70, 79], "test": [85, 99]}


@pytest.mark.parametrize(("horizon", "embargo"), [(1, 1), (1, 5), (10, 10)])
def test_no_horizon_crosses_a_border_and_no_row_is_shared(horizon: int, embargo: int) -> None:
    market = Dataset(
        demo.load(),
        window=10,
        horizon=horizon,
        train_share=0.7,
        validation_share=0.15,
        embargo=embargo,
    )
    calendar = np.unique(np.concatenate([history.days for history in market.histories]))
    seen: set[tuple[int, int]] = set()
    last_outcome = np.datetime64("1900-01-01")
    for split in SPLIT_NAMES:
        rows = market.rows(split)
        assert len(rows) > 500
        keys = set(zip(rows.history.tolist(), rows.index.tolist(), strict=True))
        assert not keys & seen
        seen |= keys
        assert rows.day.min() > last_outcome
        last_outcome = max(
            market.histories[history].days[index + horizon] for history, index in keys
        )
    for earlier, later in (("train", "validation"), ("validation", "test")):
        left = int(np.searchsorted(calendar, market.spans[earlier].last))
        right = int(np.searchsorted(calendar, market.spans[later].first))
        assert right - left - 1 == embargo


def test_a_ticker_that_skips_days_cannot_carry_a_label_across_a_border() -> None:
    span = chronological(CALENDAR, train_share=0.7, validation_share=0.15, embargo=1)["train"]
    as_of = CALENDAR[[68, 68]]
    assert span.holds(as_of, CALENDAR[[69, 70]]).tolist() == [True, False]


def test_a_calendar_too_short_for_the_splits_is_refused() -> None:
    with pytest.raises(UserError, match="30 trading days are too few"):
        chronological(CALENDAR[:30], train_share=0.7, validation_share=0.15, embargo=5)


def fold(number: int, folds: int = 3, train_window: TrainWindow = "expanding") -> dict[str, Span]:
    return chronological(
        CALENDAR,
        train_share=0.5,
        validation_share=0.2,
        embargo=2,
        horizon=2,
        folds=folds,
        fold=number,
        train_window=train_window,
    )


def test_expanding_folds_by_hand() -> None:
    # 50 days of training, 20 of validation, 30 of test in three blocks of 10.
    assert [ends(fold(number)) for number in (1, 2, 3)] == [
        {"train": [0, 47], "validation": [50, 67], "test": [70, 79]},
        {"train": [0, 57], "validation": [60, 77], "test": [80, 89]},
        {"train": [0, 67], "validation": [70, 87], "test": [90, 99]},
    ]


def test_sliding_folds_forget_the_oldest_days() -> None:
    assert [ends(fold(number, train_window="sliding"))["train"] for number in (1, 2, 3)] == [
        [0, 47],
        [10, 57],
        [20, 67],
    ]


@pytest.mark.parametrize("folds", [1, 2, 3, 7, 30])
def test_the_tests_of_all_folds_cover_the_test_part_once(folds: int) -> None:
    tested: list[int] = []
    for number in range(1, folds + 1):
        first, last = ends(fold(number, folds))["test"]
        tested += range(first, last + 1)
    assert tested == list(range(70, 100))


@pytest.mark.parametrize("train_window", ["expanding", "sliding"])
def test_every_fold_learns_from_earlier_days_alone(train_window: TrainWindow) -> None:
    for number in range(1, 8):
        spans = fold(number, 7, train_window)
        train, validation, test = (spans[name] for name in SPLIT_NAMES)
        assert train.last < validation.first <= validation.last < test.first
        assert train.border == validation.first
        assert validation.border == test.first


def test_more_folds_than_test_days_are_refused() -> None:
    with pytest.raises(UserError, match=r"too few for three splits .* in 31 folds"):
        fold(1, folds=31)


def test_an_embargo_below_the_horizon_is_refused() -> None:
    with pytest.raises(UserError, match="an embargo of 4 days is shorter than the horizon of 5"):
        chronological(CALENDAR, train_share=0.7, validation_share=0.15, embargo=4, horizon=5)


def test_a_configuration_names_a_fold_that_exists() -> None:
    assert DataConfig(folds=3, fold=3).fold == 3
    with pytest.raises(ValueError, match="fold must be at most folds, 3"):
        DataConfig(folds=3, fold=4)

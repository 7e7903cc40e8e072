"""Splits are cut by date, and no horizon crosses a border."""

import numpy as np
import pytest

from engine.errors import UserError
from engine.market import demo
from engine.market.dataset import Dataset
from engine.market.splits import SPLIT_NAMES, chronological


def test_the_borders_by_hand() -> None:
    # 100 days: borders at day 70 and 85; 5 days before each belong to no split.
    calendar = np.datetime64("2012-01-01") + np.arange(100)
    spans = chronological(calendar, train_share=0.7, validation_share=0.15, embargo=5)
    ends = {
        name: [int((day - calendar[0]).astype(int)) for day in (span.first, span.last)]
        for name, span in spans.items()
    }
    assert ends == {"train": [0, 64], "validation": [70, 79], "test": [85, 99]}


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
    calendar = np.datetime64("2012-01-01") + np.arange(100)
    span = chronological(calendar, train_share=0.7, validation_share=0.15, embargo=1)["train"]
    as_of = calendar[[68, 68]]
    assert span.holds(as_of, calendar[[69, 70]]).tolist() == [True, False]


def test_a_calendar_too_short_for_the_splits_is_refused() -> None:
    calendar = np.datetime64("2012-01-01") + np.arange(30)
    with pytest.raises(UserError, match="30 trading days are too few"):
        chronological(calendar, train_share=0.7, validation_share=0.15, embargo=5)

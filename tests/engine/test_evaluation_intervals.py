"""Intervals against published values."""

import pytest

from engine.evaluation.intervals import wilson


def test_wilson_by_hand() -> None:
    # 8 of 10, z = 1.95996: centre (0.8 + 0.19207)/1.38415 = 0.71674,
    # half 1.95996·√(0.016 + 0.0096036)/1.38415 = 0.22658 (Newcombe's tables: .490 to .943)
    assert wilson(8, 10) == pytest.approx((0.49016, 0.94332), abs=1e-5)


def test_wilson_stays_inside_the_unit_interval() -> None:
    assert wilson(0, 20) == pytest.approx((0.0, 0.16113), abs=1e-5)
    assert wilson(20, 20) == pytest.approx((0.83887, 1.0), abs=1e-5)
    assert wilson(1, 1)[1] == 1


def test_a_higher_level_is_wider() -> None:
    low, high = wilson(60, 100)
    lower, higher = wilson(60, 100, level=0.99)
    assert lower < low < 0.6 < high < higher

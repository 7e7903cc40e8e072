"""A scaler knows training values and nothing else."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.market.scaling import Scaler


def test_a_scaler_by_hand() -> None:
    # Mean 5, squared distances 9, 1, 1, 9: their mean is 5.
    scaler = Scaler.fit(np.array([[2.0, 4.0], [6.0, 8.0]]))
    assert (scaler.mean, scaler.std) == (5, pytest.approx(5**0.5))
    assert scaler.scaled(np.array([5.0, 10.0])) == pytest.approx([0, 5**0.5])
    assert scaler.scaled_difference(np.array([5.0])) == pytest.approx([5**0.5])


def test_the_default_changes_nothing() -> None:
    values = np.array([0.1, 7.3, -2.0])
    assert Scaler().scaled(values).tolist() == values.tolist()


@given(st.lists(st.floats(0.01, 1e6), min_size=1, max_size=50), st.floats(0.01, 1e6))
def test_mean_and_deviation_lead_back(training: list[float], value: float) -> None:
    scaler = Scaler.fit(np.array(training))
    assert scaler.std > 0
    restored = scaler.scaled(np.array([value])) * scaler.std + scaler.mean
    tolerance = 1e-9 * max(value, scaler.mean)
    assert restored == pytest.approx([value], rel=1e-9, abs=tolerance)


@pytest.mark.parametrize("value", [1.0, 0.1, 0.0, 98.123456789])
def test_equal_values_keep_their_unit(value: float) -> None:
    scaler = Scaler.fit(np.full(1000, value))
    assert scaler.std == 1
    assert scaler.scaled(np.array([value + 1])) == pytest.approx([1])


@pytest.mark.parametrize("training", [[], [1.0, float("nan")], [float("inf")]])
def test_nothing_and_the_unknown_cannot_be_fitted(training: list[float]) -> None:
    with pytest.raises(ValueError, match="finite training values"):
        Scaler.fit(np.array(training))

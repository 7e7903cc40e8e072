"""A short form of the bench of faults: numbers that are not finite."""

from pathlib import Path

import pytest

from bench.fault_rows import not_finite

(ROW,) = not_finite.ROWS


@pytest.mark.parametrize("number", range(ROW.short))
def test_nothing_that_is_not_finite_is_kept(number: int, tmp_path: Path) -> None:
    assert ROW.trial(number, tmp_path).problem == ""

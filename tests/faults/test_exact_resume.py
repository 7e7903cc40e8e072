"""A short form of the bench of faults: a run that is resumed takes the very steps."""

from pathlib import Path

import pytest

from bench.fault_rows import exact_resume

(ROW,) = exact_resume.ROWS


@pytest.mark.parametrize("number", range(ROW.short))
def test_a_resumed_run_is_equal_in_every_value_and_takes_the_very_steps(
    number: int, tmp_path: Path
) -> None:
    assert ROW.trial(number, tmp_path).problem == ""

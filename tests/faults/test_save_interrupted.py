"""A short form of the bench of faults: a save that is killed or refused half-way."""

from pathlib import Path

import pytest

from bench.fault_rows import save_interrupted

(ROW,) = save_interrupted.ROWS


@pytest.mark.parametrize("number", range(ROW.short))
def test_the_old_checkpoint_or_the_new_one_is_valid_wherever_a_save_ends(
    number: int, tmp_path: Path
) -> None:
    assert ROW.trial(number, tmp_path).problem == ""

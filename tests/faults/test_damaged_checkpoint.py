"""A short form of the bench of faults: checkpoints that are not what was written."""

from pathlib import Path

import pytest

from bench.fault_rows import damaged_checkpoint

(ROW,) = damaged_checkpoint.ROWS


@pytest.mark.parametrize("number", range(ROW.short))
def test_a_damaged_checkpoint_is_found_named_and_fallen_back_from(
    number: int, tmp_path: Path
) -> None:
    assert ROW.trial(number, tmp_path).problem == ""

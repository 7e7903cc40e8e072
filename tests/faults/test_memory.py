"""A short form of the bench of faults: memory that runs out."""

from pathlib import Path

import pytest

from bench.fault_rows import memory

(ROW,) = memory.ROWS


@pytest.mark.parametrize("number", range(ROW.short))
def test_a_run_recovers_from_a_lack_of_memory(number: int, tmp_path: Path) -> None:
    assert ROW.trial(number, tmp_path).problem == ""

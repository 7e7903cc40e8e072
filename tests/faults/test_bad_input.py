"""The short form of the row about files that are wrong in every way."""

from pathlib import Path

import pytest

from bench.fault_rows import bad_input
from bench.fault_rows.bad_input import ROWS

(BAD_INPUT,) = ROWS


def test_spoilt_files_are_refused_in_one_line(tmp_path: Path) -> None:
    for number in range(0, BAD_INPUT.short, BAD_INPUT.batch):
        assert BAD_INPUT.trial(number, tmp_path).problem == ""


@pytest.mark.parametrize("name", bad_input.KINDS)
def test_good_files_are_taken(name: str, tmp_path: Path) -> None:
    """Else the row would say nothing: whatever is wrong with them would be refused as before."""
    bad_input._make(tmp_path)
    done = bad_input.KINDS[name].command(tmp_path)
    assert done.code == 0, done.err

"""A short form of the bench of faults: a disk that fills up."""

from pathlib import Path

import pytest

from bench.fault_rows import disk_full, small_disk

(ROW,) = disk_full.ROWS


@pytest.mark.parametrize("number", range(ROW.short))
def test_a_full_disk_pauses_the_run_until_there_is_space(number: int, tmp_path: Path) -> None:
    assert ROW.trial(number, tmp_path).problem == ""


def test_the_same_where_no_disk_may_be_mounted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(small_disk.os, "geteuid", lambda: 1000)
    assert ROW.trial(2, tmp_path).problem == ""

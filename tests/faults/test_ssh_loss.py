"""Lost connections: the short form of the bench's row."""

from pathlib import Path

import pytest

from bench.fault_rows import ssh_loss

(ROW,) = ssh_loss.ROWS


@pytest.mark.slow
@pytest.mark.parametrize("number", range(ROW.short), ids=ssh_loss.WAYS)
def test_lost_connection_ends_the_cockpit_and_not_the_run(number: int, tmp_path: Path) -> None:
    assert ROW.trial(number, tmp_path).problem == ""

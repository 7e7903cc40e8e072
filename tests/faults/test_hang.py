"""A short form of the bench of faults: a loop that hangs."""

from pathlib import Path

import pytest

from bench.fault_rows import hang
from bench.fault_rows.tiny_session import TinySession
from engine.training.watchdog import Watchdog

(ROW,) = hang.ROWS


@pytest.mark.parametrize("number", range(ROW.short))
def test_a_hang_is_found_in_time_with_stacks_and_the_run_goes_on(
    number: int, tmp_path: Path
) -> None:
    assert ROW.trial(number, tmp_path).problem == ""


def test_a_run_that_works_raises_no_alarm(tmp_path: Path) -> None:
    session = TinySession(tmp_path)
    told: list[dict[str, object]] = []
    # Forgiving: a tenth of it is what a starved machine has to give the thread.
    with Watchdog(session.training.heartbeat, session.run.path, told.append, least=5.0):
        assert session.train() == "all 4 steps done"
    assert told == []

"""Killed cockpits: the short form of the bench's row, and its judgement of step times."""

from pathlib import Path

import pytest

from bench.fault_rows import kill_cockpit

(ROW,) = kill_cockpit.ROWS


@pytest.mark.slow
@pytest.mark.parametrize("number", range(ROW.short))
def test_killed_cockpit_changes_nothing_for_the_worker(number: int, tmp_path: Path) -> None:
    assert ROW.trial(number, tmp_path).problem == ""


def test_steps_are_found_to_take_longer_where_they_do() -> None:
    noisy = [0.7, 0.9, 0.95, 1.0, 1.0, 1.05, 1.1, 1.2, 1.3, 1.5]
    assert kill_cockpit.verdict({"step median ratio": noisy, "longest step ratio": noisy}) == ""
    longer = [1.2 * ratio for ratio in sorted([1.0] * 90 + noisy)]
    problem = kill_cockpit.verdict({"step median ratio": noisy, "longest step ratio": longer})
    assert problem == "longest step ratio: 1.200 or more at 95 %"


def test_interval_of_a_median_comes_from_the_order_of_the_values() -> None:
    # Of 100 values the 95 % interval of the median begins with the 41st.
    assert kill_cockpit._median_at_least([*range(1, 101)]) == 41
    assert kill_cockpit._median_at_least([3.0]) == 3.0

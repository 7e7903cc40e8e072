"""A long watch: 2,000 events in some seconds, and how growth is found."""

from pathlib import Path

import pytest

from bench.fault_rows import soak


@pytest.mark.slow
def test_two_thousand_events_are_watched_without_a_growing_log(tmp_path: Path) -> None:
    outcome = soak.soak(tmp_path, seconds=5.0, pace=400.0)
    assert outcome.problem == ""
    assert outcome.figures["events a second"] * 5 > 1900


def test_growth_is_the_slope_after_the_first_sixth() -> None:
    samples = [(float(second), 100.0 if second < 10 else 80.0 + second / 2) for second in range(60)]
    assert soak._slope(samples) == pytest.approx(0.5)
    assert soak._course(samples) == [100.0, 87.25, 92.25, 97.25, 102.25, 107.25]

"""The bench of faults itself: what it makes of trials, and the page that shows it."""

import json
from pathlib import Path
from typing import Any

import pytest

from bench import faults
from bench.fault_rows.row import Outcome, Row, bound

ROOT = Path(__file__).resolve().parents[2]


def _row(trial: Any, **changes: Any) -> Row:
    return Row(**({"name": "a", "passes": "b", "trials": 3, "short": 1, "trial": trial} | changes))


@pytest.mark.parametrize(
    ("failures", "trials", "words"),
    [
        (0, 200, "at most 1.5 % fail, at 95 %"),
        (0, 100_000, "at most 0.003 % fail, at 95 %"),
        (0, 1, "at most 100 % fail, at 95 %"),
        (1, 200, "1 of 200 failed"),
    ],
)
def test_trials_give_a_bound_and_no_more(failures: int, trials: int, words: str) -> None:
    assert bound(failures, trials) == words


def test_trials_go_on_where_they_were_left() -> None:
    made: list[int] = []

    def trial(number: int, folder: Path) -> Outcome:
        made.append(number)
        assert not list(folder.iterdir())
        return Outcome("broken" if number == 1 else "", {"seconds": number})

    saved: list[dict[str, Any]] = []
    first = faults.make(_row(trial), 2, {}, saved.append)
    done = faults.make(_row(trial), 4, first, saved.append)
    assert made == [0, 1, 2, 3]
    assert done == saved[-1]
    assert done["failures"] == [{"trial": 1, "problem": "broken"}]
    assert done["figures"] == {"seconds": [0, 1, 2, 3]}


def test_trial_that_waits_in_vain_is_a_failure_and_not_the_end() -> None:
    def trial(number: int, folder: Path) -> Outcome:
        raise TimeoutError("waited for 90 s in vain")

    done = faults.make(_row(trial), 2, {}, lambda done: None)
    assert [failure["trial"] for failure in done["failures"]] == [0, 1]


def test_table_says_what_is_known_of_each_row(tmp_path: Path) -> None:
    rows = {name: _row(None, name=name) for name in ("new", "half", "whole")}
    for name, trials, failures in (("half", 2, [{}]), ("whole", 3, [])):
        done = {"trials": trials, "failures": failures}
        (tmp_path / f"{name}.json").write_text(json.dumps(done))
    assert faults.table(rows, tmp_path).splitlines()[2:] == [
        "| `new` | b | not run yet |",
        "| `half` | b | 1 of 2 passed (of 3): 1 of 2 failed |",
        "| `whole` | b | 3 of 3 passed: at most 100 % fail, at 95 % |",
    ]


def test_page_shows_the_results_that_there_are() -> None:
    """``python bench/faults.py --table`` writes it."""
    page = faults.PAGE.read_text(encoding="utf-8")
    made = faults.table(faults.rows(), ROOT / faults.RESULTS)
    assert faults.put_table(page, made) == page

"""Evaluations in a run's history: each by its newest word, and a line of the log for each event."""

from collections.abc import Mapping
from typing import Any

import pytest

from engine.runs.history import History
from engine.runs.reader import Event

BEGUN: dict[str, Any] = {
    "id": "c1",
    "state": "begun",
    "folder": "20261120-170000-test",
    "checkpoints": ["base", "step-000050"],
    "split": "test",
    "total": 2000,
}
DONE: dict[str, Any] = {
    **BEGUN,
    "state": "done",
    "verdicts": {"base": "no evidence", "step-000050": "weak"},
    "accuracy": {
        "base": {"value": 0.34, "low": 0.31, "high": 0.37, "n": 1000},
        "step-000050": {"value": 0.5612, "low": 0.53, "high": 0.59, "n": 1000},
    },
    "baseline": {"name": "always UP", "value": 0.53},
}


def _history(*events: tuple[str, Mapping[str, Any]]) -> History:
    history = History()
    history.apply(
        Event(seq=number, attempt=1, time=100.0 + number, kind=kind, step=7, payload=payload)
        for number, (kind, payload) in enumerate(events, 1)
    )
    return history


def test_an_evaluation_is_known_by_its_newest_word() -> None:
    other = {**BEGUN, "id": "c2", "state": "failed", "message": "out of memory"}
    history = _history(("evaluation", BEGUN), ("evaluation", other), ("evaluation", DONE))
    assert [(one["id"], one["state"]) for one in history.evaluations] == [
        ("c2", "failed"),
        ("c1", "done"),
    ]
    assert history.evaluations[1]["begun"] == 101.0
    assert history.evaluations[1]["time"] == 103.0


@pytest.mark.parametrize(
    ("payload", "level", "text"),
    [
        (BEGUN, "info", "evaluation of base, step-000050 on test begins, 2000 predictions"),
        (
            DONE,
            "info",
            "evaluated on test: step-000050 weak, 56 % right [53, 59] n=1000; always UP 53 %",
        ),
        ({**DONE, "verdicts": {"base": "strong"}, "accuracy": {}, "baseline": None}, "good", None),
        ({**DONE, "verdicts": {"a": "strong", "b": "suspect leakage"}}, "warning", None),
        (
            {"id": "x", "state": "failed", "message": "disk full"},
            "error",
            "evaluation failed: disk full",
        ),
        (
            {"id": "x", "state": "stopped", "split": "test"},
            "warning",
            "evaluation on test stopped; what was predicted is kept",
        ),
        ({"id": "x", "state": "done"}, "info", "evaluated"),
        ({"id": "x", "state": "begun", "total": True, "checkpoints": 3}, "info", None),
    ],
)
def test_each_event_has_a_line(payload: Mapping[str, Any], level: str, text: str | None) -> None:
    (entry,) = _history(("evaluation", payload)).log
    assert entry.level == level
    assert text is None or entry.text == text


def test_base_alone_has_its_own_figures_in_the_line() -> None:
    alone = {**DONE, "verdicts": {"base": "no evidence"}, "accuracy": {"base": BASE}}
    (entry,) = _history(("evaluation", alone)).log
    assert "base no evidence, 34 % right [31, 37] n=1000" in entry.text


BASE = DONE["accuracy"]["base"]


def test_one_whose_command_was_answered_for_by_a_later_worker_runs_no_more() -> None:
    answer = {"id": "c1", "verb": "evaluate", "ok": False, "message": "the worker ended"}
    history = _history(("evaluation", BEGUN), ("command", {**answer, "id": "c9"}))
    assert history.evaluations[0]["state"] == "begun"
    history = _history(("evaluation", BEGUN), ("command", answer))
    assert history.evaluations[0]["state"] == "stopped"
    assert history.evaluations[0]["message"] == "the worker ended"
    # What said more itself keeps it.
    history = _history(("evaluation", DONE), ("command", answer))
    assert history.evaluations[0]["state"] == "done"

"""An accuracy that looks too good on real prices makes the evaluation look for leaks."""

import json
from pathlib import Path
from typing import Any

import pytest

from engine.evaluation import context as contexts
from engine.evaluation import finish
from engine.evaluation.asked import Asked
from engine.evaluation.preparation import Prepared
from engine.evaluation.store import PredictionStore
from engine.market import leakage
from engine.rewards.choice import resolve
from tests import evaluations

NUM_EXAMPLES = 80


def predict(tmp_path: Path, share: float) -> Prepared:
    """A whole evaluation in which the trained checkpoint is right in ``share`` of the examples."""
    run = evaluations.make_run(tmp_path)
    begun = evaluations.begin(run, "step-2", examples=NUM_EXAMPLES)
    config = run.config()
    reward = resolve(config.reward)
    predictions = PredictionStore(begun.folder)
    for checkpoint in begun.context.checkpoints:
        batch = []
        for number, row in enumerate(predictions.examples()):
            right = checkpoint.label != "base" and number < share * NUM_EXAMPLES
            side = "UP" if row.actual_up == right else "DOWN"
            answer = f"<think>So.</think><answer>{side} 1.0% confidence 60%</answer>"
            batch.append(
                Asked.stored(row, config).judged(
                    checkpoint,
                    sample=0,
                    seed=0,
                    prompt="?",
                    completion=answer,
                    finished=True,
                    reward=reward,
                )
            )
        predictions.append(batch, 1.0)
    predictions.close()
    return begun


def report(begun: Prepared) -> dict[str, Any]:
    finish.finish(begun.folder)
    written: dict[str, Any] = json.loads((begun.folder / "report.json").read_text())
    return written


def test_sixty_percent_asks_for_no_search(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(leakage, "audit", lambda subject: pytest.fail("it was searched"))
    monkeypatch.setattr(finish, "_report", lambda folder: ({}, {}))
    begun = predict(tmp_path, 0.6)
    finish.finish(begun.folder)
    assert contexts.read(begun.folder).leakage is None


def test_above_sixty_percent_the_real_suite_runs_on_the_source(tmp_path: Path) -> None:
    begun = predict(tmp_path, 0.65)
    written = report(begun)
    assert written["context"]["leakage"] == {"green": True, "failed": []}
    assert written["verdicts"]["step-000002"]["word"] != "suspect leakage"
    assert "leakage suite" in (begun.folder / "report.md").read_text(encoding="utf-8")


def test_a_leak_that_is_found_then_is_the_verdict(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun = predict(tmp_path, 0.65)

    class Found:
        red = ("prompt_text",)

    monkeypatch.setattr(leakage, "audit", lambda subject: Found)
    written = report(begun)
    assert written["verdicts"]["step-000002"]["word"] == "suspect leakage"
    assert "prompt_text" in written["verdicts"]["step-000002"]["reasons"][0]

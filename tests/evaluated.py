"""Made-up evaluations in a run's folder, true to the form of a real one's files."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from engine.runs.directory import RunDirectory
from engine.runs.store import EventStore
from tests import recorded

TRAINED = "step-000050"
RIGHT = {"base": 0.482, TRAINED: 0.561, "step-000100": 0.548}
ID = "20251120-010000-test"
"""Shortly after a recorded run began."""


def value(middle: float | None, half: float = 0.03, n: int = 1000, why: str = "") -> dict[str, Any]:
    """A figure with its interval, or why there is none."""
    if middle is None:
        return {"value": None, "low": None, "high": None, "n": n, "why": why}
    ends = {"low": round(middle - half, 4), "high": round(middle + half, 4)}
    return {"value": middle, **ends, "n": n, "why": None}


def context(
    labels: tuple[str, ...] = ("base", TRAINED),
    *,
    identifier: str = ID,
    split: str = "test",
    source: str = "demo",
    **more: Any,
) -> dict[str, Any]:
    """What ``evaluation.json`` holds."""
    request = {
        "checkpoints": [label for label in labels if label != "base"] or ["base"],
        "source": source,
        "split": split,
    }
    return {
        "id": identifier,
        "source": source,
        "is_synthetic": False,
        "split": split,
        "samples": 1,
        "temperature": 0.0,
        "seed": 0,
        "checkpoints": [{"label": label, "hash": "0" * 64} for label in labels],
        "base_model": "smollm2-135m",
        "dates": ["2011-01-03", "2012-12-31"],
        "num_examples": 1000,
        "train_dates": ["2000-01-03", "2008-12-30"],
        "overlaps_training": False,
        "touches": 3,
        "trials": 4,
        "leakage": None,
        "seconds": 400.0,
        "finished": "2025-11-20T01:07:00Z",
        "request": request,
        **more,
    }


def report(
    labels: tuple[str, ...] = ("base", TRAINED),
    *,
    words: Mapping[str, str] | None = None,
    **about: Any,
) -> dict[str, Any]:
    """What ``report.json`` holds."""
    words = words or {label: "no evidence" if label == "base" else "weak" for label in labels}
    return {
        "context": context(labels, **about),
        "summary": {
            "draws": 10_000,
            "examples": 1000,
            "days": 250,
            "horizon": 1,
            "checkpoints": {label: _measured(label) for label in labels},
            "comparisons": [
                {
                    "first": first,
                    "second": second,
                    "accuracy": value(round(_right(first) - _right(second), 4)),
                    "mcnemar": {"value": 4.1, "p": 0.043, "p_holm": 0.129, "n": 1000, "why": None},
                    "diebold_mariano": {"value": -1.2, "p": 0.23, "p_holm": 0.46, "n": 250},
                }
                for number, first in enumerate(labels)
                for second in labels[number + 1 :]
            ],
        },
        "verdicts": {
            label: {
                "word": words[label],
                "reasons": [
                    f"Right in {_right(label):.1%} of 1,000 rows on 250 days; always UP in 53.1%.",
                    "It is not clearly better than the logistic regression on the same rows.",
                ],
            }
            for label in labels
        },
        "backtest": {
            "cost_bps": 5.0,
            "headline": "long_short/open",
            "why": None,
            "checkpoints": {label: _tested() for label in labels},
        },
    }


def hostile(text: str) -> dict[str, Any]:
    """A report in which every text, and every name of a checkpoint, is ``text``."""
    whole = report(("base", TRAINED), is_synthetic=True, leakage={"green": False, "failed": [text]})
    return json.loads(
        json.dumps(_replaced(whole, text)),
        object_pairs_hook=lambda pairs: {
            text if key == TRAINED else key: one for key, one in pairs
        },
    )


def _replaced(value: Any, text: str) -> Any:
    if isinstance(value, dict):
        return {key: _replaced(one, text) for key, one in value.items()}
    if isinstance(value, list):
        return [_replaced(one, text) for one in value]
    return text if isinstance(value, str) else value


def write(
    run: RunDirectory,
    contents: Mapping[str, Any] | None = None,
    *,
    about: Mapping[str, Any] | None = None,
    identifier: str = ID,
) -> Path:
    """The folder of an evaluation; without ``contents`` it has no report."""
    folder = run.path / "evaluation" / identifier
    folder.mkdir(parents=True)
    told = about or (contents or {}).get("context") or context()
    (folder / "evaluation.json").write_text(json.dumps(told))
    if contents is not None:
        (folder / "report.json").write_text(json.dumps(contents))
    return folder


def event(state: str, **more: Any) -> dict[str, Any]:
    """The payload of an event ``evaluation``."""
    return {
        "id": "c1",
        "state": state,
        "folder": ID,
        "checkpoints": ["base", TRAINED],
        "source": "demo",
        "split": "test",
        "total": 2000,
        "message": "",
        **more,
    }


def draft(done: int = 1200) -> dict[str, Any]:
    """How far one is: the base model first."""
    base, trained = min(done, 1000), max(0, done - 1000)
    return {
        "evaluation": ID,
        "checkpoint": TRAINED if trained else "base",
        "number": 1 if trained else 0,
        "of": 2,
        "done": done,
        "total": 2000,
        "seconds": 60.0,
        "eta_seconds": 40.0,
        "per_checkpoint": {
            "base": {"done": base, "read": base // 2, "right": base // 3},
            TRAINED: {"done": trained, "read": trained, "right": trained * 11 // 20},
        },
        "baseline": {"name": "always_up", "value": 0.531},
    }


def begin(recording: recorded.Recording, *, done: int | None = 1200) -> EventStore:
    """Let the living worker of ``recording`` be at an evaluation; its store, to be closed."""
    store = EventStore(recording.run.database, begins_attempt=False)
    store.event("state", {"state": "evaluating", "detail": "evaluating, and training waits"})
    store.event("evaluation", event("begun"))
    if done is not None:
        store.draft("c1", draft(done))
    store.flush()
    return store


def _right(label: str) -> float:
    return RIGHT.get(label, 0.55)


def _measured(label: str) -> dict[str, Any]:
    right = _right(label)
    is_base = label == "base"
    unknown = value(None, n=0, why="no answer states a confidence")
    baselines = {"always_up": 0.531, "always_down": 0.469, "momentum": 0.49, "reversal": 0.508}
    if not is_base:
        baselines["base_model"] = RIGHT["base"]
    figures: dict[str, Any] = {
        "n": 1000,
        "days": 250,
        "samples": 1000,
        "accuracy": value(right),
        "majority": "always_up",
        "baselines": {
            name: {"accuracy": value(share), "difference": value(round(right - share, 4))}
            for name, share in baselines.items()
        },
        "balanced_accuracy": value(right - 0.004),
        "mcc": value(0.11 if not is_base else -0.03, 0.06),
        "roc_auc": unknown if is_base else value(0.566),
        "pesaran_timmermann": {"value": 1.9, "p": 0.028, "n": 1000, "why": None},
        "within_day": {"value": 0.01, "p": 0.21, "n": 1000, "why": None},
        "sides": {
            "actual_up": value(0.61, n=531),
            "actual_down": value(0.5, n=469),
            "called_up": value(0.57, n=560),
            "called_down": value(0.54, n=440),
        },
        "up_share": {"market": value(0.531), "calls": value(0.56)},
        "years": {"2011": value(right + 0.01, 0.05, 500), "2012": value(right - 0.01, 0.05, 500)},
        "brier": {
            "score": unknown if is_base else value(0.247, 0.004),
            "base_rate": value(0.249, 0.001),
            "skill": unknown if is_base else value(0.008, 0.015),
        },
        "log_loss": {"score": unknown if is_base else value(0.69, 0.01)},
        "calibration": {
            "ece": unknown if is_base else value(0.06, 0.02),
            "ece_by_chance": unknown if is_base else {**value(0.03), "low": None, "high": None},
            "bins": []
            if is_base
            else [
                {**value(share, 0.06, 250), "confidence": stated}
                for stated, share in ((0.52, 0.5), (0.58, 0.55), (0.66, 0.58), (0.78, 0.61))
            ],
        },
        "magnitude": {"error": value(1.31, 0.1), "persistence": value(1.12, 0.09)},
        "parsed": value(0.51 if is_base else 1.0, 0.02 if is_base else 0.0),
        "truncated": value(0.2 if is_base else 0.001, 0.02 if is_base else 0.001),
        "rewards": {"reward": value(0.21 if is_base else 0.55), "rubric/reasoning": value(0.31)},
    }
    return figures


def _tested() -> dict[str, Any]:
    account = {
        "sharpe": value(0.61, 0.9, 480),
        "probabilistic_sharpe": value(0.79, 0.0, 480),
        "deflated_sharpe": value(0.32, 0.0, 480),
        "total_return": value(0.08, 0.0, 480),
        "total_return_without_fees": value(0.15, 0.0, 480),
        "max_drawdown": value(-0.11, 0.0, 480),
        "win_rate": value(0.53, 0.04, 300),
        "profit_factor": value(1.08, 0.0, 480),
        "turnover": value(0.31, 0.0, 480),
        "exposure": value(0.24, 0.0, 480),
    }
    for name, one in account.items():
        if name not in ("sharpe", "win_rate"):
            one |= {"low": None, "high": None}
    missing = value(None, n=480, why="trials are logged by the Sharpe ratio of long_short/open")
    return {
        "num_days": {"open": 481, "close": 481},
        "portfolios": {
            "long_short/open": account,
            "long_flat/open": {**account, "deflated_sharpe": missing},
        },
        "buy_and_hold": {"open": {**account, "deflated_sharpe": missing}},
        "trial_sharpe": 0.03,
    }

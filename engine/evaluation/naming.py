"""What a report calls its checkpoints, baselines, portfolios and files."""

from collections.abc import Mapping
from typing import Any

from engine.runs.checkpoint_names import BASE

Report = Mapping[str, Any]
"""The contents of ``report.json``."""

BASELINES = {
    "always_up": "always UP",
    "always_down": "always DOWN",
    "momentum": "momentum: as today",
    "reversal": "reversal: not as today",
    "logistic": "logistic regression on the indicators",
    "base_model": "untrained base model",
}
PORTFOLIOS = {
    "long_flat": "long or flat",
    "long_short": "long or short",
    "buy_and_hold": "buy and hold",
}
EXECUTIONS = {"open": "at the next open", "close": "at the as-of close (optimistic)"}


def labels(report: Report) -> list[str]:
    """Names of the checkpoints, those that training made first."""
    return sorted(report["summary"]["checkpoints"], key=lambda label: label == BASE)


def reward_name(name: str) -> str:
    """``component/data_use`` as a person writes it."""
    kind, _, rest = name.partition("/")
    words = rest.replace("_", " ")
    return {"component": words, "rubric": f"rubric: {words}"}.get(kind, "reward, total")


def file_name(report: Report, label: str) -> str:
    """The beginning of the file names of a checkpoint's figures: its number, never its label."""
    return f"checkpoint-{labels(report).index(label) + 1}"

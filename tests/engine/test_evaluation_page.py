"""The page about evaluations states the rules and explains every figure."""

import re
from pathlib import Path

import pandas as pd

from engine.evaluation import comparisons, day_blocks, probabilities, table, verdict
from engine.evaluation.summary import summarise
from tests.predictions import generated

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "evaluation.md").read_text(encoding="utf-8")
EXPLAINED = set(re.findall(r"`([\w/…]+)`", PAGE))


def names(part: object) -> set[str]:
    """Keys of a summary, at any depth, but those of a value and of tickers, years and rewards."""
    if isinstance(part, list):
        return {name for one in part for name in names(one)}
    if not isinstance(part, dict):
        return set()
    found = set(part)
    for name, inner in part.items():
        if name not in ("tickers", "years", "rewards"):
            found |= names(inner)
    return found


def test_every_figure_is_explained() -> None:
    predictions = pd.concat([generated(0.5, 1, num_days=25, checkpoint="base"), generated(0.6, 2)])
    summary = summarise(table.decisions(predictions), predictions, None, seed=1, draws=50)
    found = names(summary["comparisons"]) | names(summary["checkpoints"]["step-000040"])
    plain = {"hash", "first", "second", "value", "low", "high", "why", "p"}
    assert found - plain - EXPLAINED == set()


def test_every_column_is_explained() -> None:
    assert set(table.COLUMNS) - EXPLAINED == set()


def test_the_numbers_of_the_rules_are_those_of_the_code() -> None:
    rules = PAGE.partition("## Verdict")[2]
    for stated in (
        f"above {verdict.UNBELIEVABLE_BOUND:.0%}",
        f"above {verdict.CHANCE:.0%}",
        f"above {verdict.STRONG_BOUND:.0%}",
        f"above {verdict.SUITE_ACCURACY:.0%}",
    ):
        assert stated.replace("%", " %") in rules, stated
    assert f"under {verdict.STRONG_ROWS} rows, or under {verdict.STRONG_DAYS} days" in rules
    assert f"Under {day_blocks.MIN_DAYS} days" in PAGE
    assert f"Exact under {comparisons.EXACT_BELOW}" in PAGE
    clip = probabilities.LOG_LOSS_CLIP
    assert f"clipped to [{clip}, {1 - clip}]" in PAGE

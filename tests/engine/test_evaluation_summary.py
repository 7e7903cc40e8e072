"""The summary of an evaluation: complete, JSON-able, and honest about what is not computable."""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy.stats import ttest_1samp

from engine.errors import UserError
from engine.evaluation.comparisons import mcnemar
from engine.evaluation.summary import summarise
from engine.evaluation.table import decisions
from tests.predictions import generated


def summary_of(
    *tables: pd.DataFrame, baselines: pd.DataFrame | None = None, draws: int = 200
) -> dict[str, Any]:
    table = pd.concat(tables, ignore_index=True)
    summary = summarise(decisions(table), table, baselines, seed=1, draws=draws)
    # Through JSON without NaN, as it will be stored.
    loaded: dict[str, Any] = json.loads(json.dumps(summary, allow_nan=False))
    assert loaded == summary
    return loaded


def small(share: float = 0.6, seed: int = 1, **options: Any) -> pd.DataFrame:
    return generated(share, seed, num_days=40, num_tickers=5, **options)


def unread(table: pd.DataFrame, where: np.ndarray | slice = slice(None)) -> pd.DataFrame:
    """The table with these completions unreadable."""
    table = table.copy()
    table.loc[where, "called_up"] = None
    table.loc[where, ["percent", "confidence"]] = math.nan
    return table


def values_in(part: object) -> list[dict[str, Any]]:
    """Every value and test in a summary, at any depth."""
    if isinstance(part, list):
        return [value for one in part for value in values_in(one)]
    if not isinstance(part, dict):
        return []
    here = [part] if {"value", "n", "why"} <= set(part) else []
    return here + [value for one in part.values() for value in values_in(one)]


def test_every_value_is_one_or_says_why_it_is_not() -> None:
    tables = {
        "full": [small(checkpoint="base"), small()],
        "unread": [unread(small(checkpoint="base")), small()],
        "one class": [small().assign(actual_up=True)],
        "few days": [generated(0.6, 1, num_days=3)],
        "one row": [generated(0.6, 1, num_days=1, num_tickers=1)],
        "nothing stated": [small().assign(confidence=math.nan, percent=math.nan)],
    }
    for case in tables.values():
        values = values_in(summary_of(*case))
        assert len(values) > 50
        for value in values:
            assert (value["value"] is None) <= bool(value["why"]), value
            if value.get("low") is not None:
                assert value["low"] <= value["value"] <= value["high"]


def test_what_was_evaluated() -> None:
    summary = summary_of(small(checkpoint="base"), small(0.7, 2))
    assert summary["examples"] == 200
    assert (summary["days"], summary["first_day"]) == (40, "2015-01-05")
    assert (summary["horizon"], summary["draws"], summary["level"]) == (1, 200, 0.95)
    assert list(summary["checkpoints"]) == ["base", "step-000040"]
    assert summary["checkpoints"]["base"]["hash"] == "ab" * 32


def test_outcomes_further_ahead_are_noticed() -> None:
    table = small()
    later = np.busday_offset(table["as_of"].to_numpy(dtype="datetime64[D]"), 5).astype(str)
    assert summary_of(table.assign(label_day=later.astype(object)))["horizon"] == 5


def test_completions_are_counted_one_by_one() -> None:
    once = small()
    second = unread(once.assign(sample=1, finished=False, reward=0.0), np.arange(200) % 4 == 0)
    checkpoint = summary_of(pd.concat([once, second]))["checkpoints"]["step-000040"]
    assert (checkpoint["n"], checkpoint["samples"]) == (200, 400)
    assert checkpoint["parsed"]["value"] == pytest.approx(1 - 50 / 400)
    assert checkpoint["stated"]["value"] == pytest.approx(1 - 50 / 400)
    assert checkpoint["truncated"]["value"] == 0.5
    assert checkpoint["rewards"]["reward"]["value"] == pytest.approx(once["reward"].mean() / 2)
    assert checkpoint["rewards"]["rubric/reasoning"]["value"] == pytest.approx(0.2)
    assert list(checkpoint["rewards"]) == [
        "reward",
        "component/format",
        "component/direction",
        "rubric/total",
        "rubric/prediction",
        "rubric/reasoning",
    ]


def test_baselines_are_measured_on_the_same_rows() -> None:
    table = small(0.6, 3)
    table.loc[:9, "day_change"] = 0.0
    base = unread(small(0.5, 4, checkpoint="base"), np.arange(200) < 20)
    # The logistic regression is known on the first half, and right on all of it but the first.
    p_up = np.where(table["actual_up"], 0.6, 0.4)
    p_up[0] = 0.5
    p_up[100:] = math.nan
    logistic = pd.DataFrame({"key": table["key"], "logistic": p_up}).sample(frac=1, random_state=1)
    base[["actual_up", "day_change"]] = table[["actual_up", "day_change"]]
    checkpoint = summary_of(base, table, baselines=logistic)["checkpoints"]["step-000040"]
    up, right = table["actual_up"].to_numpy(), (table["called_up"] == table["actual_up"]).to_numpy()
    change = table["day_change"].to_numpy()
    expected = {
        "always_up": up,
        "always_down": ~up,
        "momentum": np.where(up, change > 0, change < 0),
        "reversal": np.where(up, change < 0, change > 0),
        "base_model": (base["called_up"] == base["actual_up"]).to_numpy(),
    }
    for name, hits in expected.items():
        baseline = checkpoint["baselines"][name]
        assert baseline["accuracy"]["value"] == pytest.approx(hits.mean()), name
        assert baseline["difference"]["value"] == pytest.approx(right.mean() - hits.mean()), name
        assert baseline["difference"]["low"] < baseline["difference"]["high"]
    fit = checkpoint["baselines"]["logistic"]
    assert fit["accuracy"]["value"] == pytest.approx(0.99)
    assert fit["difference"]["value"] == pytest.approx(right[:100].mean() - 0.99)
    assert fit["difference"]["n"] == 100
    assert checkpoint["majority"] == ("always_up" if up.mean() >= 0.5 else "always_down")


def test_a_baseline_that_is_not_known_is_not_zero() -> None:
    keys = pd.DataFrame({"key": small()["key"], "logistic": math.nan})
    checkpoints = summary_of(unread(small(checkpoint="base")), small(), baselines=keys)[
        "checkpoints"
    ]
    baselines = checkpoints["step-000040"]["baselines"]
    for name, why in (
        ("logistic", "its indicators are missing on all of these rows"),
        ("base_model", "no completion of the base model could be read"),
    ):
        for value in baselines[name].values():
            assert (value["value"], value["why"]) == (None, why)
    assert "base_model" not in checkpoints["base"]["baselines"]
    assert checkpoints["base"]["baselines"]["always_up"]["difference"]["value"] is None
    assert (
        summary_of(small())["checkpoints"]["step-000040"]["baselines"]["logistic"]["accuracy"][
            "why"
        ]
        == "no logistic regression was fit"
    )


def test_checkpoints_are_compared_two_by_two_on_common_rows() -> None:
    base = small(0.5, 4, checkpoint="base")
    first = small(0.7, 5, checkpoint="step-000020").assign(actual_up=base["actual_up"])
    # Killed half way: the comparison takes the rows that both have.
    second = small(0.6, 6).assign(actual_up=base["actual_up"])[:150]
    summary = summary_of(base, first, second)
    pairs = {(pair["first"], pair["second"]): pair for pair in summary["comparisons"]}
    assert list(pairs) == [
        ("base", "step-000020"),
        ("base", "step-000040"),
        ("step-000020", "step-000040"),
    ]
    pair = pairs["step-000020", "step-000040"]
    both = decisions(first)[:150], decisions(second)
    assert pair["accuracy"]["value"] == pytest.approx(
        both[0]["right"].mean() - both[1]["right"].mean()
    )
    assert pair["accuracy"]["n"] == 150
    theirs = mcnemar(both[0]["right"].to_numpy(), both[1]["right"].to_numpy())
    assert {**pair["mcnemar"], "p_holm": None} == {**theirs, "p_holm": None}
    loss = [(one["p_up"] - one["actual_up"]) ** 2 for one in both]
    by_day = (loss[0] - loss[1]).groupby(both[0]["label_day"]).mean()
    assert pair["diebold_mariano"]["value"] == pytest.approx(ttest_1samp(by_day, 0).statistic)
    assert pair["diebold_mariano"]["n"] == 30
    for one in pairs.values():
        assert one["mcnemar"]["p"] <= one["mcnemar"]["p_holm"] <= 3 * one["mcnemar"]["p"]


def test_checkpoints_without_common_rows_say_so() -> None:
    table = small()
    summary = summary_of(table[:100].assign(checkpoint="base"), table[100:])
    (pair,) = summary["comparisons"]
    for name in ("accuracy", "mcnemar", "diebold_mariano"):
        assert (pair[name]["value"], pair[name]["why"]) == (None, "no rows in common")
    missing = summary["checkpoints"]["step-000040"]["baselines"]["base_model"]["accuracy"]
    assert missing["why"] == "the base model has none of these rows"


def test_a_checkpoint_that_cannot_be_read_is_not_compared() -> None:
    summary = summary_of(unread(small(checkpoint="base")), small())
    (pair,) = summary["comparisons"]
    for name in ("accuracy", "mcnemar", "diebold_mariano"):
        assert pair[name]["value"] is None
        assert pair[name]["why"] == "no completion of base could be read"


def test_the_same_table_and_seed_give_the_same_summary() -> None:
    table = small()
    assert summary_of(table) == summary_of(table)
    shuffled = table.sample(frac=1, random_state=2)
    one, other = (summary_of(those)["checkpoints"]["step-000040"] for those in (table, shuffled))
    assert one["accuracy"] == other["accuracy"]
    assert one["calibration"]["ece"] == pytest.approx(other["calibration"]["ece"])


def test_a_parquet_file_of_the_table_gives_the_same_summary(tmp_path: Path) -> None:
    table = unread(small(), np.arange(200) % 7 == 0)
    table.to_parquet(tmp_path / "predictions.parquet")
    assert summary_of(pd.read_parquet(tmp_path / "predictions.parquet")) == summary_of(table)


def test_nothing_to_measure_is_said() -> None:
    table = small()[:0]
    with pytest.raises(UserError, match="no predictions to measure"):
        summarise(decisions(table), table, None, seed=1)

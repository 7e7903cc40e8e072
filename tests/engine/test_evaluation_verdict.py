"""The verdict: how often it is right on generated predictions, and each of its rules."""

from dataclasses import dataclass
from statistics import NormalDist
from typing import Any

import pandas as pd
import pytest

from engine.evaluation import summary
from engine.evaluation.day_blocks import DayBlocks
from engine.evaluation.summary import standing
from engine.evaluation.table import decisions
from engine.evaluation.verdict import lower_bound, verdict
from tests.predictions import generated


@dataclass(frozen=True)
class Suite:
    green: bool
    failed: tuple[str, ...] = ()


@dataclass(frozen=True)
class Circumstances:
    is_synthetic: bool = True
    overlaps_training: bool = False
    trials: int = 1
    leakage: Suite | None = None


SYNTHETIC, REAL = Circumstances(), Circumstances(is_synthetic=False)
SEEDS = 200


@pytest.fixture(scope="module")
def days() -> DayBlocks:
    return DayBlocks(decisions(generated(0.5, 0))["label_day"], seed=1, draws=1000)


def standings(days: DayBlocks, share: float) -> list[dict[str, Any]]:
    """What the verdict goes by, for 250 days of 20 tickers whose hits correlate by 0.1."""
    return [standing(decisions(generated(share, seed)), days, horizon=1) for seed in range(SEEDS)]


def covered(those: list[dict[str, Any]], share: float) -> int:
    return sum(one["accuracy"]["low"] <= share <= one["accuracy"]["high"] for one in those)


@pytest.mark.slow
def test_sixty_percent_is_covered_and_strong(days: DayBlocks) -> None:
    those = standings(days, 0.6)
    assert covered(those, 0.6) >= 185
    words = [verdict(one, SYNTHETIC).word for one in those]
    assert words.count("strong") >= 0.95 * SEEDS


@pytest.mark.slow
def test_a_coin_is_no_evidence(days: DayBlocks) -> None:
    those = standings(days, 0.5)
    assert covered(those, 0.5) >= 185
    for context in (SYNTHETIC, REAL):
        assert [verdict(one, context).word for one in those].count("no evidence") >= 185


@pytest.mark.slow
def test_what_nobody_reaches_on_real_prices_is_suspect(days: DayBlocks) -> None:
    those = standings(days, 0.85)
    assert {verdict(one, REAL).word for one in those} == {"suspect leakage"}
    assert {verdict(one, SYNTHETIC).word for one in those} == {"strong"}


@pytest.mark.parametrize(
    ("share", "context", "word"),
    [
        (0.6, SYNTHETIC, "strong"),
        (0.5, SYNTHETIC, "no evidence"),
        (0.85, REAL, "suspect leakage"),
    ],
)
def test_the_whole_summary_leads_to_the_same_word(
    share: float, context: Circumstances, word: str
) -> None:
    table = pd.concat([generated(0.5, 1, checkpoint="base"), generated(share, 2)])
    measured = summary.summarise(decisions(table), table, None, seed=3, draws=1000)
    judged = verdict(measured["checkpoints"]["step-000040"], context)
    assert judged.word == word
    assert verdict(measured["checkpoints"]["base"], context).word == "no evidence"
    assert all(reason.endswith(".") for reason in judged.reasons)


def made(
    accuracy: tuple[float | None, float | None],
    *,
    difference: float = 0.03,
    worse_than: str = "",
    **changes: Any,
) -> dict[str, Any]:
    """A standing with this accuracy and lower bound, better than each baseline but one."""
    value, low = accuracy
    other = {"value": 0.5, "low": 0.49, "high": 0.51, "n": 5000, "why": None}
    better = {"value": difference + 0.02, "low": difference, "high": 0.1, "n": 5000, "why": None}
    worse = {**better, "value": 0.01, "low": -0.001}
    names = ("always_up", "always_down", "momentum", "reversal", "logistic", "base_model")
    return {
        "n": 5000,
        "days": 250,
        "horizon": 1,
        "accuracy": {
            "value": value,
            "low": low,
            "high": None if low is None else 0.99,
            "n": 5000,
            "why": None if value is not None else "no completion could be read",
        },
        "majority": "always_up",
        "baselines": {
            name: {"accuracy": other, "difference": worse if name == worse_than else better}
            for name in names
        },
        **changes,
    }


GOOD = (0.57, 0.55)


@pytest.mark.parametrize(
    ("measured", "context", "word", "reason"),
    [
        (made(GOOD), SYNTHETIC, "strong", "made up"),
        (made(GOOD), REAL, "strong", "every baseline"),
        (made((0.53, 0.51)), REAL, "weak", "does not pass 52 %"),
        (made((0.53, 0.49)), REAL, "no evidence", "does not pass 50 %"),
        (made((0.53, 0.50)), REAL, "no evidence", "does not pass 50 %"),
        (made(GOOD, worse_than="always_up"), REAL, "no evidence", "always UP"),
        (made(GOOD, worse_than="always_down"), REAL, "no evidence", "always DOWN"),
        (made(GOOD, worse_than="momentum"), REAL, "weak", "momentum"),
        (made(GOOD, worse_than="logistic"), REAL, "weak", "the logistic regression"),
        (made(GOOD, worse_than="base_model"), REAL, "weak", "the untrained base model"),
        (made(GOOD, n=199), REAL, "weak", "200 rows on 60 days"),
        (made(GOOD, days=59), REAL, "weak", "200 rows on 60 days"),
        (made(GOOD, horizon=5), REAL, "weak", "5 days ahead"),
        (made((None, None)), REAL, "no evidence", "no completion could be read"),
        # above 60 %: on real prices the suite has to have run, and to be green
        (made((0.62, 0.58)), REAL, "weak", "leakage suite"),
        (made((0.62, 0.58)), SYNTHETIC, "strong", "made up"),
        (
            made((0.62, 0.58)),
            Circumstances(False, leakage=Suite(True)),
            "strong",
            "62.0 % [58.0, 99.0]",
        ),
        (made((0.75, 0.71)), REAL, "suspect leakage", "above 70 %"),
        (
            made((0.75, 0.71)),
            Circumstances(False, leakage=Suite(True)),
            "suspect leakage",
            "71.0 %",
        ),
        (made((0.75, 0.69)), Circumstances(False, leakage=Suite(True)), "strong", "75.0 %"),
        (
            made((0.5, 0.48)),
            Circumstances(True, leakage=Suite(False, ("future prices", "shuffled labels"))),
            "suspect leakage",
            "future prices, shuffled labels",
        ),
        (made(GOOD), Circumstances(overlaps_training=True), "no evidence", "training"),
        # .55 is 2 points below the value: 2.81 standard errors instead of 1.96 for the best of ten
        (made(GOOD), Circumstances(trials=10), "strong", "every baseline"),
        (made((0.56, 0.525)), Circumstances(trials=10), "weak", "best of 10 checkpoints"),
        (made((0.53, 0.505)), Circumstances(trials=100), "no evidence", "best of 100"),
    ],
)
def test_each_rule(
    measured: dict[str, Any], context: Circumstances, word: str, reason: str
) -> None:
    judged = verdict(measured, context)
    assert judged.word == word
    assert reason in " ".join(judged.reasons)


def test_without_an_interval_there_is_no_evidence() -> None:
    measured = made((0.9, None))
    measured["accuracy"]["why"] = "no interval: 12 days with rows, fewer than 20"
    judged = verdict(measured, REAL)
    assert judged.word == "no evidence"
    assert "12 days" in judged.reasons[0]


def test_a_baseline_that_could_not_be_measured_is_named() -> None:
    measured = made(GOOD)
    nothing = {"value": None, "low": None, "high": None, "n": 0, "why": "no fit was made"}
    measured["baselines"]["logistic"] = {"accuracy": nothing, "difference": nothing}
    judged = verdict(measured, REAL)
    assert judged.word == "strong"
    assert "Not compared with the logistic regression: no fit was made." in judged.reasons


def test_the_bound_for_the_best_of_many() -> None:
    value = {"value": 0.6, "low": 0.58}
    assert lower_bound(value, 1) == pytest.approx(0.58)
    error = 0.02 / NormalDist().inv_cdf(0.975)
    assert lower_bound(value, 20) == pytest.approx(
        0.6 - error * NormalDist().inv_cdf(1 - 0.05 / 40)
    )
    assert lower_bound({"value": 0.6, "low": None}, 1) is None

"""Stated probabilities and moves: against scikit-learn, Murphy's identities, and by hand."""

import math

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import brier_score_loss, log_loss

from engine.evaluation import probabilities
from engine.evaluation.day_blocks import DayBlocks
from engine.evaluation.scores import calibration_error
from engine.evaluation.table import decisions
from tests.predictions import generated


def made(p_up: list[float | None], up: list[bool], **columns: list[float]) -> pd.DataFrame:
    """Decisions that state these probabilities of UP, a day each; None: UP, and none stated."""
    called = [p is None or p >= 0.5 for p in p_up]
    return pd.DataFrame(
        {
            "label_day": [f"{at:05}" for at in range(len(up))],
            "actual_up": up,
            "called_up": pd.Series(called, dtype=object),
            "right": [one == two for one, two in zip(called, up, strict=True)],
            "confidence": [math.nan if p is None else max(p, 1 - p) for p in p_up],
            **columns,
        }
    )


def with_days(rows: pd.DataFrame) -> tuple[pd.DataFrame, np.ndarray, DayBlocks]:
    days = DayBlocks(rows["label_day"], seed=1, draws=300)
    return rows, days.of(rows["label_day"]), days


@pytest.fixture(scope="module")
def rows() -> pd.DataFrame:
    return decisions(generated(0.62, 4, num_days=120, num_tickers=9))


def test_scores_equal_those_of_scikit_learn(rows: pd.DataFrame) -> None:
    up, p_up = rows["actual_up"], rows["p_up"]
    brier = probabilities.brier(*with_days(rows))
    assert brier["score"]["value"] == pytest.approx(brier_score_loss(up, p_up), abs=1e-12)
    share = up.mean()
    assert brier["base_rate"]["value"] == pytest.approx(share * (1 - share))
    assert brier["skill"]["value"] == pytest.approx(
        1 - brier_score_loss(up, p_up) / (share * (1 - share))
    )
    loss = probabilities.log_loss(*with_days(rows))
    assert loss["score"]["value"] == pytest.approx(log_loss(up, p_up))
    assert loss["base_rate"]["value"] == pytest.approx(log_loss(up, np.full(len(up), share)))
    for value in (*brier.values(), *loss.values()):
        assert value["low"] <= value["value"] <= value["high"]


def test_log_loss_is_clipped_at_one_in_a_hundred() -> None:
    loss = probabilities.log_loss(*with_days(made([1.0, 1.0, 0.2], [False, True, False])))
    expected = -(math.log(0.01) + math.log(0.99) + math.log(0.8)) / 3
    assert loss["score"]["value"] == pytest.approx(expected)


def test_murphys_decomposition_by_hand() -> None:
    # Twenty rows at 0.8, of which 14 went up, and twenty at 0.3, of which 5 did: two bins.
    up = [True] * 14 + [False] * 6 + [True] * 5 + [False] * 15
    parts = probabilities.brier(*with_days(made([0.8] * 20 + [0.3] * 20, up)))
    values = {name: part["value"] for name, part in parts.items()}
    share = 19 / 40
    assert values["reliability"] == pytest.approx((0.1**2 + 0.05**2) / 2)
    assert values["resolution"] == pytest.approx(((0.7 - share) ** 2 + (0.25 - share) ** 2) / 2)
    assert values["base_rate"] == pytest.approx(share * (1 - share))
    assert values["within_bins"] == pytest.approx(0, abs=1e-12)
    assert values["score"] == pytest.approx(
        values["reliability"] - values["resolution"] + values["base_rate"]
    )


def test_what_differs_inside_bins_completes_the_decomposition(rows: pd.DataFrame) -> None:
    values = {name: v["value"] for name, v in probabilities.brier(*with_days(rows)).items()}
    assert values["within_bins"] != 0
    assert values["score"] == pytest.approx(
        values["reliability"] - values["resolution"] + values["base_rate"] + values["within_bins"]
    )


def test_always_stating_the_base_rate_has_neither_fault_nor_skill() -> None:
    parts = probabilities.brier(*with_days(made([0.6] * 50, [True] * 30 + [False] * 20)))
    for name in ("reliability", "resolution", "skill"):
        assert parts[name]["value"] == pytest.approx(0, abs=1e-12)


def test_calibration_error_and_its_diagram(rows: pd.DataFrame) -> None:
    calibration = probabilities.calibration(*with_days(rows))
    error, by_chance = calibration_error(rows["confidence"].tolist(), rows["right"].tolist())
    ece = calibration["ece"]
    assert ece["value"] == pytest.approx(error, abs=1e-12)
    assert 0 <= ece["low"] <= ece["value"] <= ece["high"]
    assert calibration["ece_by_chance"]["value"] == by_chance
    bins = calibration["bins"]
    assert sum(one["n"] for one in bins) == len(rows)
    assert sum(
        one["n"] / len(rows) * abs(one["value"] - one["confidence"]) for one in bins
    ) == pytest.approx(error)
    stated = [one["confidence"] for one in bins]
    assert stated == sorted(stated)
    assert calibration["mean"]["value"] == pytest.approx(rows["confidence"].mean())
    assert calibration["hit_rate"]["value"] == pytest.approx(rows["right"].mean())


def test_a_calibrated_caller_has_an_interval_that_reaches_zero() -> None:
    rng = np.random.default_rng(2)
    reaches = 0
    for _ in range(40):
        p_up = rng.choice([0.55, 0.65, 0.75, 0.85], 400)
        rows = made(p_up.tolist(), (rng.random(400) < p_up).tolist())
        reaches += probabilities.calibration(*with_days(rows))["ece"]["low"] < 0.01
    assert reaches >= 36


def test_only_rows_that_state_one_are_scored() -> None:
    rows = made([0.8, None, 0.4], [True, False, False])
    brier = probabilities.brier(*with_days(rows))["score"]
    assert (brier["value"], brier["n"]) == (pytest.approx((0.2**2 + 0.4**2) / 2), 2)


def test_magnitude_against_persistence_by_hand() -> None:
    rows = made(
        [0.6, 0.6, 0.4, 0.6],
        [True, False, False, True],
        percent=[1.0, 2.0, -0.5, math.nan],
        actual_percent=[1.5, -1.0, -2.0, 9.0],
    )
    # Errors .5, 3 and 1.5; moves 1.5, 1 and 2
    values = probabilities.magnitude(*with_days(rows))
    assert {name: value["value"] for name, value in values.items()} == pytest.approx(
        {"error": 5 / 3, "persistence": 1.5, "difference": 0.5 / 3, "skill": 1 - 5 / 4.5}
    )
    assert {value["n"] for value in values.values()} == {3}


def test_nothing_stated_and_one_outcome_say_so() -> None:
    rows = made([None] * 3, [True, False, True], percent=[math.nan] * 3, actual_percent=[1.0] * 3)
    _, blocks, days = with_days(rows)
    values = [
        *probabilities.brier(rows, blocks, days).values(),
        *probabilities.log_loss(rows, blocks, days).values(),
        probabilities.calibration(rows, blocks, days)["ece"],
        *probabilities.magnitude(rows, blocks, days).values(),
    ]
    for value in values:
        assert value["value"] is None
        assert value["why"] in ("no answer states a confidence", "no answer states a move")
    assert probabilities.calibration(rows, blocks, days)["bins"] == []
    one_outcome = probabilities.brier(*with_days(made([0.7, 0.8], [True, True])))
    assert one_outcome["skill"]["why"] == "rows of one outcome only"

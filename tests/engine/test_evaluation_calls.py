"""Metrics of direction calls, on calls written by hand."""

import pytest

from engine.evaluation.calls import Call, batch_metrics, validation_metrics
from engine.evaluation.intervals import wilson
from engine.task import Assessment, ComponentScore, Item

Judged = tuple[Item, Assessment]


def judged(
    market: str,
    called: str | None,
    confidence: float | None = None,
    *,
    day: str = "2024-01-02",
    day_change: float = 1.0,
    reward: float = 0.0,
) -> Judged:
    """One completion: what the market did, what was called, how sure."""
    item = Item(
        f"AAA:{day}",
        (),
        {"as_of": day, "actual_direction": market, "day_change": day_change},
    )
    prediction = {"direction": called, "confidence": confidence}
    rubric = {"prediction": 0.1, "reasoning": 0.2, "total": 0.3}
    return item, Assessment((ComponentScore("own", reward, 2.0, ""),), prediction, rubric)


BATCH = [
    judged("UP", "UP", 0.8, day="2024-01-02", reward=1.0),
    judged("UP", "UP", 0.6, day="2024-01-02"),
    judged("UP", "DOWN", 0.7, day="2024-01-03"),
    judged("DOWN", "UP", 0.9, day="2024-01-03"),
    judged("DOWN", "DOWN", None, day="2024-01-04"),
    judged("DOWN", None, None, day="2024-01-04"),
]


def test_each_side_has_its_number_and_interval() -> None:
    metrics = batch_metrics(BATCH)
    expected = {
        "accuracy": 0.5,
        "accuracy/n": 6,
        "accuracy/low": wilson(3, 6)[0],
        "accuracy/high": wilson(3, 6)[1],
        "accuracy/up": 2 / 3,
        "accuracy/up_n": 3,
        "accuracy/up_low": wilson(2, 3)[0],
        "accuracy/up_high": wilson(2, 3)[1],
        "accuracy/down": 1 / 3,
        "accuracy/down_n": 3,
        "accuracy/down_low": wilson(1, 3)[0],
        "accuracy/down_high": wilson(1, 3)[1],
        "parsed": 5 / 6,
        "calls/up_share": 0.6,
        "market/up_share": 0.5,
    }
    assert {name: metrics[name] for name in expected} == pytest.approx(expected)


def test_only_calls_that_state_a_confidence_count_in_its_metrics() -> None:
    metrics = batch_metrics(BATCH)
    expected = {
        "confidence/n": 4,
        "confidence/mean": 0.75,
        "confidence/hit_rate": 0.5,
        # (.04 + .16 + .49 + .81) / 4; three of the four went up: .75 · .25
        "brier": 0.375,
        "brier/base_rate": 0.1875,
    }
    assert {name: metrics[name] for name in expected} == pytest.approx(expected)


def test_rewards_are_told_under_the_components_own_names() -> None:
    metrics = batch_metrics(BATCH)
    assert metrics["reward/own"] == pytest.approx(1 / 6)
    assert metrics["reward/total"] == pytest.approx(2 / 6)
    assert metrics["rubric/total"] == pytest.approx(0.3)


def test_a_validation_adds_what_needs_one_call_a_row() -> None:
    metrics = validation_metrics(BATCH, seed=1)
    assert batch_metrics(BATCH).items() <= metrics.items()
    expected = {
        "accuracy/days": 3,
        "accuracy/balanced": 0.5,
        "brier/skill": 1 - 0.375 / 0.1875,
        # P(UP) of rows that went up .8, .6, .3; of the others .9, .5, .5. Of nine pairs four
        # are in order: .8 and .6 each above both .5.
        "auc": 4 / 9,
        # One bin of four calls: mean .75, right .5.
        "ece": 0.25,
        "baseline/always_up": 0.5,
        "baseline/always_down": 0.5,
        "baseline/momentum": 0.5,
    }
    assert {name: metrics[name] for name in expected} == pytest.approx(expected)
    # Days with 2, 0 and 1 of two right: the worst comes three times in 1 of 27 draws, over 2.5 %.
    assert (metrics["accuracy/day_low"], metrics["accuracy/day_high"]) == (0, 1)
    # √(2/π) · √(.16 + .24 + .21 + .09) / 4
    assert metrics["ece/calibrated"] == pytest.approx(0.16689, abs=1e-5)


def test_the_same_validation_gives_the_same_metrics() -> None:
    assert validation_metrics(BATCH, seed=5) == validation_metrics(BATCH, seed=5)


def test_one_day_has_no_interval_over_days() -> None:
    metrics = validation_metrics([judged("UP", "UP", 0.7), judged("DOWN", "UP", 0.6)], seed=1)
    assert metrics["accuracy/days"] == 1
    assert not {"accuracy/day_low", "accuracy/day_high"} & set(metrics)


def test_one_side_leaves_out_what_compares_sides() -> None:
    metrics = validation_metrics([judged("UP", "UP", 0.7), judged("UP", "DOWN", 0.6)], seed=1)
    assert metrics["brier/base_rate"] == 0
    unknown = {"accuracy/down", "accuracy/down_n", "accuracy/balanced", "auc", "brier/skill"}
    assert not unknown & set(metrics)
    assert metrics["ece"] == pytest.approx(0.15)


def test_unread_completions_are_wrong_and_say_nothing_of_confidence() -> None:
    metrics = validation_metrics([judged("UP", None), judged("DOWN", None)], seed=1)
    assert metrics["accuracy"] == 0
    assert metrics["parsed"] == 0
    assert metrics["auc"] == 0.5
    unknown = {"calls/up_share", "confidence/n", "confidence/mean", "brier", "ece"}
    assert not unknown & set(metrics)


def test_no_completion_has_no_metric() -> None:
    assert batch_metrics([]) == {}
    assert validation_metrics([], seed=1) == {}


@pytest.mark.parametrize(
    ("called", "confidence", "probability"),
    [("UP", 0.7, 0.7), ("DOWN", 0.7, 0.3), ("UP", None, 0.5), (None, None, 0.5)],
)
def test_confidence_is_signed_by_direction(
    called: str | None, confidence: float | None, probability: float
) -> None:
    assert Call.of(*judged("UP", called, confidence)).probability_up == probability


@pytest.mark.parametrize("percent", range(101))
def test_up_and_down_that_say_the_same_tie(percent: int) -> None:
    # 1 - 0.7 is 0.30000000000000004.
    up = Call.of(*judged("UP", "UP", percent / 100))
    down = Call.of(*judged("UP", "DOWN", (100 - percent) / 100))
    assert up.probability_up == down.probability_up

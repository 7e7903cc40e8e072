"""Every component against numbers computed by hand."""

import dataclasses
from collections.abc import Sequence

import numpy as np
import pytest
import torch
from sklearn.metrics import brier_score_loss

from engine.market.example import Label
from engine.market.facts import Fact
from engine.rewards.components import (
    Score,
    Thresholds,
    coherence_score,
    confidence_score,
    data_use_score,
    direction_score,
    format_score,
    magnitude_score,
)
from engine.rewards.facts import Citation
from engine.rewards.parse import Prediction, parse
from engine.training.objective import group_advantages

UP = Label("UP", 1.2)
DOWN = Label("DOWN", -1.2)


def said(answer: str, reasoning: str = "RSI is high") -> Prediction:
    return parse(f"<think>{reasoning}</think><answer>{answer}</answer>")


def sure(q: float) -> Prediction:
    return Prediction("UP", 1.0, q, "", 0, error=None, flaw=None)


def cited(*starts: int) -> list[Citation]:
    return [Citation(Fact("value", f"f{at}", "1"), at, at + 1) for at in starts]


@pytest.mark.parametrize(
    ("completion", "value"),
    [
        ("<think>r</think><answer>UP 1% confidence 60%</answer>", 1.0),
        ("<think>r</think>\nDirection: UP\nChange: 1%\nConfidence: 60%", 1.0),
        ("<answer>UP 1% confidence 60%</answer>", 0.5),
        ("<think>r</think><answer>UP 1%</answer>", 0.5),
        ("<think>r</think>", 0.0),
        ("<think>r</think><answer>UP -1% confidence 60%</answer>", 0.0),
        ("", 0.0),
    ],
)
def test_format(completion: str, value: float) -> None:
    assert format_score(parse(completion)).value == value


def test_direction() -> None:
    assert direction_score(said("UP 1%"), UP) == Score(1.0, "called UP, market went UP")
    assert direction_score(said("UP 1%"), DOWN) == Score(0.0, "called UP, market went DOWN")
    assert direction_score(said("?"), UP) == Score(0.0, "no direction called")


@pytest.mark.parametrize(
    ("answer", "label", "sigma", "horizon", "value"),
    [
        ("UP 1.2%", UP, 1.0, 1, 1.0),
        ("UP 0.8%", UP, 1.0, 1, 0.8),  # 0.4 off, scale 2: 1 - 0.2
        ("DOWN 0.8%", DOWN, 1.0, 1, 0.8),
        ("DOWN -0.8%", DOWN, 1.0, 1, 0.8),
        ("UP 3.2%", UP, 1.0, 1, 0.0),  # 2 off, scale 2
        ("UP 9%", UP, 1.0, 1, 0.0),
        ("UP 0.8%", UP, 1.0, 4, 0.9),  # scale 2·√4 = 4: 1 - 0.1
        ("UP 0.8%", UP, 0.1, 1, 0.6),  # floor 0.5, scale 1: 1 - 0.4
        ("UP 1-2%", UP, 1.0, 1, 0.85),  # midpoint 1.5 is 0.3 off: 1 - 0.15
        ("UP", UP, 1.0, 1, 0.0),
        ("UP 1.2%", DOWN, 1.0, 1, 0.0),
        ("?", UP, 1.0, 1, 0.0),
    ],
)
def test_magnitude(answer: str, label: Label, sigma: float, horizon: int, value: float) -> None:
    scored = magnitude_score(said(answer), label, sigma20=sigma, horizon=horizon)
    assert scored.value == pytest.approx(value)


def test_the_magnitude_explains_itself() -> None:
    reason = magnitude_score(said("UP 0.8%"), UP, sigma20=1.45, horizon=1).reason
    assert reason == "0.4 points off; 2σ20 is 2.9 points"


@pytest.mark.parametrize(
    ("answer", "label", "value"),
    [
        ("UP confidence 100%", UP, 1.0),
        ("UP confidence 62%", UP, 0.81228),  # 1 - 1.3·0.38² = 1 - 1.3·0.1444
        ("UP confidence 0%", UP, -0.3),
        ("UP confidence 0%", DOWN, -0.2),
        ("UP confidence 62%", DOWN, -0.69972),  # -0.2 - 1.3·0.3844
        ("UP confidence 100%", DOWN, -1.5),
        ("UP 1%", UP, -1.5),
        ("UP confidence 101%", UP, -1.5),
        ("nothing", UP, -1.5),
    ],
)
def test_confidence(answer: str, label: Label, value: float) -> None:
    assert confidence_score(said(answer), label).value == pytest.approx(value)


def test_the_confidence_explains_itself() -> None:
    right = confidence_score(said("UP confidence 62%"), UP).reason
    wrong = confidence_score(said("UP confidence 62%"), DOWN).reason
    assert right == "62 % sure and right: 1 − 1.3·(1−.62)²"
    assert wrong == "62 % sure and wrong: −0.2 − 1.3·.62²"


@pytest.mark.parametrize("p", np.arange(0.05, 0.96, 0.05))
def test_the_best_confidence_to_state_is_the_true_probability(p: float) -> None:
    stated = np.arange(0, 101) / 100
    expected = [
        p * confidence_score(sure(q), UP).value + (1 - p) * confidence_score(sure(q), DOWN).value
        for q in stated
    ]
    assert stated[int(np.argmax(expected))] == pytest.approx(p)


GROUP = (0.07, 0.21, 0.33, 0.46, 0.59, 0.72, 0.84, 0.97)
"""What the eight completions of a group state, each a call of UP."""


def expected_advantages(group: Sequence[Prediction], p: float) -> list[float]:
    """Expectation of each completion's advantage where UP has probability ``p``: exact."""
    advantages = [
        group_advantages(
            torch.tensor([confidence_score(said, label).value for said in group]), len(group)
        )
        for label in (UP, DOWN)
    ]
    return (p * advantages[0] + (1 - p) * advantages[1]).tolist()


@pytest.mark.parametrize("p", np.arange(0.05, 0.96, 0.05))
def test_in_a_sampled_group_the_nearest_to_the_true_probability_has_the_best_advantage(
    p: float,
) -> None:
    best = int(np.argmax(expected_advantages([sure(q) for q in GROUP], p)))
    assert GROUP[best] == min(GROUP, key=lambda q: abs(q - p))


@pytest.mark.parametrize("p", np.arange(0.05, 0.96, 0.05))
def test_whatever_the_others_state_and_call_the_true_probability_is_best_to_state(
    p: float,
) -> None:
    others = [sure(q) for q in GROUP[:4]] + [
        dataclasses.replace(sure(q), direction="DOWN") for q in GROUP[4:7]
    ]
    stated = np.arange(0, 101) / 100
    own = [expected_advantages([sure(q), *others], p)[0] for q in stated]
    assert stated[int(np.argmax(own))] == pytest.approx(p)


def test_advantages_divided_by_the_groups_deviation_would_not_see_a_lie() -> None:
    # Why the loss does not divide. One completion against seven that state .5: whatever it
    # states above .5, its divided advantage is the same number of deviations.
    others = [sure(0.5)] * 7

    def divided(q: float, label: Label) -> float:
        scores = [confidence_score(said, label).value for said in (sure(q), *others)]
        return (scores[0] - np.mean(scores)) / np.std(scores)

    for label in (UP, DOWN):
        assert divided(0.99, label) == pytest.approx(divided(0.7, label))
    honest, lying = (expected_advantages([sure(q), *others], 0.7)[0] for q in (0.7, 0.99))
    assert honest > 0 > lying


def test_the_confidence_score_is_the_brier_score_up_to_a_constant_for_being_right() -> None:
    rng = np.random.default_rng(1)
    stated, hit = rng.uniform(0, 1, 200), rng.integers(0, 2, 200)
    scores = [
        confidence_score(sure(q), UP if right else DOWN).value
        for q, right in zip(stated, hit, strict=True)
    ]
    # right: 1 - 1.3 (1-q)²; wrong: -0.2 - 1.3 q²: the mean is hit share·1.2 - 0.2 - 1.3·Brier
    expected = 1.2 * hit.mean() - 0.2 - 1.3 * brier_score_loss(hit, stated)
    assert np.mean(scores) == pytest.approx(expected)


@pytest.mark.parametrize(("count", "value"), enumerate([0.0, 0.33, 0.6, 0.8, 1.0, 1.0]))
def test_data_use_grows_with_distinct_facts(count: int, value: float) -> None:
    assert data_use_score(cited(*range(count)), 0.0).value == value


def test_copying_more_than_half_of_the_reasoning_earns_nothing() -> None:
    assert data_use_score(cited(1, 2, 3, 4), 0.5).value == 1
    copied = data_use_score(cited(1, 2, 3, 4), 0.51)
    assert copied == Score(0.0, "51% of the reasoning is copied from the prompt")


@pytest.mark.parametrize(
    ("untrue", "facts", "value"),
    [(4, 0, 0.0), (4, 1, 0.33), (5, 1, 0.33), (6, 1, 0.0), (7, 3, 0.8), (8, 3, 0.0)],
)
def test_more_than_four_untrue_numbers_beyond_the_facts_earn_nothing(
    untrue: int, facts: int, value: float
) -> None:
    assert data_use_score(cited(*range(facts)), 0.0, untrue).value == value


def test_thresholds_move_the_components() -> None:
    scored = magnitude_score(
        said("UP 0.8%"), UP, sigma20=0.1, horizon=1, thresholds=Thresholds(sigma_floor=1.0)
    )
    assert scored.value == pytest.approx(0.8)  # scale 2: 1 - 0.2
    strict = Thresholds(copied_share=0.2, data_use_steps=(0, 0.1, 0.2, 0.3, 0.4))
    assert data_use_score(cited(1, 2), 0.2, 0, strict).value == 0.2
    assert data_use_score(cited(1, 2), 0.21, 0, strict).value == 0
    short = Thresholds(min_words=3, distinct_share=1.0)
    assert coherence_score(said("UP 1%", "RSI 67.8 points UP"), cited(4), short).value == 1
    again = coherence_score(said("UP 1%", "RSI says go UP go UP go UP"), cited(0), short)
    assert again.reason == "repeats itself"


LONG = (
    "The relative strength stands at a high level today and the volume confirms that buyers are"
    " still in charge of this market, so I expect the stock to go UP."
)


def test_coherence_counts_its_four_quarters() -> None:
    assert coherence_score(said("UP 1%", LONG), cited(4)).value == 1
    assert coherence_score(said("DOWN 1%", LONG), cited(4)).reason == "does not conclude the answer"
    assert coherence_score(said("UP 1%", LONG), []).reason == "no fact before the conclusion"
    after = len(LONG) - 1
    assert coherence_score(said("UP 1%", LONG), cited(after)).value == 0.75
    assert coherence_score(said("UP 1%", "RSI 67.8 points UP"), cited(4)).value == 0.75
    repeated = "RSI 67.8 says " + "go UP " * 20
    assert coherence_score(said("UP 1%", repeated), cited(4)).reason == "repeats itself"


def test_the_last_side_named_is_the_conclusion() -> None:
    mixed = "It went down and fell lower for days, but I expect it to rise."
    assert "conclude" not in coherence_score(said("UP 1%", mixed), []).reason
    assert "conclude" in coherence_score(said("DOWN 1%", mixed), []).reason


def test_no_reasoning_is_not_coherent() -> None:
    assert coherence_score(parse("<answer>UP 1%</answer>"), []).value == 0
    assert coherence_score(said("UP 1%", "..."), []).value == 0

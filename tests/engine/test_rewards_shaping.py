"""Diversity penalty and market skew: factors from earlier batches, confidence left alone."""

import json

import pytest

from engine.market.example import Direction
from engine.rewards.shaping import (
    CALL_WINDOW,
    SHAPINGS,
    Call,
    DiversityPenalty,
    MarketSkew,
    Shaping,
    crowding_factor,
    shape,
    skew_factor,
)
from engine.task import Assessment, ComponentScore


def assessment(direction: str | None, right: bool = True) -> Assessment:
    """A call whose direction, magnitude and confidence score 1, 0.5 and 0.8 when right."""
    return Assessment(
        components=(
            ComponentScore("direction", float(right), 0.35, ""),
            ComponentScore("magnitude", 0.5 * right, 0.20, ""),
            ComponentScore("confidence", 0.8 if right else -0.9, 0.10, ""),
        ),
        prediction={"direction": direction},
        rubric={},
    )


def calls(text: str) -> list[Call]:
    """``UD`` is a call of UP while the market went DOWN."""
    sides: dict[str, Direction] = {"U": "UP", "D": "DOWN"}
    return [Call(sides[pair[0]], sides[pair[1]]) for pair in text.split()]


@pytest.mark.parametrize(
    ("crowding", "factor"),
    [
        (0.0, 1.0),
        (0.1, 1.0),
        (-0.1, 1.0),
        (0.2, 0.7),
        (-0.2, 0.7),
        (0.3, 0.4),
        (0.4, 0.3),
        (1, 0.3),
    ],
)
def test_the_crowded_sides_factor_falls_from_a_tenth_to_its_floor(
    crowding: float, factor: float
) -> None:
    assert crowding_factor(crowding) == pytest.approx(factor)


@pytest.mark.parametrize(
    ("share", "factor"), [(0.5, 1.0), (0.4, 1.25), (0.8, 0.625), (1.0, 0.5), (0.1, 1.5), (0.0, 1.5)]
)
def test_the_rarer_side_counts_for_more_up_to_a_ceiling(share: float, factor: float) -> None:
    assert skew_factor(share) == pytest.approx(factor)


def test_the_penalty_is_off_before_a_hundred_calls() -> None:
    penalty = DiversityPenalty()
    penalty.take(calls("UU UD " * 49 + "UU"), [])
    assert penalty.factors() == {"UP": 1.0, "DOWN": 1.0}
    assert "shaping/crowding" not in penalty.metrics()
    penalty.take(calls("UD"), [])
    # 100 calls, all UP; 50 of the labels are: d = 0.5.
    assert penalty.metrics()["shaping/crowding"] == pytest.approx(0.5)
    assert penalty.factors() == {"UP": 0.3, "DOWN": 1.0}


def test_calling_down_too_often_is_penalised_the_same() -> None:
    penalty = DiversityPenalty()
    # 60 of 100 labels are UP and 40 of 100 calls: d = -0.2.
    penalty.take(calls("UU " * 40 + "DU " * 20 + "DD " * 40), [])
    assert penalty.factors() == {"UP": 1.0, "DOWN": pytest.approx(0.7)}


def test_who_is_simply_right_is_never_penalised() -> None:
    penalty = DiversityPenalty()
    penalty.take(calls("UU " * 190 + "DD " * 10), [])
    assert penalty.factors() == {"UP": 1.0, "DOWN": 1.0}


def test_only_the_newest_calls_count() -> None:
    penalty = DiversityPenalty()
    penalty.take(calls("UD " * 500), [])
    penalty.take(calls("UU DD " * (CALL_WINDOW // 2)), [])
    assert penalty.factors() == {"UP": 1.0, "DOWN": 1.0}
    assert penalty.metrics()["calls/window_n"] == CALL_WINDOW


def test_the_market_share_is_an_exponential_average_over_examples() -> None:
    skew = MarketSkew()
    assert skew.factors() == {"UP": 1.0, "DOWN": 1.0}
    skew.take([], ["UP", "UP"])
    share = 0.5 + 0.5 / 500
    share += (1 - share) / 500
    assert skew.metrics()["shaping/market_up_share"] == pytest.approx(share, abs=1e-12)
    assert skew.factors()["UP"] == pytest.approx(0.5 / share)


def test_always_up_and_always_down_earn_the_same_in_a_skewed_market() -> None:
    skew = MarketSkew()
    market: list[Direction] = ["UP", "UP", "UP", "DOWN", "DOWN"]
    for _ in range(1000):
        skew.take([], market)
    factors = skew.factors()
    # The average wanders by about 1 % with the place in the cycle.
    assert 3 * factors["UP"] == pytest.approx(2 * factors["DOWN"], rel=0.02)


def test_direction_and_magnitude_are_scaled_and_confidence_is_not() -> None:
    penalty = DiversityPenalty()
    penalty.take(calls("UU UD " * 50), [])
    (up, down, unread) = shape(
        [
            ("a", "UP", assessment("UP")),
            ("a", "UP", assessment("DOWN", right=False)),
            ("a", "UP", assessment(None, right=False)),
        ],
        penalty,
    )
    assert [component.factor for component in up.components] == [0.3, 0.3, 1.0]
    # 0.3·0.35 + 0.3·0.5·0.20 + 0.8·0.10
    assert up.reward == pytest.approx(0.215)
    assert down.reward == pytest.approx(-0.09)
    assert unread == assessment(None, right=False)


def test_a_batch_is_judged_by_what_came_before_it() -> None:
    penalty = DiversityPenalty()
    batch = [(f"{at}", "DOWN", assessment("UP", right=False)) for at in range(100)]
    first = shape(batch, penalty)  # type: ignore[arg-type]
    assert all(component.factor == 1.0 for one in first for component in one.components)
    second = shape(batch, penalty)  # type: ignore[arg-type]
    assert second[0].components[0].factor == 0.3


def test_an_example_with_many_completions_is_one_label() -> None:
    skew = MarketSkew()
    shape([("a", "UP", assessment("UP")) for _ in range(8)], skew)
    assert skew.metrics()["shaping/market_up_share"] == pytest.approx(0.5 + 0.5 / 500)


@pytest.mark.parametrize("name", sorted(SHAPINGS))
def test_its_state_survives_json(name: str) -> None:
    one, other = SHAPINGS[name](), SHAPINGS[name]()
    one.take(calls("UU UD DU " * 50), ["UP"] * 30)
    other.take(calls("DD"), ["DOWN"])
    other.restore(json.loads(json.dumps(one.state())))
    for shaping in (one, other):
        shaping.take(calls("UU DD"), ["UP"])
    assert one.metrics() == other.metrics()
    assert one.factors() == other.factors()


def test_without_shaping_rewards_stay_as_they_are() -> None:
    shaping = Shaping()
    shaping.take(calls("UD " * 200), ["DOWN"] * 200)
    (only,) = shape([("a", "UP", assessment("UP"))], shaping)
    assert only == assessment("UP")
    assert shaping.metrics()["calls/window_up_share"] == 1.0

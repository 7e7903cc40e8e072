"""What callers that read nothing score."""

import pytest

from engine.evaluation.baselines import best_baseline, simple_baselines


def test_simple_callers_by_hand() -> None:
    # Momentum is right on the first and the last but one; an unchanged day is never right.
    market_up = [True, True, False, True, False, False]
    baselines = simple_baselines(market_up, [0.4, -1.0, 2.0, 0.0, -0.1, 0.0])
    assert baselines == pytest.approx(
        {"baseline/always_up": 1 / 2, "baseline/always_down": 1 / 2, "baseline/momentum": 1 / 3}
    )
    assert simple_baselines([True, True, False, True], [1.0] * 4) == pytest.approx(
        {"baseline/always_up": 3 / 4, "baseline/always_down": 1 / 4, "baseline/momentum": 3 / 4}
    )


@pytest.mark.parametrize(
    ("metrics", "best"),
    [
        ({}, None),
        ({"accuracy": 0.9, "baseline/base_model": 0.8}, None),
        ({"baseline/always_up": 0.0}, ("always_up", 0.0)),
        (
            {"baseline/momentum": 0.55, "baseline/always_up": 0.52, "baseline/always_down": 0.48},
            ("momentum", 0.55),
        ),
        ({"baseline/momentum": 0.5, "baseline/always_down": 0.5}, ("always_down", 0.5)),
        ({"baseline/base_model": 0.9, "baseline/momentum": 0.5}, ("momentum", 0.5)),
    ],
)
def test_the_best_simple_caller(metrics: dict[str, float], best: tuple[str, float] | None) -> None:
    assert best_baseline(metrics) == best

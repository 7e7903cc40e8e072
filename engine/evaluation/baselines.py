"""What simple callers that read no prompt would score on the same rows."""

from collections.abc import Mapping, Sequence

SIMPLE = ("always_up", "always_down", "momentum")
"""Baselines that need neither a model nor a fit."""


def simple_baselines(market_up: Sequence[bool], day_changes: Sequence[float]) -> dict[str, float]:
    """Accuracy of each simple caller, under ``baseline/<name>``.

    ``momentum`` repeats the direction of the as-of day. An unchanged day gives it nothing to
    repeat, and so it is wrong.

    Args:
        market_up: (N,) whether the outcome was UP, N at least 1.
        day_changes: (N,) move of the as-of day in percent.
    """
    ups = sum(market_up) / len(market_up)
    repeated = [
        change > 0 if up else change < 0 for up, change in zip(market_up, day_changes, strict=True)
    ]
    return {
        "baseline/always_up": ups,
        "baseline/always_down": 1 - ups,
        "baseline/momentum": sum(repeated) / len(repeated),
    }


def best_baseline(metrics: Mapping[str, float]) -> tuple[str, float] | None:
    """Name (of ``SIMPLE``) and accuracy of the best simple caller among ``metrics``.

    Returns:
        None where none of them was measured; of equal ones the first of ``SIMPLE``.
    """
    values = {name: metrics.get(f"baseline/{name}") for name in SIMPLE}
    measured = [(name, value) for name, value in values.items() if value is not None]
    return max(measured, key=lambda one: one[1], default=None)

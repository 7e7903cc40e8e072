"""What simple callers that read no prompt would score on the same rows."""

from collections.abc import Mapping, Sequence

SIMPLE = ("always_up", "always_down", "momentum")
"""Baselines that need neither a model nor a fit."""


def right_calls(market_up: Sequence[bool], day_changes: Sequence[float]) -> dict[str, list[bool]]:
    """Which rows each caller that needs no fit has right.

    ``momentum`` repeats the direction of the as-of day, ``reversal`` calls the other one. An
    unchanged day gives them nothing to go by, and so they are wrong.

    Args:
        market_up: (N,) whether the outcome was UP.
        day_changes: (N,) move of the as-of day in percent.
    """
    moves = list(zip(market_up, day_changes, strict=True))
    return {
        "always_up": [bool(up) for up in market_up],
        "always_down": [not up for up in market_up],
        "momentum": [change > 0 if up else change < 0 for up, change in moves],
        "reversal": [change < 0 if up else change > 0 for up, change in moves],
    }


def simple_baselines(market_up: Sequence[bool], day_changes: Sequence[float]) -> dict[str, float]:
    """Accuracy of each of ``SIMPLE``, under ``baseline/<name>``.

    Args:
        market_up: (N,) whether the outcome was UP, N at least 1.
        day_changes: (N,) move of the as-of day in percent.
    """
    right = right_calls(market_up, day_changes)
    return {f"baseline/{name}": sum(right[name]) / len(right[name]) for name in SIMPLE}


def best_baseline(metrics: Mapping[str, float]) -> tuple[str, float] | None:
    """Name (of ``SIMPLE``) and accuracy of the best simple caller among ``metrics``.

    Returns:
        None where none of them was measured; of equal ones the first of ``SIMPLE``.
    """
    values = {name: metrics.get(f"baseline/{name}") for name in SIMPLE}
    measured = [(name, value) for name, value in values.items() if value is not None]
    return max(measured, key=lambda one: one[1], default=None)

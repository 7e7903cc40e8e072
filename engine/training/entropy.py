"""The policy's entropy and the floor under which it counts as collapsed."""

import statistics
from collections.abc import Mapping
from typing import Any

ENTROPY_FLOOR = 0.05
"""Nats a token. A completion of 48 tokens then holds 2.4 nats: about eleven different ones."""
START_SHARE = 0.25
"""Of the run's first entropy: a policy that starts sharp has not collapsed by being sharp."""
STEPS = 5
"""Steps of the mean that is judged, and of the mean that counts as the start."""


class Entropy:
    """Mean entropy of the newest steps, beside that of the run's first ones."""

    def __init__(self) -> None:
        self._start: list[float] = []
        self._recent: list[float] = []

    def take(self, metrics: Mapping[str, float]) -> None:
        """Take in the metrics of a step; one whose entropy is not known changes nothing."""
        value = metrics.get("entropy")
        if value is None:
            return
        if len(self._start) < STEPS:
            self._start.append(value)
        self._recent = [*self._recent[1 - STEPS :], value]

    @property
    def mean(self) -> float | None:
        """Nats a token over the newest ``STEPS`` steps; None before there are as many."""
        return statistics.fmean(self._recent) if len(self._recent) == STEPS else None

    @property
    def floor(self) -> float:
        """``min(ENTROPY_FLOOR, START_SHARE * entropy at the start)``, nats a token."""
        if len(self._start) < STEPS:
            return ENTROPY_FLOOR
        return min(ENTROPY_FLOOR, START_SHARE * statistics.fmean(self._start))

    @property
    def is_collapsed(self) -> bool:
        """Whether the mean is known and below the floor."""
        return self.mean is not None and self.mean < self.floor

    def state(self) -> dict[str, Any]:
        """JSON values from which ``restore`` makes the same object."""
        return {"start": list(self._start), "recent": list(self._recent)}

    @classmethod
    def restore(cls, state: Mapping[str, Any]) -> "Entropy":
        """The object that gave ``state``."""
        entropy = cls()
        entropy._start, entropy._recent = list(state["start"]), list(state["recent"])
        return entropy

"""How training rewards depend on what was called before: diversity penalty, market skew.

Both multiply the direction and magnitude components by a factor that the side of the call
decides, from statistics of earlier batches alone, so that the order inside a batch does not
matter. Confidence is never touched, and so stays proper. Validation is never shaped.
"""

from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

from engine.market.example import Direction
from engine.task import Assessment, ComponentScore

SHAPED_COMPONENTS = ("direction", "magnitude")

CALL_WINDOW = 200
"""Calls over which the called share is compared with the labels' share."""
LEAST_CALLS = 100
"""Calls before which the diversity penalty is off."""
CROWDING_TOLERANCE = 0.1
CROWDING_SLOPE = 3.0
LOWEST_FACTOR = 0.3

LABEL_WINDOW = 500
"""Labels over which the exponential average of the market's UP share reaches back."""
HIGHEST_FACTOR = 1.5


class Call(NamedTuple):
    """One call of a training batch and what the market did."""

    called: Direction
    market: Direction


class Shaping:
    """Rewards as they are scored; the newest calls are kept for the screen."""

    def __init__(self) -> None:
        self._calls: deque[Call] = deque(maxlen=CALL_WINDOW)

    def factors(self) -> dict[Direction, float]:
        """Factor on direction and magnitude for a call of each side."""
        return {"UP": 1.0, "DOWN": 1.0}

    def take(self, calls: Sequence[Call], labels: Sequence[Direction]) -> None:
        """Take in a batch: its calls that could be read, and the label of each example."""
        self._calls.extend(calls)

    def metrics(self) -> dict[str, float]:
        """What is worth showing of the statistics; what is not known is left out."""
        count = len(self._calls)
        if not count:
            return {}
        return {
            "calls/window_up_share": sum(call.called == "UP" for call in self._calls) / count,
            "market/window_up_share": sum(call.market == "UP" for call in self._calls) / count,
            "calls/window_n": float(count),
        }

    def state(self) -> dict[str, Any]:
        """JSON values from which ``restore`` makes the same statistics."""
        return {"calls": [list(call) for call in self._calls]}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Put what ``state`` gave back in place."""
        self._calls.clear()
        self._calls.extend(Call(called, market) for called, market in state["calls"])


class DiversityPenalty(Shaping):
    """Stage I: a side that is called more often than it occurs pays less.

    With d the share of UP among the last ``CALL_WINDOW`` calls minus the share of UP among the
    same examples' labels, the crowded side's factor is ``crowding_factor(d)``, the other's 1. A
    caller that is simply right has d = 0. Source: this project.
    """

    @property
    def crowding(self) -> float | None:
        """d in [-1, 1], above 0 where UP is crowded; None before ``LEAST_CALLS`` calls."""
        if len(self._calls) < LEAST_CALLS:
            return None
        surplus = sum((c.called == "UP") - (c.market == "UP") for c in self._calls)
        return surplus / len(self._calls)

    def factors(self) -> dict[Direction, float]:
        crowding = self.crowding or 0.0
        penalised = crowding_factor(crowding)
        return {
            "UP": penalised if crowding > 0 else 1.0,
            "DOWN": penalised if crowding < 0 else 1.0,
        }

    def metrics(self) -> dict[str, float]:
        crowding = self.crowding
        known = {} if crowding is None else {"shaping/crowding": crowding}
        return super().metrics() | known | _named(self.factors())


class MarketSkew(Shaping):
    """Stage II: a right call of the rarer side counts for more.

    A side's factor is ``skew_factor`` of its share among past labels, an exponential average
    over ``LABEL_WINDOW`` examples that starts at one half, so that always calling UP and always
    calling DOWN earn the same. Source: this project.
    """

    def __init__(self) -> None:
        super().__init__()
        self._up_share = 0.5

    def factors(self) -> dict[Direction, float]:
        return {"UP": skew_factor(self._up_share), "DOWN": skew_factor(1 - self._up_share)}

    def take(self, calls: Sequence[Call], labels: Sequence[Direction]) -> None:
        super().take(calls, labels)
        for label in labels:
            self._up_share += ((label == "UP") - self._up_share) / LABEL_WINDOW

    def metrics(self) -> dict[str, float]:
        share = {"shaping/market_up_share": self._up_share}
        return super().metrics() | share | _named(self.factors())

    def state(self) -> dict[str, Any]:
        return super().state() | {"up_share": self._up_share}

    def restore(self, state: Mapping[str, Any]) -> None:
        super().restore(state)
        self._up_share = float(state["up_share"])


SHAPINGS: dict[str, type[Shaping]] = {
    "diversity": DiversityPenalty,
    "market_skew": MarketSkew,
    "none": Shaping,
}
"""By the name that a configuration gives."""


def shape(
    judged: Sequence[tuple[str, Direction, Assessment]], shaping: Shaping
) -> list[Assessment]:
    """A batch's assessments with the factors of ``shaping``, which then takes the batch in.

    Args:
        judged: key and label of the example, and the assessment of one completion of it.
    """
    factors = shaping.factors()
    calls = []
    shaped = []
    for _, label, assessment in judged:
        side = _called(assessment)
        if side is None:
            shaped.append(assessment)
        else:
            calls.append(Call(side, label))
            components = _with_factor(assessment.components, factors[side])
            shaped.append(replace(assessment, components=components))
    shaping.take(calls, list({key: label for key, label, _ in judged}.values()))
    return shaped


def crowding_factor(crowding: float) -> float:
    """``max(0.3, 1 - 3 max(0, |d| - 0.1))`` for a crowding d, in [0.3, 1]."""
    excess = max(0.0, abs(crowding) - CROWDING_TOLERANCE)
    return max(LOWEST_FACTOR, 1 - CROWDING_SLOPE * excess)


def skew_factor(share: float) -> float:
    """``min(1.5, 0.5 / share)`` for a side with that share of the labels, in [0.5, 1.5]."""
    return HIGHEST_FACTOR if share <= 0 else min(HIGHEST_FACTOR, 0.5 / share)


def _called(assessment: Assessment) -> Direction | None:
    match assessment.prediction["direction"]:
        case "UP":
            return "UP"
        case "DOWN":
            return "DOWN"
        case _:
            return None


def _with_factor(components: Sequence[ComponentScore], factor: float) -> tuple[ComponentScore, ...]:
    return tuple(
        replace(component, factor=factor) if component.name in SHAPED_COMPONENTS else component
        for component in components
    )


def _named(factors: Mapping[Direction, float]) -> dict[str, float]:
    return {"shaping/up_factor": factors["UP"], "shaping/down_factor": factors["DOWN"]}

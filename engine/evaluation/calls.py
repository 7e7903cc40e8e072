"""Metrics of direction calls under flat names; what is not known is left out, never 0.

An unread completion counts as a wrong call. What is about stated probabilities (``confidence/…``,
``brier…``, ``ece…``) is measured on the ``confidence/n`` calls that state one; ``auc`` takes
the rest as 0.5.
"""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from engine.evaluation import scores
from engine.evaluation.baselines import simple_baselines
from engine.evaluation.intervals import day_bootstrap, wilson
from engine.task import Assessment, Item


class Call(NamedTuple):
    """What the metrics need of one judged completion."""

    day: str
    """As-of day, ISO 8601; calls on the same day share the market's mood."""
    market_up: bool
    called_up: bool | None
    """None for a completion that could not be read."""
    confidence: float | None
    """Stated probability of being right, [0, 1]."""
    day_change: float
    """Move of the as-of day in percent, which momentum repeats."""

    @property
    def right(self) -> bool:
        """Whether the call was read and the market went its way."""
        return self.called_up == self.market_up

    @property
    def probability_up(self) -> float:
        """Confidence signed by direction: q for UP, 1 - q for DOWN, 0.5 where none is stated."""
        if self.called_up is None or self.confidence is None:
            return 0.5
        # UP at 30 % and DOWN at 70 % say the same, which 1 - 0.7 in binary does not.
        return round(self.confidence if self.called_up else 1 - self.confidence, 9)

    @classmethod
    def of(cls, item: Item, assessment: Assessment) -> "Call":
        """The call of an assessed completion of the direction call."""
        direction = assessment.prediction["direction"]
        confidence = assessment.prediction["confidence"]
        day, day_change = item.subject["as_of"], item.subject["day_change"]
        assert isinstance(day, str)
        assert isinstance(day_change, float)
        return cls(
            day=day,
            market_up=item.subject["actual_direction"] == "UP",
            called_up=None if direction is None else direction == "UP",
            confidence=confidence if isinstance(confidence, float) else None,
            day_change=day_change,
        )


def batch_metrics(judged: Sequence[tuple[Item, Assessment]]) -> dict[str, float]:
    """Metrics of any set of judged completions; none of no completions.

    ``brier/base_rate`` is what always stating the share of UP among the same calls, p, would
    score: p(1 - p). ``accuracy/up`` is the share right among the rows that went up.
    """
    if not judged:
        return {}
    calls = [Call.of(item, assessment) for item, assessment in judged]
    return {
        **_accuracy_metrics(calls),
        **_confidence_metrics(calls),
        **simple_baselines([call.market_up for call in calls], [call.day_change for call in calls]),
        **_reward_metrics([assessment for _, assessment in judged]),
    }


def validation_metrics(judged: Sequence[tuple[Item, Assessment]], *, seed: int) -> dict[str, float]:
    """Metrics of a validation: those of a batch, and those that need one call a row.

    ``accuracy/balanced`` is the mean of the accuracies of both sides (Brodersen et al. 2010,
    doi 10.1109/ICPR.2010.764), ``brier/skill`` is 1 - brier / base rate (Murphy 1988): above 0
    is better than stating the share of UP. ``ece/calibrated`` is the ``ece`` that chance
    would give a perfectly calibrated caller with the same confidences.

    Args:
        seed: decides the draws of the interval over days.
    """
    metrics = batch_metrics(judged)
    calls = [Call.of(item, assessment) for item, assessment in judged]
    return {
        **metrics,
        **_day_metrics(calls, seed),
        **_skill_metrics(metrics),
        **_probability_metrics(calls),
    }


def _mean(values: Iterable[float]) -> float:
    numbers = list(values)
    return sum(numbers) / len(numbers)


def _accuracy_metrics(calls: Sequence[Call]) -> dict[str, float]:
    read = [call for call in calls if call.called_up is not None]
    metrics = {
        "market/up_share": _mean(call.market_up for call in calls),
        "parsed": len(read) / len(calls),
        **_share_right("accuracy", "accuracy/", calls),
        **_share_right("accuracy/up", "accuracy/up_", [c for c in calls if c.market_up]),
        **_share_right("accuracy/down", "accuracy/down_", [c for c in calls if not c.market_up]),
    }
    if read:
        metrics["calls/up_share"] = _mean(bool(call.called_up) for call in read)
    return metrics


def _share_right(name: str, prefix: str, calls: Sequence[Call]) -> dict[str, float]:
    """The share of calls that are right, its Wilson interval and their number."""
    if not calls:
        return {}
    hits = sum(call.right for call in calls)
    low, high = wilson(hits, len(calls))
    return {
        name: hits / len(calls),
        f"{prefix}n": float(len(calls)),
        f"{prefix}low": low,
        f"{prefix}high": high,
    }


def _stated(calls: Sequence[Call]) -> tuple[list[float], list[Call]]:
    """The confidences stated, and the calls that state them."""
    pairs = [
        (call.confidence, call)
        for call in calls
        if call.called_up is not None and call.confidence is not None
    ]
    return [confidence for confidence, _ in pairs], [call for _, call in pairs]


def _confidence_metrics(calls: Sequence[Call]) -> dict[str, float]:
    confidences, stated = _stated(calls)
    if not stated:
        return {}
    right = [call.right for call in stated]
    up_share = _mean(call.market_up for call in stated)
    return {
        "confidence/n": float(len(stated)),
        "confidence/mean": _mean(confidences),
        "confidence/hit_rate": _mean(right),
        "brier": scores.brier(confidences, right),
        "brier/base_rate": up_share * (1 - up_share),
    }


def _reward_metrics(assessments: Sequence[Assessment]) -> dict[str, float]:
    metrics = {"reward/total": _mean(assessment.reward for assessment in assessments)}
    for at, component in enumerate(assessments[0].components):
        metrics[f"reward/{component.name}"] = _mean(a.components[at].value for a in assessments)
    for name in ("total", "prediction", "reasoning"):
        metrics[f"rubric/{name}"] = _mean(a.rubric[name] for a in assessments)
    return metrics


def _day_metrics(calls: Sequence[Call], seed: int) -> dict[str, float]:
    if not calls:
        return {}
    days = [call.day for call in calls]
    metrics = {"accuracy/days": float(len(set(days)))}
    interval = day_bootstrap([call.right for call in calls], days, seed=seed)
    if interval is not None:
        metrics["accuracy/day_low"], metrics["accuracy/day_high"] = interval
    return metrics


def _skill_metrics(metrics: dict[str, float]) -> dict[str, float]:
    skills = {}
    if "accuracy/up" in metrics and "accuracy/down" in metrics:
        skills["accuracy/balanced"] = (metrics["accuracy/up"] + metrics["accuracy/down"]) / 2
    # A base rate of 0, all rows on one side, leaves nothing to be better than.
    if metrics.get("brier/base_rate"):
        skills["brier/skill"] = 1 - metrics["brier"] / metrics["brier/base_rate"]
    return skills


def _probability_metrics(calls: Sequence[Call]) -> dict[str, float]:
    metrics = {}
    auc = scores.roc_auc(
        [call.probability_up for call in calls], [call.market_up for call in calls]
    )
    if auc is not None:
        metrics["auc"] = auc
    confidences, stated = _stated(calls)
    if stated:
        error, by_chance = scores.calibration_error(confidences, [call.right for call in stated])
        metrics["ece"], metrics["ece/calibrated"] = error, by_chance
    return metrics

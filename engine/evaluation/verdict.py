"""The verdict on one checkpoint in words, by the rules written in ``docs/evaluation.md``."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any, Literal, Protocol

Word = Literal["no evidence", "weak", "strong", "suspect leakage"]

CHANCE = 0.5
STRONG_BOUND = 0.52
"""A strong verdict needs the lower bound above this."""
STRONG_ROWS, STRONG_DAYS = 200, 60
"""As many rows and days as the accuracy light asks for."""
SUITE_ACCURACY = 0.60
"""Above this on real next-day data the leakage suite has to be green."""
UNBELIEVABLE_BOUND = 0.70
"""A lower bound above this on real data is taken for leakage whatever the suite says."""
CONSTANT_CALLERS = ("always_up", "always_down")
_NAMES = {
    "always_up": "always UP",
    "always_down": "always DOWN",
    "logistic": "the logistic regression",
    "base_model": "the untrained base model",
}


class Suite(Protocol):
    """The leakage suite's result."""

    @property
    def green(self) -> bool:
        """Whether no check found a leak."""
        ...

    @property
    def failed(self) -> Sequence[str]:
        """Names of the checks that did."""
        ...


class Circumstances(Protocol):
    """What the verdict needs of an evaluation's context."""

    @property
    def is_synthetic(self) -> bool:
        """Whether the source is marked as made up."""
        ...

    @property
    def overlaps_training(self) -> bool:
        """Whether the dates overlap those of training, forced by a person."""
        ...

    @property
    def trials(self) -> int:
        """Distinct checkpoints ever evaluated on this split."""
        ...

    @property
    def leakage(self) -> Suite | None:
        """None where the suite did not run."""
        ...


@dataclass(frozen=True)
class Verdict:
    """A word and the reasons for it, a sentence each."""

    word: Word
    reasons: tuple[str, ...]


def verdict(summary: Mapping[str, Any], context: Circumstances) -> Verdict:
    """Judge one checkpoint.

    Args:
        summary: its part of ``summary.summarise``.
        context: of the evaluation.
    """
    measured = _measured(summary)
    suspicions = _suspicions(summary["accuracy"], context)
    if suspicions:
        return Verdict("suspect leakage", (*suspicions, *measured))
    objections = _objections(summary, context)
    if objections:
        return Verdict("no evidence", (*objections, *measured))
    doubts = _doubts(summary, context)
    notes = _notes(summary, context)
    if doubts:
        return Verdict(
            "weak", (*measured, "It is better than chance and a constant call.", *doubts)
        )
    return Verdict("strong", (*measured, "It is better than every baseline here.", *notes))


def lower_bound(value: Mapping[str, Any], trials: int) -> float | None:
    """Lower bound that holds for the best of ``trials`` checkpoints, None without an interval.

    Bonferroni: the 95 % interval's lower arm, stretched as the normal quantile for a level of
    ``1 - 0.05 / trials`` is. The best of many tries looks good by luck alone.
    """
    if value["value"] is None or value["low"] is None:
        return None
    quantile = NormalDist().inv_cdf
    stretch = quantile(1 - 0.025 / trials) / quantile(0.975)
    return float(value["value"] - (value["value"] - value["low"]) * stretch)


def _suspicions(accuracy: Mapping[str, Any], context: Circumstances) -> list[str]:
    reasons = []
    if context.leakage is not None and not context.leakage.green:
        failed = ", ".join(context.leakage.failed)
        reasons.append(f"The leakage suite is red: {failed}.")
    low = accuracy["low"]
    if not context.is_synthetic and low is not None and low > UNBELIEVABLE_BOUND:
        reasons.append(
            f"The lower bound of its accuracy, {_percent(low)}, lies above"
            f" {_percent(UNBELIEVABLE_BOUND, 0)}: nobody reaches that on real prices without"
            " knowing the outcome."
        )
    return reasons


def _objections(summary: Mapping[str, Any], context: Circumstances) -> list[str]:
    """Why there is no evidence at all."""
    accuracy = summary["accuracy"]
    if accuracy["value"] is None or accuracy["low"] is None:
        return [f"Nothing can be said: {accuracy['why']}."]
    reasons = []
    if context.overlaps_training:
        reasons.append("Its training may have seen these days, so they say nothing about others.")
    low = lower_bound(accuracy, context.trials)
    if low is not None and low <= CHANCE:
        reasons.append(
            f"{_bound(context.trials)} of its accuracy, {_percent(low)}, does not pass"
            f" {_percent(CHANCE, 0)}."
        )
    return [*reasons, *_not_beaten(summary, CONSTANT_CALLERS, context.trials)]


def _doubts(summary: Mapping[str, Any], context: Circumstances) -> list[str]:
    """Why evidence that there is, is weak."""
    accuracy = summary["accuracy"]
    low = lower_bound(accuracy, context.trials)
    reasons = []
    if low is not None and low <= STRONG_BOUND:
        reasons.append(
            f"{_bound(context.trials)} of its accuracy, {_percent(low)}, does not pass"
            f" {_percent(STRONG_BOUND, 0)}."
        )
    if summary["n"] < STRONG_ROWS or summary["days"] < STRONG_DAYS:
        reasons.append(f"A strong verdict takes {STRONG_ROWS} rows on {STRONG_DAYS} days.")
    if summary["horizon"] > 1:
        reasons.append(
            f"Outcomes lie {summary['horizon']} days ahead and overlap, so the intervals are too"
            " narrow."
        )
    if not context.is_synthetic and context.leakage is None and accuracy["value"] > SUITE_ACCURACY:
        reasons.append(
            f"An accuracy above {_percent(SUITE_ACCURACY, 0)} on real prices needs the leakage"
            " suite, which did not run."
        )
    others = [name for name in summary["baselines"] if name not in CONSTANT_CALLERS]
    return [*reasons, *_not_beaten(summary, others, context.trials)]


def _not_beaten(summary: Mapping[str, Any], names: Sequence[str], trials: int) -> list[str]:
    """A sentence for each baseline that is measured and not beaten beyond doubt."""
    reasons = []
    for name in names:
        baseline = summary["baselines"][name]
        low = lower_bound(baseline["difference"], trials)
        if baseline["accuracy"]["value"] is not None and (low is None or low <= 0):
            reasons.append(
                f"It is not clearly better than {_name(name)} on the same rows,"
                f" {_percent(baseline['accuracy']['value'])}."
            )
    return reasons


def _notes(summary: Mapping[str, Any], context: Circumstances) -> list[str]:
    """What a reader of a strong verdict should know."""
    notes = [
        f"Not compared with {_name(name)}: {baseline['accuracy']['why']}."
        for name, baseline in summary["baselines"].items()
        if baseline["accuracy"]["value"] is None
    ]
    if context.leakage is not None:
        notes.append("The leakage suite is green.")
    if context.is_synthetic:
        notes.append("The source is made up: it says nothing about real prices.")
    return notes


def _measured(summary: Mapping[str, Any]) -> list[str]:
    """A sentence with the accuracy and what it has to beat; none where there is no accuracy."""
    accuracy = summary["accuracy"]
    if accuracy["value"] is None:
        return []
    interval = (
        f" [{100 * accuracy['low']:.1f}, {100 * accuracy['high']:.1f}]"
        if accuracy["low"] is not None
        else ""
    )
    majority = summary["baselines"][summary["majority"]]["accuracy"]["value"]
    return [
        f"Right in {_percent(accuracy['value'])}{interval} of {accuracy['n']:,} rows on"
        f" {summary['days']:,} days; {_name(summary['majority'])} in {_percent(majority)}."
    ]


def _bound(trials: int) -> str:
    if trials == 1:
        return "The lower bound"
    return f"The lower bound for the best of {trials} checkpoints tried on this split"


def _name(baseline: str) -> str:
    return _NAMES.get(baseline, baseline)


def _percent(share: float, digits: int = 1) -> str:
    return f"{100 * share:.{digits}f} %"

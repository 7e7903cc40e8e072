"""Alarms that validations raise: reward without accuracy, accuracy too good to be true."""

import math
from collections.abc import Sequence

from engine.evaluation.baselines import best_baseline
from engine.text import one_line
from engine.training.alarms.reading import Reading
from engine.training.alarms.stream import VALIDATIONS, Checked, Mean, Stream
from engine.training.milestones import ACCURACY_THRESHOLD, accuracy_doubt

RISE_RAISED, RISE_OVER = 0.05, 0.02
"""Rise of the training reward between the older and the newer half of the validations."""
RISE_Z = 2.0
"""Standard errors that the rise has to be above 0."""
LEAST_CALLS = 200
"""Validation calls in each half before they are compared."""
ACCURACY_Z = 2.0
ACCURACY_OVER = 0.05
"""Rise of validation accuracy that ends the alarm."""
PARSED_RISE = 0.05
"""Rise of the training parse rate above which the reward rises with what can be read."""


def reward_hacking(stream: Stream) -> Reading | None:
    """Training reward rising over the last four validations while validation accuracy is not.

    The newer two validations, and the training steps that led to each, against the older two.
    Suspected when the reward rose by more than 0.05 and two standard errors, and accuracy
    either did not rise (by one standard error, or by as much as the reward with one to spare) and
    has not risen by two since the run's first validation either, or fell by two. A rise that is
    earned by better calls brings more accuracy than reward, as long as a right call is paid less
    than 1 more than a wrong one. A parse rate that rises by more than 0.05 excuses it.
    """
    if len(stream.checked) < VALIDATIONS:
        return None
    older, newer = (
        list(stream.checked)[: VALIDATIONS // 2],
        list(stream.checked)[VALIDATIONS // 2 :],
    )
    before, after = _accuracy(older), _accuracy(newer)
    rise = _rise("reward/total", older, newer)
    if min(before[1], after[1]) < LEAST_CALLS or rise is None or stream.first_validation is None:
        return None
    first = stream.first_validation["accuracy"], stream.first_validation["accuracy/n"]
    gain = after[0] - before[0]
    has_learnt = after[0] - first[0] > ACCURACY_Z * _error(first, after)
    error = _error(before, after)
    is_level = gain < min(error, rise.value - error)
    has_fallen = gain < -ACCURACY_Z * error
    is_rising = rise.value > RISE_RAISED and rise.value > RISE_Z * math.sqrt(rise.variance)
    parsed = _rise("parsed", older, newer)
    is_excused = parsed is not None and parsed.value > PARSED_RISE
    name, contribution = _riser(stream, older, newer)
    return Reading(
        value=rise.value,
        threshold=RISE_RAISED,
        is_raised=is_rising and not is_excused and (has_fallen or (is_level and not has_learnt)),
        is_over=rise.value < RISE_OVER or gain > ACCURACY_OVER,
        title=(
            f"{name} up: reward {rise.value:+.2f}, accuracy {100 * gain:+.0f} pts n={after[1]:.0f}"
        ),
        explanation=(
            "The training reward rose over the last four validations and accuracy on unseen days "
            f"did not. Component {name} rose most by weight ({contribution:+.3f}): it may be paid "
            "for something that looks good and is not, or the policy learns the training examples "
            "by heart. Better calibration or better citing also raise the reward honestly."
        ),
        advice=(
            f"Read rollouts with a high {name}: are they better, or only better paid? If only "
            "paid, lower its weight in the reward scheme. If direction or magnitude rose, train "
            "on more examples (data.max_train_samples) or stop earlier (schedule.patience)."
        ),
    )


def suspect_leakage(stream: Stream) -> Reading | None:
    """A validation that meets the accuracy indicator, on prices that are not made up."""
    metrics = stream.validation
    if stream.settings.synthetic or "accuracy" not in metrics:
        return None
    accuracy, count = metrics["accuracy"], metrics.get("accuracy/n", 0.0)
    interval = ""
    if "accuracy/day_low" in metrics and "accuracy/day_high" in metrics:
        low, high = metrics["accuracy/day_low"], metrics["accuracy/day_high"]
        interval = f" [{100 * low:.0f}, {100 * high:.0f}]"
    baseline = best_baseline(metrics)
    beside = f" ({baseline[0]}) is right {100 * baseline[1]:.0f} %" if baseline else " is unknown"
    is_reached = not accuracy_doubt(metrics)
    return Reading(
        value=accuracy,
        threshold=ACCURACY_THRESHOLD,
        is_raised=is_reached,
        is_over=not is_reached,
        title=f"accuracy {100 * accuracy:.0f} %{interval} n={count:.0f}: a leak?",
        explanation=(
            "Nobody has shown such accuracy on the next day's direction of real prices; the best "
            f"simple baseline on these rows{beside}. Far more likely, something of the outcome "
            "reached the prompt, or validation days are near copies of training days."
        ),
        advice=(
            "Run `stonk-tui data check --source` with this run's data.source, which proves that no "
            "example holds anything from its future. Then open validation rollouts and see which "
            "fact decides, and try data.style masked and a longer data.embargo. Do not promote "
            "before that."
        ),
    )


def _rise(name: str, older: Sequence[Checked], newer: Sequence[Checked]) -> Mean | None:
    """Difference of means of the halves with its variance; None where one does not know it."""
    if not all(name in one.training for one in (*older, *newer)):
        return None
    now, then = [[one.training[name] for one in half] for half in (newer, older)]
    value = sum(one.value for one in now) / len(now) - sum(one.value for one in then) / len(then)
    variance = sum(one.variance for one in now) / len(now) ** 2
    return Mean(value, variance + sum(one.variance for one in then) / len(then) ** 2)


def _accuracy(half: Sequence[Checked]) -> tuple[float, float]:
    """(accuracy, calls) pooled over the validations of a half."""
    calls = sum(one.metrics["accuracy/n"] for one in half)
    right = sum(one.metrics["accuracy"] * one.metrics["accuracy/n"] for one in half)
    return right / calls, calls


def _error(first: tuple[float, float], second: tuple[float, float]) -> float:
    """Standard error of the difference of two shares given as (share, number)."""
    return math.sqrt(sum(share * (1 - share) / count for share, count in (first, second)))


def _riser(stream: Stream, older: Sequence[Checked], newer: Sequence[Checked]) -> tuple[str, float]:
    """The component that added most to the reward's rise, and how much."""
    rises = {
        name: weight * rise.value
        for name, weight in stream.settings.weights.items()
        if (rise := _rise(f"reward/{name}", older, newer)) is not None
    }
    if not rises:
        return "no component", 0.0
    name = max(rises, key=lambda one: rises[one])
    return one_line(name, 16), rises[name]


RULES = {
    "reward_hacking": reward_hacking,
    "suspect_leakage": suspect_leakage,
}
"""Judged after every validation."""

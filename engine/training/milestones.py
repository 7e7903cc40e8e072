"""The four "Super Saiyan" indicators and the power level, folded from the metric stream.

Nothing but metrics that were recorded anyway goes in, so that folding the stored events of a
run again gives the same indicators. All four on is a suggestion, never a decision. Metrics must
be finite: what is not known is left out (``engine.training.watch`` sees to that).
"""

import math
import statistics
from collections import deque
from collections.abc import Mapping
from typing import Any

from engine.evaluation.baselines import best_baseline
from engine.training.entropy import Entropy
from engine.training.trend import trend_t

REWARD_THRESHOLD = 0.70
REWARD_STREAK = 10
ACCURACY_THRESHOLD = 0.80
ACCURACY_STREAK = 2
ACCURACY_SAMPLES = 200
ACCURACY_DAYS = 60
CHANCE = 0.5
"""Accuracy from which progress towards the threshold is counted."""
REASONING_THRESHOLD = 0.30
SETTLED_T = 2.0
SETTLED_RANGE = 0.05
"""Largest spread of two or three validation rewards that counts as level."""
ZERO_VARIANCE_LIMIT = 0.5
ZERO_VARIANCE_STEPS = 20

FULL_POWER = 9001
_POWER_BELOW = 9000
_VALUE_SHARE = 0.8
"""Of an indicator's progress: the value; the rest is its streak."""


class Milestones:
    """State of the four indicators; survives a resume through ``state`` and ``restore``."""

    def __init__(self, settle_window: int) -> None:
        """``settle_window``: steps without a trend that the indicator ``settled`` asks for."""
        self._window = settle_window
        self._steps = 0
        self._reward: float | None = None
        self._reward_streak = 0
        self._accuracy: float | None = None
        self._accuracy_streak = 0
        self._accuracy_doubt = "not validated yet"
        self._reasoning: float | None = None
        self._reasoning_streak = 0
        self._entropy = Entropy()
        self._zero_variance: deque[float] = deque(maxlen=ZERO_VARIANCE_STEPS)
        self._losses: deque[tuple[int, float]] = deque()
        self._validations: deque[tuple[int, float]] = deque()

    def after_step(self, step: int, metrics: Mapping[str, float]) -> None:
        """Take in the metrics of one GRPO step."""
        self._steps = step
        if "rubric/total" in metrics:
            self._reward = metrics["rubric/total"]
            self._reward_streak = self._reward_streak + 1 if self._reward > REWARD_THRESHOLD else 0
        self._entropy.take(metrics)
        if "groups/zero_variance" in metrics:
            self._zero_variance.append(metrics["groups/zero_variance"])
        if "loss" in metrics:
            self._losses.append((step, metrics["loss"]))
        while self._losses and self._losses[0][0] <= step - self._window:
            self._losses.popleft()
        # The newest validation before the window stays: it is where the window begins.
        while len(self._validations) > 1 and self._validations[1][0] <= step - self._window:
            self._validations.popleft()

    def after_validation(self, step: int, metrics: Mapping[str, float]) -> None:
        """Take in the metrics of one validation."""
        if "accuracy" in metrics:
            self._accuracy = metrics["accuracy"]
            doubt = accuracy_doubt(metrics)
            self._accuracy_streak = 0 if doubt else self._accuracy_streak + 1
            self._accuracy_doubt = doubt or ""
        if "rubric/reasoning" in metrics:
            self._reasoning = metrics["rubric/reasoning"]
            is_good = self._reasoning >= REASONING_THRESHOLD
            self._reasoning_streak = self._reasoning_streak + 1 if is_good else 0
        if "reward/total" in metrics:
            self._validations.append((step, metrics["reward/total"]))

    @property
    def is_super_saiyan(self) -> bool:
        """Whether all four are on."""
        return all(indicator["on"] for indicator in self.indicators())

    @property
    def power(self) -> int:
        """9001 when all four indicators are on, else 0 to 8999.

        The mean over the four of their progress, times 9000 and rounded down. Progress is 1 for
        an indicator that is on; else ``0.8 · c + 0.2 · streak / needed``, with c in [0, 1] how
        far its value is on the way to the threshold: rubric reward from 0, accuracy from 0.5,
        reasoning from 0, and for ``settled`` the least of 2 / |t| and 0.05 / range (0 while the
        window is not full or the policy has collapsed). Source: this project.
        """
        indicators = self.indicators()
        if all(one["on"] for one in indicators):
            return FULL_POWER
        ways = (
            _way(self._reward, 0.0, REWARD_THRESHOLD),
            _way(self._accuracy, CHANCE, ACCURACY_THRESHOLD),
            _way(self._reasoning, 0.0, REASONING_THRESHOLD),
            self._levelness(),
        )
        total = 0.0
        for indicator, way in zip(indicators, ways, strict=True):
            # Short of a streak's end the sum below stays under 1.
            part = min(indicator["streak"], indicator["needed"] - 1) / indicator["needed"]
            total += 1.0 if indicator["on"] else _VALUE_SHARE * way + (1 - _VALUE_SHARE) * part
        return math.floor(_POWER_BELOW * total / len(indicators))

    def indicators(self) -> list[dict[str, Any]]:
        """Of each: name, value, threshold, on, streak, needed, and ``why`` it is not on."""
        doubt = self._unsettled()
        return [
            _indicator(
                "reward",
                self._reward,
                REWARD_THRESHOLD,
                self._reward_streak,
                REWARD_STREAK,
                f"above {REWARD_THRESHOLD:.2f} in {self._reward_streak} of {REWARD_STREAK} batches",
            ),
            _indicator(
                "accuracy",
                self._accuracy,
                ACCURACY_THRESHOLD,
                self._accuracy_streak,
                ACCURACY_STREAK,
                self._accuracy_doubt
                or f"{self._accuracy_streak} of {ACCURACY_STREAK} validations in a row",
            ),
            _indicator(
                "reasoning",
                self._reasoning,
                REASONING_THRESHOLD,
                self._reasoning_streak,
                1,
                "not validated yet"
                if self._reasoning is None
                else f"{self._reasoning:.2f} of {REASONING_THRESHOLD:.2f}",
            ),
            _indicator("settled", self._steepness(), SETTLED_T, int(not doubt), 1, doubt),
        ]

    def state(self) -> dict[str, Any]:
        """JSON values from which ``restore`` makes the same object."""
        return {
            "steps": self._steps,
            "reward": self._reward,
            "reward_streak": self._reward_streak,
            "accuracy": self._accuracy,
            "accuracy_streak": self._accuracy_streak,
            "accuracy_doubt": self._accuracy_doubt,
            "reasoning": self._reasoning,
            "reasoning_streak": self._reasoning_streak,
            "entropy": self._entropy.state(),
            "zero_variance": list(self._zero_variance),
            "losses": [list(point) for point in self._losses],
            "validations": [list(point) for point in self._validations],
        }

    @classmethod
    def restore(cls, settle_window: int, state: Mapping[str, Any]) -> "Milestones":
        """The object that gave ``state``."""
        milestones = cls(settle_window)
        milestones._steps = state["steps"]
        milestones._reward = state["reward"]
        milestones._reward_streak = state["reward_streak"]
        milestones._accuracy = state["accuracy"]
        milestones._accuracy_streak = state["accuracy_streak"]
        milestones._accuracy_doubt = state["accuracy_doubt"]
        milestones._reasoning = state["reasoning"]
        milestones._reasoning_streak = state["reasoning_streak"]
        milestones._entropy = Entropy.restore(state["entropy"])
        milestones._zero_variance.extend(state["zero_variance"])
        milestones._losses.extend((step, value) for step, value in state["losses"])
        milestones._validations.extend((step, value) for step, value in state["validations"])
        return milestones

    def _unsettled(self) -> str:
        """Why the course has not settled, in a few words; empty where it has."""
        if self._steps < self._window:
            return f"{self._steps} of {self._window} steps"
        loss, reward, spread = self._loss_t(), self._reward_t(), self._reward_range()
        if loss is None:
            return "loss unknown in most steps"
        if abs(loss) >= SETTLED_T:
            return f"loss still moves: |t| {abs(loss):.1f}"
        if reward is not None and abs(reward) >= SETTLED_T:
            return f"validation reward still moves: |t| {abs(reward):.1f}"
        if reward is None and spread is None:
            return f"{len(self._validations)} of 2 validations"
        if spread is not None and spread >= SETTLED_RANGE:
            return f"validation reward still moves: by {spread:.2f}"
        return self._collapse()

    def _collapse(self) -> str:
        """What speaks for a policy that has become a constant; empty where nothing does."""
        if self._entropy.mean is None or not self._zero_variance:
            return "entropy or groups unknown"
        if self._entropy.is_collapsed:
            return f"entropy {self._entropy.mean:.3f} below {self._entropy.floor:.3f}"
        flat = statistics.fmean(self._zero_variance)
        if flat >= ZERO_VARIANCE_LIMIT:
            return f"{100 * flat:.0f} % of groups without contrast"
        return ""

    def _loss_t(self) -> float | None:
        """Trend of the loss over the window; None where fewer than half of its steps have one."""
        if 2 * len(self._losses) < self._window:
            return None
        return trend_t(self._losses)

    def _reward_t(self) -> float | None:
        """Trend of the validation reward; None for fewer than four validations."""
        return trend_t(self._validations) if len(self._validations) >= 4 else None

    def _reward_range(self) -> float | None:
        """Largest less smallest of two or three validation rewards, for which t says little."""
        if len(self._validations) not in (2, 3):
            return None
        rewards = [reward for _, reward in self._validations]
        return max(rewards) - min(rewards)

    def _steepness(self) -> float | None:
        """The larger |t| of loss and validation reward; None before the window is full."""
        if self._steps < self._window:
            return None
        known = [abs(t) for t in (self._loss_t(), self._reward_t()) if t is not None]
        return max(known, default=None)

    def _levelness(self) -> float:
        steepness, spread = self._steepness(), self._reward_range()
        if steepness is None or self._collapse():
            return 0.0
        ways = [1.0]
        if steepness > 0:
            ways.append(SETTLED_T / steepness)
        if spread:
            ways.append(SETTLED_RANGE / spread)
        return min(ways)


def accuracy_doubt(metrics: Mapping[str, float]) -> str:
    """Why the accuracy of one validation does not count as reached; empty where it does.

    It counts above 80 %, over at least 200 calls on at least 60 days, and with the lower 95 %
    bound of the bootstrap over days above the best simple baseline on the same rows.
    """
    accuracy = metrics["accuracy"]
    count, days = metrics.get("accuracy/n", 0.0), metrics.get("accuracy/days", 0.0)
    low, baseline = metrics.get("accuracy/day_low"), best_baseline(metrics)
    if count < ACCURACY_SAMPLES:
        return f"n={count:.0f} of {ACCURACY_SAMPLES}"
    if days < ACCURACY_DAYS:
        return f"{days:.0f} of {ACCURACY_DAYS} days"
    if accuracy <= ACCURACY_THRESHOLD:
        return f"{100 * accuracy:.0f} % of {100 * ACCURACY_THRESHOLD:.0f} %"
    if low is None or baseline is None:
        return "no interval or no baseline"
    name, value = baseline
    if low <= value:
        return f"lower bound {100 * low:.0f} %, {name} {100 * value:.0f} %"
    return ""


def _indicator(
    name: str, value: float | None, threshold: float, streak: int, needed: int, why: str
) -> dict[str, Any]:
    is_on = streak >= needed
    return {
        "name": name,
        "value": value,
        "threshold": threshold,
        "on": is_on,
        "streak": streak,
        "needed": needed,
        "why": "" if is_on else why,
    }


def _way(value: float | None, start: float, threshold: float) -> float:
    """How far ``value`` is from ``start`` to ``threshold``, in [0, 1]."""
    if value is None:
        return 0.0
    return min(1.0, max(0.0, (value - start) / (threshold - start)))

"""The four "Super Saiyan" indicators, as values with thresholds and streaks.

Each is a plain function of metrics that were recorded anyway, so that the same stream
of metrics gives the same indicators. All four on is a suggestion, never a decision.
"""

import math
from collections import deque
from dataclasses import dataclass, field
from typing import Any

from engine.task import Json

REWARD_THRESHOLD = 0.70
REWARD_STREAK = 10
ACCURACY_THRESHOLD = 0.80
ACCURACY_STREAK = 2
ACCURACY_SAMPLES = 200
REASONING_THRESHOLD = 0.30
SETTLED_T = 2.0
SETTLED_WINDOW = 15
ZERO_VARIANCE_LIMIT = 0.5


@dataclass
class Milestones:
    """State of the four indicators; survives a resume through ``state`` and ``restore``."""

    reward: float | None = None
    reward_streak: int = 0
    accuracy: float | None = None
    accuracy_samples: int = 0
    accuracy_streak: int = 0
    reasoning: float | None = None
    zero_variance: float | None = None
    recent: deque[float] = field(default_factory=lambda: deque(maxlen=SETTLED_WINDOW))

    def after_step(self, metrics: dict[str, float]) -> None:
        """Take in the metrics of one GRPO step."""
        if "rubric/total" in metrics:
            self.reward = metrics["rubric/total"]
            self.reward_streak = self.reward_streak + 1 if self.reward > REWARD_THRESHOLD else 0
            self.recent.append(self.reward)
        self.zero_variance = metrics.get("groups/zero_variance", self.zero_variance)

    def after_validation(self, metrics: dict[str, float]) -> None:
        """Take in the metrics of one validation."""
        if "accuracy" in metrics:
            self.accuracy = metrics["accuracy"]
            self.accuracy_samples = int(metrics.get("accuracy/n", 0))
            above = self.accuracy > ACCURACY_THRESHOLD and self.accuracy_samples >= ACCURACY_SAMPLES
            self.accuracy_streak = self.accuracy_streak + 1 if above else 0
        self.reasoning = metrics.get("rubric/reasoning", self.reasoning)

    def indicators(self) -> list[Json]:
        """Name, value, threshold, on and streak of each, ready for JSON."""
        trend = trend_t(list(self.recent))
        settled = (
            trend is not None
            and abs(trend) < SETTLED_T
            and self.zero_variance is not None
            and self.zero_variance < ZERO_VARIANCE_LIMIT
        )
        return [
            {
                "name": "reward",
                "value": self.reward,
                "threshold": REWARD_THRESHOLD,
                "on": self.reward_streak >= REWARD_STREAK,
                "streak": self.reward_streak,
            },
            {
                "name": "accuracy",
                "value": self.accuracy,
                "threshold": ACCURACY_THRESHOLD,
                "on": self.accuracy_streak >= ACCURACY_STREAK,
                "streak": self.accuracy_streak,
            },
            {
                "name": "reasoning",
                "value": self.reasoning,
                "threshold": REASONING_THRESHOLD,
                "on": self.reasoning is not None and self.reasoning >= REASONING_THRESHOLD,
                "streak": int(self.reasoning is not None and self.reasoning >= REASONING_THRESHOLD),
            },
            {
                "name": "settled",
                "value": trend,
                "threshold": SETTLED_T,
                "on": settled,
                "streak": int(settled),
            },
        ]

    def state(self) -> dict[str, Any]:
        """JSON values from which ``restore`` makes the same object."""
        return vars(self) | {"recent": list(self.recent)}

    @classmethod
    def restore(cls, state: dict[str, Any]) -> "Milestones":
        """The object that gave ``state``."""
        return cls(**state | {"recent": deque(state["recent"], maxlen=SETTLED_WINDOW)})


def trend_t(values: list[float]) -> float | None:
    """t statistic of the least-squares slope of ``values`` over their index.

    ``slope / (residual standard deviation / sqrt(sum of squared index deviations))``.
    None before the window is full, or where all residuals are zero.
    """
    count = len(values)
    if count < SETTLED_WINDOW:
        return None
    centre, mean = (count - 1) / 2, sum(values) / count
    spread = sum((index - centre) ** 2 for index in range(count))
    slope = sum((i - centre) * (value - mean) for i, value in enumerate(values)) / spread
    residuals = sum(
        (value - mean - slope * (i - centre)) ** 2 for i, value in enumerate(values)
    ) / (count - 2)
    return slope / math.sqrt(residuals / spread) if residuals > 0 else None

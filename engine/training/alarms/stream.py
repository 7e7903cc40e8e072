"""The bounded memory that alarm rules look at.

A few steps, the means of the run's beginning, the newest validations: enough for every rule,
small enough for a checkpoint.
"""

import statistics
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from engine.training.entropy import Entropy

WINDOW = 20
"""Steps remembered."""
START_STEPS = 10
"""Steps whose mean stands for the run's beginning, and steps of the means compared with it."""
VALIDATIONS = 4
"""Validations remembered, each with the training steps since the one before."""
BUSY_SECONDS = 300.0
"""Training time over which the use of the GPU is judged."""
_BUSY_PIECE_SECONDS = 10.0
_STEP_NAMES = (
    "accuracy/n",
    "calls/up_share",
    "confidence/hit_rate",
    "confidence/mean",
    "confidence/n",
    "groups/zero_variance",
    "gradient_norm",
    "kl",
    "market/up_share",
    "parsed",
    "tokens/mean",
    "tokens/truncated",
)


@dataclass(frozen=True)
class AlarmSettings:
    """What the rules need to know of the run."""

    kl_alarm: float
    """``objective.kl_alarm``, nats a token."""
    weights: Mapping[str, float]
    """Component name → weight in the reward."""
    synthetic: bool
    """Whether the prices are made up, so that any accuracy is possible."""


@dataclass(frozen=True)
class Mean:
    """A mean over steps with its sampling variance."""

    value: float
    variance: float
    """Of the mean: sample variance over count."""


@dataclass(frozen=True)
class Checked:
    """One validation and the training steps that led to it."""

    metrics: Mapping[str, float]
    """Of the validation: accuracy, accuracy/n."""
    training: Mapping[str, Mean]
    """Of the steps since the validation before: reward/total, reward/<component>, parsed."""


@dataclass
class _Tally:
    """Running mean and sum of squared deviations (Welford 1962)."""

    count: int = 0
    value: float = 0.0
    squares: float = 0.0

    def add(self, value: float) -> None:
        self.count += 1
        before = value - self.value
        self.value += before / self.count
        self.squares += before * (value - self.value)

    def mean(self) -> Mean:
        """Of at least two values."""
        return Mean(self.value, self.squares / (self.count - 1) / self.count)


class Stream:
    """What is remembered; survives a resume through ``state`` and ``restore``."""

    def __init__(self, settings: AlarmSettings) -> None:
        self.settings = settings
        self.step = 0
        self.steps: deque[dict[str, float]] = deque(maxlen=WINDOW)
        """The newest steps, oldest first, each with what it knows of ``_STEP_NAMES``."""
        self.entropy = Entropy()
        self.first_tokens: list[float] = []
        """Mean completion lengths of the first ``START_STEPS`` steps."""
        self.best_parsed: float | None = None
        """Highest parse rate over ``START_STEPS`` steps so far."""
        self.busy: list[tuple[float, float]] = []
        """(seconds, share of them in which the GPU computed), the newest ``BUSY_SECONDS``."""
        self.checked: deque[Checked] = deque(maxlen=VALIDATIONS)
        """The newest validations that training steps led to."""
        self.first_validation: dict[str, float] | None = None
        self.validation: dict[str, float] = {}
        """All metrics of the newest validation."""
        self._since: dict[str, _Tally] = {}

    def take_step(self, step: int, metrics: Mapping[str, float], seconds: float | None) -> None:
        """Take in one GRPO step and how long it took."""
        self.step = step
        self.steps.append({name: metrics[name] for name in _STEP_NAMES if name in metrics})
        self.entropy.take(metrics)
        if len(self.first_tokens) < START_STEPS and "tokens/mean" in metrics:
            self.first_tokens.append(metrics["tokens/mean"])
        parsed = self.mean("parsed", START_STEPS)
        if parsed is not None:
            self.best_parsed = max(parsed, self.best_parsed or 0.0)
        if seconds is not None and "gpu/utilisation" in metrics:
            self._take_busy(seconds, metrics["gpu/utilisation"])
        for name in ("reward/total", "parsed", *(f"reward/{c}" for c in self.settings.weights)):
            if name in metrics:
                self._since.setdefault(name, _Tally()).add(metrics[name])

    def take_validation(self, metrics: Mapping[str, float]) -> None:
        """Take in one validation."""
        self.validation = dict(metrics)
        accuracy = {name: metrics[name] for name in ("accuracy", "accuracy/n") if name in metrics}
        if len(accuracy) == 2:
            self.first_validation = self.first_validation or accuracy
            training = {name: t.mean() for name, t in self._since.items() if t.count > 1}
            if training:
                self.checked.append(Checked(accuracy, training))
        self._since = {}

    def newest(self, name: str, count: int = WINDOW) -> list[float]:
        """Known values of ``name`` in the newest ``count`` steps, oldest first."""
        return [row[name] for row in list(self.steps)[-count:] if name in row]

    def mean(self, name: str, count: int) -> float | None:
        """Mean of the newest ``count`` steps; None unless all of them know it."""
        values = self.newest(name, count)
        return statistics.fmean(values) if len(values) == count else None

    def state(self) -> dict[str, Any]:
        """JSON values from which ``restore`` makes the same object."""
        return {
            "step": self.step,
            "steps": [dict(row) for row in self.steps],
            "entropy": self.entropy.state(),
            "first_tokens": list(self.first_tokens),
            "best_parsed": self.best_parsed,
            "busy": [list(piece) for piece in self.busy],
            "checked": [
                {
                    "metrics": dict(one.metrics),
                    "training": {
                        name: [mean.value, mean.variance] for name, mean in one.training.items()
                    },
                }
                for one in self.checked
            ],
            "first_validation": self.first_validation,
            "validation": self.validation,
            "since": {name: [t.count, t.value, t.squares] for name, t in self._since.items()},
        }

    @classmethod
    def restore(cls, settings: AlarmSettings, state: Mapping[str, Any]) -> "Stream":
        """The object that gave ``state``."""
        stream = cls(settings)
        stream.step = state["step"]
        stream.steps.extend(dict(row) for row in state["steps"])
        stream.entropy = Entropy.restore(state["entropy"])
        stream.first_tokens = list(state["first_tokens"])
        stream.best_parsed = state["best_parsed"]
        stream.busy = [(seconds, share) for seconds, share in state["busy"]]
        stream.checked.extend(
            Checked(
                one["metrics"],
                {name: Mean(value, spread) for name, (value, spread) in one["training"].items()},
            )
            for one in state["checked"]
        )
        stream.first_validation = state["first_validation"]
        stream.validation = dict(state["validation"])
        stream._since = {name: _Tally(*tally) for name, tally in state["since"].items()}
        return stream

    def _take_busy(self, seconds: float, share: float) -> None:
        """Add a step, in pieces of some seconds, so that short steps do not fill the memory."""
        if self.busy and self.busy[-1][0] < _BUSY_PIECE_SECONDS:
            before, used = self.busy.pop()
            share = (before * used + seconds * share) / (before + seconds)
            seconds += before
        self.busy.append((seconds, share))
        while sum(piece for piece, _ in self.busy[1:]) >= BUSY_SECONDS:
            self.busy.pop(0)

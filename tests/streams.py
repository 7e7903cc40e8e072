"""Made-up metric streams: what a run of given habits would have recorded, noise and all.

A step is four prompts with eight completions each, so that every share is as noisy as in a
small run; completions of one prompt share its outcome. The same seed gives the same stream.
"""

import math
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace

from engine.evaluation.intervals import wilson
from engine.runs.reader import Event
from engine.task import Json

PROMPTS, SAMPLES = 4, 8
CALLS = PROMPTS * SAMPLES
WEIGHTS = {
    "format": 0.20,
    "direction": 0.35,
    "magnitude": 0.20,
    "confidence": 0.10,
    "data_use": 0.15,
    "coherence": 0.0,
}

Curve = Callable[[int], float] | float
"""A value by step, or the same one at every step."""


def at(curve: Curve, step: int) -> float:
    return curve(step) if callable(curve) else curve


def line(start: float, end: float, steps: int) -> Callable[[int], float]:
    """From ``start`` at step 0 to ``end`` at ``steps``, level from there."""
    return lambda step: start + (end - start) * min(1.0, step / steps)


@dataclass(frozen=True)
class Habits:
    """How a policy behaves over the steps of a run."""

    hit: Curve = 0.5
    """Chance that a readable call is right."""
    parsed: Curve = 0.95
    confidence: Curve = 0.6
    up: Curve = 0.5
    """Chance of calling UP where the call does not follow the outcome."""
    data_use: Curve = 0.5
    coherence: Curve = 0.7
    entropy: Curve = 1.0
    tokens: Curve = 48.0
    truncated: Curve = 0.02
    flat: Curve = 0.02
    kl: Curve = 0.03
    loss: Curve = 0.0
    gpu: Curve | None = None
    seconds: float = 14.0
    validation_hit: Curve | None = None
    """Chance of being right on validation days; left out: that of training."""


@dataclass
class Stream:
    """Events of one run, as its store would hold them."""

    habits: Habits
    steps: int
    eval_every: int = 10
    eval_calls: int = 200
    eval_days: int = 100
    seed: int = 1
    rng: random.Random = field(init=False)

    def events(self) -> Iterator[Event]:
        """A validation at step 0, then steps with a validation every so often."""
        self.rng = random.Random(self.seed)
        seq = 1
        best: tuple[float, str] = (-math.inf, "")
        for step in range(self.steps + 1):
            if step > 0:
                payload: dict[str, Json] = {
                    "metrics": self._step(step),
                    "seconds": {"total": self.habits.seconds},
                }
                yield Event(seq, 1, float(seq), "step", step, payload)
                seq += 1
            if step % self.eval_every == 0:
                metrics = self._validation(step)
                best = max(best, (metrics["reward/total"], f"step-{step:06d}"))
                payload = {"metrics": metrics, "suggestion": best[1]}
                yield Event(seq, 1, float(seq), "validation", step, payload)
                seq += 1

    def _step(self, step: int) -> dict[str, float]:
        habits, rng = self.habits, self.rng
        metrics = self._calls(step, self._groups(step, PROMPTS, SAMPLES, at(habits.hit, step)))
        metrics |= {
            "entropy": max(0.0, at(habits.entropy, step) * rng.gauss(1, 0.06)),
            "tokens/mean": at(habits.tokens, step) * rng.gauss(1, 0.05),
            "tokens/truncated": self._share(at(habits.truncated, step), CALLS),
            "groups/zero_variance": self._share(at(habits.flat, step), PROMPTS),
            "kl": at(habits.kl, step) * rng.uniform(0.6, 1.4),
            "loss": at(habits.loss, step) + rng.gauss(0, 0.01),
            "gradient_norm": 0.05 * rng.uniform(0.7, 1.5),
        }
        if habits.gpu is not None:
            metrics["gpu/utilisation"] = min(1.0, at(habits.gpu, step) * rng.gauss(1, 0.05))
        return metrics

    def _validation(self, step: int) -> dict[str, float]:
        habits = self.habits
        hit = at(habits.hit if habits.validation_hit is None else habits.validation_hit, step)
        metrics = self._calls(step, self._groups(step, self.eval_calls, 1, hit))
        right, count = metrics["accuracy"], self.eval_calls
        # Calls of one day go together a little, so whole days vary more than calls.
        half = 2.2 * math.sqrt(right * (1 - right) / count)
        return metrics | {
            "accuracy/days": float(self.eval_days),
            "accuracy/day_low": right - half,
            "accuracy/day_high": right + half,
            "baseline/always_up": metrics["market/up_share"],
            "baseline/always_down": 1 - metrics["market/up_share"],
            "baseline/momentum": 0.49,
        }

    def _groups(
        self, step: int, prompts: int, samples: int, hit: float
    ) -> list[tuple[bool, bool | None]]:
        """(market went UP, called UP or None) of every completion."""
        rng, habits = self.rng, self.habits
        calls: list[tuple[bool, bool | None]] = []
        follows = max(0.0, 2 * hit - 1)
        for _ in range(prompts):
            market = rng.random() < 0.5
            # What one completion makes of a prompt its neighbours make of it too.
            lean = min(1.0, max(0.0, rng.gauss(at(habits.up, step), 0.2)))
            for _ in range(samples):
                is_read = rng.random() < at(habits.parsed, step)
                called = market if rng.random() < follows else rng.random() < lean
                calls.append((market, called if is_read else None))
        return calls

    def _calls(self, step: int, calls: list[tuple[bool, bool | None]]) -> dict[str, float]:
        habits, rng = self.habits, self.rng
        count = len(calls)
        read = [(market, called) for market, called in calls if called is not None]
        right = sum(market == called for market, called in read)
        low, high = wilson(right, count)
        data_use = at(habits.data_use, step) + rng.gauss(0, 0.25 / math.sqrt(count))
        coherence = at(habits.coherence, step) + rng.gauss(0, 0.2 / math.sqrt(count))
        stated = at(habits.confidence, step) + rng.gauss(0, 0.12 / math.sqrt(count))
        share, parsed = right / count, len(read) / count
        components = {
            "format": parsed,
            "direction": share,
            "magnitude": 0.55 * share,
            "confidence": share * (1 - 1.3 * (1 - stated) ** 2)
            + (1 - share) * (-0.2 - 1.3 * stated**2),
            "data_use": data_use,
            "coherence": coherence,
        }
        metrics = {f"reward/{name}": value for name, value in components.items()}
        reasoning = 0.2 * data_use + 0.2 * coherence
        metrics |= {
            "reward/total": sum(WEIGHTS[name] * value for name, value in components.items()),
            "rubric/prediction": 0.4 * share + 0.2 * 0.55 * share,
            "rubric/reasoning": reasoning,
            "rubric/total": 0.51 * share + reasoning,
            "accuracy": share,
            "accuracy/n": float(count),
            "accuracy/low": low,
            "accuracy/high": high,
            "parsed": parsed,
            "market/up_share": sum(market for market, _ in calls) / count,
        }
        if read:
            metrics |= {
                "calls/up_share": sum(called for _, called in read) / len(read),
                "confidence/mean": stated,
                "confidence/hit_rate": right / len(read),
            }
        return metrics

    def _share(self, chance: float, count: int) -> float:
        return sum(self.rng.random() < chance for _ in range(count)) / count


def learning_demo(seed: int = 1) -> Stream:
    """The demo as it was recorded: format and citing improve, real prices do not yield."""
    habits = Habits(
        hit=line(0.50, 0.53, 60),
        parsed=line(0.80, 0.97, 40),
        confidence=line(0.72, 0.74, 60),
        up=line(0.35, 0.5, 40),
        data_use=line(0.35, 0.5, 60),
        entropy=line(1.1, 0.9, 60),
        tokens=line(42, 52, 60),
        truncated=line(0.06, 0.02, 40),
        kl=line(0.0, 0.06, 60),
    )
    return Stream(habits, steps=80, eval_calls=24, eval_days=24, seed=seed)


def converged_prove(seed: int = 1) -> Stream:
    """A planted market that was learnt: nearly always right, and settled."""
    habits = Habits(
        hit=line(0.56, 0.96, 40),
        parsed=line(0.9, 1.0, 20),
        confidence=line(0.72, 0.93, 60),
        data_use=line(0.5, 0.9, 40),
        coherence=line(0.6, 0.9, 40),
        entropy=line(0.8, 0.25, 60),
        flat=line(0.0, 0.15, 60),
        kl=line(0.0, 0.3, 60),
        gpu=0.8,
    )
    return Stream(habits, steps=120, seed=seed)


def flat_run(seed: int = 1) -> Stream:
    """An unpredictable market: nothing to learn but to be modest."""
    habits = Habits(
        hit=0.5,
        confidence=line(0.72, 0.55, 80),
        entropy=line(1.1, 1.0, 200),
        kl=line(0.0, 0.05, 100),
        gpu=0.9,
    )
    return Stream(habits, steps=200, eval_every=20, seed=seed)


HEALTHY = (learning_demo, converged_prove, flat_run)


def changed(stream: Stream, **habits: Curve) -> Stream:
    """The same run with other habits."""
    return replace(stream, habits=replace(stream.habits, **habits))

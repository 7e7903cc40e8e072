"""One object that watches the metric stream: the four indicators, the power level, the alarms.

It sees nothing but what the events ``step`` and ``validation`` hold, so that folding a run's
stored events gives what the worker saw live.
"""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from engine.config import RunConfig
from engine.runs.reader import Event
from engine.task import Json
from engine.training.alarms import Alarms, AlarmSettings
from engine.training.milestones import Milestones

Happening = tuple[str, dict[str, Json]]
"""Kind and payload of an event to record: ``alarm`` or ``super_saiyan``."""

_SETTLE_EPOCHS = 2


@dataclass(frozen=True)
class WatchSettings:
    """What watching needs to know of the run."""

    settle_window: int
    """Steps without a trend that the indicator ``settled`` asks for."""
    alarms: AlarmSettings

    @classmethod
    def of(
        cls,
        config: RunConfig,
        *,
        num_training_items: int,
        weights: Mapping[str, float],
        synthetic: bool,
    ) -> "WatchSettings":
        """Those of a run.

        Args:
            config: the run's configuration.
            num_training_items: draws in one epoch.
            weights: component name → weight in the reward.
            synthetic: whether the market's prices are made up.
        """
        window = config.milestones.settle_window
        if window is None:
            window = -(-_SETTLE_EPOCHS * num_training_items // config.rollout.prompts_per_step)
        return cls(window, AlarmSettings(config.objective.kl_alarm, weights, synthetic))


class Watch:
    """Milestones and alarms of a run; survives a resume through ``state`` and ``restore``."""

    def __init__(self, settings: WatchSettings) -> None:
        self._settings = settings
        self._milestones = Milestones(settings.settle_window)
        self._alarms = Alarms(settings.alarms)
        self._best: str | None = None
        self._validated: int | None = None
        self._all_on_at: int | None = None

    def after_step(
        self, step: int, metrics: Mapping[str, float | None], seconds: Mapping[str, float]
    ) -> list[Happening]:
        """Take in one GRPO step and say what happened by it.

        Args:
            step: number of the step.
            metrics: as in the event; what is not known or not finite is left aside.
            seconds: wall time by phase, ``total`` among them.
        """
        known = _known(metrics)
        self._milestones.after_step(step, known)
        turned = self._alarms.after_step(step, known, seconds.get("total"))
        return [("alarm", payload) for payload in turned] + self._super_saiyan(step)

    def after_validation(
        self, step: int, metrics: Mapping[str, float | None], best: str | None
    ) -> list[Happening]:
        """Take in one validation and say what happened by it.

        A second one of the same step, as a resume makes it, is the first one again and counts
        once.

        Args:
            step: number of the step that was validated.
            metrics: as in the event.
            best: name of the best checkpoint, this validation included.
        """
        if step == self._validated:
            return []
        self._validated, self._best = step, best
        known = _known(metrics)
        self._milestones.after_validation(step, known)
        turned = self._alarms.after_validation(known)
        return [("alarm", payload) for payload in turned] + self._super_saiyan(step)

    def take(self, event: Event) -> list[Happening]:
        """Take in a stored event; those of other kinds say nothing."""
        payload = event.payload
        if event.kind == "step":
            return self.after_step(event.step, payload["metrics"], payload.get("seconds", {}))
        if event.kind == "validation":
            return self.after_validation(event.step, payload["metrics"], payload.get("suggestion"))
        return []

    @classmethod
    def replay(cls, settings: WatchSettings, events: Iterable[Event]) -> "Watch":
        """The watch that has seen ``events``: a run's, in order, superseded ones left out."""
        watch = cls(settings)
        for event in events:
            watch.take(event)
        return watch

    @property
    def power(self) -> int:
        """Power level, 0 to 9001."""
        return self._milestones.power

    @property
    def alarms(self) -> tuple[str, ...]:
        """Names of the alarms that are on."""
        return self._alarms.on

    def picture(self) -> dict[str, Json]:
        """What the events ``step`` and ``validation`` carry: where the run stands now.

        Returns:
            ``milestones`` (the four indicators), ``power``, and ``suggestion``, the checkpoint to
            promote if it came to that.
        """
        return {
            "milestones": self._milestones.indicators(),
            "power": self.power,
            "suggestion": self._best,
        }

    def state(self) -> dict[str, Any]:
        """JSON values from which ``restore`` makes the same object."""
        return {
            "milestones": self._milestones.state(),
            "alarms": self._alarms.state(),
            "best": self._best,
            "validated": self._validated,
            "all_on_at": self._all_on_at,
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Become the watch that gave ``state``, with this one's settings."""
        window, alarms = self._settings.settle_window, self._settings.alarms
        self._milestones = Milestones.restore(window, state["milestones"])
        self._alarms = Alarms.restore(alarms, state["alarms"])
        self._best = state["best"]
        self._validated = state["validated"]
        self._all_on_at = state["all_on_at"]

    def _super_saiyan(self, step: int) -> list[Happening]:
        """All four on is news where they were not within the last settling window.

        A batch just below a threshold puts a light out for some steps; that is no new arrival.
        """
        if not self._milestones.is_super_saiyan:
            return []
        before, self._all_on_at = self._all_on_at, step
        if before is not None and step - before <= self._settings.settle_window:
            return []
        payload: dict[str, Json] = {
            "power": self.power,
            "step": step,
            "suggestion": self._best,
            "indicators": self._milestones.indicators(),
        }
        return [("super_saiyan", payload)]


def _known(metrics: Mapping[str, float | None]) -> dict[str, float]:
    """What the store keeps of ``metrics``: a value that is not finite comes back as unknown."""
    return {
        name: value for name, value in metrics.items() if value is not None and math.isfinite(value)
    }

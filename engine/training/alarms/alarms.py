"""Turn alarms on and off as the rules say, each once."""

from collections.abc import Mapping
from typing import Any

from engine.task import Json
from engine.text import one_line
from engine.training.alarms import calls, machine, policy, validation
from engine.training.alarms.reading import Reading, Rule
from engine.training.alarms.stream import AlarmSettings, Stream

STEP_RULES: Mapping[str, Rule] = policy.RULES | calls.RULES | machine.RULES
VALIDATION_RULES: Mapping[str, Rule] = validation.RULES
_TITLE_LENGTH = 60


class Alarms:
    """The alarms of a run; survives a resume through ``state`` and ``restore``."""

    def __init__(self, settings: AlarmSettings) -> None:
        self._stream = Stream(settings)
        self._on: list[str] = []

    @property
    def on(self) -> tuple[str, ...]:
        """Names of the alarms that are on, in the order in which they came on."""
        return tuple(self._on)

    def after_step(
        self, step: int, metrics: Mapping[str, float], seconds: float | None
    ) -> list[dict[str, Json]]:
        """Take in a step; payloads of the alarms that it turned on or off.

        Args:
            seconds: wall time of the step, where it is known.
        """
        self._stream.take_step(step, metrics, seconds)
        return self._turn(STEP_RULES)

    def after_validation(self, metrics: Mapping[str, float]) -> list[dict[str, Json]]:
        """Take in a validation; payloads of the alarms that it turned on or off."""
        self._stream.take_validation(metrics)
        return self._turn(VALIDATION_RULES)

    def state(self) -> dict[str, Any]:
        """JSON values from which ``restore`` makes the same object."""
        return {"stream": self._stream.state(), "on": list(self._on)}

    @classmethod
    def restore(cls, settings: AlarmSettings, state: Mapping[str, Any]) -> "Alarms":
        """The object that gave ``state``."""
        alarms = cls(settings)
        alarms._stream = Stream.restore(settings, state["stream"])
        alarms._on = list(state["on"])
        return alarms

    def _turn(self, rules: Mapping[str, Rule]) -> list[dict[str, Json]]:
        turned = []
        for name, rule in rules.items():
            reading = rule(self._stream)
            if reading is None:
                continue
            if name not in self._on and reading.is_raised:
                self._on.append(name)
                turned.append(_payload(name, reading, on=True))
            elif name in self._on and reading.is_over:
                self._on.remove(name)
                turned.append(_payload(name, reading, on=False))
        return turned


def _payload(name: str, reading: Reading, *, on: bool) -> dict[str, Json]:
    return {
        "name": name,
        "on": on,
        "title": one_line(reading.title, _TITLE_LENGTH),
        "explanation": reading.explanation,
        "advice": reading.advice,
        "value": reading.value,
        "threshold": reading.threshold,
    }

"""The seam between the trainer and what is being learnt.

The trainer, the store and the worker know rollouts, component names and
numbers; a task knows prompts, answers and rewards. Today's only task is the
direction call (``engine.direction_call``).
"""

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

Json = str | int | float | bool | None | Sequence["Json"] | Mapping[str, "Json"]


@dataclass(frozen=True)
class ComponentScore:
    """One named scorer's view of one completion."""

    name: str
    value: float
    weight: float
    """Weight in the reward; 0 for a component that is shown but not trained on."""
    reason: str
    """One short line that explains the value to a person."""
    factor: float = 1.0
    """What a task's shaping of training rewards multiplies the value by."""

    @property
    def contribution(self) -> float:
        """What the component adds to the reward."""
        return self.value * self.weight * self.factor


@dataclass(frozen=True)
class Assessment:
    """Everything a task has to say about one completion."""

    components: tuple[ComponentScore, ...]
    prediction: Mapping[str, Json]
    """What was understood, ready for JSON; the key ``error`` says why nothing was."""
    rubric: Mapping[str, float]
    """The unweighted view: ``prediction`` [0, 0.6], ``reasoning`` [0, 0.4], ``total`` [0, 1]."""
    cited: tuple[tuple[int, int], ...] = ()
    """Character spans of the completion in which facts of the prompt were recognised."""

    @property
    def reward(self) -> float:
        """The weighted sum of the components."""
        return sum(component.contribution for component in self.components)


@dataclass(frozen=True)
class Item:
    """One prompt of a task, with what the world answered."""

    key: str
    """Stable identity of the example, such as ``AAPL:2012-09-14``."""
    messages: tuple[Mapping[str, str], ...]
    """Chat messages (``role``, ``content``) without the assistant's answer."""
    subject: Mapping[str, Json]
    """What the cockpit shows beside a rollout: for the direction call ``ticker``,
    ``as_of``, ``actual_direction`` and ``actual_percent``."""


class Task(Protocol):
    """A prompt template, a parser, reward components and metrics over rollouts."""

    name: str

    @property
    def weights(self) -> Mapping[str, float]:
        """Component name → weight in the reward, in the order to show."""
        ...

    def training_item(self, index: int) -> Item:
        """The ``index``-th draw of the stage's sampler; endless, reproducible by index."""
        ...

    @property
    def num_training_items(self) -> int:
        """How many draws make one epoch."""
        ...

    @property
    def is_synthetic(self) -> bool:
        """Whether the examples are made up, so that any accuracy is believable."""
        ...

    def validation_items(self, count: int) -> Sequence[Item]:
        """A fixed, seeded sample of at most ``count`` validation items, natural distribution."""
        ...

    def demonstrations(self, item: Item, count: int, rng: random.Random) -> list[str]:
        """Templated completions for the warm-up; their verdicts are coin flips of ``rng``."""
        ...

    def assess(self, item: Item, completion: str) -> Assessment:
        """Parse and score one completion."""
        ...

    def shape(self, judged: Sequence[tuple[Item, Assessment]]) -> list[Assessment]:
        """The assessments of a training batch as training sees them, in the same order.

        Components may get a ``factor`` that depends on the batches before this one, which is
        taken into those statistics afterwards. Validation is never shaped.
        """
        ...

    def state(self) -> dict[str, Any]:
        """JSON values of the statistics that ``shape`` keeps; saved in every checkpoint."""
        ...

    def restore(self, state: Mapping[str, Any]) -> None:
        """Put what ``state`` gave back in place."""
        ...

    def metrics(self, judged: Sequence[tuple[Item, Assessment]]) -> dict[str, float]:
        """Flat metric names and values of a training batch, which ``shape`` has seen.

        A value that is not known is left out.
        """
        ...

    def validation_metrics(self, judged: Sequence[tuple[Item, Assessment]]) -> dict[str, float]:
        """Flat metric names and values of a whole validation, with intervals and baselines."""
        ...

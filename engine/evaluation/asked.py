"""One example as a checkpoint is asked about it, and what its answers are worth."""

import json
from dataclasses import dataclass, field
from typing import Self

from engine.config import RunConfig
from engine.evaluation.context import Evaluated
from engine.evaluation.store import ExampleRow, Prediction
from engine.market.example import Example
from engine.market.prompts import Prompt, compose
from engine.probe.request import WireExample
from engine.rewards.choice import Reward
from engine.rewards.schemes import assess
from engine.task import Item


@dataclass(frozen=True)
class Asked:
    """An example with its prompt, composed as the run's own prompts are."""

    example: Example
    prompt: Prompt
    item: Item = field(init=False)

    def __post_init__(self) -> None:
        item = Item(key=self.example.key, messages=self.prompt.messages, subject={})
        object.__setattr__(self, "item", item)

    @classmethod
    def of(cls, example: Example, config: RunConfig) -> Self:
        """``example`` as the run that ``config`` describes asks about it."""
        prompt = compose(
            example,
            style=config.data.style,
            budget=config.rollout.context,
            answer_tokens=config.rollout.max_new_tokens,
        )
        return cls(example, prompt)

    @classmethod
    def stored(cls, row: ExampleRow, config: RunConfig) -> Self:
        """The example of a row."""
        return cls.of(WireExample.model_validate_json(row.example).example(), config)

    def row(self) -> ExampleRow:
        """For the store."""
        wire = WireExample.of(self.example, source=None)
        return ExampleRow(
            key=self.example.key,
            day_change=self.example.day_change,
            actual_up=self.example.label.direction == "UP",
            length=len(self.prompt.text),
            example=json.dumps(wire.model_dump(mode="json"), separators=(",", ":")),
        )

    def judged(
        self,
        checkpoint: Evaluated,
        *,
        sample: int,
        seed: int,
        prompt: str,
        completion: str,
        finished: bool,
        reward: Reward,
    ) -> Prediction:
        """What one completion predicts and earns, never weighted by market or diversity.

        Args:
            prompt: as the model saw it.

        Raises:
            RunFailedError: a reward component of the user's own failed.
        """
        example = self.example
        assessment = assess(example, self.prompt, completion, *reward)
        said = assessment.prediction
        direction, size, confidence = said["direction"], said["percent"], said["confidence"]
        return Prediction(
            checkpoint=checkpoint.label,
            checkpoint_hash=checkpoint.hash,
            key=example.key,
            ticker=example.ticker,
            as_of=example.as_of.isoformat(),
            label_day=example.outcome_day.isoformat(),
            actual_up=example.label.direction == "UP",
            actual_percent=example.label.percent,
            day_change=example.day_change,
            sigma=example.sigma20,
            sample=sample,
            seed=seed,
            prompt=prompt,
            completion=completion,
            finished=finished,
            called_up=None if direction is None else direction == "UP",
            percent=None
            if direction is None or not isinstance(size, float)
            else (size if direction == "UP" else -size),
            confidence=confidence if isinstance(confidence, float) else None,
            reward=assessment.reward,
            scores={f"component/{one.name}": one.value for one in assessment.components}
            | {f"rubric/{name}": value for name, value in assessment.rubric.items()},
        )

"""What a task makes of a request: a prompt, and how an answer to it is read.

The seam between who samples and what is asked. Today's only question is the direction call.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

from engine.config import RunConfig
from engine.market.example import Example
from engine.market.prompts import compose
from engine.probe.request import ProbeRequest
from engine.probe.tally import tally
from engine.rewards.choice import Reward
from engine.rewards.parse import parse
from engine.rewards.schemes import assess
from engine.task import Item, Json


class Question(Protocol):
    """One example that somebody asks about."""

    @property
    def item(self) -> Item:
        """The prompt."""
        ...

    @property
    def about(self) -> Mapping[str, Json]:
        """What is asked, for the record: the ``example`` of the answer."""
        ...

    def read(self, completion: str) -> dict[str, Json]:
        """What one completion says; ``reward`` is None where the outcome is not known."""
        ...

    def sum_up(self, samples: Sequence[Mapping[str, Json]]) -> dict[str, Json]:
        """What samples that were read say together."""
        ...


Asking = Callable[[ProbeRequest], Question]


class DirectionQuestion:
    """Will this close be higher or lower?"""

    def __init__(self, request: ProbeRequest, *, config: RunConfig, reward: Reward) -> None:
        """Compose the prompt as the run that ``config`` describes does."""
        wire = request.example
        self._example: Example = wire.example()
        self._is_known = wire.outcome is not None
        self._reward = reward
        style = request.style or config.data.style
        self._prompt = compose(
            self._example,
            style=style,
            budget=config.rollout.context,
            answer_tokens=config.rollout.max_new_tokens,
        )
        label = self._example.label
        self.item = Item(key=self._example.key, messages=self._prompt.messages, subject={})
        self.about: Mapping[str, Json] = {
            "source": wire.source,
            "ticker": wire.ticker,
            "as_of": wire.as_of.isoformat(),
            "horizon": wire.horizon,
            "style": style,
            "actual": {"direction": label.direction, "percent": label.percent}
            if self._is_known
            else None,
        }

    def read(self, completion: str) -> dict[str, Json]:
        """Direction, percent, confidence and why not, and the reward as validation scores it."""
        if self._is_known:
            assessment = assess(self._example, self._prompt, completion, *self._reward)
            prediction, reward = assessment.prediction, assessment.reward
        else:
            read = parse(completion)
            prediction, reward = vars(read), None
        return {
            "direction": prediction["direction"],
            "percent": prediction["percent"],
            "confidence": prediction["confidence"],
            "error": prediction["error"],
            "reward": reward,
        }

    def sum_up(self, samples: Sequence[Mapping[str, Json]]) -> dict[str, Json]:
        """See ``tally``."""
        return tally(samples)

"""The direction call: will a stock's next close be higher or lower?"""

import math
import random
import re
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any, TypeVar

from engine.config import DataConfig, RunConfig, WarmupConfig
from engine.evaluation.calls import batch_metrics, validation_metrics
from engine.market import sampler, sources
from engine.market.dataset import Dataset
from engine.market.example import Example
from engine.market.facts import Fact
from engine.market.prompts import ANSWER_TOKENS, BUDGET, Prompt, compose
from engine.rewards.choice import Reward, resolve
from engine.rewards.facts import QUOTED_WORDS
from engine.rewards.schemes import assess
from engine.rewards.shaping import SHAPINGS, shape
from engine.task import Assessment, Item

_CACHED_PROMPTS = 4096
_T = TypeVar("_T")
_WORD = re.compile(r"\w+")

_OPENINGS = (
    "{facts}.",
    "I see {facts}.",
    "The data shows {facts}.",
    "Looking at {facts}.",
    "Key points: {facts}.",
)
_OPENINGS_WITHOUT_FACTS = (
    "The picture is mixed.",
    "There is no strong signal.",
    "The recent closes give a hint.",
    "The trend is hard to read.",
)
# Words; fewer than the reward takes for copying.
_QUOTED_WHOLE = 8
_CONCLUSIONS = (
    "I expect {call}.",
    "My call is {call}.",
    "So I lean {call}.",
    "That points {call}.",
    "The next move looks {call}.",
)


class DirectionCall:
    """The task of calling UP or DOWN, see ``engine.task.Task``."""

    name = "direction_call"

    def __init__(
        self,
        dataset: Dataset,
        data: DataConfig,
        *,
        is_synthetic: bool,
        reward: Reward,
        shaping: str,
        seed: int,
        budget: int = BUDGET,
        answer_tokens: int = ANSWER_TOKENS,
        warmup: WarmupConfig | None = None,
    ) -> None:
        """Draw training examples from ``dataset`` as ``data`` says.

        Args:
            is_synthetic: whether ``dataset`` is made up.
            reward: what scores a completion.
            shaping: a key of ``SHAPINGS``.
            seed: decides the choice and order of examples.
            budget: tokens that prompt and answer may take together.
            answer_tokens: those of them kept for the answer.
            warmup: what demonstrations are like; left out: as by default.

        Raises:
            UserError: balanced sampling, and one side has no example.
        """
        self._dataset = dataset
        self.is_synthetic = is_synthetic
        self._reward = reward
        self.weights = reward.scheme.weights
        self._shaping = SHAPINGS[shaping]()
        self._seed = seed
        self._style = data.style
        self._budget, self._answer_tokens = budget, answer_tokens
        self._warmup = warmup or WarmupConfig()
        rows = dataset.rows("train")
        is_balanced = data.sampling == "balanced"
        choose = sampler.balanced if is_balanced else sampler.natural
        self._rows = rows.take(choose(rows, data.max_train_samples, seed))
        self._order = sampler.Shuffled(range(len(self._rows)), seed, blocks=2 if is_balanced else 1)
        self._known = lru_cache(_CACHED_PROMPTS)(self._find)

    @classmethod
    def from_config(cls, config: RunConfig) -> "DirectionCall":
        """The task that a run's configuration describes.

        Raises:
            UserError: unknown source, a history too short for the splits, a bad scheme, or a
                component that nobody allowed.
        """
        data = config.data
        market = sources.load(data.source)
        return cls(
            Dataset.configured(market.histories, data),
            data,
            is_synthetic=market.report.synthetic,
            reward=resolve(config.reward),
            shaping=config.reward.shaping,
            seed=config.seed,
            budget=config.rollout.context,
            answer_tokens=config.rollout.max_new_tokens,
            warmup=config.warmup,
        )

    @property
    def data_fingerprint(self) -> str:
        """Identity of the market data that examples are made of."""
        return self._dataset.fingerprint()

    @property
    def num_training_items(self) -> int:
        """Draws in one epoch."""
        return len(self._order)

    def training_item(self, index: int) -> Item:
        """The ``index``-th draw; endless, every epoch in a new order."""
        row = self._order.draw(index)
        return self._item(int(self._rows.history[row]), int(self._rows.index[row]))

    def validation_items(self, count: int) -> Sequence[Item]:
        """At most ``count`` validation items of the natural distribution, in order of time."""
        rows = self._dataset.rows("validation")
        chosen = rows.take(sampler.over_time(rows, count, self._seed))
        return [
            self._item(history, index)
            for history, index in zip(chosen.history.tolist(), chosen.index.tolist(), strict=True)
        ]

    def demonstrations(self, item: Item, count: int, rng: random.Random) -> list[str]:
        """Short answers in the asked-for form, their directions coin flips.

        How many facts of the prompt one cites is drawn from ``warmup.facts_cited``; where
        there is news, the newest headline is one of them and stands next to the call.
        ``warmup.silent_share`` of the answers state no confidence. Such choices are spread
        evenly over them, since luck in so few would leave a policy that leans to one side. The
        percent is drawn around the stock's volatility and the confidence evenly from 50 to
        95 %.
        """
        silent = math.floor(self._warmup.silent_share * count + rng.random())
        choices = zip(
            _evenly(("UP", "DOWN"), count, rng),
            _evenly(self._warmup.facts_cited, count, rng),
            rng.sample([True] * silent + [False] * (count - silent), count),
            strict=True,
        )
        return [self._demonstration(item, *choice, rng) for choice in choices]

    def _demonstration(
        self, item: Item, call: str, num_facts: int, is_silent: bool, rng: random.Random
    ) -> str:
        example, prompt = self._known(item.key)
        cited = _chosen(prompt.facts, num_facts, rng)
        if cited:
            facts = _joined([_phrase(fact, rng) for fact in cited])
            opening = rng.choice(_OPENINGS).format(facts=facts)
        else:
            opening = rng.choice(_OPENINGS_WITHOUT_FACTS)
        conclusion = rng.choice(_CONCLUSIONS).format(call=call)
        percent = max(0.1, abs(rng.gauss(0, 1)) * example.sigma20 * rng.uniform(0.7, 1.3))
        confidence = "" if is_silent else f" confidence {rng.randint(50, 95)}%"
        return (
            f"<think>{opening} {conclusion}</think>\n"
            f"<answer>{call} {percent:.1f}%{confidence}</answer>"
        )

    def assess(self, item: Item, completion: str) -> Assessment:
        """Parse and score one completion.

        Raises:
            KeyError: the item is not one of this task's.
        """
        example, prompt = self._known(item.key)
        return assess(example, prompt, completion, *self._reward)

    def shape(self, judged: Sequence[tuple[Item, Assessment]]) -> list[Assessment]:
        """The assessments of a training batch with the stage's factors, see ``SHAPINGS``."""
        labelled = [
            (item.key, self._known(item.key)[0].label.direction, assessment)
            for item, assessment in judged
        ]
        return shape(labelled, self._shaping)

    def state(self) -> dict[str, Any]:
        """JSON values of the statistics behind ``shape``."""
        return self._shaping.state()

    def restore(self, state: Mapping[str, Any]) -> None:
        """Put what ``state`` gave back in place."""
        self._shaping.restore(state)

    def metrics(self, judged: Sequence[tuple[Item, Assessment]]) -> dict[str, float]:
        """Metrics of a training batch, and the statistics behind ``shape`` after it."""
        return batch_metrics(judged) | self._shaping.metrics()

    def validation_metrics(self, judged: Sequence[tuple[Item, Assessment]]) -> dict[str, float]:
        """Metrics of a validation, see ``engine.evaluation.calls``; the same on every call."""
        return validation_metrics(judged, seed=self._seed)

    def _find(self, key: str) -> tuple[Example, Prompt]:
        example = self._dataset.find(key)
        return example, compose(
            example,
            style=self._style,
            budget=self._budget,
            answer_tokens=self._answer_tokens,
        )

    def _item(self, history: int, index: int) -> Item:
        source = self._dataset.histories[history]
        example, prompt = self._known(f"{source.ticker}:{source.days[index]}")
        return Item(
            key=example.key,
            messages=prompt.messages,
            subject={
                "ticker": example.ticker,
                "as_of": example.as_of.isoformat(),
                "actual_direction": example.label.direction,
                "actual_percent": example.label.percent,
                "closes": [bar.close for bar in example.window],
                "day_change": example.day_change,
            },
        )


def _chosen(facts: Sequence[Fact], count: int, rng: random.Random) -> list[Fact]:
    """At most ``count`` facts to cite; the newest headline is among them and comes last."""
    citable = _citable(facts)
    newest = next((fact for fact in citable if fact.kind == "headline"), None)
    if newest is None or count == 0:
        return rng.sample(citable, min(count, len(citable)))
    others = [fact for fact in citable if fact.kind != "headline"]
    return [*rng.sample(others, min(count - 1, len(others))), newest]


def _evenly(options: Sequence[_T], count: int, rng: random.Random) -> list[_T]:
    """``count`` of the options in random order, no option more than once oftener than another."""
    whole, rest = divmod(count, len(options))
    drawn = [*options] * whole + rng.sample(options, rest)
    rng.shuffle(drawn)
    return drawn


def _citable(facts: Sequence[Fact]) -> list[Fact]:
    """The facts that demonstrations choose from.

    A value that the prompt states for every day counts for the last day alone, and of all
    dates the as-of date, which comes first. Headlines that are too short to be quoted are left
    out.
    """
    last = {fact.label: at for at, fact in enumerate(facts)}
    first_date = next((at for at, fact in enumerate(facts) if fact.kind == "date"), None)
    kept = [
        fact
        for at, fact in enumerate(facts)
        if fact.kind == "name"
        or (fact.kind == "value" and at == last[fact.label])
        or (fact.kind == "date" and at == first_date)
        or (fact.kind == "headline" and len(_WORD.findall(fact.text)) >= QUOTED_WORDS)
    ]
    # The close stands last, where a seed finds it in every style.
    return sorted(kept, key=lambda fact: fact.label == "close")


def _phrase(fact: Fact, rng: random.Random) -> str:
    if fact.kind == "headline":
        words = list(_WORD.finditer(fact.text))
        if len(words) <= _QUOTED_WHOLE:
            return f'"{fact.text}"'
        count = min(len(words), rng.randint(QUOTED_WORDS, QUOTED_WORDS + 2))
        start = rng.randrange(len(words) - count + 1)
        return f'"{fact.text[words[start].start() : words[start + count - 1].end()]}"'
    if fact.kind != "value":
        return fact.text
    # "high 104.77" cites nothing: the name of a day's high is "high of".
    name = fact.names[0] if fact.names[0].startswith(f"{fact.label} ") else fact.label
    joint = "" if name != fact.label else rng.choice(("", "at ", "of "))
    return f"{name} {joint}{fact.text}"


def _joined(phrases: Sequence[str]) -> str:
    *first, last = phrases
    return f"{', '.join(first)} and {last}" if first else last

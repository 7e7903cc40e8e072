"""The direction call: will a stock's next close be higher or lower?"""

import random
import re
from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import NamedTuple

from engine.config import DataConfig, RunConfig
from engine.evaluation.intervals import wilson
from engine.market import sampler, sources
from engine.market.dataset import Dataset
from engine.market.example import Example
from engine.market.facts import Fact
from engine.market.prompts import ANSWER_TOKENS, BUDGET, Prompt, compose
from engine.rewards.components import COMPONENTS
from engine.rewards.facts import QUOTED_WORDS
from engine.rewards.schemes import SCHEMES, assess
from engine.task import Assessment, Item

_CACHED_PROMPTS = 4096
_WORD = re.compile(r"\w+")

# Most demonstrations cite one or two facts: enough to show how, with room to learn more.
_FACT_COUNTS = (0, 1, 1, 1, 2, 2, 2, 3)
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
_CONCLUSIONS = (
    "I expect {call}.",
    "My call is {call}.",
    "So I lean {call}.",
    "That points {call}.",
    "The next move looks {call}.",
)


class _Call(NamedTuple):
    """What the metrics need of one judged completion."""

    market_up: bool
    called_up: bool | None
    """None for a completion that could not be read."""
    confidence: float | None
    day_change: float
    """Move of the as-of day in percent, which momentum repeats."""

    @property
    def right(self) -> bool:
        return self.called_up == self.market_up


class DirectionCall:
    """The task of calling UP or DOWN, see ``engine.task.Task``."""

    name = "direction_call"

    def __init__(
        self,
        dataset: Dataset,
        data: DataConfig,
        *,
        scheme: str,
        seed: int,
        budget: int = BUDGET,
        answer_tokens: int = ANSWER_TOKENS,
    ) -> None:
        """Draw training examples from ``dataset`` as ``data`` says.

        Args:
            scheme: a key of ``SCHEMES``.
            seed: decides the choice and order of examples.
            budget: tokens that prompt and answer may take together.
            answer_tokens: those of them kept for the answer.

        Raises:
            UserError: balanced sampling, and one side has no example.
        """
        self._dataset = dataset
        self.weights = SCHEMES[scheme]
        self._seed = seed
        self._style = data.style
        self._budget, self._answer_tokens = budget, answer_tokens
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
            UserError: unknown source, or a history too short for the splits.
        """
        data = config.data
        return cls(
            Dataset.configured(sources.load(data.source).histories, data),
            data,
            scheme=config.reward.scheme,
            seed=config.seed,
            budget=config.rollout.context,
            answer_tokens=config.rollout.max_new_tokens,
        )

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

    def demonstration(self, item: Item, rng: random.Random) -> str:
        """A short answer in the asked-for form, its direction a coin flip.

        It cites none to three facts of the prompt. The percent is drawn around the stock's
        volatility and the confidence evenly from 50 to 95 %.
        """
        example, prompt = self._known(item.key)
        call = rng.choice(("UP", "DOWN"))
        cited = rng.sample(_citable(prompt.facts), rng.choice(_FACT_COUNTS))
        if cited:
            facts = _joined([_phrase(fact, rng) for fact in cited])
            opening = rng.choice(_OPENINGS).format(facts=facts)
        else:
            opening = rng.choice(_OPENINGS_WITHOUT_FACTS)
        conclusion = rng.choice(_CONCLUSIONS).format(call=call)
        percent = max(0.1, abs(rng.gauss(0, 1)) * example.sigma20 * rng.uniform(0.7, 1.3))
        return (
            f"<think>{opening} {conclusion}</think>\n"
            f"<answer>{call} {percent:.1f}% confidence {rng.randint(50, 95)}%</answer>"
        )

    def assess(self, item: Item, completion: str) -> Assessment:
        """Parse and score one completion.

        Raises:
            KeyError: the item is not one of this task's.
        """
        example, prompt = self._known(item.key)
        return assess(example, prompt, completion, self.weights)

    def metrics(self, judged: Sequence[tuple[Item, Assessment]]) -> dict[str, float]:
        """Metrics over a batch, flat names; what is not known is left out.

        ``brier`` is the mean of (confidence - right)² over the calls that state one, and
        ``brier/base_rate`` what always stating the share of UP among the same items would
        score. ``baseline/momentum`` repeats the direction of the as-of day.
        """
        if not judged:
            return {}
        calls = [_call(item, assessment) for item, assessment in judged]
        return {
            **_call_metrics(calls),
            **_confidence_metrics(calls),
            **_baselines(calls),
            **_reward_metrics([assessment for _, assessment in judged]),
        }

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


def _call(item: Item, assessment: Assessment) -> _Call:
    direction = assessment.prediction["direction"]
    confidence = assessment.prediction["confidence"]
    day_change = item.subject["day_change"]
    assert isinstance(day_change, float)
    return _Call(
        market_up=item.subject["actual_direction"] == "UP",
        called_up=None if direction is None else direction == "UP",
        confidence=confidence if isinstance(confidence, float) else None,
        day_change=day_change,
    )


def _mean(values: Iterable[float]) -> float:
    numbers = list(values)
    return sum(numbers) / len(numbers)


def _call_metrics(calls: Sequence[_Call]) -> dict[str, float]:
    read = [call for call in calls if call.called_up is not None]
    hits = sum(call.right for call in calls)
    low, high = wilson(hits, len(calls))
    metrics = {
        "market/up_share": _mean(call.market_up for call in calls),
        "parsed": len(read) / len(calls),
        "accuracy": hits / len(calls),
        "accuracy/n": float(len(calls)),
        "accuracy/low": low,
        "accuracy/high": high,
    }
    if read:
        metrics["calls/up_share"] = _mean(bool(call.called_up) for call in read)
    for name, side in (("accuracy/up", True), ("accuracy/down", False)):
        of_side = [call.right for call in calls if call.market_up is side]
        if of_side:
            metrics[name] = _mean(of_side)
    return metrics


def _confidence_metrics(calls: Sequence[_Call]) -> dict[str, float]:
    stated = [call for call in calls if call.called_up is not None and call.confidence is not None]
    if not stated:
        return {}
    up_share = _mean(call.market_up for call in stated)
    return {
        "confidence/mean": _mean(call.confidence or 0.0 for call in stated),
        "confidence/hit_rate": _mean(call.right for call in stated),
        "brier": _mean(((call.confidence or 0.0) - call.right) ** 2 for call in stated),
        "brier/base_rate": up_share * (1 - up_share),
    }


def _baselines(calls: Sequence[_Call]) -> dict[str, float]:
    # An unchanged day gives momentum nothing to repeat, and so is never right.
    repeated = [call.day_change > 0 if call.market_up else call.day_change < 0 for call in calls]
    return {
        "baseline/always_up": _mean(call.market_up for call in calls),
        "baseline/momentum": _mean(repeated),
    }


def _reward_metrics(assessments: Sequence[Assessment]) -> dict[str, float]:
    metrics = {"reward/total": _mean(assessment.reward for assessment in assessments)}
    for at, name in enumerate(COMPONENTS):
        metrics[f"reward/{name}"] = _mean(a.components[at].value for a in assessments)
    for name in ("total", "prediction", "reasoning"):
        metrics[f"rubric/{name}"] = _mean(a.rubric[name] for a in assessments)
    return metrics

"""Named sets of weights, and the assessment of a completion under one of them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from engine.market.example import Example
from engine.market.prompts import Prompt
from engine.rewards.components import (
    COMPONENTS,
    DEFAULTS,
    Score,
    Thresholds,
    coherence_score,
    confidence_score,
    data_use_score,
    direction_score,
    format_score,
    magnitude_score,
)
from engine.rewards.custom import CustomComponent
from engine.rewards.facts import Citation, citations, untrue_numbers, verbatim_share
from engine.rewards.parse import Prediction, parse
from engine.task import Assessment, ComponentScore


@dataclass(frozen=True)
class Scheme:
    """Weights and thresholds: how components become one number."""

    name: str
    weights: Mapping[str, float]
    """By component, in the order to show. A weight of 0 shows without training."""
    thresholds: Thresholds = DEFAULTS


def _weighted(name: str, *weights: float) -> Scheme:
    return Scheme(name, dict(zip(COMPONENTS, weights, strict=True)))


SCHEMES: dict[str, Scheme] = {
    # format, direction, magnitude, confidence, data use, coherence
    "stage1": _weighted("stage1", 0.20, 0.35, 0.20, 0.10, 0.15, 0.0),
    "stage2": _weighted("stage2", 0.0, 0.25, 0.20, 0.25, 0.30, 0.0),
    "rubric": _weighted("rubric", 0.0, 0.4, 0.2, 0.0, 0.2, 0.2),
}
"""The schemes that have names: one for each stage, and the rubric view as a reward."""


def score(
    prediction: Prediction,
    cited: Sequence[Citation],
    example: Example,
    prompt: Prompt,
    thresholds: Thresholds = DEFAULTS,
) -> dict[str, Score]:
    """Every component of a completion that was read, by name."""
    label, reasoning = example.label, prediction.reasoning
    scores = (
        format_score(prediction),
        direction_score(prediction, label),
        magnitude_score(
            prediction,
            label,
            sigma20=example.sigma20,
            horizon=example.horizon,
            thresholds=thresholds,
        ),
        confidence_score(prediction, label),
        data_use_score(
            cited,
            verbatim_share(reasoning, prompt.text),
            untrue_numbers(reasoning, prompt.facts),
            thresholds,
        ),
        coherence_score(prediction, cited, thresholds),
    )
    return dict(zip(COMPONENTS, scores, strict=True))


def rubric(scores: Mapping[str, Score]) -> dict[str, float]:
    """The unweighted view of the same scores.

    Returns:
        ``prediction`` [0, 0.6] = 0.4 direction + 0.2 magnitude, ``reasoning`` [0, 0.4] =
        0.2 data use + 0.2 coherence, and their sum ``total`` [0, 1].
    """
    prediction = 0.4 * scores["direction"].value + 0.2 * scores["magnitude"].value
    reasoning = 0.2 * scores["data_use"].value + 0.2 * scores["coherence"].value
    return {"prediction": prediction, "reasoning": reasoning, "total": prediction + reasoning}


def assess(
    example: Example,
    prompt: Prompt,
    completion: str,
    scheme: Scheme,
    custom: Sequence[CustomComponent] = (),
) -> Assessment:
    """Parse and score a completion.

    The rubric keeps the default thresholds whatever the scheme: it is what runs are compared by.

    Args:
        custom: components of the user's own, each weighed by ``scheme`` under its name.

    Raises:
        RunFailedError: a custom component failed.
    """
    prediction = parse(completion)
    cited = citations(prediction.reasoning, prompt.facts)
    scores = score(prediction, cited, example, prompt, scheme.thresholds)
    view = scores
    if scheme.thresholds != DEFAULTS:
        view = score(prediction, cited, example, prompt)
    scores = scores | {one.name: one.score(prediction, example, prompt.text) for one in custom}
    offset = prediction.reasoning_start
    return Assessment(
        components=tuple(
            ComponentScore(name, scored.value, scheme.weights[name], scored.reason)
            for name, scored in scores.items()
        ),
        prediction={
            "direction": prediction.direction,
            "percent": prediction.percent,
            "confidence": prediction.confidence,
            "reasoning": prediction.reasoning,
            "error": prediction.error,
        },
        rubric=rubric(view),
        cited=tuple((offset + citation.start, offset + citation.end) for citation in cited),
    )

"""Named sets of weights, and the assessment of a completion under one of them."""

from collections.abc import Mapping, Sequence

from engine.market.example import Example
from engine.market.prompts import Prompt
from engine.rewards.components import (
    COMPONENTS,
    Score,
    coherence_score,
    confidence_score,
    data_use_score,
    direction_score,
    format_score,
    magnitude_score,
)
from engine.rewards.facts import Citation, citations, verbatim_share
from engine.rewards.parse import Prediction, parse
from engine.task import Assessment, ComponentScore

SCHEMES: dict[str, dict[str, float]] = {
    "stage1": {
        "format": 0.20,
        "direction": 0.35,
        "magnitude": 0.20,
        "confidence": 0.10,
        "data_use": 0.15,
        "coherence": 0.0,
    },
}
"""Weight of every component, by scheme. A weight of 0 shows without training."""


def score(
    prediction: Prediction, cited: Sequence[Citation], example: Example, prompt: Prompt
) -> dict[str, Score]:
    """Every component of a completion that was read, by name."""
    label = example.label
    scores = (
        format_score(prediction),
        direction_score(prediction, label),
        magnitude_score(prediction, label, sigma20=example.sigma20, horizon=example.horizon),
        confidence_score(prediction, label),
        data_use_score(cited, verbatim_share(prediction.reasoning, prompt.text)),
        coherence_score(prediction, cited),
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
    example: Example, prompt: Prompt, completion: str, weights: Mapping[str, float]
) -> Assessment:
    """Parse and score a completion.

    Args:
        weights: by component, as in ``SCHEMES``.
    """
    prediction = parse(completion)
    cited = citations(prediction.reasoning, prompt.facts)
    scores = score(prediction, cited, example, prompt)
    offset = prediction.reasoning_start
    return Assessment(
        components=tuple(
            ComponentScore(name, scored.value, weights[name], scored.reason)
            for name, scored in scores.items()
        ),
        prediction={
            "direction": prediction.direction,
            "percent": prediction.percent,
            "confidence": prediction.confidence,
            "reasoning": prediction.reasoning,
            "error": prediction.error,
        },
        rubric=rubric(scores),
        cited=tuple((offset + citation.start, offset + citation.end) for citation in cited),
    )

"""The reward components of a direction call, each a number with its reason.

All are pure functions of what was read, what was cited and what happened. ``q`` is the stated
confidence in [0, 1]. Reasons are short lines for a person, without a full stop.
"""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, NamedTuple

from pydantic import ConfigDict, Field

from engine.market.example import Direction, Label
from engine.rewards.facts import Citation
from engine.rewards.parse import Prediction

COMPONENTS = ("format", "direction", "magnitude", "confidence", "data_use", "coherence")
"""Names of the components, in the order in which they are shown."""

NO_CONFIDENCE = -1.5
"""Silence scores as being wrong with full confidence."""

FREE_NUMBERS = 4
"""Numbers that a reasoning may state beyond the prompt's: its forecast, a difference it took."""

_Share = Annotated[float, Field(ge=0, le=1)]


@dataclass(frozen=True)
class Thresholds:
    """What a scheme may set in the components besides their weights."""

    # For the reader of scheme files; a dataclass by itself ignores it.
    __pydantic_config__ = ConfigDict(extra="forbid")

    sigma_floor: Annotated[float, Field(gt=0, le=100)] = 0.5
    """Smallest volatility, in percentage points, that the magnitude is measured against."""
    data_use_steps: tuple[_Share, _Share, _Share, _Share, _Share] = (0.0, 0.33, 0.6, 0.8, 1.0)
    """Data use for 0, 1, 2, 3 and at least 4 facts."""
    copied_share: _Share = 0.5
    """A reasoning of which a larger share is copied from the prompt earns no data use."""
    min_words: Annotated[int, Field(ge=1, le=10_000)] = 20
    """Words from which a reasoning counts as developed."""
    distinct_share: _Share = 0.7
    """Smallest share of distinct 3-grams in a reasoning that does not repeat itself."""

    def __post_init__(self) -> None:
        """Refuse steps that pay less for more.

        Raises:
            ValueError: data_use_steps fall somewhere.
        """
        if list(self.data_use_steps) != sorted(self.data_use_steps):
            raise ValueError("data_use_steps must not fall")


DEFAULTS = Thresholds()

_SIDES: dict[Direction, str] = {
    "UP": "up upward upwards rise rises rising higher gain gains climb climbs increase bullish",
    "DOWN": "down downward downwards fall falls falling lower drop drops decline declines"
    " decrease bearish",
}
_SIDE_OF = {word: side for side, words in _SIDES.items() for word in words.split()}
_WORD = re.compile(r"\w+")


class Score(NamedTuple):
    """The value of a component and one line saying why."""

    value: float
    reason: str


def format_score(prediction: Prediction) -> Score:
    """1 for reasoning and one complete answer, ½ for any answer that can be read, else 0.

    Range [0, 1]. Complete means direction, percent and confidence, after one non-empty
    ``<think>…</think>``, each tag once. Source: this project.
    """
    if prediction.error:
        return Score(0.0, prediction.error)
    if prediction.flaw:
        return Score(0.5, prediction.flaw)
    return Score(1.0, "reasoning and one answer")


def direction_score(prediction: Prediction, label: Label) -> Score:
    """1 when the called side is the market's, else 0.

    Range {0, 1}; a move of exactly 0 has no label, so both sides are possible. Source: this
    project.
    """
    if prediction.direction is None:
        return Score(0.0, "no direction called")
    right = prediction.direction == label.direction
    return Score(float(right), f"called {prediction.direction}, market went {label.direction}")


def magnitude_score(
    prediction: Prediction,
    label: Label,
    *,
    sigma20: float,
    horizon: int,
    thresholds: Thresholds = DEFAULTS,
) -> Score:
    """``1 - min(1, |predicted - actual| / (2 σ20 √h))`` when the direction is right, else 0.

    Range [0, 1]. The scale is what the stock itself moved by lately, known on the as-of day;
    √h is how the spread of a random walk grows with the horizon h. Source: this project.

    Args:
        sigma20: percentage points; not less than ``sigma_floor`` is used.
        horizon: trading days.
    """
    if prediction.direction != label.direction:
        return Score(0.0, "counts only when the direction is right")
    if prediction.percent is None:
        return Score(0.0, "no percent stated")
    scale = 2 * max(sigma20, thresholds.sigma_floor) * math.sqrt(horizon)
    off = abs(prediction.percent - abs(label.percent))
    name = "2σ20" if horizon == 1 else f"2σ20·√{horizon}"
    return Score(1 - min(1.0, off / scale), f"{off:.1f} points off; {name} is {scale:.1f} points")


def confidence_score(prediction: Prediction, label: Label) -> Score:
    """``1 - 1.3 (1-q)²`` when right, ``-0.2 - 1.3 q²`` when wrong.

    Range [-1.5, 1]. The expectation at a true probability p is a constant minus
    ``1.3 (q-p)²``, so stating q = p is best: the Brier score (Brier 1950, doi
    10.1175/1520-0493(1950)078<0001:VOFEIT>2.0.CO;2) plus a term for being right that q cannot
    move. No readable confidence, or no call, scores ``NO_CONFIDENCE``.
    """
    if prediction.direction is None:
        return Score(NO_CONFIDENCE, "no direction called")
    q = prediction.confidence
    if q is None:
        return Score(NO_CONFIDENCE, "no confidence between 0 and 100 % stated")
    sure = f"{q * 100:.0f} % sure and"
    stated = f"{q:.2f}".removeprefix("0")
    if prediction.direction == label.direction:
        return Score(1 - 1.3 * (1 - q) ** 2, f"{sure} right: 1 − 1.3·(1−{stated})²")
    return Score(-0.2 - 1.3 * q**2, f"{sure} wrong: −0.2 − 1.3·{stated}²")


def data_use_score(
    cited: Sequence[Citation],
    verbatim_share: float,
    untrue: int = 0,
    thresholds: Thresholds = DEFAULTS,
) -> Score:
    """0, .33, .6, .8, 1 for 0, 1, 2, 3, at least 4 distinct facts of the prompt.

    Range [0, 1]. A reasoning of which more than half is copied scores 0, and so does one that
    states more than ``FREE_NUMBERS`` untrue numbers beyond its facts, since who writes enough
    numbers hits some. Source: this project.

    Args:
        verbatim_share: share of the reasoning's words copied in long runs, [0, 1].
        untrue: numbers that claim to be the prompt's and are not.
    """
    if verbatim_share > thresholds.copied_share:
        return Score(0.0, f"{verbatim_share:.0%} of the reasoning is copied from the prompt")
    if untrue > len(cited) + FREE_NUMBERS:
        return Score(0.0, f"{untrue} numbers that the prompt does not hold, facts: {len(cited)}")
    if not cited:
        return Score(thresholds.data_use_steps[0], "no fact of the prompt cited")
    labels = ", ".join(citation.fact.label for citation in cited[:6])
    count = f"{len(cited)} fact{'s' * (len(cited) > 1)} of the prompt cited: {labels}"
    value = thresholds.data_use_steps[min(len(cited), 4)]
    return Score(value, count + ", …" * (len(cited) > 6))


def coherence_score(
    prediction: Prediction, cited: Sequence[Citation], thresholds: Thresholds = DEFAULTS
) -> Score:
    """A quarter each for conclusion, length, evidence before conclusion, no repetition.

    Range [0, 1]. The conclusion is the last word of the reasoning that names a side; it must
    be the answered one. At least 20 words. A cited fact stands before the conclusion. At
    least 70 % of the 3-grams are distinct. Source: this project.
    """
    found = _WORD.finditer(prediction.reasoning)
    words = [(match.group().lower(), match.start()) for match in found]
    if not words:
        return Score(0.0, "no reasoning")
    concluded: Direction | None = None
    conclusion_at = 0
    for word, start in words:
        if word in _SIDE_OF:
            concluded, conclusion_at = _SIDE_OF[word], start
    grams = [tuple(word for word, _ in words[at : at + 3]) for at in range(len(words) - 2)]
    missing = []
    if concluded is None or concluded != prediction.direction:
        missing.append("does not conclude the answer")
    if len(words) < thresholds.min_words:
        missing.append(f"under {thresholds.min_words} words")
    if concluded is None or not any(citation.end <= conclusion_at for citation in cited):
        missing.append("no fact before the conclusion")
    if len(set(grams)) < thresholds.distinct_share * len(grams):
        missing.append("repeats itself")
    reason = ", ".join(missing) or "concludes its answer from facts"
    return Score(1 - len(missing) / 4, reason)

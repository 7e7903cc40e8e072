"""Read a completion: direction, percent, confidence and reasoning, or why not.

The asked-for form is ``<think>…</think>`` and then
``<answer>UP|DOWN x.x% confidence NN%</answer>``. What models write instead is accepted where
its meaning is certain: any case, signs, ranges, the three fields on lines of their own, a
``<confidence>`` tag beside the answer. What contradicts itself is refused.

Every scan is linear in the length of the text: no pattern can match the same stretch of text
in two ways, and an answer is read only where it is short.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice

from engine.market.example import Direction

MAX_CHARACTERS = 100_000
"""Longest completion that is read, several times what the longest sampling run can write."""

_MAX_TAGS = 64
_MAX_ANSWER = 400
_MAX_FIELD_LINES = 9

_TAG = re.compile(r"<(/?)(think|answer|confidence)>", re.IGNORECASE)
_DIRECTION = re.compile(r"(?<![a-z])(up|down)(?![a-z])", re.IGNORECASE)
_FIELD_LINE = re.compile(
    r"^[ \t*_-]{0,8}(?:direction|change|percent|move|magnitude|confidence)[ \t*_]{0,8}[:=]"
    r"[^\n]{0,80}$",
    re.IGNORECASE | re.MULTILINE,
)
# The sign touches its number, or it is a dash. "1,5", "1,500" and "1.2.3" are no numbers here.
_SIGN = r"([+\-\u2212]?)"
_NUMBER = r"(?<![0-9.,])([0-9]{1,6}(?:\.[0-9]{1,6})?)(?![0-9.,]*[0-9])"
_PERCENT_SIGN = r"\s?(?:%|percent(?![a-z]))"
_PERCENT = re.compile(
    rf"{_SIGN}{_NUMBER}(?:(?:{_PERCENT_SIGN})?\s?(?:-|\u2013|to)\s?{_SIGN}{_NUMBER})?"
    rf"{_PERCENT_SIGN}",
    re.IGNORECASE,
)
_STATED = (
    r"confiden(?:ce|t)(?:\s|[:=*_(>]|[-\u2013]\s|(?:of|is|level|at)(?![a-z])){0,8}"
    rf"{_SIGN}{_NUMBER}"
)
_CONFIDENCE = re.compile(
    rf"{_STATED}({_PERCENT_SIGN})?"
    # "(80% confident)", but not the change in "1.5% confidence 80%"
    rf"|{_SIGN}{_NUMBER}({_PERCENT_SIGN})[ ]{{0,2}}(?!{_STATED})confiden(?:ce|t)",
    re.IGNORECASE,
)
_BARE_CONFIDENCE = re.compile(rf"\s*{_SIGN}{_NUMBER}({_PERCENT_SIGN})?\s*", re.IGNORECASE)


@dataclass(frozen=True)
class Prediction:
    """What could be read in a completion."""

    direction: Direction | None
    """None where no direction is answered, or two are."""
    percent: float | None
    """Size of the move in percent, without a sign; the midpoint of a range."""
    confidence: float | None
    """Stated probability of being right, [0, 1]; None where not stated or unreadable."""
    reasoning: str
    """What stands inside the first ``<think>…</think>``."""
    reasoning_start: int
    """Where the reasoning begins in the completion, in characters."""
    error: str | None
    """Why no direction was understood; None when one was."""
    flaw: str | None
    """The first departure from the asked-for form; None for a perfect one."""


@dataclass(frozen=True)
class _Answer:
    direction: Direction | None = None
    percent: float | None = None
    confidence: float | None = None
    error: str | None = None


@dataclass(frozen=True)
class _Block:
    start: int
    end: int
    text: str


def parse(completion: str) -> Prediction:
    """Read a completion; never raises, linear in its length."""
    if len(completion) > MAX_CHARACTERS:
        return _unread(f"longer than {MAX_CHARACTERS:,} characters")
    tags = list(islice(_TAG.finditer(completion), _MAX_TAGS + 1))
    if len(tags) > _MAX_TAGS:
        return _unread(f"more than {_MAX_TAGS} tags")
    thoughts = _blocks("think", tags, completion)
    reasoning = thoughts[0] if thoughts else _Block(0, 0, "")
    answers = [block.text for block in _blocks("answer", tags, completion)]
    rest = thoughts[-1].end if thoughts else 0
    beside = [b.text for b in _blocks("confidence", tags, completion) if b.start >= rest]
    texts = answers or _field_lines(completion[rest:])
    answer = _only({_read(text, beside) for text in texts})
    return Prediction(
        direction=answer.direction,
        percent=answer.percent,
        confidence=answer.confidence,
        reasoning=reasoning.text,
        reasoning_start=reasoning.start,
        error=answer.error,
        flaw=_flaw(answer, reasoning.text, tags, tagged=bool(answers)),
    )


def _unread(why: str) -> Prediction:
    return Prediction(None, None, None, "", 0, error=why, flaw=why)


def _blocks(name: str, tags: Sequence[re.Match[str]], completion: str) -> list[_Block]:
    """What stands between each opening tag ``name`` and the closing one that follows it."""
    blocks = []
    opening: re.Match[str] | None = None
    for tag in tags:
        if tag.group(2).lower() != name:
            continue
        if not tag.group(1):
            opening = tag
        elif opening is not None:
            start, end = opening.end(), tag.start()
            blocks.append(_Block(start, end, completion[start:end]))
            opening = None
    return blocks


def _field_lines(text: str) -> list[str]:
    """The answer given as ``Direction: …`` and its companions, as a list of one or none."""
    lines = [line.group() for line in islice(_FIELD_LINE.finditer(text), _MAX_FIELD_LINES)]
    return ["\n".join(lines)] if any("direction" in line.lower() for line in lines) else []


def _only(answers: set[_Answer]) -> _Answer:
    if not answers:
        return _Answer(error="no <answer>…</answer>")
    if len(answers) > 1:
        return _Answer(error="different answers in one completion")
    return answers.pop()


def _read(text: str, beside: Sequence[str]) -> _Answer:
    """Read one answer with the contents of the confidence tags beside it."""
    if len(text) > _MAX_ANSWER:
        return _Answer(error=f"an answer of more than {_MAX_ANSWER} characters")
    words = {word.upper() for word in _DIRECTION.findall(text)}
    if not words:
        return _Answer(error="no direction in the answer")
    if len(words) > 1:
        return _Answer(error="the answer says both UP and DOWN")
    direction: Direction = "UP" if "UP" in words else "DOWN"

    stated = [match.groups() for match in _CONFIDENCE.finditer(text)]
    confidences = {_confidence(*(found[:3] if found[1] else found[3:6])) for found in stated}
    for inner in beside:
        bare = _BARE_CONFIDENCE.fullmatch(inner) if len(inner) <= _MAX_ANSWER else None
        confidences.add(_confidence(*bare.groups()) if bare else None)

    sizes = set()
    for sign, low, second_sign, high in _PERCENT.findall(_CONFIDENCE.sub(" ", text)):
        against = "+" if direction == "DOWN" else "-\u2212"
        if any(mark in against for mark in (sign, second_sign) if mark):
            return _Answer(error=f"the answer says {direction} with a sign that says otherwise")
        sizes.add((float(low) + float(high or low)) / 2)
    return _Answer(
        direction,
        percent=sizes.pop() if len(sizes) == 1 else None,
        confidence=confidences.pop() if len(confidences) == 1 else None,
    )


def _confidence(sign: str, number: str, percent_sign: str | None) -> float | None:
    value = float(number)
    # Without a percent sign, 0.8 may mean 0.8 % or 80 %.
    ambiguous = not percent_sign and value <= 1
    negative = sign not in ("", "+")
    return None if ambiguous or negative or value > 100 else value / 100


def _flaw(
    answer: _Answer, reasoning: str, tags: Sequence[re.Match[str]], *, tagged: bool
) -> str | None:
    if answer.error:
        return answer.error
    if not reasoning.strip():
        return "no reasoning in <think>…</think>"
    form = "".join(tag.group().lower() for tag in tags if tag.group(2).lower() != "confidence")
    if form != "<think></think>" + "<answer></answer>" * tagged:
        return "tags repeated, left open or out of order"
    if answer.percent is None:
        return "no single percent in the answer"
    if answer.confidence is None:
        return "no confidence between 0 and 100 % in the answer"
    return None

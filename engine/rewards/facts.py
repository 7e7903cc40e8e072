"""Which facts of the prompt a reasoning cites, checked one by one.

A value counts when it is written with its unit (``$691.28``, ``+1.2%``, ``21.4M``) or beside
its name (``RSI(14) at 66.1``) and equals the prompt's within half of its own last digit. The
ticker and the company count once together, and so do all dates. Parameters, as the 14 of
RSI(14) or the 5 of "5-day", are not values. A headline counts when four of its words are
quoted in a row.

Every scan is linear: names are looked for in a bounded stretch beside each number.
"""

import datetime as dt
import re
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from typing import NamedTuple

from engine.market.facts import Fact

VERBATIM_RUN = 12
"""Words in a row that count as quoted when the prompt holds them in the same order."""

QUOTED_WORDS = 4
"""Words of a headline in a row that cite it."""

_MAX_NUMBERS = 400
_BEFORE, _AFTER = 32, 20

_NUMBER = re.compile(
    r"(?<![\w.])(?P<sign>[+\-\u2212](?=[$\d]))?(?P<dollar>\$\s?)?"
    r"(?P<number>[0-9]{1,3}(?:,[0-9]{3})+(?:\.[0-9]+)?|[0-9]+(?:\.[0-9]+)?)"
    r"(?P<unit>\s?(?:%|(?:percent|dollars?|thousand|million|billion|[KMB])(?!\w)))?",
    re.IGNORECASE,
)
_UNITS = {
    "%": "%",
    "percent": "%",
    "dollar": "$",
    "dollars": "$",
    "k": "K",
    "thousand": "K",
    "m": "M",
    "million": "M",
    "b": "B",
    "billion": "B",
}
_PARAMETER = re.compile(r"(?<=[A-Za-z])\([0-9., ]{1,20}\)|(?<![\w.])[0-9]{1,4}[- ]days?(?!\w)")
_MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
_MONTH = rf"(?:{'|'.join(_MONTHS)})[a-z]{{0,6}}\.?"
_ISO_DATE = re.compile(r"(?<![\w-])([0-9]{4})-([0-9]{2})-([0-9]{2})(?![\w-])")
_MONTH_FIRST = re.compile(
    rf"(?<![\w])(?P<month>{_MONTH}) (?P<day>[0-9]{{1,2}})(?:st|nd|rd|th)?,? (?P<year>[0-9]{{4}})"
    r"(?!\w)",
    re.IGNORECASE,
)
_DAY_FIRST = re.compile(
    rf"(?<![\w])(?P<day>[0-9]{{1,2}})(?:st|nd|rd|th)? (?P<month>{_MONTH}),? (?P<year>[0-9]{{4}})"
    r"(?!\w)",
    re.IGNORECASE,
)
_WORD = re.compile(r"[a-z]+")
_ANY_WORD = re.compile(r"\w+")
_SIDE_WORDS = {
    1: "up rose risen rise rising gain gained gaining climbed added higher",
    -1: "down fell fallen fall falling lost losing loss dropped slid declined lower",
}
_SIGN_OF = {word: sign for sign, words in _SIDE_WORDS.items() for word in words.split()}
_BETWEEN = frozenset({"about", "another", "by", "of", "some"})
"""Words that may stand between such a word and its number: "a gain of 1.2%"."""


@dataclass(frozen=True)
class Citation:
    """One fact found in a reasoning, at its first mention."""

    fact: Fact
    start: int
    end: int
    """Characters of the reasoning, end excluded."""


def citations(reasoning: str, facts: Sequence[Fact]) -> tuple[Citation, ...]:
    """The distinct facts that the reasoning cites, in the order of their first mention."""
    dates, _ = _dates(reasoning)
    found = [*_names(reasoning, facts), *_date_citations(dates, facts)]
    found += [
        Citation(claim.fact, claim.start, claim.end)
        for claim in _claims(reasoning, facts)
        if claim.fact
    ]
    found += _headlines(reasoning, facts)
    distinct: dict[object, Citation] = {}
    for citation in sorted(found, key=lambda citation: (citation.start, citation.end)):
        distinct.setdefault(_identity(citation.fact), citation)
    return tuple(distinct.values())


def untrue_numbers(reasoning: str, facts: Sequence[Fact]) -> int:
    """Numbers written with a unit, or beside the name of a value, that no fact has.

    Dates and parameters are not counted, nor is what stands after the first 400 numbers.
    """
    return sum(claim.fact is None for claim in _claims(reasoning, facts))


def verbatim_share(reasoning: str, prompt: str) -> float:
    """Share of the reasoning's words that stand in the prompt in runs of ``VERBATIM_RUN``."""
    words, source = reasoning.lower().split(), prompt.lower().split()
    if not words:
        return 0.0
    quotable = set(zip(*(source[offset:] for offset in range(VERBATIM_RUN)), strict=False))
    quoted = 0
    covered_until = 0
    runs = zip(*(words[offset:] for offset in range(VERBATIM_RUN)), strict=False)
    for start, run in enumerate(runs):
        if run in quotable:
            quoted += start + VERBATIM_RUN - max(start, covered_until)
            covered_until = start + VERBATIM_RUN
    return quoted / len(words)


def _identity(fact: Fact) -> object:
    """What makes two facts the same; all names of the stock are one, and all dates."""
    if fact.kind == "value":
        return fact.unit, fact.text, fact.names
    return (fact.kind, fact.text) if fact.kind == "headline" else fact.kind


def _blank(match: re.Match[str]) -> str:
    return "\0" * len(match.group())


def _names(reasoning: str, facts: Sequence[Fact]) -> list[Citation]:
    found = []
    for fact in facts:
        if fact.kind != "name" or not fact.names:
            continue
        spelled = "|".join(map(re.escape, fact.names))
        match = re.search(rf"(?<!\w)(?:{spelled})(?!\w)", reasoning)
        if match:
            found.append(Citation(fact, match.start(), match.end()))
    return found


def _dates(reasoning: str) -> tuple[list[tuple[str, int, int]], str]:
    """ISO form and span of every date written, and the text with the dates blanked out."""
    found = []
    for match in _ISO_DATE.finditer(reasoning):
        found.append((match.group(), match.start(), match.end()))
    for pattern in (_MONTH_FIRST, _DAY_FIRST):
        for match in pattern.finditer(reasoning):
            month = _MONTHS.index(match["month"][:3].lower()) + 1
            try:
                day = dt.date(int(match["year"]), month, int(match["day"]))
            except ValueError:  # such as February 30
                continue
            found.append((day.isoformat(), match.start(), match.end()))
    masked = reasoning
    for pattern in (_ISO_DATE, _MONTH_FIRST, _DAY_FIRST):
        masked = pattern.sub(_blank, masked)
    return found, masked


def _date_citations(dates: Sequence[tuple[str, int, int]], facts: Sequence[Fact]) -> list[Citation]:
    shown = {fact.text: fact for fact in facts if fact.kind == "date"}
    return [Citation(shown[text], start, end) for text, start, end in dates if text in shown]


def _headlines(reasoning: str, facts: Sequence[Fact]) -> list[Citation]:
    """Citations of headlines; words that two of them share, or that overlap, count once."""
    quotable: dict[tuple[str, ...], Fact] = {}
    for fact in facts:
        if fact.kind == "headline":
            words = [word.lower() for word in _ANY_WORD.findall(fact.text)]
            for run in zip(*(words[offset:] for offset in range(QUOTED_WORDS)), strict=False):
                quotable.setdefault(run, fact)
    if not quotable:
        return []
    found = []
    recent: deque[re.Match[str]] = deque(maxlen=QUOTED_WORDS)
    for word in _ANY_WORD.finditer(reasoning):
        recent.append(word)
        quoted = quotable.get(tuple([match.group().lower() for match in recent]))
        if quoted:
            found.append(Citation(quoted, recent[0].start(), word.end()))
            recent.clear()
    return found


class _Claim(NamedTuple):
    """A number that is written as a value of the prompt, with the fact that bears it out."""

    fact: Fact | None
    start: int
    end: int


def _claims(reasoning: str, facts: Sequence[Fact]) -> list[_Claim]:
    """The numbers with a unit or beside a name; dates and parameters are left out."""
    values = [fact for fact in facts if fact.kind == "value"]
    names = sorted({name for fact in values for name in fact.names}, key=len, reverse=True)
    if not names:
        return []
    named = re.compile(rf"(?<!\w)(?:{'|'.join(map(re.escape, names))})(?!\w)", re.IGNORECASE)
    _, masked = _dates(reasoning)
    numbers = islice(_NUMBER.finditer(_PARAMETER.sub(_blank, masked)), _MAX_NUMBERS)
    found = [_claim(match, reasoning, values, named) for match in numbers]
    return [claim for claim in found if claim]


def _claim(
    match: re.Match[str], reasoning: str, values: Sequence[Fact], named: re.Pattern[str]
) -> _Claim | None:
    digits = match["number"].replace(",", "")
    if len(digits) > 15 or match.string[match.end() : match.end() + 1].isalnum():
        return None
    value = float(digits)
    tolerance = 0.5 * 10.0 ** -len(digits.partition(".")[2]) + 1e-9
    unit = _UNITS.get((match["unit"] or "").strip().lower(), "")
    if match["dollar"]:
        unit = f"${unit}" if unit in ("K", "M", "B") else "$"
    before = reasoning[max(0, match.start() - _BEFORE) : match.start()]
    after = reasoning[match.end() : match.end() + _AFTER]
    beside = {name.lower() for name in (*named.findall(before)[-1:], *named.findall(after)[:1])}
    if not unit and not beside:
        return None

    best: tuple[bool, float] | None = None
    cited: Fact | None = None
    for fact in values:
        by_name = not beside.isdisjoint(fact.names)
        # "Revenue of 365.8 billion" leaves the dollars to its name.
        written = unit == fact.unit or (by_name and f"${unit}" == fact.unit)
        if not (written if unit else by_name) or fact.value is None:
            continue
        if _sign(match["sign"], before, fact.unit) * fact.value < 0:
            continue
        error = abs(value - abs(fact.value))
        rank = (not by_name, error)
        if error <= tolerance and (best is None or rank < best):
            best, cited = rank, fact
    return _Claim(cited, match.start(), match.end())


def _sign(mark: str | None, before: str, unit: str) -> int:
    """+1 or -1 where the writing says which, 0 where it leaves the sign open.

    Prose says "fell 1.2%" or "a change of 1.2%" for -1.2%; other values carry their sign.
    """
    if mark:
        return 1 if mark == "+" else -1
    if unit != "%":
        return 1
    words = _WORD.findall(before.lower())
    if words and words[-1] in _BETWEEN:
        words.pop()
    return _SIGN_OF.get(words[-1], 0) if words else 0

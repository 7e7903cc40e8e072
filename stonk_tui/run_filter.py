"""The filter of the table of runs: ``state:training ticker:AAPL qwen.*demo``.

Terms are separated by blanks and all of them must hold. ``state:``, ``stage:`` and ``ticker:``
look at one property each; any other word is a regular expression, case ignored, that is
searched for in name, model and tickers. Parsing never fails: what is wrong with a term is said,
and the others still hold.
"""

import re
import warnings
from dataclasses import dataclass
from functools import lru_cache

from engine.runs.history import STATES

KEYS = ("state", "stage", "ticker")
_STATES = (*STATES, "unreadable")
_STAGES = {"i": "I", "1": "I", "ii": "II", "2": "II"}
_KEYED = re.compile(r"([A-Za-z]+):(.*)", re.DOTALL)
# On texts this short, few repetitions, none of them of a group, and few alternatives are matched
# at once; a pattern such as (a+)+$ or a?a?a?…aaa would hold up the whole cockpit.
_REPETITION = re.compile(r"(?<!\()(?:[*+?]|\{[^}]*\})[?+]?")
_MAX_REPETITIONS = 3
_MAX_ALTERNATIVES = 8
_MAX_HAYSTACK = 120
_MAX_TERM = 100


@dataclass(frozen=True)
class Subject:
    """What of a run can be filtered by."""

    name: str
    model: str = ""
    tickers: frozenset[str] = frozenset()
    state: str = ""
    stage: str = ""


@dataclass(frozen=True)
class Term:
    """One condition."""

    kind: str
    """``state``, ``stage``, ``ticker``, or ``text`` for a regular expression."""
    value: str

    def holds(self, subject: Subject) -> bool:
        """Whether ``subject`` meets this condition."""
        if self.kind == "state":
            return subject.state.startswith(self.value)
        if self.kind == "stage":
            return subject.stage == self.value
        if self.kind == "ticker":
            return any(ticker.casefold() == self.value for ticker in subject.tickers)
        texts = (subject.name, subject.model, *subject.tickers)
        return any(_found(self.value, text[:_MAX_HAYSTACK]) for text in texts)


@dataclass(frozen=True)
class Problem:
    """A term that is not taken as it was written, and why."""

    term: str
    why: str


@dataclass(frozen=True)
class Filter:
    """Conditions that all must hold; the empty filter lets everything pass."""

    terms: tuple[Term, ...] = ()
    problems: tuple[Problem, ...] = ()

    def matches(self, subject: Subject) -> bool:
        """Whether ``subject`` passes."""
        return all(term.holds(subject) for term in self.terms)


def parse(text: str) -> Filter:
    """Read a filter as it was typed; a term that cannot be used is left out and explained."""
    terms: list[Term] = []
    problems: list[Problem] = []
    for word in text.split():
        keyed = _KEYED.fullmatch(word)
        if len(word) > _MAX_TERM:
            problems.append(Problem(word[:20] + "…", f"longer than {_MAX_TERM} characters"))
        elif keyed is None:
            term, why = _expression(word)
            terms.append(term)
            if why:
                problems.append(Problem(word, why))
        else:
            found = _keyed(keyed[1].lower(), keyed[2])
            if isinstance(found, Term):
                terms.append(found)
            else:
                problems.append(Problem(word, found))
    return Filter(tuple(terms), tuple(problems))


def _keyed(key: str, value: str) -> Term | str:
    """The term, or what is wrong with it."""
    if key not in KEYS:
        return f"no such key; there are {', '.join(f'{known}:' for known in KEYS)}"
    if key == "state":
        state = value.lower().replace("-", "_")
        if state and any(known.startswith(state) for known in _STATES):
            return Term("state", state)
        return f"{'no such state; there are' if value else 'which state?'} {', '.join(_STATES)}"
    if key == "stage":
        stage = _STAGES.get(value.lower())
        return Term("stage", stage) if stage else "a stage is I or II"
    return Term("ticker", value.casefold()) if value else "which ticker? For one ticker:AAPL"


def _expression(word: str) -> tuple[Term, str]:
    """A regular expression; one that cannot be used is searched for as it stands."""
    literal = Term("text", re.escape(word))
    try:
        _compiled(word)
    except (re.error, OverflowError, RecursionError) as error:
        return literal, f"taken as plain text: {error}"
    bare = re.sub(r"\\.", "_", word)
    repeats = len(_REPETITION.findall(bare)) > _MAX_REPETITIONS or re.search(r"\)[*+?{]", bare)
    if repeats or bare.count("|") > _MAX_ALTERNATIVES:
        return literal, "taken as plain text: it has too many ways to match"
    return Term("text", word), ""


@lru_cache(maxsize=4096)
def _found(pattern: str, text: str) -> bool:
    return _compiled(pattern).search(text) is not None


@lru_cache(maxsize=256)
def _compiled(pattern: str) -> re.Pattern[str]:
    with warnings.catch_warnings():
        # What may mean something else one day is no news for who types a filter.
        warnings.simplefilter("ignore")
        return re.compile(pattern, re.IGNORECASE)

"""The filter grammar of rollouts, and what it means in SQL.

A filter is terms with blanks between them, all of which must hold::

    ticker:AAPL right:no reward<0.3 text:~merg(er|ing) step:100..200 -call:down

Values never become part of the SQL: they are bound as parameters. A rollout of which a
figure is not known fails every condition on it, and so passes the negated one.
"""

import difflib
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from engine.errors import UserError
from engine.runs.pattern import Pattern, PatternError

MAX_FILTER = 1000
_MAX_TERMS = 40

Parameter = str | float
_Sql = tuple[str, tuple[Parameter, ...]]


class FilterError(UserError):
    """A term that cannot be understood: what is wrong, where, and what would be possible."""

    def __init__(self, what: str, fix: str, at: int, length: int) -> None:
        super().__init__(what, where=f"filter, character {at + 1}", fix=fix)
        self.at = at
        """Where the term begins, in characters."""
        self.length = length


@dataclass(frozen=True)
class Filter:
    """A parsed filter; the empty one lets everything pass."""

    text: str = ""
    conditions: tuple[_Sql, ...] = ()
    patterns: tuple[Pattern, ...] = ()
    """What the SQL function ``matches(number, text)`` searches for, by number."""

    @property
    def where(self) -> str:
        """The condition on a row ``r`` of ``rollouts``, with ``?`` for each parameter."""
        return " AND ".join(sql for sql, _ in self.conditions) or "1"

    @property
    def parameters(self) -> tuple[Parameter, ...]:
        return tuple(value for _, values in self.conditions for value in values)


NOT_REPLAYED: _Sql = ("r.superseded = 0", ())
"""What every filter asks for that says nothing about ``superseded``."""


def _of_prompt(name: str) -> str:
    return f"(SELECT json_extract(p.subject, '$.{name}') FROM prompts p WHERE p.id = r.prompt_id)"


_TICKER = _of_prompt("ticker")
_AS_OF = _of_prompt("as_of")
_ACTUAL = _of_prompt("actual_direction")
_CALL = "json_extract(r.prediction, '$.direction')"
# A text would be larger than any number: what is no number is not known.
_CONFIDENCE = (
    "CASE WHEN json_type(r.prediction, '$.confidence') IN ('integer', 'real')"
    " THEN json_extract(r.prediction, '$.confidence') END"
)

SORTABLE: dict[str, tuple[str, ...]] = {
    "step": ("r.step",),
    "ticker": (_TICKER, _AS_OF),
    "as_of": (_AS_OF, _TICKER),
    "call": (_CALL,),
    "confidence": (_CONFIDENCE,),
    "actual": (_ACTUAL,),
    "reward": ("r.reward",),
    "advantage": ("r.advantage",),
    "tokens": ("r.tokens",),
}
"""What rollouts can be ordered by, as SQL expressions on a row ``r``."""


@dataclass(frozen=True)
class Order:
    """How rollouts follow each other; equal ones by step, newest first, and in group order."""

    by: str = "step"
    descending: bool = True

    @property
    def sql(self) -> str:
        """The terms after ORDER BY."""
        way = "DESC" if self.descending else "ASC"
        firsts = [f"{expression} {way} NULLS LAST" for expression in SORTABLE[self.by]]
        if self.by == "step":
            # Spelled as the index is, which then gives the order without sorting.
            return f"r.step {way}, r.grp, r.sample, r.id"
        return ", ".join([*firsts, "r.step DESC", "r.grp", "r.sample", "r.id"])


# --- terms

_SIDES = {"up": "UP", "down": "DOWN"}
_TERM = re.compile(r"(-?)([A-Za-z_]+)(<=|>=|<|>|=|:)(.*)", re.DOTALL)
_NUMBER = re.compile(r"[+-]?(\d{1,15}(\.\d{0,15})?|\.\d{1,15})(%?)", re.ASCII)


class _BadValueError(ValueError):
    """What is wrong with a value."""


def _yes_or_no(yes: str) -> Callable[[str], _Sql]:
    def read(value: str) -> _Sql:
        if value not in ("yes", "no"):
            raise _BadValueError(f"{value!r} is neither yes nor no")
        return (yes if value == "yes" else f"NOT ({yes})"), ()

    return read


def _right(value: str) -> _Sql:
    known = f"{_CALL} IN ('UP', 'DOWN') AND {_ACTUAL} IN ('UP', 'DOWN')"
    meanings = {
        "yes": f"{known} AND {_CALL} = {_ACTUAL}",
        "no": f"{known} AND {_CALL} <> {_ACTUAL}",
        "none": f"NOT coalesce({known}, 0)",
    }
    if value not in meanings:
        raise _BadValueError(f"{value!r} is neither yes, no nor none")
    return meanings[value], ()


def _side(expression: str, *, can_be_none: bool) -> Callable[[str], _Sql]:
    def read(value: str) -> _Sql:
        if value in _SIDES:
            return f"{expression} = '{_SIDES[value]}'", ()
        if can_be_none and value == "none":
            return f"coalesce({expression}, '') NOT IN ('UP', 'DOWN')", ()
        either = "neither up, down nor none" if can_be_none else "neither up nor down"
        raise _BadValueError(f"{value!r} is {either}")

    return read


def _ticker(value: str) -> _Sql:
    names = [name for name in value.split(",") if name]
    if not names:
        raise _BadValueError("which ticker?")
    # The prompts first: there are many times as many rollouts.
    sql = (
        "r.prompt_id IN (SELECT p.id FROM prompts p"
        f" WHERE upper(json_extract(p.subject, '$.ticker')) IN ({', '.join('?' * len(names))}))"
    )
    return sql, tuple(map(str.upper, names))


@dataclass(frozen=True)
class _Field:
    """One name that a term may begin with."""

    possible: str
    """What can be written, for whoever wrote something else."""
    read: Callable[[str], _Sql] | None = None
    """The condition of what stands after the colon; None for numbers and for text."""
    number: str = ""
    """The SQL expression that a number is compared with."""
    is_share: bool = False


def _number_field(name: str, expression: str, *examples: str) -> _Field:
    written = ", ".join(f"{name}{example}" for example in examples)
    return _Field(f"{written}", number=expression, is_share=name == "confidence")


FIELDS: dict[str, _Field] = {
    "ticker": _Field("ticker:AAPL, ticker:AAPL,IBM", _ticker),
    "right": _Field("right:yes, right:no, right:none", _right),
    "call": _Field("call:up, call:down, call:none", _side(_CALL, can_be_none=True)),
    "actual": _Field("actual:up, actual:down", _side(_ACTUAL, can_be_none=False)),
    "reward": _number_field("reward", "r.reward", "<0.3", ">=0", ":0.2..0.5"),
    "advantage": _number_field("advantage", "r.advantage", "<0", ">=0.1", ":-0.1..0.1"),
    "step": _number_field("step", "r.step", ">100", ":12", ":12..20"),
    "confidence": _number_field("confidence", _CONFIDENCE, ">70%", "<=0.5", ":60%..80%"),
    "tokens": _number_field("tokens", "r.tokens", ">200", ":100..150"),
    "text": _Field('text:merger, text:"two words", text:~merg(er|ing)'),
    "truncated": _Field("truncated:yes, truncated:no", _yes_or_no("r.finished = 0")),
    "superseded": _Field(
        "superseded:yes (steps that a resume replayed), superseded:no",
        _yes_or_no("r.superseded = 1"),
    ),
}


def parse(text: str) -> Filter:
    """Read a filter as a person typed it.

    Raises:
        FilterError: with the place of the first term that cannot be understood.
    """
    if len(text) > MAX_FILTER:
        raise FilterError(f"a filter has at most {MAX_FILTER} characters", "say less", 0, 1)
    conditions: list[_Sql] = []
    patterns: list[Pattern] = []
    says_which = False
    terms = _split(text)
    for at, length, term in terms:
        try:
            name, condition = _condition(term, patterns)
        except _BadValueError as error:
            field = _TERM.fullmatch(term)
            known = FIELDS.get(field[2].lower()) if field else None
            possible = known.possible if known else ", ".join(FIELDS)
            raise FilterError(str(error), f"possible: {possible}", at, length) from None
        conditions.append(condition)
        says_which = says_which or name == "superseded"
    if len(terms) > _MAX_TERMS:
        raise FilterError(f"a filter has at most {_MAX_TERMS} terms", "say less", *terms[-1][:2])
    if not says_which:
        conditions.insert(0, NOT_REPLAYED)
    # A pattern costs more than all else together: only what passed the rest is searched.
    conditions.sort(key=lambda condition: condition[0].count("matches("))
    return Filter(text.strip(), tuple(conditions), tuple(patterns))


def _split(text: str) -> list[tuple[int, int, str]]:
    """(place, length, term without its quotes) of every term."""
    terms: list[tuple[int, int, str]] = []
    at = 0
    while at < len(text):
        if text[at].isspace():
            at += 1
            continue
        start, term = at, ""
        while at < len(text) and not text[at].isspace():
            if text[at] == '"':
                closing = text.find('"', at + 1)
                if closing < 0:
                    raise FilterError(
                        "this quote is never closed", 'end it with "', at, len(text) - at
                    )
                term += text[at + 1 : closing]
                at = closing + 1
            else:
                term += text[at]
                at += 1
        terms.append((start, at - start, term))
    return terms


def _condition(term: str, patterns: list[Pattern]) -> tuple[str, _Sql]:
    """(name, condition) of one term; a regular expression is added to ``patterns``."""
    parts = _TERM.fullmatch(term)
    if parts is None:
        word = term.lstrip("-").lower()
        if word in FIELDS:
            raise _BadValueError(f"{word} of what? ({FIELDS[word].possible})")
        raise _BadValueError(f"{term!r} is no term; text:{term.lstrip('-')} searches for it")
    minus, name, operator, value = parts.groups()
    name = name.lower()
    field = FIELDS.get(name)
    if field is None:
        nearest = difflib.get_close_matches(name, FIELDS, 1)
        meant = f" ({nearest[0]}?)" if nearest else ""
        raise _BadValueError(f"nothing is called {name}{meant}")
    if field.number:
        sql, values = _compare(field, operator, value)
    elif operator not in (":", "="):
        raise _BadValueError(f"{name} cannot be larger or smaller: write {name}:")
    elif field.read is not None:
        # Tickers are compared in capitals, all other values are words of ours.
        sql, values = field.read(value.strip().lower())
    else:
        sql, values = _text(value, patterns)
    return name, ((f"NOT coalesce(({sql}), 0)" if minus else f"({sql})"), values)


def _compare(field: _Field, operator: str, value: str) -> _Sql:
    low, dots, high = value.partition("..")
    if not dots:
        sign = "=" if operator == ":" else operator
        return f"{field.number} {sign} ?", (_number(field, value),)
    if operator not in (":", "="):
        raise _BadValueError("a range is written with a colon")
    if not low and not high:
        raise _BadValueError("a range needs one of its ends")
    ends = [(">=", low), ("<=", high)]
    sql = [f"{field.number} {sign} ?" for sign, end in ends if end]
    return " AND ".join(sql), tuple(_number(field, end) for _, end in ends if end)


def _number(field: _Field, text: str) -> float:
    written = _NUMBER.fullmatch(text.strip())
    if written is None or (written[3] and not field.is_share):
        raise _BadValueError(f"{text!r} is no number")
    value = float(text.strip().rstrip("%"))
    if written[3]:
        return value / 100
    if field.is_share and value > 1:
        raise _BadValueError(f"{text} is above 1: write {text}%")
    return value


def _text(value: str, patterns: list[Pattern]) -> _Sql:
    if value.startswith("~"):
        try:
            patterns.append(Pattern(value[1:]))
        except PatternError as error:
            raise _BadValueError(f"{error.what}, at its character {error.at + 1}") from None
        return f"matches({len(patterns) - 1}, r.completion)", ()
    if not value:
        raise _BadValueError("which text?")
    # SQLite knows the lower case of ASCII alone; instr, unlike LIKE, does not end at a NUL.
    lowered = "".join(letter.lower() if letter.isascii() else letter for letter in value)
    return "instr(lower(r.completion), ?) > 0", (lowered,)


def matcher(patterns: Sequence[Pattern]) -> Callable[[int, object], bool]:
    """The SQL function ``matches`` of a filter's patterns."""
    return lambda number, text: isinstance(text, str) and patterns[number].search(text)

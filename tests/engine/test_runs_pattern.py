"""Patterns: what ``re`` finds, in time that grows with the text alone."""

import re
import time

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from engine.runs.pattern import Pattern, PatternError

_ATOMS = st.sampled_from(
    [
        "a",
        "b",
        "A",
        " ",
        ".",
        r"\d",
        r"\w",
        r"\W",
        r"\s",
        r"\b",
        r"\B",
        "[ab]",
        "[^a]",
        "[b-d1]",
        "^",
    ]
)


def _grown(inner: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    return st.one_of(
        st.lists(inner, min_size=1, max_size=4).map("".join),
        st.tuples(inner, inner).map(lambda two: f"({two[0]}|{two[1]})"),
        st.tuples(inner, st.sampled_from(["*", "+", "?", "*?", "{2}", "{1,2}", "{0,}"])).map(
            lambda two: f"(?:{two[0]}){two[1]}"
        ),
    )


@given(st.recursive(_ATOMS, _grown, max_leaves=8), st.text("abcAB1 \n_", min_size=1, max_size=14))
@example("a$", "ba")
@example("", "x")
@settings(max_examples=400, deadline=None)
def test_the_same_is_found_as_by_the_standard_library(pattern: str, text: str) -> None:
    standard = re.compile(pattern.replace("$", r"\Z"), re.IGNORECASE | re.DOTALL)
    assert Pattern(pattern).search(text) == bool(standard.search(text))


@pytest.mark.parametrize(
    ("pattern", "text", "is_found"),
    [
        ("merger", "the MERGER of two", True),
        ("merg(er|ing).* up", "Merging\nthings goes up", True),
        (r"\bup\b", "update", False),
        (r"rsi\(14\) at 7\d", "RSI(14) at 71", True),
        (r"rsi\(14\) at 7\d", "RSI(14) at 66", False),
        ("[^]]x", "]x", False),
        ("^up$", "up", True),
        ("Ärger", "ärger", True),
    ],
)
def test_patterns_that_people_write(pattern: str, text: str, is_found: bool) -> None:
    assert Pattern(pattern).search(text) == is_found


@pytest.mark.parametrize(
    "pattern", ["(a+)+$", "(a|a)*b", "(a*)*(a*)*c", ".*.*.*.*=", "(a?){30}a{30}b", "(x+x+)+y"]
)
def test_no_pattern_takes_more_than_linear_time(pattern: str) -> None:
    text = ("a" * 20_000 + "x" * 20_000) + "!"
    start = time.perf_counter()
    Pattern(pattern).search(text)
    # The standard library needs longer than the age of the universe for some of these.
    assert time.perf_counter() - start < 5


@pytest.mark.parametrize(
    ("pattern", "at", "words"),
    [
        ("ab(c", 2, "never closed"),
        ("ab)c", 2, "never opened"),
        ("[ab", 0, "never closed"),
        ("*a", 0, "nothing to repeat"),
        ("a{3", 1, "repeats are written"),
        ("a{3,2}", 1, "smaller"),
        ("(?=a)", 0, "only"),
        (r"(a)\1", 3, "not known"),
        ("a\\", 1, "backslash"),
        ("[z-a]", 3, "range"),
        ("(a{99}){99}", 0, "too large"),
        ("(" * 40 + ")" * 40, 20, "too many brackets"),
        ("a" * 400, 300, "at most"),
    ],
)
def test_what_is_wrong_is_said_with_its_place(pattern: str, at: int, words: str) -> None:
    with pytest.raises(PatternError, match=words) as caught:
        Pattern(pattern)
    assert caught.value.at == at


@given(st.text(max_size=40), st.text(max_size=40))
@settings(max_examples=300, deadline=None)
def test_any_text_is_a_pattern_or_an_error_in_words(pattern: str, text: str) -> None:
    problem = _problem(pattern, text)
    if problem is not None:
        assert problem.what
        assert 0 <= problem.at <= len(pattern)


def _problem(pattern: str, text: str) -> PatternError | None:
    try:
        Pattern(pattern).search(text)
    except PatternError as error:
        return error
    return None


def test_memory_of_what_was_met_is_bounded() -> None:
    pattern = Pattern("x(a|b).{12}z")
    for size in range(3):
        pattern.search("".join(chr(300 + (n * 7919 + size) % 5000) + "xa" for n in range(20_000)))
    assert sum(map(len, pattern._machine._states.values())) <= 20_000

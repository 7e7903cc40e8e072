"""The filter of the table of runs: what each term means, and that no text breaks it."""

import re
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stonk_tui.run_filter import Filter, Subject, parse

RUN = Subject(
    name="20251120-005320-demo",
    model="Qwen/Qwen2.5-1.5B-Instruct",
    tickers=frozenset({"AAPL", "BRK.B"}),
    state="warming_up",
    stage="I",
)

SUBJECTS = st.builds(
    Subject,
    name=st.text(max_size=20),
    model=st.text(max_size=20),
    tickers=st.frozensets(st.text(max_size=5), max_size=3),
    state=st.sampled_from(["training", "finished", "stale"]),
    stage=st.sampled_from(["I", "II", ""]),
)
# Words that come near the grammar, and others.
WORDS = st.one_of(
    st.sampled_from(
        ["state:", "state:tr", "stage:2", "stage:x", "ticker:", "(", "[a", "a{9", "x|y"]
    ),
    st.text(alphabet="abc:.*+?()[]{}|\\^$", max_size=12),
    st.text(max_size=12),
)
FILTERS = st.lists(WORDS, max_size=5).map(" ".join)


@pytest.mark.parametrize(
    ("text", "passes"),
    [
        ("", True),
        ("   ", True),
        ("demo", True),
        ("DEMO", True),
        ("prove", False),
        ("qwen2.5", True),
        ("q.*b-inst", True),
        ("^2025", True),
        ("^demo", False),
        ("aapl", True),
        ("state:warming_up", True),
        ("state:warm", True),
        ("STATE:Warming-up", True),
        ("state:training", False),
        ("stage:I", True),
        ("stage:1", True),
        ("stage:ii", False),
        ("ticker:aapl", True),
        ("ticker:brk.b", True),
        # A ticker is meant as a whole and as it stands.
        ("ticker:aap", False),
        ("ticker:brkxb", False),
        ("demo stage:1 ticker:AAPL", True),
        ("demo stage:2", False),
    ],
)
def test_all_terms_must_hold(text: str, passes: bool) -> None:
    found = parse(text)
    assert found.matches(RUN) is passes
    assert not found.problems


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("state:flying", "no such state; there are prepared, starting"),
        ("state:", "which state?"),
        ("stage:3", "a stage is I or II"),
        ("ticker:", "which ticker?"),
        ("stat:training", "no such key; there are state:, stage:, ticker:"),
        ("x" * 101, "longer than 100"),
    ],
)
def test_bad_term_is_explained_and_left_out(text: str, said: str) -> None:
    found = parse(f"{text} demo")
    assert [said in problem.why for problem in found.problems] == [True]
    assert found.matches(RUN)
    assert not found.matches(Subject("other"))


@pytest.mark.parametrize("word", ["(", "[a", "a**", "(?P<n", "*demo", "a{2,1}"])
def test_invalid_expression_is_searched_for_as_it_stands(word: str) -> None:
    found = parse(word)
    assert "taken as plain text" in found.problems[0].why
    assert found.matches(Subject(f"run {word} 1"))
    assert not found.matches(RUN)


@pytest.mark.parametrize(
    "word", ["(a+)+$", "(a|a)*b", "(a?){40}b", "a?" * 30 + "a" * 30, "(a|a)" * 19 + "b", ".*" * 20]
)
def test_expression_that_could_take_for_ever_is_not_run(word: str) -> None:
    subject = Subject("a" * 120)
    began = time.process_time()
    found = parse(word)
    found.matches(subject)
    assert found.problems
    assert time.process_time() - began < 1


@given(FILTERS, SUBJECTS)
def test_every_text_is_a_filter(text: str, subject: Subject) -> None:
    found = parse(text)
    assert isinstance(found.matches(subject), bool)
    assert len(found.terms) + len(found.problems) >= len(text.split())


@given(FILTERS, WORDS, SUBJECTS)
def test_one_more_term_never_lets_more_through(text: str, word: str, subject: Subject) -> None:
    if parse(f"{text} {word}").matches(subject):
        assert parse(text).matches(subject)


@given(st.text(alphabet=st.characters(exclude_categories=["Z", "C"]), min_size=1, max_size=8))
def test_escaped_word_is_found_where_it_stands(word: str) -> None:
    text = re.escape(word)
    if re.fullmatch(r"[A-Za-z]+:.*", text):
        return
    found = parse(text)
    if not found.problems:
        assert found.matches(Subject(f"<{word}>"))


@given(SUBJECTS)
def test_empty_filter_lets_everything_through(subject: Subject) -> None:
    assert Filter().matches(subject)

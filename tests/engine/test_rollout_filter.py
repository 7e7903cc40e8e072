"""The filter grammar: what passes, what is refused and where, and that nothing gets into SQL."""

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.errors import UserError
from engine.runs.reader import Rollout, StoreReader
from engine.runs.rollout_filter import FIELDS, SORTABLE, Filter, FilterError, Order, parse
from engine.runs.store import EventStore, RolloutRecord
from engine.task import Json

NAMES = ("right", "wrong", "unread", "no outcome", "hostile types", "cut")


@pytest.fixture(scope="module")
def reader(tmp_path_factory: pytest.TempPathFactory) -> Iterator[StoreReader]:
    """Six rollouts, one a step, called by their names in ``NAMES``."""
    path = tmp_path_factory.mktemp("store") / "events.db"
    store = EventStore(path)
    up: dict[str, Json] = {"ticker": "AAPL", "as_of": "2012-01-03", "actual_direction": "UP"}
    _store(store, 1, up, {"direction": "UP", "confidence": 0.8}, "A Merger\x00 and Ärger 100%", 0.9)
    _store(store, 2, up, {"direction": "DOWN", "confidence": 0.6}, "two  words, two words", 0.1)
    _store(store, 3, up | {"ticker": "ibm"}, {"error": "no answer"}, "I would say up", 0.2)
    _store(store, 4, {"ticker": "MSFT"}, {"direction": "UP", "confidence": 0.5}, "merging_", -0.3)
    _store(store, 5, {"ticker": 7}, {"direction": [1], "confidence": "x"}, "it's %", 0.3)
    _store(store, 6, up, {"direction": "UP"}, "cut", 0.9, finished=False)
    store.close()
    opened = StoreReader(path)
    yield opened
    opened.close()


def _store(
    store: EventStore,
    step: int,
    subject: dict[str, Json],
    prediction: dict[str, Json],
    completion: str,
    reward: float,
    *,
    finished: bool = True,
) -> None:
    record = RolloutRecord(
        group=0,
        sample=0,
        prompt="prompt",
        subject=subject,
        completion=completion,
        tokens=10 * step,
        finished=finished,
        reward=reward,
        advantage=reward - 0.3,
        prediction=prediction,
        components=(),
        cited=(),
    )
    store.rollouts(step, [record])


def passing(reader: StoreReader, text: str) -> list[str]:
    ids = reader.rollout_ids(parse(text), Order("step", descending=False))
    return [NAMES[identifier - 1] for identifier in ids]


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("", NAMES),
        ("ticker:aapl", ["right", "wrong", "cut"]),
        ("ticker:IBM,MSFT", ["unread", "no outcome"]),
        ("-ticker:AAPL", ["unread", "no outcome", "hostile types"]),
        ("right:yes", ["right", "cut"]),
        ("right:no", ["wrong"]),
        ("right:none", ["unread", "no outcome", "hostile types"]),
        ("-right:yes", ["wrong", "unread", "no outcome", "hostile types"]),
        ("call:up", ["right", "no outcome", "cut"]),
        ("call:down", ["wrong"]),
        ("call:none", ["unread", "hostile types"]),
        ("actual:up", ["right", "wrong", "unread", "cut"]),
        ("actual:down", []),
        ("reward<0.2", ["wrong", "no outcome"]),
        ("reward<=.2", ["wrong", "unread", "no outcome"]),
        ("reward:0.1..0.3", ["wrong", "unread", "hostile types"]),
        ("reward=0.9", ["right", "cut"]),
        ("advantage>=0", ["right", "hostile types", "cut"]),
        ("advantage:-1..-0.05", ["wrong", "unread", "no outcome"]),
        ("step>4", ["hostile types", "cut"]),
        ("step:2..3", ["wrong", "unread"]),
        ("step:..2", ["right", "wrong"]),
        ("step:5..", ["hostile types", "cut"]),
        ("confidence>0.5", ["right", "wrong"]),
        ("confidence>=50%", ["right", "wrong", "no outcome"]),
        ("-confidence>0.5", ["unread", "no outcome", "hostile types", "cut"]),
        ("tokens:20..30", ["wrong", "unread"]),
        ("truncated:yes", ["cut"]),
        ("truncated:no step>4", ["hostile types"]),
        ("text:merger", ["right"]),
        ("text:100%", ["right"]),
        ("text:%", ["right", "hostile types"]),
        ("text:_", ["no outcome"]),
        ("text:it's", ["hostile types"]),
        ("text:ärger", []),
        ("text:~ärger", ["right"]),
        ('text:"two words"', ["wrong"]),
        ('"text:two  words"', ["wrong"]),
        ("text:~merg(er|ing)", ["right", "no outcome"]),
        (r'text:~^"I would"', ["unread"]),
        ("text:~^cut$ text:~c.t", ["cut"]),
        ("RIGHT:YES Ticker:AAPL reward>0.5 text:~merger step<100", ["right"]),
        ("superseded:yes", []),
        ("superseded:no", NAMES),
    ],
)
def test_what_passes(reader: StoreReader, text: str, names: list[str]) -> None:
    assert passing(reader, text) == list(names)


@pytest.mark.parametrize(
    ("text", "at", "length", "words"),
    [
        ("step>1 tickr:AAPL", 7, 10, "nothing is called tickr (ticker?)"),
        ("merger", 0, 6, "'merger' is no term; text:merger"),
        ("reward", 0, 6, "reward of what"),
        ("reward<abc", 0, 10, "'abc' is no number"),
        ("reward<", 0, 7, "'' is no number"),
        ("reward<5%", 0, 9, "no number"),
        ("step>1..3", 0, 9, "a range is written with a colon"),
        ("step:..", 0, 7, "one of its ends"),
        ("confidence>70", 0, 13, "write 70%"),
        ("right:maybe", 0, 11, "neither yes, no nor none"),
        ("actual:none", 0, 11, "neither up nor down"),
        ("call:sideways", 0, 13, "up, down nor none"),
        ("ticker:", 0, 7, "which ticker"),
        ("ticker<A", 0, 8, "write ticker:"),
        ("text:", 0, 5, "which text"),
        ("text:~a(b", 0, 9, "never closed, at its character 2"),
        ('text:"two words', 5, 10, "quote is never closed"),
        ("truncated:1", 0, 11, "neither yes nor no"),
        ("reward<1e400", 0, 12, "no number"),
        ("reward<nan", 0, 10, "no number"),
        ("step>1 " * 41, 280, 6, "at most 40 terms"),
        ("x" * 1001, 0, 1, "at most 1000"),
    ],
)
def test_a_bad_term_is_explained_in_its_place(text: str, at: int, length: int, words: str) -> None:
    with pytest.raises(FilterError, match=re.escape(words)) as caught:
        parse(text)
    assert (caught.value.at, caught.value.length) == (at, length)
    assert caught.value.fix
    assert isinstance(caught.value, UserError)


def test_what_is_possible_is_said_beside_what_is_wrong() -> None:
    with pytest.raises(FilterError, match="possible: right:yes, right:no, right:none"):
        parse("right:maybe")
    with pytest.raises(FilterError, match=f"possible: {', '.join(FIELDS)}"):
        parse("x:1")


def test_every_example_that_is_offered_can_be_parsed() -> None:
    for field in FIELDS.values():
        for term in field.possible.partition(" (")[0].split(", "):
            assert parse(term).conditions


_PIECES = st.sampled_from(
    [*FIELDS, ":", "<", ">=", "..", "-", "~", '"', "'", "%", " ", "up", "yes", "0.5", "(", ";--"]
)


@given(st.one_of(st.text(max_size=60), st.lists(_PIECES, max_size=12).map("".join)))
@settings(max_examples=500, deadline=None)
def test_any_text_is_a_filter_that_runs_or_an_error_in_words(
    reader: StoreReader, text: str
) -> None:
    selection = _parsed(text)
    if isinstance(selection, FilterError):
        assert selection.what
        assert selection.fix
        assert 0 <= selection.at <= len(text)
        return
    assert set(reader.rollout_ids(selection, Order())) <= set(range(1, 7))
    assert selection.where.count("?") == len(selection.parameters)


def _parsed(text: str) -> Filter | FilterError:
    try:
        return parse(text)
    except FilterError as error:
        return error


@given(st.text(min_size=1, max_size=30))
@settings(max_examples=200, deadline=None)
def test_no_value_becomes_part_of_the_sql(value: str) -> None:
    quoted = value.replace('"', "")
    plain = parse('text:"x"').where
    if quoted and not quoted.startswith("~"):
        assert parse(f'text:"{quoted}"').where == plain


def _key(name: str) -> Callable[[Rollout], Any]:
    places: dict[str, Callable[[Rollout], Any]] = {
        "ticker": lambda rollout: str(rollout.subject.get("ticker")),
        "as_of": lambda rollout: rollout.subject.get("as_of"),
        "call": lambda rollout: rollout.prediction.get("direction"),
        "confidence": lambda rollout: rollout.prediction.get("confidence"),
        "actual": lambda rollout: rollout.subject.get("actual_direction"),
    }
    return places.get(name) or (lambda rollout: getattr(rollout, name))


@pytest.mark.parametrize("descending", [True, False])
@pytest.mark.parametrize("by", SORTABLE)
def test_order_is_that_of_the_values_and_what_is_unknown_comes_last(
    reader: StoreReader, by: str, descending: bool
) -> None:
    ids = reader.rollout_ids(parse("-step:5"), Order(by, descending))
    values = [_key(by)(rollout) for rollout in reader.rollouts(ids)]
    known = [value for value in values if value is not None]
    assert values[: len(known)] == known
    assert known == sorted(known, reverse=descending)
    assert reader.rollout_ids(parse("-step:5"), Order(by, descending), 2) == ids[:2]


def test_replayed_rollouts_are_left_out_unless_they_are_asked_for(tmp_path: Path) -> None:
    path = tmp_path / "events.db"
    store = EventStore(path)
    for step in (1, 2):
        _store(store, step, {}, {}, "before the resume", 0.1)
    store.supersede_after(1)
    store.flush()
    store.attempt += 1
    _store(store, 2, {}, {}, "after it", 0.1)
    store.close()
    reader = StoreReader(path)
    assert list(reader.rollout_ids(parse(""), Order())) == [3, 1]
    assert list(reader.rollout_ids(parse("superseded:yes"), Order())) == [2]
    assert reader.num_rollouts() == 2
    replayed, again = reader.rollouts([2, 3])
    assert [sibling.id for sibling in reader.siblings(replayed)] == [2]
    assert [sibling.id for sibling in reader.siblings(again)] == [3]
    assert reader.num_groups(again) == 1
    reader.close()


def test_rollouts_come_in_the_order_of_their_ids_also_when_there_are_many(
    reader: StoreReader,
) -> None:
    asked = [6, 1, 99, 3] * 300
    found = reader.rollouts(asked)
    assert [rollout.id for rollout in found] == [6, 1, 3] * 300
    assert found[0] == reader.rollout(6)

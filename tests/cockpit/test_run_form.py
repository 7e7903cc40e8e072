"""The new run's settings: text and fields say the same, whatever is typed into either."""

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from engine import config as configuration
from stonk_tui import run_form
from stonk_tui.run_form import FIELDS, PRESET_NAMES, check, preset_text, set_value, values

DEMO = preset_text("demo")
TYPED = st.one_of(
    st.text(max_size=20),
    st.text(alphabet="abc:#-'\"[]{}&*!|>%@`, 0", max_size=10),
    st.integers().map(str),
    st.floats(allow_nan=False).map(str),
)
YAML_LIKE = st.one_of(
    st.text(max_size=60),
    st.text(alphabet="ab:\n -#{}[]'\"&*", max_size=40),
    st.sampled_from(
        [
            "",
            "# nothing yet\n",
            "preset: demo",
            "preset: demo\nrollout:\n  group_size: 4 # few\n",
            "rollout: {group_size: 4}\n",
            "rollout: 7\n",
            "rollout:\n",
            "seed:\n",
            "- 1\n- 2\n",
            "model: [a, b]\n",
        ]
    ),
)


@pytest.mark.parametrize("name", PRESET_NAMES)
def test_preset_as_text_is_the_preset(name: str) -> None:
    assert configuration.parse(preset_text(name), where="x") == configuration.preset(name)


def test_fields_show_what_the_text_says() -> None:
    shown = values(DEMO, None)
    assert set(shown) == {field.key for field in FIELDS}
    assert shown["schedule.max_steps"] == "40"
    assert shown["optimizer.learning_rate"] == "8e-05"
    assert shown["model.id"] == "smollm2-135m"
    # Left out of the text, they are what the engine fills in; null is an empty field.
    short = "preset: stage1\n"
    assert values(short, check(short).config)["schedule.max_steps"] == ""
    assert values(short, check(short).config)["rollout.group_size"] == "8"
    assert values(short, None) == {}


def test_field_is_written_into_its_place_and_comments_stay() -> None:
    text = "preset: demo\nrollout:\n  group_size: 4   # few\n  context: 700\n# the end\n"
    changed = set_value(text, "rollout.group_size", "6")
    assert changed == text.replace("4   #", "6   #")
    added = set_value(text, "rollout.max_new_tokens", "90")
    assert added == text.replace("  group_size", "  max_new_tokens: 90\n  group_size")
    assert set_value(text, "seed", "3") == text + "seed: 3\n"
    assert set_value("", "model.id", "x") == "model:\n  id: x\n"
    assert set_value("seed:\n", "seed", "3") == "seed: 3\n"
    assert yaml.safe_load(set_value("rollout: {context: 7}", "rollout.group_size", "6")) == {
        "rollout": {"context": 7, "group_size": 6}
    }


def test_text_that_only_looks_like_a_number_stays_a_text() -> None:
    for typed in ("123", "null", "true", "1e5", "2024-01-01"):
        config = check(set_value(DEMO, "model.id", typed)).config
        assert config is not None
        assert config.model.id == typed


def test_emptied_field_is_left_to_the_engine() -> None:
    config = check(set_value(DEMO, "schedule.max_steps", "")).config
    assert config is not None
    assert config.schedule.max_steps is None


@pytest.mark.parametrize(
    ("key", "typed", "said"),
    [
        ("schedule.max_steps", "0", "greater than or equal to 1, not '0'"),
        ("seed", "many", "valid integer"),
        ("objective.kl_coefficient", "-1", "greater than or equal to 0"),
        ("rollout.group_size", "1", "greater than or equal to 2"),
        ("model.device", "tpu", "should match pattern"),
        ("name", "a b", "should match pattern"),
        ("model.id", "", "at least 1 character"),
    ],
)
def test_problem_names_line_and_field(key: str, typed: str, said: str) -> None:
    text = set_value(DEMO, key, typed)
    found = check(text)
    assert found.config is None
    assert found.key == key
    assert said in found.problem
    assert found.line is not None
    assert key.rpartition(".")[2] in text.splitlines()[found.line - 1]
    assert found.in_words.startswith(f"line {found.line}, {key}: ")


def test_stage_two_is_begun_by_a_promotion() -> None:
    found = check(preset_text("stage2"))
    assert (found.config, found.key) == (None, "stage")
    assert "promoted Stage I checkpoint" in found.problem


@pytest.mark.parametrize(
    ("text", "line", "said"),
    [
        ("a: [", 1, "not valid YAML"),
        ("seed: 1\nrolout:\n  x: 1\n", 2, "did you mean rollout?"),
        ("- 1", 1, "mapping"),
        ("preset: none", None, "no preset called"),
    ],
)
def test_bad_text_is_explained_by_line(text: str, line: int | None, said: str) -> None:
    found = check(text)
    assert found.config is None
    assert said in found.in_words
    assert found.line == line


@settings(deadline=None)
@given(st.sampled_from(FIELDS), TYPED)
def test_what_is_typed_into_a_field_is_what_the_text_holds(
    field: run_form.Field, typed: str
) -> None:
    text = set_value(DEMO, field.key, typed)
    assert yaml.safe_load(text).keys() == yaml.safe_load(DEMO).keys()
    shown, before = values(text, None), values(DEMO, None)
    stripped = typed.strip()
    if field.is_text or stripped.lower() not in ("null", "~"):
        assert shown.pop(field.key) == run_form._tidy(stripped)
        before.pop(field.key)
        assert shown == before
    # Writing the same again changes nothing.
    assert set_value(text, field.key, typed) == text


@settings(deadline=None)
@given(YAML_LIKE, st.sampled_from(FIELDS), TYPED)
def test_no_text_breaks_the_form(text: str, field: run_form.Field, typed: str) -> None:
    changed = set_value(text, field.key, typed)
    found = check(changed)
    assert (found.config is None) == bool(found.problem)
    values(changed, found.config)

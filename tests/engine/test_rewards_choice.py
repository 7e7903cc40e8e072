"""Schemes by name and by file; a run keeps what its scheme was when it was created."""

from pathlib import Path

import pytest

from engine.config import RewardConfig, build, with_changes
from engine.direction_call import DirectionCall
from engine.errors import UserError
from engine.rewards.choice import freeze, resolve
from engine.rewards.components import COMPONENTS, Thresholds
from engine.rewards.schemes import SCHEMES
from engine.runs import directory

ROOT = Path(__file__).resolve().parents[2]

MINE = "weights:\n  direction: 0.5\n  coherence: 0.5\nthresholds:\n  min_words: 5\n"


def written(folder: Path, text: str) -> str:
    (folder / "mine.yaml").write_text(text)
    return str(folder / "mine.yaml")


@pytest.mark.parametrize("name", SCHEMES)
def test_a_named_scheme_is_itself(name: str) -> None:
    assert resolve(RewardConfig(scheme=name)).scheme == SCHEMES[name]
    assert resolve(freeze(RewardConfig(scheme=name))).scheme == SCHEMES[name]


def test_a_scheme_file_weighs_what_it_names_and_nothing_else(tmp_path: Path) -> None:
    scheme = resolve(RewardConfig(scheme=written(tmp_path, MINE))).scheme
    assert scheme.name == "mine"
    assert dict(scheme.weights) == dict.fromkeys(COMPONENTS, 0.0) | {
        "direction": 0.5,
        "coherence": 0.5,
    }
    assert scheme.thresholds == Thresholds(min_words=5)


def test_the_example_scheme_is_one() -> None:
    path = ROOT / "examples" / "schemes" / "cautious.yaml"
    scheme = resolve(RewardConfig(scheme=str(path))).scheme
    assert scheme.weights["confidence"] == 0.4
    assert scheme.thresholds.min_words == 30


def test_thresholds_of_a_scheme_change_the_components_and_not_the_rubric(tmp_path: Path) -> None:
    answer = (
        "<think>A day change is small, so it goes UP.</think><answer>UP 1% confidence 60%</answer>"
    )
    texts = {
        "words": "weights: {coherence: 1}\nthresholds: {min_words: 5}\n",
        "steps": "weights: {coherence: 1}\nthresholds: {data_use_steps: [0.5, 1, 1, 1, 1]}\n",
    }
    values = {}
    for name, text in texts.items():
        reward = {"scheme": written(tmp_path, text)}
        task = DirectionCall.from_config(build({"reward": reward}, where="test"))
        assessment = task.assess(task.training_item(0), answer)
        values[name] = {one.name: one.value for one in assessment.components}
        # By the defaults: ten words are under 20, no fact is cited.
        assert assessment.rubric["reasoning"] == pytest.approx(0.2 * 0.5)
    assert (values["words"]["coherence"], values["words"]["data_use"]) == (0.75, 0)
    assert (values["steps"]["coherence"], values["steps"]["data_use"]) == (0.5, 0.5)


def test_a_run_keeps_its_scheme_when_the_file_changes_or_goes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written(tmp_path, MINE)
    monkeypatch.chdir(tmp_path)
    frozen = freeze(RewardConfig(scheme="mine.yaml"))
    assert frozen.scheme == str(tmp_path / "mine.yaml")
    run = directory.create(build({"reward": frozen.model_dump()}, where="test"))
    (tmp_path / "mine.yaml").unlink()
    kept = resolve(run.config().reward).scheme
    assert (kept.name, kept.weights["coherence"], kept.thresholds.min_words) == ("mine", 0.5, 5)
    # A second run made out of the first keeps it too.
    assert freeze(run.config().reward) == frozen


def test_a_configuration_made_out_of_a_runs_may_name_another_scheme(tmp_path: Path) -> None:
    frozen = freeze(RewardConfig(scheme=written(tmp_path, MINE)))
    config = build({"reward": frozen.model_dump()}, where="test")
    second = with_changes(config, {"reward": {"scheme": "stage2"}})
    assert resolve(second.reward).scheme == SCHEMES["stage2"]
    assert freeze(second.reward).frozen == freeze(RewardConfig(scheme="stage2")).frozen


BAD_FILES = {
    "unknown component": (
        "weights:\n  direction: 1\n  directoin: 1\n",
        ":3:weights.directoin: no component called 'directoin'; did you mean direction?",
    ),
    "component unlike any other": (
        "weights:\n  zebra: 1\n",
        ":2:weights.zebra: no component called 'zebra'; known: format, direction",
    ),
    "unknown threshold": (
        "weights:\n  direction: 1\nthresholds:\n  min_word: 3\n",
        ":4:thresholds.min_word: unknown key 'min_word'; did you mean min_words?",
    ),
    "unknown key": (
        "weight:\n  direction: 1\nweights:\n  direction: 1\n",
        ":1:weight: unknown key 'weight'; did you mean weights?",
    ),
    "misspelt weights": (
        "weigths:\n  direction: 1\n",
        ":1:weigths: unknown key 'weigths'; did you mean weights?",
    ),
    "no weights": ("thresholds:\n  min_words: 3\n", ":weights: field required"),
    "negative weight": (
        "weights:\n  direction: -1\n",
        ":2:weights.direction: input should be greater than or equal to 0, not '-1'",
    ),
    "weight that is no number": ("weights:\n  direction: much\n", ":2:weights.direction: input"),
    "weight that is not finite": ("weights:\n  direction: .nan\n", ":2:weights.direction: input"),
    "every weight 0": ("weights:\n  direction: 0\n", ":1:weights: every weight is 0"),
    "threshold out of range": (
        "weights:\n  direction: 1\nthresholds:\n  copied_share: 2\n",
        ":4:thresholds.copied_share: input should be less than or equal to 1",
    ),
    "falling steps": (
        "weights:\n  direction: 1\nthresholds:\n  data_use_steps: [0, 1, 0.5, 1, 1]\n",
        "data_use_steps must not fall",
    ),
    "too few steps": (
        "weights:\n  direction: 1\nthresholds:\n  data_use_steps: [0, 1]\n",
        ":4:thresholds.data_use_steps",
    ),
    "not a mapping": ("- a\n", ":1: a scheme is a mapping"),
    "empty": ("", ":1: a scheme is a mapping"),
    "not YAML": ("weights: [\n", ": not valid YAML"),
    "YAML that would build an object": (
        "weights: !!python/object/apply:os.system ['true']\n",
        "not valid YAML",
    ),
    "control characters": ("weights:\n  'a\\x1b[2J': 1\n", "no component called"),
}


@pytest.mark.parametrize(("text", "expected"), BAD_FILES.values(), ids=BAD_FILES)
def test_a_bad_scheme_file_is_one_line_that_names_the_place(
    text: str, expected: str, tmp_path: Path
) -> None:
    path = written(tmp_path, text)
    for attempt in (freeze, resolve):
        with pytest.raises(UserError) as caught:
            attempt(RewardConfig(scheme=path))
        message = str(caught.value)
        assert message.startswith(path)
        assert expected in message
        assert "\n" not in message
        assert "\x1b" not in message


@pytest.mark.parametrize(
    ("scheme", "expected"),
    [
        ("stage3", "no scheme called 'stage3'; did you mean stage"),
        ("zebra", "no scheme called 'zebra'; use one of: stage1, stage2, rubric, or a YAML file"),
        ("absent.yaml", "absent.yaml: cannot read the scheme: No such file"),
        ("/", "cannot read the scheme: Is a directory"),
        ("a\x1b[2J", "no scheme called"),
    ],
)
def test_a_scheme_that_is_not_there_is_one_line(scheme: str, expected: str) -> None:
    with pytest.raises(UserError) as caught:
        freeze(RewardConfig(scheme=scheme))
    assert expected in str(caught.value)
    assert "\x1b" not in str(caught.value)


def test_a_frozen_scheme_that_was_edited_into_nonsense_is_refused() -> None:
    frozen = freeze(RewardConfig()).model_dump()
    frozen["frozen"]["weights"]["zebra"] = 1.0
    with pytest.raises(UserError, match=r"reward\.frozen:weights\.zebra: no component called"):
        resolve(RewardConfig.model_validate(frozen))

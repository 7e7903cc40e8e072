"""A user's own components run after a person allowed exactly that content, and never else."""

import json
from pathlib import Path

import pytest

from engine.config import RewardConfig, build
from engine.direction_call import DirectionCall
from engine.errors import RunFailedError, UserError
from engine.rewards import custom
from engine.rewards.choice import freeze, resolve
from engine.rewards.custom import CustomComponent
from engine.runs.home import home

ROOT = Path(__file__).resolve().parents[2]
EXAMPLE = ROOT / "examples" / "components"
ANSWER = "<think>It looks strong.</think><answer>UP 1.0% confidence 60%</answer>"

TWO = "def two(prediction, example, prompt_text):\n    return 2, 'always'\n"


def written(folder: Path, source: str, name: str = "mine.py") -> str:
    (folder / name).write_text(source)
    return f"{folder / name}:two"


def test_the_example_component_is_weighed_by_its_scheme() -> None:
    chosen = RewardConfig(
        scheme=str(EXAMPLE / "brief.yaml"), components=(f"{EXAMPLE / 'brevity.py'}:brevity",)
    )
    reward = freeze(chosen, allow_code=True)
    task = DirectionCall.from_config(build({"reward": reward.model_dump()}, where="test"))
    assert task.weights["brevity"] == 0.2
    assessment = task.assess(task.training_item(0), ANSWER)
    brevity = assessment.components[-1]
    assert brevity.name == "brevity"
    assert brevity.value == pytest.approx(1 / (1 + 3 / 40))
    assert brevity.reason == "3 words"
    assert brevity.contribution == pytest.approx(0.2 / (1 + 3 / 40))


def test_without_permission_no_line_of_it_runs(tmp_path: Path) -> None:
    ran = tmp_path / "ran"
    spec = written(tmp_path, f"open({str(ran)!r}, 'w').close()\n{TWO}")
    chosen = RewardConfig(components=(spec,))
    for refused in (
        lambda: freeze(chosen),
        lambda: resolve(chosen),
        lambda: DirectionCall.from_config(build({"reward": {"components": [spec]}}, where="")),
    ):
        with pytest.raises(UserError, match="is code that runs as you; read it, then say --allow"):
            refused()
    assert not ran.exists()
    resolve(freeze(chosen, allow_code=True))
    assert ran.exists()


def test_a_configuration_of_someone_else_cannot_bring_its_own_permission(tmp_path: Path) -> None:
    frozen = freeze(RewardConfig(components=(written(tmp_path, TWO),)), allow_code=True)
    (home() / "allowed_code.json").unlink()
    for attempt in (resolve, freeze):
        with pytest.raises(UserError, match="--allow-code"):
            attempt(frozen)


def test_a_run_keeps_the_absolute_file_and_its_hash(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written(tmp_path, TWO)
    monkeypatch.chdir(tmp_path)
    (spec,) = freeze(RewardConfig(components=("mine.py:two",)), allow_code=True).components
    place, _, digest = spec.partition("@sha256:")
    assert place == f"{tmp_path / 'mine.py'}:two"
    assert len(digest) == 64
    assert json.loads((home() / "allowed_code.json").read_text()) == [f"sha256:{digest}"]


def test_a_file_that_changed_is_refused_and_the_old_one_accepted_again(tmp_path: Path) -> None:
    frozen = freeze(RewardConfig(components=(written(tmp_path, TWO),)), allow_code=True)
    written(tmp_path, TWO.replace("2", "3"))
    with pytest.raises(UserError, match="is not what it was when the run was created"):
        resolve(frozen)
    with pytest.raises(UserError, match="is not what it was"):
        freeze(frozen, allow_code=True)
    written(tmp_path, TWO)
    assert resolve(frozen).custom[0].name == "two"


def test_a_component_of_an_earlier_run_needs_no_second_permission(tmp_path: Path) -> None:
    frozen = freeze(RewardConfig(components=(written(tmp_path, TWO),)), allow_code=True)
    assert freeze(frozen) == frozen


def test_a_component_that_no_scheme_weighs_is_shown_without_training(tmp_path: Path) -> None:
    frozen = freeze(RewardConfig(components=(written(tmp_path, TWO),)), allow_code=True)
    task = DirectionCall.from_config(build({"reward": frozen.model_dump()}, where="test"))
    assessment = task.assess(task.training_item(0), ANSWER)
    assert (assessment.components[-1].value, assessment.components[-1].contribution) == (2, 0)


def test_a_dataclass_in_a_component_file_works(tmp_path: Path) -> None:
    source = (
        "from __future__ import annotations\nfrom dataclasses import dataclass\n"
        f"@dataclass\nclass Kept:\n    value: float = 1.0\n{TWO}"
    )
    assert resolve(freeze(RewardConfig(components=(written(tmp_path, source),)), allow_code=True))


def test_a_component_out_of_an_installed_package(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "mypackage.py").write_text(TWO)
    info = tmp_path / "mypackage-1.5.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: mypackage\nVersion: 1.5\n")
    (info / "entry_points.txt").write_text("[stonk_tui.components]\ndouble = mypackage:two\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(UserError, match="--allow-code"):
        freeze(RewardConfig(components=("double",)))
    frozen = freeze(RewardConfig(components=("double",)), allow_code=True)
    assert frozen.components == ("double@mypackage==1.5",)
    assert resolve(frozen).custom[0].name == "double"
    newer = (info / "METADATA").read_text().replace("1.5", "1.6")
    (info / "METADATA").write_text(newer)
    with pytest.raises(UserError, match="is not what it was"):
        resolve(frozen)


BAD_SPECS = {
    "no function": ("mine.py", "names no component; write FILE.py:FUNCTION"),
    "no such file": ("absent.py:two", "absent.py: cannot be read: No such file"),
    "no such entry point": ("absent", "no installed package has an entry point called 'absent'"),
    "control characters": ("\x1b[2J.py:two\x07", "names no component"),
    "a name of ours": ("mine.py:direction", "cannot be called 'direction', that name is taken"),
    "a name of a metric": ("mine.py:total", "cannot be called 'total', that name is taken"),
    "no such function": ("mine.py:three", "has no function called three"),
    "not code": ("broken.py:two", "cannot be loaded: SyntaxError"),
    "raises when loaded": ("raising.py:two", "cannot be loaded: ZeroDivisionError"),
}


@pytest.mark.parametrize(("spec", "expected"), BAD_SPECS.values(), ids=BAD_SPECS)
def test_a_bad_component_is_one_line(
    spec: str, expected: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written(tmp_path, TWO)
    written(tmp_path, "def two(:", "broken.py")
    written(tmp_path, "1 / 0", "raising.py")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError) as caught:
        resolve(freeze(RewardConfig(components=(spec,)), allow_code=True))
    assert expected in str(caught.value)
    assert "\n" not in str(caught.value)
    assert "\x1b" not in str(caught.value)


def test_two_components_of_one_name_are_refused(tmp_path: Path) -> None:
    spec = written(tmp_path, TWO)
    with pytest.raises(UserError, match="cannot be called 'two', that name is taken"):
        custom.names([spec, spec])


@pytest.mark.parametrize(
    ("returned", "expected"),
    [
        ("1 / 0", "component two failed on .*: ZeroDivisionError.*; mend it, and allow it anew"),
        ("float('nan'), 'x'", r"component two returned \(nan, 'x'\) on .*, not a finite number"),
        ("float('inf'), 'x'", "not a finite number"),
        ("10 ** 400, 'x'", "not a finite number"),
        ("1.0", "not a finite number and a text; mend it, and allow it anew"),
        ("'1', 'x'", "not a finite number"),
        ("1.0, None", "not a finite number"),
        ("None", "not a finite number"),
    ],
)
def test_a_component_that_fails_ends_the_run_with_its_name(
    returned: str, expected: str, tmp_path: Path
) -> None:
    source = f"def two(prediction, example, prompt_text):\n    return {returned}\n"
    frozen = freeze(RewardConfig(components=(written(tmp_path, source),)), allow_code=True)
    task = DirectionCall.from_config(build({"reward": frozen.model_dump()}, where="test"))
    with pytest.raises(RunFailedError, match=expected):
        task.assess(task.training_item(0), ANSWER)


def test_a_reason_is_one_line_without_control_characters() -> None:
    noisy = CustomComponent("noisy", lambda *_: (1.0, "a\nb\x1b[2J"))
    task = DirectionCall.from_config(build({}, where="test"))
    example, prompt = task._known(task.training_item(0).key)
    from engine.rewards.parse import parse

    assert noisy.score(parse(ANSWER), example, prompt.text).reason == "a b␛[2J"

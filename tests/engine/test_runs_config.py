"""Configuration: what is wrong is said with file, line and key."""

from pathlib import Path

import pytest

from engine import config as configuration
from engine.config import RunConfig
from engine.errors import UserError
from engine.presets import PRESETS


def write(folder: Path, text: str) -> Path:
    path = folder / "mine.yaml"
    path.write_text(text, encoding="utf-8")
    return path


BAD_FILES = {
    "misspelt key": (
        "name: a\nrollout:\n  group_sise: 4\n",
        ":3:rollout.group_sise: unknown key 'group_sise'; did you mean group_size",
    ),
    "key unlike any other": ("name: a\nzebra: 1\n", ":2:zebra: unknown key 'zebra'; known: name"),
    "truncated sampling": (
        "rollout:\n  temperature: 0.8\n  top_p: 0.9\n",
        ":3:rollout.top_p: sampling has a temperature and nothing else: the loss needs",
    ),
    "value out of range": (
        "rollout:\n  temperature: 1\n  group_size: 1\n",
        ":3:rollout.group_size: input should be greater than or equal to 2, not '1'",
    ),
    "value of the wrong type": ("seed: many\n", ":1:seed: input should be a valid integer"),
    "section that is no mapping": ("data: 3\n", ":1:data: input should be a valid dictionary"),
    "values at odds in one section": (
        "data:\n  train_share: 0.9\n  validation_share: 0.2\n",
        ":1:data: train_share + validation_share must be below 1",
    ),
    "values at odds across sections": (
        "rollout:\n  context: 128\n  max_new_tokens: 128\n",
        "rollout.max_new_tokens must be below rollout.context",
    ),
    "not YAML": ("name: [a\n", ":2: not valid YAML"),
    "empty": ("# to be filled\n", "mine.yaml: the configuration is empty; write `preset: "),
    "not a mapping": ("- a\n- b\n", ":1: a configuration is a mapping"),
    "unknown preset": (
        "preset: nope\n",
        "no preset called 'nope'; use one of: demo, prove, stage1, stage2",
    ),
    "YAML that would build an object": (
        "name: !!python/object/apply:os.system ['true']\n",
        ":1: not valid YAML",
    ),
}


@pytest.mark.parametrize(("text", "expected"), BAD_FILES.values(), ids=BAD_FILES)
def test_bad_file_is_one_line_that_names_the_place(
    text: str, expected: str, tmp_path: Path
) -> None:
    path = write(tmp_path, text)
    with pytest.raises(UserError) as caught:
        configuration.load(path)
    message = str(caught.value)
    assert expected in message
    assert "\n" not in message
    if expected.startswith(":"):
        assert message.startswith(f"{path}:")


def test_missing_file_and_binary_file_are_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"absent\.yaml: cannot read"):
        configuration.load(tmp_path / "absent.yaml")
    binary = tmp_path / "binary.yaml"
    binary.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UserError, match="is not UTF-8"):
        configuration.load(binary)


@pytest.mark.parametrize("name", PRESETS)
def test_every_preset_is_valid_and_survives_yaml(name: str) -> None:
    config = configuration.preset(name)
    assert configuration.parse(config.to_yaml(), where="text") == config


def test_override_wins_over_file_and_file_over_preset(tmp_path: Path) -> None:
    path = write(tmp_path, "preset: demo\nschedule:\n  max_steps: 7\n  save_every: 3\n")
    config = configuration.load(path, ["schedule.save_every=5", "name=mine"])
    assert (config.schedule.max_steps, config.schedule.save_every) == (7, 5)
    assert config.name == "mine"
    assert config.lora.targets == PRESETS["demo"]["lora"]["targets"]


BAD_OVERRIDES = {
    "no equals sign": ("seed", "--set: 'seed' is not key=value"),
    "no key": ("=3", "is not key=value"),
    "unknown key": ("rollout.grp=3", "--set rollout.grp=3: unknown key 'grp'"),
    "out of range": ("rollout.group_size=1", "--set rollout.group_size=1: input should be"),
    "not YAML": ("name=[a", "the value is not valid YAML"),
    "control characters": ("seed\x1b[2J=1", "unknown key"),
}


@pytest.mark.parametrize(("override", "expected"), BAD_OVERRIDES.values(), ids=BAD_OVERRIDES)
def test_bad_override_is_one_clean_line(override: str, expected: str) -> None:
    with pytest.raises(UserError) as caught:
        configuration.with_overrides(RunConfig(), [override])
    assert expected in str(caught.value)
    assert "\x1b" not in str(caught.value)


def test_number_of_steps_comes_from_epochs_unless_it_is_given() -> None:
    config = configuration.with_overrides(
        RunConfig(), ["rollout.prompts_per_step=8", "schedule.epochs=3"]
    )
    assert config.max_steps(17) == 9  # 17 items in blocks of 8 are 3 steps an epoch
    assert configuration.with_overrides(config, ["schedule.max_steps=2"]).max_steps(17) == 2

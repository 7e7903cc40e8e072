"""Promotion: checkpoint names, the plan, the record, and the configuration of Stage II."""

import json
import os
import stat
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from safetensors.numpy import save_file

from engine.config import RunConfig, preset, with_overrides
from engine.errors import UserError
from engine.presets import PRESETS
from engine.runs import checkpoint_names, directory, launcher, manifest, promotion, stage1
from engine.runs.checkpoint_names import ADAPTER, ADAPTER_CONFIG
from engine.runs.directory import RunDirectory
from engine.runs.second_stage import differences, second_stage
from engine.runs.status import effective_state, read_history, status
from engine.runs.store import EventStore

NAMES = ("reward", "accuracy", "reasoning", "settled")
MODULE = "base_model.model.model.layers.0.self_attn.q_proj"


def write_adapter(folder: Path, *, value: float = 1.0, rank: int = 2, **changes: Any) -> Path:
    """A plain LoRA adapter of one layer."""
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {
        f"{MODULE}.lora_A.weight": np.full((rank, 4), value, np.float32),
        f"{MODULE}.lora_B.weight": np.full((4, rank), value, np.float32),
    }
    save_file(tensors, folder / ADAPTER)
    values = {
        "peft_type": "LORA",
        "r": rank,
        "lora_alpha": 4,
        "lora_dropout": 0.05,
        "target_modules": ["q_proj"],
        "base_model_name_or_path": "organisation/model",
        "bias": "none",
        "use_dora": False,
        "modules_to_save": None,
        "rank_pattern": {},
    }
    (folder / ADAPTER_CONFIG).write_text(json.dumps(values | changes))
    return folder


def write_checkpoint(run: RunDirectory, step: int) -> str:
    name = f"step-{step:06d}"
    folder = write_adapter(run.checkpoints / name, value=step + 1.0)
    files = [
        manifest.Entry(f.name, f.stat().st_size, checkpoint_names.sha256(f))
        for f in folder.iterdir()
    ]
    (folder / "manifest.json").write_text(manifest.text(step, files))
    return name


def stage1_run(config: RunConfig | None = None, *, lamps: str = "1111") -> RunDirectory:
    """A finished Stage I run: checkpoints at 10 and 20, the first one best."""
    run = directory.create(config or preset("demo"))
    store = EventStore(run.database)
    for step, reward in ((10, 0.5), (20, 0.4)):
        name = write_checkpoint(run, step)
        milestones = [
            {"name": n, "value": 0.9, "threshold": 0.7, "on": lamp == "1", "streak": 3, "needed": 2}
            for n, lamp in zip(NAMES, lamps, strict=True)
        ]
        metrics = {
            "reward/total": reward,
            "accuracy": 0.6,
            "accuracy/low": 0.5,
            "accuracy/high": 0.7,
            "accuracy/n": 200.0,
            "baseline/always_up": 0.55,
            "baseline/momentum": 0.48,
        }
        store.event("validation", {"metrics": metrics, "milestones": milestones}, step=step)
        best = step == 10
        store.event("checkpoint", {"name": name, "best": best, "validation_reward": reward})
    store.close()
    (run.path / "best_model").write_text("step-000010\n")
    return run


# --- names


def test_a_checkpoint_has_the_same_names_everywhere() -> None:
    run = stage1_run()
    first, last = run.checkpoints / "step-000010", run.checkpoints / "step-000020"
    expected = {
        "best": first,
        "last": last,
        "step-10": first,
        "step-000020": last,
        f"{run.id}:step-20": last,
        f"{run.id[4:]}:best": first,
        str(first): first,
    }
    for text, folder in expected.items():
        found = checkpoint_names.resolve(text)
        assert (found.folder, found.name, found.run) == (folder, folder.name, run), text
    base = checkpoint_names.resolve("base")
    assert (base.name, base.folder, base.run) == ("base", None, run)


def test_names_are_of_the_newest_run_unless_a_run_is_given() -> None:
    older, newer = stage1_run(), stage1_run()
    assert checkpoint_names.resolve("best").run == newer
    assert checkpoint_names.resolve("best", older).run == older


def test_a_folder_outside_any_run_belongs_to_none(tmp_path: Path) -> None:
    folder = write_adapter(tmp_path / "elsewhere" / "mine")
    found = checkpoint_names.resolve(str(folder))
    assert (found.folder, found.run) == (folder, None)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("step-7", "has no checkpoint step-000007; it has step-000010, step-000020"),
        ("newest", "'newest' is no checkpoint"),
        ("nowhere:best", "no run called 'nowhere'"),
        ("/nowhere/at/all", "no such checkpoint folder"),
        ("", "is no checkpoint"),
    ],
)
def test_what_is_no_checkpoint_is_refused_in_one_line(text: str, message: str) -> None:
    stage1_run()
    with pytest.raises(UserError, match=message):
        checkpoint_names.resolve(text)


def test_a_run_without_validation_has_no_best_checkpoint() -> None:
    directory.create(preset("demo"))
    with pytest.raises(UserError, match="no best checkpoint before its first validation"):
        checkpoint_names.resolve("best")
    with pytest.raises(UserError, match="has no checkpoint yet"):
        checkpoint_names.resolve("last")


# --- the configuration


def test_the_preset_of_stage_1_becomes_the_preset_of_stage_2() -> None:
    assert second_stage(preset("stage1")) == preset("stage2")


def test_stage_2_has_the_values_of_the_design() -> None:
    config = preset("stage2")
    assert (config.stage, config.warmup.steps) == ("II", 0)
    assert (config.lora.r, config.lora.alpha) == (8, 16)
    assert (config.optimizer.learning_rate, config.objective.kl_coefficient) == (5e-6, 0.05)
    assert (config.schedule.epochs, config.schedule.save_every) == (3, 50)
    assert (config.rollout.prompts_per_step, config.data.max_train_samples) == (4, 5000)
    assert (config.data.sampling, config.data.market_share) == ("natural", True)
    assert (config.reward.scheme, config.reward.shaping) == ("stage2", "market_skew")


def test_a_small_run_stays_small_and_keeps_what_it_learnt_on() -> None:
    first = with_overrides(preset("demo"), ["data.source=planted:share=0.9", "model.dtype=fp32"])
    second = second_stage(first)
    assert second.name == "demo-stage2"
    assert second.model == first.model
    assert second.data.source == "planted:share=0.9"
    # Eight prompts are halved, but never below four.
    assert second.rollout == first.rollout.model_copy(update={"prompts_per_step": 4})
    # Where the steps are fixed, the epochs decide nothing and stay.
    assert (second.schedule.max_steps, second.schedule.epochs) == (40, first.schedule.epochs)
    assert second.lora.targets == "all-linear"
    assert second.optimizer.learning_rate == first.optimizer.learning_rate / 2
    assert second.objective.kl_coefficient == pytest.approx(
        first.objective.kl_coefficient / 3, rel=0.05
    )
    assert second.lora.alpha / second.lora.r == first.lora.alpha / first.lora.r


@pytest.mark.parametrize("name", sorted(name for name in PRESETS if name != "stage2"))
def test_every_stage_1_preset_can_be_followed_by_stage_2(name: str) -> None:
    first = preset(name)
    second = second_stage(first)
    assert second.stage == "II"
    keys = {change.key for change in differences(first, second)}
    assert {"stage", "lora.r", "optimizer.learning_rate", "reward.shaping"} <= keys
    assert not any(key.startswith("reward.frozen") for key in keys)


def test_a_scheme_of_ones_own_stays_in_stage_2() -> None:
    own = with_overrides(preset("stage1"), ["reward.scheme=/somewhere/mine.yaml"])
    assert second_stage(own).reward.scheme == "/somewhere/mine.yaml"


def test_stage_2_has_no_warm_up() -> None:
    with pytest.raises(UserError, match=r"warmup\.steps must be 0 in Stage II"):
        with_overrides(preset("stage2"), ["warmup.steps=3"])


# --- the plan


def test_a_plan_shows_what_a_person_decides_on_and_changes_nothing() -> None:
    run = stage1_run()
    before = sorted(run.checkpoints.rglob("*"))
    plan = promotion.plan(run)
    assert sorted(run.checkpoints.rglob("*")) == before
    assert directory.list_runs() == [run]
    assert plan.checkpoint == "step-000010"
    assert plan.sha256 == checkpoint_names.sha256(run.checkpoints / "step-000010" / ADAPTER)
    assert [one["name"] for one in plan.indicators] == list(NAMES)
    assert plan.is_earned
    best, other = plan.candidates
    assert (best.name, best.step, best.is_best, best.validation_reward) == (
        "step-000010",
        10,
        True,
        0.5,
    )
    assert (best.accuracy, best.accuracy_low, best.accuracy_high, best.accuracy_n) == (
        0.6,
        0.5,
        0.7,
        200,
    )
    assert best.baseline == 0.55
    assert not other.is_best
    assert {"stage", "lora.r"} <= {change.key for change in plan.changes}
    assert plan.existing is None


def test_a_damaged_checkpoint_is_not_promoted() -> None:
    run = stage1_run()
    file = run.checkpoints / "step-000010" / ADAPTER
    file.write_bytes(file.read_bytes()[:-1] + b"\0")
    with pytest.raises(UserError, match=r"step-000010 is damaged: adapter_model\.safetensors was"):
        promotion.plan(run)


@pytest.mark.parametrize("name", ["base", "step-11", "other"])
def test_only_a_checkpoint_of_the_run_is_promoted(name: str) -> None:
    with pytest.raises(UserError, match="checkpoint"):
        promotion.plan(stage1_run(), name)


def test_a_checkpoint_of_another_run_is_not_taken_for_one_of_this() -> None:
    other, run = stage1_run(), stage1_run()
    with pytest.raises(UserError, match="is no checkpoint of run"):
        promotion.plan(run, f"{other.id}:best")


# --- the promotion


def test_a_promotion_makes_a_prepared_run_that_holds_all_it_needs() -> None:
    parent = stage1_run()
    run = promotion.promote(promotion.plan(parent), reason="good\x1b[31m enough")
    source = parent.checkpoints / "step-000010"
    for name in stage1.FILES:
        assert (run.stage1 / name).read_bytes() == (source / name).read_bytes()
    record = stage1.record(run)
    assert record is not None
    assert record["parent"] == parent.id
    assert record["checkpoint"] == "step-000010"
    assert record["sha256"] == checkpoint_names.sha256(source / ADAPTER)
    assert [one["on"] for one in record["indicators"]] == [True] * 4
    assert (record["forced"], record["reason"]) == (False, "good␛[31m enough")
    assert record["versions"]["peft"]
    for file in (run.promotion, run.stage1 / ADAPTER, run.stage1 / ADAPTER_CONFIG):
        assert stat.S_IMODE(file.stat().st_mode) == 0o444
    assert run.config() == second_stage(parent.config())
    assert status(run)["state"] == "prepared"
    assert f"train --resume {run.id}" in status(run)["detail"]
    assert stage1.verify(run, run.config()) == record
    assert status(parent)["state"] != "prepared"


def test_promoting_twice_gives_one_run() -> None:
    parent = stage1_run()
    run = promotion.promote(promotion.plan(parent))
    plan = promotion.plan(parent)
    assert plan.existing == run
    assert promotion.promote(plan) == run
    assert len(directory.list_runs()) == 2
    other = promotion.promote(promotion.plan(parent, "last"))
    assert other != run


def test_a_plan_made_before_someone_else_promoted_finds_that_run() -> None:
    parent = stage1_run()
    early, late = promotion.plan(parent), promotion.plan(parent)
    run = promotion.promote(early)
    assert promotion.promote(late) == run


@pytest.mark.parametrize("lamps", ["0111", "1110", "0000"])
def test_an_indicator_that_is_off_refuses_until_a_person_gives_a_reason(lamps: str) -> None:
    parent = stage1_run(lamps=lamps)
    plan = promotion.plan(parent)
    assert not plan.is_earned
    for chosen in ({}, {"forced": True}, {"reason": "why not"}, {"forced": True, "reason": " \n"}):
        with pytest.raises(UserError, match=r"not all indicators are on: .*--force --reason"):
            promotion.promote(plan, **chosen)
    assert directory.list_runs() == [parent]
    run = promotion.promote(plan, forced=True, reason="to see Stage II work")
    record = stage1.record(run)
    assert record is not None
    assert (record["forced"], record["reason"]) == (True, "to see Stage II work")


def test_a_run_whose_indicators_are_not_known_has_not_earned_a_promotion() -> None:
    run = directory.create(preset("demo"))
    write_checkpoint(run, 10)
    plan = promotion.plan(run, "last")
    with pytest.raises(UserError, match="the four indicators are not known"):
        promotion.promote(plan)


def test_force_without_need_is_not_recorded_as_forced() -> None:
    run = promotion.promote(promotion.plan(stage1_run()), forced=True, reason="sure")
    assert (stage1.record(run) or {})["forced"] is False


def test_stage_2_is_not_promoted_again() -> None:
    run = promotion.promote(promotion.plan(stage1_run()))
    with pytest.raises(UserError, match="is Stage II already"):
        promotion.plan(run)


def test_a_checkpoint_that_changed_since_it_was_shown_is_not_promoted() -> None:
    parent = stage1_run()
    plan = promotion.plan(parent)
    write_adapter(parent.checkpoints / "step-000010", value=99.0)
    with pytest.raises(UserError, match="has changed since it was looked at"):
        promotion.promote(plan)
    (parent.checkpoints / "step-000010" / ADAPTER).unlink()
    with pytest.raises(UserError, match="has changed since it was looked at"):
        promotion.promote(plan)
    assert directory.list_runs() == [parent]
    assert [path.name for path in parent.path.parent.iterdir()] == [parent.id]


def test_two_promotions_at_once_do_not_make_two_runs() -> None:
    plan = promotion.plan(stage1_run())
    with (
        directory.exclusive(promotion.home() / "promotion.lock"),
        pytest.raises(UserError, match="another promotion is being written"),
    ):
        promotion.promote(plan)


def test_a_promotion_marks_its_checkpoint_and_leaves_it_undamaged() -> None:
    parent = stage1_run()
    run = promotion.promote(promotion.plan(parent))
    folder = parent.checkpoints / "step-000010"
    assert (folder / checkpoint_names.PROMOTED).read_text() == f"{run.id}\n"
    assert manifest.damage(folder) is None


def test_an_unreadable_record_of_another_run_is_in_nobodys_way() -> None:
    other = promotion.promote(promotion.plan(stage1_run()))
    other.promotion.chmod(0o644)
    other.promotion.write_text("{")
    run = promotion.promote(promotion.plan(stage1_run()))
    assert run != other


# --- before the start


@pytest.fixture
def prepared() -> RunDirectory:
    return promotion.promote(promotion.plan(stage1_run()))


def test_a_prepared_run_can_be_edited_and_an_error_names_the_line(prepared: RunDirectory) -> None:
    file = prepared.path / "run.yaml"
    text = file.read_text()
    written = yaml.safe_dump({"learning_rate": prepared.config().optimizer.learning_rate}).strip()
    file.write_text(text.replace(written, "learning_rate: 0.003"))
    assert prepared.config().optimizer.learning_rate == 0.003
    file.write_text(text.replace("max_steps: 40", "max_stepps: 40"))
    line = 1 + [row.strip() for row in file.read_text().splitlines()].index("max_stepps: 40")
    with pytest.raises(UserError, match=rf"run\.yaml:{line}:.*did you mean max_steps"):
        prepared.config()


@pytest.mark.parametrize(
    ("before", "after", "message"),
    [
        ("stage: II", "stage: I", "this run was made by a promotion and is Stage II"),
        ("id: smollm2-135m", "id: other/model", "was trained on smollm2-135m"),
    ],
)
def test_an_edit_that_breaks_the_promotion_is_refused_at_the_start(
    prepared: RunDirectory, before: str, after: str, message: str
) -> None:
    file = prepared.path / "run.yaml"
    assert before in file.read_text()
    file.write_text(file.read_text().replace(before, after))
    with pytest.raises(UserError, match=message):
        promotion.start(prepared)
    assert prepared.worker() is None


@pytest.mark.parametrize("name", stage1.FILES)
def test_a_stage_1_file_that_was_touched_is_refused_at_the_start(
    prepared: RunDirectory, name: str
) -> None:
    file = prepared.stage1 / name
    file.chmod(0o644)
    file.write_bytes(file.read_bytes() + b" ")
    with pytest.raises(UserError, match="not the file that was promoted"):
        promotion.start(prepared)
    file.unlink()
    with pytest.raises(UserError, match="not the file that was promoted"):
        promotion.start(prepared)


def test_stage_2_cannot_be_begun_without_a_promotion() -> None:
    with pytest.raises(UserError, match="starts from a promoted Stage I checkpoint"):
        launcher.launch(with_overrides(preset("stage2"), ["model.device=cpu"]))
    assert directory.list_runs() == []
    config = preset("stage2")
    with pytest.raises(UserError, match="starts from a promoted Stage I checkpoint"):
        stage1.verify(directory.create(config), config)


def test_a_stage_1_run_needs_no_record() -> None:
    run = stage1_run()
    assert stage1.record(run) is None
    assert stage1.verify(run, run.config()) is None


def test_a_start_names_the_device_of_today_and_the_run_is_prepared_no_more(
    prepared: RunDirectory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(launcher.devices, "gpus", list)
    monkeypatch.setattr(launcher, "_spawn", lambda run: run.record_worker(os.getpid()))
    assert prepared.config().model.device == "auto"
    promotion.start(prepared)
    assert prepared.config().model.device == "cpu"
    assert effective_state(prepared, read_history(prepared))[0] == "starting"


# --- adapters from elsewhere


def test_an_adapter_trained_elsewhere_is_promoted_without_a_parent(tmp_path: Path) -> None:
    folder = write_adapter(tmp_path / "theirs")
    plan = promotion.plan_adapter(folder, preset("demo"))
    assert plan.parent is None
    assert not plan.is_earned
    with pytest.raises(UserError, match="the four indicators are not known"):
        promotion.promote(plan)
    run = promotion.promote(plan, forced=True, reason="trained on another box")
    record = stage1.record(run)
    assert record is not None
    assert (record["parent"], record["checkpoint"]) == (None, str(folder))
    assert sorted(path.name for path in folder.iterdir()) == sorted(stage1.FILES)
    assert promotion.plan_adapter(folder, preset("demo")).existing == run


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"peft_type": "IA3"}, "not a LoRA adapter"),
        ({"use_dora": True}, "adapters with use_dora cannot be stacked"),
        ({"use_rslora": True}, "adapters with use_rslora cannot be stacked"),
        ({"modules_to_save": ["lm_head"]}, "adapters with modules_to_save cannot be stacked"),
        ({"rank_pattern": {"q_proj": 4}}, "adapters with rank_pattern cannot be stacked"),
        ({"never_heard_of": 1}, "adapters with never_heard_of cannot be stacked"),
        ({"bias": "all"}, "adapters that train biases"),
        ({"init_lora_weights": "pissa"}, "changes the base model's own weights"),
        ({"target_modules": "all-linear"}, "the adapted layers must be some of q_proj"),
        ({"target_modules": ["q_proj", "lm_head"]}, "the adapted layers must be some of q_proj"),
        ({"target_modules": []}, "the adapted layers must be some of q_proj"),
        ({"r": 0}, "the rank must be from 1"),
        ({"r": True}, "the rank must be from 1"),
        ({"r": 3}, "do not have the rank 3"),
        ({"lora_alpha": "many"}, "alpha must be a number"),
        ({"lora_alpha": float("nan")}, "alpha must be a number"),
        ({"base_model_name_or_path": None}, "no base model is named"),
        ({"target_modules": ["v_proj"]}, "q_proj.lora_A.weight belongs to no plain LoRA"),
    ],
)
def test_an_adapter_that_is_not_plain_lora_is_refused_by_name(
    tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    folder = write_adapter(tmp_path / "theirs", **changes)
    with pytest.raises(UserError, match=message):
        promotion.plan_adapter(folder, preset("demo"))


def test_a_pickled_adapter_is_never_opened(tmp_path: Path) -> None:
    folder = write_adapter(tmp_path / "theirs")
    (folder / ADAPTER).rename(folder / "adapter_model.bin")
    with pytest.raises(UserError, match="pickled, which is never loaded"):
        promotion.plan_adapter(folder, preset("demo"))


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"12",
        b"\xff" * 8,
        b"\x02\0\0\0\0\0\0\0[]",
        b"\x05\0\0\0\0\0\0\0{}",
        b"\x02" + b"\0" * 7,
    ],
)
def test_what_is_no_safetensors_file_is_refused(tmp_path: Path, content: bytes) -> None:
    folder = write_adapter(tmp_path / "theirs")
    (folder / ADAPTER).write_bytes(content)
    with pytest.raises(UserError, match=r"not a safetensors file|do not have the rank"):
        promotion.plan_adapter(folder, preset("demo"))


@given(content=st.binary(max_size=200), length=st.integers(0, 300))
def test_no_header_breaks_the_check_of_an_adapter(
    tmp_path_factory: pytest.TempPathFactory, content: bytes, length: int
) -> None:
    folder = write_adapter(tmp_path_factory.mktemp("theirs"))
    (folder / ADAPTER).write_bytes(length.to_bytes(8, "little") + content)
    with pytest.raises(UserError):
        stage1.read_facts(folder)


@given(
    values=st.dictionaries(
        st.sampled_from(["peft_type", "r", "lora_alpha", "target_modules", "bias", "x"]),
        st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.lists(st.text()),
    )
)
def test_no_configuration_breaks_the_check_of_an_adapter(
    tmp_path_factory: pytest.TempPathFactory, values: dict[str, Any]
) -> None:
    folder = write_adapter(tmp_path_factory.mktemp("theirs"), **values)
    try:
        facts = stage1.read_facts(folder)
    except UserError:
        return
    assert facts.rank == 2
    assert facts.alpha > 0


def test_a_missing_or_full_of_nonsense_adapter_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no such adapter folder"):
        promotion.plan_adapter(tmp_path / "nowhere", preset("demo"))
    with pytest.raises(UserError, match="configuration cannot be read"):
        promotion.plan_adapter(tmp_path, preset("demo"))
    folder = write_adapter(tmp_path / "theirs")
    (folder / ADAPTER_CONFIG).write_text("[" * 100_000)
    with pytest.raises(UserError, match="configuration cannot be read"):
        promotion.plan_adapter(folder, preset("demo"))
    with pytest.raises(UserError, match="name a Stage I preset"):
        promotion.plan_adapter(write_adapter(tmp_path / "good"), preset("stage2"))

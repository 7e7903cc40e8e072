"""Settings that change while a run trains: validated, all or none, exact to the step, resumed."""

import math
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from engine.config import RunConfig, with_overrides
from engine.errors import UserError
from engine.policy.adapters import POLICY, adapter_weights
from engine.runs import directory, live_settings, promotion
from engine.runs.control import Command
from engine.runs.directory import RunDirectory
from engine.runs.live_settings import SETTINGS, Change
from engine.runs.reader import StoreReader
from engine.runs.status import status
from engine.training import steps, validation
from tests import recorded
from tests.engine.test_training import Session
from tests.tiny import tiny_config

Weights = dict[str, torch.Tensor]


@pytest.fixture
def config(tmp_path: Path) -> RunConfig:
    return tiny_config(
        tmp_path,
        rollout={"prompts_per_step": 2, "group_size": 4, "max_new_tokens": 8, "context": 512},
        optimizer={"learning_rate": 0.01, "rise_steps": 1},
        objective={"kl_coefficient": 0.01},
        schedule={"max_steps": 4, "save_every": 1, "eval_every": 4, "keep_checkpoints": 9},
    )


def _asks(session: Session, at: dict[int, dict[str, Any]], *, stop: int | None = None) -> None:
    """Have ``set`` commands wait when so many steps are done, and ``stop`` after one."""
    # Once each: after a rollback the same numbers of steps come again.
    waiting = dict(at)

    def ask(done: int) -> None:
        if done in waiting:
            payload = {"changes": waiting.pop(done)}
            session.commands.put(Command(f"at-{done}", "set", payload))

    ask(0)
    shape = session.task.shape

    def shaped(judged: Any) -> Any:
        result = shape(judged)
        ask(session.task.shaped)
        if session.task.shaped == stop:
            session.commands.put(Command("stop", "stop"))
        return result

    session.task.shape = shaped


def _trained(config: RunConfig, at: dict[int, dict[str, Any]]) -> Session:
    session = Session(directory.create(config), config)
    _asks(session, at)
    session.train()
    return session


def _weights(session: Session) -> Weights:
    return adapter_weights(session.policy.model, POLICY)


def _equal(one: Weights, other: Weights) -> bool:
    return all(torch.equal(one[name], other[name]) for name in one)


def _answers(run: RunDirectory) -> list[tuple[bool, str]]:
    return [(one["ok"], one["message"]) for one in _payloads(run, "command")]


def _payloads(run: RunDirectory, kind: str) -> list[dict[str, Any]]:
    reader = StoreReader(run.database)
    events = reader.events_of(kind)
    reader.close()
    return [dict(event.payload) for event in events]


def _started_there(session: Session, step: int, config: RunConfig) -> Session:
    """A run with ``config`` from its start, that goes on from the other's checkpoint."""
    run = directory.create(config)
    name = f"step-{step:06d}"
    shutil.copytree(session.run.checkpoints / name, run.checkpoints / name)
    other = Session(run, config).resume()
    other.train()
    return other


CHANGES: dict[str, Any] = {
    "optimizer.learning_rate": 0.003,
    "objective.kl_coefficient": 0.5,
    "rollout.temperature": 0.7,
    "optimizer.max_grad_norm": 0.01,
}


@pytest.mark.parametrize("name", CHANGES)
def test_a_change_acts_exactly_as_in_a_run_that_was_started_with_it(
    name: str, config: RunConfig
) -> None:
    value = CHANGES[name]
    plain = _trained(config, {})
    changed = _trained(config, {2: {name: value}})
    rewards = [session.history().series["reward/total"].values for session in (plain, changed)]
    assert rewards[0][:2] == rewards[1][:2]
    assert not _equal(_weights(plain), _weights(changed))
    there = _started_there(plain, 2, with_overrides(config, [f"{name}={value}"]))
    assert _equal(_weights(there), _weights(changed))


@pytest.mark.parametrize(("first", "then"), [(0.0, 0.3), (0.3, 0.0)])
def test_the_reference_pass_comes_and_goes_with_the_kl_coefficient(
    first: float, then: float, config: RunConfig
) -> None:
    config = with_overrides(config, [f"objective.kl_coefficient={first}"])
    session = _trained(config, {2: {"objective.kl_coefficient": then}})
    assert session.history().series["kl"].steps == ([1, 2] if first else [3, 4])
    there = _started_there(
        _trained(config, {}), 2, with_overrides(config, [f"objective.kl_coefficient={then}"])
    )
    assert _equal(_weights(there), _weights(session))


def test_setting_what_is_in_force_already_leaves_every_bit_as_it_was(config: RunConfig) -> None:
    plain = _trained(config, {})
    same = {setting.name: setting.of(config) for setting in SETTINGS}
    asked = _trained(config, {0: same, 2: {"learning_rate": 0.01}})
    assert _equal(_weights(plain), _weights(asked))
    for name in ("reward/total", "loss", "kl", "gradient_norm"):
        assert plain.history().series[name] == asked.history().series[name]
    assert _answers(asked.run) == 2 * [(True, "nothing changes: that is in force already")]
    assert _payloads(asked.run, "settings") == []


def test_a_change_is_stored_with_old_and_new_value_and_shown(config: RunConfig) -> None:
    session = _trained(config, {2: {"learning_rate": 5e-5, "schedule.patience": 3}})
    assert _payloads(session.run, "settings") == [
        {
            "changes": [
                {"name": "optimizer.learning_rate", "old": 0.01, "new": 5e-5},
                {"name": "schedule.patience", "old": None, "new": 3},
            ],
            "by": "user",
            "command": "at-2",
        }
    ]
    assert _answers(session.run) == [(True, "in force from step 3 on")]
    history = session.history()
    assert [(one.change.name, one.step, one.by) for one in history.settings] == [
        ("optimizer.learning_rate", 2, "user"),
        ("schedule.patience", 2, "user"),
    ]
    assert history.series["learning_rate"].values == [0.01, 0.01, 5e-5, 5e-5]
    assert {"learning rate 0.01 → 5e-5", "patience never → 3"} <= {x.text for x in history.log}
    # What the run was started with stays on disk; what is in force stands beside it.
    assert session.run.config() == config
    (rate, *_) = status(session.run)["settings"]
    assert (rate["value"], rate["started"]) == (5e-5, 0.01)
    assert [(one["step"], one["old"], one["new"]) for one in rate["changes"]] == [(2, 0.01, 5e-5)]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"learning_rate": -1}, "learning_rate=-1: input should be greater than 0"),
        ({"rollout.temperature": 9}, "temperature=9: input should be less than or equal to 5"),
        ({"eval_every": 2.5}, "eval_every=2.5: input should be a valid integer"),
        ({"eval_every": None}, "eval_every=never: input should be a valid integer"),
        ({"optimizer.weight_decay": 0.1}, "no setting that can change while a run trains"),
    ],
)
def test_of_several_changes_all_are_made_or_none(
    changes: dict[str, Any], words: str, config: RunConfig
) -> None:
    session = _trained(config, {2: {"kl_coefficient": 0.5, **changes}})
    ((ok, message),) = _answers(session.run)
    assert not ok
    assert words in message
    assert session.history().settings == []
    assert session.training.config == config
    assert _equal(_weights(session), _weights(_trained(config, {})))


def test_a_paused_run_takes_changes_and_stays_paused(config: RunConfig) -> None:
    session = Session(directory.create(config), config)
    for number, command in enumerate(("pause", "set", "checkpoint", "resume")):
        payload = {"changes": {"learning_rate": 0.002}} if command == "set" else {}
        session.commands.put(Command(str(number), command, payload))
    session.train()
    assert [ok for ok, _ in _answers(session.run)] == 4 * [True]
    assert session.history().series["learning_rate"].values == 4 * [0.002]


def test_nothing_changes_before_the_first_grpo_step(config: RunConfig) -> None:
    session = Session(directory.create(config), config)
    session.commands.put(Command("1", "set", {"changes": {"learning_rate": 0.002}}))
    session.control.obey("warming_up")
    session.store.close()
    assert _answers(session.run) == [(False, "settings can change from the first GRPO step on")]


def test_cadence_and_patience_follow_from_the_next_step_on(config: RunConfig) -> None:
    config = with_overrides(config, ["schedule.max_steps=6", "schedule.save_every=100"])
    session = _trained(config, {1: {"eval_every": 3, "save_every": 5}})
    history = session.history()
    assert history.series["validation/reward/total"].steps == [0, 3, 6]
    best = {one.step for one in history.checkpoints if one.validation_reward is not None}
    assert {one.step for one in history.checkpoints} - best == {5}

    patient = Session(directory.create(config), with_overrides(config, ["schedule.eval_every=1"]))
    figures = dict.fromkeys(("reward/total", "accuracy"), 0.5)
    patient.task.validation_metrics = lambda judged: dict(figures)
    _asks(patient, {3: {"patience": 2}})
    # Validations of steps 1 to 4 brought nothing better than that of step 0.
    assert patient.train() == "no better validation reward in 2 validations"
    assert patient.progress.step == 4


# --- resuming


@pytest.mark.parametrize("stop", [2, 3])
def test_a_resumed_run_has_what_was_in_force_and_takes_the_same_steps(
    stop: int, config: RunConfig
) -> None:
    changes = {2: {"learning_rate": 0.003, "temperature": 0.8}}
    whole = _trained(config, changes)
    run = directory.create(config)
    first = Session(run, config)
    # With stop=2 the change comes after the checkpoint of its step was written.
    _asks(first, changes, stop=stop)
    assert first.train() == "stopped by command"
    assert first.progress.step == stop
    second = Session(run, config).resume()
    assert second.training.config.rollout.temperature == 0.8
    assert second.policy.rollout.temperature == 0.8
    second.train()
    assert _equal(_weights(whole), _weights(second))
    assert second.history().settings[0].step == 2
    assert whole.history().series["reward/total"] == second.history().series["reward/total"]


def test_a_resume_from_before_a_change_undoes_it_and_says_so(config: RunConfig) -> None:
    run = directory.create(config)
    session = Session(run, config)
    _asks(session, {1: {"temperature": 0.9}, 3: {"learning_rate": 0.003}})
    session.train()
    for step in (3, 4):
        shutil.rmtree(run.checkpoints / f"step-{step:06d}")
    resumed = Session(run, config).resume()
    assert resumed.training.config.optimizer.learning_rate == 0.01
    assert resumed.training.config.rollout.temperature == 0.9
    resumed.train()
    assert _equal(_weights(resumed), _weights(_trained(config, {1: {"temperature": 0.9}})))
    history = resumed.history()
    assert [one.change.name for one in history.settings] == ["rollout.temperature"]
    (told,) = [line.text for line in history.log if "again" in line.text]
    assert told == "settings are as they were at step 2 again: learning rate 0.003 → 0.01"


def _diverging(
    config: RunConfig, at: dict[int, dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> Session:
    """Losses break from step 4 on until training has gone back."""
    session = Session(directory.create(config), config)
    _asks(session, at)
    sound = steps.update

    def broken(*args: Any, **kwargs: Any) -> dict[str, float]:
        if session.progress.rollbacks == 0 and session.progress.step >= 3:
            return {"learning_rate": kwargs["learning_rate"], "skipped": 1.0}
        return sound(*args, **kwargs)

    monkeypatch.setattr(steps, "update", broken)
    session.train()
    return session


@pytest.mark.parametrize(
    ("at", "rate"),
    [
        ({1: {"learning_rate": 0.004}}, 0.002),
        ({3: {"learning_rate": 0.001}}, 0.0005),
        ({3: {"learning_rate": 0.05}}, 0.005),
    ],
    ids=["kept", "lowered since", "raised since"],
)
def test_a_rollback_goes_back_to_the_settings_too_and_halves_the_lower_rate(
    at: dict[int, dict[str, Any]], rate: float, config: RunConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = with_overrides(config, ["schedule.max_steps=7"])
    session = _diverging(config, {**at, 4: {"temperature": 0.7}}, monkeypatch)
    assert session.progress.rollbacks == 1
    history = session.history()
    assert history.series["learning_rate"].values[2:] == 5 * [rate]
    assert session.training.config.rollout.temperature == 1.0
    assert session.policy.rollout.temperature == 1.0
    halved = history.settings[-1]
    assert (halved.by, halved.step, halved.change.new) == ("rollback", 2, rate)
    assert any(line.text.endswith("after a divergence") for line in history.log)


def test_a_rate_that_a_person_sets_after_a_rollback_is_the_rate(
    config: RunConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = with_overrides(config, ["schedule.max_steps=9"])
    # Shaped batches start again at the checkpoint: 7 is reached after going back alone.
    session = _diverging(config, {7: {"learning_rate": 0.008}}, monkeypatch)
    assert session.history().series["learning_rate"].values[-2:] == 2 * [0.008]


# --- what stays as the run was started


def test_validations_are_all_sampled_at_the_temperature_of_the_start(
    config: RunConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[float] = []
    judge = validation._judged

    def judged(used: RunConfig, task: Any, policy: Any, items: Any, between: Any) -> Any:
        sample = policy.sample

        def sampled(*args: Any) -> Any:
            seen.append(policy.rollout.temperature)
            return sample(*args)

        policy.sample = sampled
        try:
            return judge(used, task, policy, items, between)
        finally:
            del policy.sample

    monkeypatch.setattr(validation, "_judged", judged)
    session = _trained(config, {1: {"temperature": 0.6}})
    assert set(seen) == {1.0}
    assert session.policy.rollout.temperature == 0.6


# --- pure parts


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (8e-5, "8e-5"),
        (1e-4, "1e-4"),
        (1.25e-5, "1.25e-5"),
        (0.05 / 3, "0.0166667"),
        (0.001, "0.001"),
        (0, "0"),
        (0.0, "0"),
        (1.0, "1"),
        (100, "100"),
        (2_000_000, "2e6"),
        (None, "never"),
        ("natural", "natural"),
        (True, "True"),
        ("a\x1b[2J", "a␛[2J"),
    ],
)
def test_a_value_is_written_as_people_type_it(value: object, text: str) -> None:
    assert live_settings.written(value) == text


@given(st.floats(1e-12, 1e12) | st.integers(1, 10**9))
def test_what_is_written_is_read_as_nearly_the_same(value: float) -> None:
    text = live_settings.written(value)
    assert "−" not in text
    again = live_settings.parse_value(text, where="")
    assert again is not None
    assert math.isclose(again, value, rel_tol=1e-5)


@given(st.text(max_size=20))
def test_any_text_is_a_finite_number_or_never_or_refused(text: str) -> None:
    try:
        value = live_settings.parse_value(text, where="x")
    except UserError as error:
        value, words = None, str(error)
    else:
        words = ""
    assert "\n" not in words
    assert value is None or math.isfinite(value)


@pytest.mark.parametrize(
    ("texts", "words"),
    [
        (["learning_rate"], "is not KEY=VALUE"),
        (["learning_rat=1"], "did you mean learning_rate"),
        (["rollout.group_size=4"], "no setting that can change while a run trains"),
        (["learning_rate=fast"], "'fast' is no number"),
        (["learning_rate=inf"], "'inf' is no number"),
        (["learning_rate=nan"], "'nan' is no number"),
        (["learning_rate=true"], "'true' is no number"),
        (["learning_rate=1e-4", "optimizer.learning_rate=1e-5"], "set twice"),
    ],
)
def test_what_means_nothing_is_refused_with_one_line(texts: list[str], words: str) -> None:
    with pytest.raises(UserError, match=words) as error:
        live_settings.parse(texts)
    assert "\n" not in str(error.value)


def test_short_and_long_names_mean_the_same() -> None:
    assert live_settings.parse(["learning_rate=5e-5", "schedule.patience=never"]) == {
        "optimizer.learning_rate": 5e-5,
        "schedule.patience": None,
    }


def test_allowed_values_are_those_of_the_configuration() -> None:
    assert {setting.key: setting.allowed for setting in SETTINGS} == {
        "learning_rate": "above 0",
        "kl_coefficient": "0 or more",
        "temperature": "above 0, at most 5",
        "max_grad_norm": "above 0",
        "eval_every": "whole, 1 or more",
        "save_every": "whole, 1 or more",
        "patience": "whole, 1 or more, or never",
    }


@pytest.mark.parametrize(
    "payload",
    [
        {},
        {"changes": {}},
        {"changes": []},
        {"changes": {"a": "1"}},
        {"changes": {"a": True}},
        {"changes": {"a": math.inf}},
        {"changes": {"a": math.nan}},
        {"changes": {"a": 10**400}},
        {"changes": {"a": [1]}},
        {"changes": {"a" * 65: 1}},
        {"changes": {f"a{number}": 1 for number in range(33)}},
        {"changes": {"a": 1}, "more": 1},
    ],
)
def test_a_payload_of_another_shape_is_refused(payload: dict[str, Any]) -> None:
    assert live_settings.shape_problem(payload)


def test_a_payload_of_numbers_has_the_shape() -> None:
    assert not live_settings.shape_problem({"changes": {"a": 1, "b": 0.5, "c": None}})


def test_planning_changes_says_what_is_different(config: RunConfig) -> None:
    changed, changes = live_settings.plan(config, {"eval_every": 7.0, "save_every": 1})
    assert changes == (Change("schedule.eval_every", 4, 7),)
    assert type(changed.schedule.eval_every) is int
    assert changed.schedule.save_every == config.schedule.save_every


def test_stage_2_is_made_from_what_was_in_force_at_the_checkpoint() -> None:
    recording = recorded.new_run()
    recording.starts()
    recording.trains(50)
    recording.sets("optimizer.learning_rate", 8e-5, 2e-5)
    recording.trains(50)
    recording.trains(1)
    recording.sets("optimizer.learning_rate", 2e-5, 4e-5)
    recording.closes()
    plan = promotion.plan(recording.run, "step-100")
    assert plan.config.optimizer.learning_rate == 1e-5
    (rate,) = [one for one in plan.changes if one.key == "optimizer.learning_rate"]
    assert (rate.before, rate.after) == (2e-5, 1e-5)

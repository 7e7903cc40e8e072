"""The GRPO step, the warm-up, checkpoints and the loop, on a tiny model."""

import dataclasses
import json
import math
import queue
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import peft
import pytest
import torch
from safetensors.torch import load_file

from engine.config import RunConfig, with_overrides
from engine.policy import rollout as sampling
from engine.policy.adapters import POLICY, adapter_weights, freeze_reference
from engine.policy.policy import Policy
from engine.runs import checkpoint_names, directory, manifest, store
from engine.runs.checkpoint_names import ADAPTER
from engine.runs.control import Command
from engine.runs.directory import RunDirectory
from engine.runs.history import History
from engine.runs.reader import StoreReader
from engine.runs.status import read_history
from engine.runs.store import EventStore
from engine.task import Assessment, ComponentScore, Item
from engine.training import checkpoints, loop, steps, validation
from engine.training.control import Control, StopRequestedError
from engine.training.objective import Loss
from engine.training.training import Progress, Training, make_optimizer
from engine.training.warmup import warm_up
from tests.tiny import VowelTask, tiny_base, tiny_config, tiny_policy


def _policy(config: RunConfig, seed: int = 0) -> Policy:
    policy = tiny_policy(seed=seed)
    policy.rollout = config.rollout
    return policy


@pytest.fixture
def config(tmp_path: Path) -> RunConfig:
    return tiny_config(
        tmp_path,
        rollout={"prompts_per_step": 2, "group_size": 4, "max_new_tokens": 8, "context": 512},
        optimizer={"learning_rate": 0.01},
        objective={"kl_coefficient": 0.01},
    )


class Session:
    """Everything ``loop.train`` needs, made anew as a worker would."""

    def __init__(self, run: RunDirectory, config: RunConfig, task: Any = None) -> None:
        self.run, self.config = run, config
        self.task = task or VowelTask()
        self.policy = _policy(config)
        self.store = EventStore(run.database)
        self.commands: queue.Queue[Command] = queue.Queue()
        self.control = Control(self.commands, self.store)
        self.training = Training(
            run=run,
            config=config,
            task=self.task,
            policy=self.policy,
            optimizer=make_optimizer(self.policy, config),
            generator=torch.Generator().manual_seed(config.seed),
            store=self.store,
        )

    @property
    def progress(self) -> Progress:
        return self.training.progress

    def resume(self) -> "Session":
        name = checkpoints.newest(self.run)
        assert name is not None
        self.training.resume(name)
        return self

    def train(self) -> str:
        try:
            return loop.train(self.training, self.control).reason
        finally:
            self.store.close()

    def history(self) -> History:
        return read_history(self.run)


def _group(policy: Policy, rewards: list[float]) -> list[steps.GroupRollout]:
    """One rollout group whose completions were given these rewards."""
    item = VowelTask().training_item(0)
    (sampled,) = steps.roll_out(policy, [item], len(rewards), torch.Generator().manual_seed(1))
    prompt, tokens, completions = sampled
    assessments = [
        Assessment((ComponentScore("given", reward, 1.0, ""),), {}, {}) for reward in rewards
    ]
    return [steps.GroupRollout(item, prompt, tokens, completions, [""] * len(rewards), assessments)]


def _update(
    policy: Policy, config: RunConfig, rollouts: list[steps.GroupRollout]
) -> dict[str, float]:
    advantages, _ = steps.advantages_of(rollouts)
    groups = [rollout.tokens for rollout in rollouts]
    needed = config.objective.kl_coefficient > 0
    reference = policy.reference_logprobs(groups) if needed else None
    optimizer = make_optimizer(policy, config)
    return steps.update(
        policy,
        optimizer,
        config,
        rollouts,
        advantages,
        reference,
        learning_rate=config.optimizer.learning_rate,
    )


def _logprob_sums(policy: Policy, rollouts: list[steps.GroupRollout]) -> torch.Tensor:
    with torch.no_grad():
        return policy.logprobs([rollout.tokens for rollout in rollouts])[0].sum(1)


def test_a_rewarded_completion_becomes_likelier_and_a_punished_one_less_likely(
    config: RunConfig,
) -> None:
    config = with_overrides(config, ["objective.kl_coefficient=0", "optimizer.learning_rate=0.001"])
    policy = _policy(config)
    rollouts = _group(policy, [1.0, 0.0, 0.5, 0.5])
    before = _logprob_sums(policy, rollouts)
    _update(policy, config, rollouts)
    change = _logprob_sums(policy, rollouts) - before
    assert change[0] > 0 > change[1]


def test_equal_rewards_change_nothing_when_the_kl_coefficient_is_zero(config: RunConfig) -> None:
    config = with_overrides(config, ["objective.kl_coefficient=0"])
    policy = _policy(config)
    rollouts = _group(policy, [0.3, 0.3, 0.3, 0.3])
    before = adapter_weights(policy.model, POLICY)
    metrics = _update(policy, config, rollouts)
    after = adapter_weights(policy.model, POLICY)
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert "gradient_norm" not in metrics


def test_equal_rewards_still_feel_the_kl_term_when_there_is_one(config: RunConfig) -> None:
    policy = _policy(config)  # its adapter differs from the reference, which is the base
    rollouts = _group(policy, [0.3, 0.3, 0.3, 0.3])
    metrics = _update(policy, config, rollouts)
    assert metrics["kl"] > 0
    assert metrics["gradient_norm"] > 0


@pytest.mark.parametrize("normalisation", ["dr_grpo", "grpo", "dapo"])
def test_micro_batches_add_up_to_the_same_update(config: RunConfig, normalisation: str) -> None:
    config = with_overrides(config, [f"objective.normalisation={normalisation}"])
    weights = []
    # The last budget is shorter than a group: a prompt of 44 tokens, two completions of up to 8.
    for budget, batches in ((100_000, 1), (100, 2), (53, 4)):
        policy = _policy(config)
        policy.micro_batch_tokens = budget
        rollouts = _group(policy, [1.0, 0.0]) + _group(policy, [0.2, 0.8])
        assert len(policy.micro_batches([r.tokens for r in rollouts])) == batches
        _update(policy, config, rollouts)
        weights.append(adapter_weights(policy.model, POLICY))
    for name in weights[0]:
        assert torch.allclose(weights[0][name], weights[1][name], atol=1e-5), name
        assert torch.allclose(weights[0][name], weights[2][name], atol=1e-5), name


def test_a_gradient_that_is_not_finite_leaves_the_weights_alone(config: RunConfig) -> None:
    policy = _policy(config)
    rollouts = _group(policy, [math.nan, 0.0, 0.5, 0.5])
    before = adapter_weights(policy.model, POLICY)
    metrics = _update(policy, config, rollouts)
    assert metrics["skipped"] == 1
    after = adapter_weights(policy.model, POLICY)
    assert all(torch.equal(before[name], after[name]) for name in before)


def _cut(rollout: steps.GroupRollout, cut: Sequence[int]) -> steps.GroupRollout:
    """The group with these completions truncated and all others finished."""
    completions = [
        dataclasses.replace(completion, finished=index not in cut)
        for index, completion in enumerate(rollout.completions)
    ]
    return dataclasses.replace(rollout, completions=completions)


@pytest.mark.parametrize("kl_coefficient", [0, 0.1])
def test_a_masked_truncated_completion_has_no_part_in_the_update(
    config: RunConfig, kl_coefficient: float
) -> None:
    config = with_overrides(
        config, ["objective.mask_truncated=true", f"objective.kl_coefficient={kl_coefficient}"]
    )
    weights = []
    for token in (65, 90):
        policy = _policy(config)
        (rollout,) = _group(policy, [1.0, 0.0, 0.5, 0.2])
        rollout.completions[1].tokens[:] = [token] * 8
        metrics = _update(policy, config, [_cut(rollout, [1])])
        weights.append(adapter_weights(policy.model, POLICY))
    assert metrics["gradient_norm"] > 0
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])


@pytest.mark.parametrize("kl_coefficient", [0, 0.1])
def test_a_step_of_truncated_completions_alone_changes_nothing_when_they_are_masked(
    config: RunConfig, kl_coefficient: float
) -> None:
    config = with_overrides(
        config, ["objective.mask_truncated=true", f"objective.kl_coefficient={kl_coefficient}"]
    )
    policy = _policy(config)
    (rollout,) = _group(policy, [1.0, 0.0])
    before = adapter_weights(policy.model, POLICY)
    metrics = _update(policy, config, [_cut(rollout, [0, 1])])
    after = adapter_weights(policy.model, POLICY)
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert not {"gradient_norm", "kl"} & set(metrics)


def test_advantage_scaling_scales_the_gradient(config: RunConfig) -> None:
    norms = {}
    for scaling in ("none", "group", "batch"):
        overrides = ["objective.kl_coefficient=0", f"objective.advantage_scaling={scaling}"]
        scaled = with_overrides(config, overrides)
        policy = _policy(scaled)
        rollouts = _group(policy, [1.0, 0.0]) + _group(policy, [0.5, 0.5])
        norms[scaling] = _update(policy, scaled, rollouts)["gradient_norm"]
    # Deviations with N - 1: sqrt(1 / 2) of the group, sqrt(1 / 6) of all four.
    assert norms["group"] == pytest.approx(norms["none"] / (math.sqrt(1 / 2) + 1e-4), rel=1e-4)
    assert norms["batch"] == pytest.approx(norms["none"] / (math.sqrt(1 / 6) + 1e-4), rel=1e-4)


def test_importance_cap_weighs_tokens_by_what_the_sampler_said(config: RunConfig) -> None:
    found = {}
    for cap in ("null", "2.0", "1.5"):
        overrides = ["objective.kl_coefficient=0", f"objective.importance_cap={cap}"]
        capped = with_overrides(config, overrides)
        policy = _policy(capped)
        rollouts = _group(policy, [1.0, 0.0])
        for completion in rollouts[0].completions:
            completion.logprobs[:] = [logprob - 0.5 for logprob in completion.logprobs]
        found[cap] = _update(policy, capped, rollouts)
    plain = found["null"]["gradient_norm"]
    assert "importance/mean" not in found["null"]
    assert found["2.0"]["gradient_norm"] == pytest.approx(plain * math.exp(0.5), rel=1e-4)
    assert found["2.0"]["importance/mean"] == pytest.approx(math.exp(0.5), rel=1e-4)
    assert found["2.0"]["importance/capped"] == 0
    assert found["1.5"]["gradient_norm"] == pytest.approx(plain * 1.5, rel=1e-4)
    assert found["1.5"]["importance/capped"] == 1


def test_second_pass_over_a_block_shows_ratios_and_clips(config: RunConfig) -> None:
    policy = _policy(config)
    metrics = _update(policy, config, _group(policy, [1.0, 0.0]))
    assert metrics["ratio/min"] == metrics["ratio/max"] == 1
    twice = with_overrides(config, ["objective.iterations=3", "objective.clip=0.001"])
    policy = _policy(twice)
    metrics = _update(policy, twice, _group(policy, [1.0, 0.0, 0.6, 0.1]))
    assert metrics["ratio/min"] < 1 < metrics["ratio/max"]
    sides = metrics["clip_fraction/low"], metrics["clip_fraction/high"]
    assert min(sides) > 0
    assert metrics["clip_fraction"] == pytest.approx(sum(sides))


def test_kl_is_zero_at_the_first_step_whatever_the_dropout(tmp_path: Path) -> None:
    config = tiny_config(tmp_path, lora={"r": 4, "alpha": 8, "dropout": 0.5})
    policy = tiny_policy(dropout=0.5)
    policy.rollout = config.rollout
    freeze_reference(policy.model)
    metrics = _update(policy, config, _group(policy, [1.0, 0.0]))
    assert metrics["kl"] == 0
    assert metrics["clip_fraction"] == 0


def test_learning_rate_rises_to_its_peak_and_stays(config: RunConfig) -> None:
    config = with_overrides(
        config, ["optimizer.learning_rate=0.01", "optimizer.rise_steps=2", "schedule.max_steps=4"]
    )
    session = Session(directory.create(config), config)
    session.train()
    assert session.history().series["learning_rate"].values == [0.005, 0.01, 0.01, 0.01]


def test_training_teaches_a_tiny_model_to_write_vowels(config: RunConfig) -> None:
    config = with_overrides(
        config,
        [
            "schedule.max_steps=40",
            "schedule.eval_every=40",
            "schedule.save_every=40",
            "rollout.group_size=8",
            "optimizer.learning_rate=0.02",
            # It goes as far as it can, and nobody is there to say that it may.
            "objective.kl_alarm=1000",
        ],
    )
    session = Session(directory.create(config), config)
    assert session.train() == "all 40 steps done"
    rewards = session.history().series["reward/total"].values
    first, last = rewards[:10], rewards[-10:]
    assert sum(last) / 10 > sum(first) / 10 + 0.1


def test_warm_up_lowers_the_loss_and_is_cached_by_its_settings(
    config: RunConfig, tmp_path: Path
) -> None:
    config = with_overrides(config, ["warmup.steps=8", "warmup.learning_rate=0.02"])
    losses: list[float] = []

    def run(config: RunConfig) -> tuple[bool, dict[str, torch.Tensor]]:
        policy = _policy(config)
        was_cached = warm_up(
            policy,
            VowelTask(),
            config,
            base_fingerprint="tiny",
            cache=tmp_path / "warmups",
            on_step=lambda done, total, loss: losses.append(loss),
        )
        return was_cached, adapter_weights(policy.model, POLICY)

    was_cached, first = run(config)
    assert not was_cached
    assert losses[-1] < losses[0] - 0.5
    was_cached, second = run(config)
    assert was_cached
    assert len(losses) == 8
    assert all(torch.equal(first[name], second[name]) for name in first)
    was_cached, _ = run(with_overrides(config, ["warmup.learning_rate=0.01"]))
    assert not was_cached


def test_an_interrupted_warm_up_leaves_nothing_in_the_cache(
    config: RunConfig, tmp_path: Path
) -> None:
    def stop(done: int, total: int, loss: float) -> None:
        raise StopRequestedError("test")

    with pytest.raises(StopRequestedError):
        warm_up(
            _policy(config),
            VowelTask(),
            config,
            base_fingerprint="tiny",
            cache=tmp_path / "warmups",
            on_step=stop,
        )
    assert not (tmp_path / "warmups").exists()


def test_checkpoint_root_is_an_adapter_that_plain_peft_loads(config: RunConfig) -> None:
    session = Session(directory.create(config), config)
    session.train()
    history = session.history()
    folder = session.run.checkpoints / history.checkpoints[-1].name
    loaded = peft.PeftModel.from_pretrained(tiny_base(), folder).eval()
    ids = torch.tensor([[256, 1, 2, 3]])
    ours = session.policy.causal_model(input_ids=ids).logits
    assert torch.equal(loaded(input_ids=ids).logits, ours)


def test_best_model_names_the_checkpoint_with_the_highest_validation_reward(
    config: RunConfig,
) -> None:
    config = with_overrides(
        config, ["schedule.max_steps=8", "schedule.keep_checkpoints=2", "schedule.eval_every=1"]
    )
    session = Session(directory.create(config), config)
    session.train()
    history = session.history()
    rewards = history.series["validation/reward/total"]
    best_step = rewards.steps[rewards.values.index(max(rewards.values))]
    assert history.best == f"step-{best_step:06d}"
    assert (session.run.path / "best_model").read_text() == f"{history.best}\n"
    kept = checkpoints.names(session.run)
    assert history.best in kept
    assert {point.name for point in history.checkpoints} == set(kept)
    assert len(kept) <= 3


def test_a_run_is_validated_before_its_first_step_and_beside_the_untrained_base(
    config: RunConfig,
) -> None:
    session = Session(directory.create(config), config)
    session.train()
    history = session.history()
    assert history.series["validation/reward/total"].steps == [0, 2, 4]
    # Measured once, shown with every validation.
    assert history.series["validation/baseline/base_model"].values == [0.5, 0.5, 0.5]
    assert history.checkpoints[0].validation_reward is not None


def test_validation_leaves_training_as_it_was(config: RunConfig) -> None:
    config = with_overrides(config, ["schedule.eval_every=1"])
    often = Session(directory.create(config), config)
    often.train()
    seldom_config = with_overrides(config, ["schedule.eval_every=4"])
    seldom = Session(directory.create(seldom_config), seldom_config)
    seldom.train()
    ours, theirs = (adapter_weights(s.policy.model, POLICY) for s in (often, seldom))
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)


def test_patience_ends_a_run_that_no_longer_improves(config: RunConfig) -> None:
    config = with_overrides(
        config, ["schedule.patience=2", "schedule.eval_every=1", "schedule.max_steps=9"]
    )
    session = Session(directory.create(config), config)
    first = dict.fromkeys(("reward/total", "accuracy"), 0.9)
    later = dict.fromkeys(("reward/total", "accuracy"), 0.5)
    answers = iter([first, first, later, later])  # the base model, then steps 0, 1 and 2
    session.task.validation_metrics = lambda judged: dict(next(answers))
    assert session.train() == "no better validation reward in 2 validations"
    history = session.history()
    assert history.step == 2
    assert history.best == "step-000000"
    assert checkpoints.names(session.run)[-1] == "step-000002"


def _stop_after(steps_done: int) -> Callable[[Session], None]:
    def arrange(session: Session) -> None:
        shape = session.task.shape

        def counting(judged: Sequence[tuple[Item, Assessment]]) -> list[Assessment]:
            shaped: list[Assessment] = shape(judged)
            if session.task.shaped == steps_done:
                session.commands.put(Command("s", "stop"))
            return shaped

        session.task.shape = counting

    return arrange


def test_a_resumed_run_takes_the_very_steps_that_an_uninterrupted_one_takes(
    config: RunConfig,
) -> None:
    config = with_overrides(config, ["schedule.max_steps=6", "schedule.eval_every=3"])
    whole = Session(directory.create(config), config)
    whole.train()
    again = Session(directory.create(config), config)
    again.train()
    run = directory.create(config)
    first = Session(run, config)
    _stop_after(4)(first)
    assert first.train() == "stopped by command"
    assert first.progress.step == 4
    second = Session(run, config).resume()
    second.train()

    expected = adapter_weights(whole.policy.model, POLICY)
    control = adapter_weights(again.policy.model, POLICY)
    resumed = adapter_weights(second.policy.model, POLICY)
    for name in expected:
        assert torch.equal(expected[name], control[name])
        assert torch.equal(expected[name], resumed[name])
    assert whole.history().series["reward/total"] == second.history().series["reward/total"]
    assert second.history().attempt == 2
    assert second.task.shaped == 6


def test_no_checkpoint_is_there_before_the_events_of_its_steps(
    config: RunConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A worker killed in between would leave steps that no resume writes again."""
    monkeypatch.setattr(store, "_BATCH_SECONDS", 5.0)
    kinds = ("step", "validation")
    stored, save = [], checkpoints.save

    def look(run: RunDirectory, step: int, *rest: Any) -> str:
        reader = StoreReader(run.database)
        newest = {kind: [event.step for event in reader.events_of(kind)] for kind in kinds}
        stored.append((step, [newest[kind][-1:] for kind in kinds]))
        reader.close()
        return save(run, step, *rest)

    monkeypatch.setattr(checkpoints, "save", look)
    Session(directory.create(config), config).train()
    assert stored == [(0, [[], [0]]), (2, [[2], [2]]), (4, [[4], [4]])]


@pytest.mark.parametrize("killed_in", ["mark_best", "rotate"])
def test_worker_killed_after_a_save_leaves_the_rest_for_the_next_one_to_say(
    config: RunConfig, monkeypatch: pytest.MonkeyPatch, killed_in: str
) -> None:
    settings = ["schedule.keep_checkpoints=2", "schedule.save_every=1"]
    config = with_overrides(config, settings)
    run = directory.create(config)
    # Only the last step would be validated, and no better.
    monkeypatch.setattr(loop, "_validate", lambda *args: 0.0)
    with monkeypatch.context() as patch:
        done = getattr(checkpoints, killed_in)

        def kill(*args: Any) -> Any:
            result = done(*args)
            assert "step-000003" not in checkpoints.names(run), "killed"
            return result

        patch.setattr(checkpoints, killed_in, kill)
        session = Session(run, config)
        session.progress.best_reward, session.progress.best_name = 0.5, "step-000003"
        with pytest.raises(AssertionError, match="killed"):
            session.train()
    (run.path / "best_model").unlink(missing_ok=True)

    resumed = Session(run, config).resume()
    resumed.store.flush()
    history = read_history(run)
    assert [point.name for point in history.checkpoints] == checkpoints.names(run)
    saved = history.checkpoints[-1]
    assert (saved.name, saved.validation_reward) == ("step-000003", 0.5)
    assert checkpoint_names.best(run) == history.best == "step-000003"
    resumed.train()
    told = [point.name for point in read_history(run).checkpoints]
    assert told == checkpoints.names(run) == ["step-000003", "step-000004"]


def test_going_back_behind_a_damaged_checkpoint_tells_of_those_that_it_had_pushed_out(
    config: RunConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = with_overrides(config, ["schedule.keep_checkpoints=2", "schedule.save_every=1"])
    run = directory.create(config)
    monkeypatch.setattr(loop, "_validate", lambda *args: 0.25)
    Session(run, config).train()
    assert checkpoints.names(run) == ["step-000003", "step-000004"]
    (run.checkpoints / "step-000004" / "manifest.json").unlink()
    resumed = Session(run, config).resume()
    resumed.store.close()
    # The log up to step 3 tells of step 2 as well.
    assert [point.name for point in read_history(run).checkpoints] == ["step-000003"]


def test_run_killed_before_its_first_checkpoint_begins_anew_with_nothing_twice(
    config: RunConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = directory.create(config)
    with monkeypatch.context() as patch:
        patch.setattr(checkpoints, "save", lambda *args: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            Session(run, config).train()
    assert checkpoints.newest(run) is None
    again = Session(run, config)
    again.store.begin_anew()
    again.train()
    reader = StoreReader(run.database)
    validated = [event.step for event in reader.events_of("validation")]
    reader.close()
    assert validated == [0, 2, 4]
    assert again.history().series["validation/reward/total"].steps == [0, 2, 4]


def test_steps_after_the_checkpoint_are_superseded_by_the_resume(config: RunConfig) -> None:
    run = directory.create(config)
    session = Session(run, config)
    session.train()  # 4 steps, checkpoints at 2 and 4
    shutil.rmtree(run.checkpoints / "step-000004")
    shutil.rmtree(run.checkpoints / "step-000003", ignore_errors=True)
    resumed = Session(run, config).resume()
    assert resumed.progress.step == 2
    resumed.train()
    reader = StoreReader(run.database)
    steps_shown = [event.step for event in reader.events() if event.kind == "step"]
    rollouts = reader.newest_rollouts(limit=1000)
    reader.close()
    assert steps_shown == [1, 2, 3, 4]
    assert len(rollouts) == 4 * 8
    assert resumed.history().series["reward/total"].steps == [1, 2, 3, 4]


@pytest.mark.parametrize(
    "damage",
    [
        lambda folder: (folder / "manifest.json").unlink(),
        lambda folder: (folder / "manifest.json").write_text("{"),
        lambda folder: (folder / "train/state.json").write_text("{}"),
        lambda folder: (folder / "adapter_model.safetensors").write_bytes(b""),
        lambda folder: (folder / "train/optimizer.safetensors").unlink(),
    ],
)
def test_a_damaged_checkpoint_is_set_aside_for_the_one_before(
    config: RunConfig, damage: Callable[[Path], None]
) -> None:
    session = Session(directory.create(config), config)
    session.train()
    *_, before, newest = checkpoints.names(session.run)
    damage(session.run.checkpoints / newest)
    assert checkpoints.newest(session.run) == before
    assert any(
        path.name.startswith(f"damaged-{newest}") for path in session.run.checkpoints.iterdir()
    )


class FullDisk:
    """The first tries to write a checkpoint find no room; what the person does meanwhile."""

    def __init__(self, session: Session, monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
        monkeypatch.setattr(loop, "_RETRY_SECONDS", 0.0)
        self.tries, self.reasons = 0, list[str]()
        self.left_over: list[Path] = []
        write = checkpoints._write

        def fail(*args: Any) -> None:
            self.tries += 1
            if self.tries <= 2:
                raise error
            write(*args)

        def listen(kind: str, payload: Any, step: int) -> None:
            if payload.get("state") == "paused":
                self.reasons.append(payload["detail"])
                self.left_over += session.run.checkpoints.iterdir()

        monkeypatch.setattr(checkpoints, "_write", fail)
        session.store.listen(listen)


@pytest.mark.parametrize(
    "error",
    [
        OSError(28, "No space left on device"),
        OSError(5, "Input/output error"),
    ],
)
def test_a_save_that_finds_no_room_pauses_the_run_until_there_is_some(
    error: Exception, config: RunConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    session = Session(directory.create(config), config)
    disk = FullDisk(session, monkeypatch, error)
    assert session.train() == "all 4 steps done"
    assert len(disk.reasons) == 2
    assert "the checkpoint of step 0 is not saved; " in disk.reasons[0]
    assert ("dmesg" if getattr(error, "errno", 0) == 5 else "free some space") in disk.reasons[0]
    assert disk.reasons[0].endswith("and the run goes on by itself")
    assert disk.left_over == []
    assert checkpoints.names(session.run)[-1] == "step-000004"
    assert [point.step for point in session.history().checkpoints][-1] == 4
    assert all(not manifest.damage(path) for path in session.run.checkpoints.iterdir())


def test_another_error_of_a_save_is_not_taken_for_a_full_disk(
    config: RunConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    session = Session(directory.create(config), config)
    FullDisk(session, monkeypatch, OSError(13, "Permission denied"))
    with pytest.raises(OSError, match="Permission denied"):
        session.train()
    assert list(session.run.checkpoints.iterdir()) == []


def test_a_full_disk_is_said_before_a_checkpoint_is_begun_and_a_stop_is_obeyed(
    config: RunConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    session = Session(directory.create(config), config)
    full = shutil.disk_usage(session.run.path)._replace(free=1000)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: full)

    def listen(kind: str, payload: Any, step: int) -> None:
        if payload.get("state") == "paused":
            session.commands.put(Command("c", "checkpoint"))
            session.commands.put(Command("s", "stop"))

    session.store.listen(listen)
    assert session.train().startswith("stopped by command, without a checkpoint (")
    log = [line.text for line in session.history().log]
    assert any("too little for a checkpoint; free 256 MiB more, and the run" in t for t in log)
    assert any(text.startswith("checkpoint: ") and "too little" in text for text in log)


def test_a_store_without_room_pauses_the_run_between_two_steps(
    config: RunConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    session = Session(directory.create(config), config)
    asked = 0

    def has_recovered() -> bool:
        nonlocal asked
        asked += 1
        if asked == 2:
            session.store.shortage = None
        return asked == 2

    monkeypatch.setattr(session.store, "has_recovered", has_recovered)
    session.store.shortage = "the disk is full"
    assert session.train() == "all 4 steps done"
    states = [line for line in session.history().log if line.text.startswith("paused: the disk")]
    assert [line.level for line in states] == ["warning"]


def test_every_command_is_answered_by_an_event(config: RunConfig) -> None:
    session = Session(directory.create(config), config)
    for number, verb in enumerate(["pause", "pause", "resume", "resume", "checkpoint", "stop"]):
        session.store.command(str(number), verb, {})
        session.commands.put(Command(str(number), verb))
    assert session.train() == "stopped by command"
    reader = StoreReader(session.run.database)
    answers = [event.payload for event in reader.events() if event.kind == "command"]
    states = [event.payload["state"] for event in reader.events() if event.kind == "state"]
    reader.close()
    assert [(answer["verb"], answer["ok"]) for answer in answers] == [
        ("pause", True),
        ("pause", True),
        ("resume", True),
        ("resume", False),
        ("checkpoint", True),
        ("stop", True),
    ]
    assert answers[4]["message"] == "saved step-000000"
    validated = ["training", "evaluating", "training"]
    assert states == [*validated, "paused", "training", "stopping"]


def _copy(policy: Policy) -> dict[str, torch.Tensor]:
    return {name: w.clone() for name, w in adapter_weights(policy.model, POLICY).items()}


def _break_losses(
    monkeypatch: pytest.MonkeyPatch, is_broken: Callable[[], bool], stop: Session
) -> None:
    """Make the loss NaN where ``is_broken``; a run that pauses is stopped."""
    sound = steps.grpo_loss

    def broken(*args: Any, **kwargs: Any) -> Loss:
        loss = sound(*args, **kwargs)
        return dataclasses.replace(loss, value=loss.value * math.nan) if is_broken() else loss

    def listen(kind: str, payload: Any, step: int) -> None:
        if payload.get("state") == "paused":
            stop.commands.put(Command("s", "stop"))

    monkeypatch.setattr(steps, "grpo_loss", broken)
    stop.store.listen(listen)


@pytest.mark.parametrize("peak", [None, 1e6])
def test_the_share_of_the_devices_peak_is_told_where_that_is_known(
    peak: float | None, config: RunConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loop, "peak_flops", lambda *_: peak)
    session = Session(directory.create(config), config)
    session.train()
    series = session.history().series
    if peak is None:
        assert "mfu" not in series
        return
    assert len(series["mfu"].values) == session.progress.step
    assert min(series["mfu"].values) > 0


def test_updates_that_are_never_finite_pause_the_run_and_change_nothing(
    config: RunConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    session = Session(directory.create(config), config)
    _break_losses(monkeypatch, lambda: True, session)
    before = _copy(session.policy)
    assert session.train() == "stopped by command"
    assert session.progress.step == 3
    assert any("not finite in 3 steps in a row" in line.text for line in session.history().log)
    after = adapter_weights(session.policy.model, POLICY)
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_three_skipped_steps_go_back_to_the_last_good_checkpoint_at_half_the_rate(
    config: RunConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = with_overrides(
        config,
        [
            "schedule.max_steps=7",
            "schedule.save_every=1",
            "schedule.keep_checkpoints=9",
            "optimizer.rise_steps=1",
        ],
    )
    session = Session(directory.create(config), config)

    def is_broken() -> bool:
        return session.progress.rollbacks == 0 and session.progress.step >= 3

    _break_losses(monkeypatch, is_broken, session)
    assert session.train() == "all 7 steps done"
    history = session.history()
    # Step 3 made the last update: what it left may be what makes the losses infinite.
    assert history.series["learning_rate"].steps == [1, 2, 3, 4, 5, 6, 7]
    assert history.series["learning_rate"].values == [0.01, 0.01] + 5 * [0.005]
    assert history.series["skipped"].values == 7 * [0.0]
    assert any("back to step-000002, learning rate halved" in line.text for line in history.log)
    aside = {path.name[:21] for path in session.run.checkpoints.glob("abandoned-*")}
    assert aside == {f"abandoned-step-{step:06d}" for step in (3, 4, 5)}
    assert session.task.shaped == 7
    assert session.progress.rollbacks == 1


def test_a_best_checkpoint_that_is_abandoned_is_best_no_more(
    config: RunConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = with_overrides(
        config,
        [
            "schedule.max_steps=7",
            "schedule.save_every=1",
            "schedule.eval_every=1",
            "schedule.keep_checkpoints=4",
        ],
    )
    session = Session(directory.create(config), config)
    # Step 1 is the best until step 3 is, and is deleted then; step 3 is abandoned.
    rewards = iter((0.1, 0.3, 0.2, 0.4, 0.05, 0.06, 0.07, 0.08, 0.09, 0.1, 0.11))
    validate = validation.validate
    monkeypatch.setattr(
        validation,
        "validate",
        lambda *args: {**validate(*args), "reward/total": next(rewards)},
    )

    def is_broken() -> bool:
        return session.progress.rollbacks == 0 and session.progress.step >= 3

    _break_losses(monkeypatch, is_broken, session)
    assert session.train() == "all 7 steps done"
    assert session.progress.rollbacks == 1
    assert session.progress.best_name in checkpoint_names.names(session.run)
    assert checkpoint_names.best(session.run) == session.progress.best_name


def test_a_run_that_went_back_twice_in_vain_pauses(
    config: RunConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = with_overrides(config, ["schedule.max_steps=9", "schedule.save_every=1"])
    session = Session(directory.create(config), config)
    _break_losses(monkeypatch, lambda: session.progress.step >= 3, session)
    assert session.train() == "stopped by command"
    assert session.progress.step == 6
    assert session.progress.rollbacks == 2
    states = [line for line in session.history().log if line.text.startswith("paused: loss or")]
    assert [line.level for line in states] == ["warning"]


def test_a_kl_above_the_alarm_in_five_steps_in_a_row_pauses_the_run(
    config: RunConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The tiny policy's adapter differs from its reference from the start.
    config = with_overrides(config, ["objective.kl_alarm=1e-9", "schedule.max_steps=9"])
    session = Session(directory.create(config), config)
    _break_losses(monkeypatch, lambda: False, session)
    assert session.train() == "stopped by command"
    assert session.progress.step == 5
    (said,) = [line for line in session.history().log if line.text.startswith("paused: KL was")]
    assert said.level == "warning"
    assert "above 1e-09 nats a token in 5 steps in a row" in said.text


def test_a_single_step_with_a_low_kl_begins_the_count_anew() -> None:
    progress = Progress()
    course = [2.0] * 4 + [0.5] + [2.0] * 4 + [None] + [2.0] * 5 + [2.0] * 4
    found = [at for at, kl in enumerate(course) if loop._leaves(progress, kl, 1.0)]
    assert found == [14]


def _spoil(session: Session, monkeypatch: pytest.MonkeyPatch, *, what: str, times: int) -> None:
    """The third update, and so many after it, leave something that is not finite."""
    optimizer = session.training.optimizer
    update, count = optimizer.step, 0

    def step() -> None:
        nonlocal count
        update()
        count += 1
        if 3 <= count < 3 + times:
            parameter = optimizer.param_groups[0]["params"][0]
            spoilt = parameter if what == "weights" else optimizer.state[parameter]["exp_avg"]
            with torch.no_grad():
                spoilt.view(-1)[0] = math.nan

    monkeypatch.setattr(optimizer, "step", step)


def _is_finite(session: Session) -> bool:
    weights = adapter_weights(session.policy.model, POLICY).values()
    return all(bool(tensor.isfinite().all()) for tensor in weights)


@pytest.mark.parametrize("what", ["weights", "moments"])
def test_what_is_not_finite_after_an_update_is_never_saved_and_training_goes_back(
    what: str, config: RunConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = with_overrides(config, ["schedule.save_every=1", "schedule.keep_checkpoints=9"])
    session = Session(directory.create(config), config)
    _spoil(session, monkeypatch, what=what, times=1)
    assert session.train() == "all 4 steps done"
    assert _is_finite(session)
    history = session.history()
    assert history.series["learning_rate"].steps == [1, 2, 3, 4]
    assert any("not finite" in line.text and "back to" in line.text for line in history.log)
    assert session.progress.rollbacks == 1
    for name in checkpoints.names(session.run):
        for tensor in load_file(session.run.checkpoints / name / ADAPTER).values():
            assert tensor.isfinite().all()


def test_weights_that_are_never_finite_pause_the_run_with_those_of_a_checkpoint(
    config: RunConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = with_overrides(config, ["schedule.save_every=1"])
    session = Session(directory.create(config), config)
    _spoil(session, monkeypatch, what="weights", times=99)
    _break_losses(monkeypatch, lambda: False, session)
    assert session.train() == "stopped by command"
    assert session.progress.rollbacks == 2
    assert _is_finite(session)
    (said,) = [line for line in session.history().log if line.text.startswith("paused: the adapt")]
    assert "set a lower learning_rate and resume, or stop the run" in said.text


def test_logits_that_are_not_finite_once_cost_some_steps_and_not_the_run(
    config: RunConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = with_overrides(config, ["schedule.save_every=1", "schedule.keep_checkpoints=9"])
    session = Session(directory.create(config), config)
    draw, spoilt = sampling.draw, False

    def drawn(logits: torch.Tensor, *rest: Any) -> Any:
        nonlocal spoilt
        if session.progress.step == 2 and not spoilt:
            spoilt = True
            logits = logits * math.nan
        return draw(logits, *rest)

    monkeypatch.setattr(sampling, "draw", drawn)
    assert session.train() == "all 4 steps done"
    texts = [line.text for line in session.history().log]
    assert "the model's logits were not finite: back to step-000001, learning rate halved" in texts
    assert session.task.shaped == 4


def test_one_skipped_step_in_twenty_is_too_many_too() -> None:
    progress = Progress()
    found = []
    for step in range(1, 401):
        progress.step = step
        # Every 25th for 200 steps: eight; then every 20th.
        skipped = step % 25 == 0 if step <= 200 else step % 20 == 0
        if loop._diverges(progress, skipped=skipped):
            found.append(step)
    # Of steps 121 to 320: four up to 200 and six after it.
    assert found[0] == 320
    assert len(progress.skipped_at) == 10


@pytest.mark.parametrize("broken", ["ratio", "divergence", "loss", "gradient"])
def test_whatever_is_not_finite_the_step_is_skipped(
    broken: str, config: RunConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    policy = _policy(config)
    rollouts = _group(policy, [1.0, 0.0, 0.5, 0.5])
    advantages, _ = steps.advantages_of(rollouts)
    reference = policy.reference_logprobs([rollout.tokens for rollout in rollouts])
    score, loss = policy.logprobs, steps.grpo_loss

    def logprobs(groups: Any) -> Any:
        found, entropies = score(groups)
        if broken == "ratio":
            found = found + torch.full_like(found, math.nan)
        if broken == "gradient":
            found.register_hook(lambda gradient: gradient * math.inf)
        return found, entropies

    def infinite(*args: Any, **kwargs: Any) -> Loss:
        found = loss(*args, **kwargs)
        return dataclasses.replace(found, value=found.value + math.inf)

    monkeypatch.setattr(policy, "logprobs", logprobs)
    if broken == "divergence":
        reference[0][1, 0] = math.nan
    if broken == "loss":
        monkeypatch.setattr(steps, "grpo_loss", infinite)
    before = _copy(policy)
    optimizer = make_optimizer(policy, config)
    metrics = steps.update(
        policy, optimizer, config, rollouts, advantages, reference, learning_rate=0.01
    )
    assert metrics["skipped"] == 1
    after = adapter_weights(policy.model, POLICY)
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert len(optimizer.state) == 0


def test_rollouts_are_stored_with_prompt_components_and_advantage(config: RunConfig) -> None:
    session = Session(directory.create(config), config)
    session.train()
    reader = StoreReader(session.run.database)
    group = reader.group(step=1, group=0)
    reader.close()
    assert len(group) == 4
    assert "Write vowels, please" in group[0].prompt
    assert group[0].subject == session.task.training_item(0).subject
    mean = sum(rollout.reward for rollout in group) / 4
    for rollout in group:
        assert rollout.advantage == pytest.approx(rollout.reward - mean, abs=1e-6)
        assert rollout.components[0]["name"] == "vowels"
    state = json.loads((session.run.checkpoints / "step-000004/train/state.json").read_text())
    assert state["step"] == 4


@pytest.mark.parametrize(
    ("phase", "after"), [("rollout", 3), ("reference", 0), ("train", 1), ("validation", 2)]
)
def test_a_worker_that_is_told_to_end_leaves_its_step_and_a_resume_takes_it_anew(
    phase: str, after: int, config: RunConfig
) -> None:
    # Two updates on each block: the second is left when the first is done.
    config = with_overrides(config, ["schedule.save_every=9", "objective.iterations=2"])
    whole = Session(directory.create(config), config)
    whole.train()

    run = directory.create(config)
    first = Session(run, config)
    beat, beats = first.policy.beat, 0

    def beating() -> None:
        nonlocal beats
        # The second step, and the validation after it.
        if first.progress.step == (2 if phase == "validation" else 1):
            beats += first.training.heartbeat.sign.phase == phase
            if beats > after:
                first.training.heartbeat.interrupt("the worker was told to end")
        beat()

    first.policy.beat = beating
    assert first.train() == "the worker was told to end"
    assert first.progress.step == (2 if phase == "validation" else 1)
    second = Session(run, config).resume()
    second.train()
    expected = adapter_weights(whole.policy.model, POLICY)
    found = adapter_weights(second.policy.model, POLICY)
    assert all(torch.equal(expected[name], found[name]) for name in expected)
    assert second.task.shaped == whole.task.shaped
    for metric in ("reward/total", "validation/reward/total"):
        assert second.history().series[metric] == whole.history().series[metric]
    assert second.progress.best_name == whole.progress.best_name
    assert second.history().best == whole.history().best

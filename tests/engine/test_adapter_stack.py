"""Stage II's stack of adapters: who acts, who learns, and the one adapter that it is worth."""

import queue
from pathlib import Path
from typing import Any

import peft
import pytest
import torch
from safetensors.torch import load_file, save_file

from engine.config import LoraSection, RolloutConfig, RunConfig
from engine.errors import RunFailedError, UserError
from engine.policy import attention
from engine.policy.adapters import (
    POLICY,
    STAGE1,
    StoredAdapter,
    adapter_weights,
    add_adapters,
    base_policy,
    put_adapter,
    read_adapter,
    reference_policy,
    trainable_parameters,
)
from engine.policy.packing import TokenGroup
from engine.policy.policy import Policy
from engine.policy.stack import concatenated
from engine.runs import directory
from engine.runs.checkpoint_names import ADAPTER, PROMOTED
from engine.runs.control import Command
from engine.runs.directory import RunDirectory
from engine.runs.stage1 import AdapterFacts
from engine.runs.status import read_history
from engine.runs.store import EventStore
from engine.training import checkpoints, loop
from engine.training.control import Control
from engine.training.training import Training, make_optimizer
from tests.tiny import (
    VowelTask,
    save_whole_policy,
    tiny_base,
    tiny_config,
    tiny_policy,
    tiny_tokenizer,
)

IDS = torch.tensor([[256, 1, 2, 3, 40, 41]])
GROUPS = [
    TokenGroup([256, 5, 6, 7, 8], [[9, 10, 257], [11], [12, 13, 14, 15, 257]]),
    TokenGroup([256, 40, 41], [[42, 43], [44, 45, 46, 257], [47]]),
]


def save_stage1(folder: Path, *, seed: int = 0) -> Path:
    """The adapter of a tiny Stage I policy, as its checkpoint holds it."""
    folder.mkdir()
    save_whole_policy(tiny_policy(seed=seed).model, folder)
    return folder


def stacked(stage1: Path | None, *, dropout: float = 0.0, trained: bool = False) -> Policy:
    """A Stage II policy of another rank, scale and layers than the Stage I under it."""
    base = tiny_base()
    base.set_attn_implementation(attention.NAME)
    section = LoraSection(r=2, alpha=7, dropout=dropout, targets="all-linear")
    model = add_adapters(base, section, 3, read_adapter(stage1) if stage1 else None)
    if trained:
        generator = torch.Generator().manual_seed(5)
        for parameter in trainable_parameters(model).values():
            parameter.data = 0.1 * torch.randn(parameter.shape, generator=generator)
    rollout = RolloutConfig(group_size=4, max_new_tokens=12, context=512)
    return Policy(model, tiny_tokenizer(), frozenset({257}), rollout, micro_batch_tokens=4096)


@pytest.fixture
def stage1(tmp_path: Path) -> Path:
    return save_stage1(tmp_path / "stage1")


def logits(policy: Policy) -> torch.Tensor:
    with torch.no_grad():
        result: torch.Tensor = policy.causal_model(input_ids=IDS).logits
    return result


def grads(model: peft.PeftModel) -> set[str]:
    return {name for name, parameter in model.named_parameters() if parameter.requires_grad}


def test_the_stack_begins_as_stage_1_exactly(stage1: Path) -> None:
    before = tiny_policy()
    policy = stacked(stage1)
    assert torch.equal(logits(policy), logits(before))
    assert not torch.equal(logits(policy), tiny_base()(input_ids=IDS).logits)


def test_the_reference_of_a_trained_stack_is_stage_1_and_the_base_is_the_base(
    stage1: Path,
) -> None:
    policy = stacked(stage1, trained=True)
    trained = logits(policy)
    with reference_policy(policy.model):
        assert torch.equal(logits(policy), logits(tiny_policy()))
    with base_policy(policy.model):
        assert torch.equal(logits(policy), tiny_base()(input_ids=IDS).logits)
    assert torch.equal(logits(policy), trained)
    assert not torch.allclose(trained, logits(tiny_policy()))


def test_divergence_from_the_reference_is_exactly_zero_before_the_first_step(
    stage1: Path,
) -> None:
    policy = stacked(stage1, dropout=0.5)
    ours, _ = policy.logprobs(GROUPS)
    reference = policy.reference_logprobs(GROUPS)
    for row, expected in zip(ours.detach().split(3), reference, strict=True):
        assert torch.equal(row[:, : expected.shape[1]], expected)


def test_only_the_new_adapter_ever_has_gradients(stage1: Path) -> None:
    model = stacked(stage1, trained=True).model
    expected = grads(model)
    assert expected
    assert all(f".{POLICY}." in name for name in expected)
    for switch in (reference_policy, base_policy):
        with switch(model):
            assert grads(model) == set()
        assert grads(model) == expected


@pytest.mark.parametrize("is_stack", [False, True])
def test_switches_inside_one_another_put_back_what_they_found(stage1: Path, is_stack: bool) -> None:
    policy = stacked(stage1, trained=True) if is_stack else tiny_policy()
    reference = logits(tiny_policy() if is_stack else stacked(None))
    trained, expected = logits(policy), grads(policy.model)
    with base_policy(policy.model):
        bare = logits(policy)
        with reference_policy(policy.model):
            pass
        assert torch.equal(logits(policy), bare)
    with reference_policy(policy.model):
        with base_policy(policy.model):
            assert torch.equal(logits(policy), bare)
        assert torch.equal(logits(policy), reference)
        assert grads(policy.model) == set()
    with pytest.raises(KeyboardInterrupt), base_policy(policy.model):
        raise KeyboardInterrupt
    assert torch.equal(logits(policy), trained)
    assert grads(policy.model) == expected


def test_training_the_stack_leaves_every_bit_of_stage_1_alone(stage1: Path) -> None:
    policy = stacked(stage1)
    before = adapter_weights(policy.model, STAGE1)
    start = logits(policy)
    optimizer = torch.optim.AdamW(trainable_parameters(policy.model).values(), lr=0.01)
    for _ in range(3):
        with reference_policy(policy.model):
            pass
        policy.model.train()
        torch.autograd.backward(-policy.logprobs(GROUPS)[0].sum())
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
    policy.model.eval()
    after = adapter_weights(policy.model, STAGE1)
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert not torch.allclose(logits(policy), start)
    stored = load_file(stage1 / ADAPTER)
    assert all(torch.equal(after[name], stored[name]) for name in stored)


def test_dropout_is_off_in_frozen_adapters(stage1: Path) -> None:
    policy = stacked(stage1, dropout=0.5)
    calm = logits(policy)
    policy.model.train()  # the new adapter is still zero, so its own dropout cannot show
    assert torch.equal(logits(policy), calm)


def test_the_saved_stack_is_one_plain_adapter_of_the_summed_rank(
    stage1: Path, tmp_path: Path
) -> None:
    policy = stacked(stage1, trained=True)
    (tmp_path / "whole").mkdir()
    save_whole_policy(policy.model, tmp_path / "whole")
    loaded = peft.PeftModel.from_pretrained(tiny_base(), tmp_path / "whole").eval()
    assert loaded.peft_config["default"].r == 4 + 2
    with torch.no_grad():
        theirs = torch.log_softmax(loaded(input_ids=IDS).logits, -1)
    ours = torch.log_softmax(logits(policy), -1)
    assert torch.allclose(theirs, ours, atol=1e-5)
    assert not torch.allclose(torch.log_softmax(logits(tiny_policy()), -1), ours, atol=1e-2)


def test_the_saved_stack_can_be_a_stage_1_itself(stage1: Path, tmp_path: Path) -> None:
    policy = stacked(stage1, trained=True)
    (tmp_path / "whole").mkdir()
    save_whole_policy(policy.model, tmp_path / "whole")
    again = stacked(tmp_path / "whole")
    assert torch.allclose(logits(again), logits(policy), atol=1e-5)


def test_concatenation_folds_each_scale_into_its_own_half() -> None:
    down1, up1 = torch.tensor([[1.0, 2.0]]), torch.tensor([[3.0], [4.0]])
    down2, up2 = torch.tensor([[0.0, 1.0]]), torch.tensor([[5.0], [0.0]])
    whole = concatenated(
        [
            (2.0, {"a.q.lora_A.weight": down1, "a.q.lora_B.weight": up1}),
            (0.5, {"a.q.lora_A.weight": down2, "a.q.lora_B.weight": up2}),
        ]
    )
    # 2 · [[3, 6], [4, 8]] + 0.5 · [[0, 5], [0, 0]]
    product = whole["a.q.lora_B.weight"] @ whole["a.q.lora_A.weight"]
    assert product.tolist() == [[6.0, 14.5], [8.0, 16.0]]


def test_a_layer_that_one_adapter_leaves_alone_is_the_others() -> None:
    down, up = torch.tensor([[1.0, 2.0]]), torch.tensor([[3.0], [4.0]])
    one = {"a.q.lora_A.weight": down, "a.q.lora_B.weight": up}
    other = {"a.v.lora_A.weight": down, "a.v.lora_B.weight": 2 * up}
    whole = concatenated([(1.0, one), (3.0, other)])
    assert (whole["a.q.lora_B.weight"] @ whole["a.q.lora_A.weight"]).tolist() == [[3, 6], [4, 8]]
    assert (whole["a.v.lora_B.weight"] @ whole["a.v.lora_A.weight"]).tolist() == [
        [18, 36],
        [24, 48],
    ]
    assert {tuple(tensor.shape) for tensor in whole.values()} == {(2, 2)}


def test_an_adapter_in_16_bits_becomes_fp32(stage1: Path) -> None:
    weights = {name: t.to(torch.bfloat16) for name, t in load_file(stage1 / ADAPTER).items()}
    save_file(weights, stage1 / ADAPTER)
    model = stacked(stage1).model
    assert {tensor.dtype for tensor in adapter_weights(model, STAGE1).values()} == {torch.float32}


@pytest.mark.parametrize("put", [put_adapter, lambda base, a: add_adapters(base, _SECTION, 0, a)])
def test_an_adapter_of_another_model_is_refused_in_one_line(put: Any) -> None:
    facts = AdapterFacts(2, 4.0, ("q_proj",), "other")
    name = "base_model.model.model.layers.0.self_attn.q_proj.lora_{}.weight"
    weights = {name.format("A"): torch.zeros(2, 99), name.format("B"): torch.zeros(99, 2)}
    with pytest.raises(UserError, match="does not fit this base model"):
        put(tiny_base(), StoredAdapter(facts, weights))


_SECTION = LoraSection(r=2, alpha=4)


# --- a run


class Session:
    """A Stage II run in training, made anew as a worker would."""

    def __init__(self, run: RunDirectory, config: RunConfig, stage1: Path) -> None:
        self.run = run
        self.policy = stacked(stage1)
        self.policy.rollout = config.rollout
        self.store = EventStore(run.database)
        self.commands: queue.Queue[Command] = queue.Queue()
        self.training = Training(
            run=run,
            config=config,
            task=VowelTask(),
            policy=self.policy,
            optimizer=make_optimizer(self.policy, config),
            generator=torch.Generator().manual_seed(config.seed),
            store=self.store,
        )

    def resume(self) -> "Session":
        name = checkpoints.newest(self.run)
        assert name is not None
        self.training.resume(name)
        self.store.supersede_after(self.training.progress.step)
        self.store.event("resumed", {"from_step": self.training.progress.step})
        return self

    def train(self) -> "Session":
        try:
            loop.train(self.training, Control(self.commands, self.store))
        finally:
            self.store.close()
        return self


@pytest.fixture
def config(tmp_path: Path) -> RunConfig:
    return tiny_config(
        tmp_path,
        rollout={"prompts_per_step": 2, "group_size": 4, "max_new_tokens": 8, "context": 512},
        optimizer={"learning_rate": 0.01},
        objective={"kl_coefficient": 0.05},
        schedule={"max_steps": 5, "save_every": 2, "eval_every": 5},
    )


def test_a_stage_2_run_starts_at_divergence_zero_and_moves_only_its_own_adapter(
    config: RunConfig, stage1: Path
) -> None:
    session = Session(directory.create(config), config, stage1).train()
    divergence = read_history(session.run).series["kl"]
    assert divergence.values[0] == 0
    assert divergence.values[-1] > 0
    stored = load_file(stage1 / ADAPTER)
    after = adapter_weights(session.policy.model, STAGE1)
    assert all(torch.equal(after[name], stored[name]) for name in stored)
    fresh = adapter_weights(stacked(stage1).model, POLICY)
    own = adapter_weights(session.policy.model, POLICY)
    assert not any(torch.equal(own[name], fresh[name]) for name in own if "lora_B" in name)


def test_the_root_of_a_stage_2_checkpoint_gives_the_stacks_logprobs_with_plain_peft(
    config: RunConfig, stage1: Path
) -> None:
    session = Session(directory.create(config), config, stage1).train()
    folder = session.run.checkpoints / "step-000005"
    loaded = peft.PeftModel.from_pretrained(tiny_base(), folder).eval()
    with torch.no_grad():
        theirs = torch.log_softmax(loaded(input_ids=IDS).logits, -1)
    ours = torch.log_softmax(logits(session.policy), -1)
    assert torch.allclose(theirs, ours, atol=1e-5)
    assert not torch.allclose(theirs, torch.log_softmax(logits(tiny_policy()), -1), atol=1e-3)


def test_a_resumed_stage_2_run_takes_the_very_steps_that_an_uninterrupted_one_takes(
    config: RunConfig, stage1: Path
) -> None:
    whole = Session(directory.create(config), config, stage1).train()
    run = directory.create(config)
    first = Session(run, config, stage1)
    assess = first.training.task.assess
    calls = 0

    def stopping(*args: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == 4 + 4 + 2 * 8 + 1:  # two validations of step 0 and two steps came before
            first.commands.put(Command("s", "stop"))
        return assess(*args)

    first.training.task.assess = stopping  # type: ignore[method-assign]
    assert first.train().training.progress.step == 3
    second = Session(run, config, stage1).resume().train()
    expected = adapter_weights(whole.policy.model, POLICY)
    resumed = adapter_weights(second.policy.model, POLICY)
    assert all(torch.equal(expected[name], resumed[name]) for name in expected)
    assert read_history(whole.run).series["kl"] == read_history(run).series["kl"]


def test_a_checkpoint_of_one_stage_does_not_fit_the_other(config: RunConfig, stage1: Path) -> None:
    run = Session(directory.create(config), config, stage1).train().run
    policy = tiny_policy()
    with pytest.raises(RunFailedError, match="does not fit the run"):
        checkpoints.load(run, "step-000005", policy, make_optimizer(policy, config))


def test_rotation_keeps_a_promoted_checkpoint(config: RunConfig, stage1: Path) -> None:
    run = Session(directory.create(config), config, stage1).train().run
    names = checkpoints.names(run)
    (run.checkpoints / names[0] / PROMOTED).write_text("a-run\n")
    assert checkpoints.rotate(run, 1, None) == names[1:-1]
    assert checkpoints.names(run) == [names[0], names[-1]]

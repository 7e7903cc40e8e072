"""Packing, log-probabilities and adapters against transformers' own plain paths."""

import dataclasses

import peft
import pytest
import torch

from engine.policy.adapters import (
    POLICY,
    adapter_weights,
    freeze_reference,
    reference_policy,
    trainable_parameters,
)
from engine.policy.packing import Part, TokenGroup, micro_batches, pack, split
from tests.tiny import tiny_base, tiny_policy

FAMILIES = ["llama", "qwen2", "qwen3"]
_GROUPS = [
    TokenGroup([256, 5, 6, 7, 8], [[9, 10, 257], [11], [12, 13, 14, 15, 257]]),
    TokenGroup([256, 40, 41], [[42, 43], [44, 45, 46, 257], [47]]),
]


def _one_row_each(policy, groups, temperature=1.0):
    """The naive path: every completion in a row of its own, full logits."""
    rows = []
    for group in groups:
        for completion in group.completions:
            ids = torch.tensor([[*group.prompt, *completion]])
            logits = policy.causal_model(input_ids=ids).logits[0, len(group.prompt) - 1 : -1]
            distribution = torch.log_softmax(logits / temperature, dim=-1)
            chosen = distribution.gather(-1, torch.tensor(completion)[:, None]).squeeze(-1)
            rows.append((chosen, -(distribution.exp() * distribution).sum(-1)))
    return rows


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_packed_groups_give_the_logprobs_of_one_row_each(family: str, temperature: float) -> None:
    policy = tiny_policy(family, temperature=temperature)
    logprobs, entropies = policy.logprobs(_GROUPS)
    for index, (expected, entropy) in enumerate(_one_row_each(policy, _GROUPS, temperature)):
        length = len(expected)
        assert torch.allclose(logprobs[index, :length], expected, atol=1e-5)
        assert torch.allclose(entropies[index, :length], entropy, atol=1e-5)
        assert logprobs[index, length:].abs().sum() == 0


@pytest.mark.parametrize("family", FAMILIES)
def test_packed_groups_give_the_gradients_of_one_row_each(family: str) -> None:
    policy = tiny_policy(family)
    parameters = trainable_parameters(policy.model)
    policy.logprobs(_GROUPS)[0].sum().backward()
    packed = {name: p.grad.clone() for name, p in parameters.items()}
    for parameter in parameters.values():
        parameter.grad = None
    sum(row[0].sum() for row in _one_row_each(policy, _GROUPS)).backward()
    for name, parameter in parameters.items():
        scale = parameter.grad.abs().max().item()
        assert torch.allclose(packed[name], parameter.grad, atol=1e-5 * max(1.0, scale)), name


def test_a_completion_sees_its_prompt_and_itself_and_nothing_else() -> None:
    batch = pack([TokenGroup([1, 2], [[3, 4], [5]])], pad_id=0, device=torch.device("cpu"))
    assert batch.position_ids.tolist() == [[0, 1, 2, 3, 2]]
    assert batch.mask[0, 0].int().tolist() == [
        [1, 0, 0, 0, 0],
        [1, 1, 0, 0, 0],
        [1, 1, 1, 0, 0],
        [1, 1, 1, 1, 0],
        [1, 1, 0, 0, 1],
    ]
    assert batch.predictors.tolist() == [[1, 2], [1, 0]]
    assert batch.targets.tolist() == [[3, 4], [5, 0]]


def test_a_pass_that_lets_completions_see_each_other_gives_other_logprobs(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    policy = tiny_policy()
    right, _ = policy.logprobs(_GROUPS)
    batch = pack(_GROUPS, policy.pad_id, torch.device("cpu"))
    leaky = [
        [piece._replace(shared=piece.start) if piece.shared else piece for piece in row]
        for row in batch.pieces
    ]
    monkeypatch.setattr(
        "engine.policy.policy.pack", lambda *_: dataclasses.replace(batch, pieces=leaky)
    )
    wrong, _ = policy.logprobs(_GROUPS)
    assert torch.allclose(wrong[0], right[0], atol=1e-6)
    assert not torch.allclose(wrong[2], right[2], atol=1e-2)


def test_micro_batches_hold_every_row_once_and_stay_in_the_budget() -> None:
    sizes = [10, 90, 30, 50, 200]
    batches = list(micro_batches(sizes, token_budget=120))
    assert sorted(index for batch in batches for index in batch) == [0, 1, 2, 3, 4]
    for batch in batches:
        padded = len(batch) * max(sizes[index] for index in batch)
        assert padded <= 120 or len(batch) == 1


def test_a_group_that_is_longer_than_the_budget_goes_in_parts() -> None:
    groups = [TokenGroup([0] * 5, [[1] * 3, [2], [3] * 5]), TokenGroup([0] * 2, [[1], [2] * 3])]
    assert split(groups, 14) == [Part(0, 0, 3), Part(1, 0, 2)]
    assert split(groups, 9) == [Part(0, 0, 2), Part(0, 2, 3), Part(1, 0, 2)]
    # One completion is the least, however long it is.
    assert split(groups, 1) == [Part(0, 0, 1), Part(0, 1, 2), Part(0, 2, 3), *split(groups, 3)[3:]]
    assert Part(0, 1, 3).of(groups) == TokenGroup([0] * 5, [[2], [3] * 5])


@pytest.mark.parametrize("family", FAMILIES)
def test_groups_in_parts_give_the_logprobs_and_gradients_of_whole_ones(family: str) -> None:
    policy = tiny_policy(family)
    parameters = trainable_parameters(policy.model)
    whole, _ = policy.logprobs(_GROUPS)
    whole.pow(2).sum().backward()
    expected = {name: p.grad.clone() for name, p in parameters.items()}
    policy.model.zero_grad(set_to_none=True)
    reference = policy.reference_logprobs(_GROUPS)

    policy.micro_batch_tokens = 9
    batches = policy.micro_batches(_GROUPS)
    assert sorted(part for batch in batches for part in batch) == [
        Part(0, 0, 2), Part(0, 2, 3), Part(1, 0, 2), Part(1, 2, 3),
    ]  # fmt: skip
    for parts in batches:
        logprobs, _ = policy.logprobs([part.of(_GROUPS) for part in parts])
        logprobs.pow(2).sum().backward()
        rows = logprobs.split([part.stop - part.start for part in parts])
        for part, of_part in zip(parts, rows, strict=True):
            own = whole.split([3, 3])[part.group][part.rows]
            assert torch.allclose(own[:, : of_part.shape[1]], of_part, atol=1e-5)
    for name, parameter in parameters.items():
        scale = expected[name].abs().max().item()
        assert torch.allclose(parameter.grad, expected[name], atol=1e-5 * max(1.0, scale)), name
    for ours, theirs in zip(policy.reference_logprobs(_GROUPS), reference, strict=True):
        assert torch.allclose(ours, theirs, atol=1e-5)


def test_reference_policy_is_the_frozen_copy_and_only_the_policy_has_gradients() -> None:
    policy = tiny_policy()
    before = policy.logprobs(_GROUPS)[0].detach()
    freeze_reference(policy.model)
    policy_names = set(trainable_parameters(policy.model))
    for parameter in trainable_parameters(policy.model).values():
        parameter.data += 0.05
    reference = torch.cat(
        [
            torch.nn.functional.pad(rows, (0, before.shape[1] - rows.shape[1]))
            for rows in policy.reference_logprobs(_GROUPS)
        ]
    )
    assert torch.equal(reference, before)
    assert not torch.allclose(policy.logprobs(_GROUPS)[0], before)
    assert set(trainable_parameters(policy.model)) == policy_names
    assert all(".default." in name for name in policy_names)


def test_a_fresh_adapter_is_the_base_model_exactly() -> None:
    base = tiny_base()
    ids = torch.tensor([[256, 1, 2, 3]])
    plain = base(input_ids=ids).logits
    policy = tiny_policy()
    with reference_policy(policy.model):
        assert torch.equal(policy.causal_model(input_ids=ids).logits, plain)


def test_adapter_is_fp32_on_a_16_bit_base() -> None:
    from engine.config import LoraSection
    from engine.policy.adapters import add_adapters

    model = add_adapters(tiny_base().to(torch.bfloat16), LoraSection(r=4), seed=0)
    assert {p.dtype for p in trainable_parameters(model).values()} == {torch.float32}


def test_saved_adapter_loads_with_plain_peft_and_gives_the_same_logprobs(tmp_path) -> None:
    policy = tiny_policy()
    policy.model.save_pretrained(tmp_path, selected_adapters=[POLICY])
    loaded = peft.PeftModel.from_pretrained(tiny_base(), tmp_path).eval()
    ids = torch.tensor([[256, 1, 2, 3]])
    ours = policy.causal_model(input_ids=ids).logits
    assert torch.allclose(loaded(input_ids=ids).logits, ours, atol=1e-5)
    assert adapter_weights(policy.model, POLICY).keys() == (
        peft.get_peft_model_state_dict(loaded).keys()
    )

"""Rollout, packing and log-probabilities against transformers' own plain paths."""

import math
from collections import Counter

import peft
import pytest
import torch
from transformers import DynamicCache

from engine.policy import attention
from engine.policy.adapters import (
    POLICY,
    adapter_weights,
    freeze_reference,
    reference_policy,
    trainable_parameters,
)
from engine.policy.logprobs import token_logprobs
from engine.policy.packing import TokenGroup, micro_batches, pack
from engine.policy.rollout import sample_groups
from tests.tiny import tiny_base, tiny_policy

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
            rows.append(token_logprobs(logits, torch.tensor(completion), temperature))
    return rows


@pytest.mark.parametrize("family", ["llama", "qwen2"])
@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_packed_groups_give_the_logprobs_of_one_row_each(family: str, temperature: float) -> None:
    policy = tiny_policy(family, temperature=temperature)
    logprobs, entropies = policy.logprobs(_GROUPS)
    for index, (expected, entropy) in enumerate(_one_row_each(policy, _GROUPS, temperature)):
        length = len(expected)
        assert torch.allclose(logprobs[index, :length], expected, atol=1e-5)
        assert torch.allclose(entropies[index, :length], entropy, atol=1e-5)
        assert logprobs[index, length:].abs().sum() == 0


@pytest.mark.parametrize("family", ["llama", "qwen2"])
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


def test_micro_batches_hold_every_row_once_and_stay_in_the_budget() -> None:
    sizes = [10, 90, 30, 50, 200]
    batches = list(micro_batches(sizes, token_budget=120))
    assert sorted(index for batch in batches for index in batch) == [0, 1, 2, 3, 4]
    for batch in batches:
        padded = len(batch) * max(sizes[index] for index in batch)
        assert padded <= 120 or len(batch) == 1


def _sample(policy, prompts, group_size, max_new_tokens, seed, end_tokens=frozenset({257})):
    return sample_groups(
        policy.causal_model,
        prompts,
        group_size=group_size,
        max_new_tokens=max_new_tokens,
        temperature=1.0,
        end_tokens=end_tokens,
        pad_id=257,
        generator=torch.Generator().manual_seed(seed),
    )


def test_sampling_draws_the_same_tokens_as_generate_with_the_same_seed() -> None:
    policy = tiny_policy()
    prompt = [256, 72, 105, 33]
    (ours,) = _sample(policy, [prompt], group_size=4, max_new_tokens=10, seed=5, end_tokens=())
    torch.manual_seed(5)
    theirs = policy.causal_model.generate(
        torch.tensor([prompt]),
        attention_mask=torch.ones(1, 4, dtype=torch.long),
        do_sample=True,
        num_return_sequences=4,
        max_new_tokens=10,
        min_new_tokens=10,
        temperature=1.0,
        top_p=1.0,
        top_k=0,
        repetition_penalty=1.0,
        eos_token_id=None,
        pad_token_id=257,
    )
    assert [completion.tokens for completion in ours] == theirs[:, 4:].tolist()


def test_sampled_frequencies_follow_the_models_own_distribution() -> None:
    policy = tiny_policy()
    # A generation config like that of real chat models must not change the draw.
    policy.causal_model.generation_config.top_k = 2
    policy.causal_model.generation_config.repetition_penalty = 1.5
    prompt = [256, 72, 105]
    with torch.no_grad():
        logits = policy.causal_model(input_ids=torch.tensor([prompt])).logits[0, -1]
    expected = torch.softmax(logits, -1)
    num_draws = 4000
    (group,) = _sample(policy, [prompt], group_size=num_draws, max_new_tokens=1, seed=1)
    counts = Counter(completion.tokens[0] for completion in group)
    assert len(counts) > 10
    for token in expected.topk(5).indices.tolist():
        share = expected[token].item()
        error = math.sqrt(share * (1 - share) / num_draws)
        assert counts[token] / num_draws == pytest.approx(share, abs=4.5 * error)


def test_logprobs_kept_while_sampling_match_a_fresh_forward_pass() -> None:
    policy = tiny_policy()
    # Prompts of different lengths: padding and early ends must not change anything.
    prompts = [[256, 72, 105, 33, 34, 35], [256, 80]]
    often = frozenset(range(60))
    groups = _sample(policy, prompts, group_size=6, max_new_tokens=12, seed=2, end_tokens=often)
    assert len({len(completion.tokens) for group in groups for completion in group}) > 3
    packed = [
        TokenGroup(p, [c.tokens for c in group]) for p, group in zip(prompts, groups, strict=True)
    ]
    fresh, _ = policy.logprobs(packed)
    for row, completion in enumerate(c for group in groups for c in group):
        sampled = torch.tensor(completion.logprobs)
        assert torch.allclose(fresh[row, : len(sampled)], sampled, atol=1e-4)


def test_finished_completions_end_with_an_end_token_and_cut_ones_do_not() -> None:
    policy = tiny_policy()
    groups = _sample(policy, [[256, 72]], group_size=64, max_new_tokens=12, seed=4)
    assert {c.finished for c in groups[0]} == {True, False}
    for completion in groups[0]:
        assert (completion.tokens[-1] == 257) == completion.finished
        assert 257 not in completion.tokens[:-1]
        assert completion.finished or len(completion.tokens) == 12


def test_sampling_is_deterministic_under_a_seed() -> None:
    policy = tiny_policy()
    first = _sample(policy, [[256, 72], [256, 73, 74]], 4, 8, seed=9)
    again = _sample(policy, [[256, 72], [256, 73, 74]], 4, 8, seed=9)
    other = _sample(policy, [[256, 72], [256, 73, 74]], 4, 8, seed=10)
    assert first == again
    assert first != other


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
    assert torch.equal(loaded(input_ids=ids).logits, policy.causal_model(input_ids=ids).logits)
    assert adapter_weights(policy.model, POLICY).keys() == (
        peft.get_peft_model_state_dict(loaded).keys()
    )


@pytest.mark.parametrize("family", ["llama", "qwen2"])
def test_decoding_attention_gives_the_logits_of_the_plain_one(family: str) -> None:
    plain = tiny_base(family)
    ours = tiny_base(family)
    ours.set_attn_implementation(attention.NAME)
    # The second row is left-padded by two.
    ids = torch.tensor([[256, 72, 105, 33], [257, 257, 80, 81]])
    mask = torch.tensor([[1, 1, 1, 1], [0, 0, 1, 1]])
    logits = []
    for model in (plain, ours):
        cache = DynamicCache(config=model.config)
        model(input_ids=ids, attention_mask=mask, past_key_values=cache, use_cache=True)
        longer = torch.cat([mask, mask.new_ones(2, 1)], dim=1)
        logits.append(
            model(
                input_ids=torch.tensor([[40], [41]]),
                attention_mask=longer,
                position_ids=longer.sum(1, keepdim=True) - 1,
                past_key_values=cache,
            ).logits
        )
    assert torch.allclose(logits[0], logits[1], atol=1e-5)

"""Rollout: tokens, log-probabilities and distribution against transformers' own paths."""

import math
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from peft.tuners.lora import LoraLayer
from transformers import GenerationConfig, Qwen2Config, Qwen2ForCausalLM

from engine.config import LoraSection, ModelConfig
from engine.errors import NotFiniteError, UserError
from engine.policy import attention
from engine.policy.adapters import base_policy
from engine.policy.base_model import load_base_model
from engine.policy.draw import draw
from engine.policy.packing import TokenGroup
from engine.policy.rollout import sample_groups
from tests.tiny import policy_on, save_tiny_model, tiny_base, tiny_policy

FAMILIES = ["llama", "qwen2", "qwen3"]
_PROMPTS = [[256, 72, 105, 33], [256, 80], [256, *range(20, 39)]]


def _greedily(model, prompts, max_new_tokens, end_tokens):
    """Our rollout at a temperature at which the likeliest token is certain."""
    return sample_groups(
        model,
        prompts,
        group_size=2,
        max_new_tokens=max_new_tokens,
        temperature=1e-6,
        end_tokens=end_tokens,
        pad_id=0,
        generator=torch.Generator().manual_seed(0),
    )


def _generate_greedily(model, prompt, max_new_tokens, end_tokens):
    output = model.generate(
        torch.tensor([prompt]),
        attention_mask=torch.ones(1, len(prompt), dtype=torch.long),
        do_sample=False,
        max_new_tokens=max_new_tokens,
        repetition_penalty=1.0,
        eos_token_id=sorted(end_tokens) or None,
        pad_token_id=0,
    )
    return output[0, len(prompt) :].tolist()


def _sample(
    policy, prompts, group_size, max_new_tokens, seed, end_tokens=frozenset({257}), temperature=1.0
):
    return sample_groups(
        policy.causal_model,
        prompts,
        group_size=group_size,
        max_new_tokens=max_new_tokens,
        temperature=temperature,
        end_tokens=end_tokens,
        pad_id=257,
        generator=torch.Generator().manual_seed(seed),
    )


@pytest.mark.parametrize("family", FAMILIES)
def test_greedy_rollout_is_that_of_generate_token_by_token(family: str) -> None:
    model = tiny_policy(family).causal_model
    # Completions end at different lengths, and the second prompt's before the others'.
    often = frozenset(range(0, 260, 9))
    groups = _greedily(model, _PROMPTS, 24, often)
    model.set_attn_implementation("sdpa")
    lengths = set()
    for prompt, group in zip(_PROMPTS, groups, strict=True):
        expected = _generate_greedily(model, prompt, 24, often)
        lengths.add(len(expected))
        assert [completion.tokens for completion in group] == [expected, expected]
    assert len(lengths) > 1


def test_greedy_rollout_of_the_real_model_with_an_adapter_is_that_of_generate(
    smollm2: Path,
) -> None:
    config = ModelConfig(id=str(smollm2), dtype="fp32")
    base, tokenizer = load_base_model(smollm2, config, torch.device("cpu"))
    policy = policy_on(base, LoraSection(r=4, alpha=8, dropout=0.0, targets="all-linear"))
    model = policy.causal_model
    prompts = [
        tokenizer(text).input_ids
        for text in (
            "The capital of France is",
            "Hello",
            "AAPL closed at 691.28 after two days of losses. Analysts said that",
        )
    ]
    groups = _greedily(model, prompts, 12, frozenset())
    model.set_attn_implementation("sdpa")
    for module in policy.model.modules():
        if isinstance(module, LoraLayer):
            del module.forward  # PEFT's own again
    for prompt, group in zip(prompts, groups, strict=True):
        expected = _generate_greedily(model, prompt, 12, frozenset())
        assert [completion.tokens for completion in group] == [expected, expected]
    with base_policy(policy.model):
        assert _generate_greedily(model, prompt, 12, frozenset()) != expected


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_logprobs_kept_while_sampling_are_those_of_a_padded_forward_pass(
    family: str, temperature: float
) -> None:
    model = tiny_policy(family).causal_model
    groups = sample_groups(
        model,
        _PROMPTS,
        group_size=5,
        max_new_tokens=12,
        temperature=temperature,
        end_tokens=frozenset(range(40)),
        pad_id=0,
        generator=torch.Generator().manual_seed(3),
    )
    model.set_attn_implementation("sdpa")
    rows = [
        (prompt, completion)
        for prompt, group in zip(_PROMPTS, groups, strict=True)
        for completion in group
    ]
    assert len({len(completion.tokens) for _, completion in rows}) > 3
    longest = max(len(prompt) + len(completion.tokens) for prompt, completion in rows)
    ids = torch.zeros(len(rows), longest, dtype=torch.long)
    mask = torch.zeros_like(ids)
    for row, (prompt, completion) in enumerate(rows):
        whole = torch.tensor([*prompt, *completion.tokens])
        ids[row, : len(whole)], mask[row, : len(whole)] = whole, 1
    logits = model(input_ids=ids, attention_mask=mask).logits
    distribution = torch.log_softmax(logits / temperature, dim=-1)
    for row, (prompt, completion) in enumerate(rows):
        places = torch.arange(len(completion.tokens)) + len(prompt) - 1
        expected = distribution[row, places, torch.tensor(completion.tokens)]
        assert torch.allclose(torch.tensor(completion.logprobs), expected, atol=1e-4)


def _exact(policy, tokens: list[int], temperature: float) -> torch.Tensor:
    """(V,) probabilities of the token after ``tokens``."""
    with torch.no_grad():
        logits = policy.causal_model(input_ids=torch.tensor([tokens])).logits[0, -1]
    return torch.softmax(logits.double() / temperature, -1)


def _chi_square(drawn: list[int], probabilities: torch.Tensor) -> tuple[float, int]:
    """Pearson's statistic and its degrees of freedom."""
    counts = torch.tensor(drawn).bincount(minlength=len(probabilities)).double()
    expected = len(drawn) * probabilities
    # Tokens that are expected less than five times count as one.
    often = expected >= 5
    found = torch.cat([counts[often], counts[~often].sum()[None]])
    wanted = torch.cat([expected[often], expected[~often].sum()[None]])
    return float(((found - wanted) ** 2 / wanted).sum()), len(found) - 1


def _improbability(statistic: float, freedom: int) -> float:
    """Where a chi-square statistic lies on a standard normal; p = 0.0001 at 3.72.

    Wilson and Hilferty's (1931) approximation.
    """
    width = 2 / (9 * freedom)
    return ((statistic / freedom) ** (1 / 3) - (1 - width)) / math.sqrt(width)


@pytest.mark.parametrize("temperature", [1.0, 0.6])
def test_drawn_tokens_pass_a_chi_square_test_against_the_exact_distribution(
    temperature: float,
) -> None:
    policy = tiny_policy("qwen2")
    prompt = [256, 72, 105]
    num_draws = 20_000
    expected = _exact(policy, prompt, temperature)
    (group,) = _sample(policy, [prompt], num_draws, 1, seed=1, temperature=temperature)
    drawn = [completion.tokens[0] for completion in group]
    assert expected.argmax() < 256 < len(expected)  # more than one block of tokens
    statistic, freedom = _chi_square(drawn, expected)
    assert freedom > 20
    assert _improbability(statistic, freedom) < 3.72
    # It would tell a temperature that is off by a tenth.
    assert _improbability(*_chi_square(drawn, _exact(policy, prompt, 0.9 * temperature))) > 3.72


def test_second_tokens_follow_the_exact_distribution_that_the_first_one_leaves() -> None:
    policy = tiny_policy("qwen2")
    prompt = [256, 72, 105]
    # A second prompt of another length beside it must change nothing.
    group, _ = _sample(policy, [prompt, [256, 80]], 20_000, 2, seed=4, end_tokens=frozenset())
    after: dict[int, list[int]] = {}
    for completion in group:
        first, second = completion.tokens
        after.setdefault(first, []).append(second)
    common = [first for first, seconds in after.items() if len(seconds) >= 500]
    assert len(common) >= 5

    def improbability(condition: Callable[[int], int]) -> float:
        tests = [
            _chi_square(after[first], _exact(policy, [*prompt, condition(first)], 1.0))
            for first in common
        ]
        return _improbability(sum(s for s, _ in tests), sum(f for _, f in tests))

    assert improbability(lambda first: first) < 3.72
    # It would tell a second token that was drawn as if another had come first.
    assert improbability(lambda first: common[common.index(first) - 1]) > 3.72


def test_a_token_of_probability_zero_is_never_drawn() -> None:
    logits = torch.full((2000, 700), -torch.inf)
    logits[:, [3, 255, 256, 699]] = torch.tensor([1.0, 0.0, 0.5, 2.0])
    uniform = torch.rand(2000, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    tokens, logprobs = draw(logits, 1.0, uniform)
    assert set(tokens.tolist()) == {3, 255, 256, 699}
    expected = torch.log_softmax(logits, -1).gather(1, tokens[:, None]).squeeze(1)
    assert torch.allclose(logprobs, expected, atol=1e-6)


def test_logits_that_are_not_finite_are_not_drawn_from() -> None:
    logits = torch.zeros(2, 300)
    logits[1, 7] = torch.nan
    with pytest.raises(NotFiniteError, match="not finite"):
        draw(logits, 1.0, torch.zeros(2, dtype=torch.float64))


def test_a_model_that_attends_in_another_way_is_refused() -> None:
    with pytest.raises(UserError, match="does not hand its attention over"):
        _greedily(tiny_base(), _PROMPTS, 4, frozenset())


def test_a_model_with_a_sliding_window_is_refused_where_the_window_would_matter() -> None:
    config = Qwen2Config(
        vocab_size=260, hidden_size=32, intermediate_size=64, num_hidden_layers=2,
        num_attention_heads=4, num_key_value_heads=2, use_sliding_window=True, sliding_window=32,
        max_window_layers=1,
    )  # fmt: skip
    model = Qwen2ForCausalLM(config).eval()
    model.set_attn_implementation(attention.NAME)
    assert len(_greedily(model, _PROMPTS, 8, frozenset())) == 3
    with pytest.raises(UserError, match="cannot be sampled"):
        _greedily(model, _PROMPTS, 30, frozenset())


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


def test_a_generation_config_in_the_model_folder_changes_no_sample(tmp_path: Path) -> None:
    sampled = []
    for name in ("plain", "with defaults of a chat model"):
        folder = save_tiny_model(tmp_path / name)
        if sampled:
            GenerationConfig(
                do_sample=True, temperature=0.5, top_p=0.5, top_k=2, min_p=0.2,
                repetition_penalty=1.5, no_repeat_ngram_size=2, eos_token_id=257,
            ).save_pretrained(folder)  # fmt: skip
        config = ModelConfig(id=str(folder), dtype="fp32")
        base, _ = load_base_model(folder, config, torch.device("cpu"))
        policy = policy_on(base, LoraSection(r=4, dropout=0.0))
        sampled.append(policy.sample([[256, 72], [256, 73, 74]], 8, torch.Generator()))
    assert base.generation_config.top_k == 2
    assert sampled[0] == sampled[1]


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
    groups = _sample(policy, [[256, 72]], group_size=64, max_new_tokens=12, seed=7)
    assert {c.finished for c in groups[0]} == {True, False}
    for completion in groups[0]:
        assert (completion.tokens[-1] == 257) == completion.finished
        assert 257 not in completion.tokens[:-1]
        assert completion.finished or len(completion.tokens) == 12


@pytest.mark.parametrize("max_rows", [12, 10, 5, 2, 1])
def test_what_is_sampled_does_not_depend_on_what_is_decoded_together(max_rows: int) -> None:
    policy = tiny_policy()
    often = frozenset(range(60))

    def sample(max_rows: int | None) -> tuple[list, torch.Tensor]:
        generator = torch.Generator().manual_seed(3)
        groups = sample_groups(
            policy.causal_model,
            _PROMPTS,
            group_size=5,
            max_new_tokens=10,
            temperature=1.0,
            end_tokens=often,
            pad_id=257,
            generator=generator,
            max_rows=max_rows,
        )
        return [completion for group in groups for completion in group], generator.get_state()

    together, state = sample(None)
    apart, state_apart = sample(max_rows)
    assert len({len(completion.tokens) for completion in together}) > 3
    assert [c.tokens for c in apart] == [c.tokens for c in together]
    for one, other in zip(apart, together, strict=True):
        assert one.logprobs == pytest.approx(other.logprobs, abs=1e-5)
        assert one.finished == other.finished
    # What is drawn next does not depend on it either.
    assert torch.equal(state, state_apart)


def test_sampling_is_deterministic_under_a_seed() -> None:
    policy = tiny_policy()
    first = _sample(policy, [[256, 72], [256, 73, 74]], 4, 8, seed=9)
    again = _sample(policy, [[256, 72], [256, 73, 74]], 4, 8, seed=9)
    other = _sample(policy, [[256, 72], [256, 73, 74]], 4, 8, seed=10)
    assert first == again
    assert first != other

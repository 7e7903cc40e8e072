"""The decoder's logits against those of the model's own modules, and what is left to these."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from pathlib import Path
from typing import Any

import pytest
import torch
from peft.tuners.lora import LoraLayer
from torch import Tensor
from transformers import MistralConfig, MistralForCausalLM

from engine.config import LoraSection, ModelConfig
from engine.policy import attention, decoder, rollout
from engine.policy.adapters import (
    add_adapters,
    base_policy,
    read_adapter,
    reference_policy,
    trainable_parameters,
)
from engine.policy.base_model import load_base_model
from engine.policy.decoder import Decoder, decodes
from engine.policy.group_cache import GroupCache
from engine.policy.overlay import acting_as
from engine.policy.policy import Policy
from tests.tiny import policy_on, save_whole_policy, tiny_base, tiny_policy

_PROMPTS = [[256, 72, 105, 33], [256, 80], [256, *range(20, 39)]]
_GROUP = 2
_TOKENS = torch.randint(
    3, 250, (12, len(_PROMPTS) * _GROUP), generator=torch.Generator().manual_seed(0)
).tolist()
_LEAVING = {3: [0, 1, 3, 4, 5], 6: [0, 3, 4]}
"""Places in the batch that stay from a token on: first a row leaves, then all of a prompt's."""
_ALL_LINEAR = LoraSection(r=4, alpha=6, dropout=0.0, targets="all-linear")
_KINDS: dict[str, dict[str, Any]] = {
    "llama": {},
    "llama with biases": {
        "attention_bias": True,
        "mlp_bias": True,
        "tie_word_embeddings": False,
        "rope_parameters": {
            "rope_type": "llama3", "rope_theta": 1e4, "factor": 8.0, "low_freq_factor": 1.0,
            "high_freq_factor": 4.0, "original_max_position_embeddings": 16,
        },
    },
    "qwen2": {},
    "qwen3": {},
}  # fmt: skip
Advance = Callable[[Tensor, Tensor, GroupCache], Tensor]


@pytest.fixture(params=["packed", "not packed"])
def packing(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a copy of the weights in oneDNN's layout, and without, as on a GPU."""
    if request.param == "not packed":
        monkeypatch.setattr(decoder, "_COPY_SHARE", 0.0)
    elif not torch.backends.mkldnn.is_available():
        pytest.skip("this torch has no oneDNN")


def _model(kind: str, folder: Path, dtype: str = "fp32", **model: Any) -> Any:
    """A loaded model in which no bias is 0 and no norm's weight is 1."""
    base = tiny_base(kind.removesuffix(" with biases"), hidden_size=64, head_dim=16, **_KINDS[kind])
    generator = torch.Generator().manual_seed(1)
    for name, parameter in base.named_parameters():
        if name.endswith("bias") or "norm" in name:
            parameter.data += 0.3 * torch.randn(parameter.shape, generator=generator)
    base.save_pretrained(folder)
    (folder / "tokenizer_config.json").write_text("{}")
    config = ModelConfig.model_validate({"id": str(folder), "dtype": dtype} | model)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("engine.policy.base_model.AutoTokenizer.from_pretrained", lambda *_, **__: 0)
        return load_base_model(folder, config, torch.device("cpu"))[0]


def _stack(base: Any, folder: Path) -> Any:
    """Stage I of four layers a block, frozen, under an adapter of another rank on all seven."""
    folder.mkdir()
    first = tiny_base(hidden_size=base.config.hidden_size, head_dim=16)
    save_whole_policy(policy_on(first, LoraSection(r=3, alpha=5, dropout=0.0)).model, folder)
    model = add_adapters(base, _ALL_LINEAR, 3, read_adapter(folder))
    generator = torch.Generator().manual_seed(0)
    for parameter in trainable_parameters(model).values():
        parameter.data += 0.05 * torch.randn(parameter.shape, generator=generator)
    return model


@torch.no_grad()
def _advanced(model: Any, advance: Advance) -> Iterator[tuple[list[list[int]], Tensor]]:
    """What each row of a rollout has been fed so far, and the logits that came of it."""
    _, cache = rollout._prefill(model, _PROMPTS, len(_TOKENS) + 1, 0)
    cache.begin_decoding(_GROUP)
    rows = list(range(len(_PROMPTS) * _GROUP))
    fed = [list(_PROMPTS[row // _GROUP]) for row in rows]
    for number, tokens in enumerate(_TOKENS):
        if number in _LEAVING:
            cache.keep(_LEAVING[number])
            rows = [rows[place] for place in _LEAVING[number]]
        positions = torch.tensor([len(fed[row]) for row in rows])
        for row in rows:
            fed[row].append(tokens[row])
        drawn = torch.tensor([tokens[row] for row in rows])
        yield [fed[row] for row in rows], advance(drawn, positions, cache)


def _decoding(model: Any) -> Advance:
    assert decodes(model)
    with torch.no_grad():
        return Decoder(model, 64)


def _by_modules(model: Any) -> Advance:
    return lambda *step: rollout._pass(model, *step)


@torch.no_grad()
def _plain(model: Any, sequences: list[list[int]]) -> Tensor:
    """(rows, V) by a pass over each whole sequence, without any cache."""
    return torch.stack([model(torch.tensor([fed])).logits[0, -1] for fed in sequences])


def _assert_same(model: Any) -> None:
    for sequences, logits in _advanced(model, _decoding(model)):
        expected = _plain(model, sequences)
        assert logits.shape == expected.shape
        assert (logits - expected).abs().max() <= 1e-5 * expected.abs().max().clamp(min=1)


@pytest.mark.usefixtures("packing")
@pytest.mark.parametrize("kind", _KINDS)
def test_logits_are_the_models_own_under_every_policy(kind: str, tmp_path: Path) -> None:
    policy = policy_on(_model(kind, tmp_path), _ALL_LINEAR)
    model = policy.causal_model
    with base_policy(policy.model):
        _assert_same(model)
        bare = _plain(model, _PROMPTS[:1])
    with reference_policy(policy.model):
        _assert_same(model)
    _assert_same(model)
    assert not torch.allclose(bare, _plain(model, _PROMPTS[:1]), atol=0.1)


@pytest.mark.usefixtures("packing")
def test_logits_are_the_models_own_without_any_adapter_and_under_a_merged_one(
    tmp_path: Path,
) -> None:
    base = _model("qwen2", tmp_path)
    _assert_same(base)
    policy = policy_on(base, _ALL_LINEAR)
    policy.model.merge_adapter()
    _assert_same(policy.causal_model)


def test_layers_that_are_checkpointed_in_training_are_decoded(tmp_path: Path) -> None:
    base = _model("llama", tmp_path, gradient_checkpointing=True)
    _assert_same(policy_on(base, _ALL_LINEAR).causal_model)


@pytest.mark.usefixtures("packing")
def test_logits_are_those_of_stage_two_and_of_the_frozen_stage_under_it(tmp_path: Path) -> None:
    stack = _stack(_model("llama", tmp_path), tmp_path / "stage1")
    model = stack.get_base_model()
    _assert_same(model)
    both = _plain(model, _PROMPTS[:1])
    with reference_policy(stack):
        _assert_same(model)
        assert not torch.allclose(both, _plain(model, _PROMPTS[:1]), atol=0.1)


@pytest.mark.usefixtures("packing")
@pytest.mark.parametrize("kind", ["llama", "qwen2", "qwen3"])
@pytest.mark.parametrize("dtype", ["bf16", "fp16"])
def test_in_16_bits_it_is_as_near_to_the_training_pass_as_the_modules(
    kind: str, dtype: str, tmp_path: Path
) -> None:
    model = policy_on(_model(kind, tmp_path, dtype), _ALL_LINEAR).causal_model

    def mismatch(advance: Advance) -> float:
        """Mean KL divergence, in nats a token, of the training pass from ``advance``."""
        total, count = 0.0, 0
        for sequences, logits in _advanced(model, advance):
            assert logits.dtype == model.dtype
            sampled = logits.double().log_softmax(-1)
            trained = _plain(model, sequences).double().log_softmax(-1)
            total += float((sampled.exp() * (sampled - trained)).sum())
            count += len(sequences)
        return total / count

    ours, theirs = mismatch(_decoding(model)), mismatch(_by_modules(model))
    assert 0 < theirs < 0.02
    assert ours <= 1.25 * theirs


def _sampled(policy: Policy, max_new_tokens: int = 8) -> list[list[list[int]]]:
    groups = rollout.sample_groups(
        policy.causal_model,
        _PROMPTS,
        group_size=3,
        max_new_tokens=max_new_tokens,
        temperature=0.9,
        end_tokens=frozenset(range(40)),
        pad_id=0,
        generator=torch.Generator().manual_seed(5),
    )
    return [[completion.tokens for completion in group] for group in groups]


def _never(*_: Any) -> Any:
    raise AssertionError("the other way should have been taken")


def test_rollouts_take_it_and_follow_an_adapter_that_training_has_changed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    policy = tiny_policy()
    by_modules = []
    with monkeypatch.context() as patch:
        patch.setattr(rollout, "decodes", lambda model: False)
        patch.setattr(rollout, "Decoder", _never)
        by_modules.append(_sampled(policy))
        for parameter in trainable_parameters(policy.model).values():
            parameter.data *= -1.5
        by_modules.append(_sampled(policy))
    monkeypatch.setattr(rollout, "_pass", _never)
    after = _sampled(policy)
    for parameter in trainable_parameters(policy.model).values():
        parameter.data /= -1.5
    assert [_sampled(policy), after] == by_modules
    assert by_modules[0] != by_modules[1]


def test_an_adapter_laid_over_the_model_is_sampled_by_the_modules(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other, host = tiny_policy(seed=0), tiny_policy(seed=0)
    for parameter in trainable_parameters(other.model).values():
        parameter.data *= -1.5
    save_whole_policy(other.model, tmp_path)
    expected = _sampled(other)  # decoded
    monkeypatch.setattr(rollout, "Decoder", _never)
    with acting_as(host.model, read_adapter(tmp_path)):
        assert not decodes(host.causal_model)
        assert _sampled(host) == expected
    assert decodes(host.causal_model)


def test_4_bit_layers_are_left_to_the_modules(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rollout, "Decoder", _never)
    policy = policy_on(_model("llama", tmp_path, quantize="nf4"), _ALL_LINEAR)
    assert not decodes(policy.causal_model)
    assert len(_sampled(policy)) == len(_PROMPTS)


@contextmanager
def _pefts_own_layer(model: Any) -> Iterator[None]:
    layer = next(module for module in model.modules() if isinstance(module, LoraLayer))
    own = vars(layer).pop("forward")
    yield
    vars(layer)["forward"] = own


@contextmanager
def _other_attention(model: Any) -> Iterator[None]:
    model.set_attn_implementation("sdpa")
    yield
    model.set_attn_implementation(attention.NAME)


@contextmanager
def _other_format(model: Any) -> Iterator[None]:
    layer = model.model.layers[1].mlp.up_proj
    layer.to(torch.bfloat16)
    yield
    layer.to(torch.float32)


def _hook(model: Any) -> Any:
    return model.model.layers[1].mlp.register_forward_hook(lambda *_: None)


@pytest.mark.parametrize(
    "change", [_pefts_own_layer, _other_attention, _other_format, _hook, nullcontext]
)
def test_what_it_does_not_know_is_left_to_the_modules(change: Callable[[Any], Any]) -> None:
    model = tiny_policy().causal_model
    with ExitStack() as stack:
        stack.enter_context(change(model))
        assert decodes(model) == (change is nullcontext)
    assert decodes(model)


def test_other_families_are_left_to_the_modules() -> None:
    config = MistralConfig(
        vocab_size=260, hidden_size=32, intermediate_size=64, num_hidden_layers=2,
        num_attention_heads=4, num_key_value_heads=2, sliding_window=None,
    )  # fmt: skip
    model = MistralForCausalLM(config).eval()
    model.set_attn_implementation(attention.NAME)
    assert not decodes(model)

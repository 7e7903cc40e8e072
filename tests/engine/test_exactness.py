"""The policy's passes against transformers' and PEFT's own, on every family and kind of base.

The plain pass has one padded row a completion, eager attention, PEFT's own adapter layers, full
logits and fp32 weights (a 4-bit base is written out); it shares no code with the engine.
"""

import dataclasses
import random
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import peft
import pytest
import torch
from bitsandbytes.functional import dequantize_4bit
from bitsandbytes.nn import Linear4bit
from torch import Tensor, nn

from engine.config import LoraSection, ModelConfig
from engine.errors import UserError
from engine.policy import base_model, gradient_checkpointing, packing
from engine.policy.adapters import POLICY, adapter_weights, trainable_parameters
from engine.policy.base_model import load_base_model
from engine.policy.packing import PackedBatch, Piece, TokenGroup
from engine.policy.policy import Policy
from tests.tiny import policy_on, tiny_base, tiny_policy, tiny_tokenizer

FAMILIES = ["llama", "qwen2", "qwen3"]
CPU = torch.device("cpu")
LORA = LoraSection(r=4, alpha=8, dropout=0.0, targets="all-linear")
MOST_NATS = 1e-4
"""Largest difference allowed of a log-probability."""
MOST_RELATIVE = 1e-3
"""Largest difference allowed of a parameter's gradient, by their norms."""


def _base(family: str) -> Any:
    """A random model whose biases, where it has some, are not zero.

    Its matrices have whole blocks of 64 weights a row, as those of real models: 4-bit layers of
    bitsandbytes repack no others.
    """
    base = tiny_base(family, hidden_size=64, intermediate_size=128, head_dim=32)
    generator = torch.Generator().manual_seed(1)
    for name, parameter in base.named_parameters():
        if name.endswith("bias"):
            parameter.data = 0.3 * torch.randn(parameter.shape, generator=generator)
    return base


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """One model folder a family."""
    made = {family: tmp_path_factory.mktemp(family) for family in FAMILIES}
    for family, folder in made.items():
        _base(family).save_pretrained(folder)
        tiny_tokenizer().save_pretrained(folder)
    return made


def _policy(folder: Path, **model: Any) -> Policy:
    config = ModelConfig.model_validate({"id": str(folder), "dtype": "fp32"} | model)
    base, _ = load_base_model(folder, config, CPU)
    return policy_on(base, LORA)


def _groups(count: int) -> list[TokenGroup]:
    """Ragged: a prompt of one token and one of several stretches, completions of 1 to 14."""
    rng = random.Random(count)

    def tokens(length: int) -> list[int]:
        return [rng.randrange(256) for _ in range(length)]

    lengths = [1, 270] if count == 2 else [17, 3, 140, 1, 30]
    return [
        TokenGroup(tokens(length), [tokens(rng.randint(1, 14)) for _ in range(rng.randint(2, 5))])
        for length in lengths
    ]


def _dequantised(module: Linear4bit) -> Tensor:
    return dequantize_4bit(module.weight.data, module.weight.quant_state)


def _plain_twin(policy: Policy, family: str) -> peft.PeftModel:
    """The policy's model as transformers and PEFT alone run it, in fp32."""
    base = _base(family)
    base.set_attn_implementation("eager")
    for name, module in policy.causal_model.named_modules():
        if isinstance(module, Linear4bit):
            linear = base.get_submodule(name.removesuffix(".base_layer"))
            linear.weight.data = _dequantised(module).float()
    lora = peft.LoraConfig(
        r=LORA.r, lora_alpha=LORA.alpha, target_modules="all-linear", task_type="CAUSAL_LM"
    )
    twin = peft.get_peft_model(base, lora)
    weights = adapter_weights(policy.model, POLICY)
    assert not peft.set_peft_model_state_dict(twin, weights).unexpected_keys
    return twin.eval()


def _plain_logprobs(twin: peft.PeftModel, groups: Sequence[TokenGroup]) -> Tensor:
    """(R, T), 0 at padding: one right-padded row a completion, full logits."""
    rows = [(group.prompt, tokens) for group in groups for tokens in group.completions]
    longest = max(len(prompt) + len(tokens) for prompt, tokens in rows)
    ids = torch.zeros(len(rows), longest, dtype=torch.long)
    mask = torch.zeros_like(ids)
    for row, (prompt, tokens) in enumerate(rows):
        whole = torch.tensor([*prompt, *tokens])
        ids[row, : len(whole)], mask[row, : len(whole)] = whole, 1
    distribution = twin(input_ids=ids, attention_mask=mask).logits.log_softmax(-1)
    found = [
        distribution[row, torch.arange(len(tokens)) + len(prompt) - 1, torch.tensor(tokens)]
        for row, (prompt, tokens) in enumerate(rows)
    ]
    return nn.utils.rnn.pad_sequence(found, batch_first=True)


def _gradients(model: peft.PeftModel, logprobs: Tensor) -> dict[str, Tensor]:
    """Of a sum in which every log-probability has a weight of its own."""
    weights = torch.randn(logprobs.shape, generator=torch.Generator().manual_seed(2))
    parameters = trainable_parameters(model)
    found = torch.autograd.grad((logprobs * weights).sum(), list(parameters.values()))
    return dict(zip(parameters, found, strict=True))


def _relative(found: dict[str, Tensor], expected: dict[str, Tensor]) -> float:
    """The largest difference of a parameter's gradient over the norm of the expected one."""
    assert found.keys() == expected.keys()
    assert all(gradient.norm() > 0 for gradient in expected.values())
    return max(
        float((found[name] - gradient).norm() / gradient.norm())
        for name, gradient in expected.items()
    )


@dataclasses.dataclass(frozen=True)
class Passed:
    """What a pass gave."""

    logprobs: Tensor
    gradients: dict[str, Tensor]

    def differences(self, expected: "Passed") -> tuple[float, float]:
        """In nats, and relative of gradients."""
        return (
            float((self.logprobs - expected.logprobs).abs().max()),
            _relative(self.gradients, expected.gradients),
        )


def _packed(policy: Policy, groups: Sequence[TokenGroup]) -> Passed:
    logprobs, _ = policy.logprobs(groups)
    return Passed(logprobs.detach(), _gradients(policy.model, logprobs))


def _plain(policy: Policy, family: str, groups: Sequence[TokenGroup]) -> Passed:
    twin = _plain_twin(policy, family)
    logprobs = _plain_logprobs(twin, groups)
    return Passed(logprobs.detach(), _gradients(twin, logprobs))


def _attend(policy: Policy, how: str) -> None:
    """By ``pieces`` as on a CPU, or by the ``mask`` as on a GPU."""
    if how == "mask":
        policy.causal_model.set_attn_implementation("sdpa")


@pytest.mark.parametrize("quantize", ["none", "nf4"])
@pytest.mark.parametrize("family", FAMILIES)
def test_packed_logprobs_and_gradients_are_those_of_a_plain_padded_pass(
    family: str, quantize: str, folders: dict[str, Path]
) -> None:
    policy = _policy(folders[family], quantize=quantize)
    layers = [module for module in policy.model.modules() if isinstance(module, Linear4bit)]
    assert len(layers) == (2 * 7 if quantize == "nf4" else 0)
    few, many = _groups(2), _groups(5)
    expected = [_plain(policy, family, groups) for groups in (few, many)]
    for checkpointing in (False, True):
        policy = _policy(folders[family], quantize=quantize, gradient_checkpointing=checkpointing)
        for how in ("pieces", "mask"):
            _attend(policy, how)
            for groups, plain in zip((few, many), expected, strict=True):
                nats, relative = _packed(policy, groups).differences(plain)
                assert nats <= MOST_NATS, (how, checkpointing)
                assert relative <= MOST_RELATIVE, (how, checkpointing)


def _siblings_seen(batch: PackedBatch, groups: Sequence[TokenGroup]) -> PackedBatch:
    """Completions see those that stand before them in the row."""
    pieces = [
        [piece._replace(shared=piece.start) for piece in row_pieces] for row_pieces in batch.pieces
    ]
    return dataclasses.replace(batch, mask=torch.ones_like(batch.mask).tril(), pieces=pieces)


def _prompt_token_hidden(batch: PackedBatch, groups: Sequence[TokenGroup]) -> PackedBatch:
    """Completions do not see the last token of their prompt."""
    mask = batch.mask.clone()
    pieces: list[list[Piece]] = []
    for row, group in enumerate(groups):
        end = len(group.prompt)
        mask[row, :, end:, end - 1] = False
        pieces.append(
            [
                piece._replace(shared=end - 1) if piece.start >= end else piece
                for piece in batch.pieces[row]
            ]
        )
    return dataclasses.replace(batch, mask=mask, pieces=pieces)


def _positions_running_on(batch: PackedBatch, groups: Sequence[TokenGroup]) -> PackedBatch:
    """Positions do not restart for every completion."""
    length = batch.position_ids.shape[1]
    return dataclasses.replace(
        batch, position_ids=torch.arange(length).expand(len(batch.position_ids), -1)
    )


def _windowed(window: int) -> dict[str, Any]:
    return {"use_sliding_window": True, "sliding_window": window, "max_window_layers": 1}


def _rope(kind: str, original: int) -> dict[str, Any]:
    rope = {"rope_type": kind, "rope_theta": 10_000.0, "factor": 2.0}
    return {"rope_parameters": rope, "max_position_embeddings": original}


@pytest.mark.parametrize(
    ("family", "exact", "inexact"),
    [
        ("qwen2", _windowed(512), _windowed(256)),
        ("qwen3", _windowed(512), _windowed(256)),
        ("llama", _rope("dynamic", 512), _rope("dynamic", 256)),
        ("llama", _rope("linear", 256), None),
    ],
)
def test_a_model_that_is_not_exact_within_the_context_is_refused_before_it_is_trained(
    family: str, exact: dict[str, Any], inexact: dict[str, Any] | None
) -> None:
    policy = policy_on(tiny_base(family, **exact), LORA, context=512)
    plain = _plain_logprobs(policy.model, _groups(2))
    assert (policy.logprobs(_groups(2))[0] - plain).abs().max() <= MOST_NATS
    if inexact is not None:
        with pytest.raises(UserError, match="cannot be sampled and trained exactly") as error:
            policy_on(tiny_base(family, **inexact), LORA, context=512)
        assert str(error.value).startswith("model.id: ")


@pytest.mark.parametrize("how", ["pieces", "mask"])
@pytest.mark.parametrize("mutation", [_siblings_seen, _prompt_token_hidden, _positions_running_on])
def test_the_comparison_fails_where_a_token_sees_what_it_must_not(
    mutation: Callable[[PackedBatch, Sequence[TokenGroup]], PackedBatch],
    how: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    base = _base("qwen3")
    base.set_attn_implementation("sdpa_grouped")
    policy = policy_on(base, LORA)
    _attend(policy, how)
    groups = _groups(2)

    def pack(groups: Sequence[TokenGroup], *rest: Any) -> PackedBatch:
        return mutation(packing.pack(groups, *rest), groups)

    expected = _plain(policy, "qwen3", groups)
    before = _packed(policy, groups).differences(expected)
    monkeypatch.setattr("engine.policy.policy.pack", pack)
    nats, relative = _packed(policy, groups).differences(expected)
    assert before[0] <= MOST_NATS < nats
    assert before[1] <= MOST_RELATIVE < relative


def test_checkpointing_keeps_less_and_computes_layers_again(folders: dict[str, Path]) -> None:
    folder = folders["llama"]
    kept: list[int] = []
    passes: list[int] = []
    for checkpointing in (False, True):
        policy = _policy(folder, gradient_checkpointing=checkpointing)
        policy.model.eval()
        attended: list[nn.Module] = []
        for layer in policy.causal_model.model.layers:
            layer.self_attn.register_forward_pre_hook(
                lambda module, _, to=attended: to.append(module)
            )
        sizes: list[int] = []

        def keep(tensor: Tensor, sizes: list[int] = sizes) -> Tensor:
            sizes.append(tensor.nbytes)
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            logprobs, _ = policy.logprobs(_groups(2))
        kept.append(sum(sizes))
        logprobs.sum().backward()
        passes.append(len(attended))
        assert not any(module.training for module in policy.model.modules())
    assert passes == [2, 4]
    assert kept[1] < kept[0] / 4


def test_checkpointed_layers_drop_out_the_same_in_both_passes() -> None:
    policy = tiny_policy(dropout=0.5)
    policy.model.train()
    gradients = []
    for checkpointing in (False, True):
        if checkpointing:
            gradient_checkpointing.enable(policy.causal_model)
        torch.manual_seed(0)
        gradients.append(_gradients(policy.model, policy.logprobs(_groups(2))[0]))
    assert _relative(gradients[1], gradients[0]) < 1e-6
    torch.manual_seed(1)
    other = _gradients(policy.model, policy.logprobs(_groups(2))[0])
    assert _relative(other, gradients[0]) > 0.1


def test_sampling_with_checkpointing_is_sampling_without(folders: dict[str, Path]) -> None:
    folder = folders["llama"]
    first, second = (
        _policy(folder, gradient_checkpointing=on).sample(
            [[256, 72], [256, 73, 74]], 3, torch.Generator().manual_seed(0)
        )
        for on in (False, True)
    )
    assert first == second


def _write_out(policy: Policy) -> None:
    """Put ordinary layers of the dequantised weights in place of 4-bit ones."""
    for name, module in list(policy.causal_model.named_modules()):
        if isinstance(module, Linear4bit):
            linear = nn.Linear(module.in_features, module.out_features, module.bias is not None)
            linear.weight = nn.Parameter(_dequantised(module), requires_grad=False)
            linear.bias = module.bias
            policy.causal_model.set_submodule(name, linear)


def _trained_after_sampling(policy: Policy) -> dict[str, Tensor]:
    """Gradients of a training pass that follows a pass without any, in eval mode."""
    policy.sample([[256, 65, 66], [256, 67]], 2, torch.Generator().manual_seed(0))
    return _gradients(policy.model, policy.logprobs(_groups(2))[0])


@pytest.mark.parametrize("dtype", ["fp32", "bf16", "fp16"])
@pytest.mark.parametrize("family", FAMILIES)
def test_a_4_bit_base_trains_after_sampling_as_its_dequantised_weights_do(
    family: str, dtype: str, folders: dict[str, Path]
) -> None:
    folder = folders[family]
    policy = _policy(folder, quantize="nf4", dtype=dtype)
    found = _trained_after_sampling(policy)
    assert len(found) == 2 * 2 * 7  # A and B in all seven matrices of both layers
    _write_out(policy)
    assert not any(isinstance(module, Linear4bit) for module in policy.model.modules())
    # In 16 bits the products are the very same ones, so that nothing is rounded otherwise.
    assert _relative(found, _trained_after_sampling(policy)) <= 1e-5


@pytest.mark.skipif(
    not torch.cpu._is_avx512_bf16_supported(), reason="bitsandbytes repacks on AVX512-BF16 only"
)
@pytest.mark.parametrize("family", FAMILIES)
def test_that_comparison_fails_where_4_bit_layers_may_repack_their_weights(
    family: str, folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    exact = _policy(folders[family], quantize="nf4")
    _write_out(exact)
    expected = _trained_after_sampling(exact)
    monkeypatch.setattr(base_model, "_keep_trainable_on_cpu", lambda model: None)
    policy = _policy(folders[family], quantize="nf4")
    if family == "qwen2":  # layers with a bias
        with pytest.raises(RuntimeError, match="leaf Variable"):
            _trained_after_sampling(policy)
    else:
        assert _relative(_trained_after_sampling(policy), expected) > MOST_RELATIVE

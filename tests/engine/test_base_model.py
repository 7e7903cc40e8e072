"""Loading a base: formats, 4-bit bases that still train, end tokens, refusals."""

from pathlib import Path

import pytest
import torch

from engine.config import LoraSection, ModelConfig, RolloutConfig
from engine.errors import UserError
from engine.policy.adapters import add_adapters, trainable_parameters
from engine.policy.base_model import choose_dtype, end_token_ids, fingerprint, load_base_model
from engine.policy.packing import TokenGroup
from engine.policy.policy import Policy
from tests.tiny import save_tiny_model

CPU = torch.device("cpu")


def _policy(folder: Path, config: ModelConfig, device: torch.device = CPU) -> Policy:
    base, tokenizer = load_base_model(folder, config, device)
    return Policy(
        add_adapters(base, LoraSection(r=4, dropout=0.0), seed=0),
        tokenizer,
        end_token_ids(base, tokenizer),
        RolloutConfig(group_size=2, max_new_tokens=8, context=256),
        micro_batch_tokens=4096,
    )


@pytest.mark.parametrize(
    ("name", "expected"),
    [("fp32", torch.float32), ("bf16", torch.bfloat16), ("fp16", torch.float16)],
)
def test_base_is_loaded_frozen_in_the_format_asked_for(
    name: str, expected: torch.dtype, tmp_path: Path
) -> None:
    folder = save_tiny_model(tmp_path)
    model, _ = load_base_model(folder, ModelConfig(id=str(folder), dtype=name), CPU)
    assert {parameter.dtype for parameter in model.parameters()} == {expected}
    assert not any(parameter.requires_grad for parameter in model.parameters())
    assert not model.training


def test_auto_format_on_a_cpu_is_bf16_only_where_it_is_native(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for native, expected in ((True, torch.bfloat16), (False, torch.float32)):
        monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda native=native: native)
        assert choose_dtype("auto", CPU) == expected


def test_a_gpu_that_would_emulate_bf16_takes_fp16_or_fp32(monkeypatch: pytest.MonkeyPatch) -> None:
    device = torch.device("cuda:0")
    for capability, native in (((7, 5), False), ((8, 0), True)):
        monkeypatch.setattr(
            torch.cuda, "get_device_capability", lambda device, found=capability: found
        )
        assert choose_dtype("auto", device) == (torch.bfloat16 if native else torch.float32)
        assert choose_dtype("fp16", device) == torch.float16
        if native:
            assert choose_dtype("bf16", device) == torch.bfloat16
        else:
            with pytest.raises(UserError) as error:
                choose_dtype("bf16", device)
            assert str(error.value) == (
                "model.dtype: cuda:0 has compute capability 7.5, and bf16 starts at 8.0; "
                "use fp16 or fp32"
            )


@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda:0", marks=pytest.mark.gpu)])
def test_every_adapter_layer_over_a_4_bit_base_gets_a_gradient_after_sampling(
    device: str, tmp_path: Path
) -> None:
    folder = save_tiny_model(tmp_path)
    config = ModelConfig(id=str(folder), quantize="nf4", dtype="fp32")
    policy = _policy(folder, config, torch.device(device))
    generator = torch.Generator(device).manual_seed(0)
    # A no-grad pass in eval mode first: that is what used to spoil the training pass.
    ((first, second),) = policy.sample([[256, 65, 66]], 2, generator)
    logprobs, _ = policy.logprobs([TokenGroup([256, 65, 66], [first.tokens, second.tokens])])
    logprobs.sum().backward()
    gradients = {
        name: parameter.grad
        for name, parameter in trainable_parameters(policy.model).items()
        if "lora_B" in name
    }
    assert len(gradients) == 8  # two layers of q, k, v, o
    for name, gradient in gradients.items():
        assert gradient is not None, name
        assert gradient.abs().sum() > 0, name


@pytest.mark.gpu
def test_logprobs_on_a_gpu_agree_with_those_on_the_cpu(tmp_path: Path) -> None:
    folder = save_tiny_model(tmp_path)
    config = ModelConfig(id=str(folder), dtype="fp32")
    groups = [TokenGroup([256, 65, 66], [[67, 68, 257], [69]])]
    on_cpu, _ = _policy(folder, config).logprobs(groups)
    on_gpu, _ = _policy(folder, config, torch.device("cuda:0")).logprobs(groups)
    assert torch.allclose(on_gpu.cpu(), on_cpu, atol=1e-4)


def test_all_end_tokens_of_model_and_tokenizer_end_a_completion(tmp_path: Path) -> None:
    model, tokenizer = load_base_model(
        save_tiny_model(tmp_path), ModelConfig(id="tiny", dtype="fp32"), CPU
    )
    model.generation_config.eos_token_id = [7, 9]
    assert end_token_ids(model, tokenizer) == {7, 9, 257}


def test_fingerprint_changes_with_the_weights(tmp_path: Path) -> None:
    folder = save_tiny_model(tmp_path)
    before = fingerprint(folder)
    with (folder / "model.safetensors").open("ab") as file:
        file.write(b"x")
    assert fingerprint(folder) != before


def test_a_folder_without_weights_is_refused_in_one_line(tmp_path: Path) -> None:
    folder = save_tiny_model(tmp_path)
    (folder / "model.safetensors").unlink()
    with pytest.raises(UserError, match="cannot load the base model") as error:
        load_base_model(folder, ModelConfig(id=str(folder)), CPU)
    assert "\n" not in str(error.value)

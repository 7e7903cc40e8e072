"""Exports: one adapter, or merged 16-bit weights whose distance from the policy is measured."""

import json
from pathlib import Path
from typing import Any

import peft
import pytest
import torch
from safetensors import safe_open
from transformers import AutoModelForCausalLM, AutoTokenizer

from engine.config import LoraSection, ModelConfig
from engine.errors import UserError
from engine.policy import export
from engine.policy.adapters import add_adapters, read_adapter, trainable_parameters
from tests.tiny import save_tiny_model, save_whole_policy, tiny_base, tiny_policy

IDS = torch.tensor([[256, 1, 2, 3, 40, 41]])
FP32 = ModelConfig(id="tiny", device="cpu", dtype="fp32", quantize="none")


def no_progress(phase: str, done: int, total: int) -> None:
    pass


@pytest.fixture
def base(tmp_path: Path) -> Path:
    return save_tiny_model(tmp_path / "base")


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    """The root of a Stage II checkpoint: a trained stack as one adapter."""
    for name in ("stage1", "checkpoint"):
        (tmp_path / name).mkdir()
    save_whole_policy(tiny_policy().model, tmp_path / "stage1")
    stored = read_adapter(tmp_path / "stage1")
    model = add_adapters(tiny_base(), LoraSection(r=2, alpha=4), 0, stored)
    for parameter in trainable_parameters(model).values():
        parameter.data += 0.05
    save_whole_policy(model, tmp_path / "checkpoint")
    return tmp_path / "checkpoint"


def logprobs(model: Any) -> torch.Tensor:
    with torch.no_grad():
        return torch.log_softmax(model(input_ids=IDS).logits.float(), -1)


def policy_logprobs(checkpoint: Path) -> torch.Tensor:
    return logprobs(peft.PeftModel.from_pretrained(tiny_base(), checkpoint).eval())


def test_an_exported_adapter_is_the_policy_with_its_tokenizer(
    checkpoint: Path, base: Path, tmp_path: Path
) -> None:
    done = export.export_adapter(checkpoint, base, tmp_path / "out", base_id="organisation/model")
    assert done.rank == 4 + 2
    assert done.largest_difference is None
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == list(done.files)
    assert torch.equal(policy_logprobs(tmp_path / "out"), policy_logprobs(checkpoint))
    values = json.loads((tmp_path / "out" / "adapter_config.json").read_text())
    assert values["base_model_name_or_path"] == "organisation/model"
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "out")
    assert tokenizer("Hi").input_ids == AutoTokenizer.from_pretrained(base)("Hi").input_ids
    assert tokenizer.chat_template


def test_a_merged_model_is_the_policy_up_to_the_measured_rounding(
    checkpoint: Path, base: Path, tmp_path: Path
) -> None:
    phases: list[str] = []
    done = export.export_merged(
        checkpoint,
        base,
        tmp_path / "out",
        trained_on=FP32,
        progress=lambda phase, done, total: phases.append(phase),
    )
    with safe_open(tmp_path / "out" / "model.safetensors", "pt") as file:
        names = list(file.keys())
        assert not [name for name in names if "lora" in name or "base_layer" in name]
        assert {file.get_tensor(name).dtype for name in names} == {torch.bfloat16}
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path / "out", dtype=torch.bfloat16).eval()
    distance = (logprobs(loaded) - policy_logprobs(checkpoint)).abs().max().item()
    from_base = (logprobs(tiny_base()) - policy_logprobs(checkpoint)).abs().max().item()
    # Weights of size 0.3 in 8 bits of mantissa: far from exact, and far nearer than the base.
    assert 0 < distance < 0.2 * from_base
    assert done.largest_difference is not None
    assert 0 < done.largest_difference < 0.2 * from_base
    assert phases.count("merging") == 2 * 4
    assert list(dict.fromkeys(phases)) == [
        "loading the policy",
        "scoring the policy",
        "loading the base model",
        "merging",
        "scoring the merged model",
        "writing",
    ]
    assert AutoTokenizer.from_pretrained(tmp_path / "out").chat_template


def test_the_measured_difference_is_that_of_the_fixed_answers(
    checkpoint: Path, base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Merging that forgets the adapter shows in the figure."""
    good = export.export_merged(
        checkpoint, base, tmp_path / "good", trained_on=FP32, progress=no_progress
    )
    monkeypatch.setattr(
        export, "_merged", lambda model, progress: model.base_model.unload().to(torch.bfloat16)
    )
    bad = export.export_merged(
        checkpoint, base, tmp_path / "bad", trained_on=FP32, progress=no_progress
    )
    assert bad.largest_difference is not None
    assert good.largest_difference is not None
    assert bad.largest_difference > 5 * good.largest_difference


def test_weights_merged_for_a_4_bit_base_are_farther_from_the_policy(
    checkpoint: Path, base: Path, tmp_path: Path
) -> None:
    found = []
    for quantize in ("none", "nf4"):
        trained_on = FP32.model_copy(update={"quantize": quantize})
        out = tmp_path / quantize
        done = export.export_merged(
            checkpoint, base, out, trained_on=trained_on, progress=no_progress
        )
        assert done.largest_difference is not None
        found.append(done.largest_difference)
        with safe_open(out / "model.safetensors", "pt") as file:
            names = list(file.keys())
            assert {file.get_tensor(name).dtype for name in names} == {torch.bfloat16}
    assert found[1] > 2 * found[0]


def test_nothing_is_written_over_something(checkpoint: Path, base: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / "thesis.txt").write_text("precious")
    with pytest.raises(UserError, match="not empty"):
        export.export_adapter(checkpoint, base, out, base_id="x")
    with pytest.raises(UserError, match="not empty"):
        export.export_merged(checkpoint, base, out, trained_on=FP32, progress=no_progress)
    with pytest.raises(UserError, match="not empty"):
        export.export_adapter(checkpoint, base, out / "thesis.txt", base_id="x")
    assert [path.name for path in out.iterdir()] == ["thesis.txt"]


def test_a_failed_export_leaves_nothing_behind(
    checkpoint: Path, base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(path: Path) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(export, "fsync_file", fail)
    before = sorted(path.name for path in tmp_path.iterdir())
    with pytest.raises(UserError, match="cannot write the export: No space left"):
        export.export_adapter(checkpoint, base, tmp_path / "out", base_id="x")
    assert sorted(path.name for path in tmp_path.iterdir()) == before


def test_an_empty_folder_is_filled(checkpoint: Path, base: Path, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    done = export.export_adapter(checkpoint, base, tmp_path / "out", base_id="x")
    assert "adapter_model.safetensors" in done.files

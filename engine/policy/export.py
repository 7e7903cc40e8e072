"""A checkpoint as files for other tools: one adapter, or the whole model in 16 bits.

Merging adds ``alpha / r · B A`` to each adapted weight in fp32 and rounds the sum to bf16 once. The
rounding is never exact, and an adapter that was trained on a 4-bit base is merged into weights it
has never seen: so the difference from the policy is measured, on a few fixed prompts.
"""

import gc
import json
import secrets
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel
from peft.tuners.lora import LoraLayer
from transformers.utils import logging as transformers_logging

from engine.config import ModelConfig
from engine.errors import UserError
from engine.policy.adapters import put_adapter, read_adapter
from engine.policy.base_model import load_base_model
from engine.runs.checkpoint_names import ADAPTER, ADAPTER_CONFIG
from engine.runs.durable import fsync_directory, fsync_file
from engine.text import one_line

Progress = Callable[[str, int, int], None]
"""Called with the phase, what is done and the total, 0 where that is not known."""

_BESIDE = (
    "added_tokens.json",
    "chat_template.jinja",
    "merges.txt",
    "special_tokens_map.json",
    "tokenizer.json",
    "tokenizer.model",
    "tokenizer_config.json",
    "vocab.json",
)
_CPU = torch.device("cpu")
_PROMPTS = (
    ("AAPL closed at 691.28, +1.2% on the day. UP or DOWN tomorrow?", "The trend is up."),
    ("Close 104.77, RSI(14) 38.2, volume below its mean. What next?", "<think>RSI 38.2."),
    ("Will IBM rise or fall? Answer in one line.", "<answer>DOWN 0.8% confidence 60%</answer>"),
)
"""What is asked, and the answer whose tokens are scored."""


@dataclass(frozen=True)
class Exported:
    """What was written."""

    files: tuple[str, ...]
    rank: int
    """Of the adapter."""
    largest_difference: float | None
    """Of a token's log-probability between the merged model and the policy, in nats; None for an
    adapter, which is the policy."""


def export_adapter(checkpoint: Path, base: Path, out: Path, *, base_id: str) -> Exported:
    """Write the policy as one adapter with the tokenizer's files beside it.

    Args:
        checkpoint: folder with an adapter at its root.
        base: folder of the base model.
        out: a folder that is empty or not there yet.
        base_id: what the adapter shall call its base model.

    Raises:
        UserError: ``out`` holds something, or the adapter is no plain one.
    """
    rank = read_adapter(checkpoint).facts.rank

    def write(folder: Path) -> None:
        values = json.loads((checkpoint / ADAPTER_CONFIG).read_text(encoding="utf-8"))
        text = json.dumps(values | {"base_model_name_or_path": base_id}, indent=2)
        (folder / ADAPTER_CONFIG).write_text(text, encoding="utf-8")
        shutil.copyfile(checkpoint / ADAPTER, folder / ADAPTER)
        _copy_tokenizer(base, folder)

    return Exported(_write_whole(out, write), rank, None)


def export_merged(
    checkpoint: Path, base: Path, out: Path, *, trained_on: ModelConfig, progress: Progress
) -> Exported:
    """Write the base model with the policy merged into it, in bf16; works on the CPU.

    Args:
        checkpoint: folder with an adapter at its root.
        base: folder of the base model.
        out: a folder that is empty or not there yet.
        trained_on: number format and quantisation of the base in training.
        progress: told what is going on.

    Raises:
        UserError: ``out`` holds something, or the adapter does not fit the base model.
    """
    refuse_full(out)
    adapter = read_adapter(checkpoint)
    # Its bars would be drawn over ours.
    transformers_logging.disable_progress_bar()
    transformers_logging.set_verbosity_error()
    progress("loading the policy", 0, 0)
    model, tokenizer = load_base_model(base, trained_on, _CPU)
    policy = put_adapter(model, adapter)
    expected = _score(policy.get_base_model(), tokenizer, "scoring the policy", progress)
    # Before the second copy of the weights comes.
    del model, policy
    gc.collect()

    progress("loading the base model", 0, 0)
    exact = ModelConfig(id=trained_on.id, quantize="none", dtype="fp32", device="cpu")
    model, _ = load_base_model(base, exact, _CPU)
    merged = _merged(put_adapter(model, adapter), progress)
    found = _score(merged, tokenizer, "scoring the merged model", progress)
    difference = max(
        float((one - other).abs().max()) for one, other in zip(found, expected, strict=True)
    )

    def write(folder: Path) -> None:
        progress("writing", 0, 0)
        merged.save_pretrained(folder)
        _copy_tokenizer(base, folder)

    return Exported(_write_whole(out, write), adapter.facts.rank, difference)


def refuse_full(out: Path) -> None:
    """Refuse to write where something is.

    Raises:
        UserError: ``out`` is a file or a folder that is not empty.
    """
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UserError("this folder is not empty", where=one_line(str(out)), fix="name a new one")


def _merged(model: PeftModel, progress: Progress) -> Any:
    """The transformers model inside, its weights summed in fp32 and rounded to bf16."""
    layers = [module for module in model.modules() if isinstance(module, LoraLayer)]
    for number, layer in enumerate(layers):
        progress("merging", number, len(layers))
        layer.merge(safe_merge=True)
    return model.base_model.unload().to(torch.bfloat16)  # type: ignore[operator]


@torch.no_grad()
def _score(model: Any, tokenizer: Any, phase: str, progress: Progress) -> list[torch.Tensor]:
    """Log-probability of every token of the fixed answers, one tensor a prompt."""
    scores = []
    for number, (question, answer) in enumerate(_PROMPTS):
        progress(phase, number, len(_PROMPTS))
        prompt = tokenizer.apply_chat_template(
            [{"role": "user", "content": question}], tokenize=False, add_generation_prompt=True
        )
        start = len(tokenizer(prompt, add_special_tokens=False).input_ids)
        ids = tokenizer(prompt + answer, add_special_tokens=False, return_tensors="pt").input_ids
        logprobs = torch.log_softmax(model(input_ids=ids).logits[0, :-1].float(), dim=-1)
        scores.append(logprobs.gather(-1, ids[0, 1:, None]).squeeze(-1)[start - 1 :])
    return scores


def _copy_tokenizer(base: Path, folder: Path) -> None:
    for name in _BESIDE:
        if (base / name).is_file():
            shutil.copyfile(base / name, folder / name)


def _write_whole(out: Path, write: Callable[[Path], None]) -> tuple[str, ...]:
    """Let ``write`` fill a folder that then becomes ``out``; returns the names of its files.

    Raises:
        UserError: ``out`` holds something, or cannot be written.
    """
    refuse_full(out)
    temporary = out.with_name(f".{out.name}.{secrets.token_hex(4)}.tmp")
    try:
        temporary.mkdir(parents=True)
        write(temporary)
        for file in temporary.iterdir():
            fsync_file(file)
        temporary.rename(out)
        fsync_directory(out.parent)
    except OSError as error:
        raise UserError(
            f"cannot write the export: {error.strerror}", where=one_line(str(out))
        ) from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return tuple(sorted(file.name for file in out.iterdir()))

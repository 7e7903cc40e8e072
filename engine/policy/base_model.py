"""Load a frozen base model and its tokenizer, in the number format the device wants."""

import json
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, BitsAndBytesConfig

from engine.config import ModelConfig
from engine.errors import UserError
from engine.policy import attention, gradient_checkpointing
from engine.text import one_line

_DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
_SIXTEEN_BIT_SHARE = 0.4
"""Share of free device memory that a 16-bit base may take; the rest is for activations,
the KV cache and logits."""


def load_base_model(folder: Path, config: ModelConfig, device: torch.device) -> tuple[Any, Any]:
    """(model, tokenizer) with every weight frozen, in eval mode, on ``device``.

    Raises:
        UserError: the folder holds nothing that can be loaded safely, or the device does not
            compute in the format asked for.
    """
    dtype = choose_dtype(config.dtype, device)
    quantize = config.quantize == "nf4" or (
        config.quantize == "auto" and not _fits_in_16_bit(folder, device)
    )
    quantization = (
        BitsAndBytesConfig(
            load_in_4bit=True,
            bnb_4bit_quant_type="nf4",
            bnb_4bit_compute_dtype=dtype,
            bnb_4bit_use_double_quant=True,
        )
        if quantize
        else None
    )
    try:
        model = AutoModelForCausalLM.from_pretrained(
            folder,
            dtype=dtype,
            attn_implementation=attention.NAME,
            quantization_config=quantization,
            device_map={"": device},
            use_safetensors=True,
            local_files_only=True,
            trust_remote_code=False,
        )
        tokenizer = AutoTokenizer.from_pretrained(
            folder, local_files_only=True, trust_remote_code=False
        )
    except (OSError, ValueError, KeyError) as error:
        # Of the first line alone, which says what is wrong; names in it are the model's own.
        reason = one_line(str(error).strip().partition("\n")[0] or type(error).__name__, 300)
        raise UserError(
            f"cannot load the base model: {reason}", where=one_line(str(folder))
        ) from error
    if quantize:
        _keep_trainable_on_cpu(model)
    if config.gradient_checkpointing:
        gradient_checkpointing.enable(model)
    model.requires_grad_(False)
    model.eval()
    return model, tokenizer


def choose_dtype(name: str, device: torch.device) -> torch.dtype:
    """The format called ``name``; ``auto`` is bf16 where ``device`` has it natively, else fp32.

    Raises:
        UserError: bf16 on a GPU that would emulate it.
    """
    if name == "auto":
        return torch.bfloat16 if _is_bf16_native(device) else torch.float32
    # A processor emulates it well enough to export what was trained elsewhere.
    if name == "bf16" and device.type == "cuda" and not _is_bf16_native(device):
        major, minor = torch.cuda.get_device_capability(device)
        raise UserError(
            f"{device} has compute capability {major}.{minor}, and bf16 starts at 8.0",
            where="model.dtype",
            fix="use fp16 or fp32",
        )
    return _DTYPES[name]


def end_token_ids(model: Any, tokenizer: Any) -> frozenset[int]:
    """Every token that ends an answer: those of the generation config and the tokenizer's own.

    Chat models often end a turn with a token other than the one that ends a text.
    """
    configured = model.generation_config.eos_token_id
    ids = {configured} if isinstance(configured, int) else set(configured or [])
    ids.add(tokenizer.eos_token_id)
    for name in ("<|im_end|>", "<|endoftext|>", "<|eot_id|>"):
        ids.add(tokenizer.get_vocab().get(name))
    return frozenset(token for token in ids if token is not None)


def fingerprint(folder: Path) -> str:
    """Names and sizes of the weight files: tells two base models apart without hashing them."""
    files = [*sorted(folder.glob("*.safetensors")), folder / "config.json"]
    return json.dumps([[file.name, file.stat().st_size] for file in files])


def _is_bf16_native(device: torch.device) -> bool:
    if device.type == "cuda":
        # is_bf16_supported() also says yes where bf16 is emulated.
        return torch.cuda.get_device_capability(device) >= (8, 0)
    return torch.cpu._is_avx512_bf16_supported()


def _fits_in_16_bit(folder: Path, device: torch.device) -> bool:
    if device.type != "cuda":
        return True
    weights = sum(file.stat().st_size for file in folder.glob("*.safetensors"))
    free, _ = torch.cuda.mem_get_info(device)
    return weights < _SIXTEEN_BIT_SHARE * free


def _keep_trainable_on_cpu(model: Any) -> None:
    """Stop 4-bit layers from repacking their weights in the first no-grad forward on a CPU.

    After that repacking (bitsandbytes 0.50 with AVX512-BF16) training passes fail or give
    no gradient to the layers below.
    """
    from bitsandbytes.nn.modules import Linear4bit

    for module in model.modules():
        if isinstance(module, Linear4bit):
            module.support_avx512bf16_for_cpu = False

"""What the chosen model needs of memory and disk, against what there is."""

import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from engine.policy.embedded import DISK_BYTES, default_cache_dir, embedded_model_ready
from engine.presets import EMBEDDED_MODEL
from stonk_tui.doctor.findings import GIB, Finding, gib
from stonk_tui.doctor.gpus import TorchView

KNOWN_PARAMETERS = {
    EMBEDDED_MODEL: 134_515_008,
    "HuggingFaceTB/SmolLM2-135M-Instruct": 134_515_008,
    "HuggingFaceTB/SmolLM2-360M-Instruct": 361_821_120,
    "HuggingFaceTB/SmolLM2-1.7B-Instruct": 1_711_376_384,
    "Qwen/Qwen2.5-0.5B-Instruct": 494_032_768,
    "Qwen/Qwen2.5-1.5B-Instruct": 1_543_714_304,
    "Qwen/Qwen2.5-3B-Instruct": 3_085_938_688,
    "Qwen/Qwen2.5-7B-Instruct": 7_615_616_512,
}
"""Sizes that can be told without asking the hub; any other model is looked up in its folder."""

WORKING_MEMORY = 4 * GIB
"""Activations, caches and libraries beside the weights: an allowance. The demo's worker, whose
weights take 0.3 GiB, peaked at 3.7 GiB on a CPU (`bench/demo.py`); larger models were not
measured."""

RUN_DISK = 1 * GIB
"""What a run may write: events and a few checkpoints."""


def parameter_count(model_id: str) -> int | None:
    """Parameters of a known id or of a local folder; None where that is not known."""
    if model_id in KNOWN_PARAMETERS:
        return KNOWN_PARAMETERS[model_id]
    try:
        config = json.loads((Path(model_id) / "config.json").read_text(encoding="utf-8"))
        return parameters_of_config(config)
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


def parameters_of_config(config: Mapping[str, Any]) -> int:
    """Parameters of a Llama-shaped decoder (Llama, Qwen2, Qwen3, Mistral, SmolLM2).

    Raises:
        KeyError: a size is missing, or the model is of another shape.
    """
    if config["model_type"] not in {"llama", "qwen2", "qwen3", "mistral", "smollm3"}:
        raise KeyError(config["model_type"])
    hidden, layers = config["hidden_size"], config["num_hidden_layers"]
    heads = config["num_attention_heads"]
    head_dim = config.get("head_dim") or hidden // heads
    query = heads * head_dim
    key_value = (config.get("num_key_value_heads") or heads) * head_dim
    attention = 2 * hidden * query + 2 * hidden * key_value
    if config["model_type"] == "qwen2" or config.get("attention_bias"):
        attention += query + 2 * key_value
    per_layer = attention + 3 * hidden * config["intermediate_size"] + 2 * hidden
    embeddings = config["vocab_size"] * hidden
    if not config.get("tie_word_embeddings", False):
        embeddings *= 2
    return int(embeddings + layers * per_layer + hidden)


def judge_memory(
    model_id: str, parameters: int | None, available: int, torch: TorchView
) -> Finding:
    """Whether weights and working memory fit on the device that would be used."""
    if parameters is None:
        return Finding(
            "memory", "note", f"what {model_id} needs is unknown; {gib(available)} of RAM free"
        )
    size = f"{parameters / 1e9:.2f} B parameters"
    if torch.devices:
        memory = max(int(device["memory"]) for device in torch.devices)
        half, nf4 = 2 * parameters + WORKING_MEMORY, int(0.6 * parameters) + WORKING_MEMORY
        if half <= memory:
            text = f"{size}: about {gib(half)} in 16 bits, and the GPU has {gib(memory)}"
            return Finding("memory", "ok", text)
        if nf4 <= memory:
            text = f"{size}: about {gib(nf4)} in 4 bits (16 bits do not fit {gib(memory)})"
            return Finding("memory", "note", text, "leave --quantize at auto, or set nf4")
        return Finding(
            "memory",
            "error",
            f"{size}: about {gib(nf4)} even in 4 bits, but the GPU has {gib(memory)}",
            "choose a smaller model with --model",
        )
    needed = 4 * parameters + WORKING_MEMORY
    text = f"{size}: about {gib(needed)} on the CPU, and {gib(available)} are free"
    if needed <= available:
        return Finding("memory", "ok", text)
    return Finding("memory", "warning", text, "close other programs, or choose a smaller model")


def judge_disk(name: str, path: Path, free: int | None, needed: int | None) -> Finding:
    """Whether a folder's disk has the room that will be asked of it."""
    if free is None:
        return Finding(name, "warning", f"{path} cannot be looked at", "check its permissions")
    if needed is None:
        return Finding(name, "note", f"need unknown; {gib(free)} free in {path}")
    if needed == 0:
        return Finding(name, "ok", f"already there; {gib(free)} free in {path}")
    text = f"about {gib(needed)} needed, {gib(free)} free in {path}"
    if free >= needed:
        return Finding(name, "ok", text)
    return Finding(name, "error", text, "free some space, or set STONK_HOME to another disk")


def judge_home(home: Path) -> Finding:
    """Whether runs can be kept in a folder that may have to be made first."""
    # A disk that is mounted for reading alone counts, for root as well.
    if os.access(nearest_existing(home), os.W_OK | os.X_OK):
        return Finding("home", "ok", f"runs can be kept in {home}")
    return Finding(
        "home", "error", f"{home} cannot be written", "set STONK_HOME to a folder you can write to"
    )


def model_cache(model_id: str) -> Path:
    if model_id == EMBEDDED_MODEL:
        return default_cache_dir()
    if Path(model_id).is_dir():
        return Path(model_id)
    from huggingface_hub import constants

    return Path(constants.HF_HUB_CACHE)


def model_disk(model_id: str, parameters: int | None) -> int | None:
    """Bytes still to be written for the model; 0 when it is there, None when unknown."""
    if model_id == EMBEDDED_MODEL:
        return 0 if embedded_model_ready(default_cache_dir()) else DISK_BYTES
    if not needs_hub(model_id):
        return 0
    return None if parameters is None else 2 * parameters


def needs_hub(model_id: str) -> bool:
    """Whether the model has yet to be fetched from the hub."""
    if model_id == EMBEDDED_MODEL or Path(model_id).is_dir():
        return False
    from huggingface_hub import constants

    fetched = Path(constants.HF_HUB_CACHE) / f"models--{model_id.replace('/', '--')}" / "snapshots"
    return not any(fetched.glob("*/*.safetensors"))


def free_space(path: Path) -> int | None:
    """Free bytes of the disk that holds ``path``, which need not exist yet."""
    try:
        return shutil.disk_usage(nearest_existing(path)).free
    except OSError:
        return None


def nearest_existing(path: Path) -> Path:
    path = path.expanduser().absolute()
    return next((place for place in [path, *path.parents] if place.exists()), Path("/"))

"""The promoted Stage I policy inside a Stage II run: its files, its record, and their checks.

    promotion.json   what was promoted, by whose leave, with the SHA-256 of both files; read-only
    stage1/          adapter_model.safetensors and adapter_config.json, as they were promoted

An adapter may come from anywhere, so what its files say is checked, and nothing but numbers is
taken from them: tensors, rank, alpha and the names of the layers.
"""

import json
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from engine.config import RunConfig
from engine.errors import UserError
from engine.runs.checkpoint_names import ADAPTER, ADAPTER_CONFIG, sha256
from engine.runs.directory import RunDirectory
from engine.text import one_line

FILES = (ADAPTER, ADAPTER_CONFIG)
LAYERS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
"""Layers that an adapter may adapt."""

_MAX_RANK = 512
_MAX_HEADER_BYTES = 100_000_000
_MAX_CONFIG_BYTES = 1_000_000
_PLAIN = frozenset(
    {
        "auto_mapping",
        "base_model_name_or_path",
        "bias",
        "inference_mode",
        "init_lora_weights",
        "lora_alpha",
        "lora_dropout",
        "megatron_core",
        "peft_type",
        "peft_version",
        "qalora_group_size",
        "r",
        "revision",
        "target_modules",
        "task_type",
    }
)
"""Keys of an adapter's configuration that may be set: with all others left at nothing it is plain
LoRA, ``W + alpha / r · B A``."""


@dataclass(frozen=True)
class AdapterFacts:
    """What decides how an adapter's tensors are used."""

    rank: int
    alpha: float
    layers: tuple[str, ...]
    base_model: str
    """What its configuration calls the model it was trained on, if anything; untrusted text."""


def read_facts(folder: Path) -> AdapterFacts:
    """Check the adapter in ``folder`` and say what it is.

    Raises:
        UserError: it is not a plain LoRA adapter in safetensors.
    """
    where = one_line(str(folder / ADAPTER_CONFIG))
    values = _read_config(folder / ADAPTER_CONFIG, where)
    if values.get("peft_type") != "LORA":
        raise UserError("this is not a LoRA adapter", where=f"{where}:peft_type")
    for key, value in values.items():
        if value and key not in _PLAIN:
            raise UserError(
                f"adapters with {one_line(key, 40)} cannot be stacked",
                where=where,
                fix="use plain LoRA",
            )
    if values.get("bias", "none") != "none":
        raise UserError("adapters that train biases cannot be stacked", where=f"{where}:bias")
    if values.get("init_lora_weights", True) not in (True, False, "gaussian", "orthogonal"):
        raise UserError(
            "this way to initialise changes the base model's own weights",
            where=f"{where}:init_lora_weights",
        )
    rank, alpha, layers = (values.get(key) for key in ("r", "lora_alpha", "target_modules"))
    if isinstance(rank, bool) or not isinstance(rank, int) or not 1 <= rank <= _MAX_RANK:
        raise UserError(f"the rank must be from 1 to {_MAX_RANK}", where=f"{where}:r")
    if isinstance(alpha, bool) or not isinstance(alpha, int | float) or not 0 < alpha < 1e6:
        raise UserError("alpha must be a number above 0", where=f"{where}:lora_alpha")
    if not isinstance(layers, list) or not layers or not set(map(str, layers)) <= set(LAYERS):
        raise UserError(
            f"the adapted layers must be some of {', '.join(LAYERS)}",
            where=f"{where}:target_modules",
        )
    base_model = str(values.get("base_model_name_or_path") or "")
    facts = AdapterFacts(rank, float(alpha), tuple(sorted(map(str, layers))), base_model)
    _check_tensors(folder / ADAPTER, facts)
    return facts


def record(run: RunDirectory) -> dict[str, Any] | None:
    """The promotion that ``run`` came from; None for a run that no promotion made.

    Raises:
        UserError: the record cannot be read.
    """
    file = run.promotion
    try:
        values = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise UserError("the record of the promotion cannot be read", where=str(file)) from error
    if not isinstance(values, dict):
        raise UserError("this is not the record of a promotion", where=str(file))
    return values


def verify(run: RunDirectory, config: RunConfig) -> dict[str, Any] | None:
    """The record of ``run``, once run, record and files agree; None for a Stage I run.

    Raises:
        UserError: Stage II without a promotion, a promotion without Stage II, another base
            model, or files that are not those that were promoted.
    """
    values = record(run)
    if values is None:
        if config.stage == "II":
            raise needs_promotion()
        return None
    where = str(run.path / "run.yaml")
    if config.stage != "II":
        raise UserError(
            "this run was made by a promotion and is Stage II", where=f"{where}:config.stage"
        )
    if config.model.id != values.get("model"):
        raise UserError(
            f"the promoted policy was trained on {one_line(str(values.get('model')), 80)}",
            where=f"{where}:config.model.id",
            fix="train on the same model",
        )
    hashes = values.get("files")
    for name in FILES:
        file = run.stage1 / name
        if not isinstance(hashes, dict) or not file.is_file() or sha256(file) != hashes.get(name):
            raise UserError(
                "this is not the file that was promoted", where=str(file), fix="promote again"
            )
    return values


def needs_promotion() -> UserError:
    """The error for a Stage II run that was begun like any other."""
    return UserError(
        "Stage II starts from a promoted Stage I checkpoint",
        where="stage",
        fix="use `stonk-tui promote`",
    )


def _read_config(file: Path, where: str) -> dict[str, Any]:
    try:
        if file.stat().st_size > _MAX_CONFIG_BYTES:
            raise UserError("this is not an adapter's configuration", where=where)
        values = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(
            "the adapter's configuration cannot be read",
            where=where,
            fix="name a folder with adapter_config.json and adapter_model.safetensors",
        ) from error
    if not isinstance(values, dict):
        raise UserError("this is not an adapter's configuration", where=where)
    return values


def _check_tensors(file: Path, facts: AdapterFacts) -> None:
    """Look at names and shapes in the header of ``file``; the tensors are not read.

    Raises:
        UserError: it is no safetensors file of such an adapter.
    """
    where = one_line(str(file))
    if not file.is_file():
        pickled = file.with_name("adapter_model.bin").exists()
        raise UserError(
            "the weights are pickled, which is never loaded" if pickled else "no adapter is here",
            where=where,
            fix="save the adapter as safetensors",
        )
    ranks = {}
    for name, tensor in _header(file, where).items():
        parts = name.split(".")
        half = parts[-2] if len(parts) > 2 and parts[-1] == "weight" else ""
        shape = tensor.get("shape") if isinstance(tensor, dict) else None
        if half not in ("lora_A", "lora_B") or parts[-3] not in facts.layers:
            raise UserError(f"{one_line(name, 80)} belongs to no plain LoRA", where=where)
        if not isinstance(shape, list) or len(shape) != 2:
            raise UserError(f"{one_line(name, 80)} is not a matrix", where=where)
        ranks[name] = shape[0] if half == "lora_A" else shape[1]
    if not ranks or any(rank != facts.rank for rank in ranks.values()):
        raise UserError(
            f"the tensors do not have the rank {facts.rank} of {ADAPTER_CONFIG}",
            where=where,
            fix="name a folder whose two files belong together",
        )


def _header(file: Path, where: str) -> dict[str, Any]:
    """Name → dtype and shape, as the file's own header states them."""
    try:
        with file.open("rb") as stream:
            (length,) = struct.unpack("<Q", stream.read(8))
            if length > _MAX_HEADER_BYTES:
                raise ValueError("header too long")
            values = json.loads(stream.read(length))
        if not isinstance(values, dict):
            raise ValueError("header is no mapping")
    except (OSError, ValueError, RecursionError, struct.error) as error:
        raise UserError("this is not a safetensors file", where=where) from error
    values.pop("__metadata__", None)
    return values

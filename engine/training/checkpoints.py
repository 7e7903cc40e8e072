"""Save and find checkpoints: old or new, never half of one, nothing pickled.

    step-000100/
      adapter_model.safetensors, adapter_config.json   the whole policy as an ordinary PEFT adapter
      train/optimizer.safetensors, state.json   what resuming needs
      train/reference.safetensors   Stage I: the frozen reference policy
      train/adapter.safetensors     Stage II: the adapter on top; Stage I's own is in the run
      manifest.json   name, size and SHA-256 of every file; written last

A folder is written beside its final name, made durable, and renamed; only then is it a
checkpoint. One whose files do not match its manifest, or that training went back behind, is set
aside, never deleted.
"""

import json
import secrets
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from engine.config import SCHEMA_VERSION
from engine.errors import RunFailedError
from engine.policy.adapters import POLICY, REFERENCE, adapter_weights, is_stack, load_adapter
from engine.policy.policy import Policy
from engine.policy.stack import save_whole_policy
from engine.runs.checkpoint_names import ADAPTER, MANIFEST, PROMOTED, damage, names, sha256, step_of
from engine.runs.directory import RunDirectory, fsync_directory, fsync_file, write_atomically
from engine.runs.disk import NoSpaceError

__all__ = [
    "SavedState",
    "load",
    "mark_best",
    "names",
    "newest",
    "newest_before",
    "require_space",
    "rotate",
    "save",
    "set_aside_after",
]

_SPARE_BYTES = 256 * 2**20


@dataclass(frozen=True)
class SavedState:
    """What ``load`` gives back beside the weights it put in place."""

    name: str
    step: int
    values: Mapping[str, Any]
    """The trainer's own JSON values."""
    generator_state: Tensor
    """uint8 state of the sampling generator."""


def save(
    run: RunDirectory,
    step: int,
    policy: Policy,
    optimizer: torch.optim.Optimizer,
    generator: torch.Generator,
    values: Mapping[str, Any],
) -> str:
    """Write the checkpoint of ``step`` and return its name.

    Raises:
        NoSpaceError: there is no room for it; nothing was begun.
    """
    name = f"step-{step:06d}"
    final = run.checkpoints / name
    if final.exists():
        # Nothing trained since: the same state is there already.
        return name
    require_space(run)
    temporary = run.checkpoints / f".tmp-{name}-{secrets.token_hex(4)}"
    (temporary / "train").mkdir(parents=True, mode=0o700)
    try:
        save_whole_policy(policy.model, temporary)
        adapter, file = _beside(policy)
        save_file(adapter_weights(policy.model, adapter), temporary / "train" / file)
        moments = _optimizer_tensors(optimizer) | {"generator": generator.get_state()}
        save_file(moments, temporary / "train/optimizer.safetensors")
        state = {"schema": SCHEMA_VERSION, "step": step, "values": dict(values)}
        (temporary / "train/state.json").write_text(json.dumps(state), encoding="utf-8")
        _write_manifest(temporary, step)
        temporary.rename(final)
        fsync_directory(run.checkpoints)
    finally:
        for leftover in run.checkpoints.glob(".tmp-*"):
            shutil.rmtree(leftover)
    return name


def newest(run: RunDirectory) -> str | None:
    """Name of the newest valid checkpoint; damaged ones are renamed to ``damaged-...``."""
    return _newest_of(run, names(run))


def newest_before(run: RunDirectory, step: int) -> str | None:
    """As ``newest``, of the checkpoints made before ``step`` was."""
    return _newest_of(run, [name for name in names(run) if step_of(name) < step])


def set_aside_after(run: RunDirectory, name: str) -> None:
    """Rename checkpoints newer than ``name`` to ``abandoned-...``: their steps are taken anew."""
    for newer in names(run):
        if step_of(newer) > step_of(name):
            _set_aside(run, newer, "abandoned")


def load(
    run: RunDirectory, name: str, policy: Policy, optimizer: torch.optim.Optimizer
) -> SavedState:
    """Put a valid checkpoint's weights and optimiser state in place.

    Raises:
        RunFailedError: it does not fit this run's model and configuration.
    """
    folder = run.checkpoints / name
    try:
        adapter, file = _beside(policy)
        load_adapter(policy.model, load_file(folder / "train" / file), adapter)
        if adapter != POLICY:
            load_adapter(policy.model, load_file(folder / ADAPTER), POLICY)
        tensors = load_file(folder / "train/optimizer.safetensors")
        generator_state = tensors.pop("generator")
        _restore_optimizer(optimizer, tensors)
        state = json.loads((folder / "train/state.json").read_text(encoding="utf-8"))
        return SavedState(name, state["step"], state["values"], generator_state)
    except (OSError, ValueError, KeyError, SafetensorError) as error:
        raise RunFailedError(f"{folder}: this checkpoint does not fit the run: {error}") from error


def rotate(run: RunDirectory, keep: int, best: str | None) -> list[str]:
    """Delete checkpoints; returns the deleted.

    The newest ``keep``, the best one and those that were promoted stay.
    """
    surplus = [
        name
        for name in names(run)[:-keep]
        if name != best and not (run.checkpoints / name / PROMOTED).exists()
    ]
    for name in surplus:
        shutil.rmtree(run.checkpoints / name)
    return surplus


def mark_best(run: RunDirectory, name: str | None) -> None:
    """Record ``name`` as the best checkpoint by validation reward; None where there is none."""
    write_atomically(run.path / "best_model", f"{name or ''}\n")


def _newest_of(run: RunDirectory, candidates: Sequence[str]) -> str | None:
    for name in reversed(candidates):
        problem = damage(run.checkpoints / name)
        if problem is None:
            return name
        _set_aside(run, name, "damaged")
        print(f"checkpoint {name} is damaged ({problem}); set aside", flush=True)
    return None


def _set_aside(run: RunDirectory, name: str, why: str) -> None:
    (run.checkpoints / name).rename(run.checkpoints / f"{why}-{name}-{secrets.token_hex(4)}")


def _beside(policy: Policy) -> tuple[str, str]:
    """The adapter that ``train/`` holds because the root does not tell it, and its file."""
    if is_stack(policy.model):
        return POLICY, "adapter.safetensors"
    return REFERENCE, "reference.safetensors"


def require_space(run: RunDirectory) -> None:
    """Ask for room for a checkpoint as large as the last, twice, and some to spare.

    Raises:
        NoSpaceError: there is less.
    """
    existing = names(run)
    last = run.checkpoints / existing[-1] if existing else None
    size = sum(file.stat().st_size for file in last.rglob("*")) if last else 0
    free = shutil.disk_usage(run.checkpoints).free
    if free < 2 * size + _SPARE_BYTES:
        needed = 2 * size + _SPARE_BYTES
        raise NoSpaceError(
            f"{run.checkpoints}: {free / 2**20:.0f} MiB are free, too little for a checkpoint; "
            f"free {(needed - free) / 2**20:.0f} MiB more"
        )


def _optimizer_tensors(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """Moments and step counts by parameter index, on the CPU."""
    return {
        f"{index}.{key}": value.detach().cpu().contiguous()
        for index, state in optimizer.state_dict()["state"].items()
        for key, value in state.items()
    }


def _restore_optimizer(optimizer: torch.optim.Optimizer, tensors: Mapping[str, Tensor]) -> None:
    state: dict[int, dict[str, Tensor]] = {}
    for name, tensor in tensors.items():
        index, _, key = name.partition(".")
        state.setdefault(int(index), {})[key] = tensor
    groups = optimizer.state_dict()["param_groups"]
    optimizer.load_state_dict({"state": state, "param_groups": groups})


def _write_manifest(folder: Path, step: int) -> None:
    files = []
    for path in sorted(file for file in folder.rglob("*") if file.is_file()):
        fsync_file(path)
        name = path.relative_to(folder).as_posix()
        files.append({"name": name, "size": path.stat().st_size, "sha256": sha256(path)})
    fsync_directory(folder / "train")
    manifest = {"schema": SCHEMA_VERSION, "step": step, "files": files}
    write_atomically(folder / MANIFEST, json.dumps(manifest, indent=1))

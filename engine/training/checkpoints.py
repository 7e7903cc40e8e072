"""Save and find checkpoints: old or new, never half of one, nothing pickled.

    step-000100/
      adapter_model.safetensors, adapter_config.json   the whole policy as an ordinary PEFT adapter
      train/optimizer.safetensors, state.json   what resuming needs
      train/reference.safetensors   Stage I: the frozen reference policy
      train/adapter.safetensors     Stage II: the adapter on top; Stage I's own is in the run
      manifest.json   name, size and SHA-256 of every file; written last

A folder is written beside its final name, made durable, and renamed; only then is it a
checkpoint. One whose files do not match its manifest, or that training went back behind, is set
aside, never deleted. Only the worker that holds the run's lock writes here.
"""

import hashlib
import json
import secrets
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load as deserialised
from safetensors.torch import save as serialised
from torch import Tensor

from engine.config import SCHEMA_VERSION
from engine.errors import RunFailedError
from engine.policy.adapters import POLICY, REFERENCE, adapter_weights, is_stack, load_adapter
from engine.policy.policy import Policy
from engine.policy.stack import whole_policy
from engine.runs import disk, manifest
from engine.runs.checkpoint_names import ADAPTER, MANIFEST, PROMOTED, names, step_of
from engine.runs.directory import RunDirectory
from engine.runs.disk import NoSpaceError
from engine.runs.durable import fsync_directory, write_atomically, write_new
from engine.runs.reader import StoreReader

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
_UNFINISHED, _UNWANTED = ".tmp-", ".old-"
"""How the names of folders begin that are being written, and that are being deleted."""

Tell = Callable[[str], None]
"""Told in a line what a person should know."""


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
        NoSpaceError: there is no room for it, or the disk does not take it; can be tried again.
    """
    name = f"step-{step:06d}"
    final = run.checkpoints / name
    with _writing(run, f"the checkpoint of step {step} is not saved"):
        if final.exists():
            if manifest.damage(final) is None:
                # Nothing trained since: the same state is there already.
                return name
            _set_aside(run, name, "damaged")
        require_space(run)
        contents = _contents(step, policy, optimizer, generator, values)
        temporary = run.checkpoints / f"{_UNFINISHED}{name}-{secrets.token_hex(4)}"
        try:
            _write(temporary, contents, step)
            temporary.rename(final)
            fsync_directory(run.checkpoints)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
    return name


def newest(run: RunDirectory, tell: Tell | None = None) -> str | None:
    """Name of the newest valid checkpoint; damaged ones are renamed to ``damaged-...``.

    What a worker that died left half written or half deleted is removed.

    Args:
        tell: told what was damaged; it is in the worker's log in any case.
    """
    for prefix in (_UNFINISHED, _UNWANTED):
        for leftover in run.checkpoints.glob(f"{prefix}*"):
            shutil.rmtree(leftover, ignore_errors=True)
    return _newest_of(run, names(run), tell)


def newest_before(run: RunDirectory, step: int, tell: Tell | None = None) -> str | None:
    """As ``newest``, of the checkpoints made before ``step`` was."""
    return _newest_of(run, [name for name in names(run) if step_of(name) < step], tell)


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

    def tensors_of(file: str) -> dict[str, Tensor]:
        # Not mapped: a file that is cut while it is read must be an error, not the end.
        return deserialised((folder / file).read_bytes())

    try:
        adapter, file = _beside(policy)
        load_adapter(policy.model, tensors_of(f"train/{file}"), adapter)
        if adapter != POLICY:
            load_adapter(policy.model, tensors_of(ADAPTER), POLICY)
        moments = tensors_of("train/optimizer.safetensors")
        generator_state = moments.pop("generator")
        state = json.loads((folder / "train/state.json").read_text(encoding="utf-8"))
        _restore_optimizer(optimizer, moments, state.get("groups", ()))
        return SavedState(name, state["step"], state["values"], generator_state)
    except (OSError, ValueError, KeyError, SafetensorError) as error:
        raise RunFailedError(f"{folder}: this checkpoint does not fit the run: {error}") from error


def rotate(run: RunDirectory, keep: int, best: str | None, tell: Tell | None = None) -> list[str]:
    """Delete checkpoints that are no longer needed; returns the names that are gone.

    The newest ``keep`` that are valid, the best one and those that were promoted stay. What is
    damaged among the former is set aside, and counts for nothing.

    Raises:
        NoSpaceError: the disk does not take it; can be tried again.
    """
    gone, num_valid = [], 0
    with _writing(run, "checkpoints are not looked after"):
        for name in reversed(names(run)):
            if num_valid < keep or name == best:
                if problem := manifest.damage(run.checkpoints / name):
                    _quarantine(run, name, problem, tell)
                    gone.append(name)
                else:
                    num_valid += 1
            elif not (run.checkpoints / name / PROMOTED).exists():
                # Not in its place: who is killed meanwhile leaves no half of a checkpoint there.
                unwanted = run.checkpoints / f"{_UNWANTED}{name}-{secrets.token_hex(4)}"
                (run.checkpoints / name).rename(unwanted)
                shutil.rmtree(unwanted, ignore_errors=True)
                gone.append(name)
    return gone[::-1]


def mark_best(run: RunDirectory, name: str | None) -> None:
    """Record ``name`` as the best checkpoint by validation reward; None where there is none.

    Raises:
        NoSpaceError: the disk does not take it; can be tried again.
    """
    with _writing(run, "the best checkpoint is not noted"):
        write_atomically(run.path / "best_model", f"{name or ''}\n")


def told(run: RunDirectory, step: int) -> dict[str, float | None]:
    """Name → validation reward of the checkpoints that are there by what the log says.

    Args:
        run: whose log is read.
        step: what was said after it is left out.
    """
    there: dict[str, float | None] = {}
    reader = StoreReader(run.database)
    try:
        events = reader.events_of("checkpoint")
    finally:
        reader.close()
    for event in events:
        if event.step <= step:
            for name in (event.payload["name"], *event.payload.get("removed", ())):
                there.pop(name, None)
            there[event.payload["name"]] = event.payload.get("validation_reward")
    return there


@contextmanager
def _writing(run: RunDirectory, undone: str) -> Iterator[None]:
    """Inside the block, what a full or failing disk refuses is a ``NoSpaceError``.

    Args:
        undone: what is not done then.
    """
    try:
        yield
    except OSError as error:
        if not disk.is_shortage(error):
            raise
        problem, fix = disk.in_words(error)
        raise NoSpaceError(f"{run.checkpoints}: {problem}, and {undone}; {fix}") from error


def _newest_of(run: RunDirectory, candidates: Sequence[str], tell: Tell | None) -> str | None:
    for name in reversed(candidates):
        problem = manifest.damage(run.checkpoints / name)
        if problem is None:
            return name
        _quarantine(run, name, problem, tell)
    return None


def _quarantine(run: RunDirectory, name: str, problem: str, tell: Tell | None) -> None:
    aside = _set_aside(run, name, "damaged")
    text = f"checkpoint {name} is damaged ({problem}); set aside as {aside}"
    print(text, flush=True)
    if tell is not None:
        tell(text)


def _set_aside(run: RunDirectory, name: str, why: str) -> str:
    aside = f"{why}-{name}-{secrets.token_hex(4)}"
    (run.checkpoints / name).rename(run.checkpoints / aside)
    fsync_directory(run.checkpoints)
    return aside


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


def _contents(
    step: int,
    policy: Policy,
    optimizer: torch.optim.Optimizer,
    generator: torch.Generator,
    values: Mapping[str, Any],
) -> dict[str, bytes]:
    """The files of a checkpoint by name, its manifest left out."""
    adapter, file = _beside(policy)
    beside = adapter_weights(policy.model, adapter)
    moments = _optimizer_tensors(optimizer)
    state = {
        "schema": SCHEMA_VERSION,
        "step": step,
        "groups": optimizer.state_dict()["param_groups"],
        "values": dict(values),
    }
    return {
        **whole_policy(policy.model),
        f"train/{file}": serialised(beside),
        "train/optimizer.safetensors": serialised(moments | {"generator": generator.get_state()}),
        "train/state.json": json.dumps(state).encode("utf-8"),
    }


def _write(folder: Path, contents: Mapping[str, bytes], step: int) -> None:
    """Make ``folder`` with its manifest, all of it durable and its owner's alone."""
    folder.mkdir(mode=0o700)
    (folder / "train").mkdir(mode=0o700)
    entries = []
    for name, data in contents.items():
        write_new(folder / name, data)
        entries.append(manifest.Entry(name, len(data), hashlib.sha256(data).hexdigest()))
    fsync_directory(folder / "train")
    write_new(folder / MANIFEST, manifest.text(step, entries).encode("utf-8"))
    fsync_directory(folder)


def _optimizer_tensors(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """Moments and step counts by parameter index, on the CPU."""
    return {
        f"{index}.{key}": value.detach().cpu().contiguous()
        for index, state in optimizer.state_dict()["state"].items()
        for key, value in state.items()
    }


def _restore_optimizer(
    optimizer: torch.optim.Optimizer,
    tensors: Mapping[str, Tensor],
    saved: Sequence[Mapping[str, Any]],
) -> None:
    """Put moments and the settings of the parameter groups in place.

    Args:
        saved: the groups, as JSON has them; checkpoints of earlier versions have none.
    """
    state: dict[int, dict[str, Tensor]] = {}
    for name, tensor in tensors.items():
        index, _, key = name.partition(".")
        state.setdefault(int(index), {})[key] = tensor
    groups = optimizer.state_dict()["param_groups"]
    for group, values in zip(groups, saved, strict=False):
        # JSON has no tuples, and betas are one.
        group |= {
            key: tuple(value) if isinstance(group.get(key), tuple) else value
            for key, value in values.items()
        }
    optimizer.load_state_dict({"state": state, "param_groups": groups})

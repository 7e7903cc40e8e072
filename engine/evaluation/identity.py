"""What a checkpoint is, whatever it is called: digests of its files, and the base it belongs to.

Light: no torch.
"""

import hashlib
import shutil
from collections.abc import Sequence
from pathlib import Path

from engine.errors import UserError
from engine.evaluation.context import Evaluated
from engine.runs import checkpoint_names, manifest
from engine.runs.checkpoint_names import ADAPTER, ADAPTER_CONFIG, BASE, NamedCheckpoint
from engine.runs.directory import RunDirectory
from engine.runs.durable import fsync_file
from engine.runs.stage1 import read_facts
from engine.text import one_line


def evaluated(
    names: Sequence[str], run: RunDirectory, *, model: str, base: Path
) -> tuple[Evaluated, ...]:
    """The base model, and the checkpoints that ``names`` mean; one named twice stands there once.

    Args:
        run: the run whose worker predicts.
        model: id of its base model.
        base: the folder of that model.

    Raises:
        UserError: no such checkpoint, a damaged one, or one of another base model.
    """
    found = [Evaluated(label=BASE, hash=base_digest(base), step=None, run=None)]
    for text in names:
        named = checkpoint_names.resolve(text, run)
        if named.folder is None:
            _refuse_other_run(named, run, model)
            continue
        _refuse_other_base(named, run, model, base)
        if named.run is not None and (problem := manifest.damage(named.folder)):
            raise UserError(
                f"checkpoint {named.name} of run {named.run.id} is damaged "
                f"({one_line(problem, 80)})",
                fix="evaluate another one",
            )
        one = Evaluated(
            label=one_line(checkpoint_names.pinned(named, run), 400),
            hash=adapter_digest(named.folder),
            step=checkpoint_names.step_of(named.name) if named.run is not None else None,
            run=named.run.id if named.run is not None else None,
            folder=str(named.folder.absolute()),
        )
        if one.hash not in {other.hash for other in found}:
            found.append(one)
    return tuple(found)


def adapter_digest(folder: Path) -> str:
    """SHA-256 over those of an adapter's weights and of their configuration."""
    return _digest([folder / ADAPTER, folder / ADAPTER_CONFIG])


def base_digest(folder: Path) -> str:
    """SHA-256 over those of a base model's weight files, configuration and tokenizer."""
    return _digest(
        [*sorted(folder.glob("*.safetensors")), folder / "config.json", folder / "tokenizer.json"]
    )


def keep(checkpoints: Sequence[Evaluated], folder: Path) -> None:
    """Copy the adapters into an evaluation's ``folder``: training removes old checkpoints.

    Raises:
        UserError: one was removed or replaced meanwhile.
    """
    for one in checkpoints:
        if one.folder is None:
            continue
        copy = kept(one, folder)
        copy.mkdir(parents=True)
        try:
            for name in (ADAPTER, ADAPTER_CONFIG):
                shutil.copyfile(Path(one.folder) / name, copy / name)
                fsync_file(copy / name)
        except FileNotFoundError as error:
            raise _gone(one) from error
        if adapter_digest(copy) != one.hash:
            raise _gone(one)


def kept(one: Evaluated, folder: Path) -> Path:
    """Where an evaluation's ``folder`` keeps the adapter of a checkpoint."""
    return folder / "checkpoints" / one.hash


def check_kept(one: Evaluated, folder: Path) -> Path:
    """The same, once it is what it was.

    Raises:
        UserError: it is not.
    """
    copy = kept(one, folder)
    if not (copy / ADAPTER).is_file() or adapter_digest(copy) != one.hash:
        raise UserError(
            f"the copy of checkpoint {one_line(one.label, 80)} is not what it was when this "
            "evaluation began",
            where=one_line(str(copy)),
            fix="begin a new evaluation",
        )
    return copy


def _gone(one: Evaluated) -> UserError:
    return UserError(
        f"checkpoint {one_line(one.label, 80)} was removed just now by the run that trains",
        fix="name a newer one",
    )


def _digest(files: Sequence[Path]) -> str:
    lines = [f"{file.name} {checkpoint_names.sha256(file)}" for file in files if file.is_file()]
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def _refuse_other_base(named: NamedCheckpoint, run: RunDirectory, model: str, base: Path) -> None:
    _refuse_other_run(named, run, model)
    assert named.folder is not None
    trained_on = read_facts(named.folder).base_model
    if named.run is None and trained_on and not _is_called(trained_on, model, base):
        raise UserError(
            f"this adapter was trained on {one_line(trained_on, 80)}, and run {run.id} evaluates "
            f"with {one_line(model, 80)}",
            where=one_line(str(named.folder)),
            fix="name a run of the same base model",
        )


def _refuse_other_run(named: NamedCheckpoint, run: RunDirectory, model: str) -> None:
    if named.run is None or named.run == run:
        return
    other = named.run.config().model.id
    if other != model:
        raise UserError(
            f"run {named.run.id} trains {one_line(other, 60)}, and run {run.id} evaluates with "
            f"{one_line(model, 60)}",
            fix="evaluate checkpoints of one base model together",
        )


def _is_called(name: str, model: str, base: Path) -> bool:
    """Whether an adapter's word for its base means this one: its id, its folder, its snapshot."""
    folder = Path(name)
    in_hub_cache = f"models--{model.replace('/', '--')}" in folder.parts
    return name == model or folder == base or folder.name == base.name or in_hub_cache

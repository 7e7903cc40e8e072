"""``export``: a checkpoint as an adapter, or merged into its base model."""

import contextlib
from pathlib import Path
from typing import Any

from engine.config import ModelConfig
from engine.errors import UserError
from engine.policy.quiet import quieten_libraries
from engine.policy.source import ensure_model, local_folder
from engine.runs import checkpoint_names, manifest
from engine.runs.checkpoint_names import NamedCheckpoint
from engine.runs.directory import RunDirectory
from engine.runs.status import read_history
from engine.text import one_line
from stonk_tui.commands.output import note, say, say_json
from stonk_tui.commands.progress import progress_display


def export(name: str, form: str, out: Path, *, as_json: bool) -> None:
    """Write the checkpoint called ``name`` into the folder ``out``.

    Args:
        name: see ``engine.runs.checkpoint_names``.
        form: ``adapter`` or ``merged``.
        out: a folder that is empty or not there yet.
        as_json: print JSON.

    Raises:
        UserError: no such checkpoint, a damaged one, or one of no run; ``out`` holds something.
    """
    checkpoint = checkpoint_names.resolve(name)
    folder, run = _checked(checkpoint)
    out = out.expanduser().absolute()
    quieten_libraries()
    # torch comes with this import.
    from engine.policy import export as exporting

    exporting.refuse_full(out)
    trained_on = _trained_on(run)
    # Without a terminal, progress is lines on stdout, where the JSON goes.
    with contextlib.nullcontext(_say_nothing) if as_json else progress_display() as progress:
        base = ensure_model(trained_on.id, progress=progress)
        if form == "adapter":
            is_hub = local_folder(trained_on.id) is None and "/" in trained_on.id
            base_id = trained_on.id if is_hub else str(base)
            done = exporting.export_adapter(folder, base, out, base_id=base_id)
        else:
            done = exporting.export_merged(
                folder, base, out, trained_on=trained_on, progress=progress
            )
    found: dict[str, Any] = {
        "run": run.id,
        "checkpoint": checkpoint.name,
        "as": form,
        "out": str(out),
        "files": list(done.files),
        "rank": done.rank,
        "trained_on_4_bits": trained_on.quantize == "nf4",
    }
    if done.largest_difference is not None:
        found["largest_logprob_difference"] = done.largest_difference
    if as_json:
        say_json(found)
    else:
        _print(found)


def _say_nothing(phase: str, done: int, total: int) -> None:
    """Progress that nobody is shown."""


def _print(found: dict[str, Any]) -> None:
    say(f"{found['run']}:{found['checkpoint']} as {found['as']} in {one_line(found['out'])}")
    difference = found.get("largest_logprob_difference")
    if difference is None:
        say(f"one adapter of rank {found['rank']}; it is the policy itself")
        return
    say(
        f"largest difference of a token's log-probability from the policy: {difference:.2g} nats, "
        "on fixed prompts"
    )
    if found["trained_on_4_bits"]:
        note(
            "the adapter was trained on a 4-bit base, so the merged 16-bit model is not the same "
            "policy; evaluate it, or export the adapter"
        )


def _checked(checkpoint: NamedCheckpoint) -> tuple[Path, RunDirectory]:
    """The folder of a sound checkpoint and the run whose configuration says its base."""
    if checkpoint.folder is None:
        raise UserError("the base model has no adapter to export", where="--checkpoint")
    if checkpoint.run is None:
        raise UserError(
            "this folder belongs to no run, so its base model is not known",
            where=one_line(str(checkpoint.folder)),
            fix="name a checkpoint of a run",
        )
    if problem := manifest.damage(checkpoint.folder):
        raise UserError(
            f"this checkpoint is damaged: {problem}",
            where=str(checkpoint.folder),
            fix="export another one",
        )
    return checkpoint.folder, checkpoint.run


def _trained_on(run: RunDirectory) -> ModelConfig:
    """Base model of ``run`` with the number format that ``auto`` stood for when it trained."""
    model = run.config().model
    facts = read_history(run).facts
    changes = {"device": "cpu"}
    if "quantized" in facts:
        changes["quantize"] = "nf4" if facts["quantized"] else "none"
    names = {"bfloat16": "bf16", "float16": "fp16", "float32": "fp32"}
    if dtype := names.get(facts.get("dtype", "")):
        changes["dtype"] = dtype
    return model.model_copy(update=changes)

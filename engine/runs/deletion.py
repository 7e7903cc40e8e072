"""Delete a run for good: what that would take away and break, and doing it.

Only folders that lie directly in the folder of runs are deleted, never a run whose worker lives,
and links inside a run are removed, never followed.
"""

import os
import shutil
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from engine.errors import UserError
from engine.runs import checkpoint_names, directory, stage1
from engine.runs.directory import RunDirectory
from engine.runs.durable import fsync_directory
from engine.runs.home import runs_directory
from engine.text import one_line


@dataclass(frozen=True)
class Deletion:
    """What a person should see before a run is gone."""

    run: RunDirectory
    size: int
    """Bytes on disk."""
    num_checkpoints: int
    consequences: tuple[str, ...]
    """What will not work any more elsewhere, a sentence each."""

    @property
    def contents(self) -> str:
        """What is in the folder, in a few words."""
        plural = "" if self.num_checkpoints == 1 else "s"
        return f"{self.num_checkpoints} checkpoint{plural}, {self.size / 1e6:.1f} MB"


def plan(run: RunDirectory) -> Deletion:
    """What deleting ``run`` would do; changes nothing.

    Raises:
        UserError: a worker is at it, it lies elsewhere or is a link, or another run needs it.
    """
    _refuse_wrong_place(run)
    _refuse_living(run)
    consequences = []
    for child in directory.list_runs():
        if child.path != run.path and (promotion := _record(child)).get("parent") == run.id:
            if why := _needs(child, promotion, run):
                raise UserError(
                    f"run {run.id} cannot be deleted: {child.id} was promoted from it, and {why}",
                    fix=f"delete {child.id} first",
                )
            consequences.append(
                f"{child.id} was promoted from it; it has its own copy of the policy and goes on, "
                "but this checkpoint cannot be promoted again."
            )
    return Deletion(
        run=run,
        size=_size(run.path),
        num_checkpoints=len(checkpoint_names.names(run)),
        consequences=tuple(consequences),
    )


def delete(run: RunDirectory) -> None:
    """Delete ``run``, once more checked like ``plan``.

    Raises:
        UserError: see ``plan``, or a part of it cannot be removed.
    """
    plan(run)
    # Held until it is gone, so that no worker starts on it meanwhile.
    with run.locked():
        _refuse_living(run)
        try:
            # Without this file it is no run any more: nobody meets half of one.
            (run.path / "run.yaml").unlink()
            fsync_directory(run.path)
            shutil.rmtree(run.path)
        except OSError as error:
            raise UserError(
                f"run {run.id} could not be deleted whole: {error.strerror}",
                where=one_line(str(error.filename or run.path)),
                fix="remove what is left of it by hand",
            ) from error


def _refuse_wrong_place(run: RunDirectory) -> None:
    home = runs_directory()
    if run.path.parent.absolute() != home.absolute():
        raise UserError(
            f"{run.id} does not lie in the folder of runs",
            where=one_line(str(run.path)),
            fix=f"only what lies in {one_line(str(home))} is deleted here",
        )
    if not stat.S_ISDIR(run.path.lstat().st_mode):
        raise UserError(
            f"{run.id} is a link to a run that lies elsewhere",
            where=one_line(str(run.path)),
            fix="remove the link by hand",
        )


def _refuse_living(run: RunDirectory) -> None:
    if run.worker() is not None:
        raise UserError(
            f"run {run.id} is at work and is not deleted",
            fix=f"end it first with `stonk-tui stop {run.id}`",
        )


def _record(run: RunDirectory) -> dict[str, Any]:
    try:
        return stage1.record(run) or {}
    except UserError:
        # Whatever it was promoted from, it does not say so any more.
        return {}


def _needs(child: RunDirectory, promotion: dict[str, Any], parent: RunDirectory) -> str:
    """Why ``child`` cannot do without the files of ``parent``; empty when it can."""
    hashes = promotion.get("files")
    inside = parent.path.resolve()
    for name in stage1.FILES:
        file = child.stage1 / name
        if file.resolve().is_relative_to(inside):
            return "its policy is a link into this run"
        if not isinstance(hashes, dict) or not file.is_file():
            return "its own copy of the policy is not whole"
        if checkpoint_names.sha256(file) != hashes.get(name):
            return "its own copy of the policy is damaged"
    return ""


def _size(path: Path) -> int:
    """Bytes of the files under ``path``; links count as themselves."""
    total = 0
    for folder, _, files in os.walk(path):
        for name in files:
            try:
                total += os.lstat(os.path.join(folder, name)).st_size
            except OSError:
                continue
    return total

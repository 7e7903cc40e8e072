"""From Stage I to Stage II: what a promotion would do, and doing it.

A person decides; the four indicators are shown and, where not all of them are on, a reason is
asked for and recorded. A promotion makes a run of its own that holds all it needs (see
``engine.runs.stage1``), prepared and not started, its configuration open to editing.
"""

import json
import platform
import time
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from engine.config import RunConfig
from engine.errors import UserError
from engine.evaluation.baselines import SIMPLE
from engine.runs import checkpoint_names, directory, launcher, live_settings, manifest, stage1
from engine.runs.checkpoint_names import ADAPTER, ADAPTER_CONFIG, PROMOTED
from engine.runs.directory import RunDirectory
from engine.runs.durable import fsync_directory, write_atomically, write_new
from engine.runs.history import History
from engine.runs.home import home
from engine.runs.second_stage import Change, differences, second_stage
from engine.runs.status import read_history
from engine.task import Json
from engine.text import one_line

_INDICATORS = 4
_RECORD_MODE = 0o444


@dataclass(frozen=True)
class Candidate:
    """A checkpoint that could be promoted, with the validation made at its step."""

    name: str
    step: int
    is_best: bool
    validation_reward: float | None
    accuracy: float | None
    accuracy_low: float | None
    accuracy_high: float | None
    accuracy_n: int | None
    baseline: float | None
    """Accuracy of the best simple baseline on the same rows."""


@dataclass(frozen=True)
class PromotionPlan:
    """Everything that a person should see before deciding."""

    parent: RunDirectory | None
    """The Stage I run; None for an adapter that was trained elsewhere."""
    checkpoint: str
    """Name in the parent, or the folder of an adapter that was trained elsewhere."""
    folder: Path
    sha256: str
    """Of the adapter's weights."""
    indicators: tuple[Mapping[str, Any], ...]
    """The parent's four, newest; fewer where they are not known."""
    candidates: tuple[Candidate, ...]
    """The parent's checkpoints, oldest first."""
    config: RunConfig
    """The Stage II configuration."""
    changes: tuple[Change, ...]
    """What it changes in the parent's."""
    existing: RunDirectory | None
    """The run that this very promotion made before."""

    @property
    def is_earned(self) -> bool:
        """Whether all four indicators are on."""
        on = [indicator for indicator in self.indicators if indicator.get("on")]
        return len(self.indicators) == len(on) == _INDICATORS

    @property
    def missing(self) -> str:
        """The indicators that are off, in words."""
        if len(self.indicators) < _INDICATORS:
            return "the four indicators are not known"
        off = [_in_words(one) for one in self.indicators if not one.get("on")]
        return f"not all indicators are on: {', '.join(off)}"


def plan(run: RunDirectory, checkpoint: str = "best") -> PromotionPlan:
    """What promoting ``checkpoint`` of the Stage I run ``run`` would do; changes nothing.

    Args:
        run: the parent.
        checkpoint: ``best``, ``last`` or ``step-N``.

    Raises:
        UserError: no such checkpoint, a damaged one, or a run that is Stage II already.
    """
    started = run.config()
    if started.stage != "I":
        raise UserError(
            f"run {run.id} is Stage II already", fix="promote a checkpoint of a Stage I run"
        )
    found = checkpoint_names.resolve(checkpoint, run)
    if found.folder is None or found.run != run:
        raise UserError(
            f"{one_line(checkpoint, 60)} is no checkpoint of run {run.id}",
            fix="use best, last or step-N",
        )
    if problem := manifest.damage(found.folder):
        raise UserError(
            f"checkpoint {found.name} is damaged: {problem}",
            where=str(found.folder),
            fix="choose another one",
        )
    stage1.read_facts(found.folder)
    digest = checkpoint_names.sha256(found.folder / ADAPTER)
    history = read_history(run)
    changed = [one for one in history.settings if one.step <= checkpoint_names.step_of(found.name)]
    config = live_settings.in_force(started, live_settings.newest(changed))
    second = second_stage(config)
    return PromotionPlan(
        parent=run,
        checkpoint=found.name,
        folder=found.folder,
        sha256=digest,
        indicators=tuple(history.milestones),
        candidates=_candidates(run, history),
        config=second,
        changes=differences(config, second),
        existing=_existing(run.id, found.name, digest),
    )


def plan_adapter(folder: Path, config: RunConfig) -> PromotionPlan:
    """What promoting an adapter that was trained elsewhere would do; changes nothing.

    Args:
        folder: holds ``adapter_model.safetensors`` and ``adapter_config.json``.
        config: of the Stage I run that never was: model, data and lengths.

    Raises:
        UserError: it is no plain LoRA adapter, or ``config`` is Stage II.
    """
    if config.stage != "I":
        raise UserError("name a Stage I preset: Stage II is made from it", where="--preset")
    folder = folder.expanduser().absolute()
    if not folder.is_dir():
        raise UserError("there is no such adapter folder", where=one_line(str(folder)))
    if not stage1.read_facts(folder).base_model:
        raise UserError(
            "no base model is named",
            where=one_line(f"{folder / ADAPTER_CONFIG}:base_model_name_or_path"),
        )
    digest = checkpoint_names.sha256(folder / ADAPTER)
    second = second_stage(config)
    return PromotionPlan(
        parent=None,
        checkpoint=str(folder),
        folder=folder,
        sha256=digest,
        indicators=(),
        candidates=(),
        config=second,
        changes=differences(config, second),
        existing=_existing(None, str(folder), digest),
    )


def promote(plan: PromotionPlan, *, reason: str = "", forced: bool = False) -> RunDirectory:
    """Write the Stage II run of ``plan``, prepared; the run of an earlier time if there is one.

    Args:
        plan: from ``plan`` or ``plan_adapter``.
        reason: why, in the person's words; kept in the record.
        forced: go on although not all four indicators are on; needs a reason.

    Raises:
        UserError: an indicator is off and nobody forced it, another promotion is being written,
            the checkpoint is gone, or the run cannot be written.
    """
    parent = plan.parent.id if plan.parent else None
    with directory.exclusive(home() / "promotion.lock") as acquired:
        if not acquired:
            raise UserError("another promotion is being written", fix="try again")
        if existing := _existing(parent, plan.checkpoint, plan.sha256):
            return existing
        reason = one_line(reason, 1000)
        if not plan.is_earned and not (forced and reason):
            raise UserError(plan.missing, fix="promote all the same with --force --reason TEXT")

        def fill(run: RunDirectory) -> None:
            _copy(plan, run)
            record = _record(plan, run, reason=reason, forced=forced and not plan.is_earned)
            write_atomically(run.promotion, json.dumps(record, indent=1))
            run.promotion.chmod(_RECORD_MODE)
            if plan.parent is not None:
                # Rotation leaves a checkpoint with this file alone.
                write_atomically(plan.folder / PROMOTED, f"{run.id}\n")

        return directory.create(plan.config, fill=fill)


def start(run: RunDirectory) -> None:
    """Start the worker of a prepared run.

    Raises:
        UserError: see ``launcher.relaunch``.
    """
    launcher.relaunch(run)


def _existing(parent: str | None, checkpoint: str, digest: str) -> RunDirectory | None:
    wanted = {"parent": parent, "checkpoint": checkpoint, "sha256": digest}
    for run in directory.list_runs():
        try:
            record = stage1.record(run)
        except UserError:
            continue  # A record that cannot be read is that of no promotion known here.
        if record is not None and all(record.get(key) == value for key, value in wanted.items()):
            return run
    return None


def _record(
    plan: PromotionPlan, run: RunDirectory, *, reason: str, forced: bool
) -> dict[str, Json]:
    return {
        "parent": plan.parent.id if plan.parent else None,
        "checkpoint": plan.checkpoint,
        "sha256": plan.sha256,
        "files": {name: checkpoint_names.sha256(run.stage1 / name) for name in stage1.FILES},
        "model": plan.config.model.id,
        "indicators": [dict(indicator) for indicator in plan.indicators],
        "forced": forced,
        "reason": reason,
        "time": time.time(),
        "versions": {"python": platform.python_version()}
        | {name: _version(name) for name in ("stonk-tui", "torch", "transformers", "peft")},
    }


def _copy(plan: PromotionPlan, run: RunDirectory) -> None:
    """Copy the adapter's two files into ``run``.

    Raises:
        UserError: they are not those of the plan any more.
    """
    run.stage1.mkdir(mode=0o700)
    for name in stage1.FILES:
        try:
            content = (plan.folder / name).read_bytes()
        except FileNotFoundError as error:
            raise _changed(plan) from error
        write_new(run.stage1 / name, content)
        (run.stage1 / name).chmod(_RECORD_MODE)
    fsync_directory(run.stage1)
    if checkpoint_names.sha256(run.stage1 / ADAPTER) != plan.sha256:
        raise _changed(plan)


def _changed(plan: PromotionPlan) -> UserError:
    return UserError(
        f"{one_line(plan.checkpoint)} has changed since it was looked at",
        where=one_line(str(plan.folder)),
        fix="promote again",
    )


def _candidates(run: RunDirectory, history: History) -> tuple[Candidate, ...]:
    on_disk = set(checkpoint_names.names(run))

    def validated(metric: str, step: int) -> float | None:
        series = history.series.get(f"validation/{metric}")
        return dict(zip(series.steps, series.values, strict=True)).get(step) if series else None

    found = []
    for point in history.checkpoints:
        if point.name in on_disk:
            count = validated("accuracy/n", point.step)
            baselines = [validated(f"baseline/{name}", point.step) for name in SIMPLE]
            found.append(
                Candidate(
                    name=point.name,
                    step=point.step,
                    is_best=point.name == history.best,
                    validation_reward=point.validation_reward,
                    accuracy=validated("accuracy", point.step),
                    accuracy_low=validated("accuracy/low", point.step),
                    accuracy_high=validated("accuracy/high", point.step),
                    accuracy_n=None if count is None else int(count),
                    baseline=max((one for one in baselines if one is not None), default=None),
                )
            )
    return tuple(found)


def _in_words(indicator: Mapping[str, Any]) -> str:
    value, name = indicator.get("value"), one_line(str(indicator.get("name")), 40)
    shown = "unknown" if value is None else f"{value:.3g}"
    return f"{name} {shown} (threshold {indicator.get('threshold')})"


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None

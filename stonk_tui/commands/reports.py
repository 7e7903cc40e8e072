"""``runs``, ``status``, ``doctor``: facts for a person or, with ``--json``, for a script."""

import datetime as dt
import json
from dataclasses import replace
from typing import Any

import typer

from engine.errors import UserError
from engine.presets import EMBEDDED_MODEL
from engine.runs import directory
from engine.runs.directory import RunDirectory
from engine.runs.home import home
from engine.runs.live_settings import written
from engine.runs.status import status
from engine.text import one_line
from stonk_tui.commands.output import duration, say, say_json, table

_LISTED = (
    "run",
    "path",
    "state",
    "detail",
    "stage",
    "model",
    "source",
    "device",
    "step",
    "max_steps",
    "attempt",
    "started",
    "updated",
    "best",
)


def print_runs(*, as_json: bool) -> None:
    """All runs, newest first; one that cannot be read is listed with the reason."""
    listed = [_listed(run) for run in directory.list_runs()]
    if as_json:
        say_json(listed)
        return
    if not listed:
        say("no run yet; start one with `stonk-tui demo`")
        return
    header = ("RUN", "STATE", "STEP", "REWARD", "MODEL", "UPDATED")
    rows = [
        (
            row["run"],
            row["state"],
            _steps(row),
            f"{row['reward']:+.3f}" if row["reward"] is not None else "",
            row["model"] or "",
            _when(row["updated"]),
        )
        for row in listed
    ]
    say(table(header, rows))
    for row in listed:
        if row["state"] == "unreadable":
            say(f"{row['run']}: {one_line(row['detail'])}")


def print_status(name: str | None, *, as_json: bool) -> None:
    """Where the run called ``name`` stands.

    Raises:
        UserError: no such run, or it cannot be read.
    """
    found = status(directory.find(name))
    if as_json:
        say_json(found)
    else:
        say(_status_text(found))


def print_doctor(model: str | None, *, deep: bool, as_json: bool) -> None:
    """What this machine can do with ``model``, the embedded one if left out.

    Raises:
        Exit: with 1 where a check of ``deep`` failed.
    """
    from stonk_tui import doctor

    report = doctor.collect(model or EMBEDDED_MODEL, home())
    has_failed = False
    if deep:
        from stonk_tui.commands.progress import progress_display
        from stonk_tui.doctor.deep import collect

        with progress_display() as progress:
            found = collect(home(), progress)
        has_failed = any(finding.level == "error" for finding in found)
        report = replace(report, findings=[*report.findings, *found])
    if as_json:
        say_json(json.loads(report.to_json()))
    else:
        say(doctor.render(report))
    if has_failed:
        raise typer.Exit(1)


def _listed(run: RunDirectory) -> dict[str, Any]:
    try:
        found = status(run)
    except UserError as error:
        empty = dict.fromkeys([*_LISTED, "reward"], None)
        return empty | {
            "run": run.id,
            "path": str(run.path),
            "state": "unreadable",
            "detail": str(error),
        }
    return {key: found[key] for key in _LISTED} | {"reward": found["metrics"].get("reward/total")}


def _status_text(found: dict[str, Any]) -> str:
    metrics = found["metrics"]
    state = found["state"].replace("_", " ")
    rows = [
        ("run", found["run"]),
        ("state", f"{state}{': ' + found['detail'] if found['detail'] else ''}"),
        ("stage", f"{found['stage']}, model {found['model']} on {found['device'] or 'no device'}"),
        ("step", _steps(found)),
    ]
    if found["eta_seconds"] is not None:
        rows.append(("ETA", duration(found["eta_seconds"])))
    if progress := found["progress"]:
        share = f" {progress['done'] / progress['total']:.0%}" if progress["total"] else ""
        rows.append(("at", f"{progress['task']}{share} {progress['detail']}"))
    rows += [
        ("alarm", f"{alarm['title']}, since step {alarm['since_step']}")
        for alarm in found["alarms"]
    ]
    rows += [(name, _metric(name, value)) for name, value in sorted(metrics.items())]
    rows += [
        (
            f"setting {one['name']}",
            f"{written(one['value'])}, started with {written(one['started'])}, "
            f"changed at step {one['changes'][-1]['step']}",
        )
        for one in found["settings"]
        if one["changes"]
    ]
    for milestone in found["milestones"]:
        value = milestone.get("value")
        shown = "unknown" if value is None else f"{value:.4g}"
        lamp = "on" if milestone.get("on") else "off"
        text = (
            f"{lamp}, {shown} of {milestone.get('threshold')}, "
            f"streak {milestone.get('streak')} of {milestone.get('needed', '?')}"
        )
        why = f" ({milestone['why']})" if milestone.get("why") else ""
        rows.append((f"milestone {milestone.get('name')}", text + why))
    if found["power"] is not None:
        rows.append(("power level", str(found["power"])))
    for checkpoint in found["checkpoints"]:
        star = ", best" if checkpoint["name"] == found["best"] else ""
        rows.append(("checkpoint", f"{checkpoint['name']}{star}"))
    rows += [("worker", str(found["pid"] or "none")), ("updated", _when(found["updated"]))]
    rows.append(("path", found["path"]))
    width = max(len(name) for name, _ in rows)
    return "\n".join(f"{one_line(name):<{width}}  {one_line(text, 4000)}" for name, text in rows)


def _metric(name: str, value: float) -> str:
    return written(value) if name == "learning_rate" else f"{value:.4g}"


def _steps(found: dict[str, Any]) -> str:
    if found["step"] is None:
        return ""
    return f"{found['step']}/{found['max_steps']}" if found["max_steps"] else str(found["step"])


def _when(seconds: float | None) -> str:
    if seconds is None:
        return ""
    return dt.datetime.fromtimestamp(seconds).strftime("%Y-%m-%d %H:%M:%S")

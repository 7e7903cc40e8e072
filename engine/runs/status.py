"""The state of a run as a script sees it (``stonk-tui status --json``)."""

from typing import Any

from engine.config import RunConfig
from engine.runs import live_settings, stage1
from engine.runs.directory import RunDirectory
from engine.runs.history import TERMINAL_STATES, History
from engine.runs.reader import StoreReader
from engine.runs.replay import replay


def read_history(run: RunDirectory) -> History:
    """What the run's store tells; an empty history where there is no store yet.

    In a long run the series hold their newest points alone (``engine.runs.replay``).
    """
    try:
        reader = StoreReader(run.database)
    except FileNotFoundError:
        return History()
    try:
        return replay(reader)[0]
    finally:
        reader.close()


def effective_state(
    run: RunDirectory, history: History, *, alive: bool | None = None
) -> tuple[str, str]:
    """(state, detail): what the events say, corrected by whether the worker lives.

    ``stale`` is a run that its store calls unfinished and whose worker is gone. Who knows
    already whether the worker is ``alive`` says so, and no process is looked up.
    """
    if alive is None:
        alive = run.worker() is not None
    if history.state == "stopped":
        goes_on = f"`stonk-tui train --resume {run.id}` goes on"
        return "stopped", f"{history.detail}; {goes_on}" if history.detail else goes_on
    if history.state in TERMINAL_STATES or alive:
        return history.state, history.detail
    if run.is_prepared:
        return "prepared", f"waits for `stonk-tui train --resume {run.id}`"
    if history.last_seq == 0:
        return "stale", f"its worker ended before it could start; see {run.log}"
    return "stale", f"its worker is gone; `stonk-tui train --resume {run.id}` goes on"


def status(run: RunDirectory) -> dict[str, Any]:
    """Everything ``status --json`` prints; the schema stands in docs/cli.md.

    Raises:
        UserError: the run was written by a newer version, or its files are damaged.
    """
    config = run.config()
    history = read_history(run)
    state, detail = effective_state(run, history)
    process = run.worker()
    return {
        "run": run.id,
        "path": str(run.path),
        "state": state,
        "detail": detail,
        "stage": config.stage,
        "parent": (stage1.record(run) or {}).get("parent"),
        "model": config.model.id,
        "source": config.data.source,
        "device": history.facts.get("device"),
        "step": history.step,
        "max_steps": history.max_steps,
        "epoch": history.epoch,
        "eta_seconds": history.eta_seconds if state == "training" else None,
        "attempt": history.attempt,
        "pid": process.pid if process else None,
        "started": history.started,
        "updated": history.last_time,
        "progress": vars(history.progress) if history.progress else None,
        "metrics": history.metrics,
        "seconds": history.seconds,
        "milestones": history.milestones,
        "power": history.power,
        "alarms": [vars(alarm) for alarm in history.alarms.values()],
        "checkpoints": [vars(checkpoint) for checkpoint in history.checkpoints],
        "best": history.best,
        "settings": settings(config, history),
    }


def settings(started: RunConfig, history: History) -> list[dict[str, Any]]:
    """Every setting that may change while a run trains: value, start, and how it changed."""
    now = live_settings.in_force(started, live_settings.newest(history.settings))
    return [
        {
            "name": setting.name,
            "value": setting.of(now),
            "started": setting.of(started),
            "allowed": setting.allowed,
            "changes": [
                {
                    "step": one.step,
                    "time": one.time,
                    "old": one.change.old,
                    "new": one.change.new,
                    "by": one.by,
                }
                for one in history.settings
                if one.change.name == setting.name
            ],
        }
        for setting in live_settings.SETTINGS
    ]

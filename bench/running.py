"""Runs that a bench starts or finds, and what is in their stores."""

import sys
import time

from engine.config import RunConfig
from engine.runs import directory
from engine.runs.directory import RunDirectory
from engine.runs.history import TERMINAL_STATES
from engine.runs.launcher import launch, relaunch
from engine.runs.reader import Event, StoreReader
from engine.runs.status import effective_state, read_history

_OVER = ("finished", "failed")


def run_to_end(config: RunConfig) -> RunDirectory:
    """Start a run and wait for its end."""
    return wait(launch(config))


def continue_to_end(config: RunConfig) -> RunDirectory:
    """The run of this home with the same configuration, gone on with where it was left.

    One that is finished is taken as it is; where there is none, a new one is started.
    """
    for run in directory.list_runs():
        found = run.config()
        if found.model_copy(update={"model": config.model}) == config:
            if run.worker() is None and read_history(run).state not in _OVER:
                relaunch(run)
            return wait(run)
    return run_to_end(config)


def wait(run: RunDirectory) -> RunDirectory:
    """Wait until ``run`` has finished, with a line for every tenth step.

    Raises:
        SystemExit: it ended in any other way.
    """
    state, detail, shown = "", "", 0
    while state not in (*TERMINAL_STATES, "stale"):
        time.sleep(0.5)
        history = read_history(run)
        state, detail = effective_state(run, history)
        if history.step // 10 > shown:
            shown = history.step // 10
            minutes = (history.eta_seconds or 0) / 60
            print(f"{run.id}  step {history.step}  {minutes:.0f} min left", file=sys.stderr)
    if state != "finished":
        raise SystemExit(f"{run.id} ended as {state}: {detail}\n{run.log.read_text()[-2000:]}")
    return run


def events(run: RunDirectory) -> list[Event]:
    """The whole log of a run."""
    reader = StoreReader(run.database)
    try:
        return reader.events(0, 1_000_000)
    finally:
        reader.close()


def alarms_raised(log: list[Event]) -> list[str]:
    """Names of the alarms that a log raised at any time."""
    return sorted({e.payload["name"] for e in log if e.kind == "alarm" and e.payload["on"]})

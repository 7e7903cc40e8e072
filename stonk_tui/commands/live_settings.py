"""``set``: change settings of a run while it trains, or list those that can change."""

import time
from collections.abc import Sequence
from typing import Any

from engine.errors import RunFailedError
from engine.runs import control, directory, live_settings
from engine.runs.directory import RunDirectory
from engine.runs.live_settings import Change
from engine.runs.status import read_history, settings
from stonk_tui.commands.control import answer
from stonk_tui.commands.output import say, say_json, table


def change(arguments: Sequence[str], timeout: float, *, as_json: bool) -> None:
    """Change settings of a run, all of them or none, and print what that changed.

    Args:
        arguments: the run unless the first is ``key=value``, then ``key=value`` settings; without
            any the settings are listed.
        timeout: seconds to wait for the worker.
        as_json: print JSON.

    Raises:
        UserError: no such run or setting, a value that is refused, or no worker listens.
        RunFailedError: the worker refused, ended, or has not answered in time.
    """
    name, texts = None, list(arguments)
    if texts and "=" not in texts[0]:
        name = texts.pop(0)
    run = directory.find(name)
    wanted = live_settings.parse(texts)
    changes: list[Change] = []
    message = ""
    if wanted:
        started = run.config()
        now = live_settings.newest(read_history(run).settings)
        # What the configuration refuses is wrong input, and is said before anything is sent.
        live_settings.plan(live_settings.in_force(started, now), wanted)
        deadline = time.monotonic() + timeout
        identifier = control.send(run, "set", {"changes": wanted})
        ok, message = answer(run, "set", identifier, deadline)
        if not ok:
            raise RunFailedError(f"run {run.id} did not set it: {message}")
        changes = live_settings.of_command(run, identifier)
    if as_json:
        say_json(_as_json(run, message, changes))
    elif wanted:
        say("\n".join([*map(str, changes), f"{run.id}: {message}"]))
    else:
        say(_listed(run))


def _as_json(run: RunDirectory, message: str, changes: Sequence[Change]) -> dict[str, Any]:
    return {
        "run": run.id,
        "message": message,
        "changes": [vars(one) for one in changes],
        "settings": settings(run.config(), read_history(run)),
    }


def _listed(run: RunDirectory) -> str:
    rows = [
        (
            live_settings.BY_NAME[one["name"]].key,
            live_settings.written(one["value"]),
            live_settings.written(one["started"]),
            one["allowed"],
        )
        for one in settings(run.config(), read_history(run))
    ]
    return table(("SETTING", "NOW", "STARTED WITH", "ALLOWED"), rows)

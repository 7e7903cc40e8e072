"""Export the README's pictures from the real app on a real run: train, probe, promote.

python docs/screenshot.py [RUN]      writes docs/cockpit-train.svg, -probe.svg and -promote.svg

RUN defaults to the newest one of STONK_HOME. It must be a Stage I run with a checkpoint, and
have answered a probe (``stonk-tui probe``). Nothing is asked, promoted or written here but the
pictures.
"""

import asyncio
import sys
from collections.abc import Callable
from pathlib import Path

from textual.pilot import Pilot
from textual.widgets import RadioSet

from engine.errors import UserError
from engine.runs import directory
from engine.runs.directory import RunDirectory
from stonk_tui.app import Cockpit
from stonk_tui.screens.probe import ProbeScreen
from stonk_tui.screens.promote import PromoteScreen
from stonk_tui.settings import Settings

FOLDER = Path(__file__).resolve().parent
SIZE = (120, 40)
_POLLS = 500


async def export(run: RunDirectory) -> None:
    """Open the cockpit on ``run``, go to each of the screens, and save what is on it."""
    # Whoever's settings and terminal these are, the picture has the project's own look.
    app = Cockpit(run, settings=Settings(theme="saiyan"))
    async with app.run_test(size=SIZE) as pilot:
        await _until(pilot, "the run", lambda: _is_read(app))
        model = app.model
        if model is None or not model.history.checkpoints:
            raise UserError(f"{run.id} has no checkpoint to promote")
        if not model.history.probes:
            raise UserError(f"{run.id} has answered no probe", fix=f"`stonk-tui probe {run.id} …`")
        await _save(app, pilot, "train")
        app.perform("probe")
        await _until(pilot, "the probe", lambda: _is_answered(app))
        # Out of the form, whose field would blink.
        app.perform("past")
        await _save(app, pilot, "probe")
        app.perform("train")
        app.perform("promote")
        await _until(pilot, "the plan", lambda: _is_planned(app))
        await _save(app, pilot, "promote")


def _is_read(app: Cockpit) -> bool:
    return app.model is not None and app.model.loaded and app.machine.cpu is not None


def _is_answered(app: Cockpit) -> bool:
    screen = app.screen
    return isinstance(screen, ProbeScreen) and bool(screen.query(".column").exclude(".unused"))


def _is_planned(app: Cockpit) -> bool:
    """Whether the checkpoints are listed; where none can be promoted there is no list."""
    screen = app.screen
    return isinstance(screen, PromoteScreen) and bool(screen.query(RadioSet))


async def _until(pilot: Pilot[None], what: str, is_so: Callable[[], bool]) -> None:
    for _ in range(_POLLS):
        await pilot.pause(0.02)
        if is_so():
            return
    raise UserError(f"{what} could not be read in time")


async def _save(app: Cockpit, pilot: Pilot[None], name: str) -> None:
    # One more frame, so that what was read is drawn.
    await pilot.pause(1.0)
    picture = app.export_screenshot(title="stonk-tui")
    (FOLDER / f"cockpit-{name}.svg").write_text(picture, encoding="utf-8")


if __name__ == "__main__":
    try:
        asyncio.run(export(directory.find(sys.argv[1] if len(sys.argv) > 1 else None)))
    except UserError as error:
        raise SystemExit(str(error)) from None

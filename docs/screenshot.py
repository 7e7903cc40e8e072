"""Export a picture of the cockpit, such as the README's, from the real app on a real run.

python docs/screenshot.py [RUN]      writes docs/cockpit.svg; RUN defaults to the newest
"""

import asyncio
import sys
from pathlib import Path

from engine.runs import directory
from stonk_tui.app import Cockpit

TARGET = Path(__file__).resolve().parent / "cockpit.svg"
SIZE = (120, 40)
_POLLS = 500


async def export(app: Cockpit) -> None:
    """Open the cockpit, wait until history and machine are on screen, save the screen."""
    async with app.run_test(size=SIZE) as pilot:
        for _ in range(_POLLS):
            await pilot.pause(0.02)
            if app.model is not None and app.model.loaded and app.machine.cpu is not None:
                break
        else:
            raise SystemExit("the run could not be read in time")
        # One more frame, so that what was read is drawn.
        await pilot.pause(1.0)
        TARGET.write_text(app.export_screenshot(title="stonk-tui"), encoding="utf-8")


if __name__ == "__main__":
    chosen = directory.find(sys.argv[1] if len(sys.argv) > 1 else None)
    asyncio.run(export(Cockpit(chosen, read_only=True)))

"""Export the picture of the cockpit that the README shows, from a recorded run.

    python docs/screenshot.py            writes docs/cockpit.svg

The run is made up, the app is the real one: nothing in the picture is drawn by hand.
"""

import asyncio
import os
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
SIZE = (120, 40)


async def export(target: Path) -> None:
    """Record a run, open the cockpit on it, save what is on screen."""
    from tests import recorded
    from tests.cockpit.helpers import cockpit, opened

    recording = recorded.new_run("stage1")
    recording.starts(device="cuda:0", device_name="NVIDIA H200")
    recording.is_loaded()
    recording.warms_up()
    recording.state("training")
    recording.trains(228)
    recording.closes()
    recording.run.record_worker()
    app = cockpit(recording.run, now=recording.now)
    async with opened(app, SIZE):
        target.write_text(app.export_screenshot(title="stonk-tui"), encoding="utf-8")


def main() -> None:
    """Keep the person's own runs and time zone out of the picture."""
    sys.path.insert(0, str(ROOT))
    os.environ["TZ"] = "UTC"
    time.tzset()
    with tempfile.TemporaryDirectory() as home:
        os.environ["STONK_HOME"] = home
        asyncio.run(export(ROOT / "docs" / "cockpit.svg"))


if __name__ == "__main__":
    main()

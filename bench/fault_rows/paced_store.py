"""A store that a tiny run fills at a steady pace, faster than it trains."""

import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from engine.runs.store import EventStore
from engine.task import Json


def make(pace: float, steps: float) -> type[EventStore]:
    """A store with ``pace`` events a second, of them at most ``steps`` steps.

    Steps that come sooner wait, as they do when the queue is full; events of progress fill up what
    training does not write.
    """

    class Paced(EventStore):
        def __init__(self, path: Path, **options: Any) -> None:
            super().__init__(path, **options)
            self._written = 0
            self._began = self._stepped = time.monotonic()
            self._ends = threading.Event()
            self._filler = threading.Thread(target=self._fill, name="filler", daemon=True)
            self._filler.start()

        def event(self, kind: str, payload: Mapping[str, Json], *, step: int | None = None) -> None:
            if kind == "step":
                self._stepped = max(self._stepped + 1 / steps, time.monotonic() - 1)
                time.sleep(max(0.0, self._stepped - time.monotonic()))
            self._written += 1
            super().event(kind, payload, step=step)

        def close(self) -> None:
            self._ends.set()
            self._filler.join()
            super().close()

        def _fill(self) -> None:
            while not self._ends.wait(0.05):
                due = round((time.monotonic() - self._began) * pace)
                for number in range(self._written, due):
                    payload: dict[str, Json] = {"task": "filling", "done": number, "total": 0}
                    self.event("progress", payload)

    return Paced

"""Wait for conditions, never for time."""

import threading
import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


def wait_for(condition: Callable[[], T], seconds: float = 60.0) -> T:
    """The first true value of ``condition``.

    Raises:
        TimeoutError: it stayed false for ``seconds``.
    """
    deadline = time.monotonic() + seconds
    pause = threading.Event()
    while not (value := condition()):
        if time.monotonic() > deadline:
            raise TimeoutError(f"still false after {seconds:g} s")
        pause.wait(0.02)
    return value

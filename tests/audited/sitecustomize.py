"""What our code must never do, whatever a test is about: read a pickle, tell a secret.

The first test configuration installs the hook in its own process and puts this folder on the path
of every process that a test starts, where Python imports it at the start under this name. A
pickle counts where our code is among the callers: multiprocessing, xdist and the libraries send
pickles to their own processes, which no file and no person can reach. So a worker whose libraries
read one of a model's or a person's files is caught, since it is our code that asked for it.
"""

import os
import sys
from pathlib import Path
from types import FrameType

ROOT = Path(__file__).resolve().parents[2]
REPORT = "STONK_TEST_AUDIT"
"""Variable that names the file for what was caught."""
PLANTED = "STONK_TEST_TOKEN"
"""Variable that every test has, so that no process is ever started with its value as a word."""

_OURS = (f"{ROOT}/engine/", f"{ROOT}/stonk_tui/")
_TORCH_LOAD = os.path.join("torch", "serialization.py")


class ForbiddenError(RuntimeError):
    """Raised where it happens, so that the test at hand fails."""


def _callers() -> list[FrameType]:
    # From here on: while a program's own file is opened nobody has called.
    frame, found = sys._getframe(), []
    while frame is not None:
        found.append(frame)
        frame = frame.f_back
    return found


def _ours(frames: list[FrameType]) -> str:
    """Where our code is among the callers; empty where it is not."""
    for frame in frames:
        if frame.f_code.co_filename.startswith(_OURS):
            return f"{frame.f_code.co_filename}:{frame.f_lineno}"
    return ""


def _reads_torch_file(frames: list[FrameType]) -> bool:
    return any(
        frame.f_code.co_name == "load" and frame.f_code.co_filename.endswith(_TORCH_LOAD)
        for frame in frames
    )


def _refuse(what: str) -> None:
    if report := os.environ.get(REPORT):
        with open(report, "a", encoding="utf-8") as file:
            file.write(f"{what}\n")
    raise ForbiddenError(what)


def hook(event: str, arguments: tuple[object, ...]) -> None:
    """Told of everything that Python does; looks at three things."""
    if event == "pickle.find_class":
        if place := _ours(_callers()):
            _refuse(f"{place} unpickles {arguments[0]}.{arguments[1]}")
    elif event == "open" and arguments[0] != os.environ.get(REPORT):
        frames = _callers()
        if _reads_torch_file(frames) and (place := _ours(frames)):
            _refuse(f"{place} opens {arguments[0]} with torch.load")
    elif event == "subprocess.Popen":
        secret = os.environ.get(PLANTED)
        if secret and secret in str(arguments[:2]):
            _refuse(f"{arguments[0]} is started with a secret among its words")


if __name__ == "sitecustomize":
    sys.addaudithook(hook)

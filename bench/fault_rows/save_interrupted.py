"""A save that is killed or refused at any of its calls leaves the old checkpoint or the new one.

The save here is whole: a third checkpoint where two are kept, so that one is rotated out, and the
new one is the best. A process that dies is a copy of this one (``fork``), so that nothing is left
of it but what it wrote; whoever comes next goes on in objects made anew. An error strikes in this
process, and the save is tried again.
"""

import errno
import os
import shutil
import stat
import tempfile
from functools import cache
from pathlib import Path

from bench.fault_rows.file_faults import Points, die, fail_with
from bench.fault_rows.row import Outcome, Row
from bench.fault_rows.tiny_training import TinyTraining, config
from engine.config import RunConfig
from engine.errors import RunFailedError
from engine.runs import checkpoint_names, manifest
from engine.runs.directory import RunDirectory
from engine.runs.reader import StoreReader
from engine.training import checkpoints

NUM_POINTS = 44
"""Calls of one save, counted by the first trial in a process."""
KINDS = ("kill", "EIO", "ENOSPC", "full")
"""``full``: there is no room from that call on, where ``ENOSPC`` is met once."""
_STRIDE = 41
"""Has no factor in common with the number of trials, so that a few of them are spread over all."""
_OLD, _NEW = "step-000002", "step-000003"
_KEPT = 2
_TOLD = "told"


def trial(number: int, folder: Path) -> Outcome:
    """One point and one kind of interruption."""
    path = _copy(folder)
    if (found := _num_points()) != NUM_POINTS:
        return Outcome(f"a save makes {found} calls, and {NUM_POINTS} are tried")
    point, kind = divmod(number * _STRIDE % (NUM_POINTS * len(KINDS)), len(KINDS))
    tiny = _resumed(path)
    try:
        problem = _killed(tiny, point) if not kind else _refused(tiny, point, KINDS[kind])
    finally:
        tiny.close()
    return Outcome(f"{KINDS[kind]} at call {point}: {problem}" if problem else "")


def _killed(tiny: TinyTraining, point: int) -> str:
    child = os.fork()
    if child == 0:
        # The store's thread is not in the copy. What is told goes to a file instead.
        run = tiny.run
        tiny.training.store = _Told(run.path / _TOLD)  # type: ignore[assignment]
        try:
            with Points(point, die).acting():
                _save(tiny)
        finally:
            os._exit(0)
    _, status = os.waitpid(child, 0)
    if not os.WIFSIGNALED(status):
        return "it was not killed"
    if problem := _unsound(tiny.run):
        return problem
    is_told = (tiny.run.path / _TOLD).exists()
    if is_told and checkpoint_names.names(tiny.run)[-1] != _NEW:
        return "it was told of, and is not there"
    again = _again(tiny)
    try:
        if again.training.progress.step == 2:
            _train_on(again)
        return _unsound(again.run, finished=True)
    finally:
        again.close()


def _refused(tiny: TinyTraining, point: int, kind: str) -> str:
    """The save meets an error, and is made again."""
    message = ""
    number = errno.EIO if kind == "EIO" else errno.ENOSPC
    with Points(point, fail_with(number), lasting=kind == "full").acting():
        try:
            _save(tiny)
        except RunFailedError as error:
            message = str(error)
    tiny.store.flush()
    if problem := _unsound(tiny.run, told=_told(tiny.run)):
        return problem
    says_what = "free some space" in message or "dmesg" in message
    if message and (len(message.splitlines()) > 1 or not says_what):
        return f"the message is not one line that says what to do: {message!r}"
    _save(tiny)
    if (told := _told(tiny.run).count(_NEW)) != 1:
        return f"it was told of {told} times"
    left = [path.name for path in tiny.run.checkpoints.glob(".tmp-*")]
    return f"{left[0]} was left" if left else _unsound(tiny.run, finished=True)


def _unsound(run: RunDirectory, *, finished: bool = False, told: list[str] | None = None) -> str:
    """What is wrong with the run's checkpoints; empty where nothing is."""
    found = checkpoint_names.names(run)
    for name in found:
        if problem := manifest.damage(run.checkpoints / name):
            return f"{name} is visible and damaged: {problem}"
    if not found or found[-1] not in (_OLD, _NEW):
        return "neither the old checkpoint nor the new one is there"
    if told is not None and _NEW in told and found[-1] != _NEW:
        return "it was told of, and is not there"
    best = checkpoint_names.best(run)
    if best not in found:
        return f"the best checkpoint, {best}, is not there"
    if not finished:
        return ""
    if found[-1] != _NEW or best != _NEW:
        return f"{found[-1]} is the newest and {best} the best in the end"
    for path in [run.checkpoints / _NEW, *(run.checkpoints / _NEW).rglob("*")]:
        mode = stat.S_IMODE(path.stat().st_mode)
        if mode != (0o700 if path.is_dir() else 0o600):
            return f"{path.name} has mode {mode:o}"
    return ""


def _save(tiny: TinyTraining) -> None:
    tiny.training.progress.best_name = _NEW
    tiny.training.save(0.5)


def _train_on(tiny: TinyTraining) -> None:
    """What comes after the checkpoint of step 2: as if its third step were taken again."""
    tiny.training.progress.step = 3
    _save(tiny)


def _resumed(path: Path) -> TinyTraining:
    """A run at step 3 that is not saved yet."""
    tiny = TinyTraining(path, _config())
    name = checkpoints.newest(tiny.run)
    assert name == _OLD
    tiny.training.resume(name)
    tiny.training.progress.step = 3
    return tiny


def _again(tiny: TinyTraining) -> TinyTraining:
    """The worker after the one that was killed."""
    tiny.close()
    again = TinyTraining(tiny.run.path, _config())
    name = checkpoints.newest(again.run)
    assert name is not None
    again.training.resume(name)
    return again


def _told(run: RunDirectory) -> list[str]:
    reader = StoreReader(run.database)
    try:
        return [event.payload["name"] for event in reader.events_of("checkpoint")]
    finally:
        reader.close()


def _copy(folder: Path) -> Path:
    """A run with checkpoints of the steps 0 to 2."""
    return Path(shutil.copytree(_template(), folder / "run"))


@cache
def _template() -> Path:
    folder = Path(tempfile.mkdtemp(prefix="faults-template-")) / "run"
    tiny = TinyTraining(folder, _config())
    tiny.train()
    return folder


@cache
def _num_points() -> int:
    with tempfile.TemporaryDirectory() as folder:
        tiny = _resumed(_copy(Path(folder)))
        points = Points()
        with points.acting():
            _save(tiny)
        tiny.close()
    return len(points.names)


def _config() -> RunConfig:
    return config(
        schedule={"max_steps": 2, "save_every": 1, "eval_every": 100, "keep_checkpoints": _KEPT}
    )


class _Told:
    """Stands for the store in a process that is going to die: an event is a file."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def event(self, kind: str, payload: object, *, step: int | None = None) -> None:
        if kind == "checkpoint":
            self._path.touch()

    def flush(self, *, patient: bool = True) -> bool:
        """Nothing is held back."""
        return True


ROWS = (
    Row(
        name="save-interrupted",
        passes="the old checkpoint or the new one is valid, and the next save is whole",
        trials=NUM_POINTS * len(KINDS),
        short=16,
        trial=trial,
    ),
)

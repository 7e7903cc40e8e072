"""Find everything that can be wrong before a run exists, fetch the model, then launch.

Whatever is refused here leaves nothing behind: no run directory, no worker. Only a download is
kept, to go on with.
"""

import shutil
import signal
from collections.abc import Callable
from types import FrameType

from engine import config as configuration
from engine.config import RunConfig
from engine.errors import UserError
from engine.policy.source import ensure_model, local_folder
from engine.runs import devices, directory, filesystem, launcher, session, stage1
from engine.runs.directory import RunDirectory
from engine.runs.home import home
from engine.runs.status import read_history
from engine.text import one_line
from stonk_tui.commands.output import note
from stonk_tui.commands.progress import progress_display

_FREE_BYTES = 1 << 30
"""Asked of the disk that holds runs: events, and adapters with their optimiser state."""


def start(config: RunConfig, *, allow_code: bool = False) -> RunDirectory:
    """Check, fetch and launch a new run.

    Args:
        allow_code: whether the person says that the reward components of their own may run.

    Raises:
        UserError: bad device, data source, scheme or model, components that may not run, no
            space, or no network where one is needed.
    """
    if config.stage == "II":
        raise stage1.needs_promotion()
    config = anchored(config, allow_code=allow_code)
    _check(config)
    return _launch_whole(lambda: launcher.launch(config))


def make(config: RunConfig, *, allow_code: bool = False) -> RunDirectory:
    """Check settings and data, and make a run that waits to be started; fetches no model.

    Args:
        allow_code: see ``start``.

    Raises:
        UserError: see ``start``; device and model are looked at when it is started.
    """
    if config.stage == "II":
        raise stage1.needs_promotion()
    config = anchored(config, allow_code=allow_code)
    _check_home()
    _check_data(config)
    return directory.prepare(config)


def anchored(config: RunConfig, *, allow_code: bool = False) -> RunConfig:
    """``config`` as a run keeps it: what it names by a place is absolute, its scheme is frozen.

    A run is resumed from other folders too, and a file may change after the run was created.

    Raises:
        UserError: a folder of a model that is not there, a bad scheme, or reward components
            that are missing or may not run.
    """
    from engine.market import sources
    from engine.rewards import choice

    folder = local_folder(config.model.id)
    changes = {
        "model": {"id": str(folder) if folder else config.model.id},
        # The worker starts in a folder of its own.
        "data": {"source": sources.absolute(config.data.source)},
    }
    reward = choice.freeze(config.reward, allow_code=allow_code)
    return configuration.with_changes(config, changes).model_copy(update={"reward": reward})


def restart(run: RunDirectory, *, allow_code: bool = False) -> RunDirectory:
    """Check and launch a new worker on ``run``; a prepared one may have been edited.

    Args:
        allow_code: see ``start``; what was allowed when the run was created needs no second time.

    Raises:
        UserError: see ``start``.
    """
    if run.is_prepared:
        run.write_config(anchored(run.config(), allow_code=allow_code))
    elif allow_code:
        from engine.rewards import custom

        custom.allow(run.config().reward.components)
    _check(run.config())

    def relaunch() -> RunDirectory:
        launcher.relaunch(run)
        return run

    return _launch_whole(relaunch)


def check_resumable(run: RunDirectory) -> int:
    """How many workers the run has had.

    Raises:
        UserError: a worker is at it, all its steps are done, or it cannot be read.
    """
    run.config()
    if run.worker() is not None:
        raise UserError(
            f"run {run.id} is at work already", fix=f"watch it with `stonk-tui attach {run.id}`"
        )
    history = read_history(run)
    if history.max_steps is not None and history.step >= history.max_steps:
        raise UserError(
            f"run {run.id} has done all its {history.max_steps} steps",
            fix=f"look at it with `stonk-tui attach {run.id}`, or start a new one",
        )
    return history.attempt


def _check(config: RunConfig) -> None:
    _check_home()
    device = devices.resolve(config.model.device)
    launcher.refuse_busy_device(device)
    if others := devices.others_on(device):
        note(one_line(others))
    outlook = session.survival(session.look())
    if outlook.level == "warning":
        note(f"{outlook.message}; {outlook.fix}")
    _check_data(config)
    with progress_display() as progress:
        ensure_model(config.model.id, progress=progress)


def _check_data(config: RunConfig) -> None:
    from engine.direction_call import DirectionCall

    DirectionCall.from_config(config)


def _check_home() -> None:
    place = home()
    try:
        place.mkdir(parents=True, exist_ok=True)
        free = shutil.disk_usage(place).free
        # The first write: a folder that exists may still belong to someone else.
        (place / "devices").mkdir(exist_ok=True)
    except OSError as error:
        raise UserError(
            f"runs cannot be kept here: {error.strerror}",
            where=one_line(str(place)),
            fix="set STONK_HOME to a folder you can write to",
        ) from error
    filesystem.refuse_unfit(place)
    if free < _FREE_BYTES:
        raise UserError(
            f"not enough disk space for a run: {_FREE_BYTES / 1e9:.1f} GB needed, "
            f"{free / 1e9:.1f} GB free",
            where=one_line(str(place)),
            fix="free some space, or set STONK_HOME to a folder on another disk",
        )


def _launch_whole(launch: Callable[[], RunDirectory]) -> RunDirectory:
    """Launch without being torn apart by Ctrl-C, which takes effect afterwards."""
    interrupts: list[int] = []

    def remember(number: int, frame: FrameType | None) -> None:
        interrupts.append(number)

    previous = signal.signal(signal.SIGINT, remember)
    try:
        run = launch()
    finally:
        signal.signal(signal.SIGINT, previous)
    if interrupts:
        note(f"run {run.id} has just been started; end it with `stonk-tui stop {run.id}`")
        raise KeyboardInterrupt
    return run

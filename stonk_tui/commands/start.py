"""``demo`` and ``train``: prepare, launch, then show the cockpit or follow without one."""

from collections.abc import Callable, Sequence
from pathlib import Path

from engine import config as configuration
from engine.config import RunConfig
from engine.errors import UserError
from engine.presets import PRESETS
from engine.runs import directory
from engine.runs.directory import RunDirectory
from engine.text import one_line
from stonk_tui import prepare
from stonk_tui.commands.cockpit import is_interactive, open_cockpit
from stonk_tui.commands.output import note, say


def start_preset(
    name: str,
    overrides: Sequence[str],
    *,
    detach: bool,
    prepare_only: bool = False,
    allow_code: bool = False,
) -> None:
    """Start a run from a named configuration, or only make it.

    Raises:
        UserError: unknown preset or bad setting, or see ``prepare.start``.
    """
    config = configuration.with_overrides(configuration.preset(name), overrides)
    _start(config, detach=detach, prepare_only=prepare_only, allow_code=allow_code)


def start_file(
    path: str, overrides: Sequence[str], *, detach: bool, prepare_only: bool, allow_code: bool
) -> None:
    """Start a run from a configuration file, or only make it.

    Raises:
        UserError: unreadable file or bad setting, or see ``prepare.start``.
    """
    if path in PRESETS and not Path(path).exists():
        raise UserError(
            "there is no such file", where=path, fix=f"for the preset use --preset {path}"
        )
    config = configuration.load(Path(path), overrides)
    _start(config, detach=detach, prepare_only=prepare_only, allow_code=allow_code)


def resume(name: str | None, *, detach: bool, allow_code: bool) -> None:
    """Start a new worker on a run, which goes on from its last checkpoint.

    Raises:
        UserError: no such run, nothing left to do, or see ``prepare.restart``.
    """
    run = directory.find(name)
    attempts = prepare.check_resumable(run)
    _run(
        lambda: prepare.restart(run, allow_code=allow_code),
        detach=detach,
        previous_attempts=attempts,
    )


def _start(config: RunConfig, *, detach: bool, prepare_only: bool, allow_code: bool) -> None:
    if prepare_only:
        run = prepare.make(config, allow_code=allow_code)
        note(f"edit {run.path / 'run.yaml'} if you like; `stonk-tui train --resume {run.id}`")
        say(run.id)
        return
    _run(lambda: prepare.start(config, allow_code=allow_code), detach=detach, previous_attempts=0)


def _run(launch: Callable[[], RunDirectory], *, detach: bool, previous_attempts: int) -> None:
    run = launch()
    if detach:
        say(run.id)
        note(f"watch it with `stonk-tui attach {run.id}`, end it with `stonk-tui stop {run.id}`")
    elif is_interactive():
        open_cockpit(run, read_only=False)
    else:
        from stonk_tui.headless import follow

        say(f"run {one_line(run.id)} in {one_line(str(run.path))}")
        follow(run, previous_attempts=previous_attempts)

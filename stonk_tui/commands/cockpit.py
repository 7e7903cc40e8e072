"""Open the cockpit, and say how to come back when it is left."""

import gc
import os
import sys

from engine.errors import UserError
from engine.runs import directory
from engine.runs.directory import RunDirectory
from engine.runs.history import TERMINAL_STATES
from engine.runs.status import effective_state, read_history
from stonk_tui.commands.output import say


def is_interactive() -> bool:
    """Whether a person sits at a terminal that can show the cockpit, or at a browser's page."""
    if os.environ.get("TEXTUAL_DRIVER"):
        # Set by textual-serve: the pipes lead to a page (`stonk-tui serve`).
        return True
    # Textual reads stdin and draws on stderr.
    streams = (sys.stdin, sys.stdout, sys.stderr)
    return all(stream.isatty() for stream in streams) and os.environ.get("TERM") != "dumb"


def open_newest() -> None:
    """The train screen of the newest living run, or the list of runs.

    Raises:
        UserError: this is no terminal.
    """
    _need_terminal("see `stonk-tui --help` for commands that need none")
    open_cockpit(_newest_living(), read_only=False)


def attach(name: str | None, *, read_only: bool) -> None:
    """The train screen of the run called ``name``.

    Raises:
        UserError: no such run, it is not readable, or this is no terminal.
    """
    run = directory.find(name)
    run.config()
    _need_terminal(f"`stonk-tui status {run.id}` needs none")
    open_cockpit(run, read_only=read_only)


def open_cockpit(run: RunDirectory | None, *, read_only: bool) -> None:
    """Run the cockpit until it is left, then say in one line how the run stands."""
    _adapt_to_connection()
    # Modules and classes by the ten thousand, and no garbage: to look through them while they are
    # made takes a tenth of the time to the first picture, and later holds up a key now and then.
    gc.disable()
    from stonk_tui import settings, terminal
    from stonk_tui.app import Cockpit

    loaded = settings.load(settings.path())
    lacks = terminal.lacks_unicode(os.environ, getattr(sys.__stderr__, "encoding", None))
    wanted = "on" if os.environ.get("STONK_ASCII") == "1" else loaded.settings.ascii
    cockpit = Cockpit(
        run,
        read_only=read_only,
        settings=loaded.settings,
        problems=loaded.problems,
        ascii_only=wanted == "on" or (wanted == "auto" and lacks),
    )
    gc.freeze()
    gc.enable()
    cockpit.run()
    # A person may have turned to another run meanwhile.
    if last := cockpit.model.run if cockpit.model else _newest_living():
        say(_farewell(last))


def _farewell(run: RunDirectory) -> str:
    state, detail = effective_state(run, read_history(run))
    if state in TERMINAL_STATES:
        tail = f": {detail}" if detail else ""
        has = "was" if state == "stopped" else "has"
        return f"run {run.id} {has} {state}{tail}; look at it with `stonk-tui attach {run.id}`"
    if state in ("stale", "prepared"):
        return f"run {run.id}: {detail}"
    words = state.replace("_", " ")
    return f"run {run.id} goes on ({words}); come back with `stonk-tui attach {run.id}`"


def _newest_living() -> RunDirectory | None:
    return next((run for run in directory.list_runs() if run.worker() is not None), None)


def _need_terminal(fix: str) -> None:
    if not is_interactive():
        is_dumb = sys.stdout.isatty() and os.environ.get("TERM") == "dumb"
        kind = " that can do more than TERM=dumb says" if is_dumb else ""
        raise UserError(f"the cockpit needs a terminal{kind}", fix=fix)


def _adapt_to_connection() -> None:
    """Spare a remote line: Textual reads this once, when it is imported."""
    if os.environ.get("SSH_CONNECTION") or os.environ.get("SSH_TTY"):
        os.environ.setdefault("TEXTUAL_ANIMATIONS", "none")

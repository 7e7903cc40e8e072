"""Where runs, caches and sockets live on this machine."""

import contextlib
import os
import stat
import tempfile
from pathlib import Path

import platformdirs

from engine.errors import UserError

_LONGEST_DIRECTORY = 85
"""Bytes: leaves a socket's own name 18, with the slash before it."""

_LONGEST_RUNTIME_DIRECTORY = _LONGEST_DIRECTORY - len("/stonk-tui")


def home() -> Path:
    """``$STONK_HOME``, else the platform's data directory for this user."""
    chosen = os.environ.get("STONK_HOME")
    if chosen:
        # Absolute, since a run outlives the folder it was started in.
        return Path(chosen).expanduser().absolute()
    return Path(platformdirs.user_data_dir("stonk-tui"))


def runs_directory() -> Path:
    """The folder that holds one folder a run."""
    return home() / "runs"


def socket_directory() -> Path:
    """A directory of this user's own for control sockets, made if missing.

    The system allows a socket's path about 100 bytes (Linux 107, macOS 103), so sockets do not
    live in the run directory.

    Raises:
        UserError: the directory exists and is not ours alone, or its path is too long.
    """
    runtime = os.environ.get("XDG_RUNTIME_DIR")
    if runtime and Path(runtime).is_dir():
        directory = Path(runtime) / "stonk-tui"
    else:
        directory = Path(tempfile.gettempdir()) / f"stonk-tui-{os.getuid()}"
    if len(os.fsencode(directory)) > _LONGEST_DIRECTORY:
        raise UserError(
            "the path of the directory for control sockets is too long",
            where=str(directory),
            fix=f"point XDG_RUNTIME_DIR at one of at most {_LONGEST_RUNTIME_DIRECTORY} bytes",
        )
    with contextlib.suppress(FileExistsError):
        directory.mkdir(mode=0o700)
    info = directory.lstat()
    private = stat.S_ISDIR(info.st_mode) and stat.S_IMODE(info.st_mode) & 0o077 == 0
    if not private or info.st_uid != os.getuid():
        raise UserError(
            "the directory for control sockets is not a private directory of yours",
            where=str(directory),
            fix="remove it, or point XDG_RUNTIME_DIR elsewhere",
        )
    return directory

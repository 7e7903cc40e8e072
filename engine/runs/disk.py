"""A disk that is full or fails for a while: how that is told, and room kept for the last words.

A file of 64 MiB in the home is ballast: the first write that finds no room deletes it, so that the
run can say why it pauses and answer commands. It is laid again when there is room, and then the
run goes on.
"""

import errno
import os
import re
import shutil
import sqlite3
from dataclasses import dataclass
from pathlib import Path

from engine.errors import RunFailedError
from engine.text import one_line

BALLAST_BYTES = 64 * 2**20
_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO)
_FORBIDDEN = (errno.EACCES, errno.EPERM, errno.EROFS)
_MISSING = (errno.ENOENT, errno.ENOTDIR)
_CODES = (sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR)


class NoSpaceError(RunFailedError):
    """The disk has no room for what is to be written, or cannot write it at the moment."""


def is_shortage(error: BaseException) -> bool:
    """Whether ``error`` may pass by itself: no space, a quota, an input or output error.

    SQLite has codes of its own; libraries written in Rust, such as safetensors, have only words.
    """
    if isinstance(error, NoSpaceError):
        return True
    if isinstance(error, sqlite3.Error):
        # An extended code holds the plain one in its lowest byte.
        code = getattr(error, "sqlite_errorcode", None)
        return code is not None and code & 0xFF in _CODES
    if isinstance(error, OSError):
        return error.errno in _ERRORS
    said = re.search(r"\(os error (\d+)\)", str(error))
    return said is not None and int(said[1]) in _ERRORS


def in_words(error: BaseException) -> tuple[str, str]:
    """What is wrong with the disk, and what to do about it."""
    code = getattr(error, "sqlite_errorcode", None)
    is_broken = (code is not None and code & 0xFF == sqlite3.SQLITE_IOERR) or (
        isinstance(error, OSError) and error.errno == errno.EIO
    )
    if is_broken:
        return "the disk cannot be written (input/output error)", "see what `dmesg` says of it"
    return "the disk is full", "free some space (`df -h` tells where)"


def refusal(error: OSError) -> str | None:
    """One line on a file or folder that the system refuses, with what to do; None for others."""
    if is_shortage(error):
        what, fix = in_words(error)
    elif error.errno in _FORBIDDEN:
        what, fix = str(error.strerror), "see whether it is yours and mounted for writing"
    elif error.errno in _MISSING:
        what, fix = str(error.strerror), "see whether it was moved or deleted meanwhile"
    else:
        return None
    where = "" if error.filename is None else f"{one_line(os.fsdecode(error.filename))}: "
    return f"{where}{what}; {fix}"


@dataclass(frozen=True)
class Ballast:
    """Room that is taken while all is well."""

    path: Path
    size: int = BALLAST_BYTES

    @property
    def needed(self) -> int:
        """Bytes that have to be free before it is laid."""
        return self.size + self.size // 4

    def lay(self) -> bool:
        """Take the room where there is enough of it; whether it lies now."""
        try:
            if self.path.exists() and self.path.stat().st_size == self.size:
                return True
            if shutil.disk_usage(self.path.parent).free < self.needed:
                return False
            # Not a sparse file: its blocks are what it is for.
            with self.path.open("wb") as file:
                os.posix_fallocate(file.fileno(), 0, self.size)
        except OSError:
            self.release()
            return False
        return True

    def release(self) -> bool:
        """Give the room back; False where there was none to give."""
        try:
            self.path.unlink()
        except OSError:
            return False
        return True

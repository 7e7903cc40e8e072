"""A disk that can be filled: a small tmpfs, or where none may be mounted a limit on files' size."""

import os
import resource
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

_SIZE_MIB = 32
_PIECE = 64 * 2**10


class SmallDisk(Protocol):
    """A place that can be made full and empty again."""

    path: Path
    ballast_helps: bool
    """Whether deleting a file makes room for others."""

    def fill(self, left: int) -> None:
        """Leave no more than about ``left`` bytes."""

    def free(self) -> None:
        """Give the room back."""


class _Tmpfs:
    """A real file system: ENOSPC comes from the kernel."""

    ballast_helps = True

    def __init__(self, path: Path) -> None:
        self.path = path
        self._filler = path / "filler"

    def fill(self, left: int) -> None:
        with self._filler.open("wb", buffering=0) as file:
            while (room := shutil.disk_usage(self.path).free - left) > 0:
                file.write(b"\0" * min(_PIECE, room))

    def free(self) -> None:
        self._filler.unlink()


class _Limited:
    """RLIMIT_FSIZE of this process: EFBIG where a file would grow beyond."""

    ballast_helps = False

    def __init__(self, path: Path) -> None:
        self.path = path
        self._before = resource.getrlimit(resource.RLIMIT_FSIZE)

    def fill(self, left: int) -> None:
        files = [file for file in self.path.rglob("events.db*") if file.is_file()]
        most = max(file.stat().st_size for file in files)
        resource.setrlimit(resource.RLIMIT_FSIZE, (most + left, self._before[1]))

    def free(self) -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, self._before)


@contextmanager
def small_disk(folder: Path) -> Iterator[SmallDisk]:
    """A disk of 32 MiB in ``folder``."""
    path = folder / "disk"
    path.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", f"size={_SIZE_MIB}m", "tmpfs", str(path)]
    may = os.geteuid() == 0 and shutil.which("mount") is not None
    if not may or subprocess.run(command, capture_output=True, check=False).returncode:
        limited = _Limited(path)
        try:
            yield limited
        finally:
            limited.free()
        return
    try:
        yield _Tmpfs(path)
    finally:
        subprocess.run(["umount", "--lazy", str(path)], check=True)

"""Keep the file that takes a worker's stdout and stderr from growing without end.

The worker and whatever it starts append to it by descriptors that they keep, so the file cannot be
renamed: its content goes to ``engine.log.1``, and it begins anew. What is written in between is
lost, as is fair for a log.
"""

import os
import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

MOST_BYTES = 16 * 2**20
"""Of each of the two files."""
_LOOK_SECONDS = 30.0


def rotate(path: Path, most: int = MOST_BYTES) -> bool:
    """Begin ``path`` anew where it is longer than ``most`` bytes; whether it was.

    A disk without room for the old part costs the old part.
    """
    try:
        if path.stat().st_size <= most:
            return False
        older, temporary = path.with_name(f"{path.name}.1"), path.with_name(f".{path.name}.1.tmp")
        try:
            with path.open("rb") as source, temporary.open("wb") as target:
                # One that a library filled at a stroke must not make two that are too long.
                source.seek(-most, os.SEEK_END)
                shutil.copyfileobj(source, target)
            temporary.replace(older)
        except OSError:
            temporary.unlink(missing_ok=True)
        os.truncate(path, 0)
    except OSError:
        return False
    return True


@contextmanager
def kept_short(path: Path) -> Iterator[None]:
    """Look at ``path`` from time to time for as long as the block lasts."""
    is_over = threading.Event()

    def look() -> None:
        while not is_over.wait(_LOOK_SECONDS):
            rotate(path)

    rotate(path)
    thread = threading.Thread(target=look, name="log-keeper", daemon=True)
    thread.start()
    try:
        yield
    finally:
        is_over.set()
        thread.join()

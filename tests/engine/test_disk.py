"""A full disk delays what is recorded and loses none of it; other errors break the store."""

import errno
import shutil
import sqlite3
import threading
from pathlib import Path
from typing import Any

import pytest

from engine.errors import UserError
from engine.runs import disk, store
from engine.runs.disk import Ballast, NoSpaceError
from engine.runs.reader import StoreReader
from engine.runs.store import EventStore
from tests.waiting import wait_for


def _sqlite_error(code: int) -> sqlite3.OperationalError:
    error = sqlite3.OperationalError("database or disk is full")
    error.sqlite_errorcode = code
    return error


class RustError(Exception):
    """As safetensors raises one: words alone."""


@pytest.mark.parametrize(
    ("error", "may_pass"),
    [
        (_sqlite_error(sqlite3.SQLITE_FULL), True),
        (_sqlite_error(sqlite3.SQLITE_IOERR_FSYNC), True),
        (_sqlite_error(sqlite3.SQLITE_CORRUPT), False),
        (sqlite3.OperationalError("no code"), False),
        (OSError(errno.ENOSPC, "No space left on device"), True),
        (OSError(errno.EIO, "Input/output error"), True),
        (OSError(errno.EACCES, "Permission denied"), False),
        (RustError("Io error: No space left on device (os error 28)"), True),
        (RustError("Io error: Permission denied (os error 13)"), False),
        (NoSpaceError("too little"), True),
        (RuntimeError("the disk is full"), False),
    ],
)
def test_which_errors_of_a_disk_may_pass_by_themselves(error: Exception, may_pass: bool) -> None:
    assert disk.is_shortage(error) is may_pass


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (OSError(errno.ENOSPC, "No space left"), "the disk is full; free some space"),
        (OSError(errno.EROFS, "Read-only", "/a/b"), "/a/b: Read-only; see whether it is yours"),
        (OSError(errno.EACCES, "Denied", b"/a\n"), "; see whether it is yours and mounted for wr"),
        (FileNotFoundError(errno.ENOENT, "No file", "/a"), "/a: No file; see whether it was moved"),
        (ConnectionRefusedError(errno.ECONNREFUSED, "refused"), None),
        (OSError("no number"), None),
    ],
)
def test_what_the_system_refuses_is_one_line_with_advice(
    error: OSError, expected: str | None
) -> None:
    found = disk.refusal(error)
    assert found is None if expected is None else found is not None and expected in found
    assert found is None or "\n" not in found


def test_the_ballast_takes_real_room_and_gives_it_back(tmp_path: Path) -> None:
    ballast = Ballast(tmp_path / "ballast", size=2**20)
    assert ballast.lay()
    assert ballast.lay()
    assert ballast.path.stat().st_blocks * 512 >= 2**20
    assert ballast.release()
    assert not ballast.release()
    assert not ballast.path.exists()


def test_the_ballast_is_not_laid_where_little_is_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ballast = Ballast(tmp_path / "ballast", size=2**20)
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=2**20))
    assert not ballast.lay()
    assert not ballast.path.exists()
    assert not Ballast(tmp_path / "nowhere" / "ballast").lay()


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store, "_RETRY_SECONDS", 0.01)


class Full:
    """Work for the store that fails until there is room."""

    def __init__(self, code: int = sqlite3.SQLITE_FULL) -> None:
        self.has_room = threading.Event()
        self.tries = 0
        self._code = code

    def __call__(self, connection: sqlite3.Connection) -> None:
        self.tries += 1
        connection.execute("INSERT INTO meta VALUES ('once', 'x')")
        if not self.has_room.is_set():
            raise _sqlite_error(self._code)


def _texts(path: Path) -> list[Any]:
    reader = StoreReader(path)
    texts = [event.payload["text"] for event in reader.events()]
    reader.close()
    return texts


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("code", [sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR])
def test_what_a_full_disk_refuses_is_written_once_when_there_is_room(
    code: int, tmp_path: Path
) -> None:
    path, full = tmp_path / "events.db", Full(code)
    events = EventStore(path)
    events.event("notice", {"text": "before"})
    events._put(full)
    events.event("notice", {"text": "after"})
    wait_for(lambda: full.tries > 2)
    assert events.shortage is not None
    assert not events.has_recovered()
    full.has_room.set()
    events.flush()
    assert events.has_recovered()
    assert events.shortage is None
    events.close()
    assert _texts(path) == ["before", "after"]


@pytest.mark.usefixtures("quick")
def test_the_ballast_makes_room_for_the_last_words(tmp_path: Path) -> None:
    path, ballast = tmp_path / "events.db", Ballast(tmp_path / "ballast", size=2**20)
    ballast.lay()
    events = EventStore(path, ballast=ballast)

    def needs_room(connection: sqlite3.Connection) -> None:
        if ballast.path.exists():
            raise _sqlite_error(sqlite3.SQLITE_FULL)

    events._put(needs_room)
    events.event("notice", {"text": "last words"})
    events.flush()
    assert not ballast.path.exists()
    assert events.shortage == "the disk is full; free some space (`df -h` tells where)"
    assert events.has_recovered()
    assert ballast.path.exists()
    events.close()
    assert _texts(path) == ["last words"]


@pytest.mark.usefixtures("quick")
def test_closing_on_a_full_disk_ends_and_says_that_something_is_lost(tmp_path: Path) -> None:
    events, full = EventStore(tmp_path / "events.db"), Full()
    events._put(full)
    wait_for(lambda: full.tries > 1)
    with pytest.raises(RuntimeError, match="cannot be written"):
        events.close()


def test_a_store_in_a_place_that_cannot_be_written_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "events.db"
    with pytest.raises(UserError, match="cannot be written here") as refused:
        EventStore(tmp_path / "missing" / "events.db")
    assert "\n" not in str(refused.value)

    def full(path: Path) -> sqlite3.Connection:
        raise _sqlite_error(sqlite3.SQLITE_FULL)

    monkeypatch.setattr(store, "_open", full)
    with pytest.raises(UserError, match="the disk is full; free some space"):
        EventStore(path)

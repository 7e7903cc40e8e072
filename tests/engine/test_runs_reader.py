"""Reading a store: never writing, never guessing, in short reads."""

import os
import sqlite3
from pathlib import Path
from typing import Any

import pytest

from engine.config import SCHEMA_VERSION
from engine.errors import UserError
from engine.runs import reader as reader_module
from engine.runs.reader import StoreReader
from engine.runs.store import EventStore


@pytest.fixture
def path(tmp_path: Path) -> Path:
    store = EventStore(tmp_path / "events.db")
    for number in range(5):
        store.event("notice", {"number": number})
    store.close()
    return tmp_path / "events.db"


def test_reader_cannot_write_even_if_it_tried(path: Path) -> None:
    reader = StoreReader(path)
    with pytest.raises(sqlite3.OperationalError, match="readonly"):
        reader._connection.execute("DELETE FROM events")
    reader.close()


def test_reader_sees_what_a_living_writer_commits(path: Path) -> None:
    reader = StoreReader(path)
    seen = reader.events()[-1].seq
    store = EventStore(path)
    store.event("notice", {"number": 5})
    store.flush()
    assert [event.payload["number"] for event in reader.events(seen)] == [5]
    store.close()
    reader.close()


def test_pages_join_without_gap_or_repeat(path: Path) -> None:
    reader = StoreReader(path)
    numbers: list[int] = []
    seen = 0
    while page := reader.events(seen, 2):
        numbers += [event.payload["number"] for event in page]
        seen = page[-1].seq
    assert numbers == [0, 1, 2, 3, 4]
    reader.close()


def test_reads_let_the_write_ahead_log_begin_anew_and_a_long_one_would_not(path: Path) -> None:
    reader, store = StoreReader(path), EventStore(path)
    log = path.with_name(f"{path.name}-wal")

    def write_eight_mebibytes() -> int:
        for _ in range(8):
            for _ in range(64):
                store.event("notice", {"text": "x" * 2**14})
            store.flush()
            reader.events(reader.last_seq() - 64)
        return log.stat().st_size

    # SQLite begins anew after 1,000 pages of 4 KiB, once all that is in the log may go.
    assert write_eight_mebibytes() < 6 * 2**20
    with reader.snapshot():
        reader.last_seq()
        assert write_eight_mebibytes() > 7 * 2**20
    store.close()
    reader.close()


def test_store_that_is_not_there_yet_is_told_from_one_that_is_broken(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        StoreReader(tmp_path / "events.db")
    assert not (tmp_path / "events.db").exists()
    (tmp_path / "events.db").write_bytes(b"this is no database" * 100)
    with pytest.raises(UserError, match=r"damaged; put a copy of it back, .* delete the run"):
        StoreReader(tmp_path / "events.db")


def test_store_that_may_not_be_opened_is_one_line_with_advice(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*arguments: object, **options: object) -> None:
        raise sqlite3.OperationalError("unable to open database file")

    monkeypatch.setattr(sqlite3, "connect", refuse)
    with pytest.raises(UserError, match="cannot be opened; see whether folder and file are yours"):
        StoreReader(path)


def test_store_on_a_disk_that_is_mounted_for_reading_is_read(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "access", lambda place, mode: False)
    log = Path(f"{path}-wal")
    log.write_bytes(b"what is not in the store yet")
    assert reader_module._immutable(path) == ""
    log.unlink()
    connected: list[str] = []
    connect = sqlite3.connect

    def remember(address: str, **options: Any) -> sqlite3.Connection:
        connected.append(address)
        return connect(address, **options)

    monkeypatch.setattr(sqlite3, "connect", remember)
    reader = StoreReader(path)
    reader.events()
    reader.close()
    assert connected[0].endswith("?mode=ro&immutable=1")


def test_store_whose_files_may_not_be_made_is_not_taken_for_one_that_is_not_there(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Refused:
        def execute(self, query: str) -> None:
            error = sqlite3.OperationalError("unable to open database file")
            error.sqlite_errorcode = sqlite3.SQLITE_CANTOPEN
            raise error

        def close(self) -> None:
            pass

    monkeypatch.setattr(sqlite3, "connect", lambda *arguments, **options: Refused())
    with pytest.raises(UserError, match="cannot be opened; see whether folder and file are yours"):
        StoreReader(path)


def test_store_of_a_newer_version_is_one_clear_line(path: Path) -> None:
    with sqlite3.connect(path) as database:
        database.execute("UPDATE meta SET value = ?", (str(SCHEMA_VERSION + 1),))
    database.close()
    with pytest.raises(UserError, match="newer stonk-tui; update stonk-tui") as caught:
        StoreReader(path)
    assert "\n" not in str(caught.value)


def test_damage_found_while_reading_is_an_error_in_words(path: Path) -> None:
    reader = StoreReader(path)
    with sqlite3.connect(path) as database:
        database.execute("DROP TABLE events")
    database.close()
    with pytest.raises(UserError, match=r"cannot be read .* put a copy of it back"):
        reader.events()
    reader.close()

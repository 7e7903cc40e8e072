"""The worker's log stays short, and who writes to it never notices."""

import os
from pathlib import Path

import pytest

from engine.runs import log_file


def test_a_short_log_stays_as_it_is(tmp_path: Path) -> None:
    log = tmp_path / "engine.log"
    log.write_text("short\n")
    assert not log_file.rotate(log, 100)
    assert not log_file.rotate(tmp_path / "missing", 100)
    assert [path.name for path in tmp_path.iterdir()] == ["engine.log"]


def test_a_long_log_begins_anew_under_the_same_descriptor(tmp_path: Path) -> None:
    log = tmp_path / "engine.log"
    with log.open("ab", buffering=0) as file:
        for number in range(30):
            file.write(f"line {number}\n".encode())
            log_file.rotate(log, 60)
        file.write(b"last\n")
    older = tmp_path / "engine.log.1"
    assert log.stat().st_size + older.stat().st_size <= 2 * 60 + 10
    assert log.read_text().endswith("last\n")
    assert (older.read_text() + log.read_text()).split("\n")[-4:-1] == [
        "line 28",
        "line 29",
        "last",
    ]


def test_one_stroke_that_is_far_too_long_leaves_its_end(tmp_path: Path) -> None:
    log = tmp_path / "engine.log"
    log.write_bytes(b"x" * 1000 + b"end")
    assert log_file.rotate(log, 100)
    assert log.read_bytes() == b""
    assert (tmp_path / "engine.log.1").read_bytes() == b"x" * 97 + b"end"


def test_a_full_disk_costs_the_older_part_and_no_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = tmp_path / "engine.log"
    log.write_bytes(b"x" * 200)

    def full(*_: object) -> None:
        raise OSError(28, os.strerror(28))

    monkeypatch.setattr(log_file.shutil, "copyfileobj", full)
    assert log_file.rotate(log, 100)
    assert [path.name for path in tmp_path.iterdir()] == ["engine.log"]


def test_the_log_is_looked_at_from_the_start(tmp_path: Path) -> None:
    log = tmp_path / "engine.log"
    with log.open("wb") as file:
        file.truncate(log_file.MOST_BYTES + 1)
    with log_file.kept_short(log):
        assert log.stat().st_size == 0

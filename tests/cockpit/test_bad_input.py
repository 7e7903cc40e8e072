"""Whatever is wrong with a run is explained where it shows, and the cockpit stays up.

Newer versions: test_feed. Hostile text: test_untrusted_text. Types that nobody expects:
``test_store_full_of_other_types_than_expected`` there.
"""

import os
import shutil
import socket
import sqlite3
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from engine.errors import UserError
from engine.runs import control
from engine.runs.status import read_history
from stonk_tui.feed import Feed, RunModel
from tests import recorded
from tests.cockpit.helpers import cockpit, opened, text_of, until
from tests.waiting import wait_for

SCREENS = ("l", "r", "t", "question_mark", "escape")


async def test_configuration_of_a_newer_version_is_said_and_the_run_is_shown_all_the_same() -> None:
    recording = recorded.record(3)
    file = recording.run.path / "run.yaml"
    file.write_text(file.read_text().replace("schema: 1", "schema: 99"))
    app = cockpit(recording.run)
    async with opened(app) as pilot:
        assert "3/500" in text_of(app)
        assert "! this run was written by a newer stonk-tui (schema 99" in text_of(app)
        await pilot.press("g", "r")
        await until(pilot, lambda: "! unreadable" in text_of(app))


@pytest.mark.parametrize("size", [0, 50, 100, 4096, 30_000], ids=lambda size: f"{size} bytes")
async def test_truncated_store_is_explained_on_opening(size: int) -> None:
    recording = recorded.record(20)
    os.truncate(recording.run.database, size)
    app = cockpit(recording.run)
    async with opened(app) as pilot:
        words = "store is damaged|store cannot be read" if size else "stale|starting"
        await until(pilot, lambda: any(word in text_of(app) for word in words.split("|")))
        for key in SCREENS:
            await pilot.press(key)
            await pilot.pause()
        assert app.is_running


async def test_store_that_is_damaged_while_it_is_watched_leaves_what_was_read_on_screen() -> None:
    recording = recorded.record(20)
    app = cockpit(recording.run)
    async with opened(app) as pilot:
        assert "20/500" in text_of(app)
        with sqlite3.connect(recording.run.database) as database:
            database.execute("DROP TABLE rollouts")
        database.close()
        await until(pilot, lambda: "! the run's store" in text_of(app))
        assert "20/500" in text_of(app)


def test_store_that_may_not_be_read_is_not_called_damaged() -> None:
    feed = Feed(recorded.record(1, state="finished").run, lambda: None)
    said = feed._explain(PermissionError(13, "Permission denied", "/runs/a/events.db"))
    assert said == (
        "the run's store cannot be read: /runs/a/events.db: Permission denied; "
        "see whether it is yours and mounted for writing"
    )


@settings(
    max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.lists(st.tuples(st.floats(0, 0.999), st.binary(min_size=1, max_size=64)), max_size=6))
def test_whatever_stands_in_the_file_the_feed_answers(
    tmp_path_factory: pytest.TempPathFactory, patches: list[tuple[float, bytes]]
) -> None:
    recording = _template(tmp_path_factory)
    run = type(recording.run)(tmp_path_factory.mktemp("copy") / recording.run.id)
    shutil.copytree(recording.run.path, run.path)
    with run.database.open("r+b") as file:
        size = run.database.stat().st_size
        for place, data in patches:
            file.seek(int(place * size))
            file.write(data)
    model = RunModel(run)
    feed = Feed(run, lambda: None)
    feed.start()

    def is_loaded() -> bool:
        if (batch := feed.take()) is not None:
            model.fold(batch)
        return model.loaded

    try:
        wait_for(is_loaded)
    finally:
        feed.stop()
        feed.join(10)
    assert model.problem or model.misread or model.history.step <= 20


_made: list[recorded.Recording] = []


def _template(factory: pytest.TempPathFactory) -> recorded.Recording:
    if not _made:
        recording = recorded.record(20, state="finished")
        kept = factory.mktemp("template") / recording.run.id
        shutil.copytree(recording.run.path, kept)
        recording.run = type(recording.run)(kept)
        _made.append(recording)
    return _made[0]


async def test_run_directory_that_vanishes_is_said_and_what_was_read_stays() -> None:
    recording = recorded.record(5)
    app = cockpit(recording.run)
    async with opened(app) as pilot:
        shutil.rmtree(recording.run.path)
        await until(pilot, lambda: "! the run's files are gone" in text_of(app))
        assert "5/500" in text_of(app)
        for key in ("c", "enter", "escape", *SCREENS):
            await pilot.press(key)
            await pilot.pause()
        assert app.is_running


async def test_worker_that_is_gone_makes_a_run_stale_and_not_failed() -> None:
    recording = recorded.record(5, state="stale")
    worker = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    app = cockpit(recording.run)
    try:
        recording.run.record_worker(worker.pid)
        async with opened(app) as pilot:
            await until(pilot, lambda: "● training" in text_of(app))
            worker.kill()
            worker.wait()
            await until(pilot, lambda: "◇ stale" in text_of(app))
            await until(pilot, lambda: "its worker is gone" in text_of(app))
            assert "failed" not in text_of(app)
            assert read_history(recording.run).state == "training"
    finally:
        worker.kill()
        worker.wait()


async def test_socket_that_nobody_listens_on_is_explained() -> None:
    recording = recorded.record(5)
    app = cockpit(recording.run)
    async with opened(app) as pilot:
        await pilot.press("c")
        await until(pilot, lambda: "no worker answers for run" in " ".join(text_of(app).split()))
        assert app.is_running


@pytest.mark.parametrize(
    "reply", [b"", b"\n", b"[1]\n", b"nonsense\n", b"7\n", b'{"ok": false}\n', b"x" * 70_000]
)
def test_socket_that_answers_anything_else_is_an_error_in_words(reply: bytes) -> None:
    recording = recorded.record(3)
    path = Path(recording.run.socket)
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    path.unlink(missing_ok=True)
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as server:
        server.bind(str(path))
        server.listen(1)

        def answer() -> None:
            connection, _ = server.accept()
            with connection:
                connection.recv(4096)
                connection.sendall(reply)

        thread = threading.Thread(target=answer)
        thread.start()
        with pytest.raises(UserError, match=r"no worker answers|refused"):
            control.send(recording.run, "pause")
        thread.join()
    path.unlink()


async def test_store_without_its_newest_tables_is_shown_as_before() -> None:
    recording = recorded.record(30)
    with sqlite3.connect(recording.run.database) as database:
        database.execute("DROP TABLE curves")
        database.execute("DROP INDEX events_by_kind")
    database.close()
    async with opened(cockpit(recording.run)) as pilot:
        assert "30/500" in text_of(pilot.app)

"""The table of runs: what it shows, filter, order, selection, and that it stays calm."""

import os
import re
import shutil
import sqlite3
import threading
from typing import cast

import pytest
from textual.pilot import Pilot
from textual.widgets import Input

from engine.runs import directory
from engine.runs.reader import StoreReader
from engine.runs.store import EventStore
from stonk_tui import run_table
from stonk_tui.app import Cockpit
from stonk_tui.run_list import Listed, RunList
from stonk_tui.screens import confirm
from stonk_tui.screens.confirm import ConfirmScreen
from stonk_tui.screens.runs import RunsScreen
from stonk_tui.widgets.table import Table
from tests import recorded
from tests.cockpit.helpers import cockpit, opened, rows_of, settle, text_of, until


def screen_of(app: Cockpit) -> RunsScreen:
    return cast(RunsScreen, app.screen)


def names_of(app: Cockpit) -> list[str]:
    """Short names of the runs on screen, from top to bottom."""
    return [row.key.split("-")[2] for row in app.screen.query_one(Table).rows]


async def look_again(app: Cockpit, pilot: Pilot[None]) -> None:
    """Read the runs now instead of at the next beat."""
    await app.workers.wait_for_complete()
    screen_of(app)._look()
    await settle(pilot)


def listed() -> list[Listed]:
    found: list[list[Listed]] = []
    RunList().look(lambda runs, _: found.append(runs))
    return found[-1]


async def test_row_says_how_a_run_is_doing() -> None:
    recording = recorded.record(60, state="finished")
    recorded.promote(recording)
    app = cockpit(None)
    async with opened(app, (200, 60)):
        row = next(row for row in rows_of(app) if row.strip().startswith("20251120-005320-demo"))
        for part in ("✓ finished", "smollm2-135m", "60/500", "52 % [46, 60] n=200", "54 %"):
            assert part in row
        assert any(spark in row for spark in "▁▂▃▄▅▆")
        child = next(row for row in rows_of(app) if "demo-stage2" in row)
        assert "◇ prepared" in child
        assert "II" in child.split()
        assert "20251120-005320-demo" in child.split()


async def test_what_is_folded_away_stands_below_for_the_run_under_the_cursor() -> None:
    recorded.record(60, state="failed")
    app = cockpit(None)
    async with opened(app, (80, 24)):
        below = "\n".join(rows_of(app)[-4:-1])
        for part in ("smollm2-135m", "age 1 h 06 m", "20251120-005320-demo", "CUDA out of memory"):
            assert part in below


async def test_filter_narrows_while_it_is_typed_and_says_what_is_wrong() -> None:
    recorded.record(3, name="one", state="finished")
    recorded.record(3, name="two", state="failed")
    recorded.record(3, name="three", state="stale")
    app = cockpit(None)
    async with opened(app) as pilot:
        await pilot.press("slash", *"-t")
        assert set(names_of(app)) == {"two", "three"}
        await pilot.press(*"w.")
        assert names_of(app) == ["two"]
        assert "1 shown" in text_of(app)
        app.screen.query_one(Input).value = "state:flying"
        await settle(pilot)
        assert "state:flying → no such state" in text_of(app)
        assert len(names_of(app)) == 3
        app.screen.query_one(Input).value = "(t"
        await settle(pilot)
        assert "taken as plain text" in text_of(app)
        assert "No run passes the filter" in text_of(app)
        app.screen.query_one(Input).value = "state:f ticker:nobody"
        await settle(pilot)
        assert names_of(app) == []
        app.screen.query_one(Input).value = "state:f"
        await pilot.press("enter")
        await settle(pilot)
        assert set(names_of(app)) == {"one", "two"}
        assert app.focused is app.screen.query_one(Table)
        # The filter stays in sight while it holds, and escape in it drops it.
        await pilot.press("slash", "escape")
        await settle(pilot)
        assert len(names_of(app)) == 3
        assert not app.screen.query_one("#filter-bar").display


async def test_orders_take_turns_and_can_be_turned_round() -> None:
    for name, steps in (("one", 40), ("two", 9), ("three", 60)):
        recorded.record(steps, name=name, state="finished")
    recorded.new_run("none").closes()
    app = cockpit(None)
    async with opened(app) as pilot:
        for order in [*list(run_table.ORDERS)[1:], "newest"]:
            await pilot.press("greater_than_sign")
            assert f"by {order}" in text_of(app) or order == "newest"
            if order == "step":
                assert names_of(app) == ["three", "one", "two", "none"]
                await pilot.press("less_than_sign")
                assert names_of(app) == ["none", "two", "one", "three"]
                assert "by step, reversed" in text_of(app)
            if order == "reward":
                rewards = [item.summary.reward for item in screen_of(app)._shown]
                known = [reward for reward in rewards if reward is not None]
                assert rewards == [*sorted(known, reverse=True), None]


def test_what_is_not_known_comes_last_both_ways() -> None:
    recorded.record(5, name="one", state="finished")
    recorded.new_run("none").closes()
    runs = listed()
    for reverse in (False, True):
        names = [item.run.id[16:] for item in run_table.ordered(runs, "reward", reverse=reverse)]
        assert names == ["one", "none"]


async def test_cursor_stays_on_its_run_while_others_come_and_go() -> None:
    for name in ("a", "b", "c"):
        recorded.record(2, name=name, state="stale")
    app = cockpit(None)
    async with opened(app) as pilot:
        table = app.screen.query_one(Table)
        # Also a cursor that rests on the first row: here it means a run, not the newest one.
        assert table.cursor_key == "20251120-005320-c"
        newest = recorded.record(2, name="d", state="stale")
        await look_again(app, pilot)
        assert names_of(app) == ["d", "c", "b", "a"]
        assert table.cursor_key == "20251120-005320-c"
        shutil.rmtree(newest.run.path)
        await look_again(app, pilot)
        assert names_of(app) == ["c", "b", "a"]
        assert table.cursor_key == "20251120-005320-c"
        await pilot.press("greater_than_sign", "less_than_sign")
        assert table.cursor_key == "20251120-005320-c"


async def test_run_that_goes_on_is_read_on() -> None:
    recording = recorded.record(3)
    app = cockpit(None)
    async with opened(app) as pilot:
        assert "3/500" in text_of(app)
        store = EventStore(recording.run.database)
        store.event("step", {"metrics": {"reward/total": 0.875}, "seconds": {}}, step=4)
        store.close()
        await look_again(app, pilot)
        assert "4/500" in text_of(app)
        assert "0.88" in text_of(app)


def test_run_that_did_not_change_is_not_read_again(monkeypatch: pytest.MonkeyPatch) -> None:
    recorded.record(3, name="one", state="finished")
    two = recorded.record(3, name="two", state="stale")
    runs = RunList()
    found: list[list[Listed]] = []
    runs.look(lambda items, _: found.append(items))
    opened_stores: list[str] = []
    original = StoreReader.__init__

    def counted(self: StoreReader, path: os.PathLike[str]) -> None:
        opened_stores.append(str(path))
        original(self, path)  # type: ignore[arg-type]

    monkeypatch.setattr(StoreReader, "__init__", counted)
    runs.look(lambda items, _: found.append(items))
    assert opened_stores == []
    assert found[0] == found[1]
    store = EventStore(two.run.database)
    store.event("state", {"state": "training", "detail": ""})
    store.close()
    runs.look(lambda items, _: found.append(items))
    assert opened_stores == [str(two.run.database)]


def test_two_hundred_runs_are_listed_with_few_rows_read(monkeypatch: pytest.MonkeyPatch) -> None:
    recording = recorded.record(30, name="first", state="finished")
    for number in range(199):
        copy = recording.run.path.with_name(f"20251121-{number:06d}-copy")
        shutil.copytree(recording.run.path, copy)
    runs = RunList()
    shown: list[tuple[int, bool]] = []
    runs.look(lambda items, is_all: shown.append((len(items), is_all)))
    # The newest ones are on screen before the rest has been read.
    assert shown == [(16, False), (200, True)]
    connections = []
    monkeypatch.setattr(sqlite3, "connect", lambda *_, **__: connections.append(1))
    runs.look(lambda items, is_all: shown.append((len(items), is_all)))
    assert shown[2:] == [(200, True)]
    assert connections == []


async def test_unreadable_run_says_why_and_the_others_are_shown() -> None:
    broken = recorded.record(3, name="broken", state="stale")
    recorded.damaged(broken.run.database)
    recorded.record(3, name="fine", state="finished")
    app = cockpit(None)
    async with opened(app, (200, 60)) as pilot:
        text = text_of(app)
        assert "! unreadable" in text
        assert "✓ finished" in text
        await pilot.press("slash", *"state:unreadable", "enter")
        await settle(pilot)
        assert names_of(app) == ["broken"]
        assert "the run's store is damaged" in "\n".join(rows_of(app)[-3:-1])


async def test_folder_of_runs_that_cannot_be_read_says_all_of_why_on_a_small_screen(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refuse() -> None:
        raise PermissionError(13, "Permission denied", f"/home/{'a' * 70}/runs")

    monkeypatch.setattr(directory, "list_runs", refuse)
    app = cockpit(None)
    async with opened(app, (80, 24)):
        text = " ".join(text_of(app).split())
        assert "The runs cannot be read:" in text
        assert "see whether it is yours and mounted for writing" in text


async def test_runs_are_selected_up_to_six() -> None:
    for number in range(7):
        recorded.new_run(f"run{number}").closes()
    app = cockpit(None)
    async with opened(app) as pilot:
        for _ in range(7):
            await pilot.press("space", "j")
        await until(pilot, lambda: "Not more than 6" in text_of(app))
        assert "▣ 6 selected" in text_of(app)
        assert sum("▣ run" in row or row.startswith(" ▣") for row in rows_of(app)) == 6
        await pilot.press("home", "space")
        assert "▣ 5 selected" in text_of(app)


async def test_reading_in_a_thread_never_overlaps_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    recorded.record(2, state="stale")
    app = cockpit(None)
    async with opened(app) as pilot:
        screen = screen_of(app)
        looks, original, gate = [], screen._list.look, threading.Event()

        def slow(show: object) -> None:
            looks.append(1)
            gate.wait(10)
            original(show)  # type: ignore[arg-type]

        monkeypatch.setattr(screen._list, "look", slow)
        screen._look()
        await until(pilot, lambda: looks)
        screen._look()
        screen._look()
        gate.set()
        await app.workers.wait_for_complete()
        assert len(looks) == 1


async def test_delete_asks_says_what_is_lost_and_deletes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(confirm, "DEAF_SECONDS", 0.01)
    parent = recorded.record(60, name="parent", state="finished")
    child = recorded.promote(parent)
    app = cockpit(parent.run)
    async with opened(app) as pilot:
        await pilot.press("g", "r")
        await until(pilot, lambda: "2 runs" in text_of(app))
        await pilot.press("end", "D")
        await until(pilot, lambda: isinstance(app.screen, ConfirmScreen))
        text = re.sub(r"[\s│]+", " ", text_of(app))
        assert f"Delete {parent.run.id}?" in text
        assert "Stage I, finished, 60 steps done; 1 checkpoint," in text
        assert f"{child.run.id} was promoted from it" in text
        await pilot.press("n")
        await settle(pilot)
        assert parent.run.path.exists()
        await pilot.press("D")
        await until(pilot, lambda: getattr(app.screen, "listens", False))
        await pilot.press("y")
        await until(pilot, lambda: names_of(app) == ["demo"])
        assert not parent.run.path.exists()
        assert child.run.path.exists()
        # It was the attached one: nothing is left of it to look at.
        assert app.model is None
        await pilot.press("g", "t")
        await until(pilot, lambda: "no run is attached" in text_of(app))


async def test_run_at_work_is_not_deleted_and_the_key_says_why() -> None:
    recording = recorded.record(3)
    app = cockpit(None)
    async with opened(app) as pilot:
        await pilot.press("D")
        await until(pilot, lambda: "it is at work: stop it first" in text_of(app))
        assert not isinstance(app.screen, ConfirmScreen)
    read_only = cockpit(None, read_only=True)
    shutil.rmtree(recording.run.path)
    recorded.record(3, state="failed")
    async with opened(read_only) as pilot:
        await pilot.press("D")
        await until(pilot, lambda: "opened read-only" in text_of(read_only))


async def test_commands_are_for_the_run_under_the_cursor() -> None:
    attached = recorded.record(3, name="attached")
    other = recorded.record(3, name="other", state="paused")
    done = recorded.record(3, name="done", state="finished")
    app = cockpit(attached.run)
    async with opened(app, (200, 60)) as pilot:
        await pilot.press("g", "r")
        await until(pilot, lambda: "3 runs" in text_of(app))
        table = app.screen.query_one(Table)
        for recording, shown in ((attached, "p pause"), (other, "p resume"), (done, "p pause")):
            table.go_to(names_of(app).index(recording.run.id.split("-")[2]))
            await until(pilot, lambda text=shown: text in text_of(app).split("\n")[-1])  # type: ignore[misc]
            assert app.run_meant is not None
            assert app.run_meant.run == recording.run
        await pilot.press("S")
        await until(pilot, lambda: "the run is finished: no worker listens" in text_of(app))
        table.go_to(names_of(app).index("other"))
        await pilot.press("S")
        await until(pilot, lambda: isinstance(app.screen, ConfirmScreen))
        assert f"Stop {other.run.id}?" in re.sub(r"[\s│]+", " ", text_of(app))


async def test_deletion_that_is_refused_is_explained() -> None:
    parent = recorded.record(60, name="parent", state="finished")
    child = recorded.promote(parent)
    shutil.rmtree(child.run.stage1)
    app = cockpit(None)
    async with opened(app) as pilot:
        await pilot.press("end", "D")
        await until(pilot, lambda: "policy is not whole" in re.sub(r"[\s│]+", " ", text_of(app)))
        assert parent.run.path.exists()

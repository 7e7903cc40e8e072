"""All rollouts of a run: filtered, ordered, followed, walked through, opened and exported."""

import json
import sqlite3
from array import array
from pathlib import Path

import pytest
from textual.pilot import Pilot
from textual.widgets import Button, Input, RadioButton

from engine.runs.reader import StoreReader
from engine.runs.rollout_filter import Order, parse
from stonk_tui.app import Cockpit
from stonk_tui.rollout_search import FIRST_ROWS, Found, RolloutSearch
from stonk_tui.screens import rollouts as rollouts_module
from stonk_tui.screens.export import ExportScreen
from stonk_tui.screens.rollout import RolloutScreen
from stonk_tui.screens.rollouts import RolloutsScreen
from stonk_tui.screens.train import TrainScreen
from stonk_tui.widgets.long_table import LongTable
from tests import recorded
from tests.cockpit.helpers import (
    cockpit,
    opened,
    rows_of,
    settle,
    text_of,
    until,
    until_rows_are_read,
)


async def listed(pilot: Pilot[None], *keys: str) -> RolloutsScreen:
    """The rollouts screen with everything found and read."""
    await pilot.press(*(keys or ("g", "o")))
    await until(pilot, lambda: isinstance(pilot.app.screen, RolloutsScreen))
    screen = pilot.app.screen
    assert isinstance(screen, RolloutsScreen)
    await found(pilot, screen)
    return screen


async def found(pilot: Pilot[None], screen: RolloutsScreen) -> None:
    await until(pilot, lambda: screen._answer is not None and not screen._is_searching)
    await until_rows_are_read(pilot)


async def filtered(pilot: Pilot[None], screen: RolloutsScreen, text: str) -> None:
    """Type a filter; nothing is waited for but what it finds."""
    await pilot.press("slash")
    await until(pilot, lambda: screen.query_one(Input).has_focus)
    screen.query_one(Input).value = text
    await until(pilot, lambda: screen._filter.text == text)
    await pilot.press("enter")
    await until(pilot, lambda: screen.query_one(LongTable).has_focus)
    await found(pilot, screen)


def ids_of(recording: recorded.Recording, text: str, order: Order | None = None) -> list[int]:
    reader = StoreReader(recording.run.database)
    ids = list(reader.rollout_ids(parse(text), order or Order()))
    reader.close()
    return ids


async def test_one_key_lists_every_rollout_and_escape_goes_back() -> None:
    recording = recorded.record(12)
    app = cockpit(recording.run)
    async with opened(app) as pilot:
        screen = await listed(pilot)
        # 12 steps of 4 prompts with 8 answers each: more than the newest 96.
        assert "row 1 · 384" in text_of(app)
        assert "› rollouts" in rows_of(app)[0]
        table = screen.query_one(LongTable)
        assert list(table.ids) == ids_of(recording, "")
        await pilot.press("end")
        await found(pilot, screen)
        assert "row 384 · 384" in text_of(app)
        assert any(row.split()[:1] == ["1"] for row in rows_of(app))
        await pilot.press("escape")
        await until(pilot, lambda: isinstance(app.screen, TrainScreen))


async def test_slash_on_train_goes_straight_to_the_filter() -> None:
    recording = recorded.record(3)
    app = cockpit(recording.run)
    async with opened(app) as pilot:
        screen = await listed(pilot, "slash")
        await until(pilot, lambda: screen.query_one(Input).has_focus)


async def test_filter_is_applied_as_it_is_typed_and_counted_against_all() -> None:
    recording = recorded.record(12)
    app = cockpit(recording.run)
    async with opened(app) as pilot:
        screen = await listed(pilot)
        await pilot.press("slash", *"step", "greater_than_sign", *"10")
        await found(pilot, screen)
        assert "row 1 · 64 of 384" in text_of(app)
        await pilot.press("space", *"right", "colon", *"no")
        await found(pilot, screen)
        expected = ids_of(recording, "step>10 right:no")
        assert list(screen.query_one(LongTable).ids) == expected
        assert f"{len(expected)} of 384" in text_of(app)
        # Escape takes back what was typed, and stays on the screen.
        await pilot.press("escape")
        await found(pilot, screen)
        assert screen.query_one(LongTable).has_focus
        assert "row 1 · 384" in text_of(app)


async def test_bad_term_is_explained_in_place_and_the_list_stays() -> None:
    recording = recorded.record(3)
    app = cockpit(recording.run)
    async with opened(app) as pilot:
        screen = await listed(pilot)
        await filtered(pilot, screen, "right:no")
        before = list(screen.query_one(LongTable).ids)
        await pilot.press("slash")
        screen.query_one(Input).value = "right:no tickr:AAPL"
        await until(
            pilot, lambda: "character 10: nothing is called tickr (ticker?)" in text_of(app)
        )
        assert "possible: ticker, right" in text_of(app)
        await pilot.press("enter")
        assert screen.query_one(Input).has_focus
        assert list(screen.query_one(LongTable).ids) == before
        await pilot.press("escape")
        await until(pilot, lambda: "nothing is called" not in text_of(app))


async def test_filter_that_nothing_passes_says_so() -> None:
    recording = recorded.record(3)
    app = cockpit(recording.run)
    async with opened(app) as pilot:
        screen = await listed(pilot)
        await filtered(pilot, screen, "ticker:NONE")
        assert "No rollout passes this filter." in text_of(app)
        assert "row · · 0 of 96" in text_of(app)
        await pilot.press("enter", "w")
        await settle(pilot)
        assert app.screen is screen
        assert "there is no rollout to export" in text_of(app)


async def test_order_goes_through_the_columns_by_key_and_by_click() -> None:
    recording = recorded.record(5)
    app = cockpit(recording.run)
    async with opened(app) as pilot:
        screen = await listed(pilot)
        table = screen.query_one(LongTable)
        await pilot.press("greater_than_sign")
        await found(pilot, screen)
        assert "ticker↓" in text_of(app)
        assert list(table.ids) == ids_of(recording, "", Order("ticker"))
        column = rows_of(app)[table.region.y].index("reward")
        await pilot.click(LongTable, offset=(column, 0))
        await found(pilot, screen)
        assert list(table.ids) == ids_of(recording, "", Order("reward"))
        await pilot.click(LongTable, offset=(column, 0))
        await found(pilot, screen)
        assert "reward↑" in text_of(app)
        assert list(table.ids) == ids_of(recording, "", Order("reward", descending=False))
        await pilot.press("less_than_sign")
        await found(pilot, screen)
        assert "reward↓" in text_of(app)


async def test_newest_step_is_followed_until_a_person_moves(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(rollouts_module, "KEEP_UP_SECONDS", 0.05)
    recording = recorded.new_run()
    recording.starts()
    recording.is_loaded()
    recording.state("training")
    recording.trains(3)
    recording.store.flush()
    recording.run.record_worker()
    app = cockpit(recording.run)
    async with opened(app) as pilot:
        screen = await listed(pilot)
        assert "row 1 · 96" in text_of(app)
        recording.trains(1)
        recording.store.flush()
        await until(pilot, lambda: "row 1 · 128" in text_of(app))
        await pilot.press("down")
        table = screen.query_one(LongTable)
        key = table.cursor_key
        recording.trains(2)
        recording.store.flush()
        await until(pilot, lambda: "2 steps behind, Home follows" in text_of(app))
        assert (len(table.ids), table.cursor_key) == (128, key)
        await pilot.press("home")
        await until(pilot, lambda: "row 1 · 192" in text_of(app))
    recording.store.close()


async def test_opened_from_the_list_it_is_walked_and_the_cursor_comes_along() -> None:
    recording = recorded.record(6)
    app = cockpit(recording.run)
    async with opened(app) as pilot:
        screen = await listed(pilot)
        await filtered(pilot, screen, "right:no")
        ids = ids_of(recording, "right:no")
        await pilot.press("down", "enter")
        await until(pilot, lambda: isinstance(app.screen, RolloutScreen))
        await settle(pilot)
        detail = app.screen
        assert isinstance(detail, RolloutScreen)
        assert detail._rollout.id == ids[1]
        await pilot.press("right_square_bracket")
        await until(pilot, lambda: detail._rollout.id == ids[2])
        # n walks the group, whatever the filter says.
        await pilot.press("n")
        await settle(pilot)
        assert detail._rollout.id == ids[2] + 1 or detail._rollout.sample == 0
        await pilot.press("escape")
        await until(pilot, lambda: app.screen is screen)
        await settle(pilot)
        assert screen.query_one(LongTable).cursor == 2
        await pilot.press("n", "n", "N")
        assert screen.query_one(LongTable).cursor == 3


async def test_another_run_brings_another_list() -> None:
    first, second = recorded.record(2, name="first"), recorded.record(4, name="second")
    app = cockpit(first.run)
    async with opened(app) as pilot:
        await listed(pilot)
        assert "row 1 · 64" in text_of(app)
        app.attach(second.run)
        await until(pilot, lambda: app.model is not None and app.model.loaded)
        await pilot.press("g", "o")
        await until(pilot, lambda: "row 1 · 128" in text_of(app))


async def test_run_without_a_store_and_one_that_is_damaged_are_said_in_words() -> None:
    recording = recorded.record(2)
    app = cockpit(recording.run)
    async with opened(app) as pilot:
        screen = await listed(pilot)
        recording.run.database.unlink()
        await filtered(pilot, screen, "step>1")
        assert "0 of 0" in text_of(app)
        recording.run.database.write_bytes(b"not a database" * 500)
        await filtered(pilot, screen, "step>0")
        assert "damaged" in text_of(app)


async def test_hostile_rollouts_are_inert_in_the_list() -> None:
    recording = recorded.record(2)
    connection = sqlite3.connect(recording.run.database)
    hostile = json.dumps("[/b]\x1b]0;x\x07\u202e[@click=app.bell]x")
    with connection:
        connection.execute(f"UPDATE prompts SET subject = '{{\"ticker\": {hostile}}}'")
        connection.execute(
            "UPDATE rollouts SET prediction = "
            f'\'{{"reasoning": {hostile}, "confidence": {hostile}, "direction": []}}\''
        )
    connection.close()
    app = cockpit(recording.run)
    async with opened(app) as pilot:
        screen = await listed(pilot)
        assert "[/b]" in text_of(app)
        assert not {"\x1b", "\x07", "\u202e"} & set(text_of(app))
        await filtered(pilot, screen, "right:none call:none -confidence>0")
        assert "64 of 64" in text_of(app)
        await pilot.press(*[">"] * 9)
        await found(pilot, screen)
        assert app.is_running


# --- the search


def test_newer_question_makes_the_older_one_silent() -> None:
    recording = recorded.record(2)
    search = RolloutSearch()
    old, new = search.next_question(), search.next_question()
    answers: list[Found] = []
    for question in (old, new):
        search.find(question, recording.run.database, parse(""), Order(), answers.append)
    assert [answer.question for answer in answers] == [new]


def test_first_rows_of_a_long_list_come_first() -> None:
    recording = recorded.record(8)
    search = RolloutSearch()
    answers: list[Found] = []
    question = search.next_question()
    search.find(question, recording.run.database, parse("step>0"), Order(), answers.append)
    assert [(len(answer.ids), answer.is_all) for answer in answers] == [
        (FIRST_ROWS, False),
        (256, True),
    ]
    assert answers[1].ids[:FIRST_ROWS] == answers[0].ids
    assert answers[1].total == 256


def test_query_that_is_running_is_interrupted_by_the_next_question() -> None:
    recording = recorded.record(2)
    search = RolloutSearch()
    answers: list[Found] = []
    selection = parse("text:~a.c")

    def ask_again(text: str) -> bool:
        search.next_question()
        return False

    selection.patterns[0].search = ask_again  # type: ignore[method-assign]
    question = search.next_question()
    search.find(question, recording.run.database, selection, Order(), answers.append)
    assert [answer.question for answer in answers] == [question]
    assert "interrupted" in answers[0].problem


# --- the table


async def test_rows_that_are_kept_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("stonk_tui.widgets.long_table._MAX_ROWS", 150)
    recording = recorded.record(20)
    app = cockpit(recording.run)
    async with opened(app) as pilot:
        screen = await listed(pilot)
        table = screen.query_one(LongTable)
        for _ in range(12):
            await pilot.press("pagedown")
            await found(pilot, screen)
        assert table.cursor > 300
        assert len(table._read) <= 150
        table.set_ids(array("q"), stays=True)
        assert table.cursor_key is None


# --- export


async def export_dialog(pilot: Pilot[None]) -> ExportScreen:
    await pilot.press("w")
    await until(pilot, lambda: isinstance(pilot.app.screen, ExportScreen))
    await settle(pilot)
    screen = pilot.app.screen
    assert isinstance(screen, ExportScreen)
    return screen


async def test_what_is_listed_is_exported_in_its_order(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    recording = recorded.record(6)
    app = cockpit(recording.run)
    async with opened(app) as pilot:
        screen = await listed(pilot)
        await filtered(pilot, screen, "right:no")
        ids = ids_of(recording, "right:no")
        dialog = await export_dialog(pilot)
        assert f"Export {len(ids)} rollouts" in text_of(app)
        assert "filter  right:no" in text_of(app)
        assert "apostrophe" in text_of(app)
        await pilot.click(dialog.query(RadioButton)[1])
        await until(pilot, lambda: dialog.query_one(Input).value == "rollouts.jsonl")
        await pilot.press("tab")
        await pilot.click("#write")
        await until(pilot, lambda: app.screen is screen)
        rows = [json.loads(row) for row in (tmp_path / "rollouts.jsonl").read_text().splitlines()]
        assert [row["id"] for row in rows] == ids
        await until(pilot, lambda: f"{len(ids)} rollouts in" in text_of(app))


async def test_file_that_exists_is_never_overwritten(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "rollouts.csv").write_text("mine")
    app = cockpit(recorded.record(2).run)
    async with opened(app) as pilot:
        screen = await listed(pilot)
        dialog = await export_dialog(pilot)
        assert "exists already; name a file that does not" in text_of(app)
        assert dialog.query_one("#write", Button).disabled
        dialog.query_one(Input).value = str(tmp_path / "no" / "x.csv")
        await until(pilot, lambda: "no such folder" in text_of(app))
        dialog.query_one(Input).value = "other.csv"
        await until(pilot, lambda: not dialog.query_one("#write", Button).disabled)
        await pilot.press("escape")
        await until(pilot, lambda: app.screen is screen)
    assert [path.name for path in tmp_path.iterdir() if path.suffix == ".csv"] == ["rollouts.csv"]
    assert (tmp_path / "rollouts.csv").read_text() == "mine"


async def test_export_that_is_called_off_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("engine.runs.rollout_export._PAGE", 1)
    app = cockpit(recorded.record(6).run)
    async with opened(app) as pilot:
        screen = await listed(pilot)
        dialog = await export_dialog(pilot)
        dialog._is_called_off = True
        await pilot.click("#write")
        await until(pilot, lambda: app.screen is screen)
        await until(pilot, lambda: "nothing was written" in text_of(app))
    assert not list(tmp_path.glob("*rollouts*"))


# --- the detail


async def test_group_stands_side_by_side_where_there_is_room() -> None:
    app: Cockpit = cockpit(recorded.record(3).run)
    async with opened(app, (200, 60)) as pilot:
        await listed(pilot)
        await pilot.press("enter")
        await until(pilot, lambda: "Answer 2 of 8" in text_of(app))
        assert "What the model saw" in text_of(app)
        await pilot.press("n")
        await until(pilot, lambda: "Answer 3 of 8" in text_of(app))
        assert "Answer 1 of 8" not in text_of(app)
        await pilot.press("v")
        await until(pilot, lambda: "Answer 3 of 8" not in text_of(app))
        await pilot.resize_terminal(120, 40)
        await settle(pilot)
        await pilot.press("v")
        await until(pilot, lambda: "Answer 3 of 8" in text_of(app))
        assert "What the model saw" not in text_of(app)
        await pilot.resize_terminal(80, 24)
        await until(pilot, lambda: "What the model saw" in text_of(app))
        await pilot.press("v")
        await until(pilot, lambda: "there is no room" in text_of(app))


async def test_copy_gives_the_text_without_control_characters() -> None:
    recording = recorded.record(2)
    connection = sqlite3.connect(recording.run.database)
    with connection:
        connection.execute("UPDATE rollouts SET completion = ?", ("rm -rf\x1b[2K\n said",))
        connection.execute("UPDATE prompts SET text = 'asked'")
    connection.close()
    app = cockpit(recording.run)
    async with opened(app) as pilot:
        await listed(pilot)
        await pilot.press("enter")
        await until(pilot, lambda: isinstance(app.screen, RolloutScreen))
        await pilot.press("y")
        assert app.clipboard == "rm -rf\u241b[2K\n said"
        await until(pilot, lambda: "on the clipboard" in text_of(app))
        await pilot.press("Y")
        assert app.clipboard == "asked"


async def test_rollout_that_cannot_be_read_any_more_leaves_what_is_known_on_screen() -> None:
    recording = recorded.record(2)
    app = cockpit(recording.run)
    async with opened(app) as pilot:
        await listed(pilot)
        await pilot.press("enter")
        await until(pilot, lambda: "answer 1 of 8" in text_of(app))
        recording.run.database.write_bytes(b"not a database" * 500)
        await pilot.press("right_square_bracket")
        await until(pilot, lambda: "damaged" in text_of(app))
        assert "answer 1 of 8" in text_of(app)

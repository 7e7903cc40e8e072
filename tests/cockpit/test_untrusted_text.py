"""Text that a model, a data set or another program wrote is only ever text on screen.

A run full of markup, terminal escapes and bidirectional marks, in every field that can
hold text, is driven through every screen.
"""

import json
import re
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.segment import Segment
from rich.style import Style
from textual.app import App
from textual.color import Color
from textual.widgets import Button, Input

from engine.config import RunConfig
from engine.runs.store import RolloutRecord
from engine.task import Json
from stonk_tui.screens.log import tail
from stonk_tui.widgets.text import OutputFilter, line, shown
from tests import recorded
from tests.cockpit.helpers import cockpit, opened, settle, text_of, until
from tests.cockpit.hostile import FORBIDDEN, HOSTILE, hostile_run

SCREENS: dict[str, tuple[str, ...]] = {
    "train": (),
    "every panel zoomed": (),
    "rollout": ("enter", "x"),
    "log": ("g", "l"),
    "runs": ("g", "r"),
    "new run": ("g", "r", "n"),
    "help": ("question_mark",),
    "stop": ("S",),
    "palette": ("ctrl+p",),
    "alarm": ("8", "enter"),
    "promote": ("P",),
    "probe": ("g", "b"),
    "evaluate": ("e",),
}


def _assert_inert(app: App[None]) -> None:
    for strip in app.screen._compositor.render_strips():
        for segment in strip:
            assert not FORBIDDEN.search(segment.text), repr(segment.text)
            assert segment.control is None
            style = segment.style
            if style is not None:
                assert style.link is None
                assert not any(
                    key.startswith("@") for key in style.meta if "evil" in str(style.meta)
                )
                assert "app.quit" not in str(style.meta)


@pytest.mark.parametrize("size", [(80, 24), (120, 40), (200, 60)], ids=str)
@pytest.mark.parametrize("name", SCREENS)
async def test_hostile_text_is_inert_on_every_screen(name: str, size: tuple[int, int]) -> None:
    recording = hostile_run()
    app = cockpit(recording.run, message=HOSTILE)
    async with opened(app, size) as pilot:
        assert app.model is not None
        assert app.model.rollouts
        if name == "every panel zoomed":
            await pilot.press("z")
            for number in "123456789":
                await pilot.press(number)
                await settle(pilot)
                _assert_inert(app)
            return
        if SCREENS[name]:
            await pilot.press(*SCREENS[name])
        await settle(pilot)
        _assert_inert(app)
        assert app.is_running
        if name == "rollout":
            assert "[/INST]" in text_of(app)
            assert "[@click=app.quit]" in text_of(app) or size[0] < 100


@pytest.mark.parametrize(
    "state", ["failed", "finished", "paused", "stopping", "warming_up", HOSTILE]
)
async def test_hostile_detail_of_a_state_is_inert(state: str) -> None:
    recording = recorded.new_run()
    recording.starts()
    recording.store.event("state", {"state": state, "detail": HOSTILE})
    recording.store.event("progress", {"task": HOSTILE, "done": 1, "total": 2, "detail": HOSTILE})
    recording.closes()
    recording.run.record_worker()
    async with opened(cockpit(recording.run)) as pilot:
        _assert_inert(pilot.app)


async def test_hostile_record_of_a_promotion_is_inert() -> None:
    recording = recorded.record_stage2(2)
    record = json.loads(recording.run.promotion.read_text())
    hostile = record | {"parent": HOSTILE, "checkpoint": HOSTILE, "reason": HOSTILE}
    recording.run.promotion.chmod(0o644)
    recording.run.promotion.write_text(json.dumps(hostile))
    app = cockpit(recording.run)
    # Wide enough for what is left of the parent's name.
    async with opened(app, (600, 40)) as pilot:
        await until(pilot, lambda: "from [/INST]" in text_of(app))
        _assert_inert(app)
        await pilot.press("g", "r")
        await until(pilot, lambda: "parent [/INST]" in text_of(app))
        _assert_inert(app)


@pytest.mark.parametrize("size", [(80, 24), (200, 60)])
async def test_hostile_settings_are_inert_in_table_filter_and_comparison(
    size: tuple[int, int],
) -> None:
    for name in ("one", "two"):
        recording = recorded.new_run(name)
        settings = recording.run.config().model_dump()
        settings["model"]["id"] = f"{name} {HOSTILE}"
        settings["data"]["source"] = f"{name} {HOSTILE}"
        recording.run.write_config(RunConfig.model_validate(settings))
        recording.starts()
        recording.state("training", HOSTILE)
        recording.trains(2)
        recording.state("failed", HOSTILE)
        recording.store.rollouts(3, [_rollout_about(HOSTILE)])
        recording.closes()
    app = cockpit(None)
    async with opened(app, size) as pilot:
        _assert_inert(app)
        await pilot.press("slash")
        app.screen.query_one(Input).value = HOSTILE
        await until(pilot, lambda: "→ longer than" in text_of(app) or "taken as" in text_of(app))
        _assert_inert(app)
        await pilot.press("escape", "space", "j", "space", "v")
        await until(pilot, lambda: "rewards are not on one scale" in text_of(app))
        _assert_inert(app)
        await pilot.press("escape", "D")
        await until(pilot, lambda: "Nothing brings it back" in text_of(app))
        _assert_inert(app)


def _rollout_about(ticker: str) -> RolloutRecord:
    subject: dict[str, Json] = {"ticker": ticker}
    return RolloutRecord(0, 0, "", subject, "", 1, True, 0.0, 0.0, {}, (), ())


async def test_new_alarm_and_lights_with_hostile_text_are_inert_toasts() -> None:
    recording = recorded.new_run()
    recording.starts()
    recording.state("training")
    recording.trains(2)
    recording.store.flush()
    recording.run.record_worker()
    app = cockpit(recording.run)
    async with opened(app, (80, 24)) as pilot:
        recording.raises(HOSTILE, HOSTILE)
        recording.store.event("checkpoint", {"name": HOSTILE, "best": True})
        recording.store.event("super_saiyan", {"power": HOSTILE, "suggestion": HOSTILE}, step=2)
        recording.store.flush()
        await until(pilot, lambda: "All four lights" in text_of(app))
        await settle(pilot)
        assert "⚠ 1 alarm" in text_of(app)
        _assert_inert(app)
    recording.store.close()


async def test_hostile_indicators_are_inert_where_a_promotion_is_decided() -> None:
    recording = recorded.new_run()
    recording.starts()
    recording.state("training")
    recording.trains(50)
    names = ("reward", "accuracy", "reasoning", "settled")
    fields = ("value", "threshold", "on", "streak", "needed", "why")
    indicators = [{"name": name} | dict.fromkeys(fields, HOSTILE) for name in names]
    payload = {"metrics": {}, "milestones": [*indicators, {"name": HOSTILE}], "power": 1}
    recording.store.event("step", payload, step=51)
    recording.closes()
    recording.run.record_worker()
    app = cockpit(recording.run)
    async with opened(app) as pilot:
        await pilot.press("P")
        await until(pilot, lambda: "(•) step-000050" in text_of(app))
        assert "0 of 4 lights are on" in text_of(app)
        _assert_inert(app)
        app.screen.query_one("#reason", Input).value = HOSTILE
        await until(pilot, lambda: not app.screen.query_one("#prepare", Button).disabled)
        _assert_inert(app)
        await pilot.click("#prepare")
        # Prepared, or refused with a line; in no case the end of the cockpit.
        await until(pilot, lambda: re.search("◇ prepared|cannot be read", text_of(app)))
        _assert_inert(app)


async def test_directory_with_a_hostile_name_is_inert_in_every_place_that_names_the_run() -> None:
    recording = recorded.record(2)
    path = recording.run.path
    hostile = path.with_name("20991120-000000-[b]x[@click=app.quit]\x1b]0;x\x07\u202e")
    path.rename(hostile)
    run = type(recording.run)(hostile)
    app = cockpit(run)
    async with opened(app) as pilot:
        _assert_inert(app)
        assert "[@click=app.quit]" in text_of(app)
        for keys in (("g", "l"), ("g", "r"), ("g", "t"), ("S",)):
            await pilot.press(*keys)
            await settle(pilot)
            _assert_inert(app)


async def test_store_full_of_other_types_than_expected_does_not_end_the_cockpit() -> None:
    recording = recorded.record(3, state="paused")
    connection = sqlite3.connect(recording.run.database)
    with connection:
        connection.execute('UPDATE rollouts SET prediction = \'{"direction": [1], "percent": {}}\'')
        connection.execute('UPDATE prompts SET subject = \'{"closes": "x", "ticker": 7}\'')
        connection.execute('UPDATE rollouts SET components = \'[{}, {"value": [], "name": 3}]\'')
        connection.execute("UPDATE rollouts SET cited = '[[\"a\", 2], [1, 1e9]]'")
    connection.close()
    app = cockpit(recording.run)
    async with opened(app) as pilot:
        await pilot.press("enter")
        await settle(pilot)
        await pilot.press("x", "n")
        await settle(pilot)
        assert app.is_running


def _all_text() -> Iterator[str]:
    yield from (chr(code) for code in range(0x20) if chr(code) not in "\n")
    yield from (chr(code) for code in (0x7F, 0x9B, 0x9D, 0x061C, 0x200E, 0x200F, 0x2028, 0x2029))
    yield from (chr(code) for code in (*range(0x202A, 0x202F), *range(0x2066, 0x206A), 0xD800))


@given(st.text(st.one_of(st.characters(), st.sampled_from(list(_all_text())))))
@settings(max_examples=200, deadline=None)
def test_shown_text_holds_no_control_character_whatever_comes(text: str) -> None:
    assert not FORBIDDEN.search(shown(text).plain)
    assert "\n" not in line(text).plain
    assert not FORBIDDEN.search(line(text).plain)
    assert shown(text).spans == []


def test_output_filter_removes_what_came_past_everything_else() -> None:
    segments = [
        Segment(f"a{character}b", Style(link="http://evil.example")) for character in _all_text()
    ]
    filtered = OutputFilter().apply(segments, Color(0, 0, 0))
    assert all(segment.text == "ab" for segment in filtered)
    assert all(segment.style is not None and segment.style.link is None for segment in filtered)


def test_tail_of_a_log_is_bounded_and_keeps_what_a_progress_bar_last_said(tmp_path: Path) -> None:
    log = tmp_path / "engine.log"
    log.write_bytes(b"x" * 300_000 + b"\nloading  1%\rloading 99%\nlast")
    lines = tail(log).plain.split("\n")
    assert lines[-2:] == ["loading 99%", "last"]
    log.write_bytes(b"line\n" * 100_000)
    assert len(tail(log).plain.split("\n")) <= 400


async def test_very_long_text_is_capped() -> None:
    recording = recorded.new_run()
    recording.starts()
    recording.store.rollouts(
        1,
        [
            RolloutRecord(0, 0, "p" * 500_000, {}, "c" * 500_000, 9, True, 0.1, 0.0, {}, (), ()),
        ],
    )
    recording.closes()
    recording.run.record_worker()
    app = cockpit(recording.run)
    async with opened(app) as pilot:
        await until(pilot, lambda: app.model is not None and app.model.rollouts)
        await settle(pilot)
        await pilot.press("enter")
        await settle(pilot)
        content = app.screen.query_one("#completion-text").content  # type: ignore[attr-defined]
        assert len(content.plain) < 50_000
        assert "460000 more characters" in content.plain.replace("\u202f", "")

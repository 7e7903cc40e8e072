"""The bell and the desktop notification: for what happens while somebody watches."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stonk_tui import announce
from stonk_tui.announce import osc9
from stonk_tui.app import Cockpit
from stonk_tui.feed import RunModel
from tests import recorded
from tests.cockpit.helpers import cockpit, opened, until


def _going() -> recorded.Recording:
    recording = recorded.new_run()
    recording.starts()
    recording.is_loaded()
    recording.state("training")
    recording.trains(2)
    recording.raises("old", "an alarm from before")
    recording.store.flush()
    recording.run.record_worker()
    return recording


@pytest.fixture
def said(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What the cockpit rings for, instead of doing it."""
    rung: list[str] = []
    monkeypatch.setattr(Cockpit, "ring", lambda app, text: rung.append(text))
    return rung


async def test_lights_alarms_and_the_end_are_announced_and_what_was_before_is_not(
    said: list[str],
) -> None:
    recording = _going()
    app = cockpit(recording.run)
    async with opened(app) as pilot:
        assert said == []
        recording.raises()
        recording.store.flush()
        await until(pilot, lambda: said == ["alarm: states 72 %, right 51 %"])
        recording.calms("overconfident")
        recording.lights_all()
        recording.store.flush()
        await until(pilot, lambda: len(said) == 2)
        assert said[1] == "All four lights are on, power 9001"
        recording.state("finished", "all steps done")
        recording.store.flush()
        await until(pilot, lambda: len(said) == 3)
        assert said[2].endswith("demo has finished")
        recording.raises("overconfident")
        recording.store.flush()
        await until(pilot, lambda: len(said) == 4)
    recording.store.close()


@pytest.mark.parametrize("state", ["failed", "finished", "stopped"])
async def test_run_that_had_ended_before_it_was_opened_is_silent(
    said: list[str], state: str
) -> None:
    recording = recorded.record(3, state=state)
    async with opened(cockpit(recording.run)):
        assert said == []


def test_worker_that_died_is_announced() -> None:
    recording = recorded.record(2)
    view = RunModel(recording.run)
    before = announce.standing(view)
    view.alive = False
    assert announce.compare(before, view).ended.endswith("has lost its worker")


@pytest.mark.parametrize(("setting", "rings"), [(None, True), ("1", True), ("0", False)])
async def test_bell_and_notification_are_written_through_the_driver_unless_turned_off(
    monkeypatch: pytest.MonkeyPatch, setting: str | None, rings: bool
) -> None:
    if setting is not None:
        monkeypatch.setenv("STONK_BELL", setting)
    recording = recorded.record(2)
    app = cockpit(recording.run)
    async with opened(app):
        written: list[str] = []
        assert app._driver is not None
        monkeypatch.setattr(app._driver, "write", written.append)
        monkeypatch.setattr(Cockpit, "is_headless", False)
        app.ring("KL 1.3")
        monkeypatch.undo()
        assert written == (["\a\x1b]9;stonk-tui: KL 1.3\x07"] if rings else [])


@given(st.text())
def test_notification_cannot_be_ended_by_its_text(text: str) -> None:
    inner = osc9(text).removeprefix("\x1b]9;").removesuffix("\x07")
    assert not any(ord(character) < 0x20 or 0x7F <= ord(character) < 0xA0 for character in inner)
    assert len(inner) <= announce.MAX_CHARACTERS + len("stonk-tui: ")

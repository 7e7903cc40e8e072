"""The settings dialog: what is in force, checked as it is typed, sent as one command."""

from pathlib import Path

import pytest
from textual.pilot import Pilot
from textual.widgets import Button, Input

from engine.runs.history import History
from engine.runs.reader import Event
from stonk_tui.app import Cockpit
from stonk_tui.screens.settings import SettingsScreen
from stonk_tui.screens.train import TrainScreen
from stonk_tui.widgets.reward import _setting_marks
from tests import recorded
from tests.cockpit.helpers import cockpit, opened, rows_of, settle, text_of, until
from tests.cockpit.test_actions import Worker

RATE = "optimizer.learning_rate"


def changed_run(state: str = "training") -> recorded.Recording:
    """A run whose settings changed twice."""
    recording = recorded.new_run()
    recording.starts()
    recording.is_loaded()
    recording.state("training")
    recording.validates()
    recording.trains(40)
    recording.sets(RATE, 8e-5, 4e-5)
    recording.trains(20)
    recording.sets("objective.kl_coefficient", 0.01, 0.03)
    recording.sets("schedule.patience", None, 5)
    recording.trains(20)
    if state != "training":
        recording.state(state, f"{state} by command")
    recording.closes()
    if state == "training":
        recording.run.record_worker()
    return recording


async def _open(pilot: Pilot[None]) -> SettingsScreen:
    await pilot.press("s")
    await until(pilot, lambda: isinstance(pilot.app.screen, SettingsScreen))
    await settle(pilot)
    screen = pilot.app.screen
    assert isinstance(screen, SettingsScreen)
    return screen


async def _type(pilot: Pilot[None], key: str, text: str) -> None:
    pilot.app.screen.query_one(f"#new-{key}", Input).focus()
    await pilot.press(*text)
    await settle(pilot)


def _row(app: Cockpit, label: str) -> str:
    return " ".join(next(row for row in rows_of(app) if label in row).split())


def _can_apply(app: Cockpit) -> bool:
    return not app.screen.query_one("#apply", Button).disabled


async def test_dialog_shows_what_is_in_force_beside_what_the_run_was_started_with() -> None:
    recording = changed_run()
    for size in ((80, 24), (120, 40)):
        app = cockpit(recording.run, now=recording.now)
        async with opened(app, size) as pilot:
            await _open(pilot)
            assert "learning rate 4e-5 * 8e-5 above 0" in _row(app, "learning rate")
            assert "KL coefficient 0.03 * 0.01 0 or more" in _row(app, "KL coefficient")
            assert "temperature 1 1 above 0, at most 5" in _row(app, "temperature")
            assert "patience 5 * never whole, 1 or more, or never" in _row(app, "patience")
            assert "Peak rate of the optimiser" in text_of(app)
            assert "* changed since the start" in text_of(app)
            assert not _can_apply(app)
            if size[1] == 40:
                assert "after step 40 learning rate 8e-5 → 4e-5 by user" in _row(app, "step 40")


async def test_a_value_is_checked_as_it_is_typed_and_explained() -> None:
    recording = changed_run()
    app = cockpit(recording.run, now=recording.now)
    async with opened(app) as pilot:
        await _open(pilot)
        await _type(pilot, "temperature", "6")
        assert "✗ temperature: input should be less than or equal to 5" in text_of(app)
        assert "Of sampling and loss alike" in text_of(app)
        assert not _can_apply(app)
        await pilot.press("backspace", "0", ".", "8")
        await settle(pilot)
        assert "→ from the next step on: temperature 1 → 0.8" in text_of(app)
        assert _can_apply(app)
        await _type(pilot, "learning_rate", "fast")
        assert "✗ learning rate: 'fast' is no number" in text_of(app)
        assert not _can_apply(app)
        app.screen.query_one("#new-learning_rate", Input).value = "0.00004"
        app.screen.query_one("#new-temperature", Input).value = ""
        await settle(pilot)
        assert "That is in force already." in text_of(app)
        assert not _can_apply(app)


async def test_keys_alone_change_a_setting_and_the_log_and_the_chart_tell(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    recording = recorded.record(60)
    worker = Worker(recording)
    app = cockpit(recording.run, now=recording.now)
    async with opened(app) as pilot:
        await _open(pilot)
        await pilot.press(*"5e-5")
        await pilot.press("down", "down", "down", "down", "down", "down")
        await pilot.press(*"never", "up")
        await pilot.press(*"20", "enter")
        await until(pilot, lambda: app.focused is not None and app.focused.id == "apply")
        await pilot.press("enter")
        await until(pilot, lambda: isinstance(app.screen, TrainScreen))
        await until(pilot, lambda: "set: accepted" in text_of(app))
        await until(pilot, lambda: worker.verbs == ["set"])
        worker.store.event(
            "settings",
            {
                "changes": [{"name": RATE, "old": 8e-5, "new": 5e-5}],
                "by": "user",
                "command": "x",
            },
            step=60,
        )
        await until(pilot, lambda: "learning rate 8e-5 → 5e-5" in text_of(app))
    worker.ends()
    assert worker.payloads == [
        {"changes": {RATE: 5e-5, "schedule.save_every": 20, "schedule.patience": None}}
    ]


async def test_command_that_nobody_takes_keeps_what_was_typed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    recording = recorded.record(60)
    app = cockpit(recording.run, now=recording.now)
    async with opened(app) as pilot:
        await _open(pilot)
        await pilot.press(*"5e-5", "enter", "enter")
        await until(pilot, lambda: "✗ no worker answers" in text_of(app))
        assert app.screen.query_one("#new-learning_rate", Input).value == "5e-5"
        assert _can_apply(app)
        await pilot.press("escape")
        await until(pilot, lambda: isinstance(app.screen, TrainScreen))


@pytest.mark.parametrize(
    ("state", "read_only", "words"),
    [
        ("training", True, "this cockpit was opened read-only"),
        ("stopped", False, "the run is stopped: no worker listens"),
    ],
)
async def test_settings_that_cannot_be_changed_now_are_shown_with_the_reason(
    state: str, read_only: bool, words: str
) -> None:
    recording = changed_run(state)
    app = cockpit(recording.run, now=recording.now, read_only=read_only)
    async with opened(app) as pilot:
        screen = await _open(pilot)
        assert f"✗ {words}" in text_of(app)
        assert all(entry.disabled for entry in screen.query(Input))
        assert "learning rate 4e-5 * 8e-5" in _row(app, "learning rate")
        await pilot.press("escape")
        await until(pilot, lambda: isinstance(app.screen, TrainScreen))


async def test_a_change_that_somebody_else_makes_appears() -> None:
    recording = recorded.new_run()
    recording.starts()
    recording.is_loaded()
    recording.state("training")
    recording.trains(5)
    recording.run.record_worker()
    recording.store.flush()
    app = cockpit(recording.run)
    async with opened(app) as pilot:
        await _open(pilot)
        recording.sets(RATE, 8e-5, 2e-5)
        recording.store.flush()
        await until(pilot, lambda: "2e-5 * 8e-5" in _row(app, "learning rate"))
    recording.store.close()


async def test_changes_are_marked_on_the_reward_chart() -> None:
    recording = changed_run()
    app = cockpit(recording.run, now=recording.now)
    async with opened(app) as pilot:
        await pilot.press("1", "z")
        await until(pilot, lambda: "┊lr" in text_of(app))
        assert app.model is not None
        marks = [(mark.step, mark.label) for mark in _setting_marks(app.model)]
        assert marks == [(40, "lr"), (60, "KL pat.")]
        assert "┊KL pat." in text_of(app)


async def test_a_setting_that_this_version_does_not_know_ends_nothing() -> None:
    recording = recorded.new_run()
    recording.starts()
    recording.trains(3)
    recording.sets("optimizer.[/]magic\x1b[2J", 1, 2)
    recording.closes()
    recording.run.record_worker()
    app = cockpit(recording.run, now=recording.now)
    async with opened(app) as pilot:
        await _open(pilot)
        assert "learning rate 8e-5 8e-5" in _row(app, "learning rate")
        assert "\x1b" not in text_of(app)


def test_history_goes_back_with_a_resume() -> None:
    def change(step: int, new: float) -> Event:
        changes = [{"name": RATE, "old": 1.0, "new": new}]
        payload = {"changes": changes, "by": "user", "command": None}
        return Event(step, 1, 0.0, "settings", step, payload)

    history = History()
    history.apply([change(3, 0.5), change(5, 0.25)])
    history.apply([Event(9, 2, 0.0, "resumed", 3, {"from_step": 3})])
    assert [one.change.new for one in history.settings] == [0.5]

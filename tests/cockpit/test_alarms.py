"""Alarms: seen from everywhere, explained on request, and loud only when they are new."""

import pytest

from stonk_tui.screens.alarm import AlarmScreen
from stonk_tui.screens.rollout import RolloutScreen
from stonk_tui.widgets.alarms import AlarmsPanel
from tests import recorded
from tests.cockpit.helpers import cockpit, opened, rows_of, settle, text_of, until


def _alarmed(alarms: int = 2) -> recorded.Recording:
    recording = recorded.new_run()
    recording.starts()
    recording.is_loaded()
    recording.state("training")
    recording.trains(3)
    recording.raises()
    if alarms > 1:
        recording.trains(2)
        recording.raises("entropy_collapse", "entropy 0.03 nats, below 0.05")
    for number in range(alarms - 2):
        recording.raises(f"alarm-{number}", f"alarm number {number}")
    recording.store.flush()
    recording.run.record_worker()
    return recording


async def test_alarms_stand_newest_first_with_the_step_since_which_they_last() -> None:
    recording = _alarmed()
    async with opened(cockpit(recording.run)) as pilot:
        rows = rows_of(pilot.app)
        at = next(index for index, row in enumerate(rows) if "8 Alarms" in row)
        assert "⚠ 2 alarms" in rows[at]
        assert "entropy 0.03 nats" in rows[at + 1]
        assert rows[at + 1].rstrip("│ ").endswith("5")
        assert "states 72 %, right 51 %" in rows[at + 2]
        assert rows[at + 2].rstrip("│ ").endswith("since 3")
    recording.store.close()


async def test_no_alarm_is_said_in_words() -> None:
    recording = recorded.record(3)
    async with opened(cockpit(recording.run)) as pilot:
        assert "✓ quiet" in text_of(pilot.app)
        assert "Nothing looks wrong." in text_of(pilot.app)


async def test_more_alarms_than_there_is_room_for_are_counted() -> None:
    recording = _alarmed(9)
    async with opened(cockpit(recording.run)) as pilot:
        assert "⚠ 9 alarms" in text_of(pilot.app)
        assert "and 6 more" in text_of(pilot.app)
    recording.store.close()


async def test_small_screen_folds_alarms_into_a_line_that_is_there_only_when_needed() -> None:
    recording = _alarmed()
    async with opened(cockpit(recording.run), (80, 24)) as pilot:
        assert "⚠ 2 alarms   entropy 0.03 nats, below 0.05   states 72 %" in rows_of(pilot.app)[4]
        recording.calms("overconfident")
        recording.calms("entropy_collapse")
        recording.store.flush()
        # The line gives its row back.
        await until(pilot, lambda: "Reward" in rows_of(pilot.app)[4])
        assert "⚠" not in text_of(pilot.app)
    recording.store.close()


async def test_enter_explains_an_alarm_and_says_what_to_do() -> None:
    recording = _alarmed()
    app = cockpit(recording.run)
    async with opened(app) as pilot:
        await pilot.press("8", "enter")
        await until(pilot, lambda: isinstance(app.screen, AlarmScreen))
        await settle(pilot)
        text = text_of(app)
        assert "entropy 0.03 nats, below 0.05" in text
        assert "since step 5" in text
        assert "came on at 0.210   threshold 0.150" in text
        assert "What to do" in text
        assert "1 of 2" in text
        await pilot.press("n")
        await settle(pilot)
        assert "states 72 %, right 51 %" in text_of(app)
        await pilot.press("escape")
        await until(pilot, lambda: not isinstance(app.screen, AlarmScreen))
    recording.store.close()


async def test_enter_elsewhere_still_opens_a_rollout() -> None:
    recording = _alarmed()
    app = cockpit(recording.run)
    async with opened(app) as pilot:
        await pilot.press("6", "enter")
        await until(pilot, lambda: isinstance(app.screen, RolloutScreen))
    recording.store.close()


async def test_new_alarm_is_a_toast_where_its_panel_is_out_of_sight() -> None:
    recording = _alarmed()
    app = cockpit(recording.run)
    async with opened(app, (80, 24)) as pilot:
        recording.raises("kl", "KL 1.3 nats a token, above 1.0")
        recording.store.flush()
        await until(pilot, lambda: "then ⏎" in text_of(app))
    recording.store.close()


async def test_only_a_new_alarm_stands_out_and_only_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    times: list[bool] = []
    stand_out = AlarmsPanel.stand_out

    def watched(panel: AlarmsPanel) -> None:
        stand_out(panel)
        times.append(panel.has_class("-new"))

    monkeypatch.setattr(AlarmsPanel, "stand_out", watched)
    recording = _alarmed()
    app = cockpit(recording.run)
    async with opened(app) as pilot:
        app.animation_level = "full"
        panel = app.screen.query_one(AlarmsPanel)
        assert times == []
        recording.raises("kl", "KL 1.3 nats a token, above 1.0")
        recording.store.flush()
        await until(pilot, lambda: times == [True])
        await until(pilot, lambda: not panel.has_class("-new"))
        # No toast: it would cover the panel.
        assert "then enter explains" not in text_of(app)
        recording.trains(1)
        recording.store.flush()
        await until(pilot, lambda: app.model is not None and app.model.history.step == 6)
        await settle(pilot)
        assert times == [True]
    recording.store.close()

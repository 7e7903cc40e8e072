"""The Super Saiyan panel: four lights with their figures, and the one celebration."""

import re
import time

import pytest

from stonk_tui.app import Cockpit
from stonk_tui.widgets import celebration
from stonk_tui.widgets.saiyan import SaiyanPanel, best_baseline
from tests import recorded
from tests.cockpit.helpers import cockpit, opened, rows_of, settle, text_of, until


def _going() -> recorded.Recording:
    """A run that goes on, whose store can still be written."""
    recording = recorded.new_run()
    recording.starts()
    recording.is_loaded()
    recording.state("training")
    recording.trains(2)
    recording.store.flush()
    recording.run.record_worker()
    return recording


def _panel(app: Cockpit) -> SaiyanPanel:
    return app.screen_stack[0].query_one(SaiyanPanel)


async def test_each_light_says_its_value_threshold_word_and_streak() -> None:
    recording = recorded.record(128)
    async with opened(cockpit(recording.run, now=recording.now)) as pilot:
        text = text_of(pilot.app)
        assert re.search(r"◐ reward +0\.54 > 0\.70 +near 0/10", text)
        assert re.search(r"○ accuracy +54 % > 80 % +off 0/2", text)
        assert re.search(r"● reasoning +0\.32 ≥ 0\.30 +on", text)
        assert re.search(r"○ settled +2\.3 < 2\.0 \|t\| +off", text)
        assert "the loss still falls" in text


async def test_accuracy_never_stands_alone() -> None:
    recording = recorded.record(128)
    async with opened(cockpit(recording.run, now=recording.now)) as pilot:
        rows = rows_of(pilot.app)
        at = next(index for index, row in enumerate(rows) if "> 80 %" in row)
        # Bootstrap interval over whole days, n, and the best baseline on the same rows.
        assert "[45, 63] n=200  always ▲ 54 %" in rows[at + 1]


async def test_zoomed_panel_says_why_each_light_is_off() -> None:
    recording = recorded.record(128)
    async with opened(cockpit(recording.run, now=recording.now)) as pilot:
        await pilot.press("2", "z")
        await settle(pilot)
        text = text_of(pilot.app)
        assert "rubric reward" in text
        assert "the newest batch is below 0.70" in text
        assert "54 % is not above 80 %" in text


async def test_power_level_is_the_workers_and_unknown_before_it_reports_one() -> None:
    recording = recorded.new_run()
    recording.starts()
    recording.closes()
    recording.run.record_worker()
    async with opened(cockpit(recording.run)) as pilot:
        assert "power ·" in text_of(pilot.app)
    recording = recorded.record(60)
    async with opened(cockpit(recording.run, now=recording.now)) as pilot:
        assert "power 4\u202f100" in text_of(pilot.app)


def test_best_baseline_is_the_highest_of_those_that_are_known() -> None:
    metrics = {
        "validation/baseline/always_up": 0.53,
        "validation/baseline/momentum": 0.58,
        "validation/baseline/base_model": 0.11,
        "baseline/always_up": 0.99,
    }
    assert best_baseline(metrics) == "momentum 58 %"
    assert best_baseline({}) == ""


@pytest.mark.parametrize("is_busy", [False, True])
async def test_all_four_lights_are_celebrated_once_and_keys_go_on_working(
    monkeypatch: pytest.MonkeyPatch, is_busy: bool
) -> None:
    strengths: list[int] = []
    glow = celebration.glow

    def watched(panel: SaiyanPanel, strength: int) -> None:
        strengths.append(strength)
        if is_busy and len(strengths) < 3:
            # The whole app stands still for longer than a frame, as on a loaded machine.
            time.sleep(2.5 * celebration.FRAME_SECONDS)
        glow(panel, strength)
        assert panel.has_class(f"-power-{strength}") is (strength > 0)

    monkeypatch.setattr(celebration, "glow", watched)
    recording = _going()
    app = cockpit(recording.run)
    async with opened(app) as pilot:
        app.animation_level = "full"
        recording.lights_all()
        recording.store.flush()
        await until(pilot, lambda: strengths)
        await pilot.press("5")
        assert app.screen.current_panel == "health"  # type: ignore[attr-defined]
        await until(pilot, lambda: strengths[-1] == 0)
        assert strengths.count(0) == 1
        assert max(strengths) == 3
        assert not _panel(app).classes & _MOVING
        assert "All four lights are on, power 9001" in text_of(app)
        assert "All four on: over 9000" in text_of(app)
    recording.store.close()


async def test_nothing_moves_where_motion_is_off() -> None:
    recording = _going()
    app = cockpit(recording.run)
    async with opened(app) as pilot:
        app.animation_level = "none"
        recording.raises()
        recording.lights_all()
        recording.store.flush()
        await until(pilot, lambda: "All four lights are on" in text_of(app))
        await until(pilot, lambda: "⚠ 1 alarm" in text_of(app))
        moving = [widget for widget in app.screen.query("*") if widget.classes & _MOVING]
        assert moving == []
    recording.store.close()


_MOVING = {"-new", "-power-1", "-power-2", "-power-3"}


@pytest.mark.parametrize("start", ["none", "full"])
async def test_motion_is_a_setting_of_the_app(start: str) -> None:
    recording = recorded.record(3)
    app = cockpit(recording.run)
    async with opened(app) as pilot:
        app.animation_level = start  # type: ignore[assignment]
        await pilot.press("m")
        assert app.animation_level == {"none": "full", "full": "none"}[start]
        await pilot.press("m")
        assert app.animation_level == start


async def test_run_whose_lights_were_on_before_it_was_opened_is_not_celebrated() -> None:
    recording = _going()
    recording.lights_all()
    recording.closes()
    app = cockpit(recording.run)
    async with opened(app) as pilot:
        assert "All four on: over 9000" in text_of(pilot.app)
        assert "All four lights are on, power" not in text_of(pilot.app)
        assert not _panel(app).classes & _MOVING

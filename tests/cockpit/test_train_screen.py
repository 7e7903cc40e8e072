"""The train screen tells what a run does, in every state and at every size."""

import re

import pytest
from textual.geometry import Size

from stonk_tui.screens.rollout import RolloutScreen
from stonk_tui.widgets.board import PANELS, places
from tests import recorded
from tests.cockpit.helpers import cockpit, opened, settle, text_of, until


async def test_every_panel_is_on_a_wide_screen_with_its_answer() -> None:
    recording = recorded.record(128)
    async with opened(cockpit(recording.run, now=recording.now)) as pilot:
        text = text_of(pilot.app)
        for noun in (
            "Reward",
            "Super Saiyan",
            "Breakdown",
            "Market",
            "Health",
            "Rollouts",
            "Device",
            "Alarms",
            "Events",
        ):
            assert noun in text
        assert "● training" in text
        assert "128/500" in text
        assert re.search(r"format +\.20 .* 1\.00", text)
        assert "per 100 steps" in text
        # The preset validates every 10 steps.
        assert "validates in 2 steps" in text


async def test_folded_screen_keeps_the_lights_and_the_market_in_a_line_each() -> None:
    recording = recorded.record(60)
    async with opened(cockpit(recording.run, now=recording.now), (80, 24)) as pilot:
        text = text_of(pilot.app)
        assert "reasoning .28≥.30" in text
        assert "called ▲" in text
        assert "Rollouts" in text
        await pilot.press("4")
        await settle(pilot)
        assert "baselines" in text_of(pilot.app)
        await pilot.press("tab")
        await settle(pilot)
        assert "gradient" in text_of(pilot.app)


@pytest.mark.parametrize(
    ("state", "words"),
    [
        ("paused", ["‖ paused", "p goes on"]),
        ("stale", ["◇ stale", "its worker is gone", "train --resume"]),
        ("failed", ["✗ failed", "out of memory", "train --resume"]),
        ("stopped", ["■ stopped", "at step 60 of 500", "train --resume", "stopped by command"]),
        ("finished", ["✓ finished", "best by validation: step-000050"]),
    ],
)
async def test_state_says_what_happened_and_what_to_do(state: str, words: list[str]) -> None:
    recording = recorded.record(60, state=state)
    async with opened(cockpit(recording.run, now=recording.now)) as pilot:
        for word in words:
            assert word in text_of(pilot.app)


async def test_figures_that_are_not_known_yet_are_dots_and_not_zeros() -> None:
    recording = recorded.new_run()
    recording.starts()
    recording.closes()
    recording.run.record_worker()
    async with opened(cockpit(recording.run)) as pilot:
        health = next(row for row in text_of(pilot.app).split("\n") if "entropy" in row)
        assert "·" in health
        assert "0.00" not in text_of(pilot.app)


async def test_warm_up_shows_progress_time_left_and_loss() -> None:
    recording = recorded.new_run()
    recording.starts()
    recording.is_loaded()
    recording.warms_up(13)
    recording.closes()
    recording.run.record_worker()
    async with opened(cockpit(recording.run)) as pilot:
        text = text_of(pilot.app)
        assert "13 of 24" in text
        assert "54 %" in text
        assert "ETA 23 s" in text
        assert re.search(r"warm-up loss 0\.\d\d from 2\.\d\d", text)


async def test_work_of_unknown_length_shows_no_bar() -> None:
    recording = recorded.new_run()
    recording.starts()
    recording.progress("loading libraries", 0, 0)
    recording.closes()
    recording.run.record_worker()
    async with opened(cockpit(recording.run)) as pilot:
        assert "loading libraries" in text_of(pilot.app)
        assert "ETA" not in text_of(pilot.app)


async def test_run_whose_store_does_not_exist_yet_is_shown_as_starting() -> None:
    recording = recorded.new_run()
    recording.closes()
    for file in recording.run.path.glob("events.db*"):
        file.unlink()
    recording.run.record_worker()
    async with opened(cockpit(recording.run)) as pilot:
        assert "◌ starting" in text_of(pilot.app)


async def test_damaged_store_is_one_clear_line_and_the_cockpit_stays_up() -> None:
    recording = recorded.record(5)
    recorded.damaged(recording.run.database)
    async with opened(cockpit(recording.run)) as pilot:
        assert "the run's store is damaged" in text_of(pilot.app)
        await pilot.press("g", "r")
        await until(pilot, lambda: "unreadable" in text_of(pilot.app))


async def test_vanished_run_directory_does_not_end_the_cockpit() -> None:
    recording = recorded.record(5)
    async with opened(cockpit(recording.run)) as pilot:
        for file in sorted(recording.run.path.rglob("*"), reverse=True):
            file.unlink() if file.is_file() else file.rmdir()
        await until(pilot, lambda: "◇ stale" in text_of(pilot.app))


async def test_zoomed_panel_takes_the_screen_and_gives_it_back() -> None:
    recording = recorded.record(60)
    async with opened(cockpit(recording.run, now=recording.now)) as pilot:
        for leave in ("z", "escape"):
            await pilot.press("5", "z")
            await settle(pilot)
            assert "Health" in text_of(pilot.app)
            assert "Rollouts" not in text_of(pilot.app)
            await pilot.press(leave)
            await settle(pilot)
            assert "Rollouts" in text_of(pilot.app)


async def test_tab_visits_every_panel_at_both_sizes() -> None:
    recording = recorded.record(5)
    for size in ((120, 40), (80, 24)):
        async with opened(cockpit(recording.run, now=recording.now), size) as pilot:
            seen = set()
            for _ in PANELS:
                await pilot.press("tab")
                await settle(pilot)
                seen.add(pilot.app.screen.current_panel)  # type: ignore[attr-defined]
            assert seen == set(PANELS)


async def test_new_rollouts_do_not_move_the_row_that_is_being_looked_at() -> None:
    recording = recorded.new_run()
    recording.starts()
    recording.is_loaded()
    recording.state("training")
    recording.trains(2)
    recording.store.flush()
    recording.run.record_worker()
    app = cockpit(recording.run)
    async with opened(app) as pilot:
        table = app.screen.query_one("#rollout-table")
        await pilot.press("down", "down", "down")
        key = table.cursor_key  # type: ignore[attr-defined]
        recording.trains(1)
        recording.store.flush()
        await until(pilot, lambda: app.model is not None and app.model.history.step == 3)
        await until(pilot, lambda: app.model is not None and app.model.rollouts[0].step == 3)
        await settle(pilot)
        assert table.cursor_key == key  # type: ignore[attr-defined]
        await pilot.press("enter")
        await settle(pilot)
        assert isinstance(app.screen, RolloutScreen)
    recording.store.close()


def test_all_panels_have_a_place_that_fits_and_no_two_overlap() -> None:
    for width in (100, 120, 160, 200, 300):
        for height in (32, 37, 56, 90):
            regions = list(places(Size(width, height)).values())
            assert len(regions) == len(PANELS)
            assert sum(region.area for region in regions) == width * height
            assert all(
                not one.overlaps(other)
                for index, one in enumerate(regions)
                for other in regions[index + 1 :]
            )


@pytest.mark.parametrize("slot", PANELS)
def test_folded_arrangement_fills_the_room_for_every_slot(slot: str) -> None:
    regions = places(Size(80, 19), slot)
    assert sum(region.area for region in regions.values()) == 80 * 19


async def test_market_panel_tells_sides_with_intervals_and_what_training_pays() -> None:
    recording = recorded.record(60)
    async with opened(cockpit(recording.run, now=recording.now)) as pilot:
        text = text_of(pilot.app)
        # Over the last 200 calls, not the batch.
        assert re.search(r"called +▲ 64 %.* market ▲ 51 %", text)
        assert re.search(r"on ▲ days +\d+ % \[\d+, \d+\] n=16", text)
        assert re.search(r"on ▼ days +\d+ % \[\d+, \d+\] n=16", text)
        assert re.search(r"says +\d+ % true \d+ % ", text)
        assert "pays      ▲×0.91 ▼×1.00" in text
        await pilot.press("4", "z")
        await settle(pilot)
        assert "too many ▲ by 13" in text_of(pilot.app)


async def test_market_panel_falls_back_to_the_batch_where_no_window_is_kept() -> None:
    recording = recorded.new_run()
    recording.starts()
    recording.state("training")
    shares = {"reward/total": 0.4, "calls/up_share": 0.75, "market/up_share": 0.5}
    recording.store.event("step", {"metrics": shares}, step=1)
    recording.closes()
    recording.run.record_worker()
    async with opened(cockpit(recording.run)) as pilot:
        assert re.search(r"called +▲ 75 %.* market ▲ 50 %", text_of(pilot.app))
        assert "pays" not in text_of(pilot.app)


async def test_breakdown_marks_components_that_are_not_paid_in_full() -> None:
    recording = recorded.record(60)
    async with opened(cockpit(recording.run, now=recording.now)) as pilot:
        text = text_of(pilot.app)
        assert re.search(r"direction +\.35.*[▲▼─]×", text)
        assert re.search(r"magnitude +\.20.*[▲▼─]×", text)
        assert not re.search(r"confidence +\.10[^│]*×", text)
        assert "× ▲ calls 0.91, ▼ calls 1.00" in text
    recording = recorded.record(2)
    async with opened(cockpit(recording.run, now=recording.now)) as pilot:
        assert "×" not in text_of(pilot.app).split("Market")[0].replace("×0.", "")


async def test_rollout_shows_the_factor_and_its_parts_sum_to_the_reward() -> None:
    recording = recorded.record_stage2(2)
    app = cockpit(recording.run)
    async with opened(app) as pilot:
        await until(pilot, lambda: app.model is not None and app.model.rollouts)
        table = app.screen.query_one("#rollout-table")
        await until(pilot, lambda: table.rows)  # type: ignore[attr-defined]
        while "▲" not in table.rows[table._cursor].cells[3].plain:  # type: ignore[attr-defined]
            await pilot.press("down")
        await pilot.press("enter")
        await settle(pilot)
        text = text_of(app)
        assert "× 0.94 for its side" in text or "× 0.93 for its side" in text
        assert "the parts were adjusted" not in text


async def test_reward_chart_shows_validations_as_points_of_their_own() -> None:
    recording = recorded.record(60)
    async with opened(cockpit(recording.run, now=recording.now)) as pilot:
        # One before the first step, one at step 50, and the legend's.
        await until(pilot, lambda: text_of(pilot.app).count("◆") == 3)
        assert "◆ validated 0.43" in text_of(pilot.app)


@pytest.mark.parametrize(
    ("size", "is_folded"), [((120, 34), True), ((120, 35), False), ((99, 60), True)]
)
async def test_arrangement_is_folded_exactly_where_all_panels_have_no_room(
    size: tuple[int, int], is_folded: bool
) -> None:
    recording = recorded.record(3)
    app = cockpit(recording.run)
    async with opened(app, (80, 24)) as pilot:
        await pilot.resize_terminal(*size)
        await settle(pilot)
        await settle(pilot)
        assert app.screen.has_class("-folded") is is_folded
        # The folded line and the panel never say the same twice.
        text = text_of(app)
        assert ("2 Super Saiyan" in text) is not is_folded
        assert ("accuracy ·>80%" in text or "reward ." in text) is is_folded

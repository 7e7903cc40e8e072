"""Runs laid over each other: their curves, told apart without colour, read off at a cursor."""

import re
from typing import Any

import pytest

from engine import config as configuration
from engine.runs.status import read_history
from engine.runs.store import EventStore
from stonk_tui import comparison
from stonk_tui.app import Cockpit
from stonk_tui.comparison import Curves, Validated, differences, picture, value_at
from stonk_tui.screens.compare import CompareScreen
from stonk_tui.widgets import chart
from tests import recorded
from tests.cockpit.helpers import cockpit, opened, rows_of, settle, text_of, until


def record_three() -> None:
    for seed, (name, steps) in enumerate((("one", 60), ("two", 20), ("three", 40))):
        recording = recorded.new_run(name)
        recording.random.seed(seed)
        recording.starts()
        recording.is_loaded()
        recording.state("training")
        recording.validates()
        recording.trains(steps, every=20)
        recording.state("finished")
        recording.closes()


async def compare(app: Cockpit, pilot: Any, runs: int) -> None:
    for _ in range(runs):
        await pilot.press("space", "j")
    await pilot.press("v")
    await until(pilot, lambda: isinstance(app.screen, CompareScreen))
    await settle(pilot)


def test_curves_are_those_of_the_history() -> None:
    recording = recorded.record(55)
    history = read_history(recording.run)
    curves = comparison.read(recording.run, Curves())
    assert [step for step, _ in curves.kl] == history.series["kl"].steps
    assert [value for _, value in curves.reward] == history.series["reward/total"].values
    newest = curves.validations[-1]
    assert (newest.step, newest.n, newest.baseline) == (50, 200, 0.535)
    assert newest.accuracy == history.metrics["validation/accuracy"]
    assert curves.steps == (0, 55)
    assert comparison.read(recording.run, curves) == curves


def test_curves_grow_and_a_resume_takes_steps_back() -> None:
    recording = recorded.record(20, state="stale")
    before = comparison.read(recording.run, Curves())
    store = EventStore(recording.run.database)
    store.event("step", {"metrics": {"reward/total": 0.9, "kl": 0.5}}, step=21)
    store.flush()
    grown = comparison.read(recording.run, before)
    assert grown.reward == (*before.reward, (21, 0.9))
    store.supersede_after(10)
    store.event("resumed", {"from_step": 10}, step=10)
    store.event("step", {"metrics": {"reward/total": 0.1, "kl": "nonsense"}}, step=11)
    store.close()
    taken_back = comparison.read(recording.run, grown)
    assert taken_back.reward == (*before.reward[:10], (11, 0.1))
    assert taken_back.kl == before.kl[:10]


def test_run_without_a_store_and_a_damaged_one_have_no_curves() -> None:
    prepared = recorded.new_run("prepared")
    prepared.closes()
    for file in prepared.run.path.glob("events.db*"):
        file.unlink()
    assert comparison.read(prepared.run, Curves()) == Curves()
    broken = recorded.record(3, name="broken", state="stale")
    recorded.damaged(broken.run.database)
    assert "damaged" in comparison.read(broken.run, Curves()).problem


@pytest.mark.parametrize(
    ("step", "expected"), [(0, None), (1, 0.1), (2, 0.1), (3, 0.3), (4, 0.3), (99, 0.3)]
)
def test_value_is_read_off_at_the_step_or_before(step: int, expected: float | None) -> None:
    assert value_at(((1, 0.1), (3, 0.3)), step) == expected


def test_every_run_has_a_glyph_of_its_own_upon_its_curve() -> None:
    curves = [tuple((step, run + step / 100) for step in range(50)) for run in range(6)]
    drawn = chart.render(picture(curves, 25, empty="", is_share=False), 100, 30).plain
    for glyph, _ in comparison.LOOKS:
        assert drawn.count(glyph) >= 4
    assert len({glyph for glyph, _ in comparison.LOOKS}) == len(comparison.LOOKS)
    assert "┊" in drawn


def test_thinning_keeps_extremes() -> None:
    points = tuple((step, 1.0 if step == 7777 else 0.0) for step in range(10_000))
    thin = comparison.thinned(points)
    assert len(thin) <= 1000
    assert (7777, 1.0) in thin


def test_settings_that_differ_are_named_and_the_reward_scale_is_judged() -> None:
    one = configuration.preset("demo")
    same = one.model_copy(update={"name": "other"})
    assert differences([one, same, None]) == ()
    two = configuration.with_overrides(one, ["seed=8", "optimizer.learning_rate=0.1"])
    found = differences([one, two])
    assert [(item.key, item.values) for item in found] == [
        ("seed", (7, 8)),
        ("optimizer.learning_rate", (8e-5, 0.1)),
    ]
    assert not comparison.rewards_differ(found)
    three = configuration.with_overrides(one, ["reward.scheme=stage2"])
    assert comparison.rewards_differ(differences([one, three]))


def test_accuracy_is_that_of_the_newest_validation_so_far() -> None:
    first, second = (Validated(step, 0.5, 0.4, 0.6, 100, 0.53) for step in (10, 20))
    curves = Curves(validations=(first, second))
    found = [comparison.validated_at(curves, step) for step in (5, 10, 19, 20, 30)]
    assert found == [None, first, first, second, second]


async def test_selected_runs_are_laid_over_each_other() -> None:
    record_three()
    app = cockpit(None)
    async with opened(app) as pilot:
        await pilot.press("v")
        await until(pilot, lambda: "select two runs or more with space" in text_of(app))
        await compare(app, pilot, 3)
        text = text_of(app)
        for part in ("3 runs, newest", "Reward", "Validation accuracy", "KL to the reference"):
            assert part in text
        legend = rows_of(app)[1:4]
        for row, glyph, name in zip(legend, "●▲■", ("two", "three", "one"), strict=True):
            assert f"{glyph} 20251120-005320-{name} " in row
            assert re.search(r"\d\d % \[\d\d, \d\d\] n=200 vs 54 %", row)
        # The longest run has 60 steps: what the shorter ones say is as old as they are.
        assert "at step 20" in legend[0]
        assert "at step" not in legend[2]
        await pilot.press("escape")
        await until(pilot, lambda: not isinstance(app.screen, CompareScreen))
        assert "▣ 3 selected" in text_of(app)


async def test_cursor_reads_the_curves_off() -> None:
    record_three()
    app = cockpit(None)
    async with opened(app) as pilot:
        await compare(app, pilot, 2)
        newest = rows_of(app)[1:3]
        await pilot.press("left", "left", "left")
        await settle(pilot)
        assert "at step 37" in text_of(app)
        assert rows_of(app)[1:3] != newest
        for _ in range(60):
            await pilot.press("left")
        await settle(pilot)
        assert "at step 0" in text_of(app)
        await pilot.press("end")
        await settle(pilot)
        assert rows_of(app)[1:3] == newest


async def test_small_screen_shows_one_chart_at_a_time() -> None:
    record_three()
    app = cockpit(None)
    async with opened(app, (80, 24)) as pilot:
        await compare(app, pilot, 2)
        assert "Validation accuracy" not in text_of(app)
        await pilot.press("tab")
        await settle(pilot)
        assert "Validation accuracy" in text_of(app)
        await pilot.press("tab")
        await settle(pilot)
        assert "KL to the reference" in text_of(app)
        await pilot.resize_terminal(120, 40)
        await settle(pilot)
        await pilot.press("tab")
        await until(pilot, lambda: "all charts are on screen" in text_of(app))


async def test_run_that_goes_on_grows_on_screen() -> None:
    record_three()
    recording = recorded.record(3, name="zz")
    app = cockpit(None)
    async with opened(app) as pilot:
        await compare(app, pilot, 2)
        store = EventStore(recording.run.database)
        store.event("step", {"metrics": {"reward/total": 7.0, "kl": 0.1}}, step=100)
        store.close()
        screen = app.screen
        assert isinstance(screen, CompareScreen)
        screen._read()
        await settle(pilot)
        assert "at step" not in next(row for row in rows_of(app) if "-zz" in row)
        assert "at step" in next(row for row in rows_of(app) if "-two" in row)


async def test_runs_on_other_scales_are_not_passed_over_in_silence() -> None:
    record_three()
    other = recorded.record(3, name="zz", state="stale")
    other.run.write_config(configuration.with_overrides(other.run.config(), ["data.style=brief"]))
    app = cockpit(None)
    async with opened(app) as pilot:
        await compare(app, pilot, 2)
        assert "! Their rewards are not on one scale." in text_of(app)
        assert "data.style (brief, compact)" in text_of(app)

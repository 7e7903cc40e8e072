"""The feed follows one run, wherever it stands, and hands over what a fold needs."""

import sqlite3

from engine.runs.curves import BUCKET, EXACT_STEPS
from engine.runs.status import read_history
from stonk_tui.feed import CURVE_POINTS, Batch, Feed, RunModel, RunModelUpdated
from stonk_tui.widgets.chart import Chart
from tests import recorded
from tests.cockpit.helpers import cockpit, opened, settle, text_of, until


async def test_cockpit_follows_a_growing_store() -> None:
    recording = recorded.new_run(max_steps=40)
    recording.starts()
    recording.store.flush()
    recording.run.record_worker()
    app = cockpit(recording.run)
    async with opened(app) as pilot:
        assert "starting" in text_of(app)
        recording.is_loaded()
        recording.state("training")
        recording.trains(3)
        recording.store.flush()
        await until(pilot, lambda: "3/40" in text_of(app))
        recording.trains(2)
        recording.store.flush()
        await until(pilot, lambda: "5/40" in text_of(app))
        await until(pilot, lambda: "step 5:" in text_of(app))
    recording.store.close()


async def test_news_that_comes_while_the_app_closes_is_let_go() -> None:
    app = cockpit(recorded.record(3).run)
    async with opened(app):
        assert app.model is not None
        assert app._feed is not None
    was_alive = app.model.alive
    app._feed.take = lambda: Batch(alive=not was_alive)  # type: ignore[method-assign]
    assert app.screen_stack == []
    app.on_run_model_updated()
    app._draw_if_dirty()
    assert app.model.alive is was_alive


async def test_chart_waits_its_second_and_then_catches_up_with_the_newest_step() -> None:
    recording = recorded.new_run()
    recording.starts()
    recording.is_loaded()
    recording.state("training")
    recording.trains(1)
    recording.store.flush()
    recording.run.record_worker()
    app = cockpit(recording.run)
    async with opened(app) as pilot:
        chart = app.screen.query_one("#reward-chart", Chart)
        for _ in range(3):
            recording.trains(1)
            recording.store.flush()
        await until(pilot, lambda: "4/500" in text_of(app))
        await until(pilot, lambda: chart.picture.lines[0].steps[-1] == 4)
    recording.store.close()


async def test_store_that_appears_after_the_cockpit_opened_is_found() -> None:
    recording = recorded.new_run()
    recording.closes()
    for file in recording.run.path.glob("events.db*"):
        file.unlink()
    recording.run.record_worker()
    app = cockpit(recording.run)
    async with opened(app) as pilot:
        later = recorded.Recording(recording.run)
        later.starts()
        later.is_loaded()
        later.state("training")
        later.trains(1)
        later.store.flush()
        await until(pilot, lambda: "1/500" in text_of(app))
        later.store.close()


async def test_resumed_run_forgets_the_steps_it_went_back_on() -> None:
    recording = recorded.new_run()
    recording.starts()
    recording.is_loaded()
    recording.state("training")
    recording.trains(12, every=10)
    recording.store.flush()
    recording.run.record_worker()
    app = cockpit(recording.run)
    async with opened(app) as pilot:
        assert app.model is not None
        assert app.model.history.series["reward/total"].steps[-1] == 12
        recording.store.close()
        resumed = recorded.Recording(recording.run)
        resumed.starts()
        resumed.store.supersede_after(10)
        resumed.store.event("resumed", {"from_step": 10}, step=10)
        resumed.step = 10
        resumed.trains(1)
        resumed.store.flush()
        await until(pilot, lambda: app.model is not None and app.model.history.step == 11)
        assert app.model.history.series["reward/total"].steps == list(range(1, 12))
        await until(pilot, lambda: app.model is not None and app.model.rollouts[0].step == 11)
        await settle(pilot)
        assert "goes on from step 10" in text_of(app)
        resumed.store.close()


async def test_long_run_is_drawn_from_its_first_step_on_and_ends_with_exact_figures() -> None:
    recording = recorded.record_long(2 * EXACT_STEPS)
    app = cockpit(recording.run)
    async with opened(app) as pilot:
        assert app.model is not None
        assert app.model.history.series["reward/total"].is_cut
        chart = app.screen.query_one("#reward-chart", Chart)
        await until(pilot, lambda: chart.picture.lines[0].steps[0] < BUCKET)
        each, smoothed, *_ = chart.picture.lines
        assert each.steps[-1] > 2 * EXACT_STEPS - BUCKET
        assert len(smoothed.steps) <= CURVE_POINTS + 1
        assert max(each.values) > max(smoothed.values)
        assert f"{2 * EXACT_STEPS}/{2 * EXACT_STEPS}" in text_of(app)


async def test_long_run_that_goes_back_is_read_anew() -> None:
    recording = recorded.record_long(EXACT_STEPS + 1000)
    app = cockpit(recording.run)
    async with opened(app) as pilot:
        assert app.model is not None
        known = app.model.history
        assert known.series["reward/total"].is_cut
        resumed = recorded.Recording(recording.run, max_steps=EXACT_STEPS + 1000)
        resumed.starts()
        # Further back than the series of what was read goes.
        resumed.store.supersede_after(EXACT_STEPS + 10)
        resumed.store.event("resumed", {"from_step": EXACT_STEPS + 10}, step=EXACT_STEPS + 10)
        resumed.step = EXACT_STEPS + 10
        resumed.trains(1)
        resumed.store.close()
        await until(pilot, lambda: app.model and app.model.history.step == EXACT_STEPS + 11)
        assert app.model.history is not known
        assert app.model.history.series["reward/total"].steps[-3:] == [
            EXACT_STEPS + 9,
            EXACT_STEPS + 10,
            EXACT_STEPS + 11,
        ]
        await until(pilot, lambda: app.model and app.model.rollouts[0].step == EXACT_STEPS + 11)


async def test_two_cockpits_watch_one_run_at_once() -> None:
    recording = recorded.record(30)
    one, other = cockpit(recording.run), cockpit(recording.run, read_only=True)
    async with opened(one), opened(other):
        assert "30/500" in text_of(one)
        assert "30/500" in text_of(other)
        assert "read-only" in text_of(other)


async def test_run_of_a_newer_version_is_one_clear_line() -> None:
    recording = recorded.record(3)
    connection = sqlite3.connect(recording.run.database)
    with connection:
        connection.execute("UPDATE meta SET value = '99' WHERE key = 'schema'")
    connection.close()
    async with opened(cockpit(recording.run)) as pilot:
        assert "written by a newer stonk-tui; update stonk-tui" in text_of(pilot.app)


async def test_event_that_cannot_be_understood_is_said_and_does_not_end_the_cockpit() -> None:
    recording = recorded.record(3, state="paused")
    connection = sqlite3.connect(recording.run.database)
    with connection:
        connection.execute("UPDATE events SET payload = '{}' WHERE kind = 'step' AND step = 2")
    connection.close()
    async with opened(cockpit(recording.run)) as pilot:
        assert "cannot be understood" in text_of(pilot.app)


def test_feed_hands_over_the_same_events_that_status_folds() -> None:
    recording = recorded.record(40, state="finished")
    model = RunModel(recording.run)
    feed = Feed(recording.run, lambda: None)
    feed.start()
    while not model.loaded:
        batch = feed.take()
        if batch is not None:
            model.fold(batch)
    feed.stop()
    feed.join(5)
    assert vars(model.history) == vars(read_history(recording.run))
    assert model.state[0] == "finished"
    assert model.rollouts[0].step == 40


def test_page_in_hand_is_taken_before_the_next_one_is_read() -> None:
    recording = recorded.record(30, state="finished")
    feed = Feed(recording.run, lambda: None)
    feed.start()
    feed.join(0.6)
    news = feed.take()
    assert news is not None
    assert len(news.events) <= 1000
    feed.stop()
    feed.join(5)


def test_finished_run_without_a_worker_never_counts_as_stale() -> None:
    recording = recorded.record(3, state="finished")
    model = RunModel(recording.run)
    model.fold(Batch(alive=False))
    model.history = read_history(recording.run)
    assert model.state[0] == "finished"


def test_updates_in_a_row_become_one() -> None:
    assert RunModelUpdated().can_replace(RunModelUpdated())

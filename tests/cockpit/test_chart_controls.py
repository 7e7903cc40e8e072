"""The keys and the mouse of the chart, on the train screen and zoomed."""

import csv
import json
import re
from pathlib import Path

import pytest
from textual.pilot import Pilot

from engine.errors import UserError
from engine.runs.history import History
from engine.runs.reader import StoreReader
from stonk_tui.chart_choices import choice
from stonk_tui.chart_view import ChartView, Extent
from stonk_tui.screens.choose_metric import ChooseMetricScreen
from stonk_tui.screens.export_series import ExportSeriesScreen
from stonk_tui.series_export import Cancelled, write
from stonk_tui.widgets.chart import Chart, Picture, smooth
from stonk_tui.widgets.reward import RewardPanel
from tests import recorded
from tests.cockpit.helpers import cockpit, opened, settle, text_of, until


def _panel(pilot: Pilot[None]) -> RewardPanel:
    return pilot.app.screen.query_one(RewardPanel)


def _look(pilot: Pilot[None]) -> ChartView:
    return _panel(pilot).look


def _picture(pilot: Pilot[None]) -> Picture:
    return pilot.app.screen.query_one("#reward-chart", Chart).picture


async def _press(pilot: Pilot[None], *keys: str) -> None:
    for key in keys:
        await pilot.press(key)
    await settle(pilot)


async def test_keys_of_the_chart_say_where_to_go_while_it_is_not_in_focus() -> None:
    recording = recorded.record(60)
    async with opened(cockpit(recording.run, now=recording.now)) as pilot:
        assert "i values" not in text_of(pilot.app)
        await _press(pilot, "plus")
        assert "zoom in: the chart is not in focus: 1 goes there" in text_of(pilot.app)
        assert _look(pilot) == ChartView()
        await _press(pilot, "1")
        assert "i values" in text_of(pilot.app)
        await _press(pilot, "plus")
        assert _look(pilot).length == pytest.approx(40)


@pytest.mark.parametrize("size", [(80, 24), (120, 40)])
@pytest.mark.parametrize("zoomed", [False, True])
async def test_zoom_keeps_the_tail_and_panning_away_says_how_far(
    size: tuple[int, int], zoomed: bool
) -> None:
    recording = recorded.record(120)
    async with opened(cockpit(recording.run, now=recording.now), size) as pilot:
        await _press(pilot, "1", *(["z"] if zoomed else []), "plus", "plus", "plus")
        assert "last 36 steps" in text_of(pilot.app)
        assert _picture(pilot).x_high == 120
        await _press(pilot, "left", "left")
        assert "⏸ 9 steps behind, End to follow" in text_of(pilot.app)
        assert _picture(pilot).x_high == pytest.approx(111.1, abs=0.1)
        await _press(pilot, "end")
        assert "behind" not in text_of(pilot.app)
        assert _look(pilot).is_following
        await _press(pilot, "0")
        assert _look(pilot) == ChartView()
        assert _picture(pilot).x_low == 0


async def test_view_that_follows_moves_with_the_run_and_one_that_was_moved_does_not() -> None:
    recording = recorded.new_run()
    recording.starts()
    recording.is_loaded()
    recording.state("training")
    recording.trains(60, rollouts=False)
    recording.store.flush()
    recording.run.record_worker()
    app = cockpit(recording.run)
    async with opened(app) as pilot:
        await _press(pilot, "1", "plus", "plus")
        assert _picture(pilot).x_high == 60
        recording.trains(5, rollouts=False)
        recording.store.flush()
        await until(pilot, lambda: _picture(pilot).x_high == 65)
        await _press(pilot, "left", "left")
        right = _picture(pilot).x_high
        recording.trains(5, rollouts=False)
        recording.store.flush()
        await until(pilot, lambda: "12 steps behind" in text_of(app))
        assert _picture(pilot).x_high == right
    recording.store.close()


async def test_smoothing_changes_the_curve_and_never_with_the_zoom() -> None:
    recording = recorded.record(120)
    async with opened(cockpit(recording.run, now=recording.now)) as pilot:
        await _press(pilot, "1", "right_square_bracket")
        assert "mean of 25" in text_of(pilot.app)
        smoothed = next(line for line in _picture(pilot).lines if line.label == "smoothed")
        assert pilot.app.model is not None  # type: ignore[attr-defined]
        values = pilot.app.model.history.series["reward/total"].values  # type: ignore[attr-defined]
        assert list(smoothed.values) == smooth(values, 25)
        await _press(pilot, "plus", "plus")
        zoomed = next(line for line in _picture(pilot).lines if line.label == "smoothed")
        assert list(zoomed.values) == smooth(values, 25)[-len(zoomed.values) :]
        await _press(pilot, *["left_square_bracket"] * 5)
        assert "not smoothed" in text_of(pilot.app)
        await _press(pilot, "left_square_bracket")
        assert "nothing is smoothed already" in text_of(pilot.app)


async def test_reward_has_no_log_scale_and_says_why_and_kl_has_one() -> None:
    recording = recorded.record(60)
    async with opened(cockpit(recording.run, now=recording.now)) as pilot:
        await _press(pilot, "1", "y")
        assert "a reward can be negative" in text_of(pilot.app)
        assert not _look(pilot).is_log
        await _press(pilot, "v", "v", "v")
        assert "KL" in text_of(pilot.app)
        await _press(pilot, "y")
        assert _picture(pilot).is_log
        assert "log scale" in text_of(pilot.app)
        # A curve that has no log scale takes it off.
        await _press(pilot, "V")
        await pilot.press(*"total", "enter")
        await settle(pilot)
        assert not _picture(pilot).is_log


async def test_cursor_tells_every_line_and_the_health_panel_at_the_same_step() -> None:
    recording = recorded.record(60)
    app = cockpit(recording.run, now=recording.now)
    async with opened(app) as pilot:
        await _press(pilot, "1", "i", "left", "left")
        assert app.model is not None
        values = app.model.history.series["reward/total"].values
        text = text_of(app)
        assert "step 58" in text
        assert f"mean {smooth(values)[57]:.3f}  here {values[57]:.3f}" in text
        assert "◆ 0.433 at 50" in text
        assert "courses at step 58" in text
        kl = app.model.history.series["kl"].values[57]
        assert f"KL         {kl:.3f}" in text
        assert _picture(pilot).cursor == 58
        await _press(pilot, "i")
        assert "courses at step" not in text_of(app)


async def test_components_are_told_apart_without_colour() -> None:
    recording = recorded.record(60)
    async with opened(cockpit(recording.run, now=recording.now)) as pilot:
        await _press(pilot, "1", "v")
        text = text_of(pilot.app)
        assert "1 Components" in text
        for word in ("f format 0.9", "d direction 0.", "m magnitude 0.", "o coherence 0."):
            assert word in text
        markers = [line.marker for line in _picture(pilot).lines if line.marker]
        assert markers == ["f", "d", "m", "c", "a", "o"]


async def test_accuracy_never_stands_alone() -> None:
    recording = recorded.record(60)
    async with opened(cockpit(recording.run, now=recording.now)) as pilot:
        await _press(pilot, "1", "v", "v")
        top = text_of(pilot.app).split("\n")[2]
        assert "Accuracy" in top
        assert "n=32" in top
        assert "always up 0.530" in text_of(pilot.app)
        await _press(pilot, "i")
        assert re.search(r"◆ 0.\d+ \[0.\d+, 0.\d+\] n=200 at 50", text_of(pilot.app))
        assert "always up 0.530" in text_of(pilot.app)


async def test_any_metric_can_be_chosen_by_a_part_of_its_name() -> None:
    recording = recorded.record(60)
    async with opened(cockpit(recording.run, now=recording.now)) as pilot:
        await _press(pilot, "1", "V")
        assert isinstance(pilot.app.screen, ChooseMetricScreen)
        await _press(pilot, *"tokens", "down", "enter")
        assert _look(pilot).shown == "tokens/truncated"
        assert "tokens/truncated" in text_of(pilot.app)
        await _press(pilot, "V", "escape")
        assert _look(pilot).shown == "tokens/truncated"
        await _press(pilot, "v")
        assert _look(pilot).shown == "reward"


async def test_wheel_zooms_and_drag_pans_and_a_click_points() -> None:
    recording = recorded.record(120)
    async with opened(cockpit(recording.run, now=recording.now)) as pilot:
        chart = pilot.app.screen.query_one("#reward-chart", Chart)
        chart.post_message(Chart.Wheeled(60, 1))
        await settle(pilot)
        assert _look(pilot).length == pytest.approx(80)
        assert _look(pilot).is_following
        await pilot.mouse_down(chart, offset=(20, 5))
        await pilot.hover(chart, offset=(30, 5))
        await pilot.mouse_up(chart, offset=(30, 5))
        await settle(pilot)
        assert not _look(pilot).is_following
        assert _look(pilot).cursor is None
        await _press(pilot, "1", "i")
        await pilot.click(chart, offset=(30, 5))
        await settle(pilot)
        cursor = _look(pilot).cursor
        assert cursor is not None
        assert cursor == round(cursor) < 100


async def test_another_run_is_shown_from_the_start() -> None:
    first, second = recorded.record(30, name="one"), recorded.record(30, name="two")
    app = cockpit(first.run)
    async with opened(app) as pilot:
        await _press(pilot, "1", "plus", "v")
        app.attach(second.run)
        await until(pilot, lambda: app.model is not None and app.model.loaded)
        await settle(pilot)
        assert _look(pilot) == ChartView()


async def test_before_the_first_step_there_is_no_chart_to_zoom() -> None:
    recording = recorded.new_run()
    recording.starts()
    recording.closes()
    recording.run.record_worker()
    async with opened(cockpit(recording.run)) as pilot:
        await _press(pilot, "1", "plus", "i")
        assert "no curve before the first step" in text_of(pilot.app)


async def test_long_run_shows_the_steps_that_memory_does_not_have() -> None:
    recording = recorded.record_long(6000)
    app = cockpit(recording.run)
    async with opened(app) as pilot:
        await _press(pilot, "1", "v", *["v"] * 2)
        assert _look(pilot).shown == "kl"
        await until(pilot, lambda: list(_picture(pilot).lines[0].steps[:1]) == [8.5])
        _panel(pilot).choose("reward")
        _panel(pilot).look_through(lambda view, steps: ChartView(length=100, last=3000))
        await until(pilot, lambda: list(_picture(pilot).lines[0].steps)[:1] == [2900])
        assert len(_picture(pilot).lines[0].steps) == 101


# --- export


async def test_export_asks_for_a_name_and_overwrites_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "reward.csv").write_text("mine")
    recording = recorded.record(60)
    app = cockpit(recording.run, now=recording.now)
    async with opened(app) as pilot:
        await _press(pilot, "1", "plus", "w")
        assert isinstance(app.screen, ExportSeriesScreen)
        assert "steps 20 to 60" in text_of(app)
        assert "the file exists; nothing is overwritten" in text_of(app)
        await _press(pilot, "enter")
        assert (tmp_path / "reward.csv").read_text() == "mine"
        await _press(pilot, "ctrl+u", *"r.txt", "enter")
        assert "a name ends in .csv or .jsonl" in text_of(app)
        await _press(pilot, "ctrl+u", *"r.csv", "enter")
        await until(pilot, lambda: "41 steps in" in text_of(app))
        assert app.model is not None
        values = app.model.history.series["reward/total"].values
    with (tmp_path / "r.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["step"] for row in rows] == [str(step) for step in range(20, 61)]
    assert [float(row["reward/total"]) for row in rows] == values[19:]
    means = [float(row["reward/total/mean_of_12"]) for row in rows]
    assert means == pytest.approx(smooth(values)[19:])
    assert [row["step"] for row in rows if row["validation/reward/total"]] == ["50"]


def test_export_of_a_long_run_has_every_step_and_means_of_all_before(tmp_path: Path) -> None:
    recording = recorded.record_long(5000)
    history = _history(recording)
    out = tmp_path / "kl.jsonl"
    chosen = choice(history, "reward")
    assert write(out, recording.run.database, chosen, 25, Extent(3000, 4500)) == 1501
    rows = [json.loads(row) for row in out.read_text().splitlines()]
    assert [row["step"] for row in rows] == list(range(3000, 4501))
    values = history.series["reward/total"].values
    assert [row["reward/total"] for row in rows] == values[2999:4500]
    assert rows[-1]["reward/total/mean_of_25"] == pytest.approx(smooth(values, 25)[4499])


def _history(recording: recorded.Recording) -> History:

    history, reader = History(), StoreReader(recording.run.database)
    while events := reader.events(history.last_seq, 5000):
        history.apply(events)
    reader.close()
    return history


def test_export_that_is_called_off_or_fails_leaves_nothing_behind(tmp_path: Path) -> None:
    recording = recorded.record(5)
    chosen = choice(_history(recording), "reward")
    out = tmp_path / "r.csv"
    with pytest.raises(Cancelled):
        write(out, recording.run.database, chosen, 1, Extent(1, 5), lambda: False)
    assert not out.exists()
    for path in (tmp_path / "r.txt", tmp_path / "no" / "r.csv"):
        with pytest.raises(UserError):
            write(path, recording.run.database, chosen, 1, Extent(1, 5))
    assert list(tmp_path.glob("**/r.*")) == []


def test_exported_names_are_no_formulas(tmp_path: Path) -> None:
    recording = recorded.new_run()
    recording.store.event("step", {"metrics": {"reward/total": 1.0, "=1+1": 2.0}}, step=1)
    recording.closes()
    history = _history(recording)
    out = tmp_path / "x.csv"
    write(out, recording.run.database, choice(history, "=1+1"), 1, Extent(1, 1))
    assert out.read_text() == "step,'=1+1\n1,2.0\n"

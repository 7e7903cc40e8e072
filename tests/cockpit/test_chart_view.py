"""Window, smoothing and cursor of a chart: hand-computed, and what always holds."""

from collections.abc import Callable
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stonk_tui import chart_view
from stonk_tui.chart_view import SMOOTHING, ChartView, Extent, steps_behind, window

RUN = Extent(1, 401)


def test_all_steps_are_in_sight_until_somebody_zooms() -> None:
    assert window(ChartView(), RUN) == RUN
    assert steps_behind(ChartView(), RUN) == 0


def test_zoom_of_a_view_that_follows_keeps_the_newest_step_where_it_is() -> None:
    view = chart_view.zoom(ChartView(), RUN, 1 / 4)
    assert window(view, RUN) == Extent(301, 401)
    assert window(view, Extent(1, 501)) == Extent(401, 501)
    # Also where the mouse points elsewhere.
    assert window(chart_view.zoom(view, RUN, 1 / 2, around=310), RUN) == Extent(351, 401)


def test_zoom_of_a_view_that_was_moved_keeps_its_middle_or_the_step_that_is_pointed_at() -> None:
    view = ChartView(length=100, last=200)
    assert window(chart_view.zoom(view, RUN, 1 / 2), RUN) == Extent(125, 175)
    # Step 120 stood at a fifth of the window, and stays there.
    assert window(chart_view.zoom(view, RUN, 1 / 2, around=120), RUN) == Extent(110, 160)
    pointed = replace(view, cursor=180)
    assert window(chart_view.zoom(pointed, RUN, 1 / 2), RUN) == Extent(140, 190)


def test_zoom_out_to_everything_follows_again() -> None:
    view = chart_view.zoom(ChartView(length=300, last=350), RUN, 2)
    assert view == ChartView()


def test_pan_stops_at_the_first_step_and_follows_from_the_newest_on() -> None:
    view = ChartView(length=80)
    moved = chart_view.pan_by_part(view, RUN, -1)
    assert window(moved, RUN) == Extent(311, 391)
    assert steps_behind(moved, RUN) == 10
    # Steps that come meanwhile move nothing.
    assert window(moved, Extent(1, 451)) == Extent(311, 391)
    assert steps_behind(moved, Extent(1, 451)) == 60
    assert window(chart_view.pan(moved, RUN, -9999), RUN) == Extent(1, 81)
    assert chart_view.pan_by_part(moved, RUN, 1) == view
    assert chart_view.pan_by_part(ChartView(), RUN, -1) == ChartView()


def test_follow_keeps_the_zoom_and_whole_does_not() -> None:
    view = ChartView(length=80, last=300, cursor=250, smoothing=25)
    assert chart_view.follow(view) == ChartView(length=80, smoothing=25)
    assert chart_view.whole(view) == ChartView(smoothing=25)


def test_smoothing_goes_through_its_windows_and_stays_at_the_last() -> None:
    assert chart_view.smoother(ChartView(), 1).smoothing == 25
    assert chart_view.smoother(ChartView(), -1).smoothing == 6
    assert chart_view.smoother(ChartView(smoothing=SMOOTHING[-1]), 1).smoothing == SMOOTHING[-1]
    assert chart_view.smoother(ChartView(smoothing=1), -1).smoothing == 1


def test_cursor_begins_at_the_right_edge_and_walks_over_measured_steps() -> None:
    steps = [1, 11, 21, 31, 41]
    extent = Extent(1, 41)
    view = chart_view.toggle_cursor(ChartView(), extent)
    assert view.cursor == 41
    for direction, expected in ((-1, 31), (-1, 21), (1, 31), (1, 41), (1, 41)):
        view = chart_view.move_cursor(view, extent, steps, direction)
        assert view.cursor == expected
    assert chart_view.toggle_cursor(view, extent).cursor is None


def test_cursor_in_a_wide_window_moves_by_a_hundredth_of_it() -> None:
    view = ChartView(cursor=300)
    assert chart_view.move_cursor(view, RUN, range(1, 402), -1).cursor == 296
    assert chart_view.move_cursor(view, RUN, range(1, 402), 1).cursor == 304


def test_window_comes_along_with_the_cursor() -> None:
    view = chart_view.point_at(ChartView(length=100), RUN, 200)
    assert window(view, RUN) == Extent(200, 300)
    view = chart_view.point_at(view, RUN, 350)
    assert window(view, RUN) == Extent(250, 350)
    assert chart_view.point_at(view, RUN, 9999).is_following


@pytest.mark.parametrize("last", [1, 2, 9])
def test_very_short_runs_are_never_zoomed(last: int) -> None:
    extent = Extent(1, last)
    view = ChartView()
    for _ in range(5):
        view = chart_view.zoom(view, extent, 0.5)
        seen = window(view, extent)
        assert seen.length == min(extent.length, max(seen.length, chart_view.LEAST_STEPS))


Move = Callable[[ChartView, Extent], ChartView]
FACTORS = st.floats(0.05, 20)
STEPS = st.floats(-5000, 5000)
MOVES: st.SearchStrategy[Move] = st.one_of(
    FACTORS.map(lambda factor: lambda view, extent: chart_view.zoom(view, extent, factor)),
    st.tuples(FACTORS, STEPS).map(
        lambda pair: lambda view, extent: chart_view.zoom(view, extent, *pair)
    ),
    STEPS.map(lambda steps: lambda view, extent: chart_view.pan(view, extent, steps)),
    STEPS.map(lambda step: lambda view, extent: chart_view.point_at(view, extent, step)),
    st.sampled_from([-1, 1]).map(
        lambda way: (
            lambda view, extent: chart_view.move_cursor(
                view, extent, range(int(extent.first), int(extent.last) + 1), way
            )
        )
    ),
    st.just(chart_view.toggle_cursor),
    st.just(lambda view, extent: chart_view.follow(view)),
)


@given(st.lists(st.tuples(MOVES, st.integers(-50, 100)), max_size=30), st.integers(0, 3000))
def test_window_lies_within_the_run_and_a_view_that_follows_ends_at_the_newest_step(
    moves: list[tuple[Move, int]], last: int
) -> None:
    view, extent = ChartView(), Extent(0, last)
    for move, growth in moves:
        before = window(view, extent)
        moved = move(view, extent)
        if move is chart_view.toggle_cursor:
            assert window(moved, extent) == before
        view = moved
        # A run goes on, or is resumed from an earlier step.
        extent = Extent(0, max(0, extent.last + growth))
        seen = window(view, extent)
        assert extent.first <= seen.first <= seen.last <= extent.last
        if view.is_following:
            assert seen.last == extent.last
            assert steps_behind(view, extent) == 0
        assert steps_behind(view, extent) >= 0


@given(FACTORS, STEPS, st.floats(10, 2000))
def test_zoom_never_stops_following(factor: float, around: float, length: float) -> None:
    view = ChartView(length=length)
    assert chart_view.zoom(view, RUN, factor, around).is_following

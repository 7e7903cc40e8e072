"""What a chart can show, and where its points come from."""

import math

import pytest

from engine.runs.curves import Curve
from engine.runs.history import History, Series
from engine.runs.reader import StoreReader
from stonk_tui import chart_choices, chart_data
from stonk_tui.chart_view import ChartView, Extent
from stonk_tui.feed import RunModel
from stonk_tui.widgets.chart import smooth
from tests import recorded


def _history(**series: list[float]) -> History:
    history = History()
    for name, values in series.items():
        history.series[name.replace("__", "/")] = Series(list(range(1, len(values) + 1)), values)
    return history


def test_accuracy_comes_with_interval_sample_size_and_baselines() -> None:
    names = ("accuracy", "accuracy__low", "accuracy__high", "accuracy__n", "baseline__always_up")
    history = _history(**{name: [0.5] for name in names}, validation__accuracy=[0.6])
    chosen = chart_choices.choice(history, "accuracy")
    assert chosen.bounds == ("accuracy/low", "accuracy/high")
    assert chosen.count == "accuracy/n"
    assert chosen.baselines == ("baseline/always_up",)
    assert chosen.points == "validation/accuracy"


def test_accuracy_on_one_side_comes_with_its_own_interval_and_what_a_coin_gets() -> None:
    history = _history(accuracy__up=[0.5], accuracy__up_low=[0.4], accuracy__up_high=[0.6])
    chosen = chart_choices.choice(history, "accuracy/up")
    assert chosen.bounds == ("accuracy/up_low", "accuracy/up_high")
    assert chosen.note == "a coin gets 0.50"


def test_components_are_in_the_order_of_the_worker() -> None:
    history = _history(
        reward__total=[1.0], reward__std=[1.0], reward__a=[1.0], reward__b=[1.0], reward__new=[1.0]
    )
    history.facts["weights"] = {"b": 0.5, "a": 0.5}
    assert chart_choices.components(history) == ("reward/b", "reward/a", "reward/new")


@pytest.mark.parametrize(
    ("name", "values", "why"),
    [
        ("reward", [1.0], "reward can be negative"),
        ("reward/format", [1.0], "reward can be negative"),
        ("kl", [0.0, 0.1], ""),
        ("kl", [0.0, 0.0], "never been above 0"),
        ("entropy", [0.1, -0.1], "has been negative"),
        ("loss", [-0.1], ""),
    ],
)
def test_log_scale_is_for_what_is_above_zero(name: str, values: list[float], why: str) -> None:
    history = _history(**{chart_choices._NAMES.get(name, name).replace("/", "__"): values})
    chosen = chart_choices.choice(history, name)
    assert (why in chosen.no_log) if why else not chosen.no_log


def test_round_leaves_out_what_was_never_measured() -> None:
    history = _history(reward__total=[1.0], kl=[0.1])
    assert chart_choices.next_of_round(history, "reward") == "kl"
    assert chart_choices.next_of_round(history, "kl") == "reward"
    assert chart_choices.next_of_round(history, "tokens/mean") == "reward"


def test_what_is_no_number_is_left_out_and_not_taken_for_zero() -> None:
    curve = chart_data.of_series(Series([1, 2, 3], [0.5, math.nan, 0.7]))
    assert curve.steps == (1.0, 3.0)
    assert curve.mean == (0.5, 0.7)


def test_magnitudes_of_a_point_of_many_steps_reach_from_zero_where_it_crosses_zero() -> None:
    points = chart_data.magnitudes({"loss": Curve((8.5,), (-0.3,), (0.1,), (-0.1,))})
    assert points["loss"] == Curve((8.5,), (0.0,), (0.3,), (0.1,))


def test_nearest_point_is_the_earlier_of_two() -> None:
    curve = Curve((1.0, 3.0, 10.0), (0, 0, 0), (0, 0, 0), (0, 0, 0))
    assert [chart_data.nearest(curve, step) for step in (0, 2, 6.4, 6.6, 99)] == [0, 0, 1, 2, 2]
    assert chart_data.nearest(Curve(), 1) is None


def test_smoothed_curve_does_not_change_where_the_window_does() -> None:
    values = [math.sin(step) for step in range(200)]
    history = _history(reward__total=values)
    chosen = chart_choices.choice(history, "reward")
    curve = chart_data.smoothed(chart_data.in_memory(history, chosen)["reward/total"], 25)
    seen = chart_data.within(curve, Extent(150, 160))
    assert seen.steps == tuple(range(150, 161))
    assert list(seen.mean) == smooth(values, 25)[149:160]


def test_points_of_many_steps_are_smoothed_by_as_much_less() -> None:
    # keep = (1 - 1/2) ** 2 = 1/4: (3/4 · 1) / (3/16 + 3/4) = 0.8
    curve = Curve((1.5, 3.5), (-1.0, 0.0), (1.0, 2.0), (0.0, 1.0))
    assert chart_data.grain(curve) == 2
    assert chart_data.smoothed(curve, 2).mean == pytest.approx((0.0, 0.8))


def test_short_run_is_in_memory() -> None:
    history = _history(reward__total=[0.1] * 100)
    chosen = chart_choices.choice(history, "reward")
    steps = chart_data.extent(history, chosen)
    assert steps == Extent(1, 100)
    assert chart_data.wanted(history, chosen, ChartView(), steps) is None


def test_long_run_is_read_for_what_memory_does_not_have_and_smoothed_as_if_it_were_whole() -> None:
    recording = recorded.record_long(6000)
    reader = StoreReader(recording.run.database)
    whole = [
        value
        for (value,) in reader.rows(
            "SELECT json_extract(payload, '$.metrics.\"reward/total\"') FROM events"
            " WHERE kind = 'step' ORDER BY step"
        )
    ]
    from engine.runs import replay

    model = RunModel(recording.run, history=replay.replay(reader)[0])
    chosen = chart_choices.choice(model.history, "reward")
    steps = chart_data.extent(model.history, chosen)
    assert steps is not None
    # The end of it is in memory; the whole of it, and its middle, are not.
    assert chart_data.wanted(model.history, chosen, ChartView(length=100), steps) is None
    assert chart_data.wanted(model.history, chosen, ChartView(), steps) is not None
    view = ChartView(length=100, last=3000)
    asked = chart_data.wanted(model.history, chosen, view, steps)
    assert asked is not None
    curve = chart_data.read(reader, asked)["reward/total"]
    reader.close()
    seen = chart_data.within(chart_data.smoothed(curve, view.smoothing), Extent(2900, 3000))
    assert list(seen.mean) == pytest.approx(smooth(whole, view.smoothing)[2899:3000], abs=1e-6)


def test_view_that_follows_is_read_anew_only_when_a_point_would_change() -> None:
    history = _history(reward__total=[0.1] * 5000)
    series = history.series["reward/total"]
    series.keep_newest(1000)
    chosen = chart_choices.choice(history, "reward")
    asked = [
        chart_data.wanted(history, chosen, ChartView(), Extent(0, last))
        for last in (5008, 5009, 5023, 5024)
    ]
    assert asked[0] == asked[1] == asked[2] != asked[3]

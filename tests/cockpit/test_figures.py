"""Numbers and charts: what is known, in fixed width; what is not, as a dot."""

import math

import pytest

from stonk_tui.widgets import figures
from stonk_tui.widgets.chart import Line, Mark, Picture, decimate, render, smooth, trend


@pytest.mark.parametrize("nothing", [None, "0.5", math.nan, math.inf, True, [], {}, 10**400])
def test_what_is_no_number_is_a_dot(nothing: object) -> None:
    for write in (figures.fixed, figures.signed, figures.share, figures.whole, figures.small):
        assert write(nothing) == "·"
    for write in (figures.percent, figures.gib, figures.duration, figures.weight):
        assert write(nothing) == "·"
    assert figures.interval(nothing, 0.5) == ""


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        (figures.fixed(-0.347), "−0.35"),
        (figures.fixed(-0.0001), "0.00"),
        (figures.signed(0.11), "+0.11"),
        (figures.weight(0.35), ".35"),
        (figures.weight(1), "1.00"),
        (figures.weight(0), "·"),
        (figures.share(0.617), "62 %"),
        (figures.interval(0.46, 0.64), "[46, 64]"),
        (figures.whole(1840), "1\u202f840"),
        (figures.small(0.0213), "0.021"),
        (figures.small(-0.00031), "−3e−4"),
        (figures.small(12.34), "12.3"),
        (figures.duration(12), "12 s"),
        (figures.duration(250), "4 m 10 s"),
        (figures.duration(3900), "1 h 05 m"),
        (figures.duration(190_000), "2 d 4 h"),
        (figures.gib(12 * 2**30), "12.0"),
    ],
)
def test_figures_are_written_for_people(written: str, expected: str) -> None:
    assert written == expected


def test_meter_is_as_wide_as_asked_whatever_the_share() -> None:
    for part in (-1, 0, 0.01, 0.33, 0.5, 0.999, 1, 7, None, math.nan):
        done, rest = figures.meter(part, 20)
        assert len(done) + len(rest) == 20
    assert figures.meter(0.5, 20)[0] == "━" * 10


def test_sparkline_keeps_the_newest_and_skips_what_is_no_number() -> None:
    assert figures.sparkline([0, 1], 10) == "▁▆"
    assert figures.sparkline([0, math.nan, 1], 10) == "▁▆"
    assert len(figures.sparkline([float(value) for value in range(1000)], 30)) == 30
    assert figures.sparkline([], 10) == ""


def test_decimation_keeps_the_spikes_of_every_column() -> None:
    steps = [float(step) for step in range(10_000)]
    values = [0.5] * 10_000
    values[4321], values[8765] = 9.0, -9.0
    kept_steps, kept_values = decimate(steps, values, 100)
    assert len(kept_steps) <= 200
    assert max(kept_values) == 9.0
    assert min(kept_values) == -9.0
    assert kept_steps == sorted(kept_steps)


def test_short_series_is_drawn_whole() -> None:
    assert decimate([1, 2, 3], [4, 5, 6], 50) == ([1, 2, 3], [4, 5, 6])


def test_smoothing_of_a_constant_is_that_constant_from_its_first_value_on() -> None:
    assert smooth([0.4] * 30) == pytest.approx([0.4] * 30)


def test_smoothing_weighs_the_newest_value_most() -> None:
    # Window 2 keeps half: (0.5·0 + 0.25·0 … ) with bias correction: 0.5·1 / (0.5 + 0.25) = 2/3
    assert smooth([0.0, 1.0], window=2) == pytest.approx([0.0, 2 / 3])


def test_trend_is_the_slope_of_a_straight_line() -> None:
    assert trend(range(50), [0.2 + 0.01 * step for step in range(50)]) == pytest.approx(0.01)
    assert trend(range(9), range(9)) is None
    assert trend([5.0] * 20, range(20)) is None


def test_chart_has_the_size_it_was_asked_for_and_its_gutter_keeps_its_width() -> None:
    for high in (0.001, 1.0, 73.0, 690.0):
        picture = Picture((Line(range(40), [high * step / 40 for step in range(40)], "$ink"),))
        lines = render(picture, 70, 12).plain.split("\n")
        assert len(lines) == 12
        assert {line[5] for line in lines[:-1]} <= {"│", "┤"}
        assert all(len(line) == 70 for line in lines)


def test_chart_wider_than_a_standard_terminal_is_filled_to_its_end() -> None:
    picture = Picture((Line(range(500), [step / 500 for step in range(500)], "$ink"),))
    rows = render(picture, 190, 20).plain.split("\n")[:-1]
    assert any(row[-1] not in " \u2800" for row in rows)


def test_chart_marks_checkpoints_behind_the_curve() -> None:
    picture = Picture(
        (Line(range(100), [0.5 + 0.01 * (step % 3) for step in range(100)], "$ink"),),
        marks=(Mark(50, "ckpt ★"),),
        low=0.0,
        high=1.0,
    )
    plain = render(picture, 80, 14).plain
    assert "┊ckpt ★" in plain


def test_chart_of_nothing_or_of_nonsense_says_so_and_does_not_fail() -> None:
    assert "none yet" in render(Picture(empty="none yet"), 60, 10).plain
    nonsense = Line([1, 2, 3], ["x", None, math.nan], "$ink")  # type: ignore[list-item]
    assert "none yet" in render(Picture((nonsense,), empty="none yet"), 60, 10).plain
    for width, height in ((1, 1), (7, 3), (20, 2), (14, 3)):
        render(Picture((Line([1, 2], [1, 1], "$ink"),)), width, height)


def test_chart_colours_come_from_the_theme_and_never_from_the_picture() -> None:
    picture = Picture(
        (Line(range(9), [1.0] * 9, "$faint"), Line(range(9), range(9), "$total")), low=0.0
    )
    styles = {str(span.style) for span in render(picture, 60, 10).spans}
    assert styles == {"$faint", "$total", "$quiet"}

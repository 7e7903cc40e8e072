"""The decision time follows the clock of New York, and texts follow the decision time."""

import datetime as dt

import numpy as np
import pytest

from engine.market.calendar import day_of, decision_time, decision_times, start_of


@pytest.mark.parametrize(
    ("day", "utc"),
    [
        ("2014-01-02", "21:00"),
        ("2014-03-07", "21:00"),  # Friday before the clocks go forward
        ("2014-03-10", "20:00"),  # Monday after
        ("2014-06-09", "20:00"),
        ("2014-10-31", "20:00"),  # Friday before the clocks go back
        ("2014-11-03", "21:00"),  # Monday after
    ],
)
def test_sixteen_hundred_in_new_york(day: str, utc: str) -> None:
    moment = decision_time(dt.date.fromisoformat(day))
    assert moment.astimezone(dt.UTC).strftime("%Y-%m-%d %H:%M") == f"{day} {utc}"
    many = decision_times(np.array([day], dtype="datetime64[D]"))
    assert str(many[0]) == f"{day}T{utc}:00"


def test_a_day_begins_at_midnight_of_new_york() -> None:
    assert start_of(dt.date(2014, 6, 9)).astimezone(dt.UTC).isoformat() == (
        "2014-06-09T04:00:00+00:00"
    )


@pytest.mark.parametrize(
    ("written", "day"),
    [
        ("2014-03-07T21:00:00", "2014-03-07"),  # the very moment of the decision
        ("2014-03-07T21:00:01", "2014-03-10"),  # Friday evening: Monday
        ("2014-03-09T12:00:00", "2014-03-10"),  # Sunday
        ("2014-03-10T20:00:00", "2014-03-10"),  # summer time since Sunday
        ("2014-03-10T20:30:00", "2014-03-11"),  # would still be Monday in winter time
        ("2014-03-11T00:30:00", "2014-03-11"),  # Monday evening in New York
        ("2014-03-11T19:59:59", "2014-03-11"),
    ],
)
def test_a_text_belongs_to_the_first_decision_after_it(written: str, day: str) -> None:
    days = np.array(["2014-03-07", "2014-03-10", "2014-03-11"], dtype="datetime64[D]")
    at = day_of(days, np.array([written], dtype="datetime64[s]"))
    assert str(days[at[0]]) == day


def test_a_text_after_the_last_day_belongs_to_none() -> None:
    days = np.array(["2014-03-07"], dtype="datetime64[D]")
    assert day_of(days, np.array(["2014-03-08T00:00:00"], dtype="datetime64[s]")).tolist() == [1]

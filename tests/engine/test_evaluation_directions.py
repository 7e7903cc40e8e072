"""How often decisions are right: against scikit-learn and statsmodels, and by hand."""

import itertools
import math

import numpy as np
import pandas as pd
import pytest
from scipy.stats import norm
from sklearn.metrics import balanced_accuracy_score, matthews_corrcoef, roc_auc_score
from statsmodels.stats.contingency_tables import StratifiedTable

from engine.evaluation import directions
from engine.evaluation.day_blocks import DayBlocks
from engine.evaluation.intervals import wilson
from engine.evaluation.table import decisions
from tests.predictions import generated


def made(calls: list[tuple[str, bool, bool | None]]) -> pd.DataFrame:
    """Decisions of (day, actual_up, called_up), a ticker each, at 70 %."""
    day, up, call = zip(*calls, strict=True)
    return pd.DataFrame(
        {
            "ticker": [f"T{number % 2}" for number in range(len(calls))],
            "label_day": list(day),
            "actual_up": list(up),
            "called_up": pd.Series(call, dtype=object),
            "right": [one == two for one, two in zip(up, call, strict=True)],
            "p_up": [0.5 if one is None else 0.7 if one else 0.3 for one in call],
            "confidence": [math.nan if one is None else 0.7 for one in call],
        }
    )


def with_days(rows: pd.DataFrame) -> tuple[pd.DataFrame, np.ndarray, DayBlocks]:
    days = DayBlocks(rows["label_day"], seed=1, draws=200)
    return rows, days.of(rows["label_day"]), days


@pytest.fixture(scope="module")
def rows() -> pd.DataFrame:
    return decisions(generated(0.57, 4, num_days=80, num_tickers=9))


def test_metrics_equal_those_of_scikit_learn(rows: pd.DataFrame) -> None:
    up, call = rows["actual_up"], rows["called_up"].astype(bool)
    _, blocks, days = with_days(rows)
    for metric, theirs in (
        (directions.balanced_accuracy, balanced_accuracy_score(up, call)),
        (directions.matthews, matthews_corrcoef(up, call)),
        (directions.area_under_roc, roc_auc_score(up, rows["p_up"])),
    ):
        value = metric(rows, blocks, days)
        assert value["value"] == pytest.approx(theirs, abs=1e-12)
        assert value["low"] < value["value"] < value["high"]
        assert value["n"] == 720


def test_the_area_of_many_ties_and_unread_rows() -> None:
    calls = [
        (f"{at:02}", up, call)
        for at, (up, call) in enumerate(itertools.product((True, False), (True, False, None)))
        for _ in range(1 + at)
    ]
    made_rows = made(calls)
    area = directions.area_under_roc(*with_days(made_rows))["value"]
    assert area == pytest.approx(roc_auc_score(made_rows["actual_up"], made_rows["p_up"]))


def test_sides_and_shares_by_hand() -> None:
    calls = [
        ("mon", True, True),
        ("mon", True, False),
        ("mon", True, None),
        ("tue", False, True),
        ("tue", False, False),
        ("wed", False, False),
    ]
    rows, blocks, days = with_days(made(calls))
    sides = directions.by_side(rows, blocks, days)
    assert {name: (side["value"], side["n"]) for name, side in sides.items()} == {
        "actual_up": (pytest.approx(1 / 3), 3),
        "actual_down": (pytest.approx(2 / 3), 3),
        "called_up": (0.5, 2),
        "called_down": (pytest.approx(2 / 3), 3),
    }
    assert directions.accuracy(rows, blocks, days)["value"] == 0.5
    assert directions.balanced_accuracy(rows, blocks, days)["value"] == pytest.approx(0.5)
    # Of the five read ones 1 of 2 ups and 2 of 3 downs: (1·2 - 1·1) / √(2·3·2·3)
    correlation = directions.matthews(rows, blocks, days)
    assert (correlation["value"], correlation["n"]) == (pytest.approx(1 / 6), 5)
    shares = directions.up_shares(rows, blocks, days)
    assert (shares["market"]["value"], shares["calls"]["value"]) == (0.5, 0.4)


def test_tickers_and_years(rows: pd.DataFrame) -> None:
    longer = decisions(generated(0.57, 4, num_days=300, num_tickers=2))
    years = directions.by_year(*with_days(longer))
    assert list(years) == ["2015", "2016"]
    assert sum(year["n"] for year in years.values()) == 600
    in_2016 = longer[longer["label_day"] >= "2016"]
    assert years["2016"]["value"] == pytest.approx(in_2016["right"].mean())
    tickers = directions.by_ticker(rows)
    assert list(tickers) == [f"T{number:03}" for number in range(9)]
    hits = int(rows[rows["ticker"] == "T004"]["right"].sum())
    assert tickers["T004"]["value"] == hits / 80
    assert (tickers["T004"]["low"], tickers["T004"]["high"]) == wilson(hits, 80)


def test_pesaran_timmermann_by_hand() -> None:
    # 60 ups of 100 and 50 calls of UP, 40 of them on ups: 40 + 30 right.
    # P = .7, P* = .6·.5 + .4·.5 = .5, V(P) = .25/100,
    # V(P*) = (.2² · .25 + 0 · .24)/100 + 4·.6·.5·.4·.5/100² = .000124
    cells = [(True, True, 40), (True, False, 20), (False, True, 10), (False, False, 30)]
    calls = [("day", up, call) for up, call, count in cells for _ in range(count)]
    test = directions.pesaran_timmermann(made([*calls, ("day", True, None)]))
    assert test["value"] == pytest.approx(0.2 / math.sqrt(0.0025 - 0.000124))
    assert test["p"] == pytest.approx(norm.sf(0.2 / math.sqrt(0.002376)))
    assert test["n"] == 100
    difference = directions.excess(*with_days(made(calls)))
    assert difference["value"] == pytest.approx(0.2)


def test_pesaran_timmermann_is_standard_normal_for_independent_calls() -> None:
    rng = np.random.default_rng(3)
    scores = []
    for _ in range(300):
        up, call = rng.random(150) < 0.6, rng.random(150) < 0.7
        scores.append(
            directions.pesaran_timmermann(
                made([("day", bool(a), bool(b)) for a, b in zip(up, call, strict=True)])
            )["value"]
        )
    assert np.mean(scores) == pytest.approx(0, abs=0.2)
    assert np.std(scores) == pytest.approx(1, abs=0.12)


def uneven_days() -> pd.DataFrame:
    rng = np.random.default_rng(7)
    calls = []
    for day in range(30):
        for _ in range(int(rng.integers(1, 9))):
            up = bool(rng.random() < 0.5)
            call = None if rng.random() < 0.1 else bool(up == (rng.random() < 0.62))
            calls.append((f"{day:02}", up, call))
    return made(calls)


def test_permutation_within_days_equals_dealing_the_calls_anew() -> None:
    rows, blocks, _ = with_days(uneven_days())
    exact = directions.within_day(rows, blocks)
    read = rows[rows["called_up"].notna()]
    rng = np.random.default_rng(1)
    right = (read["actual_up"] == read["called_up"]).to_numpy()
    dealt_right = []
    day = read["label_day"].to_numpy()
    call, up = read["called_up"].to_numpy(dtype=bool), read["actual_up"].to_numpy()
    order = np.argsort(day, kind="stable")
    for _ in range(3000):
        dealt = call[np.lexsort((rng.random(len(day)), day))]
        dealt_right.append((dealt == up[order]).sum())
    at_least = np.mean(np.array(dealt_right) >= right.sum())
    assert exact["p"] == pytest.approx(at_least, abs=0.02)
    assert exact["value"] == pytest.approx(
        (right.sum() - np.mean(dealt_right)) / len(read), abs=3e-3
    )
    assert exact["n"] == len(read)


def test_permutation_within_days_agrees_with_cochran_mantel_haenszel() -> None:
    rows = decisions(generated(0.52, 8, num_days=100, num_tickers=10))
    _, blocks, _ = with_days(rows)
    tables = []
    for _, day in rows.groupby("label_day"):
        call, up = day["called_up"].astype(bool), day["actual_up"]
        counts = [
            [(call & up).sum(), (call & ~up).sum()],
            [(~call & up).sum(), (~call & ~up).sum()],
        ]
        tables.append(np.array(counts, dtype=float))
    varied = [one for one in tables if one.sum(0).all() and one.sum(1).all()]
    theirs = StratifiedTable(varied).test_null_odds(correction=True)
    exact = directions.within_day(rows, blocks)
    assert exact["value"] > 0
    assert 2 * exact["p"] == pytest.approx(theirs.pvalue, rel=0.05)


def test_what_a_whole_day_has_in_common_is_no_skill_between_stocks() -> None:
    # Every call follows the market of its day: the naive test is sure, and there is nothing
    # to deal out within a day.
    calls = [(f"{day:02}", day % 3 > 0, day % 3 > 0) for day in range(40) for _ in range(5)]
    rows, blocks, _ = with_days(made(calls))
    assert directions.pesaran_timmermann(rows)["p"] < 1e-6
    assert directions.within_day(rows, blocks) == {
        "value": None,
        "p": None,
        "n": 200,
        "why": "no day has calls and outcomes of both sides",
    }


def test_a_probability_below_rounding_is_not_negative() -> None:
    perfect = [(f"{day:03}", up, up) for day in range(200) for up in (True, False) * 5]
    rows, blocks, _ = with_days(made(perfect))
    assert 0 <= directions.within_day(rows, blocks)["p"] < 1e-12


@pytest.mark.parametrize(
    ("calls", "why"),
    [
        ([("mon", True, None), ("tue", False, None)], "no completion could be read"),
        ([("mon", True, True), ("tue", True, False)], "one"),
    ],
)
def test_what_is_not_computable_says_why(
    calls: list[tuple[str, bool, bool | None]], why: str
) -> None:
    rows, blocks, days = with_days(made(calls))
    for value in (
        directions.balanced_accuracy(rows, blocks, days),
        directions.matthews(rows, blocks, days),
        directions.area_under_roc(rows, blocks, days),
        directions.pesaran_timmermann(rows),
    ):
        assert value["value"] is None
        assert why in value["why"] or value["why"] == "no answer states a confidence"


def test_nothing_read_has_no_accuracy() -> None:
    rows, blocks, days = with_days(made([("mon", True, None), ("tue", False, None)]))
    values = [
        directions.accuracy(rows, blocks, days),
        directions.excess(rows, blocks, days),
        directions.within_day(rows, blocks),
        directions.up_shares(rows, blocks, days)["calls"],
        *directions.by_side(rows, blocks, days).values(),
    ]
    for value in values:
        assert (value["value"], value["why"]) == (None, "no completion could be read")
    assert directions.by_ticker(rows) == {}
    assert directions.by_year(rows, blocks, days) == {}

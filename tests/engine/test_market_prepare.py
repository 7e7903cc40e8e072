"""Prepared files: windows that read back exactly and know nothing of what comes after."""

import csv
import json
import math
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from engine.errors import UserError
from engine.market import demo, indicators, sources
from engine.market.history import History
from engine.market.prepare import (
    INDICATORS,
    MANIFEST,
    STATISTICS,
    X_COLUMNS,
    Prepared,
    PrepareOptions,
    prepare,
)
from engine.market.splits import chronological
from engine.market.statistics import lags

SIDES = [f"{split}_{side}" for split in ("train", "val", "test", "full") for side in ("x", "y")]


def series(ticker: str, closes: np.ndarray, *, first: str = "2015-01-01") -> History:
    """A ticker that trades every calendar day, without dividends or splits."""
    return History(
        ticker=ticker,
        company=ticker,
        days=np.datetime64(first) + np.arange(len(closes)),
        open=closes,
        high=closes * 1.01,
        low=closes * 0.99,
        close=closes,
        volume=np.full(len(closes), 1e6),
        adjusted=closes,
        split_ratio=np.ones(len(closes)),
    )


@pytest.fixture(scope="module")
def walk() -> History:
    """600 days of a random walk."""
    steps = np.random.default_rng(4).normal(0, 0.02, 600)
    return series("WALK", 50 * np.exp(np.cumsum(steps)))


def read(folder: Path, name: str) -> list[dict[str, str]]:
    with (folder / name).open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_counting_days_by_hand(tmp_path: Path) -> None:
    # Closes 1 to 100; borders at days 70 and 80, three days of embargo. A window needs two days
    # before its as-of day and three after it.
    closes = np.arange(1.0, 101.0)
    options = PrepareOptions(window=3, horizon=3)
    prepared = prepare([series("LINE", closes)], tmp_path / "out", options)
    as_of = {
        split: [
            json.loads(row["sequence"])[-1] for row in read(prepared.folder, f"LINE_{split}_x.csv")
        ]
        for split in ("train", "val", "test", "full")
    }
    # As close n + 1 stands on day n: train 2 to 66, validation 72 to 76, test 82 to 96.
    assert as_of["train"] == list(range(3, 68))
    assert as_of["val"] == list(range(73, 78))
    assert as_of["test"] == list(range(83, 98))
    assert as_of["full"] == list(range(3, 98))
    assert prepared.rows["LINE"] == {"train": 65, "val": 5, "test": 15, "full": 95}
    assert prepared.left_out == {"gap": 0, "doubtful": 0, "border": 10}
    row = read(prepared.folder, "LINE_val_x.csv")[0]
    assert json.loads(row["sequence"]) == [71, 72, 73]
    assert (row["as_of"], float(row["last_close"])) == ("2015-03-14", 73)
    assert {name: float(row[name]) for name in STATISTICS} == {
        "min": 71,
        "min_timestep": 0,
        "max": 73,
        "max_timestep": 2,
        "mean": 72,
        "median": 72,
        "median_timestep": 1,
        "trend": 2,
    }
    assert float(row["sma"]) == pytest.approx(66.5)  # mean of 60 to 73
    assert (float(row["scale_mean"]), float(row["scale_std"])) == (0, 1)
    assert row["lags"] == ""  # fewer than 250 returns
    outcome = read(prepared.folder, "LINE_val_y.csv")[0]
    assert list(outcome) == ["sequence"]
    assert json.loads(outcome["sequence"]) == [74, 75, 76]


def test_every_ticker_has_its_eight_files(tmp_path: Path) -> None:
    prepared = prepare(demo.load(), tmp_path / "out")
    tickers = ["AAPL", "FB", "GOOG", "IBM", "MSFT"]
    expected = {f"{ticker}_{side}.csv" for ticker in tickers for side in SIDES} | {MANIFEST}
    assert {path.name for path in prepared.folder.iterdir()} == expected
    manifest = json.loads((prepared.folder / MANIFEST).read_text())
    assert set(manifest["files"]) == expected - {MANIFEST}
    assert manifest["rows"] == prepared.rows
    for ticker in tickers:
        for split, count in prepared.rows[ticker].items():
            x, y = (read(prepared.folder, f"{ticker}_{split}_{side}.csv") for side in "xy")
            assert len(x) == len(y) == count
            if x:
                assert tuple(x[0]) == X_COLUMNS
    # FB went public after the training days were over.
    assert prepared.rows["FB"]["train"] == 0
    assert prepared.rows["FB"]["test"] > 100


def test_numbers_read_back_exactly_and_what_is_unknown_is_empty(
    walk: History, tmp_path: Path
) -> None:
    prepared = prepare([walk], tmp_path / "out")
    computed = indicators.compute(walk)
    rows = read(prepared.folder, "WALK_full_x.csv")
    outcomes = read(prepared.folder, "WALK_full_y.csv")
    assert len(rows) == 600 - 9 - 10
    echoes = lags(walk.adjusted, np.arange(600))
    for row, outcome, day in zip(rows, outcomes, range(9, 590), strict=True):
        assert json.loads(row["sequence"]) == walk.close[day - 9 : day + 1].tolist()
        assert json.loads(outcome["sequence"]) == walk.close[day + 1 : day + 11].tolist()
        assert row["as_of"] == str(walk.days[day])
        assert float(row["last_close"]) == walk.close[day]
        for name in INDICATORS:
            value = float(computed[name][day])
            assert row[name] == ("" if math.isnan(value) else repr(value))
        known = echoes[day]
        assert row["lags"] == ("" if known is None else str([lag.days for lag in known]))
    assert "nan" not in (prepared.folder / "WALK_full_x.csv").read_text().lower()


def test_no_window_crosses_a_border(tmp_path: Path) -> None:
    histories = demo.load()
    options = PrepareOptions(window=15, horizon=7, embargo=9)
    prepared = prepare(histories, tmp_path / "out", options)
    calendar = np.unique(np.concatenate([history.days for history in histories]))
    spans = chronological(calendar, train_share=0.7, validation_share=0.1, embargo=9, horizon=7)
    parts = {
        "train": (spans["train"].first, spans["validation"].first),
        "val": (spans["validation"].first, spans["test"].first),
        "test": (spans["test"].first, calendar[-1] + 1),
    }
    for history in histories:
        for split, (start, end) in parts.items():
            rows = read(prepared.folder, f"{history.ticker}_{split}_x.csv")
            for row in rows:
                at = int(np.searchsorted(history.days, np.datetime64(row["as_of"])))
                assert history.days[at - 14] >= start
                assert history.days[at + 7] < end
            if split != "test" and rows:
                left = int(np.searchsorted(calendar, np.datetime64(rows[-1]["as_of"])))
                right = int(np.searchsorted(calendar, end))
                assert right - left - 1 >= 9


@pytest.mark.parametrize("normalisation", ["none", "standard"])
def test_later_days_change_no_earlier_row(
    walk: History, tmp_path: Path, normalisation: str
) -> None:
    options = PrepareOptions(normalisation=normalisation)  # type: ignore[arg-type]
    day = 520  # in the test part, which begins on day 480
    scrambled = {}
    for name in ("open", "high", "low", "close", "adjusted", "volume"):
        values = getattr(walk, name).copy()
        values[day + 1 :] *= np.random.default_rng(1).uniform(0.5, 2, 600 - day - 1)
        scrambled[name] = values
    honest = prepare([walk], tmp_path / "honest", options).folder
    other = prepare([replace(walk, **scrambled)], tmp_path / "other", options).folder
    for side in ("train_x", "train_y", "val_x", "val_y"):
        name = f"WALK_{side}.csv"
        assert (honest / name).read_bytes() == (other / name).read_bytes()
    for split in ("test", "full"):
        before = read(honest, f"WALK_{split}_x.csv")
        after = read(other, f"WALK_{split}_x.csv")
        known = [row for row in before if np.datetime64(row["as_of"]) <= walk.days[day]]
        assert len(known) > 20
        assert after[: len(known)] == known
        assert after != before


def test_the_scaler_knows_training_windows_alone(walk: History, tmp_path: Path) -> None:
    options = PrepareOptions(normalisation="standard")
    scaler = prepare([walk], tmp_path / "a", options).scalers["WALK"]
    # Everything after the last training window's own days is made up.
    level = np.where(np.arange(600) >= 420, 100.0, 1.0)
    moved = replace(walk, close=walk.close * level, adjusted=walk.adjusted * level)
    assert prepare([moved], tmp_path / "b", options).scalers["WALK"] == scaler
    rows = read(tmp_path / "a", "WALK_train_x.csv")
    values = np.array([json.loads(row["sequence"]) for row in rows])
    assert values.mean() == pytest.approx(0, abs=1e-12)
    assert values.std() == pytest.approx(1)


def test_scaled_columns_lead_back_to_dollars(walk: History, tmp_path: Path) -> None:
    plain = prepare([walk], tmp_path / "a").folder
    scaled = prepare([walk], tmp_path / "b", PrepareOptions(normalisation="standard")).folder
    prices = {"sma", "ema", "bbands_upper", "bbands_middle", "bbands_lower"}
    prices |= {"min", "max", "mean", "median"}
    differences = {"mom", "macd", "trend"}
    for dollars, row in zip(
        read(plain, "WALK_test_x.csv"), read(scaled, "WALK_test_x.csv"), strict=True
    ):
        mean, std = float(row["scale_mean"]), float(row["scale_std"])
        for name in (*INDICATORS, *STATISTICS):
            value = float(row[name])
            if name in prices:
                value = value * std + mean
            elif name in differences:
                value *= std
            assert value == pytest.approx(float(dollars[name]))
        back = np.array(json.loads(row["sequence"])) * std + mean
        assert back == pytest.approx(json.loads(dollars["sequence"]))
        assert row["last_close"] == dollars["last_close"]
    (first, *_), (outcome, *_) = (read(folder, "WALK_test_y.csv") for folder in (plain, scaled))
    back = np.array(json.loads(outcome["sequence"])) * std + mean
    assert back == pytest.approx(json.loads(first["sequence"]))


def test_prices_are_those_of_the_as_of_day(tmp_path: Path) -> None:
    # The close of that day was quoted at 691.28; splits and dividends came later.
    folder = prepare(demo.load(), tmp_path / "out").folder
    rows = read(folder, "AAPL_full_x.csv")
    at = next(n for n, row in enumerate(rows) if row["as_of"] == "2012-09-14")
    sequence = json.loads(rows[at]["sequence"])
    assert sequence[-1] == pytest.approx(691.28)
    assert float(rows[at]["max"]) == max(sequence)
    assert float(rows[at]["bbands_middle"]) == pytest.approx(669.32, abs=0.005)
    following = json.loads(read(folder, "AAPL_full_y.csv")[at]["sequence"])
    assert following[0] / sequence[-1] == pytest.approx(1.0123, abs=0.0001)
    # A 2:1 split is no crash.
    split = next(row for row in rows if row["as_of"] == "2005-02-28")
    closes = json.loads(split["sequence"])
    assert max(closes) / min(closes) < 1.5


def test_a_gap_in_the_outcome_and_a_doubtful_move_leave_windows_out(
    walk: History, tmp_path: Path
) -> None:
    days = walk.days.copy()
    days[300:] += 6  # seven days between 299 and 300
    gapped = prepare([replace(walk, days=days)], tmp_path / "a")
    assert gapped.left_out["gap"] == 10  # as-of days 290 to 299
    dates = {row["as_of"] for row in read(gapped.folder, "WALK_full_x.csv")}
    assert str(days[289]) in dates
    assert str(days[290]) not in dates
    assert str(days[300]) in dates
    doubtful = np.arange(600) == 300
    trusted = prepare([replace(walk, doubtful=doubtful)], tmp_path / "b")
    assert trusted.left_out["doubtful"] == 19  # as-of days 290 to 308
    dates = {row["as_of"] for row in read(trusted.folder, "WALK_full_x.csv")}
    assert [str(walk.days[day]) in dates for day in (289, 290, 308, 309)] == [
        True,
        False,
        False,
        True,
    ]


def test_a_stride_skips_windows(walk: History, tmp_path: Path) -> None:
    prepared = prepare([walk], tmp_path / "out", PrepareOptions(stride=7))
    assert prepared.rows["WALK"]["full"] == 83  # 581 / 7


def test_a_ticker_that_is_too_short_is_said(walk: History, tmp_path: Path) -> None:
    young = series("YOUNG", np.arange(1.0, 16.0), first="2016-05-01")
    late = series("LATE", np.arange(1.0, 61.0), first="2016-06-01")
    options = PrepareOptions(normalisation="standard")
    prepared = prepare([walk, young, late], tmp_path / "out", options)
    assert prepared.skipped == {
        "YOUNG": "no window in its history",
        "LATE": "no training window to fit the scaler on",
    }
    assert set(prepared.rows) == {"WALK"}
    assert not list(prepared.folder.glob("YOUNG*"))


def test_progress_counts_tickers(walk: History, tmp_path: Path) -> None:
    steps: list[tuple[int, int]] = []
    other = replace(walk, ticker="OTHER")
    prepare([walk, other], tmp_path / "out", progress=lambda *step: steps.append(step))
    assert steps == [(0, 2), (1, 2), (2, 2)]


def test_an_earlier_result_is_replaced_as_a_whole(walk: History, tmp_path: Path) -> None:
    out = tmp_path / "out"
    prepare([walk, replace(walk, ticker="OTHER")], out)
    prepared = prepare([walk], out, PrepareOptions(window=20))
    assert not list(out.glob("OTHER*"))
    assert len(json.loads(read(out, "WALK_full_x.csv")[0]["sequence"])) == 20
    assert prepared.folder == out
    assert list(tmp_path.iterdir()) == [out]


def test_a_failure_leaves_the_earlier_result_and_nothing_else(
    walk: History, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    prepare([walk], out)
    before = {path.name: path.read_bytes() for path in out.iterdir()}

    def interrupted(done: int, total: int) -> None:
        if done == 1:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        prepare([replace(walk, ticker="A"), walk], out, progress=interrupted)
    assert {path.name: path.read_bytes() for path in out.iterdir()} == before
    assert list(tmp_path.iterdir()) == [out]


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("notes.txt", "mine"),
        (MANIFEST, "{"),
        (MANIFEST, "[]"),
        (MANIFEST, '{"format": "another"}'),
    ],
)
def test_a_folder_of_something_else_is_refused_and_kept(
    walk: History, tmp_path: Path, name: str, content: str
) -> None:
    (tmp_path / name).write_text(content)
    with pytest.raises(UserError, match="not of an earlier data prepare; name a new folder"):
        prepare([walk], tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_a_file_added_to_an_earlier_result_is_not_deleted(walk: History, tmp_path: Path) -> None:
    out = tmp_path / "out"
    prepare([walk], out)
    (out / "notes.txt").write_text("mine")
    with pytest.raises(UserError, match=r"holds 'notes\.txt'"):
        prepare([walk], out)


def test_an_empty_folder_is_taken(walk: History, tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    assert isinstance(prepare([walk], out), Prepared)


def test_a_file_in_the_way_and_a_missing_parent_are_refused(walk: History, tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("")
    with pytest.raises(UserError, match="is not a folder"):
        prepare([walk], file)
    with pytest.raises(UserError, match="no such folder; create it first"):
        prepare([walk], tmp_path / "a" / "b")


@pytest.mark.parametrize("ticker", ["../up", "a/b", ".hidden", "", "A B", "x" * 30, "A\n"])
def test_a_ticker_that_is_no_file_name_is_refused(
    walk: History, tmp_path: Path, ticker: str
) -> None:
    with pytest.raises(UserError, match="cannot be part of a file name"):
        prepare([replace(walk, ticker=ticker)], tmp_path / "out")
    assert not list(tmp_path.iterdir())


def test_two_tickers_of_one_file_name_are_refused(walk: History, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="the ticker walk comes twice"):
        prepare([walk, replace(walk, ticker="walk")], tmp_path / "out")


def test_no_ticker_at_all_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no ticker"):
        prepare([], tmp_path / "out")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"window": 1}, "--window: must be from 2 to 1000, not 1"),
        ({"horizon": 0}, "--horizon: must be"),
        ({"stride": 0}, "--stride: must be"),
        ({"train_share": 0.9, "validation_share": 0.1}, "together below 1"),
        ({"validation_share": 0.0}, "above 0"),
    ],
)
def test_options_out_of_range_are_refused(options: dict[str, float], message: str) -> None:
    with pytest.raises(UserError, match=message):
        PrepareOptions(**options)  # type: ignore[arg-type]


def test_an_embargo_below_the_horizon_is_refused(walk: History, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="an embargo of 3 days is shorter than the horizon of 10"):
        prepare([walk], tmp_path / "out", PrepareOptions(embargo=3))
    assert not list(tmp_path.iterdir())


STOCKNET = Path(
    os.environ.get("STOCKNET_DIR")
    or Path(__file__).resolve().parents[3] / "shared" / "data" / "stocknet"
)


@pytest.mark.skipif(not STOCKNET.is_dir(), reason="no StockNet data")
def test_the_stocknet_tickers_are_prepared(tmp_path: Path) -> None:
    histories = sources.load(f"stocknet:{STOCKNET}").histories
    options = PrepareOptions(normalisation="standard")
    prepared = prepare(histories, tmp_path / "out", options)
    assert len(prepared.rows) == len(histories)
    assert not prepared.skipped
    assert all(count > 50 for splits in prepared.rows.values() for count in splits.values())


def test_permuted_labels_are_refused(tmp_path: Path) -> None:
    twin = sources.load("planted:shuffled=true").histories
    with pytest.raises(UserError, match="permuted"):
        prepare(twin, tmp_path / "out")
    assert not (tmp_path / "out").exists()

"""The folder of an evaluation: what is refused, what is kept beside it, and what is counted."""

import json
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from engine.config import DataConfig
from engine.errors import UserError
from engine.evaluation import ledger, logistic, market_files, overlap, request
from engine.evaluation.store import PredictionStore
from engine.market import planted, sampler, sources
from engine.market.dataset import Dataset
from engine.runs import checkpoint_names, directory
from engine.runs.directory import RunDirectory
from tests import evaluations
from tests.tiny import save_whole_policy, tiny_policy

# ---------------------------------------------------------------------------
# What is evaluated


def test_the_base_model_is_always_there_and_one_named_twice_is_there_once(tmp_path: Path) -> None:
    run = evaluations.make_run(tmp_path)
    begun = evaluations.begin(run, "last", "step-4", "base", "step-2", examples=5)
    assert [one.label for one in begun.context.checkpoints] == [
        "base",
        "step-000004",
        "step-000002",
    ]
    assert [one.step for one in begun.context.checkpoints] == [None, 4, 2]
    assert len({one.hash for one in begun.context.checkpoints}) == 3
    assert begun.context.total == 15
    assert begun.folder.parent == run.path / "evaluation"
    assert begun.folder.name == begun.context.id
    assert begun.context.id.endswith("-test")
    assert begun.context.temperature == 0
    assert begun.context.train_dates is not None
    assert begun.context.train_dates[1] < begun.context.dates[0]
    assert not begun.context.overlaps_training


def test_what_is_asked_about_is_the_test_split_in_order_of_time(tmp_path: Path) -> None:
    run = evaluations.make_run(tmp_path)
    config = run.config()
    begun = evaluations.begin(run, "base", tickers=("BBB",))
    dataset = Dataset.configured(sources.load(config.data.source).histories, config.data)
    rows = dataset.rows("test")
    expected = [f"BBB:{day}" for day, at in zip(rows.day, rows.history, strict=True) if at == 1]
    predictions = PredictionStore(begun.folder)
    assert [row.key for row in predictions.examples()] == expected
    predictions.close()
    assert begun.context.num_examples == len(expected) > 20
    last = dataset.histories[1].days[-1].item()
    assert begun.context.dates == (rows.day.min().item(), last)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"checkpoints": ("step-9",)}, "has no checkpoint step-000009"),
        ({"checkpoints": ("best",)}, "has no best checkpoint"),
        ({"tickers": ("CCC",)}, "no ticker called 'CCC'; there are 2, such as AAA, BBB"),
        ({"source": "moon"}, "no market data source called 'moon'"),
        ({"temperature": 0.5}, "one sample is greedy"),
    ],
)
def test_what_cannot_be_evaluated_is_refused(
    tmp_path: Path, values: dict[str, Any], message: str
) -> None:
    run = evaluations.make_run(tmp_path)
    names = values.pop("checkpoints", ("last",))
    with pytest.raises(UserError, match=message):
        evaluations.begin(run, *names, **values)
    assert not (run.path / "evaluation").exists()
    assert not ledger.path().exists()


def test_a_split_without_rows_is_refused(tmp_path: Path) -> None:
    run = evaluations.make_run(tmp_path, data={"train_share": 0.6})
    short = evaluations.write_prices(tmp_path / "short", days=40)
    with pytest.raises(UserError, match="has no row to evaluate"):
        evaluations.begin(run, "base", source=short, split="train")


def test_a_damaged_checkpoint_is_refused(tmp_path: Path) -> None:
    run = evaluations.make_run(tmp_path)
    file = run.checkpoints / "step-000002" / checkpoint_names.ADAPTER
    file.write_bytes(file.read_bytes()[:-8] + b"\x00" * 8)
    with pytest.raises(UserError, match=r"checkpoint step-000002 of run .* is damaged"):
        evaluations.begin(run, "step-2")


def test_a_run_of_another_base_is_refused_with_both_names(tmp_path: Path) -> None:
    run = evaluations.make_run(tmp_path)
    model = run.config().model.model_copy(update={"id": "elsewhere"})
    other = directory.create(run.config().model_copy(update={"model": model}))
    evaluations.save_checkpoint(other, 3)
    with pytest.raises(UserError, match=rf"run {other.id} trains elsewhere, and run {run.id}"):
        evaluations.begin(run, f"{other.id}:step-3")


def test_a_folder_trained_on_another_base_is_refused_with_both_names(tmp_path: Path) -> None:
    run = evaluations.make_run(tmp_path)
    folder = tmp_path / "adapter"
    folder.mkdir()
    save_whole_policy(tiny_policy().model, folder)
    config = folder / checkpoint_names.ADAPTER_CONFIG
    values = json.loads(config.read_text()) | {"base_model_name_or_path": "Some/Other-1B"}
    config.write_text(json.dumps(values))
    match = "this adapter was trained on Some/Other-1B, and run .* evaluates with .*model"
    with pytest.raises(UserError, match=match):
        evaluations.begin(run, str(folder), force=True)


def test_a_folder_in_the_way_is_refused_and_one_of_the_same_request_is_gone_on_with(
    tmp_path: Path,
) -> None:
    run = evaluations.make_run(tmp_path)
    out = tmp_path / "out"
    out.mkdir()
    assert evaluations.begin(run, "base", out=out, examples=5).folder == out
    assert not evaluations.begin(run, "base", out=out, examples=5).is_new
    with pytest.raises(UserError, match="holds another evaluation; name a new folder"):
        evaluations.begin(run, "base", out=out, examples=6)
    with pytest.raises(UserError, match="holds no evaluation"):
        evaluations.begin(run, "base", out=tmp_path / "prices")
    assert (tmp_path / "prices" / "AAA.csv").exists()


def test_evaluations_of_one_second_have_folders_of_their_own(tmp_path: Path) -> None:
    run = evaluations.make_run(tmp_path)
    made = [evaluations.begin(run, "base", examples=count) for count in (3, 4, 5)]
    assert len({one.folder for one in made}) == 3
    assert [one.context.id for one in made] == [one.folder.name for one in made]
    # Nothing half-made is left.
    assert len(list((run.path / "evaluation").iterdir())) == 3


# ---------------------------------------------------------------------------
# Apart from training


def _elsewhere(tmp_path: Path, first: str) -> str:
    return evaluations.write_prices(tmp_path / f"from-{first}", first=first)


def test_dates_that_overlap_those_of_training_are_refused_unless_forced(tmp_path: Path) -> None:
    run = evaluations.make_run(tmp_path)
    # The run trains from 2014-01-02 on 70 % of 320 days; this one is tested on days of 2014.
    earlier = _elsewhere(tmp_path, "2013-06-03")
    match = (
        r"--source: the rows to evaluate, 2014-\d\d-\d\d to 2014-\d\d-\d\d, overlap what "
        rf"{run.id} was trained on, 2014-\d\d-\d\d to 2014-\d\d-\d\d; evaluate later dates, or "
    )
    with pytest.raises(UserError, match=match):
        evaluations.begin(run, "step-2", source=earlier)
    assert not ledger.path().exists()
    forced = evaluations.begin(run, "step-2", source=earlier, force=True, examples=4)
    assert forced.context.overlaps_training
    later = evaluations.begin(run, "step-2", source=_elsewhere(tmp_path, "2016-01-04"), examples=4)
    assert not later.context.overlaps_training
    # Nobody here trained the base model.
    base = evaluations.begin(run, "base", source=earlier, examples=4)
    assert not base.context.overlaps_training
    assert base.context.train_dates is None


def test_training_rows_overlap_themselves(tmp_path: Path) -> None:
    run = evaluations.make_run(tmp_path)
    with pytest.raises(UserError, match="overlap"):
        evaluations.begin(run, "step-2", split="train")
    assert evaluations.begin(run, "step-2", split="validation", examples=4).is_new


def test_training_dates_that_are_not_known_count_as_overlapping(tmp_path: Path) -> None:
    run = evaluations.make_run(tmp_path)
    folder = tmp_path / "model-adapter"
    folder.mkdir()
    save_whole_policy(tiny_policy().model, folder)
    match = r"what .*model-adapter was trained on is not known \(it belongs to no run\)"
    with pytest.raises(UserError, match=match):
        evaluations.begin(run, str(folder))
    forced = evaluations.begin(run, str(folder), force=True, examples=4)
    assert forced.context.overlaps_training
    assert forced.context.train_dates is None


def test_a_second_stage_was_trained_on_what_its_first_was(tmp_path: Path) -> None:
    first = evaluations.make_run(tmp_path)
    second = directory.create(
        first.config().model_copy(
            update={
                "data": first.config().data.model_copy(
                    update={"source": _elsewhere(tmp_path, "2012-01-02")}
                )
            }
        )
    )
    second.promotion.write_text(json.dumps({"parent": first.id}))
    evaluations.save_checkpoint(second, 6)
    with pytest.raises(UserError, match=f"overlap what {first.id} was trained on"):
        evaluations.begin(first, f"{second.id}:step-6", source=_elsewhere(tmp_path, "2013-06-03"))
    begun = evaluations.begin(first, f"{second.id}:step-6", examples=4)
    assert begun.context.train_dates is not None
    assert begun.context.train_dates[0].year == 2012
    second.promotion.write_text(json.dumps({"parent": None}))
    with pytest.raises(UserError, match=f"what the Stage I adapter of {second.id} was trained on"):
        evaluations.begin(first, f"{second.id}:step-6")


def test_training_dates_end_with_the_outcome_of_the_last_row(tmp_path: Path) -> None:
    histories = sources.load(evaluations.write_prices(tmp_path)).histories
    for horizon in (1, 5):
        data = DataConfig(horizon=horizon)
        rows = Dataset.configured(histories, data).rows("train")
        outcomes = [
            histories[at].days[index + horizon].item()
            for at, index in zip(rows.history.tolist(), rows.index.tolist(), strict=True)
        ]
        first, last = overlap.split_dates(histories, data)
        assert last == max(outcomes)
        assert first <= rows.day.min().item()


# ---------------------------------------------------------------------------
# The ledger


def test_every_evaluation_of_a_split_is_counted_and_going_on_is_not(tmp_path: Path) -> None:
    run = evaluations.make_run(tmp_path)
    first = evaluations.begin(run, "step-2", examples=4)
    assert (first.context.touches, first.context.trials) == (1, 2)
    assert evaluations.begin(run, "step-2", examples=4).context.touches == 1
    second = evaluations.begin(run, "step-4", examples=4)
    assert (second.context.touches, second.context.trials) == (2, 3)
    # Some of the split is the split; another split or another definition is not.
    third = evaluations.begin(run, "step-4", tickers=("AAA",), samples=2, examples=3)
    assert (third.context.touches, third.context.trials) == (3, 3)
    other = evaluations.begin(run, "step-4", split="validation", examples=4)
    assert (other.context.touches, other.context.trials) == (1, 2)
    entries = [json.loads(line) for line in ledger.path().read_text().splitlines()]
    assert [entry["labels"] for entry in entries][:2] == [
        ["base", "step-000002"],
        ["base", "step-000004"],
    ]


def test_sharpe_ratios_of_other_checkpoints_are_known_to_later_evaluations(tmp_path: Path) -> None:
    run = evaluations.make_run(tmp_path)
    first = evaluations.begin(run, "step-2", examples=4)
    base, two = (one.hash for one in first.context.checkpoints)
    ledger.found(first.context.split_key, {base: 0.01, two: 0.05})
    ledger.found(first.context.split_key, {two: 0.06})
    later = evaluations.begin(run, "step-4", examples=4)
    assert later.context.trial_sharpes == (0.06,)
    assert evaluations.begin(run, "step-2", examples=5).context.trial_sharpes == ()


def test_a_line_that_a_killed_process_left_is_cut_off() -> None:
    ledger.touch("k", ["a"], {})
    with ledger.path().open("ab") as file:
        file.write(b'{"kind": "touch", "split": "k", "checkp')
    assert ledger.usage("k").touches == 1
    assert ledger.touch("k", ["b"], {}).touches == 2
    assert ledger.usage("k").checkpoints == {"a", "b"}
    assert ledger.path().read_bytes().count(b"\n") == 2


def test_a_damaged_line_is_told_and_never_passed_over() -> None:
    ledger.touch("k", ["a"], {})
    with ledger.path().open("ab") as file:
        file.write(b"{}\n")
    with pytest.raises(UserError, match=r"evaluations\.jsonl:2: this line of the ledger"):
        ledger.usage("k")


def test_no_touch_is_lost_where_many_come_at_once() -> None:
    with ThreadPoolExecutor(8) as pool:
        counts = list(pool.map(lambda at: ledger.touch("k", [str(at)], {}).touches, range(40)))
    assert sorted(counts) == list(range(1, 41))
    assert len(ledger.usage("k").checkpoints) == 40


def test_a_split_is_known_by_source_data_and_definition() -> None:
    data = DataConfig()
    known = {
        ledger.split_key("demo", "a" * 64, "test", data),
        ledger.split_key("planted", "a" * 64, "test", data),
        ledger.split_key("demo", "b" * 64, "test", data),
        ledger.split_key("demo", "a" * 64, "validation", data),
        ledger.split_key("demo", "a" * 64, "test", data.model_copy(update={"horizon": 2})),
    }
    assert len(known) == 5
    # What a prompt shows does not decide which rows there are.
    brief = data.model_copy(update={"style": "brief"})
    assert ledger.split_key("demo", "a" * 64, "test", brief) in known


# ---------------------------------------------------------------------------
# Beside the predictions


@pytest.fixture(scope="module")
def market() -> Dataset:
    histories = planted.load(share=0.9, seed=1, shuffled=False, source="planted").histories
    return Dataset.configured(histories[:2], DataConfig())


def test_features_are_what_an_example_of_the_day_shows(market: Dataset) -> None:
    rows = market.rows("test")
    rows = rows.take(np.arange(0, len(rows), 97))
    features = logistic.features(market, rows)
    names = sorted(
        {*market.example(int(rows.history[0]), int(rows.index[0])).indicators, "sigma20"}
        - {"volume20"}
    )
    for row, values in enumerate(features):
        example = market.example(int(rows.history[row]), int(rows.index[row]))
        close = example.window[-1].close
        shown = [example.indicators.get(name, example.sigma20) for name in names]
        expected = [
            value / close if name in ("sma20", "sma", "ema", "mom", "macd") or "bbands" in name
            else value
            for name, value in zip(names, shown, strict=True)
        ]  # fmt: skip
        assert values[10:] == pytest.approx(expected)
        closes = [bar.close for bar in example.window]
        moves = [(one / other - 1) * 100 for other, one in pairwise(closes)]
        assert values[0] == np.sign(moves[-1])
        assert values[3] == pytest.approx(np.clip(moves[-2] / example.sigma20, -3, 3))


def test_the_regression_is_fitted_on_training_rows_alone(market: Dataset) -> None:
    from sklearn.linear_model import LogisticRegression

    train, test = market.rows("train"), market.rows("test")
    x = logistic.features(market, train)
    mean, spread = np.nanmean(x, axis=0), None
    filled = np.where(np.isnan(x), mean, x)
    spread = filled.std(axis=0)
    spread[spread == 0] = 1
    model = LogisticRegression(C=0.1, max_iter=1000).fit((filled - mean) / spread, train.up)
    tested = logistic.features(market, test)
    tested = np.where(np.isnan(tested), mean, tested)
    expected = model.predict_proba((tested - mean) / spread)[:, 1]
    found = logistic.fit_predict(market, test, seed=0)
    assert found.why is None
    assert found.p_up == pytest.approx(expected, abs=1e-6)


def test_a_regression_without_two_sides_is_not_computable(market: Dataset) -> None:
    class OneSided(Dataset):
        def rows(self, split: Any) -> Any:
            rows = super().rows(split)
            return rows.take(np.flatnonzero(rows.up))

    histories = market.histories
    found = logistic.fit_predict(
        OneSided.configured(histories, DataConfig()), market.rows("test"), 0
    )
    assert found.why == "all training rows went the same way"
    assert np.isnan(found.p_up).all()


def test_prices_and_baselines_stand_beside_the_predictions(tmp_path: Path) -> None:
    run = evaluations.make_run(tmp_path)
    begun = evaluations.begin(run, "base", tickers=("AAA",))
    config = run.config()
    (history, _) = sources.load(config.data.source).histories
    prices = pd.read_parquet(begun.folder / market_files.PRICES)
    assert [*prices.columns] == ["ticker", "day", "open", "close"]
    assert set(prices["ticker"]) == {"AAA"}
    first, last = begun.context.dates
    assert prices["day"].iloc[0] == first.isoformat()
    assert prices["day"].iloc[-1] >= last.isoformat()
    at = 7
    row = history.days.astype(str).tolist().index(prices["day"][at])
    assert prices["close"][at] == history.adjusted[row]
    assert prices["open"][at] == pytest.approx(history.open[row] / 2)

    table = pd.read_parquet(begun.folder / market_files.BASELINES)
    assert [*table.columns] == ["key", "logistic", "momentum", "reversal"]
    predictions = PredictionStore(begun.folder)
    rows = predictions.examples()
    predictions.close()
    assert table["key"].tolist() == [one.key for one in rows]
    for one, momentum, reversal in zip(rows, table["momentum"], table["reversal"], strict=True):
        assert momentum == (1.0 if one.day_change > 0 else 0.0)
        assert reversal == 1 - momentum
    assert table["logistic"].between(0, 1).all()


def test_an_unchanged_day_gives_momentum_nothing_to_repeat(tmp_path: Path) -> None:
    histories = sources.load(evaluations.write_prices(tmp_path)).histories
    dataset = Dataset.configured(histories, DataConfig())
    rows = dataset.rows("test")
    rows = rows.take(sampler.over_time(rows, 6, 0))
    at, index = int(rows.history[2]), int(rows.index[2])
    histories[at].adjusted[index] = histories[at].adjusted[index - 1]
    market_files.write_baselines(tmp_path, dataset, rows, seed=0)
    table = pd.read_parquet(tmp_path / market_files.BASELINES)
    assert np.isnan([table["momentum"][2], table["reversal"][2]]).all()
    assert table["momentum"].notna().sum() == 5


def test_requests_are_held_to_their_limits() -> None:
    with pytest.raises(UserError, match="eval samples: input should be less than or equal to 64"):
        request.build(checkpoints=("base",), samples=65)
    with pytest.raises(UserError, match="eval checkpoints"):
        request.build(checkpoints=())


def test_the_leftover_of_a_preparation_is_no_evaluation(tmp_path: Path) -> None:
    run: RunDirectory = evaluations.make_run(tmp_path)
    (run.path / "evaluation" / ".20260101-000000-test-abc").mkdir(parents=True)
    assert evaluations.begin(run, "base", examples=3).is_new

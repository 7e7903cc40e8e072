"""Folders of finished evaluations, as the evaluator leaves them, with generated predictions."""

import datetime as dt
import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from engine.evaluation import store
from engine.evaluation.context import Context, Evaluated
from engine.evaluation.store import Prediction, PredictionStore
from tests.predictions import generated

SCORES = ("component/", "rubric/")


def context(table: pd.DataFrame, **about: Any) -> Context:
    """The context of an evaluation that made ``table``."""
    names = table[["checkpoint", "checkpoint_hash"]].drop_duplicates()
    values: dict[str, Any] = {
        "id": "20261120-101500-test",
        "run": "20261119-080000-stage1",
        "source": "bundled",
        "is_synthetic": False,
        "split": "test",
        "samples": 1,
        "temperature": 0,
        "seed": 7,
        "checkpoints": tuple(
            Evaluated(
                label=label,
                hash=digest,
                step=None if label == "base" else 40,
                run=None if label == "base" else "20261119-080000-stage1",
            )
            for label, digest in names.itertuples(index=False)
        ),
        "base_model": "smollm2-135m",
        "dates": (table["as_of"].min(), table["label_day"].max()),
        "num_examples": table["key"].nunique(),
        "train_dates": (dt.date(2000, 3, 1), dt.date(2009, 12, 31)),
        "overlaps_training": False,
        "touches": 2,
        "trials": len(names),
        "trial_sharpes": (),
        "leakage": None,
        "scheme": "stage1",
        "versions": {"stonk-tui": "0.1.0", "torch": "2.10.0"},
        "created": dt.datetime(2026, 11, 20, 10, 15, tzinfo=dt.UTC),
        "seconds": 12.5,
    }
    return Context.model_validate(values | about)


def tables(*shares: float, num_days: int = 120, num_tickers: int = 4, **about: Any) -> pd.DataFrame:
    """Predictions of as many checkpoints as there are true shares right, the base model first.

    All are about the same examples: outcomes of the first table, calls that are right where the
    checkpoint's own draw says so.
    """
    made: list[pd.DataFrame] = []
    for number, share in enumerate(shares):
        name = f"step-{number * 20:06}" if number else "base"
        table = generated(
            share, number, num_days=num_days, num_tickers=num_tickers, checkpoint=name, **about
        )
        right = (table["called_up"] == table["actual_up"]).to_numpy(dtype=bool)
        if made:
            for column in ("actual_up", "actual_percent", "day_change"):
                table[column] = made[0][column].to_numpy()
            up = right == table["actual_up"].to_numpy(dtype=bool)
            table["called_up"] = pd.Series(up, dtype=object)
            table["percent"] = np.where(up, 1, -1) * table["percent"].abs()
        table["completion"] = [
            f"<think>{key} closed higher.</think><answer>{'UP' if up else 'DOWN'} 1.0% confidence "
            f"{sure:.0%}</answer>"
            for key, up, sure in table[["key", "called_up", "confidence"]].itertuples(index=False)
        ]
        made.append(table.assign(checkpoint_hash=f"{number:064}"))
    return pd.concat(made, ignore_index=True)


def prices(table: pd.DataFrame, seed: int = 3) -> pd.DataFrame:
    """Closes that moved as the labels say, opens near them, and a few days after the last."""
    rng = np.random.default_rng(seed)
    examples = table.drop_duplicates("key").sort_values("as_of")
    made = []
    for ticker, rows in examples.groupby("ticker"):
        last = np.datetime64(rows["label_day"].iloc[-1])
        after = [str(np.busday_offset(last, days, roll="forward")) for days in (1, 2, 3)]
        moves = np.concatenate((rows["actual_percent"].to_numpy() / 100, rng.normal(0, 0.01, 3)))
        close = 50 * np.concatenate(([1.0], np.cumprod(1 + moves)))
        days = [*rows["as_of"], rows["label_day"].iloc[-1], *after]
        gaps = 1 + rng.normal(0, 0.004, len(close))
        opened = np.concatenate(([50.0], close[:-1])) * gaps
        made.append(pd.DataFrame({"ticker": ticker, "day": days, "open": opened, "close": close}))
    return pd.concat(made, ignore_index=True)


def write(folder: Path, table: pd.DataFrame, *, has_prices: bool = True, **about: Any) -> Path:
    """Write the folder of an evaluation that made ``table``; the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    context(table, **about).write(folder)
    scores = [name for name in table.columns if name.startswith(SCORES)]
    rows = table.astype(object).where(table.notna(), None).to_dict("records")
    store.create(folder, [])
    predictions = PredictionStore(folder)
    predictions.append(
        [
            Prediction(
                scores={name: row.pop(name) for name in scores if row[name] is not None},
                **{name: value for name, value in row.items() if name not in scores},
            )
            for row in rows
        ],
        seconds=12.5,
    )
    predictions.close()
    keys = table["key"].unique()
    p_up = np.random.default_rng(4).normal(0.51, 0.03, len(keys)).clip(0, 1)
    baselines = pd.DataFrame({"key": keys, "logistic": p_up})
    baselines.to_parquet(folder / "baselines.parquet", index=False)
    if has_prices:
        prices(table).to_parquet(folder / "prices.parquet", index=False)
    return folder


def report(folder: Path) -> dict[str, Any]:
    """What ``report.json`` in ``folder`` holds."""
    found: dict[str, Any] = json.loads((folder / "report.json").read_text(encoding="utf-8"))
    return found

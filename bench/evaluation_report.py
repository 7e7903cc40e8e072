"""Measure an evaluation's report on generated predictions: metrics with bootstrap intervals.

    python bench/evaluation_report.py                        100,000 predictions, 10,000 draws
    python bench/evaluation_report.py --predictions 5000     a quick look

The predictions are those of ``--checkpoints`` checkpoints, the base model among them, for every
ticker on each of ``--days`` days, hits of a day correlated by 0.1. They are made first, which is
not timed. Prints a line for each part and, with --out, writes all figures as JSON.
"""

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import numpy as np
import pandas as pd
from machine import machine

from engine.evaluation import report
from engine.evaluation.summary import summarise
from engine.evaluation.table import decisions

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from tests import reports
from tests.predictions import generated

_T = TypeVar("_T")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--predictions", type=int, default=100_000)
    parser.add_argument("--draws", type=int, default=10_000)
    parser.add_argument("--days", type=int, default=500)
    parser.add_argument("--checkpoints", type=int, default=2)
    parser.add_argument("--out", type=Path, help="JSON file for the figures")
    arguments = parser.parse_args()
    table = predictions(arguments.predictions, arguments.days, arguments.checkpoints)
    baselines = logistic(table)
    seconds: dict[str, float] = {}
    decided = timed("decisions", seconds, lambda: decisions(table))
    summary = timed(
        "summary",
        seconds,
        lambda: summarise(decided, table, baselines, seed=1, draws=arguments.draws),
    )
    timed("summary as JSON", seconds, lambda: json.dumps(summary, allow_nan=False))
    seconds["total"] = round(sum(seconds.values()), 2)
    time_report(table, arguments.draws, seconds)
    figures = {
        "command": " ".join(["python", *sys.argv]),
        "machine": machine("numpy", "pandas", "scipy"),
        "predictions": len(table),
        "examples": summary["examples"],
        "days": summary["days"],
        "checkpoints": len(summary["checkpoints"]),
        "draws": arguments.draws,
        "seconds": seconds,
    }
    print(
        f"{len(table):,} predictions, {arguments.draws:,} draws:"
        f" {seconds['total']} s for the metrics, {seconds['whole report']} s for the whole report"
    )
    print(f"machine: {figures['machine']}")
    if arguments.out:
        arguments.out.parent.mkdir(parents=True, exist_ok=True)
        arguments.out.write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")


def time_report(table: pd.DataFrame, draws: int, seconds: dict[str, float]) -> None:
    """Time the whole report: reading the store, metrics, backtest, figures, page, Parquet."""
    with tempfile.TemporaryDirectory() as place:
        folder = reports.write(Path(place), table)
        timed("whole report", seconds, lambda: report.build(folder, draws=draws))


def predictions(count: int, num_days: int, num_checkpoints: int) -> pd.DataFrame:
    """About ``count`` predictions, the base model a coin and the others a little better."""
    num_tickers = max(1, count // (num_days * num_checkpoints))
    tables = []
    for number in range(num_checkpoints):
        name = f"step-{number * 20:06}" if number else "base"
        share = 0.5 + 0.02 * min(number, 5)
        tables.append(
            generated(
                share, number, num_days=num_days, num_tickers=num_tickers, checkpoint=name
            ).assign(checkpoint_hash=f"{number:064}")
        )
    return pd.concat(tables, ignore_index=True)


def logistic(table: pd.DataFrame) -> pd.DataFrame:
    """Probabilities as a logistic regression would leave them: near a half."""
    keys = table["key"].unique()
    p_up = np.random.default_rng(3).normal(0.51, 0.03, len(keys)).clip(0, 1)
    return pd.DataFrame({"key": keys, "logistic": p_up})


def timed(name: str, seconds: dict[str, float], work: Callable[[], _T]) -> _T:
    """What ``work`` returns; how long it took goes into ``seconds`` and is printed."""
    start = time.perf_counter()
    result = work()
    seconds[name] = round(time.perf_counter() - start, 2)
    print(f"{name}: {seconds[name]} s", flush=True)
    return result


if __name__ == "__main__":
    main()

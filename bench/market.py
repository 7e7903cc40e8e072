"""Measure the market data on this machine: preparing files, building prompts, loading deepstock.

    python bench/market.py --stocknet DIR        all figures; DIR is StockNet's root
    python bench/market.py --rows 20000          a small deepstock file, for a quick look

DIR may also come from STOCKNET_DIR; without it the figures of StockNet are left out. The deepstock
file is made here, in a temporary folder: 500 tickers, weekly news, one statement a year, in that
data set's schema. It is loaded in a process of its own, whose peak memory is told.

Rates are those of one core and process time, best and worst of five passes over 2,000 examples
spread over the training rows, without tokenising. Prints a line for each figure and, with --out,
writes them all as JSON.
"""

import argparse
import json
import os
import random
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from machine import machine

from engine.config import DataConfig
from engine.market import sources
from engine.market.dataset import Dataset
from engine.market.prepare import prepare
from engine.market.prompts import compose

ROWS = 305_860
"""Rows of the data set on the hub."""

TICKERS = 500
DAYS = 612
PASSES = 5
EXAMPLES = 2000

_HEADLINES_A_DAY = 4
_WORDS = [f"word{number}" for number in range(3000)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--stocknet", default=os.environ.get("STOCKNET_DIR"), metavar="DIR")
    parser.add_argument("--rows", type=int, default=ROWS, help="rows of the deepstock file")
    parser.add_argument("--out", type=Path, help="JSON file for the figures")
    parser.add_argument("--load-only", metavar="SOURCE", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.load_only:
        print(json.dumps(loaded(arguments.load_only)))
        return
    figures: dict[str, Any] = {}
    with tempfile.TemporaryDirectory(prefix="stonk-bench-") as folder:
        if arguments.stocknet:
            source = f"stocknet:{arguments.stocknet}"
            figures["stocknet_prepare"] = prepared(source, Path(folder) / "prepared")
            tell("StockNet, data prepare", figures["stocknet_prepare"])
            figures["stocknet_prompts"] = prompts(source)
            tell("StockNet, full prompts", figures["stocknet_prompts"])
        path = Path(folder) / "deepstock.parquet"
        figures["deepstock_file"] = written(path, arguments.rows)
        tell("deepstock, file made", figures["deepstock_file"])
        source = f"deepstock:{path}"
        figures["deepstock_load"] = loaded_apart(source)
        tell("deepstock, loaded in a process of its own", figures["deepstock_load"])
        figures["deepstock_prompts"] = prompts(source)
        tell("deepstock, full prompts", figures["deepstock_prompts"])
    report = {
        "command": " ".join(["python", *sys.argv]),
        "machine": machine("numpy", "TA-Lib", "pyarrow", "datasets"),
        "figures": figures,
    }
    if arguments.out:
        arguments.out.parent.mkdir(parents=True, exist_ok=True)
        arguments.out.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    print(f"machine: {report['machine']}")


def tell(what: str, figures: dict[str, Any]) -> None:
    print(
        f"{what}: {', '.join(f'{name} {value:,}' for name, value in figures.items())}", flush=True
    )


def prepared(source: str, out: Path) -> dict[str, Any]:
    """Read a source and write its windows."""
    start = time.perf_counter()
    histories = sources.load(source).histories
    result = prepare(histories, out)
    return {
        "seconds": round(time.perf_counter() - start, 2),
        "tickers": len(result.rows),
        "windows": sum(rows["full"] for rows in result.rows.values()),
        "files": len(list(out.iterdir())),
    }


def prompts(source: str) -> dict[str, Any]:
    """Examples with their full prompt, a second of process time."""
    dataset = Dataset.configured(sources.load(source).histories, DataConfig(style="full"))
    rows = dataset.rows("train")
    step = max(1, len(rows) // EXAMPLES)
    chosen = list(zip(rows.history.tolist(), rows.index.tolist(), strict=True))[::step][:EXAMPLES]
    rates = []
    for _ in range(PASSES):
        start = time.process_time()
        for history, index in chosen:
            compose(dataset.example(history, index), style="full")
        rates.append(len(chosen) / (time.process_time() - start))
    return {
        "examples_per_second_best": round(max(rates)),
        "examples_per_second_worst": round(min(rates)),
        "examples": len(chosen),
    }


def loaded_apart(source: str) -> dict[str, Any]:
    """Load a source in a fresh process, as a worker does."""
    done = subprocess.run(
        [sys.executable, __file__, "--load-only", source],
        check=True,
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
    )
    figures: dict[str, Any] = json.loads(done.stdout)
    return figures


def loaded(source: str) -> dict[str, Any]:
    """Load a source, build its dataset, and look at this process."""
    before = peak_mib()
    start = time.perf_counter()
    market = sources.load(source)
    seconds = time.perf_counter() - start
    dataset = Dataset.configured(market.histories, DataConfig(style="full"))
    return {
        "load_seconds": round(seconds, 2),
        "dataset_seconds": round(time.perf_counter() - start - seconds, 2),
        "rows": sum(count.read for count in market.report.rows),
        "labelled_rows": sum(len(dataset.rows(name)) for name in dataset.spans),
        "peak_memory_mib": peak_mib(),
        "peak_memory_before_mib": before,
    }


def peak_mib() -> int:
    """Largest resident memory of this process so far; Linux counts it in KiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024


def written(path: Path, rows: int) -> dict[str, Any]:
    """Write a file in the schema of deepstock, its answers in ``user_prompt`` as there."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    start = time.perf_counter()
    rng = random.Random(1)
    days = np.busday_offset("2021-01-04", np.arange(DAYS)).astype(str).tolist()
    statement = json.dumps({f"Line {number}": 1e9 * number for number in range(45)})
    writer, left = None, rows
    try:
        for number in range(TICKERS):
            batch = of_ticker(f"T{number:03}", days[: min(left, DAYS)], statement, rng)
            if not batch:
                break
            left -= len(batch)
            table = pa.Table.from_pylist(batch)
            writer = writer or pq.ParquetWriter(path, table.schema)
            writer.write_table(table)
    finally:
        if writer:
            writer.close()
    return {
        "seconds": round(time.perf_counter() - start, 2),
        "rows": rows - left,
        "mib": path.stat().st_size // 2**20,
    }


def of_ticker(
    ticker: str, days: list[str], statement: str, rng: random.Random
) -> list[dict[str, Any]]:
    """The rows of one ticker: a random walk, and headlines that stay for a week."""
    news = [[" ".join(rng.choices(_WORDS, k=10)) for _ in range(_HEADLINES_A_DAY)] for _ in days]
    rows, close = [], 100.0
    for at, day in enumerate(days):
        opening, close = close, close * (1 + rng.gauss(0, 0.015))
        price = {
            "open": opening,
            "close": close,
            "price_date": day,
            "open_previous": opening,
            "close_previous": opening,
            "previous_date": day,
        }
        info = {
            "ticker": ticker,
            "current_date": day,
            "company_info": {"name": f"Company {ticker}", "description": "text " * 160},
            "news": {
                "news_date": day,
                "news_headlines": [text for texts in news[max(0, at - 5) : at] for text in texts],
            },
            "financials": {"year": f"{day[:4]}-12-31", "financials": statement},
            "price": price,
        }
        prompt = "text " * 400 + str(close)
        rows.append({"ticker": ticker, "company_info": info, "user_prompt": prompt})
    return rows


if __name__ == "__main__":
    main()

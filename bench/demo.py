"""Measure the demo on this machine: start-up, step time, memory, and whether it learns.

    python bench/demo.py --seeds 7 8 9            three runs of the `demo` preset
    python bench/demo.py --seeds 7 --steps 5      a short one, for the times alone
    python bench/demo.py --finished RUN ...       the figures of runs that are there already

Every run gets its own fresh home, so nothing warmed-up is reused between seeds; the
converted model is shared. With --second-start, a second run follows each first one to time
a start that finds everything cached. Prints a table and writes JSON with the machine's
name. The reward difference is (mean of the last 10 steps) − (mean of the first 10), its
standard error sqrt(s₁²/10 + s₂²/10) from the steps' own spread.
"""

import argparse
import json
import math
import os
import statistics
import sys
import tempfile
from pathlib import Path
from typing import Any

from machine import machine
from running import alarms_raised, events, run_to_end

from engine.config import preset, with_overrides
from engine.policy.embedded import default_cache_dir, ensure_embedded_model
from engine.runs import directory
from engine.runs.directory import RunDirectory
from engine.runs.history import History
from engine.runs.reader import Event
from engine.runs.status import read_history

WINDOW = 10


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, nargs="+", default=[7])
    parser.add_argument("--steps", type=int, help="GRPO steps; left out: those of the preset")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE")
    parser.add_argument("--second-start", action="store_true")
    parser.add_argument("--home", type=Path, help="where the runs are kept; else thrown away")
    parser.add_argument("--finished", nargs="+", metavar="RUN", help="start none, read these")
    parser.add_argument("--out", type=Path, help="JSON file for the figures")
    arguments = parser.parse_args()
    if arguments.finished:
        runs = [directory.find(name) for name in arguments.finished]
        _report([_of(run) | {"seed": run.config().seed} for run in runs], arguments.out)
        return
    # Found before the home changes, so that the model is not converted again for every seed.
    ensure_embedded_model(default_cache_dir(), _quiet)
    models = default_cache_dir() / "models"
    os.environ.pop("STONK_CACHE", None)
    overrides = list(arguments.set)
    if arguments.steps:
        overrides.append(f"schedule.max_steps={arguments.steps}")

    results = []
    for seed in arguments.seeds:
        with tempfile.TemporaryDirectory(prefix="stonk-bench-") as scratch:
            home = (arguments.home or Path(scratch)).absolute() / f"seed-{seed}"
            (home / "cache").mkdir(parents=True)
            (home / "cache" / "models").symlink_to(models)
            os.environ["STONK_HOME"] = str(home)
            result = measure([*overrides, f"seed={seed}"])
            if arguments.second_start:
                again = measure([*overrides, f"seed={seed}", "schedule.max_steps=1"])
                result["second_start_seconds"] = again["seconds_to_training"]
        result["seed"] = seed
        results.append(result)
    _report(results, arguments.out)


def _report(results: list[dict[str, Any]], out: Path | None) -> None:
    """Print what was measured on which machine, and write it as JSON."""
    report = {
        "command": " ".join(["python", *sys.argv]),
        "machine": machine("torch", "transformers", "peft", note=", no GPU used"),
        "runs": results,
    }
    if out:
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(report, indent=1))


def measure(overrides: list[str]) -> dict[str, Any]:
    """Run the demo preset to its end and take the figures from its store."""
    return _of(run_to_end(with_overrides(preset("demo"), overrides)))


def _of(run: RunDirectory) -> dict[str, Any]:
    return figures(events(run), read_history(run))


def figures(log: list[Event], history: History) -> dict[str, Any]:
    """Times, memory and learning of one finished run."""
    start = log[0].time
    training = next(e.time for e in log if e.kind == "state" and e.payload["state"] == "training")
    steps = [event for event in log if event.kind == "step"]
    durations = [event.payload["seconds"]["total"] for event in steps]
    series = history.series
    result: dict[str, Any] = {
        "steps": len(steps),
        "seconds_to_training": round(training - start, 1),
        "seconds_to_first_step": round(steps[0].time - start, 1),
        "step_seconds_mean": round(statistics.fmean(durations), 1),
        "step_seconds_max": round(max(durations), 1),
        "peak_memory_gib": round(history.metrics["memory_gib"], 2),
        "alarms_raised": alarms_raised(log),
    }
    if len(steps) >= 2 * WINDOW:
        rewards = series["reward/total"].values
        first, last = rewards[:WINDOW], rewards[-WINDOW:]
        error = math.sqrt((statistics.variance(first) + statistics.variance(last)) / WINDOW)
        difference = statistics.fmean(last) - statistics.fmean(first)
        result |= {
            "format_last_10": round(statistics.fmean(series["reward/format"].values[-WINDOW:]), 3),
            "reward_first_10": round(statistics.fmean(first), 4),
            "reward_last_10": round(statistics.fmean(last), 4),
            "reward_difference": round(difference, 4),
            "standard_error": round(error, 4),
            "difference_in_standard_errors": round(difference / error, 2),
        }
    return result


def _quiet(phase: str, done: int, total: int) -> None:
    """The model is usually there; a first conversion takes some twenty seconds."""


if __name__ == "__main__":
    main()

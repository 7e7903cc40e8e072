"""Prove that training learns: a planted signal is found, and its shuffled twin is not.

    python bench/learn.py                                   seeds 7 and 8, and the twin of seed 7
    python bench/learn.py --source planted:share=0.75 --seeds 7 --twins
    python bench/learn.py --continue --home DIR ...         go on where a killed bench was

Every run is one of the preset `prove`. Validation is on unseen days, one sampled completion an
example, an answer that cannot be read counted as wrong. Prints the validation accuracy over
steps as a chart and a table, with the 95 % interval over whole days, sample size and baselines, and
how confidence fits the hit rate; writes JSON with the machine's name.
"""

import argparse
import json
import math
import os
import sys
import tempfile
from pathlib import Path
from typing import Any

import plotext
from machine import machine
from running import alarms_raised, continue_to_end, events

from engine.config import RunConfig, preset, with_overrides
from engine.evaluation.intervals import wilson
from engine.policy.embedded import default_cache_dir, ensure_embedded_model
from engine.runs.directory import RunDirectory
from engine.runs.history import Series
from engine.runs.status import read_history

CURVES = {
    "accuracy": "accuracy",
    "day_low": "accuracy/day_low",
    "day_high": "accuracy/day_high",
    "n": "accuracy/n",
    "days": "accuracy/days",
    "parsed": "parsed",
    "auc": "auc",
    "brier": "brier",
    "brier_base_rate": "brier/base_rate",
    "ece": "ece",
    "mean_confidence": "confidence/mean",
    "hit_rate": "confidence/hit_rate",
    "reasoning": "rubric/reasoning",
    "always_up": "baseline/always_up",
    "always_down": "baseline/always_down",
    "momentum": "baseline/momentum",
    "base_model": "baseline/base_model",
}
"""What is kept of every validation, by metric."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--source", default="planted:share=0.95")
    parser.add_argument("--seeds", type=int, nargs="*", default=[7, 8])
    parser.add_argument("--twins", type=int, nargs="*", default=[7], help="seeds of shuffled twins")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE")
    parser.add_argument("--home", type=Path, help="where the runs are kept; else thrown away")
    parser.add_argument(
        "--continue", action="store_true", help="needs --home; finish what is there"
    )
    parser.add_argument("--out", type=Path, help="JSON file for the figures")
    arguments = parser.parse_args()
    if getattr(arguments, "continue") and arguments.home is None:
        parser.error("--continue needs --home")
    ensure_embedded_model(default_cache_dir(), _quiet)
    models = default_cache_dir() / "models"
    twin = arguments.source + ("," if ":" in arguments.source else ":") + "shuffled=true"
    wanted = [(arguments.source, seed) for seed in arguments.seeds]
    wanted += [(twin, seed) for seed in arguments.twins]
    with tempfile.TemporaryDirectory(prefix="stonk-learn-") as scratch:
        home = (arguments.home or Path(scratch)).absolute()
        (home / "cache").mkdir(parents=True, exist_ok=True)
        if not (home / "cache" / "models").exists():
            (home / "cache" / "models").symlink_to(models)
        os.environ["STONK_HOME"] = str(home)
        os.environ.pop("STONK_CACHE", None)
        results = []
        for source, seed in wanted:
            config = with_overrides(
                preset("prove"), [f"data.source={source}", f"seed={seed}", *arguments.set]
            )
            results.append(figures(continue_to_end(config), config))
            _print(results[-1])
    report = {
        "command": " ".join(["python", *sys.argv]),
        "machine": machine("torch", "transformers", "peft", note=", no GPU used"),
        "runs": results,
    }
    if arguments.out:
        arguments.out.parent.mkdir(parents=True, exist_ok=True)
        arguments.out.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    print(report["machine"])


def figures(run: RunDirectory, config: RunConfig) -> dict[str, Any]:
    """What a finished run showed."""
    history = read_history(run)
    log = events(run)
    steps = [event for event in log if event.kind == "step"]
    curve = {
        name: _rounded(history.series[f"validation/{metric}"])
        for name, metric in CURVES.items()
        if f"validation/{metric}" in history.series
    }
    count = int(curve["n"]["values"][-1])
    final = curve["accuracy"]["values"][-1]
    return {
        "run": config.name,
        "source": config.data.source,
        "seed": config.seed,
        "steps": history.step,
        "minutes": round((log[-1].time - log[0].time) / 60, 1),
        "step_seconds_mean": round(
            sum(e.payload["seconds"]["total"] for e in steps) / len(steps), 1
        ),
        "super_saiyan_steps": history.super_saiyan,
        "first_accuracy": curve["accuracy"]["values"][0],
        "last_accuracy": final,
        "last_accuracy_wilson_99": [
            round(bound, 3) for bound in wilson(round(final * count), count, level=0.99)
        ],
        "lights": {light["name"]: light["on"] for light in history.milestones},
        "alarms_raised": alarms_raised(log),
        "validation": curve,
    }


def _rounded(series: Series) -> dict[str, list[Any]]:
    return {"steps": list(series.steps), "values": [round(value, 4) for value in series.values]}


def _print(result: dict[str, Any]) -> None:
    curve = result["validation"]
    steps = curve["accuracy"]["steps"]
    print(f"\n{result['source']}, seed {result['seed']}: {result['minutes']} min")
    plotext.terminal.limit(False, False)
    figure = plotext.figure
    figure.clear()
    figure.plot_size(76, 18)
    figure.ruler("y", 0).lim(0, 1)
    for name, marker in (("day_low", "dot"), ("day_high", "dot"), ("accuracy", "braille")):
        points = figure.signal(curve[name]["steps"], curve[name]["values"], marker=marker)
        figure.draw(points.lines(name == "accuracy"))
    print(figure.build().string(colorless=True))
    print("validation accuracy (line) and its 95 % interval over days (dots), by GRPO step")
    print("step  accuracy  95 % over days   n    sure   right  ECE    parsed  reasoning")
    shown = ("mean_confidence", "hit_rate", "ece", "parsed", "reasoning")
    for at, step in enumerate(steps):
        value = {name: dict(zip(c["steps"], c["values"], strict=True)) for name, c in curve.items()}
        low, high, *rest = (
            value[name].get(step, math.nan) for name in ("day_low", "day_high", *shown)
        )
        print(
            f"{step:4d}  {curve['accuracy']['values'][at]:8.3f}  [{low:.3f}, {high:.3f}]"
            f"  {curve['n']['values'][at]:4.0f}  " + "  ".join(f"{number:.3f}" for number in rest)
        )
    baselines = ("always_up", "always_down", "momentum", "base_model")
    print(
        "baselines: " + "  ".join(f"{name} {curve[name]['values'][-1]:.3f}" for name in baselines)
    )
    print(f"lights {result['lights']}  all four on at {result['super_saiyan_steps'] or 'no step'}")


def _quiet(phase: str, done: int, total: int) -> None:
    """The model is usually there; a first conversion takes some twenty seconds."""


if __name__ == "__main__":
    main()

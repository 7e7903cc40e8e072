"""Turn the predictions of an evaluation into its report.

A process of its own does (``python -m engine.evaluation.finish FOLDER``): tables, figures and the
leakage suite are no load for the one that trains.
"""

import datetime as dt
import json
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from engine.errors import RunFailedError, UserError
from engine.evaluation import context as contexts
from engine.evaluation import ledger
from engine.evaluation.context import Context, Leakage
from engine.evaluation.store import PredictionStore
from engine.runs import directory
from engine.task import Json
from engine.text import one_line

SUSPICIOUS = 0.6
"""Accuracy on real prices above which the data is searched for leaks."""
_WAIT_SECONDS = 0.2


def run(folder: Path, is_interrupted: Callable[[], bool]) -> dict[str, Json] | None:
    """Finish the evaluation in ``folder`` in a process of its own.

    Returns:
        ``verdicts``, ``accuracy`` and ``baseline`` for the event; None where it was interrupted.

    Raises:
        RunFailedError: it failed.
    """
    root = str(Path(__file__).resolve().parents[2])
    process = subprocess.Popen(
        [sys.executable, "-m", __name__, str(folder)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=root,
    )
    while True:
        try:
            out, err = process.communicate(timeout=_WAIT_SECONDS)
            break
        except subprocess.TimeoutExpired:
            if is_interrupted():
                process.kill()
                process.communicate()
                return None
    if process.returncode:
        lines = err.strip().splitlines()
        raise RunFailedError(
            f"all is predicted, but the report failed: {one_line(lines[-1] if lines else '', 240)}"
        )
    told: dict[str, Json] = json.loads(out)
    return told


def finish(folder: Path) -> dict[str, Json]:
    """Look for leaks where the accuracy asks for it, write the report, complete the context.

    Raises:
        UserError: predictions are missing.
    """
    context = contexts.read(folder)
    predictions = PredictionStore(folder)
    try:
        done = sum(predictions.tally(one.hash).done for one in context.checkpoints)
        accuracies = [predictions.accuracy(one.hash) for one in context.checkpoints]
        seconds = predictions.seconds()
    finally:
        predictions.close()
    if done != context.total:
        raise UserError(
            f"{done:,} of {context.total:,} predictions are there", where=one_line(str(folder))
        )
    leakage = context.leakage
    if leakage is None and not context.is_synthetic and max(accuracies) > SUSPICIOUS:
        leakage = _search_for_leaks(context)
    # The report reads both; that it is there is written down last.
    context = context.model_copy(update={"leakage": leakage, "seconds": seconds})
    context.write(folder)
    told, sharpes = _report(folder)
    digests = {one.label: one.hash for one in context.checkpoints}
    ledger.found(
        context.split_key,
        {digests[label]: value for label, value in sharpes.items() if label in digests},
    )
    finished = dt.datetime.now(dt.UTC).replace(microsecond=0)
    context.model_copy(update={"finished": finished}).write(folder)
    return told


def _report(folder: Path) -> tuple[dict[str, Json], dict[str, float]]:
    """Write the report; what the event says of it, and the daily Sharpe ratio by label."""
    from engine.evaluation import report

    written = report.build(folder)
    checkpoints: Mapping[str, Any] = written["summary"]["checkpoints"]
    first = next(iter(checkpoints.values()))
    majority = first["majority"]
    told: dict[str, Json] = {
        "verdicts": {label: one["word"] for label, one in written["verdicts"].items()},
        "accuracy": {label: _interval(one["accuracy"]) for label, one in checkpoints.items()},
        "baseline": {"name": majority, "value": first["baselines"][majority]["accuracy"]["value"]},
    }
    tested = written["backtest"]["checkpoints"]
    sharpes = {label: one["trial_sharpe"] for label, one in tested.items()}
    return told, {label: value for label, value in sharpes.items() if value is not None}


def _interval(value: Mapping[str, Any]) -> dict[str, Json]:
    return {name: value[name] for name in ("value", "low", "high", "n")}


def _search_for_leaks(context: Context) -> Leakage:
    """What the leakage suite says about the source, split as the evaluated run splits it."""
    from engine.market import sources
    from engine.market.dataset import Dataset
    from engine.market.leakage import Subject, audit

    assert context.run is not None
    config = directory.find(context.run).config()
    # An option that prompts may use: what it shows is judged too.
    data = config.data.model_copy(update={"source": context.source, "market_share": True})
    market = sources.load(context.source)
    found = audit(Subject(market, lambda histories: Dataset.configured(histories, data)))
    return Leakage(green=not found.red, failed=found.red)


def main(folder: Path) -> int:
    """Finish, and write what the event says to standard output; the exit code."""
    try:
        told = finish(folder)
    except (UserError, RunFailedError) as error:
        print(error, file=sys.stderr)
        return error.exit_code
    print(json.dumps(told))
    return 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))

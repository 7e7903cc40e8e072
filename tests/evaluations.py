"""A run of the tiny model with checkpoints, on a small market, for what evaluates them.

As a program it is killed over and over while it evaluates, see ``killed``.
"""

import json
import os
import queue
import random
import signal
import sqlite3
import sys
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from engine.config import LoraSection, RunConfig
from engine.evaluation import finish, predictor, request, store
from engine.evaluation.evaluator import Evaluator
from engine.evaluation.hosting import Host
from engine.evaluation.preparation import Prepared, prepare
from engine.policy import attention
from engine.policy.policy import Policy
from engine.rewards.choice import resolve
from engine.runs import checkpoint_names, directory, manifest
from engine.runs.control import Command
from engine.runs.directory import RunDirectory
from engine.runs.store import EventStore
from tests import market_files
from tests.tiny import (
    policy_on,
    save_tiny_model,
    save_whole_policy,
    tiny_base,
    tiny_config,
    tiny_policy,
)

DAYS = 320
TOLD: dict[str, Any] = {
    "verdicts": {"base": "no evidence"},
    "accuracy": {"base": {"value": 0.5, "low": 0.4, "high": 0.6, "n": 40}},
    "baseline": {"name": "always_up", "value": 0.5},
}
"""What a report says, where none is made."""


def write_prices(folder: Path, *, first: str = "2014-01-02", days: int = DAYS) -> str:
    """Two tickers whose closes wander; the source string."""
    for at, ticker in enumerate(("AAA", "BBB")):
        rng = np.random.default_rng(at)
        table = market_files.rows(days)
        for day, row, move in zip(
            market_files.business_days(days, first),
            table,
            np.cumsum(rng.normal(0, 1, days)).tolist(),
            strict=True,
        ):
            close = round(200 + move, 2)
            row |= {"Date": day, "Open": close - 0.2, "High": close + 0.5, "Low": close - 0.5}
            row |= {"Close": close, "Adj Close": close / 2}
        market_files.write_csv(folder, ticker, table)
    return f"ohlcv:{folder}"


def make_config(folder: Path, **sections: Any) -> RunConfig:
    """A configuration of the tiny model on a small market, both in ``folder``."""
    source = write_prices(folder / "prices")
    values: dict[str, Any] = {
        "data": {"source": source, "style": "brief"},
        "rollout": {"prompts_per_step": 2, "group_size": 2, "max_new_tokens": 8, "context": 2048},
    }
    for section, content in sections.items():
        values[section] = values.get(section, {}) | content
    return tiny_config(save_tiny_model(folder / "model"), **values)


def make_run(folder: Path, **sections: Any) -> RunDirectory:
    """A run with the checkpoints step-2 and step-4."""
    run = directory.create(make_config(folder, **sections))
    for step in (2, 4):
        save_checkpoint(run, step)
    return run


def save_checkpoint(run: RunDirectory, step: int) -> Path:
    """A checkpoint of ``run`` whose weights its step decides."""
    policy = tiny_policy(seed=step)
    folder = run.checkpoints / f"step-{step:06d}"
    folder.mkdir()
    save_whole_policy(policy.model, folder)
    files = [
        manifest.Entry(file.name, file.stat().st_size, checkpoint_names.sha256(file))
        for file in folder.iterdir()
    ]
    (folder / checkpoint_names.MANIFEST).write_text(manifest.text(step, files))
    return folder


def host_policy(config: RunConfig) -> Policy:
    """The tiny base model in memory."""
    policy = tiny_policy()
    policy.rollout = config.rollout
    return policy


def policy_of_another_size(config: RunConfig) -> Policy:
    """A base model in memory that no checkpoint of ``make_run`` fits."""
    base = tiny_base(hidden_size=64)
    base.set_attn_implementation(attention.NAME)
    policy = policy_on(base, LoraSection(r=4, alpha=8, dropout=0.0))
    policy.rollout = config.rollout
    return policy


def begin(run: RunDirectory, *checkpoints: str, out: Path | None = None, **values: Any) -> Prepared:
    """The folder of an evaluation of ``checkpoints``."""
    wanted = request.build(checkpoints=checkpoints or ("last",), **values)
    return prepare(run, wanted, out=out)


def evaluate(
    run: RunDirectory, folder: Path, is_interrupted: Callable[[], bool] = lambda: False
) -> tuple[bool, str]:
    """Let an evaluator of this process go on with ``folder``."""
    config = run.config()
    events = EventStore(run.database, begins_attempt=False)
    try:
        evaluator = Evaluator(run, config, host_policy(config), resolve(config.reward), events)
        command = Command("asked", request.VERB, request.payload(folder))
        return evaluator.answer(command, Host(is_interrupted))
    finally:
        events.close()


def table(folder: Path) -> list[tuple[Any, ...]]:
    """All predictions in an order of their own."""
    with sqlite3.connect(folder / store.FILE) as db:
        return db.execute(
            "SELECT * FROM predictions ORDER BY checkpoint_hash, key, sample"
        ).fetchall()


def count(folder: Path) -> int:
    """Predictions stored so far."""
    with sqlite3.connect(folder / store.FILE, timeout=10) as db:
        return int(db.execute("SELECT count(*) FROM predictions").fetchone()[0])


def killed(home: Path, kills: int, seed: int) -> dict[str, Any]:
    """Evaluate in processes that are killed at random moments, until ``kills`` of them have been.

    Returns:
        Whether the table is that of an evaluation that nobody disturbed, and what was counted.
    """
    torch.set_num_threads(1)
    predictor.MIN_ROWS = 1
    finish.run = lambda folder, is_interrupted: dict(TOLD)
    run = make_run(home)
    wanted: dict[str, Any] = {"samples": 2, "examples": 30}
    calm = begin(run, "step-2", "step-4", out=home / "calm", **wanted)
    assert evaluate(run, calm.folder)[0]
    rng, pause = random.Random(seed), threading.Event()
    counts: list[int] = []
    while True:
        folder = begin(run, "step-2", "step-4", **wanted).folder
        before = count(folder)
        child = os.fork()
        if child == 0:
            os._exit(0 if evaluate(run, folder)[0] else 1)
        if len(counts) < kills:
            most = calm.context.total - 4 * (kills - len(counts))
            target = min(before + rng.randint(0, 12), max(before, most))
            while count(folder) < target:
                pause.wait(0.001)
            # Not always right after a commit.
            pause.wait(rng.uniform(0, 0.02))
            os.kill(child, signal.SIGKILL)
        _, status = os.waitpid(child, 0)
        if len(counts) < kills:
            assert os.WIFSIGNALED(status)
            counts.append(count(folder))
            continue
        assert os.waitstatus_to_exitcode(status) == 0
        break
    one, other = table(calm.folder), table(folder)
    return {
        "same": one == other,
        "rows": len(other),
        "distinct": len({(row[1], row[2], row[10]) for row in other}),
        "counts": counts,
        "folders": len(list((run.path / "evaluation").iterdir())),
    }


def commands(*sent: Command) -> "queue.Queue[Command]":
    """A queue with these commands."""
    waiting: queue.Queue[Command] = queue.Queue()
    for command in sent:
        waiting.put(command)
    return waiting


def main(arguments: Sequence[str]) -> None:
    """HOME KILLS SEED."""
    home, kills, seed = Path(arguments[0]), int(arguments[1]), int(arguments[2])
    print(json.dumps(killed(home, kills, seed)))


if __name__ == "__main__":
    main(sys.argv[1:])

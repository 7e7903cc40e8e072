"""What a Stage II run called, against what the market did, as files of the run.

    market_stats.json            shares of UP and accuracy, over all tickers and for each
    stage2_training_log.jsonl    one object for every rollout, in order

Both come from the store, a group at a time, so that memory stays bounded; steps that a resume
replayed are in the store twice and here once.
"""

import json
import os
import secrets
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TextIO

from engine.evaluation.intervals import wilson
from engine.runs.directory import RunDirectory
from engine.runs.durable import fsync_directory
from engine.runs.reader import Rollout, StoreReader
from engine.runs.status import read_history
from engine.task import Json

STATISTICS = "market_stats.json"
TRAINING_LOG = "stage2_training_log.jsonl"


@dataclass
class _Side:
    """Completions whose examples went one way."""

    count: int = 0
    right: int = 0

    def accuracy(self) -> dict[str, Json]:
        """Share right with its 95 % Wilson interval; only ``n`` where there is nothing."""
        if not self.count:
            return {"n": 0}
        low, high = wilson(self.right, self.count)
        return {"n": self.count, "share": self.right / self.count, "low": low, "high": high}


@dataclass
class _Tally:
    """Counts of one ticker, or of all."""

    groups: int = 0
    groups_up: int = 0
    read: int = 0
    called_up: int = 0
    up: _Side = field(default_factory=_Side)
    down: _Side = field(default_factory=_Side)

    def add(self, group: Sequence[Rollout]) -> None:
        """Take in all completions of one prompt."""
        actual = group[0].subject["actual_direction"]
        side = self.up if actual == "UP" else self.down
        self.groups += 1
        self.groups_up += actual == "UP"
        for rollout in group:
            called = rollout.prediction["direction"]
            self.read += called is not None
            self.called_up += called == "UP"
            side.count += 1
            side.right += called == actual

    def as_json(self) -> dict[str, Json]:
        """Figures; a share of nothing is left out."""
        both = _Side(self.up.count + self.down.count, self.up.right + self.down.right)
        shares: dict[str, Json] = {}
        if self.groups:
            shares["market_up_share"] = self.groups_up / self.groups
        if self.read:
            shares["called_up_share"] = self.called_up / self.read
        return {
            "examples": self.groups,
            "completions": both.count,
            "calls_read": self.read,
            **shares,
            "accuracy": both.accuracy(),
            "accuracy_up": self.up.accuracy(),
            "accuracy_down": self.down.accuracy(),
        }


def export(run: RunDirectory) -> list[Path]:
    """Write both files into the directory of ``run``; returns them.

    An unread completion counts as a wrong call. ``market_up_share`` counts every drawn example
    once, ``called_up_share`` every completion that could be read. The intervals treat completions
    as independent, which those of one example are not.

    Raises:
        OSError: they cannot be written; older ones are left as they were.
    """
    overall, tickers = _Tally(), dict[str, _Tally]()
    log, statistics = run.path / TRAINING_LOG, run.path / STATISTICS
    with _Replacement(log) as stream:
        for group in _groups(run):
            ticker = str(group[0].subject["ticker"])
            overall.add(group)
            tickers.setdefault(ticker, _Tally()).add(group)
            for rollout in group:
                json.dump(_line(rollout), stream, separators=(",", ":"))
                stream.write("\n")
    values = {
        "run": run.id,
        "interval": "95 % Wilson; completions of one example are not independent",
        "overall": overall.as_json(),
        "tickers": {name: tickers[name].as_json() for name in sorted(tickers)},
    }
    with _Replacement(statistics) as stream:
        json.dump(values, stream, indent=1)
    return [statistics, log]


def _groups(run: RunDirectory) -> Iterator[list[Rollout]]:
    """Every group of every step, in order."""
    reader = StoreReader(run.database)
    try:
        for step in range(1, read_history(run).step + 1):
            number = 0
            while group := reader.group(step, number):
                yield group
                number += 1
    finally:
        reader.close()


def _line(rollout: Rollout) -> dict[str, Json]:
    return {
        "step": rollout.step,
        "group": rollout.group,
        "sample": rollout.sample,
        "subject": rollout.subject,
        "prompt": rollout.prompt,
        "completion": rollout.completion,
        "tokens": rollout.tokens,
        "finished": rollout.finished,
        "prediction": rollout.prediction,
        "components": rollout.components,
        "reward": rollout.reward,
        "advantage": rollout.advantage,
    }


class _Replacement:
    """A text file that takes the place of another once all of it is on disk."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")

    def __enter__(self) -> TextIO:
        self._stream = self._temporary.open("x", encoding="utf-8")
        return self._stream

    def __exit__(self, kind: object, error: object, traceback: object) -> None:
        try:
            if kind is None:
                self._stream.flush()
                os.fsync(self._stream.fileno())
            self._stream.close()
            if kind is None:
                self._temporary.replace(self._path)
                fsync_directory(self._path.parent)
        finally:
            self._temporary.unlink(missing_ok=True)

"""What a table of runs says about one run, read with a bounded look at its store.

The history of a long run is a million values. A table needs a handful of them: the newest of
each kind, and a few steps spread over the whole for the course of the reward. However long the
log is, this looks at a bounded number of its rows.
"""

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from engine.evaluation.baselines import SIMPLE
from engine.runs.reader import Event, StoreReader

_LOOK = 5000
"""Rows looked at, at either end of the log, for the newest of a kind and for the first."""
_BINS = 32
_STEPS_PER_BIN = 4
_SUBJECTS = 400
_MAX_TICKERS = 200


@dataclass(frozen=True)
class Summary:
    """A run as its store tells it; what is not known is None."""

    last_seq: int = 0
    started: float | None = None
    updated: float | None = None
    attempt: int = 0
    device: str = ""
    state: str = "starting"
    """What the store says, whether a worker lives or not."""
    detail: str = ""
    step: int = 0
    max_steps: int | None = None
    reward: float | None = None
    """Of the newest step."""
    course: tuple[float, ...] = ()
    """The reward over the whole run: means of a few steps each, at even distances."""
    accuracy: float | None = None
    """Of the newest validation, as are the next four."""
    accuracy_low: float | None = None
    accuracy_high: float | None = None
    accuracy_n: float | None = None
    baseline: float | None = None
    """Accuracy of the best simple baseline on the same rows."""
    step_seconds: float | None = None
    """Median over the steps that were looked at."""
    memory_gib: float | None = None
    """Greatest of the same steps: the GPU's where there is one, else the worker's."""
    tickers: frozenset[str] = frozenset()
    """Of the newest prompts; untrusted text."""


def read_summary(reader: StoreReader) -> Summary:
    """Look at the store of ``reader``.

    Raises:
        UserError: it cannot be read.
    """
    first, last = reader.span()
    if not last:
        return Summary()

    def newest(kind: str, least: int = 0) -> Event | None:
        start = max(first, last - _LOOK, least)
        found = reader.of_kind(kind, start, last, 1, newest=True)
        return found[0] if found else None

    beginning = reader.of_kind("worker", first, first + _LOOK, 4)
    facts: dict[str, Any] = {}
    for event in beginning:
        facts |= event.payload
    state, step, validation = newest("state"), newest("step"), newest("validation")
    # A worker that has just been started has not said how it is yet.
    worker = newest("worker", state.seq if state else first)
    if worker is not None:
        facts |= worker.payload
    has_restarted = worker is not None and "pid" in worker.payload
    said = {} if state is None or has_restarted else state.payload
    steps = _spread(reader, first, last)
    metrics = _metrics(step)
    validated = _metrics(validation)
    baselines = [_number(validated.get(f"baseline/{name}")) for name in SIMPLE]
    return Summary(
        last_seq=last,
        started=beginning[0].time if beginning else None,
        updated=_newest_time(state, step, validation, worker),
        attempt=max((event.attempt for event in (state, step, worker) if event), default=0),
        device=str(facts.get("device") or ""),
        # A step without a state since long: it trains, for anything else would have been said.
        state=str(said.get("state") or ("training" if step and not has_restarted else "starting")),
        detail=str(said.get("detail") or ""),
        step=step.step if step else 0,
        max_steps=_whole(facts.get("max_steps")),
        reward=_number(metrics.get("reward/total")),
        course=tuple(_means(steps)),
        accuracy=_number(validated.get("accuracy")),
        accuracy_low=_number(validated.get("accuracy/low")),
        accuracy_high=_number(validated.get("accuracy/high")),
        accuracy_n=_number(validated.get("accuracy/n")),
        baseline=max((one for one in baselines if one is not None), default=None),
        step_seconds=_median([_seconds(event) for part in steps for event in part]),
        memory_gib=_greatest([_memory(event) for part in steps for event in part]),
        tickers=_tickers(reader),
    )


def _spread(reader: StoreReader, first: int, last: int) -> list[list[Event]]:
    """A few neighbouring steps from each of some evenly spaced places of the log."""
    edges = sorted({first + (last + 1 - first) * place // _BINS for place in range(_BINS + 1)})
    parts = [
        # No further than a bounded number of rows, however many a place holds.
        reader.of_kind("step", start, min(end - 1, start + _LOOK // _BINS), _STEPS_PER_BIN)
        for start, end in itertools.pairwise(edges)
    ]
    return [part for part in parts if part]


def _means(parts: Sequence[Sequence[Event]]) -> list[float]:
    means = []
    for part in parts:
        rewards = [_number(_metrics(event).get("reward/total")) for event in part]
        known = [reward for reward in rewards if reward is not None]
        if known:
            means.append(sum(known) / len(known))
    return means


def _tickers(reader: StoreReader) -> frozenset[str]:
    found: set[str] = set()
    for subject in reader.newest_subjects(_SUBJECTS):
        if isinstance(subject, Mapping) and isinstance(ticker := subject.get("ticker"), str):
            found.add(ticker[:40])
        if len(found) >= _MAX_TICKERS:
            break
    return frozenset(found)


def _metrics(event: Event | None) -> Mapping[str, Any]:
    metrics = event.payload.get("metrics") if event is not None else None
    return metrics if isinstance(metrics, Mapping) else {}


def _seconds(event: Event) -> float | None:
    seconds = event.payload.get("seconds")
    return _number(seconds.get("total")) if isinstance(seconds, Mapping) else None


def _memory(event: Event) -> float | None:
    metrics = _metrics(event)
    gpu = _number(metrics.get("gpu_memory_gib"))
    return gpu if gpu is not None else _number(metrics.get("memory_gib"))


def _newest_time(*events: Event | None) -> float | None:
    return max((event.time for event in events if event is not None), default=None)


def _median(values: Sequence[float | None]) -> float | None:
    known = sorted(value for value in values if value is not None)
    return known[len(known) // 2] if known else None


def _greatest(values: Sequence[float | None]) -> float | None:
    return max((value for value in values if value is not None), default=None)


def _whole(value: object) -> int | None:
    number = _number(value)
    return int(number) if number is not None and number > 0 else None


def _number(value: object) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        return float(value) if math.isfinite(value) else None
    except OverflowError:
        return None

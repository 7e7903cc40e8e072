"""Whether what is evaluated lies apart in time from what the checkpoints were trained on.

Stocks move together, so a day of one ticker tells about the same day of another: dates count, not
rows, and those of another source as well. A run trains on its own source; a Stage II run stands on
what its Stage I run was trained on, too.
"""

import datetime as dt
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from engine.config import DataConfig
from engine.errors import UserError
from engine.evaluation.context import Dates, Evaluated
from engine.market.history import History
from engine.market.splits import chronological
from engine.runs import directory, stage1
from engine.runs.directory import RunDirectory

Load = Callable[[str], Sequence[History]]
"""The histories of a source."""


@dataclass(frozen=True)
class Trained:
    """When something was trained on."""

    name: str
    """For a message."""
    dates: Dates | None
    """First as-of day and last label day; None where that is not known."""
    why: str = ""
    """Why it is not known."""


def training(checkpoints: Sequence[Evaluated], load: Load) -> list[Trained]:
    """What the checkpoints were trained on, one entry for each run or folder.

    The base model was trained on whatever its makers took, which no dates here describe.
    """
    known: dict[str, Trained] = {}
    for one in checkpoints:
        if one.folder is None:
            continue
        if one.run is None:
            known[one.label] = Trained(one.label, None, "it belongs to no run")
            continue
        for run in _lineage(one.run):
            name = run if isinstance(run, str) else run.id
            if name not in known:
                known[name] = _trained(run, load)
    return list(known.values())


def joint(trained: Sequence[Trained]) -> Dates | None:
    """The dates of all together; None where there are none, or one's are not known."""
    dates = [one.dates for one in trained if one.dates is not None]
    if len(dates) < len(trained) or not dates:
        return None
    return min(first for first, _ in dates), max(last for _, last in dates)


def problem(trained: Sequence[Trained], evaluated: Dates) -> str | None:
    """Why the dates ``evaluated`` cannot be called unseen; None where they can."""
    for one in trained:
        if one.dates is None:
            return f"what {one.name} was trained on is not known ({one.why})"
        if one.dates[0] <= evaluated[1] and evaluated[0] <= one.dates[1]:
            return (
                f"the rows to evaluate, {_shown(evaluated)}, overlap what {one.name} was trained "
                f"on, {_shown(one.dates)}"
            )
    return None


def split_dates(histories: Sequence[History], data: DataConfig) -> Dates:
    """First as-of day and last label day of the training rows that ``data`` describes.

    Raises:
        UserError: the histories are too short for the splits.
    """
    days = np.unique(np.concatenate([history.days for history in histories]))
    span = chronological(
        days,
        train_share=data.train_share,
        validation_share=data.validation_share,
        embargo=data.embargo,
        horizon=data.horizon,
        folds=data.folds,
        fold=data.fold,
        train_window=data.train_window,
    )["train"]
    last = int(np.searchsorted(days, span.last)) + data.horizon
    return _day(span.first), _day(days[last])


def _lineage(run_id: str) -> list[RunDirectory | str]:
    """The run, and those that its policy stands on; the name of one that is gone."""
    found: list[RunDirectory | str] = []
    name: str | None = run_id
    while name is not None and len(found) < 4:
        run = next((one for one in directory.list_runs() if one.id == name), None)
        found.append(name if run is None else run)
        if run is None:
            break
        record = stage1.record(run)
        if record is not None and record.get("parent") is None:
            found.append(f"the Stage I adapter of {name}")
        name = str(record["parent"]) if record is not None and record.get("parent") else None
    return found


def _trained(run: RunDirectory | str, load: Load) -> Trained:
    if isinstance(run, str):
        return Trained(run, None, "there is no such run here")
    try:
        data = run.config().data
        return Trained(run.id, split_dates(load(data.source), data))
    except UserError as error:
        return Trained(run.id, None, str(error))


def _day(day: np.datetime64) -> dt.date:
    made = day.item()
    assert isinstance(made, dt.date)
    return made


def _shown(dates: Dates) -> str:
    return f"{dates[0]} to {dates[1]}"

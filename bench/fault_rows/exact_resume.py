"""A run that is resumed goes on as if it had never ended.

A trial trains a tiny model to a random step, saves, and goes on for 20 steps; a second time, to see
that training repeats itself at all; and then from the checkpoint, in objects made anew. After the
load every value of the trainer has to be what it was after the save, and 20 steps later again,
with the very tokens sampled on the way.
"""

import random
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from bench.fault_rows.row import Outcome, Row
from bench.fault_rows.state import differences, everything
from bench.fault_rows.tiny_training import TinyTraining, config
from engine.config import RunConfig
from engine.policy.adapters import trainable_parameters
from engine.runs import checkpoint_names
from engine.runs.control import Command
from engine.training import checkpoints

FURTHER = 20
"""Steps after the resume."""
SEEDS = (7, 8, 9)
KINDS = ("plain", "out of memory", "fp16", "stack")
_LATEST = 20
_SHOWN = 3


def trial(number: int, folder: Path) -> Outcome:
    """Resume at a step drawn by ``number``, with one of the seeds and kinds of run."""
    kind, seed = KINDS[number % len(KINDS)], SEEDS[number // len(KINDS) % len(SEEDS)]
    at = random.Random(number).randint(1, _LATEST)
    return resumed(folder, seed=seed, kind=kind, at=at, further=FURTHER)


def resumed(folder: Path, *, seed: int, kind: str, at: int, further: int) -> Outcome:
    """Resume at step ``at``, and compare ``further`` steps after it."""
    shaping = "market_skew" if kind == "stack" else "diversity"
    settings = config(
        seed=seed,
        deterministic=True,
        reward={"shaping": shaping},
        schedule={"max_steps": at + further},
    )
    with _algorithms_put_back():
        whole, after_save = _uninterrupted(folder / "whole", settings, kind, at)
        control, _ = _uninterrupted(folder / "control", settings, kind, at)
        if problem := _compare(whole, control):
            return Outcome(f"two uninterrupted runs differ: {problem}")
        name = f"step-{at:06d}"
        shutil.copytree(folder / "whole", folder / "again")
        again = TinyTraining(folder / "again", settings, kind=_base(kind))
        for later in checkpoint_names.names(again.run):
            if checkpoint_names.step_of(later) > at:
                shutil.rmtree(again.run.checkpoints / later)
        if (found := checkpoints.newest(again.run)) != name:
            return Outcome(f"{found} was taken instead of {name}")
        again.training.resume(name)
        if paths := differences(after_save, everything(again.training)):
            again.close()
            return Outcome(f"{kind}, step {at}: after the load differ {_some(paths)}")
        again.train()
        if problem := _compare(whole, again):
            return Outcome(f"{kind}, step {at}: {further} steps after the load {problem}")
    return Outcome(figures={"steps": at})


def _uninterrupted(
    path: Path, settings: RunConfig, kind: str, at: int
) -> tuple[TinyTraining, dict[str, str]]:
    """A run to its end, and every value of it after the save at step ``at``."""
    tiny = TinyTraining(path, settings, kind=_base(kind))
    after_save: dict[str, str] = {}
    save = tiny.training.save

    def listen(event: str, payload: Any, step: int) -> None:
        if event != "step":
            return
        if step == 1:
            # A setting that is changed on the way is in force after the resume as well.
            change = {"changes": {"optimizer.learning_rate": 5e-3}}
            tiny.commands.put(Command("s", "set", change))
        if step == at:
            tiny.commands.put(Command("c", "checkpoint"))

    def saving(reward: float | None = None) -> str:
        name = save(reward)
        if tiny.training.progress.step == at:
            after_save.update(everything(tiny.training))
        return name

    tiny.store.listen(listen)
    tiny.training.save = saving  # type: ignore[method-assign]
    if kind == "out of memory":
        _run_out_of_memory(tiny, step=max(1, at - 1))
    tiny.train()
    return tiny, after_save


def _run_out_of_memory(tiny: TinyTraining, step: int) -> None:
    """Let one pass of ``step`` fail, so that smaller ones follow, which round otherwise."""
    score, failed = tiny.policy.logprobs, False

    def failing(groups: Sequence[Any]) -> Any:
        nonlocal failed
        if not failed and tiny.training.progress.step == step - 1:
            failed = True
            raise torch.OutOfMemoryError("injected")
        return score(groups)

    tiny.policy.logprobs = failing  # type: ignore[method-assign]


def _compare(one: TinyTraining, other: TinyTraining) -> str:
    """How two runs that ended differ; empty where they do not."""
    # Who resumes has sampled fewer: what is there has to be the end of what the other has.
    if one.tokens[-len(other.tokens) :] != other.tokens:
        return "other tokens were sampled"
    weights, theirs = (trainable_parameters(tiny.policy.model) for tiny in (one, other))
    if not all(torch.equal(weights[name], theirs[name]) for name in weights):
        return "the weights differ"
    paths = differences(everything(one.training), everything(other.training))
    # The generators of the process are shared by all runs of a trial.
    paths = [path for path in paths if path.startswith("training")]
    return f"differ {_some(paths)}" if paths else ""


def _some(paths: Sequence[str]) -> str:
    more = f" and {len(paths) - _SHOWN} more" if len(paths) > _SHOWN else ""
    return ", ".join(paths[:_SHOWN]) + more


def _base(kind: str) -> str:
    return "plain" if kind == "out of memory" else kind


@contextmanager
def _algorithms_put_back() -> Iterator[None]:
    before = torch.are_deterministic_algorithms_enabled()
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before)


ROWS = (
    Row(
        name="exact-resume",
        passes="every value equal after the load, weights and tokens equal 20 steps later",
        trials=60,
        short=3,
        trial=trial,
    ),
)

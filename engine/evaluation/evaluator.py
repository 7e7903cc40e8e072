"""Predict what an evaluation's folder asks for, with the base model that is in memory.

While a run trains this happens between two of its steps, in its own process, and training waits.
Nothing that training stands on is written: a checkpoint acts through ``engine.policy.overlay``, and
random numbers come from seeds of the predictions' own.

Predictions are stored by whole batches, so that a process that is told to do something else, or is
killed, loses the batch in hand alone. Which examples share a batch is decided by the folder, so
whoever goes on makes the batches that are missing, as they would have been made.
"""

import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from engine.config import RunConfig
from engine.errors import RunFailedError, UserError
from engine.evaluation import context as contexts
from engine.evaluation import finish, identity, predictor, request, store
from engine.evaluation.asked import Asked
from engine.evaluation.baselines import best_baseline, simple_baselines
from engine.evaluation.context import Context, Evaluated
from engine.evaluation.hosting import Host
from engine.evaluation.store import ExampleRow, Prediction, PredictionStore, Tally
from engine.policy.adapters import StoredAdapter, read_adapter
from engine.policy.overlay import acting_as
from engine.policy.policy import Policy
from engine.rewards.choice import Reward
from engine.runs.control import Command
from engine.runs.directory import RunDirectory
from engine.runs.store import EventStore
from engine.task import Json
from engine.text import one_line
from engine.training.guard import release


class _InterruptedError(Exception):
    """Somebody wants the worker for something else."""


class Evaluator:
    """Answers the ``evaluate`` commands of one run's worker."""

    def __init__(
        self,
        run: RunDirectory,
        config: RunConfig,
        policy: Policy,
        reward: Reward,
        store: EventStore,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """``config`` is what the run was started with; ``reward`` is what it says."""
        self._run = run
        self._config = config
        self._policy = policy
        self._reward = reward
        self._store = store
        self._clock = clock

    def answer(self, command: Command, host: Host) -> tuple[bool, str]:
        """Evaluate by events ``evaluation``; whether that worked, and one line about it.

        Whatever goes wrong is that line: an evaluation never ends a run.
        """
        about: dict[str, Json] = {"id": command.id}
        try:
            folder = request.read(command.payload)
            with store.hold(folder):
                context = contexts.read(folder)
                about |= _about(context, folder)
                return self._answered(command.id, about, folder, context, host)
        except _InterruptedError:
            state, message = "stopped", "interrupted; the same `stonk-tui eval` goes on with it"
        except (UserError, RunFailedError) as error:
            state, message = "failed", one_line(str(error), 300)
        except Exception as error:  # noqa: BLE001
            traceback.print_exc()
            state, message = "failed", f"{type(error).__name__}: {one_line(str(error), 200)}"
        finally:
            self._store.draft(command.id, None)
            # The next step of training finds the memory that it had.
            release(self._policy.device)
        self._store.event("evaluation", {**about, "state": state, "message": message})
        return False, message

    def _answered(
        self,
        identifier: str,
        about: dict[str, Json],
        folder: Path,
        context: Context,
        host: Host,
    ) -> tuple[bool, str]:
        adapters = [self._adapter(one, context, folder) for one in context.checkpoints]
        predictions = PredictionStore(folder)
        try:
            course = _Course.of(context, predictions, self._clock)
            self._store.event("evaluation", {**about, "state": "begun"})
            for number, (one, adapter) in enumerate(
                zip(context.checkpoints, adapters, strict=True)
            ):
                course.begin(number)
                for batch in self._missing(predictions, context, one):
                    self._store.draft(identifier, course.draft())
                    host.progress(course.done, context.total, course.eta())
                    host.between()
                    began = self._clock()
                    made = self._predict(context, one, adapter, batch, host)
                    predictions.append(made, self._clock() - began)
                    course.add(made, sum(row.length for row in batch))
            self._store.draft(identifier, course.draft())
            host.progress(course.done, context.total, 0.0)
            seconds = predictions.seconds()
        finally:
            predictions.close()
        told = finish.run(folder, host.is_interrupted)
        if told is None:
            raise _InterruptedError
        done = {**about, "state": "done", "seconds": seconds, **told}
        self._store.event("evaluation", done)
        return True, f"evaluated {context.total:,} predictions on {context.split}"

    def _adapter(self, one: Evaluated, context: Context, folder: Path) -> StoredAdapter | None:
        """The policy of a checkpoint; None for the base model.

        Raises:
            UserError: it is not what it was when the evaluation began, or does not fit.
        """
        if context.base_model != self._config.model.id:
            raise UserError(
                f"this evaluation is of {one_line(context.base_model, 60)}, and "
                f"{one_line(self._config.model.id, 60)} is in memory"
            )
        if one.folder is None:
            return None
        adapter = read_adapter(identity.check_kept(one, folder))
        try:
            # Before anything is predicted, so that a misfit costs nobody time.
            with acting_as(self._policy.model, adapter):
                return adapter
        except UserError as error:
            named = one_line(adapter.facts.base_model, 80) or "a model that it does not name"
            raise UserError(
                f"checkpoint {one_line(one.label, 80)} was trained on {named}, and "
                f"{one_line(self._config.model.id, 60)} is in memory: {error.what}",
                fix=error.fix,
            ) from error

    def _missing(
        self, predictions: PredictionStore, context: Context, one: Evaluated
    ) -> Iterator[Sequence[ExampleRow]]:
        """The batches that are not stored yet."""
        rows = predictor.batch_rows(self._config.rollout)
        stored = predictions.num_samples(one.hash)
        for batch in batches(predictions.examples(), max(1, rows // context.samples)):
            if missing := [row for row in batch if row.key not in stored]:
                yield missing

    def _predict(
        self,
        context: Context,
        one: Evaluated,
        adapter: StoredAdapter | None,
        rows: Sequence[ExampleRow],
        host: Host,
    ) -> list[Prediction]:
        policy, rollout = self._policy, self._config.rollout
        asked = [Asked.stored(row, self._config) for row in rows]
        prompts = [policy.prompt_text(ask.item) for ask in asked]
        seeds = [
            predictor.seed_of(context.seed, row.key, sample) if context.temperature else 0
            for row in rows
            for sample in range(context.samples)
        ]

        def listen(first: int, tokens: Sequence[Sequence[int]]) -> None:
            if host.is_interrupted():
                raise _InterruptedError

        if host.is_interrupted():
            raise _InterruptedError
        with acting_as(policy.model, adapter):
            groups = predictor.complete(
                policy,
                [policy.encode_prompt(prompt) for prompt in prompts],
                rollout=rollout,
                samples=context.samples,
                temperature=context.temperature,
                seeds=seeds,
                listener=listen,
            )
        made: list[Prediction] = []
        for ask, prompt, group in zip(asked, prompts, groups, strict=True):
            for sample, completion in enumerate(group):
                made.append(
                    ask.judged(
                        one,
                        sample=sample,
                        seed=seeds[len(made)],
                        prompt=prompt,
                        completion=policy.decode(completion),
                        finished=completion.finished,
                        reward=self._reward,
                    )
                )
        return made


def batches(rows: Sequence[ExampleRow], size: int) -> Iterator[Sequence[ExampleRow]]:
    """What is decoded together: prompts of about one length, the longest first.

    So little is padded, and a prompt that is too long or does not fit into memory is found first.
    """
    ordered = sorted(rows, key=lambda row: (-row.length, row.key))
    for start in range(0, len(ordered), size):
        yield ordered[start : start + size]


@dataclass
class _Course:
    """How far an evaluation is, and how long it will take."""

    context: Context
    baseline: tuple[str, float] | None
    clock: Callable[[], float]
    length: int
    """Of all prompts of a checkpoint, in characters."""
    tallies: dict[str, Tally]
    """By label."""
    started: float
    number: int = 0
    """Of the checkpoint, from 0."""
    begun_with: int = field(init=False)
    predicted: int = 0
    """Characters of the prompts answered by this process."""

    def __post_init__(self) -> None:
        self.begun_with = self.done

    @classmethod
    def of(
        cls, context: Context, predictions: PredictionStore, clock: Callable[[], float]
    ) -> "_Course":
        """How far the stored predictions are."""
        rows = predictions.examples()
        simple = simple_baselines([row.actual_up for row in rows], [row.day_change for row in rows])
        return cls(
            context=context,
            baseline=best_baseline(simple),
            clock=clock,
            length=sum(row.length for row in rows),
            tallies={one.label: predictions.tally(one.hash) for one in context.checkpoints},
            started=clock(),
        )

    @property
    def done(self) -> int:
        """Predictions stored."""
        return sum(tally.done for tally in self.tallies.values())

    @property
    def label(self) -> str:
        """The checkpoint in hand."""
        return self.context.checkpoints[self.number].label

    def begin(self, number: int) -> None:
        """Go on to a checkpoint."""
        self.number = number

    def add(self, made: Sequence[Prediction], length: int) -> None:
        """Count a batch whose prompts have ``length`` characters."""
        self.tallies[self.label] = self.tallies[self.label].plus(made)
        self.predicted += length

    def eta(self) -> float | None:
        """Seconds to go; None before the first batch."""
        if not self.predicted:
            return None
        # Long prompts come first, so their number alone would promise too much time.
        before = self.begun_with / self.context.total
        share = self.predicted / (self.length * len(self.context.checkpoints))
        seconds = self.clock() - self.started
        return max(0.0, seconds / share * (1 - before - share))

    def draft(self) -> dict[str, Json]:
        """For whoever watches: ``done`` of ``total`` of all checkpoints together, ``right`` of
        ``read`` of the one in hand."""
        tally = self.tallies[self.label]
        name, value = self.baseline or (None, None)
        return {
            "evaluation": self.context.id,
            "checkpoint": self.label,
            "number": self.number,
            "of": len(self.context.checkpoints),
            "done": self.done,
            "total": self.context.total,
            "seconds": self.clock() - self.started,
            "eta_seconds": self.eta(),
            "right": tally.right,
            "read": tally.read,
            "per_checkpoint": {label: vars(one) for label, one in self.tallies.items()},
            "baseline": None if name is None else {"name": name, "value": value},
        }


def _about(context: Context, folder: Path) -> dict[str, Json]:
    """What every event of an evaluation says."""
    return {
        "folder": folder.name,
        "path": str(folder),
        "checkpoints": [one.label for one in context.checkpoints],
        "source": context.source,
        "split": context.split,
        "total": context.total,
        "seconds": 0.0,
        "message": "",
        "verdicts": {},
        "accuracy": {},
        "baseline": None,
    }

"""Answer what is asked of checkpoints, with the base model that is in memory.

While a run trains this happens between two of its steps, in its own process. Nothing that training
stands on is written: the checkpoint acts through ``engine.policy.overlay``, random numbers come
from a generator of the probe's own, and memory that does not suffice lowers the probe's limit
alone.
"""

import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch

from engine.config import RunConfig
from engine.errors import RunFailedError, UserError
from engine.policy.adapters import StoredAdapter, read_adapter
from engine.policy.overlay import acting_as
from engine.policy.policy import Policy
from engine.policy.rollout import Completion, sample_groups
from engine.probe import request as requests
from engine.probe.question import Asking, Question
from engine.probe.request import ProbeRequest
from engine.runs import checkpoint_names, manifest
from engine.runs.checkpoint_names import NamedCheckpoint
from engine.runs.control import Command
from engine.runs.directory import RunDirectory
from engine.runs.store import EventStore
from engine.task import Json
from engine.text import one_line
from engine.training.guard import release, with_fewer_rows

DRAFT_SECONDS = 0.2
_DRAFTED_SAMPLES = 4
_DRAFTED_CHARACTERS = 4000


class _AbandonedError(Exception):
    """The worker was told to end while it sampled."""


class Prober:
    """Answers the ``probe`` commands of one run's worker."""

    def __init__(
        self,
        run: RunDirectory,
        config: RunConfig,
        policy: Policy,
        ask: Asking,
        store: EventStore,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """``ask`` turns a request into a question of the task's."""
        self._run = run
        self._config = config
        self._policy = policy
        self._ask = ask
        self._store = store
        self._clock = clock

    def answer(self, command: Command, is_ending: Callable[[], bool]) -> tuple[bool, str]:
        """Answer one probe by an event ``probe``; whether that worked, and one line about it.

        Whatever goes wrong is that line: a question never ends a run.

        Args:
            is_ending: whether the worker has been told to end, which ends the sampling.
        """
        try:
            request = requests.read(command.payload)
            answer = self._answered(command.id, request, is_ending)
        except (UserError, RunFailedError) as error:
            return False, one_line(str(error), 300)
        except _AbandonedError:
            return False, "the run was told to end first"
        except Exception as error:  # noqa: BLE001
            traceback.print_exc()
            return False, f"{type(error).__name__}: {one_line(str(error), 200)}"
        finally:
            self._store.draft(command.id, None)
            # The next step of training finds the memory that it had.
            release(self._policy.device)
        self._store.event("probe", answer)
        count = len(request.checkpoints)
        return True, (
            f"{request.example.ticker} {request.example.as_of}: {request.samples} samples of "
            f"{'one checkpoint' if count == 1 else f'{count} checkpoints'}"
        )

    def _answered(
        self, identifier: str, request: ProbeRequest, is_ending: Callable[[], bool]
    ) -> dict[str, Json]:
        started = self._clock()
        policy = self._policy
        question = self._ask(request)
        prompt = policy.encode_prompt(policy.prompt_text(question.item))
        named = [checkpoint_names.resolve(text, self._run) for text in request.checkpoints]
        # Before anything is sampled, so that a bad name costs nobody time.
        adapters = [self._adapter(one) for one in named]
        temperature = request.temperature or self._config.rollout.temperature
        answers: list[dict[str, Json]] = []
        for number, (one, adapter) in enumerate(zip(named, adapters, strict=True)):
            draft = _Draft(self._store, self._clock, identifier, question, answers, policy)
            draft.begin(_told(one), request.samples, number, len(named))

            def listen(first: int, tokens: Sequence[Sequence[int]], draft: _Draft = draft) -> None:
                if is_ending():
                    raise _AbandonedError
                draft.show(first, tokens)

            with acting_as(policy.model, adapter):
                completions = self._sample(
                    prompt, request.samples, temperature, request.seed, listen
                )
            samples = [self._read(question, completion) for completion in completions]
            answers.append({**_told(one), "samples": samples, **question.sum_up(samples)})
        return {
            "id": identifier,
            "example": dict(question.about),
            "samples": request.samples,
            "temperature": temperature,
            "seed": request.seed,
            "seconds": self._clock() - started,
            "answers": answers,
        }

    def _read(self, question: Question, completion: Completion) -> dict[str, Json]:
        text = self._policy.decode(completion)
        return {"completion": text, "finished": completion.finished, **question.read(text)}

    def _adapter(self, named: NamedCheckpoint) -> StoredAdapter | None:
        """The whole policy of a checkpoint; None for the base model.

        Raises:
            UserError: it is damaged, no plain adapter, or was trained on another base model.
        """
        other = named.run
        if other is not None and other != self._run:
            model = other.config().model.id
            if model != self._config.model.id:
                raise UserError(
                    f"run {other.id} trains {one_line(model, 60)}, and here "
                    f"{one_line(self._config.model.id, 60)} is in memory",
                    fix="ask checkpoints of one base model together",
                )
        if named.folder is None:
            return None
        if other is not None and (problem := manifest.damage(named.folder)):
            raise UserError(
                f"checkpoint {named.name} of run {other.id} is damaged ({one_line(problem, 80)})",
                fix="ask another one",
            )
        return read_adapter(named.folder)

    def _sample(
        self,
        prompt: list[int],
        count: int,
        temperature: float,
        seed: int,
        listen: Callable[[int, Sequence[Sequence[int]]], None],
    ) -> list[Completion]:
        """``count`` completions; fewer at once, and from the start, where memory runs out."""
        policy, settings = self._policy, self._policy.rollout

        def sample(rows: int) -> list[Completion]:
            (completions,) = sample_groups(
                policy.causal_model,
                [prompt],
                group_size=count,
                max_new_tokens=settings.max_new_tokens,
                temperature=temperature,
                end_tokens=policy.end_tokens,
                pad_id=policy.pad_id,
                generator=torch.Generator(policy.device).manual_seed(seed),
                max_rows=rows,
                listener=listen,
            )
            return completions

        rows = policy.decode_rows or settings.prompts_per_step * settings.group_size
        return with_fewer_rows(policy, min(count, rows), sample)


class _Draft:
    """Shows a few times a second what one checkpoint has said so far."""

    def __init__(
        self,
        store: EventStore,
        clock: Callable[[], float],
        identifier: str,
        question: Question,
        answers: Sequence[Mapping[str, Json]],
        policy: Policy,
    ) -> None:
        self._store = store
        self._clock = clock
        self._identifier = identifier
        self._question = question
        self._answers = answers
        self._policy = policy
        self._shown = -DRAFT_SECONDS
        self._head: dict[str, Json] = {}
        self._total = 0
        self._texts: list[str] = []

    def begin(self, told: Mapping[str, Json], total: int, number: int, of: int) -> None:
        """Nothing is said yet."""
        self._head = {**told, "number": number, "of": of}
        self._total = total
        self._put(0, 0)

    def show(self, first: int, tokens: Sequence[Sequence[int]]) -> None:
        """One more token of the completions from number ``first`` on."""
        now = self._clock()
        if now - self._shown < DRAFT_SECONDS:
            return
        self._shown = now
        for at, of_one in enumerate(tokens[: max(0, _DRAFTED_SAMPLES - first)], first):
            text = str(self._policy.tokenizer.decode(list(of_one), skip_special_tokens=True))
            self._texts[at : at + 1] = [text[:_DRAFTED_CHARACTERS]]
        ended = sum(bool(one) and one[-1] in self._policy.end_tokens for one in tokens)
        self._put(first + ended, max(map(len, tokens)))

    def _put(self, done: int, num_tokens: int) -> None:
        answered: list[Json] = [
            {name: value for name, value in answer.items() if name != "samples"}
            for answer in self._answers
        ]
        self._store.draft(
            self._identifier,
            {
                **self._head,
                "example": dict(self._question.about),
                "done": done,
                "total": self._total,
                "tokens": num_tokens,
                "texts": list(self._texts),
                "answered": answered,
            },
        )


def _told(named: NamedCheckpoint) -> dict[str, Any]:
    """What an answer calls its checkpoint."""
    return {"checkpoint": named.name, "run": named.run.id if named.run else None}

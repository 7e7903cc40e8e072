"""Evaluate checkpoints by the worker of a run, from a process that is light itself."""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from engine.evaluation import request as requests
from engine.evaluation.request import INTERRUPT, VERB, EvaluationRequest
from engine.runs import asking, control
from engine.runs.asking import Drafts
from engine.runs.directory import RunDirectory
from engine.runs.reader import Event

_PREPARATION_SECONDS = 3600.0
NO_LIMIT = 10.0 * 365 * 86400


@dataclass(frozen=True)
class Begun:
    """An evaluation that can be predicted, or gone on with."""

    folder: Path
    is_new: bool
    is_finished: bool


def prepare(run: RunDirectory, request: EvaluationRequest, out: Path | None = None) -> Begun:
    """Make the folder of an evaluation, or find the one that the same request began.

    A process of its own does it, which reads the market data.

    Raises:
        UserError: it cannot be evaluated; one line.
        RunFailedError: the process failed.
    """
    asked = {"request": request.model_dump(mode="json"), "out": None if out is None else str(out)}
    made = asking.run_program(
        "engine.evaluation.preparation",
        run,
        json.dumps(asked),
        what="the evaluation",
        timeout=_PREPARATION_SECONDS,
    )
    values = json.loads(made)
    return Begun(Path(values["folder"]), values["is_new"], values["is_finished"])


def ask(
    run: RunDirectory,
    folder: Path,
    *,
    timeout: float = NO_LIMIT,
    drafts: Drafts = lambda draft: None,
    is_cancelled: Callable[[], bool] = lambda: False,
) -> Mapping[str, Any]:
    """Let the worker of ``run`` predict what is missing in ``folder``, and report.

    Args:
        timeout: seconds to wait.
        drafts: told how far it is, see ``engine.evaluation.evaluator``.
        is_cancelled: ends the waiting; the evaluation goes on all the same.

    Returns:
        The payload of the event ``evaluation`` that says it is done.

    Raises:
        UserError: no worker can be started.
        RunFailedError: it failed or was interrupted, or is not done in time.
    """
    return asking.ask(
        run,
        VERB,
        requests.payload(folder),
        is_answer=_is_done,
        timeout=timeout,
        drafts=drafts,
        is_cancelled=is_cancelled,
    )


def evaluate(
    run: RunDirectory,
    request: EvaluationRequest,
    *,
    out: Path | None = None,
    drafts: Drafts = lambda draft: None,
    is_cancelled: Callable[[], bool] = lambda: False,
) -> Path:
    """Evaluate what ``request`` asks for; the folder with the report.

    Raises:
        UserError: see ``prepare`` and ``ask``.
        RunFailedError: the same.
    """
    begun = prepare(run, request, out)
    if not begun.is_finished:
        ask(run, begun.folder, drafts=drafts, is_cancelled=is_cancelled)
    return begun.folder


def interrupt(run: RunDirectory) -> None:
    """End the evaluation that the worker of ``run`` is at; training goes on.

    What was predicted is kept, and the same request goes on with it.

    Raises:
        UserError: no worker listens.
    """
    control.send(run, INTERRUPT)


def _is_done(event: Event) -> bool:
    return event.kind == "evaluation" and event.payload.get("state") == "done"

"""Ask the worker of a run what checkpoints say about an example.

Light: the process that asks needs neither torch nor market data.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict
from typing import Any

from engine.probe.request import VERB, Described, ProbeRequest, Wanted
from engine.runs import asking, checkpoint_names
from engine.runs.asking import Drafts
from engine.runs.directory import RunDirectory

_EXAMPLE_SECONDS = 600.0


def describe(run: RunDirectory, wanted: Wanted) -> Described:
    """The example that is meant, made by a process of its own.

    Raises:
        UserError: there is no such example; one line.
        RunFailedError: the process failed.
    """
    made = asking.run_program(
        "engine.probe.examples",
        run,
        json.dumps(asdict(wanted)),
        what="the example",
        timeout=_EXAMPLE_SECONDS,
    )
    return Described.model_validate_json(made)


def pinned(text: str, run: RunDirectory) -> str:
    """The checkpoint that ``text`` means today, by a name that means the same tomorrow.

    Raises:
        UserError: no such run or checkpoint.
    """
    return checkpoint_names.pinned(checkpoint_names.resolve(text, run), run)


def ask(
    run: RunDirectory,
    request: ProbeRequest,
    *,
    timeout: float,
    drafts: Drafts = lambda draft: None,
    is_cancelled: Callable[[], bool] = lambda: False,
) -> Mapping[str, Any]:
    """The answer of the run's worker: the payload of the event ``probe``.

    Args:
        timeout: seconds to wait for it.
        drafts: called a few times a second while samples come in, with ``checkpoint``, ``done``
            of ``total`` samples and ``texts`` of some.
        is_cancelled: ends the waiting; what was asked is answered all the same.

    Raises:
        UserError: the request is refused, or no worker can be started.
        RunFailedError: it was not answered, or not in time.
    """
    return asking.ask(
        run,
        VERB,
        request.payload(),
        is_answer=lambda event: event.kind == "probe",
        timeout=timeout,
        drafts=drafts,
        is_cancelled=is_cancelled,
    )

"""The form of an evaluation: what was typed, read or refused, and what it will cost. No widgets."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError

from engine.errors import UserError
from engine.evaluation import request
from engine.evaluation.request import MAX_CHECKPOINTS, MAX_SAMPLES, EvaluationRequest
from engine.runs import checkpoint_names
from engine.runs.directory import RunDirectory
from engine.text import one_line
from stonk_tui.evaluation_list import Past

FIELDS = ("checkpoints", "source", "split", "samples", "examples")
SPLITS = ("test", "validation", "train")
MAX_EXAMPLES = 1_000_000
# Which sources there are, without reading one: engine.market.sources brings pandas along.
_SOURCE = re.compile(r"demo|(ohlcv|stocknet):.+|(deepstock|planted)(:.+)?")


@dataclass(frozen=True)
class Problem:
    """What is wrong with the form."""

    field: str
    text: str


@dataclass(frozen=True)
class Cost:
    """What an evaluation takes, as far as earlier ones of the run tell."""

    checkpoints: tuple[str, ...]
    """With the base model, which is always beside them."""
    predictions: int | None
    seconds: float | None
    touches: int | None
    """How often the split has been looked at so far."""


def read(values: Mapping[str, str], run: RunDirectory) -> EvaluationRequest | Problem:
    """What the form says; ``values`` has the text of each field."""
    typed = {name: values.get(name, "").strip() for name in FIELDS}
    names = [name.strip() for name in typed["checkpoints"].split(",") if name.strip()]
    if not names:
        return Problem("checkpoints", "name at least one: base, best, last or step-N")
    if len(names) > MAX_CHECKPOINTS:
        return Problem("checkpoints", f"at most {MAX_CHECKPOINTS} at once")
    try:
        found = [checkpoint_names.resolve(name, run) for name in names]
    except UserError as error:
        fix = f"; {error.fix}" if error.fix else ""
        return Problem("checkpoints", f"{error.what}{fix}")
    if problem := _source_problem(typed["source"]):
        return Problem("source", problem)
    if typed["split"] not in SPLITS:
        known = f"{', '.join(SPLITS[:-1])} or {SPLITS[-1]}"
        return Problem("split", f"{one_line(typed['split'], 20)!r} is none: {known}")
    samples = _whole(typed["samples"], MAX_SAMPLES)
    if samples is None:
        return Problem("samples", f"a whole number from 1 to {MAX_SAMPLES}")
    examples = _whole(typed["examples"], MAX_EXAMPLES)
    if typed["examples"] and examples is None:
        return Problem("examples", "a whole number of examples; empty for all of the split")
    return request.build(
        checkpoints=tuple(dict.fromkeys(checkpoint_names.pinned(one, run) for one in found)),
        source=typed["source"] or None,
        split=typed["split"],
        samples=samples,
        examples=examples,
    )


def values_of(asked: object) -> dict[str, str] | None:
    """The text of each field that asks for the same again; None where the form cannot say it.

    Args:
        asked: a request out of the file of an evaluation.
    """
    try:
        found = EvaluationRequest.model_validate(asked)
    except ValidationError:
        return None
    values = {
        "checkpoints": ", ".join(found.checkpoints),
        "source": found.source or "",
        "split": found.split,
        "samples": str(found.samples),
        "examples": str(found.examples or ""),
    }
    plain = EvaluationRequest(
        checkpoints=found.checkpoints,
        source=found.source,
        split=found.split,
        samples=found.samples,
        examples=found.examples,
    )
    return values if found == plain else None


def cost(wanted: EvaluationRequest, past: Sequence[Past], own_source: str | None) -> Cost:
    """What ``wanted`` will take.

    Args:
        wanted: what the form says.
        past: evaluations of the same run, the newest first.
        own_source: the run's; None where it is not known.
    """
    meant = (wanted.source or own_source, wanted.split)
    alike = [one for one in past if (one.source, one.split) == meant]
    whole = next((one.num_examples for one in alike if one.is_whole), None)
    sizes = [size for size in (wanted.examples, whole) if size]
    examples = min(sizes, default=None)
    checkpoints = tuple(dict.fromkeys((checkpoint_names.BASE, *wanted.checkpoints)))
    predictions = examples * wanted.samples * len(checkpoints) if examples else None
    rate = next((one.seconds_a_prediction for one in past if one.seconds_a_prediction), None)
    return Cost(
        checkpoints=checkpoints,
        predictions=predictions,
        seconds=predictions * rate if predictions and rate else None,
        touches=max((one.touches for one in alike if one.touches is not None), default=None),
    )


def _source_problem(source: str) -> str:
    """Why there is no such source, as far as can be said without reading it."""
    if not source:
        return ""
    if not _SOURCE.fullmatch(source):
        return "use demo, ohlcv:DIR, stocknet:DIR, deepstock[:…] or planted[:…]; empty: the run's"
    name, _, place = source.partition(":")
    if name not in ("ohlcv", "stocknet"):
        return ""
    try:
        is_there = Path(place).expanduser().is_dir()
    except (OSError, RuntimeError, ValueError) as error:
        return f"it cannot be looked at: {getattr(error, 'strerror', None) or error}"
    return "" if is_there else f"there is no folder {one_line(place, 80)}"


def _whole(text: str, most: int) -> int | None:
    """A whole number from 1 to ``most``, or None."""
    is_number = text.isascii() and text.isdecimal() and len(text) <= len(str(most))
    return int(text) if is_number and 1 <= int(text) <= most else None

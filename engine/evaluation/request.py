"""What is asked for when checkpoints are evaluated, and what travels to the worker.

The example rows of an evaluation are far too many for a frame of the control socket, so whoever
asks makes the folder of the evaluation first, with everything in it that the worker needs, and
sends the name of the folder. Light: no torch, no market data.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from engine.errors import UserError
from engine.text import one_line

VERB = "evaluate"
INTERRUPT = "interrupt"
"""The verb that ends the evaluation in hand and nothing else."""
MAX_CHECKPOINTS = 16
MAX_SAMPLES = 64

Checkpoint = Annotated[str, Field(min_length=1, max_length=1000)]
Ticker = Annotated[str, Field(pattern=r"^[A-Za-z0-9._^=-]{1,20}$")]


class EvaluationRequest(BaseModel):
    """What a person asks for; the same request goes on with what it began."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    checkpoints: tuple[Checkpoint, ...] = Field(min_length=1, max_length=MAX_CHECKPOINTS)
    """Names as ``engine.runs.checkpoint_names`` has them; the base model is added."""
    source: str | None = Field(None, max_length=400)
    """Market data; null: that of the run."""
    split: Literal["train", "validation", "test"] = "test"
    samples: int = Field(1, ge=1, le=MAX_SAMPLES)
    """Completions of each example; one is greedy, several are sampled."""
    temperature: float | None = Field(None, gt=0, le=5)
    """Of several samples; null: that of the run's rollouts."""
    examples: int | None = Field(None, ge=1)
    """At most so many, spread over the days of the split; null: all of them."""
    tickers: tuple[Ticker, ...] = Field((), max_length=1000)
    """These alone; none: all."""
    seed: int = Field(0, ge=0, lt=2**31)
    """Decides the choice of examples, the samples and the draws of the report."""
    force: bool = False
    """Although the dates overlap those of training."""


def build(**values: Any) -> EvaluationRequest:
    """The request that ``values`` describe.

    Raises:
        UserError: a value is out of range; one line.
    """
    try:
        return EvaluationRequest.model_validate(values)
    except ValidationError as error:
        raise _in_words(error, "eval") from error


def payload(folder: Path) -> dict[str, Any]:
    """For the socket: evaluate what ``folder`` describes."""
    return {"folder": str(folder.absolute())}


def read(payload: Mapping[str, Any]) -> Path:
    """The folder that came over the socket.

    Raises:
        UserError: it is none; one line.
    """
    folder = payload.get("folder")
    if set(payload) != {"folder"} or not isinstance(folder, str) or not folder.startswith("/"):
        raise UserError("takes the absolute path of an evaluation's folder", where=VERB)
    if not Path(folder).is_dir():
        raise UserError("there is no such folder", where=one_line(folder))
    return Path(folder)


def _in_words(error: ValidationError, where: str) -> UserError:
    first = error.errors()[0]
    field = ".".join(str(part) for part in first["loc"])
    message = str(first["msg"]).removeprefix("Value error, ")
    message = f"{message[:1].lower()}{message[1:]}"
    return UserError(one_line(message, 120), where=one_line(f"{where} {field}", 80))

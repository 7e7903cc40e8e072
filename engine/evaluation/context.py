"""What an evaluation is about: the file ``evaluation.json`` of its folder.

Written before the first prediction, so that a killed evaluation knows what it was, and completed at
the end. Light: no torch, no market data.
"""

import datetime as dt
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from engine.errors import UserError
from engine.evaluation.request import EvaluationRequest
from engine.runs.checkpoint_names import BASE
from engine.runs.durable import write_atomically
from engine.text import one_line

FILE = "evaluation.json"

Dates = tuple[dt.date, dt.date]
"""First and last day."""


class _Record(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Evaluated(_Record):
    """One checkpoint of an evaluation."""

    label: str = Field(min_length=1, max_length=400)
    """What tables and figures call it: ``base``, ``step-000040``, ``RUN:step-000040``."""
    hash: str
    """SHA-256 of what it is, see ``engine.evaluation.identity``."""
    step: int | None
    """Steps of training in it; None where that is not known."""
    run: str | None
    """The run that it belongs to; None for a folder outside any run."""
    folder: str | None = None
    """Where its adapter was, absolute; None for the base model. The evaluation keeps a copy."""


class Leakage(_Record):
    """What the leakage suite said about the source."""

    green: bool
    failed: tuple[str, ...]
    """Names of the checks that found a leak."""


class Context(_Record):
    """What was evaluated on what, and how often that has been looked at before."""

    id: str = Field(min_length=1, max_length=120)
    run: str | None
    """The run whose worker predicts."""
    source: str
    is_synthetic: bool
    split: Literal["train", "validation", "test"]
    samples: int = Field(ge=1)
    """Completions of each example by each checkpoint; one is greedy."""
    temperature: float = Field(ge=0)
    """0 where the most likely token is taken."""
    seed: int = Field(ge=0)
    checkpoints: tuple[Evaluated, ...] = Field(min_length=1)
    """The base model first."""
    base_model: str
    dates: Dates
    """First as-of day and last label day."""
    num_examples: int = Field(ge=1)
    train_dates: Dates | None
    """First as-of day and last label day of what the checkpoints were trained on, all runs
    together; None where that is not known."""
    overlaps_training: bool
    """A person forced it: the dates overlap those of training, or those are not known."""
    touches: int = Field(ge=1)
    """Evaluations of this split so far, this one included."""
    trials: int = Field(ge=1)
    """Distinct checkpoints ever evaluated on this split, these included."""
    trial_sharpes: tuple[float, ...]
    """Daily Sharpe ratios of those evaluated earlier."""
    leakage: Leakage | None
    """None: the suite did not run."""
    scheme: str
    """Name of the reward scheme."""
    versions: dict[str, str]
    created: dt.datetime
    seconds: float | None
    """Time spent predicting, all attempts together; None while predictions are missing."""
    finished: dt.datetime | None = None
    """When the report was written; None while it is not."""
    split_key: str = ""
    """What the ledger calls the split: source, data and definition."""
    request: EvaluationRequest | None = None
    """What was asked for; the same request goes on with this evaluation."""

    @property
    def total(self) -> int:
        """Predictions that a finished evaluation holds."""
        return len(self.checkpoints) * self.num_examples * self.samples

    def write(self, folder: Path) -> None:
        """Replace the file of the evaluation in ``folder``."""
        write_atomically(folder / FILE, self.model_dump_json(indent=2) + "\n")


def read(folder: Path) -> Context:
    """The context of the evaluation in ``folder``.

    Raises:
        UserError: there is none.
    """
    where = one_line(str(folder / FILE))
    try:
        return Context.model_validate_json((folder / FILE).read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise UserError("this folder holds no evaluation", where=where) from error
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(str(part) for part in first["loc"])
        raise UserError(
            f"this is not the context of an evaluation: {one_line(str(first['msg']), 100)}",
            where=f"{where}:{one_line(field, 60)}",
        ) from error


def is_base(checkpoint: Evaluated) -> bool:
    """Whether ``checkpoint`` is the untrained base model."""
    return checkpoint.label == BASE

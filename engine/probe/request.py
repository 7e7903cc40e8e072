"""What is asked of a run's worker, as it travels over the control socket.

Everything that an answer needs is in the request: the example is complete, so that a worker in
training reads no market data for it. Whoever sends it is this user, but what it says is checked
like anything from outside. Light: no torch, no market data.
"""

import datetime as dt
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from engine.errors import UserError
from engine.market.example import Bar, Example, Financials, Headline, Label
from engine.market.statistics import Lag, Statistics
from engine.text import one_line

VERB = "probe"
MAX_SAMPLES = 64
MAX_CHECKPOINTS = 4
MAX_BYTES = 60 * 1024
"""Of a request as JSON; the control socket takes frames of 64 KiB."""

Style = Literal["full", "compact", "brief", "masked"]
Price = Annotated[float, Field(gt=0, lt=1e9)]


class _Wire(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class WireBar(_Wire):
    """See ``engine.market.example.Bar``; null where the source has no value."""

    date: dt.date
    open: Price | None
    high: Price | None
    low: Price | None
    close: Price
    volume: Annotated[float, Field(ge=0, le=1e15)] | None


class WireHeadline(_Wire):
    text: str = Field(max_length=1000)
    known_at: dt.datetime


class WireFinancials(_Wire):
    fiscal_year_end: dt.date
    known_at: dt.datetime
    values: dict[Annotated[str, Field(max_length=80)], float | None] = Field(max_length=80)


class WireLag(_Wire):
    days: int = Field(ge=1, le=1000)
    correlation: float = Field(ge=-1.01, le=1.01)


class WireStatistics(_Wire):
    min: float
    min_timestep: int = Field(ge=0)
    max: float
    max_timestep: int = Field(ge=0)
    mean: float
    median: float
    median_timestep: int = Field(ge=0)
    trend: float
    lags: tuple[WireLag, ...] | None = Field(max_length=16)


class WireOutcome(_Wire):
    percent: float = Field(gt=-100, lt=1e6)
    """Never exactly 0: that is neither side."""
    day: dt.date

    @model_validator(mode="after")
    def _has_a_side(self) -> Self:
        if self.percent == 0:
            raise ValueError("a move of exactly 0 is neither UP nor DOWN")
        return self


class WireExample(_Wire):
    """An ``engine.market.example.Example`` whose outcome may not be known."""

    source: str | None = Field(max_length=400)
    """Where it comes from; null where somebody typed it."""
    ticker: str = Field(pattern=r"^[A-Za-z0-9._-]{1,16}$")
    company: str = Field(max_length=200)
    as_of: dt.date
    window: tuple[WireBar, ...] = Field(min_length=2, max_length=60)
    indicators: dict[Annotated[str, Field(max_length=40)], float] = Field(max_length=40)
    statistics: WireStatistics
    sigma20: float = Field(ge=0)
    horizon: int = Field(ge=1, le=10)
    outcome: WireOutcome | None
    headlines: tuple[WireHeadline, ...] = Field(max_length=40)
    financials: WireFinancials | None
    market_up_share: Annotated[float, Field(ge=0, le=1)] | None

    @model_validator(mode="after")
    def _timesteps_are_in_the_window(self) -> Self:
        steps = self.statistics
        latest = max(steps.min_timestep, steps.max_timestep, steps.median_timestep)
        if latest >= len(self.window):
            raise ValueError("a time step is not in the window")
        return self

    @classmethod
    def of(cls, example: Example, *, source: str | None, is_known: bool = True) -> Self:
        """``example`` for the wire; ``is_known`` is whether its label is one."""
        label = example.label
        statement = example.financials
        values: dict[str, Any] = {
            "source": source,
            "ticker": example.ticker,
            "company": example.company,
            "as_of": example.as_of,
            "window": [
                {name: _or_none(value) for name, value in vars(bar).items()}
                for bar in example.window
            ],
            "indicators": dict(example.indicators),
            "statistics": {
                **vars(example.statistics),
                "lags": None
                if example.statistics.lags is None
                else [lag._asdict() for lag in example.statistics.lags],
            },
            "sigma20": example.sigma20,
            "horizon": example.horizon,
            "outcome": {"percent": label.percent, "day": example.outcome_day} if is_known else None,
            # No prompt shows more of one.
            "headlines": [
                {"text": told.text[:1000], "known_at": told.known_at} for told in example.headlines
            ],
            "financials": None
            if statement is None
            else {
                "fiscal_year_end": statement.fiscal_year_end,
                "known_at": statement.known_at,
                "values": {name: _or_none(value) for name, value in statement.values.items()},
            },
            "market_up_share": example.market_up_share,
        }
        return cls.model_validate(values)

    def example(self) -> Example:
        """The example; where the outcome is not known its label means nothing."""
        outcome = self.outcome
        percent = outcome.percent if outcome else math.nan
        steps, statement = self.statistics, self.financials
        return Example(
            ticker=self.ticker,
            company=self.company,
            as_of=self.as_of,
            window=tuple(
                Bar(
                    bar.date,
                    _or_nan(bar.open),
                    _or_nan(bar.high),
                    _or_nan(bar.low),
                    bar.close,
                    _or_nan(bar.volume),
                )
                for bar in self.window
            ),
            indicators=dict(self.indicators),
            statistics=Statistics(
                **steps.model_dump(exclude={"lags"}),
                lags=None
                if steps.lags is None
                else tuple(Lag(lag.days, lag.correlation) for lag in steps.lags),
            ),
            sigma20=self.sigma20,
            label=Label("DOWN" if percent < 0 else "UP", percent),
            horizon=self.horizon,
            outcome_day=outcome.day if outcome else self.as_of,
            headlines=tuple(Headline(told.text, told.known_at) for told in self.headlines),
            financials=None
            if statement is None
            else Financials(
                statement.fiscal_year_end,
                statement.known_at,
                {name: _or_nan(value) for name, value in statement.values.items()},
            ),
            market_up_share=self.market_up_share,
        )


class Described(_Wire):
    """An example, and what its prompt shows where the person said it."""

    example: WireExample
    style: Style | None


@dataclass(frozen=True)
class Wanted:
    """Which example a person means: a day of a source, or the text of a file."""

    source: str | None = None
    """None: the run's own."""
    ticker: str | None = None
    date: str | None = None
    text: str | None = None
    where: str = "example"
    """What messages call the file that ``text`` was read from."""


class ProbeRequest(_Wire):
    """One question to one or several checkpoints."""

    checkpoints: tuple[Annotated[str, Field(min_length=1, max_length=1000)], ...] = Field(
        min_length=1, max_length=MAX_CHECKPOINTS
    )
    """Names as ``engine.runs.checkpoint_names`` has them."""
    example: WireExample
    style: Style | None = None
    """What the prompt shows; null: what the run's prompts show."""
    samples: int = Field(8, ge=1, le=MAX_SAMPLES)
    temperature: float | None = Field(None, gt=0, le=5)
    """Null: that of the run's rollouts."""
    seed: int = Field(0, ge=0, lt=2**31)
    """The same one gives the same samples; all checkpoints draw with the same random numbers."""

    def payload(self) -> dict[str, Any]:
        """For the socket.

        Raises:
            UserError: it is too large, which only an example typed by hand can be.
        """
        payload = self.model_dump(mode="json")
        if len(json.dumps(payload)) > MAX_BYTES:
            raise UserError(
                f"the question takes more than {MAX_BYTES // 1024} KiB", fix="leave some news out"
            )
        return payload


def read(payload: Mapping[str, Any]) -> ProbeRequest:
    """The request that came over the socket.

    Raises:
        UserError: it is none; one line.
    """
    try:
        return ProbeRequest.model_validate(payload)
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(str(part) for part in first["loc"])
        message = str(first["msg"]).removeprefix("Value error, ")
        raise UserError(one_line(message, 120), where=one_line(f"probe {field}", 80)) from error


def _or_none(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _or_nan(value: float | None) -> float:
    return math.nan if value is None else value

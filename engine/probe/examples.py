"""The example that a person means: a day of a source, or one typed by hand.

A file of ``stonk-tui data show --json`` names a day of a source. One typed by hand is YAML or JSON:

    ticker: ACME
    company: Acme Corp.       # may be left out, as everything below but the prices
    as_of: 2026-11-19         # needed where the prices have no dates
    prices: [101.2, 99.8, …]  # closes, oldest first; or {date, open, high, low, close, volume}
    news: [Acme raises its forecast]
    actual: 1.2               # percent that followed, where it is known
    horizon: 1
    style: compact

As a program (``python -m engine.probe.examples RUN_DIRECTORY``) it reads a ``Wanted`` as JSON from
its standard input and writes the example: market data takes seconds to load, which is no work for
the process that draws a cockpit.
"""

import datetime as dt
import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from engine.config import RunConfig
from engine.errors import UserError
from engine.market import indicators, sources, statistics
from engine.market.calendar import decision_time
from engine.market.dataset import Dataset
from engine.market.example import Bar, Example, Headline, Label
from engine.market.history import History
from engine.market.lookup import find_example
from engine.probe.request import Described, Price, Style, Wanted, WireExample
from engine.runs.directory import RunDirectory
from engine.text import one_line

MAX_FILE_BYTES = 256 * 1024
_MAX_PRICES = 2000
_VOLATILITY_RETURNS = 20


def build(wanted: Wanted, config: RunConfig) -> tuple[WireExample, Style | None]:
    """The example, made as the run that ``config`` describes would make it, and its style.

    Raises:
        UserError: no such source, ticker or day, or a fault of the text with file, line, field.
    """
    if wanted.text is not None:
        return _from_text(wanted.text, wanted.where, config)
    if wanted.ticker is None or wanted.date is None:
        raise UserError(
            "no example to ask about", fix="give a ticker and a date, or a file with an example"
        )
    source = wanted.source or config.data.source
    return from_source(config, source, wanted.ticker, wanted.date), None


def from_source(
    config: RunConfig, source: str, ticker: str, date: str, horizon: int | None = None
) -> WireExample:
    """The example of a ticker and day, its outcome where it is known.

    Raises:
        UserError: no such source, ticker or day.
    """
    horizon = horizon or config.data.horizon
    data = config.data.model_copy(
        update={
            "source": source,
            "horizon": horizon,
            "embargo": max(config.data.embargo, horizon),
        }
    )
    dataset = Dataset.configured(sources.load(source).histories, data)
    example = find_example(dataset, ticker, date, labelled=False)
    is_known = bool(np.isfinite(example.label.percent))
    return WireExample.of(example, source=sources.absolute(source), is_known=is_known)


# ---------------------------------------------------------------------------
# Files


class _Typed(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class TypedBar(_Typed):
    """One trading day; a plain number is its close."""

    close: Price
    date: dt.date | None = None
    open: Price | None = None
    high: Price | None = None
    low: Price | None = None
    volume: float | None = Field(None, ge=0, le=1e15)

    @model_validator(mode="before")
    @classmethod
    def _close_alone(cls, value: Any) -> Any:
        if isinstance(value, int | float) and not isinstance(value, bool):
            return {"close": value}
        if not isinstance(value, dict):
            raise ValueError("a price is a number, or a mapping with a close")
        return value


class TypedExample(_Typed):
    """An example typed by hand, see the module."""

    ticker: str = Field(pattern=r"^[A-Za-z0-9._-]{1,16}$")
    prices: tuple[TypedBar, ...] = Field(max_length=_MAX_PRICES)
    company: str = Field("", max_length=100)
    as_of: dt.date | None = None
    news: tuple[str, ...] = Field((), max_length=40)
    actual: float | None = Field(None, gt=-100, lt=1000)
    horizon: int = Field(1, ge=1, le=10)
    style: Style | None = None

    @field_validator("actual")
    @classmethod
    def _has_a_side(cls, value: float | None) -> float | None:
        if value == 0:
            raise ValueError("a move of exactly 0 is neither UP nor DOWN")
        return value


class Shown(BaseModel):
    """What ``data show --json`` wrote, as far as it says which example it was."""

    model_config = ConfigDict(frozen=True)

    source: str = Field(max_length=400)
    ticker: str = Field(max_length=16)
    as_of: dt.date
    style: Style
    horizon: int = Field(ge=1, le=10)

    @classmethod
    def is_in(cls, values: dict[str, Any]) -> bool:
        """Whether ``values`` are one of these and not typed by hand."""
        return "source" in values and "prices" not in values


@dataclass(frozen=True)
class _Text:
    """Where something stands in a text, for messages."""

    where: str
    node: yaml.Node | None

    def place(self, keys: Sequence[str | int]) -> str:
        """``file:line:field`` of the deepest of ``keys`` that is there."""
        node, line = self.node, 1
        for key in keys:
            below = _below(node, key)
            if below is None:
                break
            line, node = below
        field = ".".join(str(key) for key in keys)
        return f"{self.where}:{line}:{field}" if field else f"{self.where}:{line}"


def _from_text(text: str, where: str, config: RunConfig) -> tuple[WireExample, Style | None]:
    values, places = _parsed(text, where)
    try:
        if Shown.is_in(values):
            shown = Shown.model_validate(values)
            wire = from_source(
                config, shown.source, shown.ticker, shown.as_of.isoformat(), shown.horizon
            )
            return wire, shown.style
        typed = TypedExample.model_validate(values)
    except ValidationError as error:
        first = error.errors()[0]
        message = str(first["msg"]).removeprefix("Value error, ")
        given = first.get("input")
        is_plain = isinstance(given, str | int | float)
        raise UserError(
            f"{message[:1].lower()}{message[1:]}"
            + (f", not {one_line(str(given), 40)!r}" if is_plain else ""),
            where=places.place(first["loc"]),
            fix="see docs/probe.md for the format",
        ) from error
    return _typed(typed, places, config), typed.style


def _parsed(text: str, where: str) -> tuple[dict[str, Any], _Text]:
    where = one_line(where)
    if len(text.encode("utf-8", "replace")) > MAX_FILE_BYTES:
        raise UserError(f"more than {MAX_FILE_BYTES // 1024} KiB is no example", where=where)
    try:
        node = yaml.compose(text, Loader=yaml.SafeLoader)
        values = yaml.safe_load(text)
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise UserError(
            f"neither YAML nor JSON: {one_line(str(error.problem), 80)}", where=f"{where}:{line}"
        ) from error
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        raise UserError("neither YAML nor JSON", where=where) from error
    if not isinstance(values, dict):
        raise UserError(
            "an example is a mapping with a ticker and prices",
            where=f"{where}:1",
            fix="see docs/probe.md for the format",
        )
    return {str(key): value for key, value in values.items()}, _Text(where, node)


def _typed(typed: TypedExample, places: _Text, config: RunConfig) -> WireExample:
    """The example of what was typed.

    Raises:
        UserError: dates that are missing or out of order, or too few prices.
    """
    window = config.data.window
    if len(typed.prices) < window:
        raise UserError(
            f"{len(typed.prices)} prices, and this run's prompts show {window} days",
            where=places.place(("prices",)),
            fix=f"give {max(window, _VOLATILITY_RETURNS + 1)} or more",
        )
    for at, bar in enumerate(typed.prices):
        if bar.high is not None and bar.low is not None and bar.high < bar.low:
            raise UserError("high below low", where=places.place(("prices", at, "high")))
    days = _days(typed, places)
    history = History(
        ticker=typed.ticker,
        company=typed.company or typed.ticker,
        days=np.array(days, dtype="datetime64[D]"),
        open=_column(typed, "open"),
        high=_column(typed, "high"),
        low=_column(typed, "low"),
        close=_column(typed, "close"),
        volume=_column(typed, "volume"),
        adjusted=_column(typed, "close"),
        split_ratio=np.ones(len(days)),
    )
    last = len(days) - 1
    known = {name: float(values[last]) for name, values in indicators.compute(history).items()}
    sigma20 = known.pop("sigma20")
    if not np.isfinite(sigma20):
        # Fewer than 20 returns: the volatility of those there are.
        sigma20 = float(indicators.volatility(history.close, last)[last])
    as_of = days[last]
    percent = typed.actual if typed.actual is not None else float("nan")
    example = Example(
        ticker=typed.ticker,
        company=history.company,
        as_of=as_of,
        window=tuple(_bar(history, at) for at in range(len(days)))[-window:],
        indicators={name: value for name, value in known.items() if np.isfinite(value)},
        statistics=statistics.describe(history.close, np.array([last]), window, np.array([1.0]))[0],
        sigma20=sigma20,
        label=Label("DOWN" if percent < 0 else "UP", percent),
        horizon=typed.horizon,
        outcome_day=_weekdays_from(as_of, typed.horizon),
        headlines=tuple(Headline(text[:1000], decision_time(as_of)) for text in typed.news),
    )
    return WireExample.of(example, source=None, is_known=typed.actual is not None)


def _bar(history: History, at: int) -> Bar:
    columns = (history.open, history.high, history.low, history.close, history.volume)
    return Bar(history.days[at].item(), *[float(column[at]) for column in columns])


def _days(typed: TypedExample, places: _Text) -> list[dt.date]:
    """One day for each price; weekdays up to ``as_of`` where the prices have none."""
    stated = [bar.date for bar in typed.prices]
    if not any(stated):
        if typed.as_of is None:
            raise UserError(
                "no date: neither the prices nor the example has one",
                where=places.place(("prices",)),
                fix="add as_of: YYYY-MM-DD",
            )
        return [_weekdays_from(typed.as_of, -back) for back in range(len(stated))][::-1]
    days: list[dt.date] = []
    for at, day in enumerate(stated):
        if day is None:
            raise UserError(
                "this price has no date, and others have", where=places.place(("prices", at))
            )
        if days and day <= days[-1]:
            raise UserError(
                f"{day} does not come after {days[-1]}",
                where=places.place(("prices", at, "date")),
                fix="put the oldest first",
            )
        days.append(day)
    if typed.as_of is not None and typed.as_of != days[-1]:
        raise UserError(
            f"the last price is of {days[-1]}",
            where=places.place(("as_of",)),
            fix="leave as_of out, or end the prices on that day",
        )
    return days


def _weekdays_from(day: dt.date, count: int) -> dt.date:
    """``day`` moved by ``count`` weekdays, back where it is negative."""
    step = dt.timedelta(days=1 if count > 0 else -1)
    for _ in range(abs(count)):
        day += step
        while day.weekday() >= 5:
            day += step
    return day


def _column(typed: TypedExample, name: str) -> "np.ndarray[Any, np.dtype[np.float64]]":
    values = [getattr(bar, name) for bar in typed.prices]
    return np.array([float("nan") if value is None else value for value in values], np.float64)


def _below(node: yaml.Node | None, key: str | int) -> tuple[int, yaml.Node] | None:
    """Line (from 1) and node of what stands under ``key`` in ``node``."""
    if isinstance(node, yaml.MappingNode):
        for key_node, value_node in node.value:
            if key_node.value == str(key):
                return key_node.start_mark.line + 1, value_node
    if isinstance(node, yaml.SequenceNode) and isinstance(key, int) and key < len(node.value):
        item: yaml.Node = node.value[key]
        return item.start_mark.line + 1, item
    return None


def main(run: Path) -> int:
    """Read a ``Wanted`` from standard input and write the example; the exit code."""
    try:
        wanted = Wanted(**json.loads(sys.stdin.read()))
        example, style = build(wanted, RunDirectory(run).config())
    except UserError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    print(Described(example=example, style=style).model_dump_json())
    return 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))

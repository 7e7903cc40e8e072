"""``score``: one completion under the rewards, every number with its reason."""

import io
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from engine.config import RewardConfig
from engine.errors import UserError
from engine.market.lookup import find_example
from engine.text import one_line
from stonk_tui.commands.data import load_dataset
from stonk_tui.commands.output import say, say_json

if TYPE_CHECKING:
    from engine.market.example import Example
    from engine.market.prompts import Style
    from engine.rewards.schemes import Scheme
    from engine.task import Assessment

_WIDTH = 80
_STYLES = ("full", "compact", "brief", "masked")


class Place(NamedTuple):
    """Which example is meant, by the options of the command line."""

    source: str | None
    ticker: str | None
    date: str | None
    style: "Style | None"
    horizon: int | None


def print_score(
    completion: str,
    *,
    example: Path | None,
    place: Place,
    scheme: str,
    components: Sequence[str],
    allow_code: bool,
    as_json: bool,
) -> None:
    """Score what ``completion``, a file or ``-``, holds.

    Raises:
        UserError: no such example, completion or scheme, or a component that may not run.
        RunFailedError: a component of the user's own failed.
    """
    from engine.market.prompts import compose
    from engine.rewards import choice
    from engine.rewards.schemes import assess

    reward = choice.resolve(
        choice.freeze(
            RewardConfig(scheme=scheme, components=tuple(components)), allow_code=allow_code
        )
    )
    messages = None
    if example is not None:
        if place != Place(None, None, None, None, None):
            raise UserError(
                "an example file says source, day, style and horizon itself",
                where="--example",
                fix="give the file or the options, not both",
            )
        place, messages = _from_file(example)
    if place.source is None or place.ticker is None or place.date is None:
        raise UserError(
            "no example to score against", fix="give --example, or --source, --ticker and --date"
        )
    text = _completion(completion)
    _, dataset = load_dataset(place.source, place.horizon or 1)
    found = find_example(dataset, place.ticker, place.date)
    style = place.style or "compact"
    prompt = compose(found, style=style)
    if messages is not None and messages != [dict(message) for message in prompt.messages]:
        raise UserError(
            f"{one_line(place.source)} gives another prompt for this day than the file has",
            where=one_line(str(example)),
            fix="make the file again with `stonk-tui data show --json`",
        )
    assessment = assess(found, prompt, text, *reward)
    scored = _scored(place.source, style, found, reward.scheme, assessment, text)
    if as_json:
        say_json(scored)
    else:
        say(_text(scored))


def _from_file(path: Path) -> tuple[Place, Any]:
    """Which example a file of ``data show --json`` is, and the messages that it had."""
    where = one_line(str(path))
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"cannot read the example: {error.strerror}", where=where) from error
    except (ValueError, RecursionError) as error:
        raise UserError("the example is not JSON", where=where) from error
    keys = {"source": str, "ticker": str, "as_of": str, "style": str, "horizon": int}
    for key, kind in keys.items():
        if not isinstance(values, dict) or not isinstance(values.get(key), kind):
            raise UserError(
                f"the example has no {key}",
                where=where,
                fix="write it with `stonk-tui data show --json`",
            )
    if values["style"] not in _STYLES or not 1 <= values["horizon"] <= 10:
        raise UserError("there is no such style or horizon", where=where)
    place = Place(*(values[key] for key in keys))
    return place, values.get("messages")


def _completion(name: str) -> str:
    try:
        data = sys.stdin.buffer.read() if name == "-" else Path(name).read_bytes()
        return data.decode("utf-8")
    except OSError as error:
        raise UserError(
            f"cannot read the completion: {error.strerror}", where=one_line(name)
        ) from error
    except UnicodeDecodeError as error:
        raise UserError("the completion is not UTF-8 text", where=one_line(name)) from error


def _scored(
    source: str,
    style: str,
    example: "Example",
    scheme: "Scheme",
    assessment: "Assessment",
    completion: str,
) -> dict[str, Any]:
    return {
        "source": source,
        "ticker": example.ticker,
        "as_of": example.as_of.isoformat(),
        "style": style,
        "horizon": example.horizon,
        "label": {
            "direction": example.label.direction,
            "percent": example.label.percent,
            "outcome_day": example.outcome_day.isoformat(),
        },
        "scheme": scheme.name,
        "prediction": dict(assessment.prediction),
        "components": [
            {
                "name": component.name,
                "value": component.value,
                "weight": component.weight,
                "contribution": component.contribution,
                "reason": component.reason,
            }
            for component in assessment.components
        ],
        "reward": assessment.reward,
        "rubric": dict(assessment.rubric),
        "cited": [
            {"start": start, "end": end, "text": completion[start:end]}
            for start, end in assessment.cited
        ],
    }


def _text(scored: dict[str, Any]) -> str:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    label, rubric = scored["label"], scored["rubric"]
    lines = [
        f"{one_line(scored['ticker'])} on {scored['as_of']} went {label['direction']}"
        f" {label['percent']:+.2f}% by {label['outcome_day']}",
        f"read: {_read(scored['prediction'])}",
        "",
    ]
    table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False)
    table.add_column("COMPONENT", overflow="fold", max_width=24)
    for heading in ("VALUE", "WEIGHT", "ADDS"):
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("WHY", overflow="fold")
    for component in scored["components"]:
        numbers = (
            f"{component['value']:+.3f}",
            f"{component['weight']:.2f}",
            f"{component['contribution']:+.3f}",
        )
        table.add_row(
            Text(one_line(component["name"])), *numbers, Text(one_line(component["reason"]))
        )
    table.add_row("reward", "", "", f"{scored['reward']:+.3f}", f"scheme {scored['scheme']}")
    drawn = io.StringIO()
    Console(file=drawn, width=_WIDTH, color_system=None, force_terminal=False).print(table)
    lines += [line.rstrip() for line in drawn.getvalue().splitlines()]
    lines += [
        "",
        f"rubric view: {rubric['total']:.3f} of 1 = prediction {rubric['prediction']:.3f} of 0.6"
        f" + reasoning {rubric['reasoning']:.3f} of 0.4",
    ]
    return "\n".join(lines)


def _read(prediction: dict[str, Any]) -> str:
    if prediction["error"]:
        return f"nothing, {one_line(prediction['error'])}"
    percent, confidence = prediction["percent"], prediction["confidence"]
    return ", ".join(
        [
            prediction["direction"],
            "no percent" if percent is None else f"{percent:g}%",
            "no confidence" if confidence is None else f"confidence {confidence:.0%}",
        ]
    )

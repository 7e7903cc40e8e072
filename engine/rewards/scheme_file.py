"""A scheme of the user's own, in YAML::

    weights:
      direction: 0.5
      confidence: 0.3
      data_use: 0.2
    thresholds:
      min_words: 30

A component that is left out has weight 0, a threshold that is left out its default.
"""

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Annotated, Any

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from engine.config import line_of
from engine.errors import UserError
from engine.rewards.components import COMPONENTS, DEFAULTS, Thresholds
from engine.rewards.schemes import Scheme
from engine.text import one_line

_LARGEST_FILE = 1 << 20


class _Content(BaseModel):
    model_config = ConfigDict(extra="forbid")

    weights: dict[str, Annotated[float, Field(ge=0, le=100)]]
    thresholds: Thresholds = DEFAULTS


def load(path: Path, custom: Sequence[str] = ()) -> Scheme:
    """The scheme in a file.

    Args:
        custom: names of the user's own components, which the file may weigh too.

    Raises:
        UserError: unreadable file, bad YAML, unknown key or value out of range; the message
            names file, line and key.
    """
    where = one_line(str(path))
    try:
        with path.open("rb") as file:
            text = file.read(_LARGEST_FILE).decode("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "is not UTF-8 text"
        raise UserError(f"cannot read the scheme: {reason}", where=where) from error
    try:
        node = yaml.compose(text, Loader=yaml.SafeLoader)
        values = yaml.safe_load(text)
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise UserError(f"not valid YAML: {error.problem}", where=f"{where}:{line}") from error
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        raise UserError(f"not valid YAML: {one_line(str(error))}", where=where) from error
    return build(path.stem, values, custom, where=where, node=node)


def build(
    name: str,
    values: Any,
    custom: Sequence[str] = (),
    *,
    where: str,
    node: yaml.Node | None = None,
) -> Scheme:
    """The scheme that ``values`` (``weights`` and ``thresholds``) describe.

    Raises:
        UserError: with the line of ``node`` where it holds the offending key.
    """
    known = (*COMPONENTS, *custom)

    def place(keys: Sequence[str]) -> str:
        line = line_of(node, tuple(keys))
        dotted = ".".join(one_line(key, 40) for key in keys)
        return ":".join([where, *([str(line)] if line else []), *([dotted] if dotted else [])])

    if not isinstance(values, dict):
        raise UserError("a scheme is a mapping with the key `weights`", where=f"{where}:1")
    try:
        content = _Content.model_validate(values)
    except ValidationError as error:
        # A key with a slip of the pen is missing under its right name as well.
        unknown = [one for one in error.errors() if one["type"] == "extra_forbidden"]
        first = (unknown or error.errors())[0]
        keys = [str(key) for key in first["loc"]]
        raise UserError(_explained(first, keys), where=place(keys)) from error
    for component in content.weights:
        if component not in known:
            raise UserError(
                f"no component called {one_line(component, 40)!r}; {_near(component, known)}",
                where=place(["weights", component]),
            )
    if not any(content.weights.values()):
        raise UserError("every weight is 0", where=place(["weights"]))
    weights = {component: content.weights.get(component, 0.0) for component in known}
    return Scheme(one_line(name, 40), weights, content.thresholds)


def _explained(error: Mapping[str, Any], keys: Sequence[str]) -> str:
    if error["type"] in ("extra_forbidden", "unexpected_keyword_argument"):
        inside = keys[:-1] == ["thresholds"]
        known = [f.name for f in fields(Thresholds)] if inside else list(_Content.model_fields)
        return f"unknown key {one_line(keys[-1], 40)!r}; {_near(keys[-1], known)}"
    message = str(error["msg"]).removeprefix("Value error, ")
    if error["type"] == "missing":
        return "field required"
    given = one_line(str(error.get("input")), 60)
    return f"{message[:1].lower()}{message[1:]}, not {given!r}"


def _near(name: str, known: Sequence[str]) -> str:
    near = difflib.get_close_matches(name, known, n=1)
    return f"did you mean {near[0]}?" if near else f"known: {', '.join(known)}"

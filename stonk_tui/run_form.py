"""The settings of a new run as text and as fields, kept in step. Pure functions.

The YAML text is the truth. A field reads its value out of the text and writes it back in its
place, so that comments and order survive; what is wrong is found by the engine's own check of
the whole text, and named by line and key.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import yaml

from engine import config as configuration
from engine.config import RunConfig
from engine.errors import UserError
from engine.presets import PRESETS
from engine.runs import stage1
from engine.text import one_line


@dataclass(frozen=True)
class Field:
    """One setting that the form shows by itself."""

    key: str
    """Dotted name in the configuration."""
    label: str
    choices: tuple[str, ...] = ()
    """All values that there are; empty for one that is typed."""
    is_text: bool = False
    """Its value is a text, also where it looks like a number."""
    empty: str = ""
    """What leaving it empty means."""


FIELDS = (
    Field("name", "name", is_text=True),
    Field("stage", "stage", ("I", "II")),
    Field("model.id", "model", is_text=True),
    Field("data.source", "source", is_text=True),
    Field("model.quantize", "quantize", ("auto", "nf4", "none")),
    Field("model.device", "device", is_text=True),
    Field("schedule.max_steps", "steps", empty="epochs decide"),
    Field("seed", "seed"),
    Field("rollout.prompts_per_step", "prompts/step"),
    Field("rollout.group_size", "group size"),
    Field("rollout.max_new_tokens", "new tokens"),
    Field("optimizer.learning_rate", "learning rate"),
    Field("objective.kl_coefficient", "KL coefficient"),
    Field("schedule.eval_every", "validate every"),
)
BY_KEY = {field.key: field for field in FIELDS}
PRESET_NAMES = tuple(PRESETS)

_PLACE = re.compile(r"yaml(?::(\d+))?(?::([A-Za-z_][\w.]*))?")
_SHORT_EXPONENT = re.compile(r"\.0(?=e[+-]?\d)")


@dataclass(frozen=True)
class Checked:
    """What the engine says about a text."""

    config: RunConfig | None = None
    """None where something is wrong."""
    problem: str = ""
    line: int | None = None
    key: str = ""
    """Dotted name of the setting that is wrong, as far as one is."""

    @property
    def in_words(self) -> str:
        """``line 12, schedule.max_steps: …``"""
        places = [f"line {self.line}"] if self.line else []
        places += [self.key] if self.key else []
        return f"{', '.join(places)}: {self.problem}" if places else self.problem


def preset_text(name: str) -> str:
    """The preset called ``name`` with every setting, as YAML."""
    values = configuration.preset(name).model_dump()
    # Filled in by the program when the run is made.
    del values["reward"]["frozen"]
    # Tuples are no YAML of their own.
    return yaml.safe_dump(_plain(values), sort_keys=False)


def check(text: str) -> Checked:
    """Judge ``text`` as a run's configuration."""
    try:
        stage = _node(_compose(text), ["stage"])
        # Said first: what else such a text may lack is no matter.
        if isinstance(stage, yaml.ScalarNode) and stage.value == "II":
            raise stage1.needs_promotion()
        config = configuration.parse(text, where="yaml")
        if config.stage == "II":
            raise stage1.needs_promotion()
    except UserError as error:
        place = _PLACE.fullmatch(error.where or "")
        number = int(place[1]) if place and place[1] else None
        key = (place[2] or "") if place else (error.where or "")
        fix = f"; {error.fix}" if error.fix else ""
        return Checked(problem=one_line(f"{error.what}{fix}", 300), line=number, key=key)
    return Checked(config=config)


def values(text: str, config: RunConfig | None) -> dict[str, str]:
    """What the fields show of ``text``, by key, as it is written.

    A setting that the text leaves out is ``config``'s; one that is not known either is left out.
    """
    root = _compose(text)
    flat = _flat(config.model_dump()) if config is not None else {}
    found = {}
    for field in FIELDS:
        node = _node(root, field.key.split("."))
        if isinstance(node, yaml.ScalarNode):
            found[field.key] = "" if node.tag.endswith(":null") else _tidy(node.value)
        elif node is None and field.key in flat:
            value = flat[field.key]
            found[field.key] = "" if value is None else _tidy(str(value))
    return found


def set_value(text: str, key: str, typed: str) -> str:
    """``text`` with the setting ``key`` as ``typed``; the rest of it stays as it is written.

    Text that is no YAML stays as it is: there is no place in it to write to.
    """
    root = _compose(text)
    if root is not None and not isinstance(root, yaml.MappingNode):
        return text
    if root is None and not _is_blank(text):
        return text
    keys = key.split(".")
    written = _scalar(typed, is_text=BY_KEY[key].is_text)
    node = _node(root, keys)
    if isinstance(node, yaml.ScalarNode):
        start, end = node.start_mark.index, node.end_mark.index
        space = " " if start == end and not text[:start].endswith(" ") else ""
        return f"{text[:start]}{space}{written}{text[end:]}"
    if len(keys) == 2 and isinstance(section := _node(root, keys[:1]), yaml.MappingNode):
        if section.flow_style or not section.value:
            return _rewritten(text, keys, typed)
        first = section.value[0][0].start_mark
        line = f"{keys[1]}: {written}\n{' ' * first.column}"
        return f"{text[: first.index]}{line}{text[first.index :]}"
    if node is not None or (root is not None and root.flow_style):
        return _rewritten(text, keys, typed)
    if _node(root, keys[:1]) is not None:
        return _rewritten(text, keys, typed)
    body = text if not text or text.endswith("\n") else f"{text}\n"
    return body + (
        f"{key}: {written}\n" if len(keys) == 1 else f"{keys[0]}:\n  {keys[1]}: {written}\n"
    )


def line_of(text: str, key: str) -> int | None:
    """Line of the text, from 1, at which the setting ``key`` or its section stands."""
    return configuration.line_of(_compose(text), tuple(key.split(".")))


def _rewritten(text: str, keys: list[str], typed: str) -> str:
    """The whole text written anew: for a shape into which no line can be put."""
    try:
        values = yaml.safe_load(text) or {}
        value = typed if BY_KEY[".".join(keys)].is_text else yaml.safe_load(_scalar(typed))
    except (yaml.YAMLError, ValueError, RecursionError):
        return text
    below = values
    for key in keys[:-1]:
        if not isinstance(below.get(key), dict):
            below[key] = {}
        below = below[key]
    below[keys[-1]] = value
    return yaml.safe_dump(values, sort_keys=False)


def _scalar(typed: str, *, is_text: bool = False) -> str:
    """``typed`` as one YAML scalar on one line, quoted where it has to be."""
    stripped = typed.strip()
    if not stripped:
        return "''" if is_text else "null"
    plain = re.fullmatch(r"[A-Za-z0-9+.][\w+./~-]*", stripped)
    if plain and not (is_text and _resolves_to_other_than_text(stripped)):
        return stripped
    # A document of one scalar; a width that no line reaches keeps it on one.
    quoted = yaml.safe_dump(stripped, default_style='"', width=10**6, allow_unicode=True)
    return quoted.removesuffix("\n")


def _resolves_to_other_than_text(plain: str) -> bool:
    try:
        return not isinstance(yaml.safe_load(plain), str)
    except (yaml.YAMLError, ValueError):
        return True


def _compose(text: str) -> yaml.Node | None:
    try:
        return yaml.compose(text, Loader=yaml.SafeLoader)
    except (yaml.YAMLError, RecursionError, ValueError):
        return None


def _is_blank(text: str) -> bool:
    return all(not line.strip() or line.lstrip().startswith("#") for line in text.splitlines())


def _node(node: yaml.Node | None, keys: list[str]) -> yaml.Node | None:
    """The value at ``keys``; of a key that stands twice the last, as it is loaded."""
    for key in keys:
        if not isinstance(node, yaml.MappingNode):
            return None
        found = [value for name, value in node.value if name.value == key]
        node = found[-1] if found else None
    return node


def _tidy(written: str) -> str:
    """``1.0e-05`` as ``1e-05``."""
    return _SHORT_EXPONENT.sub("", written)


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, tuple) else value


def _flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, Mapping):
            flat |= _flat(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value
    return flat

"""Settings that may change while a run trains: which, within what, and what is in force.

``run.yaml`` stays what the run was started with. A change is a ``settings`` event at the step after
which it was made, so the settings in force at a step are those of the start with the changes up
to that step on top: for whoever shows them, and for a worker that resumes from a checkpoint.
"""

import difflib
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from engine import config as configuration
from engine.config import RunConfig
from engine.errors import UserError
from engine.runs.directory import RunDirectory
from engine.runs.reader import Event, StoreReader
from engine.text import one_line

Value = int | float | None
"""Of a setting; None is ``never``."""

LEARNING_RATE = "optimizer.learning_rate"
_NEVER = "never"
_MOST_CHANGES = 32
_LONGEST_NAME = 64


@dataclass(frozen=True)
class Setting:
    """One setting that may change between two steps."""

    name: str
    """Dotted, as ``--set`` takes it."""
    label: str
    short: str
    """For a mark in a chart."""
    meaning: str
    """What a change does, in a sentence."""

    @property
    def key(self) -> str:
        """The name without its section, which is enough to type."""
        return self.name.partition(".")[2]

    @property
    def allowed(self) -> str:
        """The values that it may have, in words."""
        section, key = self.name.split(".")
        field = type(getattr(RunConfig(), section)).model_fields[key]
        kinds = str(field.annotation)
        words = ["whole"] if "int" in kinds else []
        forms = {"gt": "above {:g}", "ge": "{:g} or more", "le": "at most {:g}"}
        for bound, form in forms.items():
            words += [
                form.format(limit)
                for part in field.metadata
                if (limit := getattr(part, bound, None)) is not None
            ]
        return ", ".join(words) + (f", or {_NEVER}" if "None" in kinds else "")

    def of(self, config: RunConfig) -> Value:
        """Its value in ``config``."""
        section, key = self.name.split(".")
        value: Value = getattr(getattr(config, section), key)
        return value


SETTINGS = (
    Setting(
        LEARNING_RATE,
        "learning rate",
        "lr",
        "Peak rate of the optimiser from the next step on; one that is still rising rises to it.",
    ),
    Setting(
        "objective.kl_coefficient",
        "KL coefficient",
        "KL",
        "Pull towards the reference policy; above 0 each step needs a reference pass, and losses "
        "before and after a change do not compare.",
    ),
    Setting(
        "rollout.temperature",
        "temperature",
        "temp",
        "Of sampling and loss alike, from the next rollouts on; validation stays at the one of "
        "the start, so that its figures compare.",
    ),
    Setting(
        "optimizer.max_grad_norm",
        "gradient limit",
        "grad",
        "Gradients are scaled down to this norm from the next update on.",
    ),
    Setting(
        "schedule.eval_every",
        "validate every",
        "eval",
        "Steps between validations; the next is at the next multiple of it.",
    ),
    Setting(
        "schedule.save_every",
        "save every",
        "save",
        "Steps between checkpoints; the next is at the next multiple of it.",
    ),
    Setting(
        "schedule.patience",
        "patience",
        "pat.",
        "The run ends once so many validations in a row brought no better reward; those that were "
        "in vain already count.",
    ),
)
BY_NAME = {setting.name: setting for setting in SETTINGS}


@dataclass(frozen=True)
class Change:
    """One setting, before and after."""

    name: str
    old: Value
    new: Value

    def __str__(self) -> str:
        return f"{label(self.name)} {written(self.old)} → {written(self.new)}"


@dataclass(frozen=True)
class Changed:
    """A change that was made."""

    change: Change
    step: int
    """It is in force from the step after this one on."""
    time: float
    by: str
    """``user``, or ``rollback`` where training went back after a divergence."""


def written(value: object) -> str:
    """A value as people type it: ``5e-5``, ``0.02``, ``10``, ``never``."""
    if value is None:
        return _NEVER
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return one_line(str(value), 40)
    if 0 < abs(value) < 1e-3 or abs(value) >= 1e6:
        mantissa, _, exponent = f"{value:.5e}".partition("e")
        if exponent:
            return f"{mantissa.rstrip('0').rstrip('.')}e{int(exponent)}"
    return f"{value:.6g}"


def label(name: str) -> str:
    """What a person calls the setting; the name itself of one that is not known here."""
    return BY_NAME[name].label if name in BY_NAME else one_line(name, 40)


def shape_problem(payload: Mapping[str, Any]) -> str:
    """What is wrong with the payload of a ``set`` command, before any value is looked at.

    A payload is ``{"changes": {name: number or null}}``.
    """
    changes = payload.get("changes")
    if set(payload) != {"changes"} or not isinstance(changes, dict) or not changes:
        return 'expected {"changes": {name: value}}'
    if len(changes) > _MOST_CHANGES or any(len(name) > _LONGEST_NAME for name in changes):
        return "too much"
    for name, value in changes.items():
        if value is not None and not _is_number(value):
            return f"{one_line(name, 40)} needs a number, or null for never"
    return ""


def parse(texts: Sequence[str]) -> dict[str, Value]:
    """``key=value`` as people type it → the changes of a ``set`` command.

    Raises:
        UserError: no such setting, one that cannot change, or no number.
    """
    wanted: dict[str, Value] = {}
    for text in texts:
        key, equals, value = text.partition("=")
        if not equals:
            raise UserError(
                f"{one_line(text, 60)!r} is not KEY=VALUE", fix="write it like learning_rate=5e-5"
            )
        name = find(key.strip()).name
        if name in wanted:
            raise UserError("it is set twice", where=one_line(text, 60))
        wanted[name] = parse_value(value, where=one_line(text, 60))
    return wanted


def find(key: str) -> Setting:
    """The setting called ``key``, with or without its section.

    Raises:
        UserError: it is none, or none that may change.
    """
    for setting in SETTINGS:
        if key in (setting.name, setting.key):
            return setting
    keys = [setting.key for setting in SETTINGS]
    near = difflib.get_close_matches(key.rpartition(".")[2], keys, n=1)
    raise UserError(
        f"{one_line(key, 60)!r} is no setting that can change while a run trains",
        fix=f"did you mean {near[0]}?" if near else f"those are: {', '.join(keys)}",
    )


def parse_value(text: str, *, where: str) -> Value:
    """A number, or ``never``.

    Raises:
        UserError: it is neither.
    """
    text = text.strip()
    if text.lower() in (_NEVER, "null"):
        return None
    for kind in (int, float):
        try:
            number: Value = kind(text)
        except ValueError:
            continue
        if _is_number(number):
            return number
    raise UserError(f"{one_line(text, 40)!r} is no number", where=where)


def plan(config: RunConfig, wanted: Mapping[str, Value]) -> tuple[RunConfig, tuple[Change, ...]]:
    """``config`` with ``wanted`` in force, and what that changes: all of it, or an error.

    Raises:
        UserError: a setting that may not change, or a value that a configuration refuses.
    """
    for name, value in wanted.items():
        setting = find(name)
        try:
            configuration.with_changes(config, _nested({setting.name: value}))
        except UserError as error:
            raise UserError(error.what, where=f"{setting.key}={written(value)}") from error
    changed = in_force(config, {find(name).name: value for name, value in wanted.items()})
    return changed, differences(config, changed)


def differences(before: RunConfig, after: RunConfig) -> tuple[Change, ...]:
    """The settings that do not have the same value in both."""
    return tuple(
        Change(setting.name, setting.of(before), setting.of(after))
        for setting in SETTINGS
        if setting.of(before) != setting.of(after)
    )


def in_force(started: RunConfig, values: Mapping[str, Value]) -> RunConfig:
    """``started`` with ``values`` in place of its own."""
    return configuration.with_changes(started, _nested(values)) if values else started


def made(event: Event) -> list[Changed]:
    """The changes that a ``settings`` event tells of."""
    payload = event.payload
    return [
        Changed(Change(one["name"], one["old"], one["new"]), event.step, event.time, payload["by"])
        for one in payload["changes"]
    ]


def stored(run: RunDirectory) -> list[Changed]:
    """Every change that the run's store tells of, oldest first, superseded ones left out."""
    reader = StoreReader(run.database)
    try:
        return [one for event in reader.events_of("settings") for one in made(event)]
    finally:
        reader.close()


def num_rollbacks(run: RunDirectory) -> int:
    """How often training went back after a divergence, those that were gone back behind too."""
    reader = StoreReader(run.database)
    try:
        ((count,),) = reader.rows(
            "SELECT count(*) FROM events WHERE kind = 'settings'"
            " AND json_extract(payload, '$.by') = 'rollback'"
        )
        return int(count)
    finally:
        reader.close()


def of_command(run: RunDirectory, identifier: str) -> list[Change]:
    """What the ``set`` command with this id changed."""
    reader = StoreReader(run.database)
    try:
        return [
            one.change
            for event in reader.events_of("settings")
            if event.payload.get("command") == identifier
            for one in made(event)
        ]
    finally:
        reader.close()


def newest(changes: Iterable[Changed]) -> dict[str, Value]:
    """The settings that were changed, with the values that they have now."""
    return {one.change.name: one.change.new for one in changes}


def _nested(values: Mapping[str, Value]) -> dict[str, Any]:
    nested: dict[str, Any] = {}
    for name, value in values.items():
        section, _, key = name.partition(".")
        nested.setdefault(section, {})[key] = value
    return nested


def _is_number(value: object) -> bool:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return False
    try:
        return math.isfinite(value)
    except OverflowError:
        return False

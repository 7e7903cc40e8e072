"""What a report says, whatever its file holds: every answer is of the type that it says.

The structure is that of ``engine.evaluation.report``; what is missing, or of another type, is an
empty mapping or tuple, which who shows it shows as unknown.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from engine.runs.checkpoint_names import BASE
from stonk_tui.evaluation_list import Past
from stonk_tui.widgets.figures import known

Values = Mapping[str, Any]
"""Of a JSON object; a *value* has ``value``, ``low``, ``high``, ``n`` and ``why``."""

BASELINES = {
    "always_up": "always UP",
    "always_down": "always DOWN",
    "momentum": "momentum",
    "reversal": "reversal",
    "logistic": "logistic regr.",
    "base_model": "base model",
}


def mapping(value: object) -> Values:
    """``value`` where it is a mapping, else an empty one."""
    return value if isinstance(value, Mapping) else {}


def mappings(value: object) -> tuple[Values, ...]:
    """The mappings in ``value``, where it is a list."""
    return tuple(map(mapping, value)) if isinstance(value, list) else ()


def at(values: object, *path: str) -> object:
    """What stands in nested mappings at ``path``; None where nothing does."""
    for name in path:
        values = mapping(values).get(name)
    return values


@dataclass(frozen=True)
class Baseline:
    """One that a checkpoint is held against."""

    name: str
    label: str
    accuracy: Values
    difference: Values
    """The checkpoint's accuracy less this one's, on the same rows."""


@dataclass(frozen=True)
class Report:
    """Reads the report of one evaluation."""

    past: Past

    @property
    def contents(self) -> Values:
        return self.past.report or {}

    @property
    def context(self) -> Values:
        return self.past.context

    @property
    def labels(self) -> tuple[str, ...]:
        """Names of the checkpoints, those that training made first."""
        measured = mapping(at(self.contents, "summary", "checkpoints"))
        evaluated = [one.get("label") for one in mappings(self.context.get("checkpoints"))]
        names = [*measured, *(name for name in evaluated if isinstance(name, str))]
        return tuple(sorted(dict.fromkeys(names), key=lambda name: name == BASE))

    @property
    def trained(self) -> tuple[str, ...]:
        """Those that training made; the base model where it is alone."""
        return tuple(name for name in self.labels if name != BASE) or self.labels

    @property
    def is_synthetic(self) -> bool:
        """Whether the data are marked as made up."""
        return bool(self.context.get("is_synthetic"))

    @property
    def overlaps(self) -> bool:
        """Whether the days may have been trained on."""
        return bool(self.context.get("overlaps_training"))

    @property
    def marks(self) -> tuple[str, ...]:
        """What every page says first."""
        synthetic = ("synthetic",) if self.is_synthetic else ()
        return (*synthetic, "overlap") if self.overlaps else synthetic

    def of(self, label: str, *path: str) -> object:
        """A figure of one checkpoint."""
        return at(self.contents, "summary", "checkpoints", label, *path)

    def backtest(self, label: str, *path: str) -> object:
        """A figure of a checkpoint's backtest."""
        return at(self.contents, "backtest", "checkpoints", label, *path)

    def word(self, label: str) -> object:
        """The verdict on a checkpoint."""
        return at(self.contents, "verdicts", label, "word")

    def reasons(self, label: str) -> tuple[str, ...]:
        """Why the verdict is what it is."""
        told = at(self.contents, "verdicts", label, "reasons")
        return tuple(map(str, told)) if isinstance(told, list) else ()

    def baselines(self, label: str) -> tuple[Baseline, ...]:
        """What a checkpoint is held against, in the table's order."""
        measured = mapping(self.of(label, "baselines"))
        names = [*(name for name in BASELINES if name in measured)]
        names += [name for name in measured if name not in BASELINES]
        return tuple(
            Baseline(
                name,
                BASELINES.get(name, name),
                mapping(at(measured, name, "accuracy")),
                mapping(at(measured, name, "difference")),
            )
            for name in names
        )

    def best_baseline(self, label: str) -> Baseline | None:
        """The one that is right most often; None where none is measured."""
        measured = [
            (value, -number, one)
            for number, one in enumerate(self.baselines(label))
            if (value := known(one.accuracy.get("value"))) is not None
        ]
        return max(measured, key=lambda item: item[:2])[2] if measured else None

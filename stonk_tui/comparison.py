"""Several runs side by side: their curves, read bounded in memory, and what tells them apart.

``read`` runs in a thread; everything else is pure.
"""

import sqlite3
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from engine.config import RunConfig
from engine.errors import UserError
from engine.evaluation.baselines import SIMPLE
from engine.runs.directory import RunDirectory
from engine.runs.reader import StoreReader
from stonk_tui.widgets import chart
from stonk_tui.widgets.chart import Line, Mark, Picture
from stonk_tui.widgets.figures import known

LOOKS = (
    ("●", "$gold"),
    ("▲", "$up"),
    ("■", "$magnitude"),
    ("◆", "$secondary"),
    ("✚", "$good"),
    ("★", "$down"),
)
"""Glyph and colour of each run in charts and legend; the glyph alone tells them apart."""

_PAGE = 4000
_GLYPHS_PER_CURVE = 5
_MOST_COLUMNS = 500
_STEP = ("reward/total", "kl")
_VALIDATION = (
    "accuracy",
    "accuracy/low",
    "accuracy/high",
    "accuracy/n",
    *(f"baseline/{name}" for name in SIMPLE),
)

Points = tuple[tuple[int, float], ...]


@dataclass(frozen=True)
class Validated:
    """One validation's accuracy, never without its interval, n and baseline."""

    step: int
    accuracy: float
    low: float | None
    high: float | None
    n: float | None
    baseline: float | None


@dataclass(frozen=True)
class Curves:
    """What is compared of one run."""

    last_seq: int = 0
    reward: Points = ()
    kl: Points = ()
    validations: tuple[Validated, ...] = ()
    problem: str = ""

    @property
    def steps(self) -> tuple[int, int]:
        """First and last step; (0, 0) where there is none."""
        steps = [
            point[0] for points in (self.reward, self.kl) for point in points[:1] + points[-1:]
        ]
        steps += [one.step for one in self.validations]
        return (min(steps), max(steps)) if steps else (0, 0)


def read(run: RunDirectory, before: Curves) -> Curves:
    """``before`` with what the store of ``run`` has got since."""
    try:
        reader = StoreReader(run.database)
        try:
            return _read_on(reader, before)
        finally:
            reader.close()
    except FileNotFoundError:
        return Curves()
    except UserError as error:
        return replace(before, problem=error.what)
    except (sqlite3.Error, OSError, ValueError, TypeError) as error:
        return replace(before, problem=f"cannot be read: {error}")


def _read_on(reader: StoreReader, before: Curves) -> Curves:
    _, last = reader.span()
    if last == before.last_seq:
        return replace(before, problem="")
    if reader.of_kind("resumed", before.last_seq + 1, last, 1):
        # Steps were taken back: what was read of them holds no more.
        before = Curves()
    reward, kl = list(before.reward), list(before.kl)
    after = before.last_seq
    while rows := reader.metrics("step", _STEP, after, _PAGE):
        after = rows[-1][0]
        for _, step, values in rows:
            for points, value in zip((reward, kl), map(known, values), strict=True):
                if value is not None:
                    points.append((step, value))
    validations = list(before.validations)
    for _, step, values in reader.metrics("validation", _VALIDATION, before.last_seq, _PAGE):
        accuracy, low, high, count, *baselines = map(known, values)
        if accuracy is not None:
            best = max((one for one in baselines if one is not None), default=None)
            validations.append(Validated(step, accuracy, low, high, count, best))
    return Curves(last, tuple(reward), tuple(kl), tuple(validations))


def value_at(points: Points, step: int) -> float | None:
    """The value at ``step``, or the last one before it."""
    index = bisect_right(points, step, key=lambda point: point[0])
    return points[index - 1][1] if index else None


def validated_at(curves: Curves, step: int) -> Validated | None:
    """The newest validation at ``step`` or before it."""
    return next((one for one in reversed(curves.validations) if one.step <= step), None)


@dataclass(frozen=True)
class Smoothed:
    """The curves of a run without the noise from step to step."""

    reward: Points = ()
    kl: Points = ()


def smooth(curves: Curves) -> Smoothed:
    """Exponential means over about twelve steps."""
    return Smoothed(_smoothed(curves.reward), _smoothed(curves.kl))


def _smoothed(points: Points) -> Points:
    values = chart.smooth([value for _, value in points])
    return tuple(zip((step for step, _ in points), values, strict=True))


def thinned(points: Points) -> Points:
    """No more points than any screen has room for, extremes kept."""
    steps, values = [step for step, _ in points], [value for _, value in points]
    kept_steps, kept_values = chart.decimate(steps, values, _MOST_COLUMNS)
    return tuple(zip(map(int, kept_steps), kept_values, strict=True))


def picture(curves: Sequence[Points], at: int | None, *, empty: str, is_share: bool) -> Picture:
    """All curves in one chart, each with its glyph upon it now and then.

    Args:
        curves: of the runs, in the order of ``LOOKS``.
        at: where the cursor stands; None for none.
        empty: what stands where there is nothing to draw yet.
        is_share: a few measurements of a share, each marked, shown as percent.
    """
    factor = 100.0 if is_share else 1.0
    lines, glyphs = [], []
    for index, (points, (glyph, style)) in enumerate(zip(curves, LOOKS, strict=False)):
        steps, values = [step for step, _ in points], [factor * value for _, value in points]
        marked = range(len(points)) if is_share else _marked(len(points), index, len(curves))
        lines.append(Line(steps, values, style))
        glyphs.append(
            Line([steps[at] for at in marked], [values[at] for at in marked], style, "", glyph)
        )
    marks = () if at is None else (Mark(at, str(at), "$ink"),)
    return Picture(lines=(*lines, *glyphs), marks=marks, empty=empty)


def _marked(count: int, index: int, num_curves: int) -> list[int]:
    """A few places along a curve of ``count`` points, others for each curve, its end included."""
    if count == 0:
        return []
    shift = (index + 1) / (num_curves + 1)
    places = {int((part + shift) / _GLYPHS_PER_CURVE * count) for part in range(_GLYPHS_PER_CURVE)}
    return sorted(place for place in places | {count - 1} if place < count)


@dataclass(frozen=True)
class Difference:
    """A setting that is not the same in all runs that are compared."""

    key: str
    values: tuple[Any, ...]


_NO_MATTER = ("name", "model.device", "reward.frozen")
_OTHER_REWARD = ("reward.", "stage", "data.source", "data.style", "data.horizon")


def differences(configs: Sequence[RunConfig | None]) -> tuple[Difference, ...]:
    """Settings in which the runs differ, in the order of the configuration."""
    flat = [_flat(config.model_dump()) for config in configs if config is not None]
    if len(flat) < 2:
        return ()
    return tuple(
        Difference(key, tuple(values[key] for values in flat))
        for key in flat[0]
        if not key.startswith(_NO_MATTER) and any(values[key] != flat[0][key] for values in flat)
    )


def rewards_differ(found: Sequence[Difference]) -> bool:
    """Whether the same completion could earn different rewards in these runs."""
    return any(one.key.startswith(_OTHER_REWARD) for one in found)


def _flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in values.items():
        name = f"{prefix}{key}"
        # What a scheme stood for is one thing, also where only some runs say it.
        if isinstance(value, Mapping) and name != "reward.frozen":
            flat |= _flat(value, f"{name}.")
        else:
            flat[name] = value
    return flat

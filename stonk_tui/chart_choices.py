"""What a chart can show of a run, and which series belong together.

A figure about predictions never stands alone: its interval and its baselines come with it.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from engine.runs.curves import VALIDATION
from engine.runs.history import History
from engine.text import one_line

REWARD = "reward"
COMPONENTS = "components"
NO_REWARD_LOG = "a reward can be negative, and a log scale shows only what is above 0"

_NAMES = {
    REWARD: "reward/total",
    "accuracy": "accuracy",
    "kl": "kl",
    "entropy": "entropy",
    "loss": "loss",
    "gradient_norm": "gradient_norm",
}
"""The round of what is shown, with the metric of each; the components come after the reward."""
ROUND = (REWARD, COMPONENTS, *(name for name in _NAMES if name != REWARD))
_LABELS = {
    REWARD: "reward",
    "kl": "KL",
    "gradient_norm": "gradient norm",
    "loss": "loss",
}
_NOT_COMPONENTS = ("total", "std")
_BOUNDS = ("low", "high", "n")
_SIMPLE = ("baseline/always_up", "baseline/always_down", "baseline/momentum")
_BASELINES = {"accuracy": _SIMPLE, "confidence/hit_rate": _SIMPLE, "brier": ("brier/base_rate",)}
"""What a metric is measured against."""
_CHANCE = ("accuracy/balanced", "accuracy/up", "accuracy/down", "auc")
"""What a coin gets half of."""


@dataclass(frozen=True)
class Choice:
    """One thing that a chart can show."""

    id: str
    label: str
    metrics: tuple[str, ...]
    """Drawn as curves."""
    bounds: tuple[str, str] | None = None
    """Metrics that are the ends of the interval around the only curve."""
    count: str = ""
    """The metric that says how many predictions it is about."""
    baselines: tuple[str, ...] = ()
    note: str = ""
    """What it is measured against where that is no metric."""
    points: str = ""
    """The metric of validations that is the same measure; drawn as points."""
    point_bounds: tuple[str, ...] = ()
    """Ends of the interval and sample size of the points, in this order."""
    no_log: str = ""
    """Why there is no log scale; empty where there is one."""
    is_magnitude: bool = False
    """On a log scale the size is drawn, without its sign."""

    @property
    def names(self) -> tuple[str, ...]:
        """All metrics that are drawn or told."""
        bounds = self.bounds or ()
        count = (self.count,) if self.count else ()
        points = (self.points,) if self.points else ()
        return (*self.metrics, *bounds, *count, *self.baselines, *points, *self.point_bounds)


def choice(history: History, name: str) -> Choice:
    """What ``name`` stands for in this run: one of ``ROUND``, or any metric."""
    series = history.series
    if name == COMPONENTS:
        return Choice(name, "components", components(history), no_log=NO_REWARD_LOG)
    metric = _NAMES.get(name, name)
    plain = metric.removeprefix(VALIDATION)
    prefix = metric[: len(metric) - len(plain)]
    low, high, count = (_sibling(series, metric, end) for end in _BOUNDS)
    baselines = (f"{prefix}{baseline}" for baseline in _BASELINES.get(plain, ()))
    points = f"{VALIDATION}{metric}"
    point_bounds = tuple(_sibling(series, points, end) for end in _BOUNDS)
    return Choice(
        name,
        _LABELS.get(name) or one_line(metric, 60),
        (metric,),
        bounds=(low, high) if low and high else None,
        count=count,
        baselines=tuple(baseline for baseline in baselines if baseline in series),
        note="a coin gets 0.50" if plain in _CHANCE else "",
        points=points if points in series else "",
        point_bounds=point_bounds if points in series and all(point_bounds) else (),
        no_log=_no_log(history, metric),
        is_magnitude=metric == "loss",
    )


def components(history: History) -> tuple[str, ...]:
    """The metrics that are parts of the reward, in the worker's order."""
    weights = history.facts.get("weights")
    order = list(weights) if isinstance(weights, dict) else []
    measured = [
        name
        for name in history.series
        if name.startswith("reward/") and name.removeprefix("reward/") not in _NOT_COMPONENTS
    ]
    place = {f"reward/{name}": at for at, name in enumerate(order)}
    return tuple(sorted(measured, key=lambda name: place.get(name, len(place))))


def next_of_round(history: History, name: str, direction: int = 1) -> str:
    """What comes after ``name`` among what this run has measured."""
    offered = [item for item in ROUND if has_points(history, choice(history, item))]
    if not offered:
        return name
    if name not in offered:
        return offered[0]
    return offered[(offered.index(name) + direction) % len(offered)]


def metrics(history: History) -> list[str]:
    """Every metric that was measured at training steps or validations, by name."""
    return sorted(name for name in history.series if not name.startswith("warmup/"))


def has_points(history: History, chosen: Choice) -> bool:
    return any(history.series[name].steps for name in chosen.metrics if name in history.series)


def _no_log(history: History, metric: str) -> str:
    plain = metric.removeprefix(VALIDATION)
    if plain.startswith(("reward/", "rubric/")):
        return NO_REWARD_LOG
    if metric == "loss":
        return ""
    series = history.series.get(metric)
    values = series.values if series is not None else ()
    if any(value < 0 for value in values):
        return "it has been negative, and a log scale shows only what is above 0"
    return "" if any(value > 0 for value in values) else "it has never been above 0"


def _sibling(series: Mapping[str, object], metric: str, end: str) -> str:
    """``accuracy/low`` beside ``accuracy``, ``accuracy/up_low`` beside ``accuracy/up``."""
    for name in (f"{metric}/{end}", f"{metric}_{end}"):
        if name in series:
            return name
    return ""

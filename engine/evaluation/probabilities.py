"""How good the stated probabilities and moves are.

Every function takes decisions (``table.decisions``) of one checkpoint with their days' numbers
(``DayBlocks.of``). What is about probabilities is computed on the decisions that state one.
"""

from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from engine.evaluation.day_blocks import DayBlocks, Value, Values, missing, ratio
from engine.evaluation.scores import calibration_error, equal_mass_bins

Blocks = NDArray[np.intp]

LOG_LOSS_CLIP = 0.01
"""Probabilities are taken into [0.01, 0.99] for the log loss: one wrong call at a stated 100 %
would make it infinite."""

_NOTHING_STATED = "no answer states a confidence"
_ONE_OUTCOME = "rows of one outcome only"


def brier(rows: pd.DataFrame, blocks: Blocks, days: DayBlocks) -> dict[str, Value]:
    """Brier score, that of always stating the share of UP, its skill, and what it is made of.

    Murphy 1973: score = reliability - resolution + uncertainty, by bins of equal mass along P(UP)
    (``scores.equal_mass_bins``). Stated probabilities that differ inside a bin add
    ``within_bins``, their variance less twice their covariance with the outcome (Stephenson et al.
    2008, doi 10.1175/2007WAF2006116.1), so that the sum is exact.

    Returns:
        ``score``, ``base_rate`` (= uncertainty), ``skill`` = 1 - score / base rate, and
        ``reliability`` (0 is best), ``resolution`` (larger is better), ``within_bins``.
    """
    names = ("score", "base_rate", "skill", "reliability", "resolution", "within_bins")
    blocks, p_up, up = _stated_up(rows, blocks)
    if not len(blocks):
        return dict.fromkeys(names, missing(0, _NOTHING_STATED))
    ones = np.ones(len(blocks))
    columns = [(p_up - up) ** 2, up, ones]
    in_bin = np.equal.outer(np.unique(bins := equal_mass_bins(p_up)), bins).astype(float)
    by_bin = [*columns, *in_bin, *(in_bin * p_up), *(in_bin * up)]
    return {
        "score": days.value(blocks, [columns[0], ones]),
        "base_rate": days.value(blocks, columns, _uncertainty),
        "skill": days.value(blocks, columns, _skill, undefined=_ONE_OUTCOME),
        "reliability": days.value(blocks, by_bin, _reliability, pivotal=True),
        "resolution": days.value(blocks, by_bin, _resolution, pivotal=True),
        "within_bins": days.value(blocks, by_bin, _within_bins),
    }


def log_loss(rows: pd.DataFrame, blocks: Blocks, days: DayBlocks) -> dict[str, Value]:
    """Mean negative logarithm of the probability of what came, and that of the share of UP.

    Natural logarithm; probabilities are clipped, see ``LOG_LOSS_CLIP``.
    """
    blocks, p_up, up = _stated_up(rows, blocks)
    if not len(blocks):
        return dict.fromkeys(("score", "base_rate"), missing(0, _NOTHING_STATED))
    clipped = np.clip(p_up, LOG_LOSS_CLIP, 1 - LOG_LOSS_CLIP)
    loss = -np.log(np.where(up == 1, clipped, 1 - clipped))
    ones = np.ones(len(blocks))
    return {
        "score": days.value(blocks, [loss, ones]),
        "base_rate": days.value(blocks, [up, ones], _entropy),
    }


def calibration(rows: pd.DataFrame, blocks: Blocks, days: DayBlocks) -> dict[str, Any]:
    """Stated confidence against the share right.

    Returns:
        ``mean`` and ``hit_rate``; ``ece``: ``scores.calibration_error``, its interval with the
        bins of the sample and pivotal, since noise pushes it up; ``ece_by_chance``: of a
        perfectly calibrated caller; ``bins``: of the reliability diagram, each a ``Value`` of the
        share right with the mean ``confidence`` beside it.
    """
    is_stated = rows["confidence"].notna().to_numpy()
    if not is_stated.any():
        nothing = missing(0, _NOTHING_STATED)
        names = ("mean", "hit_rate", "ece", "ece_by_chance")
        return {**dict.fromkeys(names, nothing), "bins": []}
    blocks = blocks[is_stated]
    confidence = rows["confidence"].to_numpy(dtype=float)[is_stated]
    right = rows["right"].to_numpy(dtype=float)[is_stated]
    ones = np.ones(len(blocks))
    bins = equal_mass_bins(confidence)
    numbers = np.unique(bins)
    gaps = np.equal.outer(numbers, bins) * (right - confidence)
    _, by_chance = calibration_error(confidence.tolist(), right.tolist())
    diagram = []
    for number in numbers:
        here = bins == number
        value = days.value(blocks[here], [right[here], ones[here]])
        diagram.append({**value, "confidence": float(confidence[here].mean())})
    return {
        "mean": days.value(blocks, [confidence, ones]),
        "hit_rate": days.value(blocks, [right, ones]),
        "ece": days.value(blocks, [ones, *gaps], _absolute_gaps, pivotal=True),
        "ece_by_chance": {
            "value": by_chance,
            "low": None,
            "high": None,
            "n": len(blocks),
            "why": "no interval: an expectation, not a measurement",
        },
        "bins": diagram,
    }


def magnitude(rows: pd.DataFrame, blocks: Blocks, days: DayBlocks) -> dict[str, Value]:
    """Mean absolute error of the stated moves, against persistence.

    Persistence says that tomorrow's price is today's, a move of 0 %, and so errs by the size of
    the move.

    Returns:
        ``error`` and ``persistence`` in percentage points, ``difference`` of the two (below 0 is
        better than persistence), ``skill`` = 1 - error / persistence.
    """
    has_percent = rows["percent"].notna().to_numpy()
    blocks = blocks[has_percent]
    actual = rows["actual_percent"].to_numpy(dtype=float)[has_percent]
    error = np.abs(rows["percent"].to_numpy(dtype=float)[has_percent] - actual)
    ones = np.ones(len(blocks))
    values = {
        "error": ([error, ones], ratio),
        "persistence": ([np.abs(actual), ones], ratio),
        "difference": ([error - np.abs(actual), ones], ratio),
        "skill": ([np.abs(actual) - error, np.abs(actual)], ratio),
    }
    if not len(blocks):
        return dict.fromkeys(values, missing(0, "no answer states a move"))
    return {
        name: days.value(blocks, columns, statistic, undefined="no price moved")
        for name, (columns, statistic) in values.items()
    }


def _stated_up(rows: pd.DataFrame, blocks: Blocks) -> tuple[Blocks, Values, Values]:
    """Days, probabilities of UP and outcomes (1 for UP) of the decisions that state one."""
    is_stated = rows["confidence"].notna().to_numpy()
    confidence = rows["confidence"].to_numpy(dtype=float)[is_stated]
    is_up = rows["called_up"].eq(True).to_numpy(dtype=bool)[is_stated]
    p_up = np.where(is_up, confidence, 1 - confidence).round(9)
    return blocks[is_stated], p_up, rows["actual_up"].to_numpy(dtype=float)[is_stated]


def _uncertainty(sums: Values) -> Values:
    share: Values = sums[..., 1] / sums[..., 2]
    return share * (1 - share)


def _skill(sums: Values) -> Values:
    with np.errstate(invalid="ignore", divide="ignore"):
        skill: Values = 1 - sums[..., 0] / sums[..., 2] / _uncertainty(sums)
    return skill


def _entropy(sums: Values) -> Values:
    share = np.clip(sums[..., 0] / sums[..., 1], LOG_LOSS_CLIP, 1 - LOG_LOSS_CLIP)
    entropy: Values = -(share * np.log(share) + (1 - share) * np.log(1 - share))
    return entropy


def _bins(sums: Values) -> tuple[Values, Values, Values]:
    """(..., B) share of the rows, mean probability and share of UP of each bin; 0 where empty."""
    counts, stated, ups = np.split(sums[..., 3:], 3, axis=-1)
    filled = np.maximum(counts, 1)
    return counts / sums[..., 2, None], stated / filled, ups / filled


def _reliability(sums: Values) -> Values:
    weights, stated, ups = _bins(sums)
    reliability: Values = (weights * (stated - ups) ** 2).sum(axis=-1)
    return reliability


def _resolution(sums: Values) -> Values:
    weights, _, ups = _bins(sums)
    share = (sums[..., 1] / sums[..., 2])[..., None]
    resolution: Values = (weights * (ups - share) ** 2).sum(axis=-1)
    return resolution


def _within_bins(sums: Values) -> Values:
    score: Values = sums[..., 0] / sums[..., 2]
    return score - _reliability(sums) + _resolution(sums) - _uncertainty(sums)


def _absolute_gaps(sums: Values) -> Values:
    gaps: Values = np.abs(sums[..., 1:]).sum(axis=-1) / sums[..., 0]
    return gaps

"""Scores of stated probabilities against what came true.

Shapes: N calls, B bins.
"""

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Values = NDArray[np.float64]

MAX_BINS = 10
CALLS_PER_BIN = 10
"""Fewest calls that a bin is made for: of 60 calls there are six bins, of 15 there is one."""


def roc_auc(scores: Sequence[float], positive: Sequence[bool]) -> float | None:
    """Area under the ROC curve: how often a positive has the higher score than a negative.

    ``(R - n₊(n₊ + 1)/2) / (n₊ n₋)`` with R the sum of the positives' ranks and midranks for
    equal scores, so that a tie counts a half (Hanley & McNeil 1982, doi
    10.1148/radiology.143.1.7063747). Knowing nothing gives 0.5.

    Args:
        scores: (N,).
        positive: (N,).

    Returns:
        [0, 1]; None unless both classes are there.
    """
    is_positive = np.asarray(positive, dtype=bool)
    num_positive = int(is_positive.sum())
    num_negative = len(is_positive) - num_positive
    if not num_positive or not num_negative:
        return None
    rank_sum = midranks(np.asarray(scores, dtype=float))[is_positive].sum()
    above = rank_sum - num_positive * (num_positive + 1) / 2
    return float(above / (num_positive * num_negative))


def brier(confidences: Sequence[float], right: Sequence[bool]) -> float:
    """Mean squared distance of a stated probability from what came true (Brier 1950).

    With the stated probability of being right it equals that of the probability of UP: a
    call of DOWN at q is one of UP at 1 - q, and squares to the same.

    Args:
        confidences: (N,) stated probabilities of being right, N at least 1.
        right: (N,).

    Returns:
        [0, 1], lower is better.
    """
    distances = np.asarray(confidences, dtype=float) - np.asarray(right, dtype=float)
    return float((distances**2).mean())


def calibration_error(confidences: Sequence[float], right: Sequence[bool]) -> tuple[float, float]:
    """Expected calibration error over bins of equal mass, and what chance alone would give.

    ``Σ n_b/N · |share right - mean confidence|`` over bins b of about equal size, cut along
    sorted confidence (Nguyen & O'Connor 2015, arXiv:1508.05154). There are ``MAX_BINS`` of
    them, fewer where a bin would hold under ``CALLS_PER_BIN`` calls. Equal confidences stay
    in one bin, so that the order of the calls does not matter.

    Small samples push it up (Roelofs et al. 2022, arXiv:2012.08668). A caller whose every
    stated probability is true scores ``Σ n_b/N · √(2/π · Σ q(1 - q)) / n_b`` on average: the
    mean absolute value of a normal variable with the variance of the bin's share right.

    Args:
        confidences: (N,) stated probabilities of being right, N at least 1.
        right: (N,).

    Returns:
        The error, and that of a perfectly calibrated caller with the same confidences; both
        in [0, 1].
    """
    stated = np.asarray(confidences, dtype=float)
    bins = equal_mass_bins(stated)
    gaps = np.abs(np.bincount(bins, weights=np.asarray(right, dtype=float) - stated))
    variances = np.bincount(bins, weights=stated * (1 - stated))
    by_chance = math.sqrt(2 / math.pi) * np.sqrt(variances)
    return float(gaps.sum() / len(stated)), float(by_chance.sum() / len(stated))


def equal_mass_bins(values: Values) -> NDArray[np.intp]:
    """(N,) values to (N,) bin numbers; some bins may be empty where values are equal."""
    num_values = len(values)
    num_bins = max(1, min(MAX_BINS, num_values // CALLS_PER_BIN))
    # The middle of a tie decides for all of it: quantiles as edges would lump a frequent
    # value together with everything below it.
    numbers: NDArray[np.intp] = ((midranks(values) - 0.5) * num_bins // num_values).astype(np.intp)
    return numbers


def midranks(values: Values) -> Values:
    """(N,) ranks from 1; equal values share the mean of theirs."""
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    ranks: Values = (np.cumsum(counts) - (counts - 1) / 2)[inverse]
    return ranks

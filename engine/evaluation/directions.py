"""How often decisions are right, and whether that is more than their share of UP explains.

Every function takes decisions (``table.decisions``) of one checkpoint with their days' numbers
(``DayBlocks.of``). A decision that calls nothing is wrong; where a metric needs a called side, it
is computed on the rest, and its ``n`` says so.
"""

from statistics import NormalDist

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.fft import next_fast_len
from scipy.stats import hypergeom

from engine.evaluation.day_blocks import DayBlocks, Value, Values, missing
from engine.evaluation.intervals import wilson
from engine.evaluation.scores import midranks, roc_auc

Blocks = NDArray[np.intp]
Counts = NDArray[np.int64]

NOTHING_READ = "no completion could be read"
_ONE_OUTCOME = "rows of one outcome only"


def accuracy(rows: pd.DataFrame, blocks: Blocks, days: DayBlocks) -> Value:
    """Share right among all rows."""
    if not called(rows).any():
        return missing(len(rows), NOTHING_READ)
    return days.value(blocks, [rows["right"], np.ones(len(rows))])


def balanced_accuracy(rows: pd.DataFrame, blocks: Blocks, days: DayBlocks) -> Value:
    """Mean of the shares right among the rows that went up and those that did not.

    Brodersen et al. 2010, doi 10.1109/ICPR.2010.764.
    """
    if not called(rows).any():
        return missing(len(rows), NOTHING_READ)
    up, right = rows["actual_up"].to_numpy(), rows["right"].to_numpy()
    columns = [right & up, up, right & ~up, ~up]
    return days.value(blocks, columns, _mean_of_sides, undefined=_ONE_OUTCOME)


def matthews(rows: pd.DataFrame, blocks: Blocks, days: DayBlocks) -> Value:
    """Matthews' correlation of called and actual side, over the rows with a call.

    Matthews 1975, doi 10.1016/0005-2795(75)90109-9.
    """
    is_called = called(rows)
    if not is_called.any():
        return missing(0, NOTHING_READ)
    call, up = calls_up(rows)[is_called], rows["actual_up"].to_numpy()[is_called]
    columns = [call & up, call & ~up, ~call & up, ~call & ~up]
    why = "calls or outcomes of one side only"
    return days.value(blocks[is_called], columns, _matthews, undefined=why)


def by_side(rows: pd.DataFrame, blocks: Blocks, days: DayBlocks) -> dict[str, Value]:
    """Share right among the rows of each outcome, and among those of each call."""
    if not called(rows).any():
        nothing = missing(0, NOTHING_READ)
        return dict.fromkeys(("actual_up", "actual_down", "called_up", "called_down"), nothing)
    up, call, is_called = rows["actual_up"].to_numpy(), calls_up(rows), called(rows)
    right, ones = rows["right"].to_numpy(), np.ones(len(rows))
    sides = {
        "actual_up": (up, "rows that went up"),
        "actual_down": (~up, "rows that went down"),
        "called_up": (call, "calls of UP"),
        "called_down": (is_called & ~call, "calls of DOWN"),
    }
    return {
        name: days.value(blocks[side], [right[side], ones[side]], undefined=f"no {what}")
        for name, (side, what) in sides.items()
    }


def by_ticker(rows: pd.DataFrame) -> dict[str, Value]:
    """Share right of each ticker with Wilson's interval: a ticker has one row a day."""
    if not called(rows).any():
        return {}
    shares = rows.groupby("ticker")["right"].agg(["sum", "size"])
    values: dict[str, Value] = {}
    for ticker, hits, total in shares.itertuples():
        low, high = wilson(int(hits), int(total))
        values[str(ticker)] = {
            "value": float(hits / total),
            "low": low,
            "high": high,
            "n": int(total),
            "why": None,
        }
    return values


def by_year(rows: pd.DataFrame, blocks: Blocks, days: DayBlocks) -> dict[str, Value]:
    """Share right in each calendar year of the outcome."""
    if not called(rows).any():
        return {}
    years = rows["label_day"].str[:4].to_numpy()
    right = rows["right"].to_numpy(dtype=float)
    return {
        str(year): days.value(
            blocks[years == year], [right[years == year], np.ones((years == year).sum())]
        )
        for year in np.unique(years)
    }


def up_shares(rows: pd.DataFrame, blocks: Blocks, days: DayBlocks) -> dict[str, Value]:
    """Share of UP among the outcomes, and among the calls."""
    is_called = called(rows)
    return {
        "market": days.value(blocks, [rows["actual_up"], np.ones(len(rows))]),
        "calls": days.value(
            blocks[is_called],
            [calls_up(rows)[is_called], np.ones(is_called.sum())],
            undefined=NOTHING_READ,
        ),
    }


def area_under_roc(rows: pd.DataFrame, blocks: Blocks, days: DayBlocks) -> Value:
    """How often a row that went up has the higher P(UP) than one that did not.

    A draw's area is taken from the placements of the sample (DeLong et al. 1988, doi
    10.2307/2531595): the mean over the drawn ups of the share of all downs below them, plus the
    mean over the drawn downs of the share of all ups above them, minus the area. Days as clusters
    of placements: Obuchowski 1997, doi 10.2307/2533958.
    """
    if rows["confidence"].isna().all():
        return missing(len(rows), "no answer states a confidence")
    up, p_up = rows["actual_up"].to_numpy(), rows["p_up"].to_numpy(dtype=float)
    area = roc_auc(p_up.tolist(), up.tolist())
    if area is None:
        return missing(len(rows), _ONE_OUTCOME)
    above, below = np.zeros(len(rows)), np.zeros(len(rows))
    ranks = midranks(p_up)
    above[up] = (ranks[up] - midranks(p_up[up])) / (~up).sum()
    below[~up] = 1 - (ranks[~up] - midranks(p_up[~up])) / up.sum()

    def drawn_area(sums: Values) -> Values:
        with np.errstate(invalid="ignore", divide="ignore"):
            drawn: Values = sums[..., 0] / sums[..., 1] + sums[..., 2] / sums[..., 3] - area
        return drawn

    return days.value(blocks, [above, up, below, ~up], drawn_area, undefined=_ONE_OUTCOME)


def pesaran_timmermann(rows: pd.DataFrame) -> dict[str, object]:
    """Are calls and outcomes independent, given the share of UP in each? One-sided.

    Pesaran & Timmermann 1992 (doi 10.1080/07350015.1992.10509922): ``(P - P*) / √(V(P) - V(P*))``,
    P the share right and P* the share right to be expected of independent calls. It takes
    rows for independent, which those of one day are not: ``within_day`` does not.

    Returns:
        ``value``: standard normal under independence, ``p``, ``n`` (rows with a call), ``why``.
    """
    is_called = called(rows)
    n = int(is_called.sum())
    if not n:
        return {"value": None, "p": None, "n": 0, "why": NOTHING_READ}
    actual = float(rows["actual_up"].to_numpy()[is_called].mean())
    predicted = float(calls_up(rows)[is_called].mean())
    if actual in (0, 1) or predicted in (0, 1):
        return {"value": None, "p": None, "n": n, "why": "calls or outcomes of one side only"}
    right = float(rows["right"].to_numpy()[is_called].mean())
    by_chance = actual * predicted + (1 - actual) * (1 - predicted)
    variance = by_chance * (1 - by_chance) / n
    variance_by_chance = (
        (2 * actual - 1) ** 2 * predicted * (1 - predicted) / n
        + (2 * predicted - 1) ** 2 * actual * (1 - actual) / n
        + 4 * actual * predicted * (1 - actual) * (1 - predicted) / n**2
    )
    if variance <= variance_by_chance:
        return {"value": None, "p": None, "n": n, "why": "too few rows"}
    score = (right - by_chance) / (variance - variance_by_chance) ** 0.5
    return {"value": score, "p": 1 - NormalDist().cdf(score), "n": n, "why": None}


def excess(rows: pd.DataFrame, blocks: Blocks, days: DayBlocks) -> Value:
    """P - P* of ``pesaran_timmermann`` with an interval over days: above 0 is timing."""
    is_called = called(rows)
    if not is_called.any():
        return missing(0, NOTHING_READ)
    columns = [
        rows["right"].to_numpy()[is_called],
        rows["actual_up"].to_numpy()[is_called],
        calls_up(rows)[is_called],
        np.ones(is_called.sum()),
    ]
    return days.value(blocks[is_called], columns, _excess)


def within_day(rows: pd.DataFrame, blocks: Blocks) -> dict[str, object]:
    """Permutation test: the calls of each day dealt out anew among its rows. One-sided, exact.

    What is common to a day, in the market or in the calls, cancels, and so does any gain from
    the right side on the right day: it asks for skill between the stocks of one day. Of a day of
    n rows, a of them up and b calls of UP, c up rows are called UP under a random deal, c
    hypergeometric, and ``n - a - b + 2c`` calls are right. The sum over days has the
    convolution of their distributions.

    Returns:
        ``value``: share right minus what random deals give on average, ``p``: probability of a
        deal with at least as many right, ``n`` (rows with a call), ``why``.
    """
    is_called = called(rows)
    n = int(is_called.sum())
    if not n:
        return {"value": None, "p": None, "n": 0, "why": NOTHING_READ}
    _, day = np.unique(blocks[is_called], return_inverse=True)
    up, call = rows["actual_up"].to_numpy()[is_called], calls_up(rows)[is_called]
    sizes, ups, calls, both = (
        np.bincount(day, weights=weights).astype(np.int64)
        for weights in (np.ones(n), up, call, up & call)
    )
    can_vary = (ups > 0) & (ups < sizes) & (calls > 0) & (calls < sizes)
    if not can_vary.any():
        why = "no day has calls and outcomes of both sides"
        return {"value": None, "p": None, "n": n, "why": why}
    sizes, ups, calls, both = sizes[can_vary], ups[can_vary], calls[can_vary], both[can_vary]
    expected = float((ups * calls / sizes).sum())
    return {
        "value": 2 * (float(both.sum()) - expected) / n,
        "p": _dealt_at_least(int(both.sum()), sizes, ups, calls),
        "n": n,
        "why": None,
    }


def _dealt_at_least(both: int, sizes: Counts, ups: Counts, calls: Counts) -> float:
    """Probability that at least ``both`` up rows are called UP when each day's calls are dealt."""
    # Days alike in all three have the same distribution: one transform, to the power of them.
    kinds, num_days = np.unique(np.column_stack((sizes, ups, calls)), axis=0, return_counts=True)
    lowest = np.maximum(0, kinds[:, 2] - (kinds[:, 0] - kinds[:, 1]))
    spread = np.minimum(kinds[:, 1], kinds[:, 2]) - lowest
    length = next_fast_len(int((spread * num_days).sum()) + 1, real=True)
    transform = np.ones(length // 2 + 1, dtype=np.complex128)
    for kind, low, width, count in zip(kinds, lowest, spread, num_days, strict=True):
        size, up, called_up = kind
        chances = hypergeom.pmf(np.arange(low, low + width + 1), size, up, called_up)
        transform *= np.fft.rfft(chances, length) ** count
    chances = np.fft.irfft(transform, length)
    at_least = chances[both - int((lowest * num_days).sum()) :].sum()
    return float(np.clip(at_least, 0, 1))


def called(rows: pd.DataFrame) -> NDArray[np.bool_]:
    """(N,) whether a side is called."""
    return rows["called_up"].notna().to_numpy()


def calls_up(rows: pd.DataFrame) -> NDArray[np.bool_]:
    """(N,) whether UP is called."""
    is_up: NDArray[np.bool_] = rows["called_up"].eq(True).to_numpy(dtype=bool)
    return is_up


def _mean_of_sides(sums: Values) -> Values:
    with np.errstate(invalid="ignore", divide="ignore"):
        mean: Values = (sums[..., 0] / sums[..., 1] + sums[..., 2] / sums[..., 3]) / 2
    return mean


def _matthews(sums: Values) -> Values:
    true_up, false_up, false_down, true_down = np.moveaxis(sums, -1, 0)
    called_up, called_down = true_up + false_up, true_down + false_down
    up, down = true_up + false_down, true_down + false_up
    with np.errstate(invalid="ignore", divide="ignore"):
        correlation: Values = (true_up * true_down - false_up * false_down) / np.sqrt(
            called_up * called_down * up * down
        )
    return correlation


def _excess(sums: Values) -> Values:
    right, up, call, total = np.moveaxis(sums, -1, 0)
    with np.errstate(invalid="ignore", divide="ignore"):
        actual, predicted = up / total, call / total
        difference: Values = right / total - (actual * predicted + (1 - actual) * (1 - predicted))
    return difference

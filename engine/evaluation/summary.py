"""Everything that is measured about the checkpoints of an evaluation, ready for JSON.

A pure function of the predictions, the baselines' probabilities and a seed. A *value* is a
``day_blocks.Value``: ``{"value", "low", "high", "n", "why"}``, its interval the 95 % one over whole
days; what is not computable has None and says why. A *test* is ``{"value", "p", "n", "why"}``.
"""

from collections.abc import Mapping
from itertools import combinations
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from engine.errors import UserError
from engine.evaluation import baselines as callers
from engine.evaluation import directions, probabilities
from engine.evaluation.comparisons import diebold_mariano, holm, mcnemar
from engine.evaluation.day_blocks import LEVEL, DayBlocks, Value, missing
from engine.evaluation.intervals import wilson

BASE = "base"
_REWARDS = ("reward", "component/", "rubric/")


def summarise(
    decisions: pd.DataFrame,
    table: pd.DataFrame,
    baselines: pd.DataFrame | None,
    *,
    seed: int,
    draws: int = 10_000,
) -> dict[str, Any]:
    """Measure all checkpoints of an evaluation on the same draws of days.

    Args:
        decisions: of all checkpoints, see ``table.decisions``.
        table: the predictions that they come from.
        baselines: ``key`` and ``logistic``, its probability of UP, NaN where not computable; None
            where no logistic regression was fit.
        seed: decides the draws.
        draws: of as many days as there are.

    Returns:
        ``draws``, ``seed``, ``level``; ``examples``, ``days`` and ``first_day``, ``last_day`` of
        the outcomes; ``horizon``: weekdays from the as-of day to the outcome, the median;
        ``checkpoints``: label to what ``_checkpoint`` returns; ``comparisons``: a list with one
        entry for each two checkpoints, see ``_comparison``.

    Raises:
        UserError: there is no prediction.
    """
    if decisions.empty:
        raise UserError("no predictions to measure", fix="let the evaluation go on")
    days = DayBlocks(decisions["label_day"], seed=seed, draws=draws)
    horizon = _horizon(decisions)
    rows_of = {
        str(label): rows.reset_index(drop=True)
        for label, rows in decisions.groupby("checkpoint", sort=False)
    }
    logistic = None if baselines is None else baselines.set_index("key")["logistic"]
    samples = dict(tuple(table.groupby("checkpoint", sort=False)))
    checkpoints = {
        label: _checkpoint(
            rows,
            samples[label],
            days,
            horizon=horizon,
            logistic=logistic,
            base=None if label == BASE else rows_of.get(BASE),
        )
        for label, rows in rows_of.items()
    }
    return {
        "draws": draws,
        "seed": seed,
        "level": LEVEL,
        "examples": int(decisions["key"].nunique()),
        "days": len(days.days),
        "first_day": str(days.days[0]),
        "last_day": str(days.days[-1]),
        "horizon": horizon,
        "checkpoints": checkpoints,
        "comparisons": _comparisons(rows_of, days, horizon),
    }


def standing(
    rows: pd.DataFrame,
    days: DayBlocks,
    *,
    horizon: int,
    logistic: pd.Series | None = None,
    base: pd.DataFrame | None = None,
) -> dict[str, Any]:
    """What the verdict on one checkpoint goes by: its accuracy and that of every baseline.

    Args:
        rows: its decisions.
        days: drawn from the days of all checkpoints.
        horizon: days from the as-of day to the outcome.
        logistic: probability of UP by key.
        base: decisions of the base model.

    Returns:
        ``n`` decisions on ``days``, ``horizon``; ``accuracy``, with ``wilson`` [low, high] beside
        it; ``majority``: name of the better constant caller; ``baselines``: name to
        ``{"accuracy", "difference"}``, the difference being this checkpoint less the baseline.
    """
    blocks = days.of(rows["label_day"])
    return {
        "n": len(rows),
        "days": len(np.unique(blocks)),
        "horizon": horizon,
        "accuracy": _accuracy(rows, blocks, days),
        "majority": "always_up" if rows["actual_up"].mean() >= 0.5 else "always_down",
        "baselines": _baselines(rows, blocks, days, logistic, base),
    }


def _checkpoint(
    rows: pd.DataFrame,
    samples: pd.DataFrame,
    days: DayBlocks,
    *,
    horizon: int,
    logistic: pd.Series | None,
    base: pd.DataFrame | None,
) -> dict[str, Any]:
    """All figures of one checkpoint.

    Returns:
        What ``standing`` does, and, values unless said otherwise: ``hash`` (text), ``samples``:
        number of completions; ``balanced_accuracy``, ``mcc``, ``roc_auc``, ``excess``;
        ``sides``, ``tickers``, ``years``, ``up_share``: name to value;
        ``pesaran_timmermann``, ``within_day``: tests, one-sided;
        ``brier``: ``score``, ``base_rate``, ``skill``, ``reliability``, ``resolution``,
        ``within_bins``; ``log_loss``: ``score``, ``base_rate``;
        ``calibration``: ``mean``, ``hit_rate``, ``ece``, ``ece_by_chance``, and ``bins``, a list
        of values with ``confidence`` each;
        ``magnitude``: ``error``, ``persistence``, ``difference``, ``skill``;
        ``parsed``, ``stated``, ``truncated``: shares of the completions;
        ``rewards``: ``reward``, ``component/<name>`` and ``rubric/<name>`` to value.
    """
    blocks = days.of(rows["label_day"])
    return {
        "hash": str(samples["checkpoint_hash"].iloc[0]),
        "samples": len(samples),
        **standing(rows, days, horizon=horizon, logistic=logistic, base=base),
        "balanced_accuracy": directions.balanced_accuracy(rows, blocks, days),
        "mcc": directions.matthews(rows, blocks, days),
        "roc_auc": directions.area_under_roc(rows, blocks, days),
        "excess": directions.excess(rows, blocks, days),
        "pesaran_timmermann": directions.pesaran_timmermann(rows),
        "within_day": directions.within_day(rows, blocks),
        "sides": directions.by_side(rows, blocks, days),
        "tickers": directions.by_ticker(rows),
        "years": directions.by_year(rows, blocks, days),
        "up_share": directions.up_shares(rows, blocks, days),
        "brier": probabilities.brier(rows, blocks, days),
        "log_loss": probabilities.log_loss(rows, blocks, days),
        "calibration": probabilities.calibration(rows, blocks, days),
        "magnitude": probabilities.magnitude(rows, blocks, days),
        **_completions(samples, days),
    }


def _accuracy(
    rows: pd.DataFrame, blocks: NDArray[np.intp], days: DayBlocks
) -> Mapping[str, object]:
    value = directions.accuracy(rows, blocks, days)
    if value["value"] is None:
        return {**value, "wilson": None}
    return {**value, "wilson": list(wilson(int(rows["right"].sum()), len(rows)))}


def _completions(samples: pd.DataFrame, days: DayBlocks) -> dict[str, Any]:
    """What is about single completions: whether they could be read, and what they earned."""
    blocks = days.of(samples["label_day"])
    ones = np.ones(len(samples))
    read = samples["called_up"].notna()
    rewards = {}
    for name in samples.columns:
        if name.startswith(_REWARDS):
            scores = samples[name].to_numpy(dtype=float)
            known = ~np.isnan(scores)
            rewards[name] = days.value(
                blocks[known], [scores[known], ones[known]], undefined="it was not scored"
            )
    return {
        "parsed": days.value(blocks, [read, ones]),
        "stated": days.value(blocks, [read & samples["confidence"].notna(), ones]),
        "truncated": days.value(blocks, [~samples["finished"].astype(bool), ones]),
        "rewards": rewards,
    }


def _baselines(
    rows: pd.DataFrame,
    blocks: NDArray[np.intp],
    days: DayBlocks,
    logistic: pd.Series | None,
    base: pd.DataFrame | None,
) -> dict[str, dict[str, Value]]:
    """Simple callers, the logistic regression and the base model on the rows of a checkpoint."""
    up = rows["actual_up"].to_numpy(dtype=bool)
    right = rows["right"].to_numpy(dtype=float)
    is_read = bool(directions.called(rows).any())

    def beside(other: NDArray[np.floating[Any]], why: str) -> dict[str, Value]:
        known = ~np.isnan(other)
        if not known.any():
            return dict.fromkeys(("accuracy", "difference"), missing(0, why))
        here, ones = blocks[known], np.ones(known.sum())
        difference = (
            days.value(here, [(right - other)[known], ones])
            if is_read
            else missing(len(rows), directions.NOTHING_READ)
        )
        return {"accuracy": days.value(here, [other[known], ones]), "difference": difference}

    simple = callers.right_calls(up.tolist(), rows["day_change"].tolist())
    compared = {name: beside(np.array(hits, dtype=float), "") for name, hits in simple.items()}
    unknown = np.full(len(rows), np.nan)
    if logistic is None:
        compared["logistic"] = beside(unknown, "no logistic regression was fit")
    else:
        p_up = logistic.reindex(rows["key"]).to_numpy(dtype=float)
        hits = np.where(np.isnan(p_up), np.nan, np.where(up, p_up > 0.5, p_up < 0.5))
        compared["logistic"] = beside(hits, "its indicators are missing on all of these rows")
    if base is not None:
        of_base = base.set_index("key")["right"].astype(float)
        hits = of_base.reindex(rows["key"]).to_numpy(dtype=float)
        if directions.called(base).any():
            compared["base_model"] = beside(hits, "the base model has none of these rows")
        else:
            why = "no completion of the base model could be read"
            compared["base_model"] = beside(unknown, why)
    return compared


def _comparisons(
    rows_of: Mapping[str, pd.DataFrame], days: DayBlocks, horizon: int
) -> list[dict[str, Any]]:
    """Each two checkpoints on the rows that both have.

    Returns:
        ``first``, ``second``; ``accuracy``: value of the first's less the second's;
        ``mcnemar`` about right calls and ``diebold_mariano`` about Brier losses of P(UP) (0.5 where
        none is stated), both with ``p_holm``: corrected over all pairs.
    """
    compared = [
        _comparison(first, second, rows_of[first], rows_of[second], days, horizon)
        for first, second in combinations(rows_of, 2)
    ]
    for name in ("mcnemar", "diebold_mariano"):
        for pair, p in zip(compared, holm([pair[name]["p"] for pair in compared]), strict=True):
            pair[name]["p_holm"] = p
    return compared


def _comparison(
    first: str,
    second: str,
    first_rows: pd.DataFrame,
    second_rows: pd.DataFrame,
    days: DayBlocks,
    horizon: int,
) -> dict[str, Any]:
    mine = first_rows.set_index("key")
    theirs = second_rows.set_index("key").reindex(mine.index)
    both = theirs["right"].notna().to_numpy()
    mine, theirs = mine[both], theirs[both]
    why = "" if both.any() else "no rows in common"
    for label, rows in ((second, second_rows), (first, first_rows)):
        if not directions.called(rows).any():
            why = f"no completion of {label} could be read"
    if why:
        nothing = {"value": None, "p": None, "n": 0, "why": why}
        return {
            "first": first,
            "second": second,
            "accuracy": missing(0, why),
            "mcnemar": nothing,
            "diebold_mariano": dict(nothing),
        }
    blocks = days.of(mine["label_day"])
    my_hits, their_hits = mine["right"].to_numpy(dtype=bool), theirs["right"].to_numpy(dtype=bool)
    gain = my_hits.astype(float) - their_hits
    up = mine["actual_up"].to_numpy(dtype=float)
    loss = (mine["p_up"].to_numpy(dtype=float) - up) ** 2 - (
        theirs["p_up"].to_numpy(dtype=float) - up
    ) ** 2
    counts = np.bincount(blocks, minlength=len(days.days))
    losses = np.bincount(blocks, weights=loss, minlength=len(days.days))
    by_day = losses[counts > 0] / counts[counts > 0]
    return {
        "first": first,
        "second": second,
        "accuracy": days.value(blocks, [gain, np.ones(len(gain))]),
        "mcnemar": dict(mcnemar(my_hits, their_hits)),
        "diebold_mariano": dict(diebold_mariano(by_day.tolist(), horizon)),
    }


def _horizon(decisions: pd.DataFrame) -> int:
    pairs = decisions[["as_of", "label_day"]].drop_duplicates()
    starts, ends = (
        pairs[name].to_numpy(dtype=str).astype("datetime64[D]") for name in ("as_of", "label_day")
    )
    return max(1, int(np.median(np.busday_count(starts, ends))))

"""The predictions of an evaluation as a table, and what was decided for each example.

Every metric is a pure function of these two frames. They come from ``predictions.db``, whose
table ``predictions`` has a column for each name of ``COLUMNS``, with 0, 1 and NULL for False, True
and None, and one more:

``scores``
    JSON object of numbers: ``component/<name>`` for each component of the reward, and
    ``rubric/total``, ``rubric/prediction``, ``rubric/reasoning``. A column each in the frame.
"""

import json
import sqlite3
from contextlib import closing
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from engine.errors import UserError
from engine.text import one_line

FILE = "predictions.db"

COLUMNS = (
    "checkpoint",  # label: base, step-000040, RUN:step-N
    "checkpoint_hash",  # SHA-256
    "key",  # of the example: AAPL:2012-09-14
    "ticker",
    "as_of",  # ISO 8601: last day that the prompt knows
    "label_day",  # ISO 8601: day of the outcome
    "actual_up",  # bool
    "actual_percent",  # move of the label
    "day_change",  # move of the as-of day in percent, which momentum repeats
    "sigma",  # standard deviation of 20 daily returns in percentage points, known on the as-of day
    "sample",  # from 0
    "seed",
    "prompt",
    "completion",
    "finished",  # bool: False for one that was cut at the length limit
    "called_up",  # True, False, or None for a completion that could not be read
    "percent",  # signed predicted move, NaN if none
    "confidence",  # stated probability of being right, [0, 1], NaN if none
    "reward",
)
"""One row is one completion: checkpoint × example × sample."""

_NUMBERS = ("actual_percent", "day_change", "sigma", "percent", "confidence", "reward")
_ABOUT_EXAMPLE = (
    "checkpoint",
    "key",
    "ticker",
    "as_of",
    "label_day",
    "actual_up",
    "actual_percent",
    "day_change",
    "sigma",
)


def read(folder: Path) -> pd.DataFrame:
    """The predictions in an evaluation's folder; the base model first, then by label and day.

    Raises:
        UserError: there is no ``predictions.db``, or it cannot be read as one.
    """
    path = folder / FILE
    where = one_line(str(path))
    if not path.is_file():
        raise UserError("no predictions here", where=where, fix="name an evaluation's folder")
    query = (
        f"SELECT {', '.join(COLUMNS)}, scores FROM predictions"
        " ORDER BY checkpoint != 'base', checkpoint, as_of, ticker, key, sample"
    )
    try:
        with closing(sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro", uri=True)) as database:
            rows = database.execute(query).fetchall()
        table = pd.DataFrame(rows, columns=[*COLUMNS, "scores"])
        scores = pd.DataFrame([json.loads(text) for text in table.pop("scores")], dtype=float)
    except (sqlite3.DatabaseError, ValueError) as error:
        reason = one_line(str(error), 100)
        raise UserError(f"cannot be read as predictions ({reason})", where=where) from error
    for name in ("actual_up", "finished"):
        table[name] = table[name].astype(bool)
    for name in _NUMBERS:
        table[name] = table[name].astype(float)
    called = [None if up is None or up != up else bool(up) for up in table["called_up"]]
    table["called_up"] = pd.Series(called, index=table.index, dtype=object)
    return pd.concat([table, scores], axis=1)


def decisions(table: pd.DataFrame) -> pd.DataFrame:
    """What the samples of each checkpoint and example amount to, in the order of the table.

    Returns:
        One row a (checkpoint, example) with what the table says about the example, and

        ``p_up``: mean over the samples of the probability of UP: q for a call of UP, 1 - q for
        DOWN, 0.5 where the completion could not be read or states no confidence.
        ``called_up``: the side that more of the read samples call; None on a tie or if none
        was read. ``right``: whether the market went that way; None is wrong.
        ``percent``: mean of the signed predicted moves, NaN if there is none.
        ``confidence``: mean stated probability of the called side over the samples that state
        one, NaN if none does or nothing is called.
    """
    by_example = ["checkpoint", "key"]
    example = table.groupby(by_example, sort=False).ngroup().to_numpy()
    decided = table.drop_duplicates(by_example)[list(_ABOUT_EXAMPLE)].reset_index(drop=True)
    num_examples = len(decided)

    def totals(values: ArrayLike) -> NDArray[np.float64]:
        weights = np.asarray(values, dtype=float)
        return np.bincount(example, weights, num_examples).astype(float)

    called = table["called_up"].map({True: 1.0, False: 0.0}).to_numpy(dtype=float)
    votes = totals(called == 1) - totals(called == 0)
    confidence = table["confidence"].to_numpy(dtype=float)
    p_up = np.where(called == 1, confidence, np.where(called == 0, 1 - confidence, np.nan))
    is_stated = ~np.isnan(p_up)
    percent = table["percent"].to_numpy(dtype=float)
    has_percent = ~np.isnan(percent)
    with np.errstate(invalid="ignore"):  # 0 / 0 is NaN, as it should be
        stated_up = totals(np.where(is_stated, p_up, 0)) / totals(is_stated)
        mean_percent = totals(np.where(has_percent, percent, 0)) / totals(has_percent)
    called_up = pd.Series([None] * num_examples, dtype=object)
    called_up[votes > 0] = True
    called_up[votes < 0] = False
    of_called_side = np.where(votes > 0, stated_up, np.where(votes < 0, 1 - stated_up, np.nan))
    # UP at 30 % and DOWN at 70 % say the same, which 1 - 0.7 in binary does not.
    return decided.assign(
        p_up=(totals(np.where(is_stated, p_up, 0.5)) / totals(np.ones(len(table)))).round(9),
        called_up=called_up,
        right=np.where(decided["actual_up"], votes > 0, votes < 0),
        percent=mean_percent,
        confidence=of_called_side.round(9),
    )

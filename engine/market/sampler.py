"""Which rows are drawn, and in which order: spread, balanced, reproducible by index."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from engine.errors import UserError
from engine.market.dataset import Rows

Positions = NDArray[np.intp]


def spread(total: int, count: int, rng: np.random.Generator) -> Positions:
    """Choose ``count`` of ``total`` positions, one at random from each of ``count`` equal parts.

    Unlike a fixed stride this cannot fall into step with a pattern of the data, such as four
    tickers repeating every day.

    Returns:
        (min(count, total),) distinct positions in ascending order.
    """
    count = min(count, total)
    edges = np.arange(count + 1) * total // max(count, 1)
    return rng.integers(edges[:-1], edges[1:])


def natural(rows: Rows, limit: int, seed: int) -> Positions:
    """At most ``limit`` positions of ``rows``, spread over its order, market shares kept.

    Raises:
        UserError: there is no row.
    """
    if not len(rows):
        raise UserError("no training examples", where="data", fix="use a longer history")
    return spread(len(rows), limit, np.random.default_rng(seed))


def balanced(rows: Rows, limit: int, seed: int) -> Positions:
    """At most ``limit`` positions of ``rows``, exactly as many UP as DOWN.

    Each side is spread over the order of ``rows``, so over tickers and time.

    Returns:
        (2 n,) positions: n of UP, then n of DOWN.

    Raises:
        UserError: one of the two sides has no row.
    """
    ups, downs = np.flatnonzero(rows.up), np.flatnonzero(~rows.up)
    per_side = min(limit // 2, len(ups), len(downs))
    if per_side == 0:
        raise UserError(
            f"cannot balance {len(ups)} UP and {len(downs)} DOWN training examples",
            where="data.sampling",
            fix="use a longer history or data.sampling=natural",
        )
    rng = np.random.default_rng(seed)
    return np.concatenate([side[spread(len(side), per_side, rng)] for side in (ups, downs)])


def over_time(rows: Rows, limit: int, seed: int) -> Positions:
    """At most ``limit`` positions of ``rows``, market shares kept, spread over its days."""
    by_day = np.lexsort((rows.history, rows.day))
    return by_day[spread(len(rows), limit, np.random.default_rng(seed))]


class Shuffled:
    """An endless order over a fixed set: one permutation per epoch, seeded by (seed, epoch).

    The set may consist of equal blocks, such as all UP and all DOWN; then every round of
    draws takes one of each, in random order. A batch of whole rounds is balanced like the
    set, so that what its labels happened to be does not push the policy to one side.
    """

    def __init__(self, members: Sequence[int] | Positions, seed: int, *, blocks: int = 1) -> None:
        """``members``: ``blocks`` blocks of equal size, one after the other."""
        self._blocks = np.asarray(members).reshape(blocks, -1)
        self._seed = seed
        self._epoch = -1
        self._order = self._blocks.ravel()

    def __len__(self) -> int:
        return self._blocks.size

    def draw(self, index: int) -> int:
        """The member at position ``index`` of the endless order; the same on every call."""
        epoch, position = divmod(index, len(self))
        if epoch != self._epoch:
            rng = np.random.default_rng([self._seed, epoch])
            rounds = rng.permuted(self._blocks, axis=1).T
            self._order = rng.permuted(rounds, axis=1).ravel()
            self._epoch = epoch
        return int(self._order[position])

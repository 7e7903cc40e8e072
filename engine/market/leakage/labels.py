"""Checks of labels: the moves, their outcome days and the prices that they are made of."""

from math import log

import numpy as np

from engine.market import labels, prices
from engine.market.history import Values
from engine.market.leakage.check import Check, counted
from engine.market.leakage.subject import Subject

_TOLERANCE = 1e-9


def labels_from_prices(subject: Subject) -> Check:
    """Labels against the adjusted closes of the two days that they speak of."""
    permuted: dict[str, Values] = {}
    offences = []
    for (example, history, index), up in subject.examples:
        if history.shuffle_seed is None:
            outcome = int(np.searchsorted(history.days, np.datetime64(example.outcome_day, "D")))
            percent = float(history.adjusted[outcome] / history.adjusted[index] - 1) * 100
        else:
            if history.ticker not in permuted:
                permuted[history.ticker] = labels.moves(history, example.horizon)
            percent = float(permuted[history.ticker][index])
        side = "UP" if percent > 0 else "DOWN"
        is_right = (
            abs(example.label.percent - percent) <= _TOLERANCE * (1 + abs(percent))
            and example.label.direction == side
            and up == (side == "UP")
            and percent != 0
        )
        if not is_right:
            offences.append(
                f"{example.key}: {example.label.direction} {example.label.percent:+.2f}%,"
                f" the prices say {percent:+.2f}%"
            )
    return counted(
        "labels",
        "every label is the move of the adjusted close from the as-of day to its outcome day",
        len(subject.examples),
        offences,
        "labels",
    )


def calendar(subject: Subject) -> Check:
    """Outcome days against the full calendar that the source delivered."""
    offences = []
    for (example, history, index), _ in subject.examples:
        days = history.days[index : index + example.horizon + 1]
        steps = np.diff(days).astype(np.int64)
        if (
            len(steps) < example.horizon
            or days[-1] != np.datetime64(example.outcome_day, "D")
            or steps.max() > labels.MAX_GAP_DAYS
        ):
            offences.append(f"{example.key}: outcome on {example.outcome_day}")
    return counted(
        "calendar",
        "every outcome lies the horizon's number of trading days ahead in the ticker's full"
        f" calendar, without a gap over {labels.MAX_GAP_DAYS} days",
        len(subject.examples),
        offences,
        "outcome days",
    )


def unadjusted_splits(subject: Subject) -> Check:
    """Moves of the adjusted close that only a split can show."""
    checked = 0
    offences = []
    for history in subject.market.histories:
        move = history.adjusted[1:] / history.adjusted[:-1]
        checked += len(move)
        trusted = np.ones(len(move), np.bool_)
        if history.doubtful is not None:
            trusted = ~history.doubtful[1:]
        ratio = history.split_ratio[1:]
        is_split = ratio != 1
        still_shown = is_split & (np.abs(np.log(move * ratio)) < np.abs(np.log(move)))
        large = trusted & ~is_split & (np.abs(np.log(move)) > -log(1 - prices.MAX_MOVE))
        if large.any():
            volume = np.where(np.isnan(history.volume), 1 / history.close, history.volume)
            large &= prices.looks_like_a_split(move, history.close, volume)
        offences += [
            f"{history.ticker}:{history.days[at + 1]}: {move[at] - 1:+.1%}"
            for at in np.flatnonzero(still_shown | large).tolist()
        ]
    return counted(
        "splits",
        "no move of an adjusted close is a stock split",
        checked,
        offences,
        "daily moves",
    )

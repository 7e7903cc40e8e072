"""Checks of an example's facts: what it shows was known by the decision time of its day."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from engine.market.calendar import decision_time, decision_times
from engine.market.dataset import FINANCIALS_DAYS, MAX_HEADLINES
from engine.market.history import Days, History
from engine.market.labels import MAX_GAP_DAYS
from engine.market.leakage.check import Check, counted
from engine.market.leakage.subject import Subject
from engine.market.market_share import SHARE_DAYS

_TOLERANCE = 1e-11


def known_at(subject: Subject) -> Check:
    """Every fact's time against the decision time of its day."""
    checked = 0
    offences = []
    for (example, _, _), _ in subject.examples:
        latest = decision_time(example.as_of)
        for what, moment in example.known_times():
            checked += 1
            if moment > latest:
                offences.append(f"{example.key}: {what}, known at {moment.isoformat()}")
    return counted(
        "known-at",
        "every fact of an example was known at 16:00 New York of its as-of day",
        checked,
        offences,
        "facts",
    )


def posts(subject: Subject) -> Check:
    """Every headline against the times at which the source says it was written."""
    checked = 0
    offences = []
    for (example, history, index), _ in subject.examples:
        if not example.headlines:
            continue
        checked += len(example.headlines)
        written = _written_by(history, index)
        offences += [
            f"{example.key}: headline {number} was not written by then"
            for number, headline in enumerate(example.headlines, start=1)
            if headline.text not in written
        ]
    return counted(
        "posts",
        "every headline or post was written before the decision time, by the source's own clock",
        checked,
        offences,
        "headlines",
    )


def market_share(subject: Subject) -> Check:
    """Every share of UP against the daily moves of all tickers up to its as-of day."""
    days, is_up = _moves(subject.market.histories)
    calendar = np.unique(np.concatenate([history.days for history in subject.market.histories]))
    checked = 0
    offences = []
    for (example, _, _), _ in subject.examples:
        if example.market_up_share is None:
            continue
        checked += 1
        as_of = np.datetime64(example.as_of, "D")
        end = int(np.searchsorted(calendar, as_of, side="right"))
        recent = is_up[(days > calendar[max(0, end - SHARE_DAYS - 1)]) & (days <= as_of)]
        if not len(recent) or abs(recent.mean() - example.market_up_share) > _TOLERANCE:
            offences.append(f"{example.key}: share of UP {example.market_up_share:.4f}")
    return counted(
        "market-share",
        f"every share of UP is that of the {SHARE_DAYS} trading days up to the as-of day",
        checked,
        offences,
        "shares of UP",
    )


def _moves(histories: Sequence[History]) -> tuple[Days, NDArray[np.bool_]]:
    """Day and side of every daily move that can be trusted, of all tickers."""
    days, sides = [], []
    for history in histories:
        move = history.adjusted[1:] / history.adjusted[:-1] - 1
        kept = (np.diff(history.days).astype(np.int64) <= MAX_GAP_DAYS) & (abs(move) > _TOLERANCE)
        if history.doubtful is not None:
            kept &= ~history.doubtful[1:]
        days.append(history.days[1:][kept])
        sides.append(move[kept] > 0)
    return np.concatenate(days), np.concatenate(sides)


def _written_by(history: History, index: int) -> set[str]:
    """The newest texts of a ticker that were written by the decision time of a day."""
    news = history.news
    if news is None:
        return set()
    latest = decision_times(history.days[index : index + 1])[0]
    end = int(np.searchsorted(news.known_at, latest, side="right"))
    # As many again, for texts of one second whose order is open.
    first = max(0, end - 2 * MAX_HEADLINES)
    return set(news.texts.take(news.text[first:end].tolist()))


def financials(subject: Subject) -> Check:
    """Every statement against the fiscal year ends of the source."""
    checked = 0
    offences = []
    for (example, history, _), _ in subject.examples:
        as_of = np.datetime64(example.as_of, "D")
        ends = [np.datetime64(one.fiscal_year_end, "D") for one in history.statements]
        public = [end for end in ends if end + FINANCIALS_DAYS <= as_of]
        shown = example.financials
        if shown is None:
            continue
        checked += 1
        if not public or np.datetime64(shown.fiscal_year_end, "D") != max(public):
            offences.append(f"{example.key}: fiscal year to {shown.fiscal_year_end}")
    return counted(
        "financials",
        f"every statement is the newest whose fiscal year ended {FINANCIALS_DAYS} or more before",
        checked,
        offences,
        "statements",
    )

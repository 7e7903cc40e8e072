"""Checks that no example holds anything from its future.

Each check is a function of a ``Subject``: the data as its source delivered them, and the parts that
make examples, prompts and scalers of them. The parts are arguments, so that a leak can be put
into any of them and the check that names it proven. What a check expects it computes itself from
the delivered data, not by the part that it judges.

Checks of single examples look at a seeded sample; those of rows and prices look at all. None can
see what the source itself got wrong: prices that were corrected later, tickers chosen afterwards.
"""

import dataclasses
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from math import isnan, log, sqrt
from typing import Literal, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from engine.errors import UserError
from engine.evaluation.intervals import wilson
from engine.market import indicators, labels, prepare, prices, prompts, sampler
from engine.market.calendar import decision_time, decision_times
from engine.market.dataset import FINANCIALS_DAYS, MAX_HEADLINES, Dataset, Rows
from engine.market.example import Example
from engine.market.history import Days, History, Values
from engine.market.prepare import PrepareOptions
from engine.market.prompts import Prompt, Style
from engine.market.quality import Market
from engine.market.scaling import Scaler
from engine.market.splits import SPLIT_NAMES, Span, SplitName

SAMPLE = 2000
"""Examples that the checks of single examples look at."""

SEED = 7

_CHANGED_FUTURES = 150
_SCALED_TICKERS = 50
_TRAINED_ON, _TESTED_ON = 2000, 1000
_FEWEST_TESTED = 40
_RECENT_MOVES = 4
_STYLES: tuple[Style, ...] = ("full", "compact", "masked")
_PRICE = re.compile(r"(?<![\d.])\d+\.\d\d(?!\d)")
_TOLERANCE = 1e-9

Verdict = Literal["green", "red", "skipped"]


@dataclass(frozen=True)
class Check:
    """What one check found."""

    name: str
    proves: str
    """What a green verdict says."""
    verdict: Verdict
    """``skipped``: there was nothing, or too little, to judge by."""
    checked: int
    """Things looked at."""
    offences: int
    first: str | None
    """The first thing that offends."""
    evidence: str
    """One line for a person."""


@dataclass(frozen=True)
class Audit:
    """The whole suite."""

    checks: tuple[Check, ...]
    num_examples: int
    """Size of the sample."""
    num_rows: int
    """Labelled rows of all splits."""

    @property
    def red(self) -> tuple[str, ...]:
        """Names of the checks that found a leak."""
        return tuple(check.name for check in self.checks if check.verdict == "red")


class Compose(Protocol):
    """Makes the prompt of an example."""

    def __call__(self, example: Example, *, style: Style) -> Prompt: ...


Build = Callable[[Sequence[History]], Dataset]
FitScaler = Callable[[History, dict[SplitName, Span], PrepareOptions], Scaler]


class _Accuracy(NamedTuple):
    """Right calls on as many UP as DOWN, so that knowing nothing is right half the time."""

    hits: int
    num: int

    def interval(self, level: float = 0.95) -> tuple[float, float]:
        return wilson(self.hits, self.num, level)

    def __str__(self) -> str:
        low, high = self.interval()
        return f"{self.hits / self.num:.1%} [{low:.1%}, {high:.1%}], n={self.num}"


class _Known(NamedTuple):
    """An example beside the delivered data that it must agree with."""

    example: Example
    history: History
    """As the source delivered it."""
    at: int
    """Position of the as-of day in it."""


class Subject:
    """What is judged, and the sample of its examples."""

    def __init__(
        self,
        market: Market,
        build: Build,
        *,
        compose: Compose = prompts.compose,
        fit_scaler: FitScaler = prepare.fit_scaler,
        sample: int = SAMPLE,
        seed: int = SEED,
    ) -> None:
        """Build the dataset and draw the sample, spread over splits, tickers and time.

        Args:
            market: the data as delivered.
            build: makes a dataset of histories.
            compose: makes the prompt of an example.
            fit_scaler: fits the scaler of a ticker, as ``prepare`` does.
            sample: examples to draw at most.
            seed: decides the sample and everything else that is drawn.

        Raises:
            UserError: the histories are too short for the splits.
        """
        self.market = market
        self.build = build
        self.compose = compose
        self.fit_scaler = fit_scaler
        self.seed = seed
        self.dataset = build(market.histories)
        self.histories = {history.ticker: history for history in market.histories}
        self.rows = {name: self.dataset.rows(name) for name in SPLIT_NAMES}
        self.num_rows = sum(len(rows) for rows in self.rows.values())
        pairs = [
            pair
            for rows in self.rows.values()
            for pair in zip(
                rows.history.tolist(), rows.index.tolist(), rows.up.tolist(), strict=True
            )
        ]
        chosen = sampler.spread(len(pairs), sample, self.rng())
        self._sample = [pairs[at] for at in chosen.tolist()]

    @cached_property
    def examples(self) -> list[tuple[_Known, bool]]:
        """The sample, each with the side on which its row was counted."""
        return [
            (self.known(self.dataset.example(history, index)), up)
            for history, index, up in self._sample
        ]

    def rng(self) -> np.random.Generator:
        """A fresh generator, so that no check depends on another."""
        return np.random.default_rng(self.seed)

    def known(self, example: Example) -> _Known:
        """The example beside the delivered history of its ticker."""
        history = self.histories[example.ticker]
        day = np.datetime64(example.as_of, "D")
        return _Known(example, history, int(np.searchsorted(history.days, day)))

    def with_changed_future(self, known: _Known) -> Example:
        """The same row, built from a history in which every later price is another."""
        changed = changed_after(known.history, known.at, self.rng())
        try:
            dataset = self.build([changed])
        except UserError:
            # Too short to be split by itself.
            others = [changed if h is known.history else h for h in self.market.histories]
            dataset = self.build(others)
        at = next(at for at, h in enumerate(dataset.histories) if h.ticker == known.example.ticker)
        day = np.datetime64(known.example.as_of, "D")
        return dataset.example(at, int(np.searchsorted(dataset.histories[at].days, day)))


def changed_after(history: History, index: int, rng: np.random.Generator) -> History:
    """``history`` with every price and volume after ``index`` another."""
    factor = np.ones(len(history))
    factor[index + 1 :] = rng.uniform(1.1, 2, len(history) - index - 1)
    columns = ("open", "high", "low", "close", "adjusted", "volume")
    changed = {name: getattr(history, name) * factor for name in columns}
    return dataclasses.replace(history, **changed)


def audit(
    subject: Subject, progress: Callable[[int, int], None] = lambda done, total: None
) -> Audit:
    """Run every check.

    Args:
        progress: called with the checks done and all of them.
    """
    checks = []
    for done, check in enumerate(CHECKS):
        progress(done, len(CHECKS))
        checks.append(check(subject))
    progress(len(CHECKS), len(CHECKS))
    return Audit(tuple(checks), len(subject.examples), subject.num_rows)


# ---------------------------------------------------------------------------
# Facts


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
    return _counted(
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
    return _counted(
        "posts",
        "every headline or post was written before the decision time, by the source's own clock",
        checked,
        offences,
        "headlines",
    )


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
    return _counted(
        "financials",
        f"every statement is the newest whose fiscal year ended {FINANCIALS_DAYS} or more before",
        checked,
        offences,
        "statements",
    )


# ---------------------------------------------------------------------------
# Prompts


def future_prices(subject: Subject) -> Check:
    """Prompts searched for the closes up to the outcome, as written and rebased.

    A price may stand in a prompt by chance: in dollars and cents there are not that many. Such
    a text must also stand there when every later price is another, and it must not be far
    commoner than that of a price as far on the other side.
    """
    hits = decoys = checked = 0
    offences = []
    for known, _ in subject.examples:
        texts = {style: subject.compose(known.example, style=style).text for style in _STYLES}
        checked += len(texts)
        found = {}
        for style, text in texts.items():
            written = set(_PRICE.findall(text))
            future, mirrored = _future_texts(known, masked=style == "masked")
            found[style] = written & future
            hits += bool(found[style])
            decoys += bool(written & mirrored)
        if not any(found.values()):
            continue
        other = subject.with_changed_future(known)
        for style, strings in found.items():
            if not strings:
                continue
            unexplained = strings - set(_PRICE.findall(subject.compose(other, style=style).text))
            if unexplained:
                offences.append(f"{known.example.key}: {min(unexplained)} in the {style} prompt")
    too_common = hits > 2 * decoys + 4 * sqrt(hits + decoys + 1)
    if too_common and not offences:
        offences.append(f"a future close stands in {hits} prompts, one as far off in {decoys}")
    return _counted(
        "future-prices",
        "no prompt of any style prints a close of a later day up to the outcome",
        checked,
        offences,
        "prompts",
        f"{hits} coincidences, {decoys} with prices as far on the other side",
    )


def _future_texts(known: _Known, *, masked: bool) -> tuple[set[str], set[str]]:
    """Texts of the closes up to the outcome, and of prices as far off on the other side."""
    example, history, index = known
    part = slice(index + 1, index + 1 + example.horizon)
    last = float(history.close[index])
    level = last / float(history.adjusted[index])
    values = {*(history.adjusted[part] * level).tolist(), *history.close[part].tolist()}
    scales = (1.0, 100 / example.window[0].close) if masked else (1.0,)
    # A close that did not move is the close that is shown.
    moved = [value for value in values if f"{value:.2f}" != f"{last:.2f}"]
    future = {f"{value * scale:.2f}" for value in moved for scale in scales}
    mirrored = {f"{(2 * last - value) * scale:.2f}" for value in moved for scale in scales}
    return future, mirrored


def changed_future(subject: Subject) -> Check:
    """Prompts built again from histories in which every later price is another."""
    chosen = sampler.spread(len(subject.examples), _CHANGED_FUTURES, subject.rng())
    offences = []
    for at in chosen.tolist():
        known, _ = subject.examples[at]
        other = subject.with_changed_future(known)
        for style in _STYLES:
            before = subject.compose(known.example, style=style).text
            after = subject.compose(other, style=style).text
            if before != after:
                offences.append(f"{known.example.key}: the {style} prompt changes")
    return _counted(
        "changed-future",
        "prompts stay the same to the letter when every later price is another",
        len(chosen) * len(_STYLES),
        offences,
        "prompts",
    )


# ---------------------------------------------------------------------------
# Labels


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
    return _counted(
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
    return _counted(
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
    return _counted(
        "splits",
        "no move of an adjusted close is a stock split",
        checked,
        offences,
        "daily moves",
    )


# ---------------------------------------------------------------------------
# Splits by date


def duplicates(subject: Subject) -> Check:
    """Rows that two splits, or one split twice, hold."""
    keys, counts = np.unique(_keys(subject), return_counts=True)
    again = keys[counts > 1]
    return _counted(
        "duplicates",
        "no row stands in two splits, or twice in one",
        subject.num_rows,
        [_key_text(subject, int(key)) for key in again.tolist()],
        "rows",
    )


def chronology(subject: Subject) -> Check:
    """The splits' as-of days, one split after the other."""
    offences = [
        key for earlier, later in _neighbours(subject) for key in earlier.not_before(later.first)
    ]
    return _counted(
        "chronology",
        "train, validation and test follow each other in time; nothing is shuffled",
        subject.num_rows,
        offences,
        "rows",
    )


def embargo(subject: Subject) -> Check:
    """The splits' outcome days against the first as-of day of the next split."""
    proves = "no outcome of a split reaches the as-of days of the next one"
    if chronology(subject).verdict == "red":
        return Check("embargo", proves, "skipped", 0, 0, None, "the splits overlap in time")
    offences = [
        key for earlier, later in _neighbours(subject) for key in earlier.reaching(later.first)
    ]
    return _counted("embargo", proves, subject.num_rows, offences, "rows")


class _SplitDays(NamedTuple):
    """The rows of one split that no other split holds too."""

    keys: list[str]
    as_of: Days
    outcome: Days

    @property
    def first(self) -> np.datetime64:
        first: np.datetime64 = self.as_of.min()
        return first

    def not_before(self, day: np.datetime64) -> list[str]:
        return [self.keys[at] for at in np.flatnonzero(self.as_of >= day).tolist()]

    def reaching(self, day: np.datetime64) -> list[str]:
        reaches = (self.as_of < day) & (self.outcome >= day)
        return [
            f"{self.keys[at]}: outcome on {self.outcome[at]}"
            for at in np.flatnonzero(reaches).tolist()
        ]


def _neighbours(subject: Subject) -> Iterator[tuple[_SplitDays, _SplitDays]]:
    """Each split with every later one; rows of two splits are the business of ``duplicates``."""
    keys, counts = np.unique(_keys(subject), return_counts=True)
    shared = keys[counts > 1]
    splits = []
    for name in SPLIT_NAMES:
        rows = subject.rows[name]
        own = np.flatnonzero(~np.isin(_row_keys(rows), shared))
        if len(own):
            rows = rows.take(own)
            outcome = np.array(
                [
                    subject.dataset.histories[history].days[index + subject.dataset.horizon]
                    for history, index in zip(
                        rows.history.tolist(), rows.index.tolist(), strict=True
                    )
                ]
            )
            texts = [_key_text(subject, key) for key in _row_keys(rows).tolist()]
            splits.append(_SplitDays(texts, rows.day, outcome))
    for at, earlier in enumerate(splits):
        for later in splits[at + 1 :]:
            yield earlier, later


_DAYS_OF_A_KEY = 1 << 20


def _row_keys(rows: Rows) -> NDArray[np.int64]:
    """Ticker and day of every row as one number."""
    keys: NDArray[np.int64] = rows.history * _DAYS_OF_A_KEY + rows.day.astype(np.int64)
    return keys


def _keys(subject: Subject) -> NDArray[np.int64]:
    return np.concatenate([_row_keys(rows) for rows in subject.rows.values()])


def _key_text(subject: Subject, key: int) -> str:
    # Days before 1970 count below 0.
    history = (key + _DAYS_OF_A_KEY // 2) // _DAYS_OF_A_KEY
    day = np.datetime64(key - history * _DAYS_OF_A_KEY, "D")
    return f"{subject.dataset.histories[history].ticker}:{day}"


def scalers(subject: Subject) -> Check:
    """Scalers fitted again on histories in which every price after training is another."""
    spans = subject.dataset.spans
    options = PrepareOptions(
        window=subject.dataset.window,
        horizon=subject.dataset.horizon,
        normalisation="standard",
    )
    chosen = sampler.spread(len(subject.market.histories), _SCALED_TICKERS, subject.rng())
    checked = 0
    offences = []
    for at in chosen.tolist():
        history = subject.market.histories[at]
        last = int(np.searchsorted(history.days, spans["train"].last, side="right")) - 1
        try:
            fitted = subject.fit_scaler(history, spans, options)
            other = subject.fit_scaler(changed_after(history, last, subject.rng()), spans, options)
        except ValueError:
            continue  # a ticker without training windows has no scaler
        checked += 1
        if fitted != other:
            offences.append(f"{history.ticker}: mean {fitted.mean:.6g} becomes {other.mean:.6g}")
    return _counted(
        "scalers",
        "scalers stay the same when every price after the training days is another",
        checked,
        offences,
        "scalers",
    )


# ---------------------------------------------------------------------------
# A simple predictor


def label_shuffle(subject: Subject) -> Check:
    """A simple predictor on permuted labels: it must not be right more than half the time."""
    proves = (
        "with permuted labels a simple predictor is right half the time: no example holds its"
        " own label"
    )
    permuted = [
        dataclasses.replace(history, shuffle_seed=subject.seed + 1000 + at)
        for at, history in enumerate(subject.market.histories)
    ]
    accuracy = _accuracy(subject.build(permuted), subject.seed)
    honest = _accuracy(subject.dataset, subject.seed)
    if accuracy is None or honest is None:
        return _too_few("label-shuffle", proves)
    # 99.9 %: the suite is run often, and one in twenty runs must not cry wolf.
    is_red = accuracy.interval(0.999)[0] > 0.5
    return Check(
        "label-shuffle",
        proves,
        "red" if is_red else "green",
        accuracy.num,
        int(is_red),
        None,
        f"permuted labels {accuracy}; true labels {honest}",
    )


def feature_shift(subject: Subject) -> Check:
    """The predictor with features taken late on purpose, which must stand out as the leak they are.

    They are late by the horizon, a day by default: of a longer horizon a single day is too
    small a part to be told from luck in a small source.
    """
    days_late = subject.dataset.horizon
    late_by = "a day" if days_late == 1 else f"{days_late} days"
    proves = (
        f"features taken {late_by} late on purpose make a simple predictor's accuracy jump, so"
        " that such a leak would show"
    )
    # The prices of a market with permuted labels tell nothing about them, early or late.
    true = [dataclasses.replace(h, shuffle_seed=None) for h in subject.market.histories]
    dataset = subject.build(true)
    honest = _accuracy(dataset, subject.seed)
    late = _accuracy(dataset, subject.seed, days_late=days_late)
    if honest is None or late is None:
        return _too_few("feature-shift", proves)
    jumps = late.interval()[0] > honest.interval()[1]
    return Check(
        "feature-shift",
        proves,
        "green" if jumps else "red",
        honest.num,
        int(not jumps),
        None,
        f"{late_by} late {late}; in time {honest}",
    )


def _too_few(name: str, proves: str) -> Check:
    return Check(
        name,
        proves,
        "skipped",
        0,
        0,
        None,
        f"fewer than {_FEWEST_TESTED} validation rows of both sides",
    )


def _accuracy(dataset: Dataset, seed: int, *, days_late: int = 0) -> _Accuracy | None:
    """Of a linear predictor fitted on training rows, on validation rows; None: too few of them."""
    parts = []
    limits: dict[SplitName, int] = {"train": _TRAINED_ON, "validation": _TESTED_ON}
    for split, limit in limits.items():
        rows = _with_days_after(dataset, dataset.rows(split))
        rows = rows.take(_balanced_by_ticker(rows, limit, np.random.default_rng(seed)))
        if len(rows) < _FEWEST_TESTED:
            return None
        examples = [
            dataset.example(history, index + days_late)
            for history, index in zip(rows.history.tolist(), rows.index.tolist(), strict=True)
        ]
        parts.append((np.array([_features(example) for example in examples]), rows.up))
    (x, up), (x_tested, up_tested) = parts
    called = _linear(x, np.where(up, 1.0, -1.0), x_tested) > 0
    return _Accuracy(int((called == up_tested).sum()), len(up_tested))


def _balanced_by_ticker(rows: Rows, limit: int, rng: np.random.Generator) -> NDArray[np.intp]:
    """About ``limit`` positions of ``rows``, in each ticker as many UP as DOWN.

    A ticker that rises on most of its days keeps doing so when its labels are permuted: who can
    tell the tickers apart would be right more than half the time without knowing any label.
    """
    tickers = np.unique(rows.history)
    per_side = max(1, limit // (2 * max(1, len(tickers))))
    chosen = [np.empty(0, np.intp)]
    for ticker in tickers.tolist():
        own = np.flatnonzero(rows.history == ticker)
        sides = own[rows.up[own]], own[~rows.up[own]]
        count = min(per_side, *map(len, sides))
        chosen += [side[sampler.spread(len(side), count, rng)] for side in sides]
    return np.concatenate(chosen)


def _with_days_after(dataset: Dataset, rows: Rows) -> Rows:
    """The rows whose outcome day has an outcome too, so that early and late see the same ones."""
    lengths = np.array([len(history) for history in dataset.histories])
    return rows.take(np.flatnonzero(rows.index + 2 * dataset.horizon < lengths[rows.history]))


_FEATURES = (
    "rsi",
    "adx",
    "stoch_k",
    "stoch_d",
    "willr",
    "cci",
    "change5",
    "change10",
    *sorted(indicators.DOLLARS),
)


def _features(example: Example) -> list[float]:
    """What an example shows as numbers without a level; what is missing is 0."""
    closes = np.array([bar.close for bar in example.window])
    recent = closes[-_RECENT_MOVES - 1 :]
    moves = (recent[1:] / recent[:-1] - 1) * 100
    spread = example.sigma20 if example.sigma20 > 0 else 1.0
    features = [*np.sign(moves).tolist(), *np.clip(moves / spread, -3, 3).tolist()]
    # The move over the horizon: late by that much, it is the label.
    over_horizon = example.indicators.get("change10", 0.0)
    if len(closes) > example.horizon:
        over_horizon = float(closes[-1] - closes[-1 - example.horizon])
    features.append(float(np.sign(over_horizon)))
    for name in _FEATURES:
        value = example.indicators.get(name, float("nan"))
        if name in indicators.DOLLARS:
            value /= closes[-1]
        features.append(0.0 if isnan(value) else value)
    return features


def _linear(x: Values, y: Values, x_tested: Values) -> Values:
    """Least squares with a little ridge on standardised features.

    Args:
        x: (N, F) training features.
        y: (N,) ±1.
        x_tested: (M, F).

    Returns:
        (M,) scores.
    """
    mean, std = x.mean(axis=0), x.std(axis=0)
    std = np.where(std > 0, std, 1.0)
    scaled = (x - mean) / std
    gram = scaled.T @ scaled + 1e-3 * len(x) * np.eye(x.shape[1])
    weights = np.linalg.solve(gram, scaled.T @ (y - y.mean()))
    scores: Values = (x_tested - mean) / std @ weights
    return scores


def _counted(
    name: str,
    proves: str,
    checked: int,
    offences: Sequence[str],
    things: str,
    remark: str = "",
) -> Check:
    """The verdict of a check that counts offences."""
    evidence = f"{len(offences):,} of {checked:,} {things} offend"
    if not checked:
        evidence = f"this source has no {things}"
    elif not offences:
        evidence = f"{checked:,} {things}"
    return Check(
        name,
        proves,
        "red" if offences else "green" if checked else "skipped",
        checked,
        len(offences),
        offences[0] if offences else None,
        f"{evidence}; {remark}" if remark else evidence,
    )


CHECKS: tuple[Callable[[Subject], Check], ...] = (
    known_at,
    posts,
    financials,
    future_prices,
    changed_future,
    labels_from_prices,
    calendar,
    unadjusted_splits,
    duplicates,
    chronology,
    embargo,
    scalers,
    label_shuffle,
    feature_shift,
)
"""In the order in which they are shown."""

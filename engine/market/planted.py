"""A made-up market whose next direction can be known, to prove that learning works.

The rule: every day has a headline, and with probability ``share`` the next day goes the way that it
tells. It stands in every prompt with news, so that whoever follows it is right in ``share`` of
all calls, and nobody can be right more often: prices are drawn independently of what was, so
that no baseline made of prices (always one side, momentum) is better than a coin.

Tickers come in pairs that move in opposite directions with sizes of their own, so that every
day has as many UP as DOWN. Moves towards a ticker's starting price are larger than moves
away from it, which keeps prices in bounds without touching a direction. The size of a day's
move varies around 1.2 %, as that of a large company does.

``shuffled`` keeps these very prices and permutes the labels of each ticker (see
``engine.market.labels.moves``): a market in which nothing can be predicted, to prove that a
score above chance came from the rule. Its labels are therefore not what its prices do next.
"""

import numpy as np
from numpy.typing import NDArray

from engine.market.history import Days, History, News, Texts, Values
from engine.market.quality import Market, Report, RowCount

NUM_TICKERS = 8
FIRST_DAY = np.datetime64("2015-01-02")
NUM_DAYS = 1560
"""Business days, about six years."""
_LOWEST_START, _HIGHEST_START = 80.0, 250.0
_TYPICAL_MOVE = 0.012
_SMALLEST_MOVE, _LARGEST_MOVE = 0.0015, 0.08
_PULL = 0.5
_BLOCK = 100
_TOLD_AT_HOUR = 14
"""UTC, in the morning of New York: a headline is known before its day closes."""

# In the words of the answer: a model of 135 million parameters links these to its call within the
# steps that a processor has time for, and "profits improve" not nearly.
_SAYINGS = (
    "Analysts call the shares {}",
    "Traders bet on {} for the shares",
    "A survey of managers says {}",
    "The morning letter says {} for tomorrow",
)
_HEADLINES = tuple(saying.format(side) for side in ("UP", "DOWN") for saying in _SAYINGS)


def load(*, share: float, seed: int, shuffled: bool, source: str) -> Market:
    """Make the market; the same arguments make the same one.

    Args:
        share: probability that a day goes the way the headline of the day before tells, 0.5
            to 1.
        seed: decides everything that is drawn.
        shuffled: permute the labels.
        source: the source string, for the result.
    """
    days = np.busday_offset(FIRST_DAY, np.arange(NUM_DAYS), roll="forward")
    histories = []
    for pair in range(NUM_TICKERS // 2):
        rng = np.random.default_rng([seed, pair])
        signs = rng.choice((-1.0, 1.0), NUM_DAYS)
        # What a headline tells is the direction of the day after; the last day has none.
        told = np.where(_truths(share, rng), 1.0, -1.0) * np.roll(signs, -1)
        for number, direction in ((2 * pair + 1, 1.0), (2 * pair + 2, -1.0)):
            histories.append(
                _history(
                    f"SYN{number}",
                    f"Synthetic {number}",
                    days,
                    signs * direction,
                    told * direction,
                    np.random.default_rng([seed, pair, number]),
                    shuffle_seed=seed + number if shuffled else None,
                )
            )
    rule = (
        "labels permuted: nothing can be predicted"
        if shuffled
        else f"a day goes the way of the last headline with probability {share:g}"
    )
    return Market(
        source=source,
        histories=tuple(histories),
        report=Report(
            description=f"synthetic daily prices of {NUM_TICKERS} tickers; {rule}",
            synthetic=True,
            rows=(RowCount("price rows", NUM_TICKERS * NUM_DAYS, ()),),
            splits=(),
            gaps=(),
        ),
    )


def _history(
    ticker: str,
    company: str,
    days: Days,
    signs: Values,
    told: Values,
    rng: np.random.Generator,
    *,
    shuffle_seed: int | None,
) -> History:
    count = len(signs)
    sizes = np.abs(rng.normal(0, _TYPICAL_MOVE, count)) + 0.002
    # Calm and lively weeks follow each other.
    mood = np.repeat(rng.lognormal(-0.06, 0.35, -(-count // 10)), 10)[:count]
    close = np.round(_walk(rng.uniform(_LOWEST_START, _HIGHEST_START), signs, sizes * mood), 2)
    before = np.concatenate([close[:1], close[:-1]])
    opening = np.round(before * (1 + rng.normal(0, 0.003, count)), 2)
    reach = np.abs(rng.normal(0, 0.004, (2, count)))
    high = np.round(np.maximum(opening, close) * (1 + reach[0]), 2)
    low = np.round(np.minimum(opening, close) * (1 - reach[1]), 2)
    return History(
        ticker=ticker,
        company=company,
        days=days,
        open=opening,
        high=high,
        low=low,
        close=close,
        volume=np.round(rng.lognormal(15.5, 0.35, count)),
        adjusted=close,
        split_ratio=np.ones(count),
        news=_news(days, told, rng),
        shuffle_seed=shuffle_seed,
    )


def _news(days: Days, told: Values, rng: np.random.Generator) -> News:
    """One headline a day: UP where ``told`` is above 0, else DOWN."""
    kind = rng.integers(len(_SAYINGS), size=len(days))
    return News(
        texts=Texts(_HEADLINES),
        first=np.arange(len(days) + 1),
        text=np.where(told > 0, kind, kind + len(_SAYINGS)).astype(np.int32),
        known_at=(days.astype("datetime64[h]") + _TOLD_AT_HOUR).astype("datetime64[s]"),
    )


def _truths(share: float, rng: np.random.Generator) -> NDArray[np.bool_]:
    """Which headlines come true: ``share`` of every ``_BLOCK`` days, at random.

    Free draws would leave the validation days of few tickers points away from ``share``.
    """
    blocks = np.tile(np.arange(_BLOCK) < round(share * _BLOCK), (-(-NUM_DAYS // _BLOCK), 1))
    return rng.permuted(blocks, axis=1).ravel()[:NUM_DAYS]


def _walk(start: float, signs: Values, sizes: Values) -> Values:
    """Closes whose moves have the given signs, and of ``sizes`` what the pull leaves."""
    closes = np.empty(len(signs))
    distance = 0.0
    for at, (sign, size) in enumerate(zip(signs.tolist(), sizes.tolist(), strict=True)):
        move = size * np.exp(-_PULL * sign * distance)
        distance += float(np.log1p(sign * np.clip(move, _SMALLEST_MOVE, _LARGEST_MOVE)))
        closes[at] = start * np.exp(distance)
    return closes

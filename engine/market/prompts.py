"""The prompt of a direction call, made from a list of facts.

The same facts are what the reward accepts as citations, so the text and the checker cannot
drift apart. Three styles show them: ``full``; ``compact``, whose wording is short because a
small model reads one token per digit; ``masked``, the full one without what tells the stock or
the time: names, dates, price level, share counts, news and financials.

A prompt fits its token budget: news gives way first, the oldest first, then the financials,
then the oldest days of prices.

Headlines, names and tickers are text that others wrote: they are folded to one line, cut, and
lose the brackets that chat templates and our own tags are made of, so that no data can open a
turn of the conversation.
"""

import datetime as dt
import string
import unicodedata
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import isfinite, isnan, nan
from typing import Literal, NamedTuple

from engine.market.calendar import NEW_YORK
from engine.market.example import Example
from engine.text import one_line

Style = Literal["full", "compact", "masked"]
Unit = Literal["", "%", "$", "K", "M", "B", "$K", "$M", "$B"]

SYSTEM = (
    "You call the direction of a stock's {outcome} from the data. Reply exactly:\n"
    "<think>reasons, citing the data</think>\n"
    "<answer>UP|DOWN x.x% confidence NN%</answer>"
)

BUDGET = 2048
"""Tokens that prompt and answer may take together."""

ANSWER_TOKENS = 256
"""Tokens of the budget kept for the answer."""

MESSAGE_TOKENS = 12
"""Room for what a chat template puts around one message: role, start and end of the turn."""

STATEMENT_LINES = (
    "Total Revenue",
    "Gross Profit",
    "Operating Income",
    "Net Income",
    "Basic EPS",
    "Diluted EPS",
)
"""Lines of an income statement that a prompt shows where they are known."""

_HEADLINE_CHARACTERS = 200
_COMPANY_CHARACTERS = 60
_TICKER_CHARACTERS = 12

# Look-alikes that no tokenizer reads as <|im_start|>, </s>, [INST] or <answer>.
_LOOK_ALIKES = (("<", "‹"), (">", "›"), ("[", "("), ("]", ")"))
_LETTERS = string.ascii_letters.encode()

_CLOSE_NAMES = ("close", "closed", "price")
_SMA_NAMES = ("sma", "moving average")
# "RSI is high at 67.8" speaks of no daily high.
_BAR_PRICES = (
    ("open", ("open", "opened")),
    ("high", ("high of",)),
    ("low", ("low of",)),
    ("close", _CLOSE_NAMES),
)
_DOLLAR_UNITS: dict[str, Unit] = {"K": "$K", "M": "$M", "B": "$B"}
_DAY_CHANGE_NAMES = ("day change", "daily change", "today")


class Fact(NamedTuple):
    """One thing the prompt states and a reader can check."""

    kind: Literal["name", "date", "value", "headline"]
    label: str
    """What it is, in the words of the prompt: ``RSI(14)``."""
    text: str
    """Exactly as the prompt writes it: ``66.1``, ``+1.2%``, ``$691.28``, ``21.4M``."""
    value: float | None = None
    """The number as shown, that is, rounded to ``decimals``; signed."""
    unit: Unit = ""
    decimals: int = 0
    names: tuple[str, ...] = ()
    """Lower-case words by which prose refers to it; for a company its names as written."""


@dataclass(frozen=True)
class Prompt:
    """Chat messages and the facts they state."""

    messages: tuple[Mapping[str, str], ...]
    facts: tuple[Fact, ...]
    dropped: tuple[str, ...] = ()
    """What the budget left no room for, such as ``3 of 8 headlines``."""

    @property
    def text(self) -> str:
        """All messages as one text."""
        return "\n".join(message["content"] for message in self.messages)


class _Piece(NamedTuple):
    """A stretch of the user's message, with the line break or space before it."""

    text: str
    facts: tuple[Fact, ...] = ()
    group: Literal["", "headlines", "statements", "days"] = ""
    """What the budget may leave it out as; empty for what always stays."""


class _Prices(NamedTuple):
    """How prices are written: in dollars, or masked, as plain numbers at another level."""

    masked: bool = False
    level: float = 1.0
    """What prices are multiplied by."""

    def fact(self, label: str, value: float, names: tuple[str, ...]) -> Fact:
        if self.masked:
            return _number(label, value * self.level, 2, names)
        return _dollars(label, value, names)

    def difference(self, label: str, value: float, names: tuple[str, ...]) -> Fact:
        return _number(label, value * self.level, 2, names)


def compose(
    example: Example,
    *,
    style: Style = "compact",
    budget: int = BUDGET,
    answer_tokens: int = ANSWER_TOKENS,
    count_tokens: Callable[[str], int] | None = None,
) -> Prompt:
    """The prompt of an example: everything it shows was known on the as-of day.

    Args:
        style: what is shown, see the module.
        budget: tokens that prompt and answer may take together.
        answer_tokens: those of them kept for the answer.
        count_tokens: counts the tokens of a text; without it ``estimated_tokens`` does. Two
            messages and ``MESSAGE_TOKENS`` for each are counted.

    Returns:
        A prompt within the budget, or the smallest there is: one day of prices and no news.
    """
    system = SYSTEM.format(outcome=_outcome(example.horizon))
    pieces = _compact(example) if style == "compact" else _full(example, masked=style == "masked")
    count = count_tokens or estimated_tokens
    room = budget - answer_tokens - 2 * MESSAGE_TOKENS - count(system)
    kept = pieces
    if count(_joined(pieces)) > room:
        removable = _removal_order(pieces)
        # Bisection: leaving more out never takes more tokens.
        fewest, most = min(1, len(removable)), len(removable)
        while fewest < most:
            middle = (fewest + most) // 2
            if count(_joined(_without(pieces, removable[:middle]))) <= room:
                most = middle
            else:
                fewest = middle + 1
        kept = _without(pieces, removable[:most])
    return Prompt(
        messages=(
            {"role": "system", "content": system},
            {"role": "user", "content": _joined(kept)},
        ),
        facts=tuple([fact for piece in kept for fact in piece.facts]),
        dropped=_dropped(pieces, kept),
    )


def estimated_tokens(text: str) -> int:
    """Tokens of a text for want of a tokenizer, on the high side for the usual vocabularies.

    Two Latin letters count as one token, and so does each digit, sign and line break, and each
    byte of any other character. English prose has four letters to a token or more, links,
    hashtags and tickers about two; of ten posts or a prompt, SmolLM2's vocabulary never made
    more tokens than this.
    """
    data = text.encode("utf-8", "replace")
    signs = data.translate(None, _LETTERS)
    num_signs = len(signs) - signs.count(b" ")
    return num_signs + -(-(len(data) - len(signs)) // 2)


def untrusted(text: str, limit: int) -> str:
    """Text from outside for use in a prompt: one line, at most ``limit`` characters, inert.

    Control characters become visible, and the brackets of chat-template tokens
    (``<|im_end|>``, ``[INST]``, ``</s>``) look-alikes, full-width forms of them included.
    """
    line = one_line(unicodedata.normalize("NFKC", text), limit)
    for bracket, look_alike in _LOOK_ALIKES:
        line = line.replace(bracket, look_alike)
    return line


def _joined(pieces: Sequence[_Piece]) -> str:
    return "".join([piece.text for piece in pieces])


def _removal_order(pieces: Sequence[_Piece]) -> list[int]:
    """Positions of the pieces that may go, the first to go first; one day always stays."""
    groups = [piece.group for piece in pieces]
    # Headlines stand newest first, days oldest first.
    headlines = [at for at, group in enumerate(groups) if group == "headlines"][::-1]
    statements = [at for at, group in enumerate(groups) if group == "statements"]
    days = [at for at, group in enumerate(groups) if group == "days"][:-1]
    return headlines + statements + days


def _without(pieces: Sequence[_Piece], positions: Sequence[int]) -> list[_Piece]:
    gone = set(positions)
    return [piece for at, piece in enumerate(pieces) if at not in gone]


def _dropped(pieces: Sequence[_Piece], kept: Sequence[_Piece]) -> tuple[str, ...]:
    if len(kept) == len(pieces):
        return ()
    before = Counter(piece.group for piece in pieces if piece.group)
    after = Counter(piece.group for piece in kept)
    return tuple(
        f"{total - after[group]} of {total} {group}"
        for group, total in before.items()
        if after[group] < total
    )


def _compact(example: Example) -> list[_Piece]:
    closes = [_dollars("close", bar.close, _CLOSE_NAMES) for bar in example.window]
    prices = _Prices()
    return [
        _identity(example),
        _Piece("\nCloses:"),
        *(_Piece(f" {fact.text}", (fact,), "days") for fact in closes),
        _listed(_changes(example)),
        *_volumes(example),
        _listed(
            [*_averages(example, prices), *_oscillators(example, prices), _volatility(example)]
        ),
        _Piece("\nUP or DOWN?"),
    ]


def _full(example: Example, *, masked: bool) -> list[_Piece]:
    prices = _Prices(masked, 100 / example.window[0].close if masked else 1.0)
    return [
        _Piece("A stock, prices rebased to 100") if masked else _identity(example),
        *_bars(example, prices),
        _listed(_changes(example)),
        *([] if masked else _volumes(example)),
        _listed(
            [*_averages(example, prices), *_oscillators(example, prices), _volatility(example)]
        ),
        *_more_indicators(example, prices),
        *_statistics(example, prices),
        *([] if masked else [*_financials(example), *_news(example)]),
        _Piece("\nUP or DOWN?"),
    ]


def _outcome(horizon: int) -> str:
    return "next close" if horizon == 1 else f"close in {horizon} trading days"


def _listed(facts: Sequence[Fact]) -> _Piece:
    line = ", ".join([f"{fact.label} {fact.text}" for fact in facts])
    return _Piece(f"\n{line[:1].upper()}{line[1:]}", tuple(facts))


def _identity(example: Example) -> _Piece:
    company = untrusted(example.company, _COMPANY_CHARACTERS)
    ticker = untrusted(example.ticker, _TICKER_CHARACTERS)
    date = example.as_of.isoformat()
    # A one-letter ticker is also a word of the language, so it cannot be recognised in prose.
    tickers = (ticker,) if len(ticker) > 1 else ()
    facts = (Fact("name", "ticker", ticker, names=tickers), Fact("date", "date", date))
    if company in ("", ticker):
        return _Piece(f"{ticker}, as of {date}", facts)
    name = Fact("name", "company", company, names=(company,))
    return _Piece(f"{company} ({ticker}), as of {date}", (name, *facts))


def _changes(example: Example) -> tuple[Fact, ...]:
    facts = [_percent("day change", example.day_change, _DAY_CHANGE_NAMES)]
    for key, days in (("change5", "5-day"), ("change10", "10-day")):
        if key in example.indicators:
            facts.append(_percent(f"{days} change", example.indicators[key], (days,)))
    return tuple(facts)


def _volumes(example: Example) -> list[_Piece]:
    facts = []
    volume = example.window[-1].volume
    if not isnan(volume):
        facts.append(_count("volume", volume, ("volume",)))
    if "volume20" in example.indicators:
        average = example.indicators["volume20"]
        facts.append(_count("average volume", average, ("average volume",)))
    return [_listed(facts)] if facts else []


def _averages(example: Example, prices: _Prices) -> list[Fact]:
    known = example.indicators
    return [prices.fact("SMA(20)", known["sma20"], _SMA_NAMES)] if "sma20" in known else []


def _oscillators(example: Example, prices: _Prices) -> list[Fact]:
    known = example.indicators
    facts = []
    if "rsi" in known:
        facts.append(_number("RSI(14)", known["rsi"], 1, ("rsi",)))
    if "macd" in known:
        facts.append(prices.difference("MACD", known["macd"], ("macd",)))
    return facts


def _volatility(example: Example) -> Fact:
    shown = round(example.sigma20, 1)
    return Fact("value", "volatility", f"{shown:.1f}%", shown, "%", 1, ("volatility",))


def _more_indicators(example: Example, prices: _Prices) -> list[_Piece]:
    """What the compact prompt leaves out; the middle Bollinger band is SMA(20)."""
    known = example.indicators
    trends = [
        prices.fact(label, known[key], names)
        for key, label, names in (
            ("sma", "SMA(14)", _SMA_NAMES),
            ("ema", "EMA(14)", ("ema",)),
            ("bbands_upper", "upper band", ("upper band", "upper bollinger band")),
            ("bbands_lower", "lower band", ("lower band", "lower bollinger band")),
        )
        if key in known
    ]
    if "mom" in known:
        trends.append(prices.difference("MOM(10)", known["mom"], ("mom", "momentum")))
    oscillators = [
        _number(label, known[key], 1, names)
        for key, label, names in (
            ("stoch_k", "stochastic K", ("stochastic k", "stochastic")),
            ("stoch_d", "stochastic D", ("stochastic d",)),
            ("willr", "WILLR(14)", ("willr", "williams")),
            ("cci", "CCI(14)", ("cci",)),
            ("adx", "ADX(14)", ("adx",)),
        )
        if key in known
    ]
    return [_listed(facts) for facts in (trends, oscillators) if facts]


def _bars(example: Example, prices: _Prices) -> list[_Piece]:
    """The table of recent days, with the columns that the source knows."""
    average = example.indicators.get("volume20") or nan
    columns: dict[str, list[Fact | None]] = {}
    for label, names in _BAR_PRICES:
        values = [getattr(bar, label) for bar in example.window]
        columns[label] = [None if isnan(v) else prices.fact(label, v, names) for v in values]
    volumes = [bar.volume for bar in example.window]
    if prices.masked:
        # The number of shares traded would tell the company.
        ratios = [volume / average for volume in volumes]
        columns["volume of 20-day average"] = [
            None if isnan(ratio) else _share("volume", ratio) for ratio in ratios
        ]
    else:
        columns["volume"] = [
            None if isnan(volume) else _count("volume", volume, ("volume",)) for volume in volumes
        ]
    columns = {heading: facts for heading, facts in columns.items() if any(facts)}
    pieces = [_Piece(f"\n{'Day' if prices.masked else 'Date'} {' '.join(columns)}")]
    rows = zip(*columns.values(), strict=True)
    for number, (bar, row) in enumerate(zip(example.window, rows, strict=True), start=1):
        known = tuple([fact for fact in row if fact])
        cells = " ".join([fact.text if fact else "-" for fact in row])
        if prices.masked:
            pieces.append(_Piece(f"\n{number} {cells}", known, "days"))
        else:
            date = Fact("date", "date", bar.date.isoformat())
            pieces.append(_Piece(f"\n{date.text} {cells}", (date, *known), "days"))
    return pieces


def _statistics(example: Example, prices: _Prices) -> list[_Piece]:
    """The closes of the window as numbers, and how returns echo themselves."""
    of_window = example.statistics
    lowest = prices.fact("lowest close", of_window.min, ("lowest", "minimum"))
    highest = prices.fact("highest close", of_window.max, ("highest", "maximum"))
    mean = prices.fact("mean", of_window.mean, ("mean", "average close"))
    median = prices.fact("median", of_window.median, ("median",))
    trend = prices.difference("trend", of_window.trend, ("trend",))
    days = [
        f"day {at + 1}" if prices.masked else example.window[at].date.isoformat()
        for at in (of_window.min_timestep, of_window.max_timestep)
    ]
    dates = [] if prices.masked else [Fact("date", "date", day) for day in days]
    pieces = [
        _Piece(
            f"\n{len(example.window)} days: lowest close {lowest.text} on {days[0]}, highest close"
            f" {highest.text} on {days[1]}, mean {mean.text}, median {median.text},"
            f" trend {trend.text}",
            (lowest, highest, mean, median, trend, *dates),
        )
    ]
    if of_window.lags:
        echoes = [
            _number(f"lag {lag.days}", lag.correlation, 2, (f"lag {lag.days}",))
            for lag in of_window.lags
        ]
        line = ", ".join([f"{fact.label} {fact.text}" for fact in echoes])
        pieces.append(_Piece(f"\nAutocorrelation of daily returns: {line}", tuple(echoes)))
    return pieces


def _financials(example: Example) -> list[_Piece]:
    statement = example.financials
    if statement is None:
        return []
    facts = [
        _amount(name.lower(), statement.values[name], (name.lower(), name.lower().split()[-1]))
        for name in STATEMENT_LINES
        if isfinite(statement.values.get(name, nan))
    ]
    if not facts:
        return []
    year_end = statement.fiscal_year_end.isoformat()
    known = _new_york_date(statement.known_at)
    line = ", ".join([f"{fact.label} {fact.text}" for fact in facts])
    dates = (Fact("date", "fiscal year end", year_end), Fact("date", "date", known))
    text = f"\nFiscal year to {year_end}, public by {known}: {line}"
    return [_Piece(text, (*dates, *facts), "statements")]


def _news(example: Example) -> list[_Piece]:
    """The headlines, newest first."""
    pieces: list[_Piece] = []
    # Many headlines share one moment, where a source knows no better.
    moment, date = None, ""
    for headline in reversed(example.headlines):
        text = untrusted(headline.text, _HEADLINE_CHARACTERS)
        if not text:
            continue
        if headline.known_at != moment:
            moment, date = headline.known_at, _new_york_date(headline.known_at)
        facts = (Fact("date", "date", date), Fact("headline", "headline", text))
        # The newest headline is the last to go, and the heading goes with it.
        opening = "\n" if pieces else "\nNews:\n"
        pieces.append(_Piece(f"{opening}{date} {text}", facts, "headlines"))
    return pieces


def _new_york_date(moment: dt.datetime) -> str:
    return moment.astimezone(NEW_YORK).date().isoformat()


def _percent(label: str, value: float, names: tuple[str, ...]) -> Fact:
    shown = round(value, 1) + 0.0  # adding 0 turns -0.0 into 0.0
    return Fact("value", label, f"{shown:+.1f}%", shown, "%", 1, names)


def _share(label: str, ratio: float) -> Fact:
    shown = round(ratio * 100)
    return Fact("value", label, f"{shown}%", shown, "%", 0, (label,))


def _dollars(label: str, value: float, names: tuple[str, ...]) -> Fact:
    text = f"{value:.2f}"
    return Fact("value", label, f"${text}", float(text), "$", 2, names)


def _number(label: str, value: float, decimals: int, names: tuple[str, ...]) -> Fact:
    shown = round(value, decimals) + 0.0
    return Fact("value", label, f"{shown:.{decimals}f}", shown, "", decimals, names)


def _count(label: str, value: float, names: tuple[str, ...]) -> Fact:
    size, unit = _size(value)
    text = f"{value / size:.1f}"
    return Fact("value", label, f"{text}{unit}", float(text), unit, 1, names)


def _amount(label: str, dollars: float, names: tuple[str, ...]) -> Fact:
    """Dollars of a statement: per share to the cent, else in thousands, millions or billions."""
    sign = "-" if dollars < 0 else ""
    if abs(dollars) < 1e3:
        shown = round(dollars, 2) + 0.0
        return Fact("value", label, f"{sign}${abs(shown):.2f}", shown, "$", 2, names)
    size, unit = _size(abs(dollars))
    shown = round(dollars / size, 1)
    text = f"{sign}${abs(shown):.1f}{unit}"
    return Fact("value", label, text, shown, _DOLLAR_UNITS[unit], 1, names)


def _size(value: float) -> tuple[float, Literal["K", "M", "B"]]:
    return (1e9, "B") if value >= 1e9 else (1e6, "M") if value >= 1e6 else (1e3, "K")

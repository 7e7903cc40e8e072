"""What an example shows, as the sections of a prompt with their facts."""

import datetime as dt
from collections.abc import Sequence
from math import isfinite, isnan, nan
from typing import Literal, NamedTuple

from engine.market.calendar import NEW_YORK
from engine.market.example import Example
from engine.market.facts import (
    Fact,
    Prices,
    amount,
    count,
    dollars,
    number,
    percent,
    share,
    untrusted,
)
from engine.market.market_share import SHARE_DAYS

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

_CLOSE_NAMES = ("close", "closed", "price")
_SMA_NAMES = ("sma", "moving average")
# "RSI is high at 67.8" speaks of no daily high.
_BAR_PRICES = (
    ("open", ("open", "opened")),
    ("high", ("high of",)),
    ("low", ("low of",)),
    ("close", _CLOSE_NAMES),
)
_DAY_CHANGE_NAMES = ("day change", "daily change", "today")


class Piece(NamedTuple):
    """A stretch of the user's message, with the line break or space before it."""

    text: str
    facts: tuple[Fact, ...] = ()
    group: Literal["", "headlines", "statements", "days"] = ""
    """What the budget may leave it out as; empty for what always stays."""


def identity(example: Example) -> Piece:
    company = untrusted(example.company, _COMPANY_CHARACTERS)
    ticker = untrusted(example.ticker, _TICKER_CHARACTERS)
    date = example.as_of.isoformat()
    # A one-letter ticker is also a word of the language, so it cannot be recognised in prose.
    tickers = (ticker,) if len(ticker) > 1 else ()
    facts = (Fact("name", "ticker", ticker, names=tickers), Fact("date", "date", date))
    if company in ("", ticker):
        return Piece(f"{ticker}, as of {date}", facts)
    name = Fact("name", "company", company, names=(company,))
    return Piece(f"{company} ({ticker}), as of {date}", (name, *facts))


def closes(example: Example) -> list[Piece]:
    """The closes of the window alone, in one line."""
    facts = [dollars("close", bar.close, _CLOSE_NAMES) for bar in example.window]
    return [Piece("\nCloses:"), *(Piece(f" {fact.text}", (fact,), "days") for fact in facts)]


def last_close(example: Example) -> Piece:
    """The close of the as-of day alone."""
    return _listed([dollars("close", example.window[-1].close, _CLOSE_NAMES)])


def changes(example: Example) -> Piece:
    facts = [percent("day change", example.day_change, _DAY_CHANGE_NAMES)]
    for key, days in (("change5", "5-day"), ("change10", "10-day")):
        if key in example.indicators:
            facts.append(percent(f"{days} change", example.indicators[key], (days,)))
    return _listed(facts)


def trading_volume(example: Example) -> list[Piece]:
    facts = []
    volume = example.window[-1].volume
    if not isnan(volume):
        facts.append(count("volume", volume, ("volume",)))
    if "volume20" in example.indicators:
        average = example.indicators["volume20"]
        facts.append(count("average volume", average, ("average volume",)))
    return [_listed(facts)] if facts else []


def main_indicators(example: Example, prices: Prices) -> Piece:
    """The indicators that every style shows."""
    return _listed(
        [*_averages(example, prices), *_oscillators(example, prices), _volatility(example)]
    )


def _averages(example: Example, prices: Prices) -> list[Fact]:
    known = example.indicators
    return [prices.fact("SMA(20)", known["sma20"], _SMA_NAMES)] if "sma20" in known else []


def _oscillators(example: Example, prices: Prices) -> list[Fact]:
    known = example.indicators
    facts = []
    if "rsi" in known:
        facts.append(number("RSI(14)", known["rsi"], 1, ("rsi",)))
    if "macd" in known:
        facts.append(prices.difference("MACD", known["macd"], ("macd",)))
    return facts


def _volatility(example: Example) -> Fact:
    shown = round(example.sigma20, 1)
    return Fact("value", "volatility", f"{shown:.1f}%", shown, "%", 1, ("volatility",))


def more_indicators(example: Example, prices: Prices) -> list[Piece]:
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
        number(label, known[key], 1, names)
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


def bars(example: Example, prices: Prices) -> list[Piece]:
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
            None if isnan(ratio) else share("volume", ratio) for ratio in ratios
        ]
    else:
        columns["volume"] = [
            None if isnan(volume) else count("volume", volume, ("volume",)) for volume in volumes
        ]
    columns = {heading: facts for heading, facts in columns.items() if any(facts)}
    pieces = [Piece(f"\n{'Day' if prices.masked else 'Date'} {' '.join(columns)}")]
    rows = zip(*columns.values(), strict=True)
    for nth, (bar, row) in enumerate(zip(example.window, rows, strict=True), start=1):
        known = tuple([fact for fact in row if fact])
        cells = " ".join([fact.text if fact else "-" for fact in row])
        if prices.masked:
            pieces.append(Piece(f"\n{nth} {cells}", known, "days"))
        else:
            date = Fact("date", "date", bar.date.isoformat())
            pieces.append(Piece(f"\n{date.text} {cells}", (date, *known), "days"))
    return pieces


def statistics(example: Example, prices: Prices) -> list[Piece]:
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
        Piece(
            f"\n{len(example.window)} days: lowest close {lowest.text} on {days[0]}, highest close"
            f" {highest.text} on {days[1]}, mean {mean.text}, median {median.text},"
            f" trend {trend.text}",
            (lowest, highest, mean, median, trend, *dates),
        )
    ]
    if of_window.lags:
        echoes = [
            number(f"lag {lag.days}", lag.correlation, 2, (f"lag {lag.days}",))
            for lag in of_window.lags
        ]
        line = ", ".join([f"{fact.label} {fact.text}" for fact in echoes])
        pieces.append(Piece(f"\nAutocorrelation of daily returns: {line}", tuple(echoes)))
    return pieces


def market_share(example: Example) -> list[Piece]:
    """How much of the market rose lately.

    A fact, as everything the prompt states, but without a percent sign: "55% sure" must not
    cite a share of 55 %, so prose has to name it.
    """
    if example.market_up_share is None:
        return []
    share_of_up = number("UP share", example.market_up_share, 2, ("up share", "market"))
    return [Piece(f"\nMarket, last {SHARE_DAYS} days: UP share {share_of_up.text}", (share_of_up,))]


def financials(example: Example) -> list[Piece]:
    statement = example.financials
    if statement is None:
        return []
    facts = [
        amount(name.lower(), statement.values[name], (name.lower(), name.lower().split()[-1]))
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
    return [Piece(text, (*dates, *facts), "statements")]


def news(example: Example) -> list[Piece]:
    """The headlines, newest first."""
    pieces: list[Piece] = []
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
        pieces.append(Piece(f"{opening}{date} {text}", facts, "headlines"))
    return pieces


def newest_headline(example: Example) -> list[Piece]:
    """The newest headline alone, in one line."""
    for headline in reversed(example.headlines):
        if text := untrusted(headline.text, _HEADLINE_CHARACTERS):
            return [Piece(f"\nNews: {text}", (Fact("headline", "headline", text),), "headlines")]
    return []


def _new_york_date(moment: dt.datetime) -> str:
    return moment.astimezone(NEW_YORK).date().isoformat()


def _listed(facts: Sequence[Fact]) -> Piece:
    line = ", ".join([f"{fact.label} {fact.text}" for fact in facts])
    return Piece(f"\n{line[:1].upper()}{line[1:]}", tuple(facts))

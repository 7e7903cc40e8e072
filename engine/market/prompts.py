"""The prompt of a direction call, made from a list of facts.

The same facts are what the reward accepts as citations, so the text and the checker cannot
drift apart. The wording is short on purpose: a small model reads one token per digit.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from engine.market.example import Example

SYSTEM = (
    "You call the direction of a stock's {outcome} from the data. Reply exactly:\n"
    "<think>reasons, citing the data</think>\n"
    "<answer>UP|DOWN x.x% confidence NN%</answer>"
)


@dataclass(frozen=True)
class Fact:
    """One thing the prompt states and a reader can check."""

    kind: Literal["name", "date", "value"]
    label: str
    """What it is, in the words of the prompt: ``RSI(14)``."""
    text: str
    """Exactly as the prompt writes it: ``66.1``, ``+1.2%``, ``$691.28``, ``21.4M``."""
    value: float | None = None
    """The number as shown, that is, rounded to ``decimals``; signed."""
    unit: Literal["", "%", "$", "K", "M", "B"] = ""
    decimals: int = 0
    names: tuple[str, ...] = ()
    """Lower-case words by which prose refers to it; for a company its names as written."""


@dataclass(frozen=True)
class Prompt:
    """Chat messages and the facts they state."""

    messages: tuple[Mapping[str, str], ...]
    facts: tuple[Fact, ...]

    @property
    def text(self) -> str:
        """All messages as one text."""
        return "\n".join(message["content"] for message in self.messages)


def compose(example: Example) -> Prompt:
    """The prompt of an example: everything it shows was known on the as-of day."""
    name, ticker, date = _identity(example)
    closes = [_dollars("close", bar.close, "close", "closed", "price") for bar in example.window]
    changes = _changes(example)
    volumes = _volumes(example)
    indicators = _indicators(example)
    lines = (
        f"{name.text} ({ticker.text}), as of {date.text}",
        "Closes: " + " ".join(fact.text for fact in closes),
        _listed(changes),
        _listed(volumes),
        _listed(indicators),
        "UP or DOWN?",
    )
    return Prompt(
        messages=(
            {"role": "system", "content": SYSTEM.format(outcome=_outcome(example.horizon))},
            {"role": "user", "content": "\n".join(lines)},
        ),
        facts=(name, ticker, date, *closes, *changes, *volumes, *indicators),
    )


def _outcome(horizon: int) -> str:
    return "next close" if horizon == 1 else f"close in {horizon} trading days"


def _listed(facts: tuple[Fact, ...]) -> str:
    line = ", ".join(f"{fact.label} {fact.text}" for fact in facts)
    return line[:1].upper() + line[1:]


def _identity(example: Example) -> tuple[Fact, Fact, Fact]:
    # A one-letter ticker is also a word of the language, so it cannot be recognised in prose.
    tickers = (example.ticker,) if len(example.ticker) > 1 else ()
    return (
        Fact("name", "company", example.company, names=(example.company,)),
        Fact("name", "ticker", example.ticker, names=tickers),
        Fact("date", "date", example.as_of.isoformat()),
    )


def _changes(example: Example) -> tuple[Fact, ...]:
    facts = [_percent("day change", example.day_change, "day change", "daily change", "today")]
    for key, days in (("change5", "5-day"), ("change10", "10-day")):
        if key in example.indicators:
            facts.append(_percent(f"{days} change", example.indicators[key], days))
    return tuple(facts)


def _volumes(example: Example) -> tuple[Fact, ...]:
    facts = [_count("volume", example.window[-1].volume, "volume")]
    if "volume20" in example.indicators:
        facts.append(_count("average volume", example.indicators["volume20"], "average volume"))
    return tuple(facts)


def _indicators(example: Example) -> tuple[Fact, ...]:
    known = example.indicators
    facts = []
    if "sma20" in known:
        facts.append(_dollars("SMA(20)", known["sma20"], "sma", "moving average"))
    if "rsi14" in known:
        facts.append(_number("RSI(14)", known["rsi14"], 1, "rsi"))
    if "macd" in known:
        facts.append(_number("MACD", known["macd"], 2, "macd"))
    shown = round(example.sigma20, 1)
    facts.append(
        Fact("value", "volatility", f"{shown:.1f}%", shown, "%", decimals=1, names=("volatility",))
    )
    return tuple(facts)


def _percent(label: str, value: float, *names: str) -> Fact:
    shown = round(value, 1) + 0.0  # adding 0 turns -0.0 into 0.0
    return Fact("value", label, f"{shown:+.1f}%", shown, "%", decimals=1, names=names)


def _dollars(label: str, value: float, *names: str) -> Fact:
    shown = round(value, 2)
    return Fact("value", label, f"${shown:.2f}", shown, "$", decimals=2, names=names)


def _number(label: str, value: float, decimals: int, *names: str) -> Fact:
    shown = round(value, decimals) + 0.0
    return Fact("value", label, f"{shown:.{decimals}f}", shown, "", decimals, names)


def _count(label: str, value: float, *names: str) -> Fact:
    unit: Literal["K", "M", "B"]
    unit, size = ("B", 1e9) if value >= 1e9 else ("M", 1e6) if value >= 1e6 else ("K", 1e3)
    shown = round(value / size, 1)
    return Fact("value", label, f"{shown:.1f}{unit}", shown, unit, decimals=1, names=names)

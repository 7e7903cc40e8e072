"""Completions with the rewards that they must earn, worked out by hand.

ALFA is called on 2014-03-27 at $100.00 and goes UP 1.00 % the day after, BETA at $100.00 and
goes DOWN 2.00 %. Until then both closed at $100.00 and $100.20 in turn, so σ20 is about 0.2
points, below the floor of 0.5: the magnitude is 1 - min(1, |predicted - actual|).

The compact prompt of ALFA, whose facts are what data use counts::

    ALFA, as of 2014-03-27
    Closes: $100.20 $100.00 $100.20 $100.00 $100.20 $100.00 $100.20 $100.00 $100.20 $100.00
    Day change -0.2%, 5-day change -0.2%, 10-day change +0.0%
    Volume 1.0M, average volume 1.0M
    SMA(20) $100.10, volatility 0.2%
    UP or DOWN?

Confidence, right 1 - 1.3 (1-q)² and wrong -0.2 - 1.3 q²:

    q      0 %     2 %       50 %    60 %    70 %    75 %     80 %    100 %
    right  -0.3    -0.24852  0.675   0.792   0.883   0.91875  0.948    1
    wrong  -0.2    -0.20052  -0.525  -0.668  -0.837                   -1.5

    stage1 = .20 format + .35 direction + .20 magnitude + .10 confidence + .15 data use
    stage2 =              .25 direction + .20 magnitude + .25 confidence + .30 data use
"""

from pathlib import Path
from typing import NamedTuple

from tests.market_files import rows, write_csv

AS_OF = "2014-03-27"


class Case(NamedTuple):
    """A completion, the value of each component, and the reward in both stages."""

    ticker: str
    completion: str
    format: float
    direction: float
    magnitude: float
    confidence: float
    data_use: float
    coherence: float
    stage1: float
    stage2: float


def write_prices(folder: Path) -> str:
    """Write the prices of both tickers; returns the source string."""
    for ticker, following in (("ALFA", 101.0), ("BETA", 98.0)):
        table = rows(120)
        for at, row in enumerate(table):
            close = 100.0 if at % 2 == 0 else 100.2
            if at > 60:
                close += following - 100.2 if at % 2 else following - 100.0
            prices = {"Open": close, "High": close + 1, "Low": close - 1}
            row |= {**prices, "Close": close, "Adj Close": close, "Volume": 1_000_000}
        write_csv(folder, ticker, table)
    return f"ohlcv:{folder}"


def _said(reasoning: str, answer: str) -> str:
    return f"<think>{reasoning}</think>\n<answer>{answer}</answer>"


WEAK = "It looks strong."
"""Cites nothing, concludes nothing, three words: a quarter of coherence, for no repetition."""

BRIEF = "ALFA closed at $100.00 above its volatility of 0.2%. I expect UP."
"""Three facts and the conclusion UP in 14 words: .8 and three quarters."""

WHOLE = (
    f"ALFA closed at $100.00 on {AS_OF}, with SMA(20) at $100.10 and volatility of 0.2%. The day"
    " change of -0.2% is small against that, so I expect the next close to be UP."
)
"""Six facts, then the conclusion UP, over 20 words: 1 and 1."""

PASTED = (
    f"ALFA, as of {AS_OF}\n"
    "Closes: $100.20 $100.00 $100.20 $100.00 $100.20 $100.00 $100.20 $100.00 $100.20 $100.00\n"
    "Day change -0.2%, 5-day change -0.2%, 10-day change +0.0%\n"
    "Volume 1.0M, average volume 1.0M\n"
    "SMA(20) $100.10, volatility 0.2%\n"
    "UP or DOWN?"
)
"""Copied to the last word. Its last side is DOWN; of its 56 3-grams 18 stand there before (14 of
the closes, "change 0 2", twice "day change 0", "volume 1 0M"), so 38 are distinct, below 39.2:
half."""

SYSTEM = (
    "Reply exactly:\n<think>reasons, citing the data</think>\n"
    "<answer>UP|DOWN x.x% confidence NN%</answer>"
)

GUESSES = " ".join(f"{tenths / 10:.1f}%" for tenths in range(30))
"""0.0% to 2.9%: two are true (0.0 and 0.2), and 28 untrue ones are more than two and four."""

SIXTY = "UP 1.0% confidence 60%"

TABLE: dict[str, Case] = {
    # Good.
    "all there is to earn": Case(
        "ALFA", _said(WHOLE, "UP 1.0% confidence 100%"), 1, 1, 1, 1, 1, 1, 1.0, 1.0
    ),
    "good and honest": Case(
        "ALFA", _said(WHOLE, "UP 0.8% confidence 60%"), 1, 1, 0.8, 0.792, 1, 1, 0.9392, 0.908
    ),
    "brief": Case(
        "ALFA", _said(BRIEF, "UP 1.5% confidence 80%"),
        1, 1, 0.5, 0.948, 0.8, 0.75, 0.8648, 0.827,
    ),
    "right side, down": Case(
        "BETA", _said("It looks weak.", "DOWN -2.5% confidence 70%"),
        1, 1, 0.5, 0.883, 0, 0.25, 0.7383, 0.57075,
    ),
    "sure and right, down": Case(
        "BETA", _said("BETA looks weak.", "DOWN -2.0% confidence 100%"),
        1, 1, 1, 1, 0.33, 0.25, 0.8995, 0.799,
    ),
    "range": Case(
        "ALFA", _said(WEAK, "up by 1-2%, 60% confident"),
        1, 1, 0.5, 0.792, 0, 0.25, 0.7292, 0.548,
    ),
    "fields on lines": Case(
        "ALFA", f"<think>{WEAK}</think>\nDirection: UP\nChange: 1.0%\nConfidence: 80%",
        1, 1, 1, 0.948, 0, 0.25, 0.8448, 0.687,
    ),
    "confidence in a tag": Case(
        "ALFA", f"{_said(WEAK, 'up 1.0%')} <confidence>75%</confidence>",
        1, 1, 1, 0.91875, 0, 0.25, 0.841875, 0.6796875,
    ),
    "one fact": Case(
        "ALFA", _said("ALFA looks strong.", SIXTY), 1, 1, 1, 0.792, 0.33, 0.25, 0.8787, 0.747
    ),
    "two facts": Case(
        "ALFA", _said("ALFA at $100.00 looks strong.", SIXTY),
        1, 1, 1, 0.792, 0.6, 0.25, 0.9192, 0.828,
    ),
    # Bad.
    "wrong side": Case(
        "ALFA", _said(WHOLE, "DOWN 0.8% confidence 60%"),
        1, 0, 0, -0.668, 1, 0.75, 0.2832, 0.133,
    ),
    "wrong side, up": Case(
        "BETA", _said("It looks weak.", "UP 2.0% confidence 70%"),
        1, 0, 0, -0.837, 0, 0.25, 0.1163, -0.20925,
    ),
    "concludes the other side": Case(
        "ALFA",
        _said("ALFA closed at $100.00 with volatility of 0.2%, so I expect it to go DOWN.", SIXTY),
        1, 1, 1, 0.792, 0.8, 0.5, 0.9492, 0.888,
    ),
    "no reasoning": Case(
        "ALFA", f"<answer>{SIXTY}</answer>", 0.5, 1, 1, 0.792, 0, 0, 0.7292, 0.648
    ),
    "no percent": Case(
        "ALFA", _said(WEAK, "UP confidence 70%"), 0.5, 1, 0, 0.883, 0, 0.25, 0.5383, 0.47075
    ),
    "no confidence": Case(
        "ALFA", _said(WEAK, "UP 1.0%"), 0.5, 1, 1, -1.5, 0, 0.25, 0.5, 0.075
    ),
    "reasoning without an answer": Case(
        "ALFA", f"<think>{BRIEF}</think>", 0, 0, 0, -1.5, 0.8, 0.5, -0.03, -0.135
    ),
    "no move at all": Case(
        "ALFA", _said(WEAK, "UP 0% confidence 50%"), 1, 1, 0, 0.675, 0, 0.25, 0.6175, 0.41875
    ),
    "a false price": Case(
        "ALFA", _said("ALFA closed at $100.50.", SIXTY),
        1, 1, 1, 0.792, 0.33, 0.25, 0.8787, 0.747,
    ),
    "invented numbers": Case(
        "ALFA",
        _said("It closed at $101.37, RSI 71.2%, volume 9.9M and a change of 3.3%.", SIXTY),
        1, 1, 1, 0.792, 0, 0.25, 0.8292, 0.648,
    ),
    "confidence without a percent sign": Case(
        "ALFA", _said(WEAK, "UP 1.0% confidence 0.6"), 0.5, 1, 1, -1.5, 0, 0.25, 0.5, 0.075
    ),
    "silence": Case("ALFA", "", 0, 0, 0, -1.5, 0, 0, -0.15, -0.375),
    # Gamed.
    "empty think": Case(
        "ALFA", _said("", SIXTY), 0.5, 1, 1, 0.792, 0, 0, 0.7292, 0.648
    ),
    "think of blanks": Case(
        "ALFA", _said(" \n\t ", SIXTY), 0.5, 1, 1, 0.792, 0, 0, 0.7292, 0.648
    ),
    "the prompt pasted": Case(
        "ALFA", _said(PASTED, SIXTY), 1, 1, 1, 0.792, 0, 0.5, 0.8292, 0.648
    ),
    "the instruction pasted": Case(
        "ALFA", _said(SYSTEM, SIXTY), 0, 0, 0, -1.5, 0, 0.25, -0.15, -0.375
    ),
    "number spam": Case(
        "ALFA", _said(GUESSES, SIXTY), 1, 1, 1, 0.792, 0, 0.5, 0.8292, 0.648
    ),
    "facts repeated": Case(
        "ALFA", _said("ALFA " * 8 + "$100.00 " * 3, SIXTY),
        1, 1, 1, 0.792, 0.6, 0, 0.9192, 0.828,
    ),
    "two answers": Case(
        "ALFA", _said(BRIEF, SIXTY) + "<answer>DOWN 1.0% confidence 60%</answer>",
        0, 0, 0, -1.5, 0.8, 0.5, -0.03, -0.135,
    ),
    "the same answer twice": Case(
        "ALFA", _said(BRIEF, SIXTY) + f"<answer>{SIXTY}</answer>",
        0.5, 1, 1, 0.792, 0.8, 0.75, 0.8492, 0.888,
    ),
    "both sides in one answer": Case(
        "ALFA", _said(WEAK, "UP or DOWN 1.0% confidence 60%"),
        0, 0, 0, -1.5, 0, 0.25, -0.15, -0.375,
    ),
    "up with a minus": Case(
        "ALFA", _said(WEAK, "UP -1.0% confidence 60%"), 0, 0, 0, -1.5, 0, 0.25, -0.15, -0.375
    ),
    "down with a plus": Case(
        "BETA", _said(WEAK, "DOWN +2.0% confidence 60%"), 0, 0, 0, -1.5, 0, 0.25, -0.15, -0.375
    ),
    "999 percent": Case(
        "ALFA", _said(WEAK, "UP 999% confidence 60%"), 1, 1, 0, 0.792, 0, 0.25, 0.6292, 0.448
    ),
    "a percent of seven digits": Case(
        "ALFA", _said(WEAK, "UP 9999999% confidence 60%"),
        0.5, 1, 0, 0.792, 0, 0.25, 0.5292, 0.448,
    ),
    "0 % sure and right": Case(
        "ALFA", _said(WEAK, "UP 1.0% confidence 0%"), 1, 1, 1, -0.3, 0, 0.25, 0.72, 0.375
    ),
    "0 % sure and wrong": Case(
        "ALFA", _said(WEAK, "DOWN 1.0% confidence 0%"), 1, 0, 0, -0.2, 0, 0.25, 0.18, -0.05
    ),
    "2 % sure and right": Case(
        "ALFA", _said(WEAK, "UP 1.0% confidence 2%"),
        1, 1, 1, -0.24852, 0, 0.25, 0.725148, 0.38787,
    ),
    "2 % sure and wrong": Case(
        "ALFA", _said(WEAK, "DOWN 1.0% confidence 2%"),
        1, 0, 0, -0.20052, 0, 0.25, 0.179948, -0.05013,
    ),
    "100 % sure and wrong": Case(
        "ALFA", _said(WEAK, "DOWN 1.0% confidence 100%"), 1, 0, 0, -1.5, 0, 0.25, 0.05, -0.375
    ),
    "101 % sure": Case(
        "ALFA", _said(WEAK, "UP 1.0% confidence 101%"), 0.5, 1, 1, -1.5, 0, 0.25, 0.5, 0.075
    ),
    # Hostile.
    "tags inside tags": Case(
        "ALFA", f"<think><think>x</think></think><answer>{SIXTY}</answer>",
        0.5, 1, 1, 0.792, 0, 0.25, 0.7292, 0.648,
    ),
    "the answer inside the think": Case(
        "ALFA", f"<think><answer>{SIXTY}</answer></think>",
        0.5, 1, 1, 0.792, 0, 0.5, 0.7292, 0.648,
    ),
    "a think that never ends": Case(
        "ALFA", f"<think>x<answer>{SIXTY}</answer>", 0.5, 1, 1, 0.792, 0, 0, 0.7292, 0.648
    ),
    "full-width letters": Case(
        "ALFA", _said(WEAK, "\uff35\uff30 1.0% confidence 60%"),
        0, 0, 0, -1.5, 0, 0.25, -0.15, -0.375,
    ),
    "a letter that cannot be seen": Case(
        "ALFA", _said(WEAK, "U\u200bP 1.0% confidence 60%"),
        0, 0, 0, -1.5, 0, 0.25, -0.15, -0.375,
    ),
    "right to left": Case(
        "ALFA", _said("\u202eALFA looks strong.", SIXTY),
        1, 1, 1, 0.792, 0.33, 0.25, 0.8787, 0.747,
    ),
    "markup and a window title": Case(
        "ALFA", _said("[red]\x1b]0;x\x07ALFA[/red]", SIXTY),
        1, 1, 1, 0.792, 0.33, 0.25, 0.8787, 0.747,
    ),
    "200,000 digits": Case("ALFA", "9" * 200_000, 0, 0, 0, -1.5, 0, 0, -0.15, -0.375),
    "a million characters of tags": Case(
        "ALFA", "<answer>" * 125_000, 0, 0, 0, -1.5, 0, 0, -0.15, -0.375
    ),
}  # fmt: skip

"""The prompt of a direction call, made from a list of facts.

The same facts are what the reward accepts as citations, so the text and the checker cannot
drift apart. Four styles show them: ``full``; ``compact``, whose wording is short because a
small model reads one token per digit; ``brief``, the last close, the changes and the newest
headline; ``masked``, the full one without what tells the stock or the time: names, dates, price
level, share counts, news and financials.

A prompt fits its token budget: news gives way first, the oldest first, then the financials,
then the oldest days of prices.
"""

import string
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from engine.market import sections
from engine.market.example import Example
from engine.market.facts import Fact, Prices
from engine.market.sections import Piece

Style = Literal["full", "compact", "brief", "masked"]

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

_LETTERS = string.ascii_letters.encode()


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
    pieces = _pieces(example, style)
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


def _joined(pieces: Sequence[Piece]) -> str:
    return "".join([piece.text for piece in pieces])


def _removal_order(pieces: Sequence[Piece]) -> list[int]:
    """Positions of the pieces that may go, the first to go first; one day always stays."""
    groups = [piece.group for piece in pieces]
    # Headlines stand newest first, days oldest first.
    headlines = [at for at, group in enumerate(groups) if group == "headlines"][::-1]
    statements = [at for at, group in enumerate(groups) if group == "statements"]
    days = [at for at, group in enumerate(groups) if group == "days"][:-1]
    return headlines + statements + days


def _without(pieces: Sequence[Piece], positions: Sequence[int]) -> list[Piece]:
    gone = set(positions)
    return [piece for at, piece in enumerate(pieces) if at not in gone]


def _dropped(pieces: Sequence[Piece], kept: Sequence[Piece]) -> tuple[str, ...]:
    if len(kept) == len(pieces):
        return ()
    before = Counter(piece.group for piece in pieces if piece.group)
    after = Counter(piece.group for piece in kept)
    return tuple(
        f"{total - after[group]} of {total} {group}"
        for group, total in before.items()
        if after[group] < total
    )


def _pieces(example: Example, style: Style) -> list[Piece]:
    match style:
        case "compact":
            return _compact(example)
        case "brief":
            return _brief(example)
        case "full" | "masked":
            return _full(example, masked=style == "masked")


def _brief(example: Example) -> list[Piece]:
    return [
        sections.identity(example),
        sections.last_close(example),
        sections.changes(example),
        *sections.market_share(example),
        *sections.newest_headline(example),
        Piece("\nUP or DOWN?"),
    ]


def _compact(example: Example) -> list[Piece]:
    return [
        sections.identity(example),
        *sections.closes(example),
        sections.changes(example),
        *sections.trading_volume(example),
        sections.main_indicators(example, Prices()),
        *sections.market_share(example),
        *sections.newest_headline(example),
        Piece("\nUP or DOWN?"),
    ]


def _full(example: Example, *, masked: bool) -> list[Piece]:
    prices = Prices(masked, 100 / example.window[0].close if masked else 1.0)
    return [
        Piece("A stock, prices rebased to 100") if masked else sections.identity(example),
        *sections.bars(example, prices),
        sections.changes(example),
        *([] if masked else sections.trading_volume(example)),
        sections.main_indicators(example, prices),
        *sections.more_indicators(example, prices),
        *sections.statistics(example, prices),
        *sections.market_share(example),
        *([] if masked else [*sections.financials(example), *sections.news(example)]),
        Piece("\nUP or DOWN?"),
    ]


def _outcome(horizon: int) -> str:
    return "next close" if horizon == 1 else f"close in {horizon} trading days"

"""A citation is true or it is none."""

import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.market import demo
from engine.market.dataset import Dataset
from engine.market.facts import Fact
from engine.market.prompts import Prompt, compose
from engine.rewards.facts import citations, untrue_numbers, verbatim_share


def prompt_of(key: str) -> Prompt:
    market = Dataset(
        demo.load(), window=10, horizon=1, train_share=0.7, validation_share=0.15, embargo=5
    )
    return compose(market.find(key))


PROMPT = prompt_of("AAPL:2012-09-14")
"""Closes up to $691.28, day +1.2%, 5-day +1.6%, 10-day +4.1%, volume 21.4M on 16.4M,
SMA(20) $669.32, RSI(14) 67.8, MACD 13.76, volatility 1.4%."""

TRUE = [
    ("AAPL looks strong", ["ticker"]),
    ("Apple looks strong", ["company"]),
    ("Apple (AAPL), that is AAPL", ["company"]),
    ("on 2012-09-14", ["date"]),
    ("on September 14, 2012", ["date"]),
    ("on 14 Sept 2012", ["date"]),
    ("it closed at $691.28", ["close"]),
    ("it closed at 691.28", ["close"]),
    ("it closed at 691.3 dollars", ["close"]),
    ("the close is $691", ["close"]),
    ("from $682.98 to $691.28", ["close", "close"]),
    ("RSI(14) at 67.8", ["RSI(14)"]),
    ("an RSI of 68", ["RSI(14)"]),
    ("67.8 RSI", ["RSI(14)"]),
    ("macd 13.76", ["MACD"]),
    ("SMA(20) of 669.32", ["SMA(20)"]),
    ("above its moving average of $669.32", ["SMA(20)"]),
    ("it rose 1.2%", ["day change"]),
    ("a day change of +1.2 %", ["day change"]),
    ("volume 21.4M", ["volume"]),
    ("21.4 million shares", ["volume"]),
    ("average volume of 16.4M", ["average volume"]),
    ("10-day change +4.1 percent", ["10-day change"]),
    ("volatility of 1.4%", ["volatility"]),
    ("RSI(14) 67.8, MACD 13.76 and volatility 1.4%", ["RSI(14)", "MACD", "volatility"]),
    ("1.2% 1.2% 1.2%", ["day change"]),
    ("it fell to $662.74", ["close"]),
    ("volatility fell to 1.4%", ["volatility"]),
]


@pytest.mark.parametrize(("reasoning", "labels"), TRUE)
def test_a_true_citation_is_found_once(reasoning: str, labels: list[str]) -> None:
    cited = citations(reasoning, PROMPT.facts)
    assert [citation.fact.label for citation in cited] == labels
    for citation in cited:
        span = reasoning[citation.start : citation.end]
        assert span.strip()
        assert any(character.isalnum() for character in span)


FALSE = [
    "",
    "aapl snapple applesauce AAPLX",
    "on 2012-09-13",
    "on 2012-09-141",
    "on February 31, 2012",
    "it closed at $691.29",
    "it closed at $690",
    "it closed at 691.281",
    "691.28",  # neither unit nor name
    "67.8",
    "67.8%",
    "RSI(14) 66.1",
    "RSI(14)",
    "SMA(20)",
    "the 14 of RSI, the 20-day and 5-day and 10 days",
    "MACD(12,26,9)",
    "MACD -13.76",
    "it fell 1.2%",
    "-1.2%",
    "1.23%",
    "volume 21.4K",
    "volume 1691.28",
    "$1,691.28",
    "v1.2%",
    "1.2.3%",
    "a 12% gain",
    "$0691.2800000000000001",
    "9" * 40 + "%",
]


@pytest.mark.parametrize("reasoning", FALSE)
def test_a_false_citation_is_none(reasoning: str) -> None:
    assert citations(reasoning, PROMPT.facts) == ()


@pytest.mark.parametrize(
    ("reasoning", "count"),
    [
        ("", 0),
        ("it closed at $691.28, up 1.2%", 0),
        ("it closed at $690", 1),
        ("RSI(14) 66.1 and MACD 13.76", 1),
        ("I expect 0.8% with 60% confidence", 2),
        ("on 2012-09-13, in 5 days, RSI(15)", 0),
        ("42 of them", 0),
        ("42 of them, RSI says", 1),
        ("0.1% 0.2% 0.3% 0.4%", 4),
        ("5% " * 500, 400),
    ],
)
def test_numbers_that_the_prompt_does_not_hold_are_counted(reasoning: str, count: int) -> None:
    assert untrue_numbers(reasoning, PROMPT.facts) == count


def test_a_thousands_comma_is_read() -> None:
    fact = Fact("value", "close", "$1234.50", 1234.5, "$", decimals=2, names=("close",))
    assert len(citations("at $1,234.50", [fact])) == 1


def test_a_negative_change_may_be_told_in_words() -> None:
    fact = Fact("value", "day change", "-1.2%", -1.2, "%", decimals=1, names=("day change",))
    assert citations("it fell 1.2%", [fact])
    assert citations("a loss of 1.2%", [fact])
    assert citations("a day change of 1.2%", [fact])
    assert citations("-1.2%", [fact])
    assert not citations("it rose 1.2%", [fact])
    assert not citations("+1.2%", [fact])


def test_a_one_letter_ticker_is_no_word() -> None:
    facts = (Fact("name", "ticker", "A"),)
    assert citations("A good day", facts) == ()


def test_every_fact_of_a_prompt_can_be_cited_as_the_prompt_writes_it() -> None:
    line = PROMPT.messages[1]["content"]
    cited = citations(line, PROMPT.facts)
    # Company and ticker count once together.
    assert len(cited) == len(PROMPT.facts) - 1


HEADLINES = [
    Fact("headline", "headline", "Apple unveils the iPhone 5 in San Francisco"),
    Fact("headline", "headline", "Samsung unveils the iPhone 5 rival"),
    Fact("headline", "headline", "Stocks rally again"),
]


@pytest.mark.parametrize(
    ("reasoning", "cited"),
    [
        ("News says Apple unveils the iPhone today", [0]),
        ("apple UNVEILS, the: iphone", [0]),
        ("it says 'unveils the iPhone 5' for sure", [0]),  # shared words count for one
        ("the iPhone 5 rival of Samsung", [1]),
        ("Apple unveils the iPhone 5 in San Francisco", [0]),
        ("the iPhone 5 rival; iPhone 5 in San", [1, 0]),
        ("Apple unveils the phone", []),
        ("Apple unveils a new iPhone 5 in the city", []),
        ("stocks rally again", []),  # too short to be quoted
        ("xApple unveils the iPhone", []),
        ("", []),
    ],
)
def test_four_words_of_a_headline_in_a_row_cite_it(reasoning: str, cited: list[int]) -> None:
    found = citations(reasoning, HEADLINES)
    assert [HEADLINES.index(citation.fact) for citation in found] == cited
    for citation in found:
        assert len(reasoning[citation.start : citation.end].split()) == 4


@pytest.mark.parametrize(
    ("reasoning", "is_true"),
    [
        ("$365.8B", True),
        ("$366 billion", True),
        ("a revenue of 365.8 billion", True),
        ("$365.8", False),
        ("$365.8M", False),
        ("365.8 billion", False),
        ("365.8B shares", False),
    ],
)
def test_dollars_of_a_statement_are_cited_with_their_size(reasoning: str, is_true: bool) -> None:
    names = ("total revenue", "revenue")
    fact = Fact("value", "total revenue", "$365.8B", 365.8, "$B", decimals=1, names=names)
    assert bool(citations(reasoning, [fact])) is is_true


def test_all_dates_count_once() -> None:
    facts = (Fact("date", "date", "2012-09-13"), Fact("date", "date", "2012-09-14"))
    assert len(citations("from 2012-09-13 to 2012-09-14", facts)) == 1


def test_the_verbatim_share_by_hand() -> None:
    prompt = " ".join(f"w{at}" for at in range(30))
    run = " ".join(f"w{at}" for at in range(5, 17))  # 12 words
    assert verbatim_share(run, prompt) == 1
    assert verbatim_share(run + " and so on, it goes", prompt) == pytest.approx(12 / 17)
    # Eleven words in a row are no quotation.
    assert verbatim_share(" ".join(f"w{at}" for at in range(11)), prompt) == 0
    # Two runs that overlap count their words once: w0 to w19 are 20 of 21 words.
    assert verbatim_share(" ".join(f"w{at}" for at in range(20)) + " x", prompt) == 20 / 21
    assert verbatim_share("", prompt) == 0
    assert verbatim_share("w1", "") == 0


def test_copying_the_prompt_is_verbatim() -> None:
    assert verbatim_share(PROMPT.messages[1]["content"], PROMPT.text) == 1


@given(
    st.lists(
        st.sampled_from(["AAPL", "$691.28", "1.2%", "RSI", "(", "14", ")", " ", "-", ",", ".", "9"])
        | st.text(max_size=4),
        max_size=80,
    ).map("".join)
)
@settings(max_examples=300, deadline=None)
def test_citing_never_raises_and_spans_lie_inside(reasoning: str) -> None:
    cited = citations(reasoning, PROMPT.facts)
    assert all(0 <= one.start < one.end <= len(reasoning) for one in cited)
    assert len(cited) <= len(PROMPT.facts)
    assert 0 <= verbatim_share(reasoning, PROMPT.text) <= 1


@pytest.mark.parametrize("piece", ["1", "1 ", "1,111", "$", "RSI ", "(1", "a(", "Sep ", "-", "1-"])
def test_hostile_reasoning_is_searched_quickly(piece: str) -> None:
    reasoning = piece * (100_000 // len(piece))
    start = time.perf_counter()
    citations(reasoning, (*PROMPT.facts, *HEADLINES))
    verbatim_share(reasoning, PROMPT.text)
    assert time.perf_counter() - start < 1

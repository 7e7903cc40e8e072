"""What models write is read where it is certain and refused where it contradicts itself."""

import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.rewards.parse import MAX_CHARACTERS, parse

READ = [
    # answer, direction, percent, confidence
    ("UP 1.5% confidence 80%", "UP", 1.5, 0.8),
    ("DOWN 0.8% confidence 55%", "DOWN", 0.8, 0.55),
    ("UP 1.5%", "UP", 1.5, None),
    ("UP +1.5 %", "UP", 1.5, None),
    ("down -0.8%", "DOWN", 0.8, None),
    ("DOWN \u22120.8%", "DOWN", 0.8, None),
    ("up by 1-2%", "UP", 1.5, None),
    ("up 1 to 2 percent, 70% confident", "UP", 1.5, 0.7),
    ("DOWN -1% to -2% (confidence of 60%)", "DOWN", 1.5, 0.6),
    ("Direction: UP\nChange: 1.5%\nConfidence: 80%", "UP", 1.5, 0.8),
    ("**Direction:** Down\n**Change:** -1.5%\n**Confidence:** 80%", "DOWN", 1.5, 0.8),
    ("UP 1.5% confidence 80", "UP", 1.5, 0.8),
    ("UP 1.5%, Confidence level: 62.5%.", "UP", 1.5, 0.625),
    ("UP - 1.5% confidence - 70%", "UP", 1.5, 0.7),
    ("UP 1% <confidence>75%</confidence>", "UP", 1.0, 0.75),
    ("uP 0% confidence 100%", "UP", 0.0, 1.0),
    ("UP confidence 0%", "UP", None, 0.0),
    ("UP", "UP", None, None),
    # unreadable numbers are not guessed
    ("UP 1,5% confidence 60%", "UP", None, 0.6),
    ("UP 1,500% confidence 60%", "UP", None, 0.6),
    ("UP 1% or 2% confidence 60%", "UP", None, 0.6),
    ("UP 1% confidence 0.8", "UP", 1.0, None),
    ("UP 1% confidence 101%", "UP", 1.0, None),
    ("UP 1% confidence -5%", "UP", 1.0, None),
    ("UP 1% confidence 60% confidence 70%", "UP", 1.0, None),
]


@pytest.mark.parametrize(("answer", "direction", "percent", "confidence"), READ)
def test_an_answer_is_read(
    answer: str, direction: str, percent: float | None, confidence: float | None
) -> None:
    prediction = parse(f"<think>because</think>\n<answer>{answer}</answer>")
    assert prediction.error is None
    assert prediction.direction == direction
    assert prediction.percent == percent
    assert prediction.confidence == (None if confidence is None else pytest.approx(confidence))


REFUSED = [
    ("", "no <answer>"),
    ("It will go UP 1.5%", "no <answer>"),
    ("<answer>UP 1.5%", "no <answer>"),
    ("<answer></answer>", "no direction"),
    ("<answer>sideways 1%</answer>", "no direction"),
    ("<answer>setup 1%</answer>", "no direction"),
    ("<answer>UP|DOWN 1.0% confidence 50%</answer>", "both UP and DOWN"),
    ("<answer>UP -1.5%</answer>", "UP with a sign"),
    ("<answer>DOWN +1.5%</answer>", "DOWN with a sign"),
    ("<answer>UP -1 to 2%</answer>", "UP with a sign"),
    ("<answer>UP 1%</answer><answer>DOWN 1%</answer>", "different answers"),
    ("<answer>UP 1%</answer><answer>UP 2%</answer>", "different answers"),
    ("<think><answer>UP 1%</answer></think><answer>DOWN 1%</answer>", "different answers"),
    (f"<answer>UP{' ' * 500}1%</answer>", "more than 400 characters"),
    ("<answer>" * 100, "more than 64 tags"),
    ("x" * (MAX_CHARACTERS + 1), "longer than 100,000"),
]


@pytest.mark.parametrize(("completion", "why"), REFUSED, ids=range(len(REFUSED)))
def test_what_cannot_be_read_says_why(completion: str, why: str) -> None:
    prediction = parse(completion)
    assert prediction.direction is None
    assert prediction.error is not None
    assert why in prediction.error


def test_the_asked_for_form_has_no_flaw() -> None:
    completion = "<think>RSI is high</think>\n<answer>DOWN 0.8% confidence 61%</answer>"
    prediction = parse(completion)
    assert prediction.flaw is None
    assert prediction.reasoning == "RSI is high"
    start = prediction.reasoning_start
    assert completion[start : start + len(prediction.reasoning)] == "RSI is high"


def test_three_lines_after_the_reasoning_are_an_answer_too() -> None:
    lines = "Direction: UP\nChange: 1.5%\nConfidence: 80%"
    prediction = parse(f"<think>a reason</think>\n{lines}\n")
    assert (prediction.direction, prediction.percent, prediction.confidence) == ("UP", 1.5, 0.8)
    assert prediction.flaw is None
    assert parse(f"<think>{lines}</think>").direction is None


def test_a_confidence_tag_may_stand_beside_the_answer() -> None:
    prediction = parse("<think>r</think><answer>up 2.5%</answer> <confidence>75%</confidence>")
    assert (prediction.direction, prediction.percent, prediction.confidence) == ("UP", 2.5, 0.75)
    assert prediction.flaw is None


@pytest.mark.parametrize(
    ("completion", "flaw"),
    [
        ("<answer>UP 1% confidence 60%</answer>", "no reasoning"),
        ("<think> \n</think><answer>UP 1% confidence 60%</answer>", "no reasoning"),
        ("<think>r<answer>UP 1% confidence 60%</answer>", "no reasoning"),
        ("<answer>UP 1% confidence 60%</answer><think>r</think>", "out of order"),
        ("<think>r</think><think>s</think><answer>UP 1% confidence 60%</answer>", "repeated"),
        ("<think>r</think>" + "<answer>UP 1% confidence 60%</answer>" * 2, "repeated"),
        ("<think>r</think><answer>UP 1% confidence 60%</answer></answer>", "repeated"),
        ("<think>r</think><answer>UP confidence 60%</answer>", "no single percent"),
        ("<think>r</think><answer>UP 1%</answer>", "no confidence"),
    ],
)
def test_a_readable_answer_keeps_its_flaw(completion: str, flaw: str) -> None:
    prediction = parse(completion)
    assert prediction.direction == "UP"
    assert prediction.flaw is not None
    assert flaw in prediction.flaw


@st.composite
def spellings(draw: st.DrawFn) -> tuple[str, str, float | None, float | None]:
    """A prediction in one of the accepted spellings: completion, direction, percent, q."""
    direction = draw(st.sampled_from(["UP", "DOWN"]))
    tenths, wider = draw(st.integers(0, 9999)), draw(st.integers(1, 50))
    percent = draw(st.sampled_from([f"{tenths / 10:.1f}", f"{tenths / 100:.2f}", f"{tenths}"]))
    confidence = f"{draw(st.integers(0, 1000)) / 10:g}"
    side = draw(st.sampled_from([direction, direction.lower(), direction.title()]))
    sign = draw(st.sampled_from(["", "+"] if direction == "UP" else ["", "-", "\u2212"]))
    unit = draw(st.sampled_from(["%", " %", " percent"]))
    gap = draw(st.sampled_from([" ", ", ", " (", "\n"]))
    size = f"{sign}{percent}{unit}"
    value = float(percent)
    form = draw(st.integers(0, 6))
    if form == 0:  # the asked-for one
        body = f"<answer>{side} {size}{gap}confidence {confidence}%</answer>"
    elif form == 1:
        body = f"<Answer>{side} by {size}{gap}{confidence}% confident</ANSWER>"
    elif form == 2:
        joint = draw(st.sampled_from(["-", " - ", "\u2013", " to "]))
        high = f"{value + wider:g}" if value + wider < 1e5 else percent
        value = (value + float(high)) / 2
        body = f"<answer>{side} {percent}{joint}{high}% confidence: {confidence}%</answer>"
    elif form == 3:
        body = f"Direction: {side}\nChange: {size}\nConfidence: {confidence}%"
    elif form == 4:
        body = f"<answer>{side} {size}</answer>\n<confidence>{confidence}%</confidence>"
    elif form == 5:
        body = f"<answer>{side} {size}</answer>"
        return f"<think>r</think>{body}", direction, value, None
    else:
        body = f"<answer>{side}, confidence of {confidence}%</answer>"
        return f"<think>r</think>{body}", direction, None, float(confidence) / 100
    return f"<think>r</think>\n{body}", direction, value, float(confidence) / 100


@given(spellings())
@settings(max_examples=400, deadline=None)
def test_a_prediction_in_any_accepted_spelling_is_read_back(
    said: tuple[str, str, float | None, float | None],
) -> None:
    completion, direction, percent, confidence = said
    prediction = parse(completion)
    assert prediction.error is None
    assert prediction.direction == direction
    assert prediction.percent == (None if percent is None else pytest.approx(percent))
    assert prediction.confidence == (None if confidence is None else pytest.approx(confidence))


PIECES = st.sampled_from(
    [
        "<think>",
        "</think>",
        "<answer>",
        "</answer>",
        "<confidence>",
        "</confidence>",
        "UP",
        "down",
        " 1.5%",
        "-2",
        "\u22121 %",
        "confidence",
        "80%",
        ".",
        ",",
        "\n",
        "Direction: ",
        "Change:",
        "9" * 30,
        "\ud800",
        "\u0660%",
        "\0",
    ]
)


@given(st.one_of(st.text(), st.lists(PIECES | st.text(max_size=5), max_size=60).map("".join)))
@settings(max_examples=400, deadline=None)
def test_parsing_never_raises_and_stays_in_range(completion: str) -> None:
    prediction = parse(completion)
    assert (prediction.direction is None) == (prediction.error is not None)
    assert prediction.percent is None or prediction.percent >= 0
    assert prediction.confidence is None or 0 <= prediction.confidence <= 1
    start = prediction.reasoning_start
    assert completion[start : start + len(prediction.reasoning)] == prediction.reasoning


HOSTILE = [
    "<answer>",
    "<answer>UP 1% confidence 60%</answer>",
    "<answer",
    "<",
    "<think></think>",
    "1",
    "1-",
    "confidence ",
    "Direction: ",
    "Direction: UP\n",
    "\n",
    " ",
    "* ",
]


@pytest.mark.parametrize("piece", HOSTILE)
@pytest.mark.parametrize("size", [MAX_CHARACTERS, 1_000_000])
def test_hostile_text_is_parsed_in_a_blink(piece: str, size: int) -> None:
    completion = piece * (size // len(piece))
    best = min(_seconds(completion) for _ in range(3))
    assert best < 0.05


@pytest.mark.parametrize("piece", HOSTILE)
def test_a_hostile_answer_is_read_in_a_blink(piece: str) -> None:
    completion = f"<answer>UP {piece * (380 // len(piece))}</answer>"
    assert min(_seconds(completion) for _ in range(3)) < 0.05


def test_a_megabyte_of_opening_tags_is_refused_in_less_than_fifty_milliseconds() -> None:
    completion = "<answer>" * 131_072
    assert len(completion) == 1 << 20
    assert min(_seconds(completion) for _ in range(3)) < 0.05
    assert parse(completion).error == "longer than 100,000 characters"


def _seconds(completion: str) -> float:
    start = time.perf_counter()
    parse(completion)
    return time.perf_counter() - start

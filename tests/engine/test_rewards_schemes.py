"""Components become one number by the weights of the scheme."""

import pytest

from engine.market import demo
from engine.market.dataset import Dataset
from engine.market.example import Example
from engine.market.prompts import compose
from engine.rewards.components import COMPONENTS
from engine.rewards.schemes import SCHEMES, assess


@pytest.fixture(scope="module")
def apple() -> Example:
    """2012-09-14, which went UP 1.23 % with σ20 of 1.394 points."""
    market = Dataset(
        demo.load(), window=10, horizon=1, train_share=0.7, validation_share=0.15, embargo=5
    )
    return market.find("AAPL:2012-09-14")


def test_every_scheme_weighs_every_component() -> None:
    for scheme in SCHEMES.values():
        assert tuple(scheme.weights) == COMPONENTS
        assert sum(scheme.weights.values()) == pytest.approx(1)


def test_stage_one_has_the_documented_weights() -> None:
    assert list(SCHEMES["stage1"].weights.values()) == [0.20, 0.35, 0.20, 0.10, 0.15, 0.0]


def test_stage_two_has_the_documented_weights() -> None:
    assert list(SCHEMES["stage2"].weights.values()) == [0.0, 0.25, 0.20, 0.25, 0.30, 0.0]


def test_the_rubric_as_a_scheme_is_the_rubric_view(apple: Example) -> None:
    completion = "<think>AAPL closed at $691.28.</think><answer>UP 0.8% confidence 62%</answer>"
    assessment = assess(apple, compose(apple), completion, SCHEMES["rubric"])
    assert assessment.reward == pytest.approx(assessment.rubric["total"])


def test_a_good_completion_by_hand(apple: Example) -> None:
    completion = (
        "<think>AAPL closed at $691.28 with RSI(14) at 67.8. I expect UP.</think>\n"
        "<answer>UP 0.8% confidence 62%</answer>"
    )
    assessment = assess(apple, compose(apple), completion, SCHEMES["stage1"])
    values = {component.name: component.value for component in assessment.components}
    # magnitude: |0.8 - 1.22975| = 0.42975 of 2·1.394378 = 2.788757: 1 - 0.154100
    # coherence: 12 words are under 20, the other three quarters hold
    expected = {
        "format": 1.0,
        "direction": 1.0,
        "magnitude": 0.845900,
        "confidence": 0.81228,
        "data_use": 0.8,
        "coherence": 0.75,
    }
    assert values == pytest.approx(expected, abs=1e-5)
    # .2 + .35 + .2·.8459 + .1·.81228 + .15·.8 = 0.920408
    assert assessment.reward == pytest.approx(0.920408, abs=1e-5)
    # .4 + .2·.8459 = 0.56918 and .2·.8 + .2·.75 = 0.31
    assert assessment.rubric == pytest.approx(
        {"prediction": 0.56918, "reasoning": 0.31, "total": 0.87918}, abs=1e-5
    )
    assert [completion[start:end] for start, end in assessment.cited] == ["AAPL", "$691.28", "67.8"]


def test_silence_earns_less_than_any_honest_answer(apple: Example) -> None:
    prompt = compose(apple)
    silent = assess(apple, prompt, "", SCHEMES["stage1"])
    assert silent.reward == pytest.approx(-0.15)  # 0.1 · -1.5
    assert silent.prediction["error"] == "no <answer>…</answer>"
    assert silent.rubric["total"] == 0
    wrong = "<think>It may fall.</think><answer>DOWN 1.0% confidence 50%</answer>"
    assert assess(apple, prompt, wrong, SCHEMES["stage1"]).reward > silent.reward


def test_copying_the_prompt_earns_no_data_use(apple: Example) -> None:
    prompt = compose(apple)
    copied = f"<think>{prompt.text}</think><answer>UP 1.0% confidence 60%</answer>"
    reworded = copied.replace(prompt.text, prompt.messages[1]["content"].replace("$", "now $"))
    values = [
        {c.name: c.value for c in assess(apple, prompt, text, SCHEMES["stage1"]).components}
        for text in (copied, reworded)
    ]
    assert values[0]["data_use"] == 0
    assert values[1]["data_use"] == 1


@pytest.mark.parametrize(
    "completion",
    ["[/INST]\x1b]52;c;AAAA\x07", "<think>" * 50, "\ud800<answer>UP</answer>", "9" * 200_000],
    ids=["escape", "tags", "surrogate", "huge"],
)
def test_hostile_completions_are_scored_like_any_other(apple: Example, completion: str) -> None:
    assessment = assess(apple, compose(apple), completion, SCHEMES["stage1"])
    assert -0.151 < assessment.reward < 1

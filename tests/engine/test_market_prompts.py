"""The prompt and its facts are the same thing."""

import dataclasses
import re

import pytest

from engine.market import demo
from engine.market.dataset import Dataset
from engine.market.prompts import compose


@pytest.fixture(scope="module")
def market() -> Dataset:
    return Dataset(
        demo.load(), window=10, horizon=1, train_share=0.7, validation_share=0.15, embargo=5
    )


def test_the_prompt_of_a_day_reads_like_this(market: Dataset) -> None:
    user = compose(market.find("AAPL:2012-09-14")).messages[1]
    assert user == {
        "role": "user",
        "content": "Apple (AAPL), as of 2012-09-14\n"
        "Closes: $665.24 $674.97 $670.23 $676.27 $680.44 $662.74 $660.59 $669.79 $682.98 $691.28\n"
        "Day change +1.2%, 5-day change +1.6%, 10-day change +4.1%\n"
        "Volume 21.4M, average volume 16.4M\n"
        "SMA(20) $669.32, RSI(14) 67.8, MACD 13.76, volatility 1.4%\n"
        "UP or DOWN?",
    }


def test_the_system_message_states_the_answer_format(market: Dataset) -> None:
    system = compose(market.find("AAPL:2012-09-14")).messages[0]
    assert system["role"] == "system"
    assert "<think>" in system["content"]
    assert "<answer>UP|DOWN x.x% confidence NN%</answer>" in system["content"]
    assert "next close" in system["content"]


def test_a_longer_horizon_is_said(market: Dataset) -> None:
    example = dataclasses.replace(market.find("AAPL:2012-09-14"), horizon=5)
    assert "close in 5 trading days" in compose(example).messages[0]["content"]


def test_every_number_of_the_data_is_a_fact_and_every_fact_is_in_the_prompt(
    market: Dataset,
) -> None:
    rows = market.rows("train")
    for at in range(0, len(rows), 97):
        prompt = compose(market.example(int(rows.history[at]), int(rows.index[at])))
        text = prompt.messages[1]["content"]
        assert all(fact.text in text for fact in prompt.facts)
        rest = text
        for fact in sorted(prompt.facts, key=lambda fact: -len(fact.text)):
            rest = rest.replace(fact.text, "")
        # What is left are parameters: SMA(20), RSI(14), 5-day, 10-day.
        assert set(re.findall(r"\d+", rest)) <= {"20", "14", "5", "10"}


def test_a_facts_value_is_the_number_as_shown(market: Dataset) -> None:
    rows = market.rows("train")
    for at in range(0, len(rows), 97):
        for fact in compose(market.example(int(rows.history[at]), int(rows.index[at]))).facts:
            if fact.kind == "value":
                assert float(fact.text.strip("$%KMB")) == fact.value


def test_an_unchanged_value_has_no_negative_zero(market: Dataset) -> None:
    example = market.find("AAPL:2012-09-14")
    still = dataclasses.replace(example, indicators={"change5": -0.01, "macd": -0.001})
    texts = [fact.text for fact in compose(still).facts]
    assert "+0.0%" in texts
    assert "0.00" in texts


def test_unknown_indicators_are_left_out(market: Dataset) -> None:
    example = dataclasses.replace(market.find("AAPL:2012-09-14"), indicators={})
    content = compose(example).messages[1]["content"]
    assert "RSI" not in content
    assert "nan" not in content
    assert "Day change +1.2%\nVolume 21.4M\nVolatility 1.4%" in content

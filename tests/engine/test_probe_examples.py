"""Examples to ask about: a source's days as the run makes them, and what a person types."""

import json
import math
from itertools import pairwise
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.config import RunConfig, with_overrides
from engine.errors import UserError
from engine.market import sources
from engine.market.dataset import Dataset
from engine.market.prompts import compose
from engine.probe import examples
from engine.probe.request import MAX_BYTES, ProbeRequest, Wanted, WireExample, read

CONFIG = RunConfig()
CLOSES = [101.2, 99.8, 100.1, 101, 102, 103, 102.5, 101.9, 104, 105.2, 106]
TYPED: dict[str, Any] = {"ticker": "ACME", "as_of": "2026-11-19", "prices": CLOSES}


def typed(**values: Any) -> WireExample:
    text = yaml.safe_dump({**TYPED, **values}, sort_keys=False)
    return examples.build(Wanted(text=text, where="e.yaml"), CONFIG)[0]


def fault(text: str) -> str:
    with pytest.raises(UserError) as caught:
        examples.build(Wanted(text=text, where="e.yaml"), CONFIG)
    return str(caught.value)


@pytest.fixture(scope="module")
def demo() -> Dataset:
    return Dataset.configured(sources.load("demo").histories, CONFIG.data)


@pytest.mark.parametrize("style", ["full", "compact", "brief", "masked"])
def test_an_example_that_travelled_gives_the_prompt_of_the_run_to_the_letter(
    style: Any, demo: Dataset
) -> None:
    for key in ("AAPL:2012-09-14", "IBM:2009-03-03", "FB:2012-12-03"):
        example = demo.find(key)
        wire = WireExample.of(example, source="demo")
        travelled = WireExample.model_validate(json.loads(json.dumps(wire.model_dump(mode="json"))))
        assert compose(travelled.example(), style=style) == compose(example, style=style)
        assert travelled.example().label == example.label


def test_a_day_of_a_source_is_the_example_of_the_run(demo: Dataset) -> None:
    wire, style = examples.build(Wanted(ticker="AAPL", date="2012-09-14"), CONFIG)
    assert style is None
    assert wire == WireExample.of(demo.find("AAPL:2012-09-14"), source="demo")


def test_the_newest_day_can_be_asked_about_and_has_no_outcome(demo: Dataset) -> None:
    newest = demo.histories[0].days[-1].item().isoformat()
    ticker = demo.histories[0].ticker
    wire, _ = examples.build(Wanted(ticker=ticker, date=newest), CONFIG)
    assert wire.outcome is None
    assert math.isnan(wire.example().label.percent)
    with pytest.raises(KeyError):
        demo.find(f"{ticker}:{newest}")


def test_what_data_show_printed_names_a_day_with_its_style_and_horizon() -> None:
    shown = {"source": "demo", "ticker": "AAPL", "as_of": "2012-09-14", "style": "full",
             "horizon": 5, "messages": [], "known": []}  # fmt: skip
    wire, style = examples.build(Wanted(text=json.dumps(shown), where="e.json"), CONFIG)
    assert (wire.horizon, style) == (5, "full")
    assert wire.outcome is not None
    assert wire.outcome.day.isoformat() == "2012-09-21"


def test_typed_closes_are_the_prompts_closes() -> None:
    wire = typed(news=["Acme raises its forecast"], actual=-0.5)
    text = compose(wire.example()).text
    assert "ACME, as of 2026-11-19" in text
    assert "Closes: $99.80 $100.10" in text
    assert "$105.20 $106.00" in text
    assert "Day change +0.8%, 5-day change +2.9%, 10-day change +4.7%" in text
    assert "News: Acme raises its forecast" in text
    assert "RSI" not in text
    assert wire.example().label.direction == "DOWN"
    # Ten returns: fewer than the 20 of a source's.
    returns = [(b / a - 1) * 100 for a, b in pairwise(CLOSES)]
    mean = sum(returns) / 10
    assert wire.sigma20 == pytest.approx((sum((r - mean) ** 2 for r in returns) / 9) ** 0.5)
    assert typed().outcome is None


def test_prices_without_dates_stand_on_weekdays_up_to_the_day() -> None:
    days = [bar.date.isoformat() for bar in typed(as_of="2026-11-16").window]
    assert days[-3:] == ["2026-11-12", "2026-11-13", "2026-11-16"]
    assert len(days) == CONFIG.data.window


def test_whole_bars_are_taken_as_they_are() -> None:
    bars = [
        {"date": f"2026-11-{day:02}", "open": 1.0 + day, "high": 9.0 + day, "low": 0.5,
         "close": 2.0 + day, "volume": 1000 * day}
        for day in range(2, 14)
    ]  # fmt: skip
    wire = typed(prices=bars, as_of="2026-11-13")
    assert wire.window[-1].model_dump(mode="json") == bars[-1]
    assert "12.0K" in compose(wire.example(), style="full").text


FAULTS = {
    "no mapping": ("- 1", "e.yaml:1: an example is a mapping"),
    "no YAML": ("ticker: [", "e.yaml:1: neither YAML nor JSON"),
    "no prices": ("ticker: A", "e.yaml:1:prices: field required"),
    "few prices": (
        "ticker: A\nas_of: 2020-01-02\nprices: [1, 2]",
        "e.yaml:3:prices: 2 prices, and this run's prompts show 10 days; give 21 or more",
    ),
    "word": ("ticker: A\nprices:\n- 1\n- x", "e.yaml:4:prices.1: a price is a number"),
    "below 0": ("ticker: A\nprices: \n- 1\n- -2", "e.yaml:4:prices.1.close: input should be great"),
    "infinite": ("ticker: A\nprices: \n- .inf", "e.yaml:3:prices.0.close: input should be"),
    "strange ticker": ("ticker: ../x\nprices: [1]", "e.yaml:1:ticker: string should match"),
    "strange key": ("ticker: A\nnew: x\nprices: [1]", "e.yaml:2:new: extra inputs are not"),
    "no date": ("ticker: A\nprices: [1,1,1,1,1,1,1,1,1,1]", "e.yaml:2:prices: no date"),
    "order": (
        "ticker: A\nprices:\n" + "".join(f"- {{date: 2020-01-{d}, close: 2}}\n" for d in (
            10, 11, 12, 13, 14, 15, 16, 17, 16, 20)),
        "e.yaml:11:prices.8.date: 2020-01-16 does not come after 2020-01-17",
    ),
    "no move": ("ticker: A\nactual: 0\nprices: [1]", "e.yaml:2:actual: a move of exactly 0"),
    "no style": ('{"source":"demo","ticker":"A","as_of":"2012-09-14"}', "e.yaml:1:style: field"),
}  # fmt: skip


@pytest.mark.parametrize(("text", "message"), FAULTS.values(), ids=FAULTS)
def test_a_fault_is_told_with_file_line_and_field(text: str, message: str) -> None:
    assert fault(text).startswith(message)


@settings(max_examples=60, deadline=None)
@given(st.text(max_size=60) | st.from_regex(r"(ticker: A\n)?prices: .{0,30}", fullmatch=True))
def test_no_text_gives_anything_but_an_example_or_one_line(text: str) -> None:
    try:
        examples.build(Wanted(text=text, where="e.yaml"), CONFIG)
        told = ""
    except UserError as error:
        told = str(error)
    assert "\n" not in told


def test_the_window_is_the_runs_own() -> None:
    config = with_overrides(CONFIG, ["data.window=5"])
    wire, _ = examples.build(Wanted(ticker="AAPL", date="2012-09-14"), config)
    assert len(wire.window) == 5


def test_a_request_that_no_frame_could_hold_is_refused_where_it_is_made() -> None:
    wire = typed(news=["\u4e00" * 1000] * 40)
    request = ProbeRequest(checkpoints=("base",), example=wire)
    with pytest.raises(UserError, match=f"more than {MAX_BYTES // 1024} KiB; leave some news out"):
        request.payload()
    read(ProbeRequest(checkpoints=("base",), example=typed()).payload())


@pytest.mark.parametrize(
    "change",
    [
        {"checkpoints": []},
        {"checkpoints": ["base"] * 5},
        {"samples": 0},
        {"temperature": 0},
        {"seed": -1},
        {"style": "loud"},
        {"more": 1},
    ],
)
def test_a_request_out_of_bounds_is_refused(change: dict[str, Any]) -> None:
    payload = ProbeRequest(checkpoints=("base",), example=typed()).payload()
    with pytest.raises(UserError, match="probe "):
        read(payload | change)


def test_time_steps_outside_the_window_are_refused() -> None:
    payload = ProbeRequest(checkpoints=("base",), example=typed()).payload()
    payload["example"]["statistics"]["max_timestep"] = 10
    with pytest.raises(UserError, match="a time step is not in the window"):
        read(payload)

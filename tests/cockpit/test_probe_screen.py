"""The probe screen: asks what the form says, shows what comes in, and keeps what was asked."""

import threading
from collections.abc import Callable, Mapping
from typing import Any

import pytest
from textual.widgets import Input, TextArea

from engine.errors import RunFailedError, UserError
from engine.probe import client
from engine.probe.request import Described, ProbeRequest, Wanted, WireExample
from engine.probe.tally import tally
from engine.runs.directory import RunDirectory
from engine.runs.store import EventStore
from stonk_tui.screens.probe import ProbeScreen
from stonk_tui.screens.train import TrainScreen
from stonk_tui.widgets import probes
from tests import recorded
from tests.cockpit.helpers import cockpit, opened, settle, text_of, until
from tests.engine.test_probe_examples import typed


class Worker:
    """Stands in for the worker and the process that makes examples."""

    def __init__(self) -> None:
        self.wanted: list[Wanted] = []
        self.asked: list[ProbeRequest] = []
        self.may_answer = threading.Event()
        self.problem: Exception | None = None
        self.was_cancelled = False

    def describe(self, run: RunDirectory, wanted: Wanted) -> Described:
        self.wanted.append(wanted)
        if wanted.ticker == "NONE":
            raise UserError("no ticker called 'NONE'", where="--ticker", fix="there are 5")
        return Described(example=_example(), style=None)

    def ask(
        self,
        run: RunDirectory,
        request: ProbeRequest,
        *,
        timeout: float,
        drafts: Callable[[Mapping[str, Any]], None],
        is_cancelled: Callable[[], bool],
    ) -> Mapping[str, Any]:
        self.asked.append(request)
        first, *others = request.checkpoints
        samples = [{"completion": "I say [/b] UP", "direction": "UP", "reward": 0.4}]
        done = {"checkpoint": first, "run": run.id, "samples": samples, **tally(samples)}
        about = {"ticker": "ACME", "as_of": "2026-11-19", "source": None, "actual": None}
        drafts(
            {
                "checkpoint": (others or [first])[0],
                "run": run.id,
                "example": about,
                "done": 3,
                "total": request.samples,
                "tokens": 17,
                "texts": ["The stock \x1b[31mis"],
                "answered": [done] if others else [],
            }
        )
        while not self.may_answer.wait(0.01):
            if is_cancelled():
                self.was_cancelled = True
                raise RunFailedError("asked, but not answered yet")
        if self.problem is not None:
            raise self.problem
        answers = [{**done, "checkpoint": name} for name in request.checkpoints]
        return {"id": "q", "example": about, "samples": 8, "temperature": 1.0, "answers": answers}


def _example() -> WireExample:
    return typed()


@pytest.fixture
def worker(monkeypatch: pytest.MonkeyPatch) -> Worker:
    worker = Worker()
    monkeypatch.setattr(client, "describe", worker.describe)
    monkeypatch.setattr(client, "ask", worker.ask)
    return worker


def _fill(screen: Any, **values: str) -> None:
    for name, value in values.items():
        screen.query_one(f"#{name}", Input).value = value


@pytest.mark.parametrize("size", [(80, 24), (120, 40), (200, 60)], ids=str)
async def test_answers_come_in_side_by_side(size: tuple[int, int], worker: Worker) -> None:
    recording = recorded.record(60)
    app = cockpit(recording.run)
    async with opened(app, size) as pilot:
        await pilot.press("g", "b")
        await until(pilot, lambda: isinstance(app.screen, ProbeScreen))
        await until(pilot, lambda: "the run keeps training" in text_of(app))
        # The newest example of the run's own stands there to begin with.
        assert app.model is not None
        subject = app.model.rollouts[0].subject
        assert app.screen.query_one("#ticker", Input).value == subject["ticker"]
        assert app.screen.query_one("#date", Input).value == subject["as_of"]
        _fill(app.screen, ticker="ACME", date="2012-09-14", temperature="0.7")
        await pilot.press("enter")
        await until(pilot, lambda: "sampling  3 of 8 done" in text_of(app))
        text = text_of(app)
        assert "P(▲) 1.00 [0.21, 1.00] n=1" in text
        assert "The stock ␛[31mis▌" in text
        assert "asked: a worker in training answers between two steps" in text
        await pilot.press("f5")
        await until(pilot, lambda: "one question is being answered" in text_of(app))
        worker.may_answer.set()
        await until(pilot, lambda: "sampling" not in text_of(app))
        await settle(pilot)
        text = text_of(app)
        assert "base" in text
        assert "step-000050" in text
        assert text.count("vote ▲ UP") == 2
        assert "market not known" in text
    (request,) = worker.asked
    assert request.checkpoints == ("base", "step-000050")
    assert (request.samples, request.temperature) == (8, 0.7)
    assert worker.wanted == [Wanted(ticker="ACME", date="2012-09-14")]


async def test_example_can_be_typed_by_hand(worker: Worker) -> None:
    recording = recorded.record(60)
    app = cockpit(recording.run)
    worker.may_answer.set()
    async with opened(app) as pilot:
        await pilot.press("g", "b", "f6")
        await until(pilot, lambda: isinstance(app.focused, TextArea))
        await settle(pilot)
        assert "prices: [101.2" in text_of(app)
        assert not app.screen.query_one("#ticker").region.area
        app.screen.query_one(TextArea).text = "ticker: MINE"
        await pilot.press("f5")
        await until(pilot, lambda: "typed by hand" in text_of(app))
    assert worker.wanted == [Wanted(text="ticker: MINE", where="your example")]


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"checkpoints": " , "}, "name one to 4 checkpoints"),
        ({"checkpoints": "base, base, base, base, base"}, "name one to 4 checkpoints"),
        ({"checkpoints": "step-9"}, "has no checkpoint step-000009"),
        ({"samples": "0"}, "samples: a whole number from 1 to 64"),
        ({"samples": ""}, "samples: a whole number from 1 to 64"),
        ({"temperature": "hot"}, "temperature: a number above 0"),
        ({"temperature": "nan"}, "temperature: a number above 0"),
        ({"ticker": "NONE"}, "no ticker called 'NONE'; there are 5"),
    ],
)
async def test_what_is_wrong_with_the_form_is_one_line(
    values: dict[str, str], message: str, worker: Worker
) -> None:
    recording = recorded.record(60)
    app = cockpit(recording.run)
    async with opened(app) as pilot:
        await pilot.press("g", "b")
        await until(pilot, lambda: isinstance(app.screen, ProbeScreen))
        _fill(app.screen, **values)
        await pilot.press("f5")
        await until(pilot, lambda: message in text_of(app))
        # What was typed is still there, and can be mended.
        worker.may_answer.set()
        _fill(app.screen, checkpoints="base", samples="4", temperature="", ticker="ACME")
        await pilot.press("f5")
        await until(pilot, lambda: "vote ▲ UP" in text_of(app))
        assert message not in text_of(app)
    assert len(worker.asked) == 1


async def test_an_answer_that_does_not_come_is_explained(worker: Worker) -> None:
    recording = recorded.record(60)
    app = cockpit(recording.run)
    worker.problem = RunFailedError("out of memory with one sample at a time")
    worker.may_answer.set()
    async with opened(app) as pilot:
        await pilot.press("g", "b")
        await until(pilot, lambda: isinstance(app.screen, ProbeScreen))
        await pilot.press("f5")
        await until(pilot, lambda: "out of memory with one sample at a time" in text_of(app))


async def test_leaving_the_cockpit_waits_for_no_answer(worker: Worker) -> None:
    recording = recorded.record(60)
    app = cockpit(recording.run)
    async with opened(app) as pilot:
        await pilot.press("g", "b")
        await until(pilot, lambda: isinstance(app.screen, ProbeScreen))
        await pilot.press("f5")
        await until(pilot, lambda: "sampling" in text_of(app))
        app.exit()
        await until(pilot, lambda: not app.is_running)
    assert worker.was_cancelled


async def test_history_is_the_runs_and_opens() -> None:
    recording = recorded.record(60)
    recording.store = EventStore(recording.run.database, begins_attempt=False)
    recording.is_asked(1, known=False)
    recording.is_asked(2)
    recording.closes()
    recording.run.record_worker()
    app = cockpit(recording.run)
    async with opened(app) as pilot:
        await pilot.press("g", "b")
        # The newest one stands there at once.
        await until(pilot, lambda: "market ▲ 1.2 %" in text_of(app))
        assert "P(▲) 0.75 [0.30, 0.95] n=4" in text_of(app)
        assert "▲ 1  ▼ 1  ? 2   vote none" in text_of(app)
        assert "base 0.50 [0.09, 0.91] n=2" in text_of(app)
        assert "step-000060 ★" not in text_of(app)
        await pilot.press("f7", "down", "enter")
        await until(pilot, lambda: "market not known" in text_of(app))
        await pilot.press("escape")
        await until(pilot, lambda: isinstance(app.screen, TrainScreen))


async def test_who_only_watches_sees_and_asks_nothing(worker: Worker) -> None:
    recording = recorded.record(60)
    app = cockpit(recording.run, read_only=True)
    async with opened(app) as pilot:
        await pilot.press("g", "b")
        await until(pilot, lambda: isinstance(app.screen, ProbeScreen))
        await pilot.press("enter")
        await until(pilot, lambda: "opened read-only" in text_of(app))
    assert worker.asked == []


async def test_no_worker_is_told_before_anybody_asks() -> None:
    recording = recorded.record(60, state="finished")
    app = cockpit(recording.run)
    async with opened(app) as pilot:
        await pilot.press("g", "b")
        await until(pilot, lambda: "no worker lives: one is started" in text_of(app))


def test_strange_values_are_unknown_ones() -> None:
    strange: Mapping[str, Any] = {"p_up": 3, "calls": [], "confidence": "x", "samples": "y"}
    text = probes.answered(strange).plain
    assert "P(▲) ·" in text
    assert "▲ ·  ▼ ·  ? ·   vote none" in text
    (row,) = probes.history([{"answers": 4, "example": None}])
    assert row.cells[1].plain == "·"
    assert probes.sampling({"texts": 3}).plain.startswith("sampling  · of ·")

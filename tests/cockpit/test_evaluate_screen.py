"""The evaluate screen: begins what the form says, shows how far it is, and opens the reports."""

import json
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from textual.app import App
from textual.widgets import Input, Static

from engine.errors import RunFailedError, UserError
from engine.evaluation import client
from engine.evaluation.request import EvaluationRequest
from engine.runs.directory import RunDirectory
from stonk_tui import evaluation_form
from stonk_tui.evaluation_form import Problem
from stonk_tui.evaluation_list import EvaluationList, Past
from stonk_tui.screens import confirm
from stonk_tui.screens.evaluate import EvaluateScreen
from stonk_tui.screens.train import TrainScreen
from stonk_tui.widgets import evaluations, report
from tests import evaluated, recorded
from tests.cockpit import helpers
from tests.cockpit.helpers import cockpit, opened, settle, until
from tests.cockpit.test_actions import Worker

SIZES = [(80, 24), (120, 40), (200, 60)]


def text_of(app: App[None]) -> str:
    """What is on screen, thin spaces as blanks."""
    return helpers.text_of(app).replace("\u202f", " ")


class Client:
    """Stands in for what begins an evaluation and waits for it."""

    def __init__(self) -> None:
        self.asked: list[EvaluationRequest] = []
        self.may_end = threading.Event()
        self.problems: list[Exception] = []
        self.was_cancelled = False

    def evaluate(
        self, run: RunDirectory, request: EvaluationRequest, *, is_cancelled: Callable[[], bool]
    ) -> Path:
        self.asked.append(request)
        while not self.may_end.wait(0.01):
            if is_cancelled():
                self.was_cancelled = True
                raise RunFailedError("asked, but not answered yet")
        if self.problems:
            raise self.problems.pop(0)
        return run.path


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> Client:
    fake = Client()
    monkeypatch.setattr(client, "evaluate", fake.evaluate)
    monkeypatch.setattr(confirm, "DEAF_SECONDS", 0.001)
    return fake


async def _go(pilot: Any) -> EvaluateScreen:
    await pilot.press("g", "e")
    await until(pilot, lambda: isinstance(pilot.app.screen, EvaluateScreen))
    await until(pilot, lambda: "✓ base" in text_of(pilot.app))
    screen = pilot.app.screen
    assert isinstance(screen, EvaluateScreen)
    return screen


def _fill(screen: EvaluateScreen, **values: str) -> None:
    for name, value in values.items():
        screen.query_one(f"#{name}", Input).value = value


# --- reports


@pytest.mark.parametrize("size", SIZES, ids=str)
async def test_newest_report_stands_there_with_its_verdict(size: tuple[int, int]) -> None:
    recording = recorded.record(60)
    evaluated.write(recording.run, evaluated.report())
    app = cockpit(recording.run)
    async with opened(app, size) as pilot:
        await _go(pilot)
        await until(pilot, lambda: "◐ weak   step-000050" in text_of(app))
        text = text_of(app)
        assert "– Right in 56.1% of 1,000 rows on 250 days" in text
        assert "56 % [53, 59] n=1 000" in text
        assert "53 %" in text
        # The base model is compared, and no line of the list.
        assert sum("n=1 000" in row for row in text.split("\n")) == 1
        assert "test seen ≥ 3 times" in text
        await pilot.press("f8")
        await until(pilot, lambda: "split" not in text_of(app).split("\n")[2])
        app.screen.query_one("#box").scroll_end(animate=False)
        await until(pilot, lambda: "buy and hold: deflated sharpe" in text_of(app))
        whole = str(app.screen.query_one("#text", Static).content)
        assert "3 times so far, this one included" in whole
        assert "base: roc auc: no answer states a confidence" in whole
        await pilot.press("escape")
        await until(pilot, lambda: "samples 1" in text_of(app))
        assert isinstance(app.screen, EvaluateScreen)
        await pilot.press("escape")
        await until(pilot, lambda: isinstance(app.screen, TrainScreen))


async def test_marks_are_in_the_list_in_the_frame_and_before_the_verdict() -> None:
    recording = recorded.record(60)
    evaluated.write(recording.run, evaluated.report())
    evaluated.write(
        recording.run,
        evaluated.report(
            is_synthetic=True, overlaps_training=True, words={"base": "weak", "step-000050": "new"}
        ),
        identifier="20251119-010000-test",
    )
    app = cockpit(recording.run)
    async with opened(app, (80, 24)) as pilot:
        await _go(pilot)
        await until(pilot, lambda: "syn+ovl" in text_of(app))
        assert "SYNTHETIC" not in text_of(app)
        await pilot.press("f7", "down", "enter")
        await until(pilot, lambda: "! SYNTHETIC DATA" in text_of(app))
        text = text_of(app)
        assert "20251119-010000-test · SYNTHETIC DATA · OVERLAPS TRAINING" in text
        assert "! OVERLAPS TRAINING: these days may have been trained on" in text
        # A word that this version does not know stands there as it is.
        assert "new   step-000050" in text


@pytest.mark.parametrize(
    ("contents", "said"),
    [
        ('{"context"', "report.json is damaged: Expecting"),
        ("[1]", "report.json is damaged: it holds no mapping"),
        (b"\xff\xfe", "report.json is damaged"),
        ("[" * 100_000, "report.json is damaged"),
        (None, "report.json is not there"),
    ],
    ids=["half", "list", "bytes", "deep", "missing"],
)
async def test_damaged_report_is_explained_in_its_place(
    contents: str | bytes | None, said: str
) -> None:
    recording = recorded.record(60)
    folder = evaluated.write(recording.run, evaluated.report())
    file = folder / "report.json"
    if contents is None:
        file.unlink()
    else:
        file.write_bytes(contents if isinstance(contents, bytes) else contents.encode())
    app = cockpit(recording.run)
    async with opened(app) as pilot:
        await _go(pilot)
        await until(pilot, lambda: said in text_of(app))
        assert "! No report" in text_of(app)
        assert "evaluating anew makes a new report" in text_of(app)


async def test_unfinished_one_is_gone_on_with_by_the_form(fake: Client) -> None:
    recording = recorded.record(120)
    about = evaluated.context(("base", "step-000100"), split="validation", finished=None)
    about["request"] |= {"samples": 4, "examples": 300}
    evaluated.write(recording.run, about=about)
    app = cockpit(recording.run)
    async with opened(app) as pilot:
        await _go(pilot)
        await until(pilot, lambda: "■ unfinished" in text_of(app))
        await pilot.press("f7", "enter")
        await until(pilot, lambda: "The form now asks for the same" in text_of(app))
        await until(pilot, lambda: "✓ base, step-000100" in text_of(app))
        fake.may_end.set()
        await pilot.press("f5")
        await until(pilot, lambda: fake.asked)
    (asked,) = fake.asked
    assert asked == EvaluationRequest.model_validate(about["request"])


async def test_report_written_meanwhile_and_a_folder_of_another_name_are_minded() -> None:
    recording = recorded.record(60)
    evaluated.write(recording.run, evaluated.report())
    (recording.run.path / "evaluation" / ".scratch").mkdir()
    (recording.run.path / "evaluation" / "file").write_text("")
    found = EvaluationList()
    (first,) = found.of(recording.run)
    assert first.report is not None
    assert found.of(recording.run)[0] is first
    evaluated.write(recording.run, evaluated.report(), identifier="20251121-010000-test")
    newest, second = found.of(recording.run)
    assert newest.id == "20251121-010000-test"
    assert second is first
    (first.folder / "report.json").write_text("{}")
    assert found.of(recording.run)[1].report == {}


async def test_path_of_the_folder_is_copied() -> None:
    recording = recorded.record(60)
    app = cockpit(recording.run)
    async with opened(app) as pilot:
        screen = await _go(pilot)
        await pilot.press("f4")
        await until(pilot, lambda: "copy path: no report is open" in text_of(app))
        folder = evaluated.write(recording.run, evaluated.report())
        await until(pilot, lambda: screen._report is not None)
        await pilot.press("f4")
        await until(pilot, lambda: app.clipboard == str(folder))


# --- the form


@pytest.mark.parametrize(
    ("values", "field", "message"),
    [
        ({"checkpoints": " , "}, "checkpoints", "name at least one"),
        ({"checkpoints": "step-9"}, "checkpoints", "has no checkpoint step-000009"),
        ({"checkpoints": ",".join(["base"] * 17)}, "checkpoints", "at most 16"),
        ({"checkpoints": "best, x y"}, "checkpoints", "'x y' is no checkpoint"),
        ({"source": "yahoo"}, "source", "use demo, ohlcv:DIR"),
        ({"source": "ohlcv:/no/such/place"}, "source", "there is no folder /no/such/place"),
        ({"split": "tset"}, "split", "'tset' is none: test, validation or train"),
        ({"samples": "0"}, "samples", "a whole number from 1 to 64"),
        ({"samples": "65"}, "samples", "a whole number from 1 to 64"),
        ({"samples": "²"}, "samples", "a whole number from 1 to 64"),
        ({"examples": "-3"}, "examples", "a whole number of examples"),
        ({"examples": "0"}, "examples", "a whole number of examples"),
    ],
)
def test_form_that_is_wrong_says_where_and_what(
    values: dict[str, str], field: str, message: str
) -> None:
    right = {"checkpoints": "best", "split": "test", "samples": "1"}
    found = evaluation_form.read(right | values, recorded.record(60).run)
    assert isinstance(found, Problem)
    assert found.field == field
    assert message in found.text


async def test_form_is_judged_as_it_is_typed_and_nothing_is_asked(fake: Client) -> None:
    fake.may_end.set()
    app = cockpit(recorded.record(60).run)
    async with opened(app) as pilot:
        screen = await _go(pilot)
        _fill(screen, split="tset")
        await until(pilot, lambda: "✗ split: 'tset' is none" in text_of(app))
        assert screen.query_one("#split").has_class("-wrong")
        await pilot.press("f5")
        await until(pilot, lambda: text_of(app).count("'tset' is none") == 2)
        assert fake.asked == []
        _fill(screen, split="test")
        await until(pilot, lambda: "✓ base, step-000050" in text_of(app))
        assert "is none" not in text_of(app)
        assert not screen.query(".-wrong")


def test_cost_is_that_of_what_was_measured_before() -> None:
    wanted = EvaluationRequest(checkpoints=("step-000050", "base"), samples=2)
    nothing = evaluation_form.cost(wanted, (), "demo")
    assert nothing.checkpoints == ("base", "step-000050")
    assert (nothing.predictions, nothing.seconds, nothing.touches) == (None, None, None)
    # 2 checkpoints × 1,000 examples × 1 sample in 400 s: 0.2 s a prediction.
    past = (Past("x", Path("x"), context=evaluated.context()),)
    known = evaluation_form.cost(wanted, past, "demo")
    assert (known.predictions, known.seconds, known.touches) == (4000, 800.0, 3)
    fewer = evaluation_form.cost(wanted.model_copy(update={"examples": 10}), past, "demo")
    assert (fewer.predictions, fewer.seconds) == (40, 8.0)
    other = evaluation_form.cost(wanted, past, "planted")
    assert (other.predictions, other.touches) == (None, None)
    # One of some of the examples does not tell how many there are.
    about = evaluated.context()
    about["request"]["examples"] = 1000
    limited = evaluation_form.cost(wanted, (Past("x", Path("x"), context=about),), "demo")
    assert limited.predictions is None


def test_form_says_again_what_it_can_say() -> None:
    asked = {"checkpoints": ["best"], "source": "demo", "samples": 3, "examples": 20}
    assert evaluation_form.values_of(asked) == {
        "checkpoints": "best",
        "source": "demo",
        "split": "test",
        "samples": "3",
        "examples": "20",
    }
    assert evaluation_form.values_of({**asked, "seed": 7}) is None
    assert evaluation_form.values_of("x") is None


def test_same_checkpoint_by_two_names_is_one() -> None:
    run = recorded.record(60).run
    values = {"checkpoints": "best, step-50,last", "split": "test", "samples": "1"}
    found = evaluation_form.read(values, run)
    assert isinstance(found, EvaluationRequest)
    assert found.checkpoints == ("step-000050",)
    assert isinstance(evaluation_form.read({}, run), Problem)


async def test_run_without_a_checkpoint_begins_with_the_base_model() -> None:
    app = cockpit(recorded.record(3).run)
    async with opened(app) as pilot:
        screen = await _go(pilot)
        assert screen.query_one("#checkpoints", Input).value == "base"
        assert "✓ base · how long it takes is not known yet" in text_of(app)


# --- one that runs


@pytest.mark.parametrize("size", SIZES, ids=str)
async def test_from_enter_to_the_report(size: tuple[int, int], fake: Client) -> None:
    recording = recorded.record(60)
    app = cockpit(recording.run)
    async with opened(app, size) as pilot:
        screen = await _go(pilot)
        assert "No evaluation yet" in text_of(app)
        _fill(screen, checkpoints="base, best", examples="500", samples="2")
        await pilot.press("enter")
        await until(pilot, lambda: "asked: the worker evaluates between two steps" in text_of(app))
        assert fake.asked == [
            EvaluationRequest(checkpoints=("base", "step-000050"), samples=2, examples=500)
        ]
        await pilot.press("f5")
        await until(pilot, lambda: "one evaluation at a time" in text_of(app))
        store = evaluated.begin(recording)
        await until(pilot, lambda: "60 %  1 200 of 2 000" in text_of(app))
        await until(pilot, lambda: "to beat: always UP 53 %" in text_of(app))
        text = text_of(app)
        # 333 of 1,000 and 110 of 200: Wilson 1927, as in the tests of intervals.
        assert "33 % [30, 36] n=1 000" in text
        assert "55 % [48, 62] n=200" in text
        assert "ETA 40 s" in text
        assert "step-000050 2 of 2" in text
        assert "training waits for it" in text
        folder = evaluated.write(recording.run, evaluated.report())
        verdicts = {"base": "no evidence", "step-000050": "weak"}
        store.draft("c1", None)
        store.event("evaluation", evaluated.event("done", verdicts=verdicts))
        store.event("command", {"id": "c1", "verb": "evaluate", "ok": True, "message": "done"})
        store.flush()
        fake.may_end.set()
        await until(pilot, lambda: f"─ {folder.name}" in text_of(app))
        await until(pilot, lambda: "◐ weak   step-000050" in text_of(app))
        assert not screen.is_asking
        store.close()
        app.perform("log")
        await until(pilot, lambda: "evaluated on test: step-000050 weak" in text_of(app))


async def test_report_of_before_can_be_read_while_one_runs() -> None:
    recording = recorded.record(60)
    evaluated.write(recording.run, evaluated.report(), identifier="20251101-000000-test")
    evaluated.write(recording.run, about=evaluated.context(finished=None, seconds=None))
    store = evaluated.begin(recording)
    app = cockpit(recording.run)
    async with opened(app) as pilot:
        await _go(pilot)
        await until(pilot, lambda: "60 %  1 200 of 2 000" in text_of(app))
        await until(pilot, lambda: "◎ evaluating" in text_of(app))
        await pilot.press("f7", "down", "enter")
        await until(pilot, lambda: "◐ weak   step-000050" in text_of(app))
        assert "evaluating, 1 200 of 2 000, 40 s left" in text_of(app)
        await pilot.press("escape")
        await until(pilot, lambda: "60 %  1 200 of 2 000" in text_of(app))
    store.close()


async def test_one_whose_worker_died_does_not_run() -> None:
    recording = recorded.record(60, state="stale")
    evaluated.write(recording.run, about=evaluated.context(finished=None, seconds=None))
    evaluated.begin(recording).close()
    app = cockpit(recording.run)
    async with opened(app) as pilot:
        await _go(pilot)
        await until(pilot, lambda: "■ Unfinished" in text_of(app))
        assert "no worker lives: one is started for it" in text_of(app)
        await pilot.press("f6")
        await until(pilot, lambda: "break off: none runs" in text_of(app))


async def test_days_that_training_may_have_seen_take_a_second_yes(fake: Client) -> None:
    recording = recorded.record(60)
    refusal = "--source: the dates overlap; evaluate later dates, or take --force, which marks"
    fake.problems = [UserError(refusal)]
    fake.may_end.set()
    app = cockpit(recording.run)
    async with opened(app) as pilot:
        await _go(pilot)
        await pilot.press("f5")
        await until(pilot, lambda: "Evaluate days that training may have seen?" in text_of(app))
        assert "every page of the report is" in text_of(app)
        await pilot.press("n")
        await until(pilot, lambda: isinstance(app.screen, EvaluateScreen))
        assert "the dates overlap" in text_of(app)
        fake.problems = [UserError(refusal)]
        await pilot.press("f5")
        await until(pilot, lambda: "seen?" in text_of(app))
        await until(pilot, lambda: getattr(app.screen, "listens", False))
        await pilot.press("y")
        await until(pilot, lambda: len(fake.asked) == 3)
    assert [asked.force for asked in fake.asked] == [False, False, True]


async def test_what_goes_wrong_is_told_at_the_foot(fake: Client) -> None:
    recording = recorded.record(60)
    fake.problems = [RunFailedError("the worker ended first [/b]")]
    fake.may_end.set()
    app = cockpit(recording.run)
    async with opened(app) as pilot:
        await _go(pilot)
        await pilot.press("f5")
        await until(pilot, lambda: "the worker ended first [/b]" in text_of(app))


async def test_leaving_the_cockpit_waits_for_no_evaluation(fake: Client) -> None:
    app = cockpit(recorded.record(60).run)
    async with opened(app) as pilot:
        await _go(pilot)
        await pilot.press("f5")
        await until(pilot, lambda: fake.asked)
        app.exit()
        await until(pilot, lambda: not app.is_running)
    assert fake.was_cancelled


async def test_who_only_watches_reads_reports_and_begins_nothing(fake: Client) -> None:
    recording = recorded.record(60)
    evaluated.write(recording.run, evaluated.report())
    app = cockpit(recording.run, read_only=True)
    async with opened(app) as pilot:
        await _go(pilot)
        await until(pilot, lambda: "◐ weak   step-000050" in text_of(app))
        await pilot.press("enter")
        await until(pilot, lambda: "evaluate: this cockpit was opened read-only" in text_of(app))
        store = evaluated.begin(recording)
        await until(pilot, lambda: "60 %  1 200 of 2 000" in text_of(app))
        await pilot.press("f6")
        await until(pilot, lambda: "break off: this cockpit was opened read-only" in text_of(app))
        store.close()
    assert fake.asked == []


async def test_letter_on_the_train_screen_leads_here() -> None:
    app = cockpit(recorded.record(60).run)
    async with opened(app) as pilot:
        await pilot.press("e")
        await until(pilot, lambda: isinstance(app.screen, EvaluateScreen))
        await settle(pilot)
        assert text_of(app).split("\n")[0].strip().endswith("› evaluate")
        await pilot.press("escape")
        await until(pilot, lambda: isinstance(app.screen, TrainScreen))


# --- breaking off


@pytest.mark.parametrize("state", ["training", "paused"])
async def test_breaking_off_asks_first_and_leaves_training_as_it_was(
    state: str, fake: Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    recording = recorded.record(60, state=state)
    evaluated.begin(recording, done=None).close()
    worker = Worker(recording)
    app = cockpit(recording.run)
    async with opened(app) as pilot:
        await _go(pilot)
        await until(pilot, lambda: "the first prediction is awaited" in text_of(app))
        await pilot.press("f6")
        await until(pilot, lambda: "Stop the evaluation?" in text_of(app))
        assert "What was predicted is kept" in text_of(app)
        await pilot.press("n", "f6")
        await until(pilot, lambda: "Stop the evaluation?" in text_of(app))
        assert worker.verbs == []
        await until(pilot, lambda: getattr(app.screen, "listens", False))
        await pilot.press("y")
        await until(pilot, lambda: worker.verbs == ["interrupt"])
    worker.ends()


# --- whatever the files hold

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3)
    ),
    max_leaves=8,
)


def _paths(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    children = value.items() if isinstance(value, dict) else ()
    if isinstance(value, list):
        children = list(enumerate(value))
    return [path, *(found for key, item in children for found in _paths(item, (*path, key)))]


WHOLE = evaluated.report()
PATHS = _paths(WHOLE)


@given(st.sampled_from(PATHS), JSON, st.integers(20, 200))
@settings(max_examples=150, deadline=None)
def test_report_with_anything_in_any_place_can_be_shown(
    path: tuple[Any, ...], thing: Any, width: int
) -> None:
    contents = {"": json.loads(json.dumps(WHOLE))}
    here: Any = contents
    place: Any = ""
    for key in path:
        here, place = here[place], key
    here[place] = thing
    damaged = contents[""]
    if not isinstance(damaged, dict):
        return
    about = damaged.get("context")
    past = Past(evaluated.ID, Path("/x"), damaged, about if isinstance(about, dict) else {})
    assert report.opened(past, width).plain
    assert report.title(past).plain
    assert all(len(row.cells) == len(evaluations.PAST) for row in evaluations.past_rows([past], 0))
    evaluation_form.cost(EvaluationRequest(checkpoints=("base",)), [past], "demo")


@given(st.dictionaries(st.sampled_from(list(evaluated.draft())), JSON), JSON)
@settings(max_examples=100, deadline=None)
def test_draft_with_anything_in_it_can_be_shown(draft: dict[str, Any], thing: Any) -> None:
    told = evaluated.event("begun", checkpoints=thing, total=thing)
    per_checkpoint = {"base": {"done": thing, "right": thing, "read": thing}}
    for one in (draft, {**evaluated.draft(), **draft}, {"per_checkpoint": per_checkpoint}):
        assert evaluations.running(told, one, 70).plain
        assert evaluations.meanwhile(one, trains=True, is_in_sight=False).plain

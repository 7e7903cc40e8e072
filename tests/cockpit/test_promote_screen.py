"""The promote dialog: shows what is decided, asks why, and never loses what was typed."""

import json
import threading
from typing import Any

import pytest
from textual.pilot import Pilot
from textual.widgets import Button, Input

from engine.config import preset
from engine.errors import UserError
from engine.runs import promotion
from engine.runs.directory import RunDirectory
from engine.runs.live_settings import written
from stonk_tui.app import Cockpit
from stonk_tui.screens.promote import PromoteScreen
from stonk_tui.screens.train import TrainScreen
from tests import recorded
from tests.cockpit.helpers import cockpit, opened, settle, text_of, until


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Ids of the runs that would have been started."""
    ids: list[str] = []
    monkeypatch.setattr(promotion, "start", lambda run: ids.append(run.id))
    return ids


async def _ask(pilot: Pilot[None]) -> PromoteScreen:
    """Open the dialog and wait for the plan."""
    await pilot.press("P")
    await until(pilot, lambda: isinstance(pilot.app.screen, PromoteScreen))
    await until(pilot, lambda: "step-000050" in text_of(pilot.app))
    screen = pilot.app.screen
    assert isinstance(screen, PromoteScreen)
    return screen


def _is_open(app: Cockpit, button: str) -> bool:
    return not app.screen.query_one(f"#{button}", Button).disabled


async def _write_reason(pilot: Pilot[None], text: str) -> None:
    pilot.app.screen.query_one("#reason", Input).focus()
    await pilot.press(*text)


async def test_dialog_shows_lights_checkpoints_with_intervals_and_what_changes() -> None:
    recording = recorded.record(128)
    for size in ((120, 40), (80, 24)):
        async with opened(cockpit(recording.run, now=recording.now), size) as pilot:
            await _ask(pilot)
            await settle(pilot)
            text = text_of(pilot.app)
            assert "1 of 4 lights are on." in text
            assert "(•) step-000100 ★ best  reward 0.48  right 54 % [47, 61] n=200 vs 54 %" in text
            assert "( ) step-000050         reward 0.43  right 52 % [46, 60] n=200 vs 54 %" in text
            assert "data balanced → natural" in text
            rate = written(preset("demo").optimizer.learning_rate)
            assert f"learning rate {rate} →" in text
            # The demo's steps are fixed: epochs decide nothing.
            assert "epochs" not in text
            assert "LoRA r16 frozen + r8" in text
            assert "Promote and start" in text


async def test_reason_is_asked_for_while_a_light_is_off(started: list[str]) -> None:
    recording = recorded.record(128)
    app = cockpit(recording.run, now=recording.now)
    async with opened(app) as pilot:
        await _ask(pilot)
        assert not _is_open(app, "prepare")
        assert not _is_open(app, "start")
        await _write_reason(pilot, " ")
        assert not _is_open(app, "prepare")
        await _write_reason(pilot, "why")
        assert _is_open(app, "prepare")
        assert _is_open(app, "start")


async def test_no_reason_is_needed_when_all_lights_are_on(started: list[str]) -> None:
    recording = recorded.new_run()
    recording.starts()
    recording.is_loaded()
    recording.state("training")
    recording.trains(50)
    recording.lights_all()
    recording.closes()
    recording.run.record_worker()
    app = cockpit(recording.run)
    async with opened(app) as pilot:
        await _ask(pilot)
        await until(pilot, lambda: _is_open(app, "start"))
        assert "All four lights are on." in text_of(app)


async def test_prepare_only_writes_the_run_and_goes_to_it(started: list[str]) -> None:
    recording = recorded.record(128)
    app = cockpit(recording.run, now=recording.now)
    async with opened(app) as pilot:
        await _ask(pilot)
        await _write_reason(pilot, "curious")
        await pilot.click("#prepare")
        await until(pilot, lambda: isinstance(app.screen, TrainScreen))
        await until(pilot, lambda: "◇ prepared" in text_of(app))
        assert app.model is not None
        run = app.model.run
        await until(pilot, lambda: "Stage II natural" in text_of(app))
        await until(pilot, lambda: f"from {recording.run.id}:step-000100" in text_of(app))
    record = json.loads(run.promotion.read_text())
    assert record["reason"] == "curious"
    assert record["checkpoint"] == "step-000100"
    assert record["forced"] is True
    assert started == []


async def test_promote_and_start_starts_the_run_of_the_chosen_checkpoint(
    started: list[str],
) -> None:
    recording = recorded.record(128)
    app = cockpit(recording.run, now=recording.now)
    async with opened(app) as pilot:
        await _ask(pilot)
        await pilot.press("down", "enter")
        await until(pilot, lambda: "(•) step-000050" in text_of(app))
        await _write_reason(pilot, "why")
        await until(pilot, lambda: _is_open(app, "start"))
        await pilot.press("enter")
        await until(pilot, lambda: app.focused is not None and app.focused.id == "start")
        await pilot.press("enter")
        await until(pilot, lambda: isinstance(app.screen, TrainScreen))
        assert app.model is not None
        assert started == [app.model.run.id]
        assert json.loads(app.model.run.promotion.read_text())["checkpoint"] == "step-000050"


async def test_error_is_a_line_in_the_dialog_and_keeps_what_was_typed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refuse(run: RunDirectory) -> None:
        raise UserError("cuda:0 is busy with run [/b]other", fix="stop it")

    monkeypatch.setattr(promotion, "start", refuse)
    recording = recorded.record(128)
    app = cockpit(recording.run, now=recording.now)
    async with opened(app) as pilot:
        await _ask(pilot)
        await _write_reason(pilot, "why")
        await pilot.click("#start")
        await until(pilot, lambda: "cuda:0 is busy with run [/b]other" in text_of(app))
        assert "is prepared, but not started" in text_of(app)
        assert app.screen.query_one("#reason", Input).value == "why"
        assert _is_open(app, "start")
        # Leaving goes to the run that was prepared all the same.
        await pilot.press("escape")
        await until(pilot, lambda: "◇ prepared" in text_of(app))


async def test_damaged_checkpoint_is_refused_with_its_reason_and_another_can_be_chosen() -> None:
    recording = recorded.record(128)
    (recording.run.checkpoints / "step-000050" / "adapter_model.safetensors").write_bytes(b"x")
    app = cockpit(recording.run, now=recording.now)
    async with opened(app) as pilot:
        await _ask(pilot)
        await _write_reason(pilot, "why")
        assert _is_open(app, "start")
        app.screen.query_one("#checkpoints").focus()
        await pilot.press("down", "enter")
        await until(pilot, lambda: "checkpoint step-000050 is damaged" in text_of(app))
        assert not _is_open(app, "start")
        await _write_reason(pilot, "x")
        assert not _is_open(app, "start")
        app.screen.query_one("#checkpoints").focus()
        await pilot.press("up", "enter")
        await until(pilot, lambda: _is_open(app, "start"))


async def test_nothing_can_be_promoted_before_the_chosen_checkpoint_has_been_looked_at(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    recording = recorded.record(128)
    may_go_on, plan = threading.Event(), promotion.plan

    def slow_plan(run: RunDirectory, name: str) -> promotion.PromotionPlan:
        if name == "step-000050":
            may_go_on.wait(20)
        return plan(run, name)

    monkeypatch.setattr(promotion, "plan", slow_plan)
    app = cockpit(recording.run, now=recording.now)
    async with opened(app) as pilot:
        await _ask(pilot)
        await _write_reason(pilot, "why")
        assert _is_open(app, "start")
        app.screen.query_one("#checkpoints").focus()
        await pilot.press("down", "enter")
        await until(pilot, lambda: "(•) step-000050" in text_of(app))
        await _write_reason(pilot, "x")
        assert not _is_open(app, "start")
        may_go_on.set()
        await until(pilot, lambda: _is_open(app, "start"))


async def test_run_without_a_usable_checkpoint_says_so_and_offers_nothing() -> None:
    recording = recorded.record(60)
    (recording.run.checkpoints / "step-000050" / "manifest.json").unlink()
    app = cockpit(recording.run, now=recording.now)
    async with opened(app) as pilot:
        await pilot.press("P")
        await until(pilot, lambda: "is damaged: manifest.json is missing" in text_of(app))
        assert not _is_open(app, "start")


async def test_promoting_the_same_checkpoint_again_finds_the_first_run(
    started: list[str],
) -> None:
    recording = recorded.record(128)
    plan = promotion.plan(recording.run)
    first = promotion.promote(plan, reason="because", forced=True)
    app = cockpit(recording.run, now=recording.now)
    async with opened(app) as pilot:
        await _ask(pilot)
        await until(pilot, lambda: f"Promoted before: {first.id}" in text_of(app))
        await pilot.click("#start")
        await until(pilot, lambda: app.model is not None and app.model.run == first)
        assert started == [first.id]


@pytest.mark.parametrize(
    ("make", "read_only", "words"),
    [
        (lambda: recorded.record(3), False, "no checkpoint yet"),
        (lambda: recorded.record(60), True, "opened read-only"),
        (recorded.record_stage2, False, "Stage II already"),
    ],
)
async def test_promote_says_why_it_cannot_be_done(make: Any, read_only: bool, words: str) -> None:
    recording = make()
    app = cockpit(recording.run, now=recording.now, read_only=read_only)
    async with opened(app) as pilot:
        await pilot.press("P")
        await until(pilot, lambda: words in text_of(app))
        assert isinstance(app.screen, TrainScreen)


@pytest.mark.parametrize("where", ["attached", "runs"])
async def test_prepared_run_is_started_from_its_screen_and_from_the_table_of_runs(
    started: list[str], where: str
) -> None:
    prepared = recorded.promote(recorded.record(60, state="finished"))
    prepared.store.close()
    for file in prepared.run.path.glob("events.db*"):
        file.unlink()
    app = cockpit(prepared.run if where == "attached" else None)
    async with opened(app) as pilot:
        await until(pilot, lambda: "◇ prepared" in text_of(app))
        await until(pilot, lambda: "B start" in text_of(app))
        await pilot.press("B")
        await until(pilot, lambda: started == [prepared.run.id])
        await until(pilot, lambda: isinstance(app.screen, TrainScreen))
        assert app.model is not None
        assert app.model.run == prepared.run


async def test_run_that_does_not_wait_to_be_started_is_not_offered_to() -> None:
    recording = recorded.record(3)
    app = cockpit(recording.run)
    async with opened(app) as pilot:
        assert "B start" not in text_of(app)
        await pilot.press("B")
        await until(pilot, lambda: "does not wait to be started" in text_of(app))


async def test_stage2_run_names_its_parent_and_marks_the_promotion() -> None:
    recording = recorded.record_stage2()
    for size, origin in (((120, 40), ":step-000050"), ((80, 24), "")):
        async with opened(cockpit(recording.run, now=recording.now), size) as pilot:
            text = text_of(pilot.app)
            assert f"from 20251120-005320-demo{origin}" in text
            assert "Stage II natural market" in text
            await until(pilot, lambda: "promoted" in text_of(pilot.app))

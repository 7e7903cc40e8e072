"""Pictures of every screen in every state that a person meets, at three sizes.

After a change that is meant: look at the report, then `make test PYTEST_ARGS=--snapshot-update`.
"""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from textual.pilot import Pilot
from textual.widgets import Input

from engine.runs import devices
from engine.runs.store import EventStore
from stonk_tui import doctor
from stonk_tui.app import Cockpit
from stonk_tui.screens import real_run
from stonk_tui.screens.export_series import ExportSeriesScreen
from stonk_tui.settings import Settings
from stonk_tui.themes import PALETTES
from tests import evaluated, recorded
from tests.cockpit import test_doors as doors
from tests.cockpit.helpers import MACHINE, settle, text_of, until, until_rows_are_read

SIZES = [(80, 24), (120, 40), (200, 60)]
SnapCompare = Callable[..., bool]


@pytest.fixture(autouse=True)
def utc(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Times of day are shown in the local zone: let that be the same everywhere."""
    monkeypatch.setenv("TZ", "UTC")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


def _starting() -> recorded.Recording:
    recording = recorded.new_run()
    recording.starts()
    recording.progress("download", 61_000_000, 145_000_000, eta_seconds=41)
    return _living(recording)


def _warming_up() -> recorded.Recording:
    recording = recorded.new_run()
    recording.starts()
    recording.is_loaded()
    recording.warms_up(13)
    return _living(recording)


def _on_a_gpu() -> recorded.Recording:
    recording = recorded.new_run()
    recording.starts(device="cuda:0", device_name="NVIDIA H200")
    recording.is_loaded()
    recording.warms_up()
    recording.state("training")
    recording.trains(128)
    return _living(recording)


def _with_alarms() -> recorded.Recording:
    recording = recorded.new_run()
    recording.starts()
    recording.is_loaded()
    recording.state("training")
    recording.validates()
    recording.trains(60)
    recording.raises()
    recording.trains(4)
    recording.raises("entropy_collapse", "entropy 0.03 nats a token, below 0.05")
    return _living(recording)


def _with_other_settings() -> recorded.Recording:
    recording = recorded.new_run()
    recording.starts()
    recording.is_loaded()
    recording.state("training")
    recording.validates()
    recording.trains(40)
    recording.sets("optimizer.learning_rate", 8e-5, 4e-5)
    recording.trains(20)
    recording.sets("schedule.patience", None, 5)
    recording.trains(20)
    return _living(recording)


def _super_saiyan() -> recorded.Recording:
    recording = recorded.new_run()
    recording.starts()
    recording.is_loaded()
    recording.state("training")
    recording.validates()
    recording.trains(100)
    recording.lights_all()
    return _living(recording)


def _prepared() -> recorded.Recording:
    recording = recorded.promote(recorded.record(60, state="finished"))
    recording.store.close()
    for file in recording.run.path.glob("events.db*"):
        file.unlink()
    return recording


def _asked() -> recorded.Recording:
    recording = recorded.record(60)
    recording.store = EventStore(recording.run.database, begins_attempt=False)
    recording.is_asked(1, known=False)
    recording.is_asked(2)
    return _living(recording)


def _living(recording: recorded.Recording) -> recorded.Recording:
    recording.closes()
    recording.run.record_worker()
    return recording


STATES: dict[str, Callable[[], recorded.Recording]] = {
    "starting": _starting,
    "warming_up": _warming_up,
    "first_step": lambda: recorded.record(1),
    "training": _on_a_gpu,
    "paused": lambda: recorded.record(60, state="paused"),
    "stale": lambda: recorded.record(60, state="stale"),
    "failed": lambda: recorded.record(60, state="failed"),
    "stopped": lambda: recorded.record(60, state="stopped"),
    "finished": lambda: recorded.record(60, state="finished"),
    "alarms": _with_alarms,
    "super_saiyan": _super_saiyan,
    "prepared": _prepared,
    "stage2": recorded.record_stage2,
}


OTHERS = {"log": ("g", "l"), "help": ("question_mark",), "stop": ("S",), "promote": ("P",)}


def _compare(
    snap_compare: SnapCompare,
    recording: recorded.Recording | None,
    size: tuple[int, int],
    *keys: str,
    theme: str = "auto",
    ascii_only: bool = False,
) -> bool:
    has_events = recording is not None and recording.run.database.exists()
    now = recording.now if recording and has_events else recorded.START + 4000
    app = Cockpit(
        recording.run if recording else None,
        clock=lambda: now,
        machine=MACHINE,
        settings=Settings.model_validate({"theme": theme}),
        ascii_only=ascii_only,
    )

    async def be_ready(pilot: Pilot[None]) -> None:
        if recording is not None:
            await until(pilot, lambda: app.model is not None and app.model.loaded)
        await settle(pilot)
        for key in keys:
            await pilot.press(key)
            await settle(pilot)
        await until(pilot, lambda: getattr(app.screen, "listens", True))
        for field in app.screen.query(Input):
            # A cursor that blinks is in some pictures and not in others.
            field.cursor_blink = False
        await until_rows_are_read(pilot)

    return snap_compare(app, terminal_size=size, run_before=be_ready)


@pytest.mark.parametrize("size", SIZES, ids=lambda size: f"{size[0]}x{size[1]}")
@pytest.mark.parametrize("state", STATES)
def test_train_screen(snap_compare: SnapCompare, state: str, size: tuple[int, int]) -> None:
    assert _compare(snap_compare, STATES[state](), size)


@pytest.mark.parametrize("size", SIZES, ids=lambda size: f"{size[0]}x{size[1]}")
def test_rollout_screen(snap_compare: SnapCompare, size: tuple[int, int]) -> None:
    assert _compare(snap_compare, recorded.record(5), size, "enter", "x")


@pytest.mark.parametrize("size", SIZES, ids=lambda size: f"{size[0]}x{size[1]}")
@pytest.mark.parametrize(
    ("name", "keys"),
    [
        ("all", ()),
        ("filtered", ("slash", *"right:no", "space", *"reward<0.3", "enter", "down")),
        ("misfit", ("slash", *"call:up", "space", *"tickr:AAPL")),
        ("export", ("w",)),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_rollouts_screen(
    snap_compare: SnapCompare,
    name: str,
    keys: tuple[str, ...],
    size: tuple[int, int],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir("/")  # the export names where its file would be
    assert _compare(snap_compare, recorded.record(12), size, "g", "o", *keys)


def test_answers_of_a_group_side_by_side(snap_compare: SnapCompare) -> None:
    assert _compare(snap_compare, recorded.record(5), (120, 40), "g", "o", "enter", "v", "n")


@pytest.mark.parametrize("size", SIZES, ids=lambda size: f"{size[0]}x{size[1]}")
def test_runs_screen(snap_compare: SnapCompare, size: tuple[int, int]) -> None:
    recorded.record(60, name="one", state="finished")
    recorded.record(20, name="two", state="stale")
    recorded.record(10, name="three", state="failed")
    recorded.record(40, name="four")
    _living(recorded.new_run("five"))
    assert _compare(snap_compare, None, size)


@pytest.mark.parametrize("size", SIZES, ids=lambda size: f"{size[0]}x{size[1]}")
def test_runs_compared(snap_compare: SnapCompare, size: tuple[int, int]) -> None:
    for seed, (name, steps) in enumerate((("one", 60), ("two", 20), ("three", 40))):
        recording = recorded.new_run(name)
        recording.random.seed(seed)
        recording.starts()
        recording.is_loaded()
        recording.validates()
        recording.trains(steps, every=20)
        recording.state("finished")
        recording.closes()
    assert _compare(snap_compare, None, size, "space", "j", "space", "j", "space", "v", "left")


@pytest.mark.parametrize("size", SIZES, ids=lambda size: f"{size[0]}x{size[1]}")
def test_runs_filtered(snap_compare: SnapCompare, size: tuple[int, int]) -> None:
    recorded.record(60, name="one", state="finished")
    recorded.record(20, name="two", state="stale")
    assert _compare(snap_compare, None, size, "space", "slash", *"state:finish stage:4")


@pytest.mark.parametrize("size", SIZES, ids=lambda size: f"{size[0]}x{size[1]}")
def test_new_run(
    snap_compare: SnapCompare, size: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(devices, "gpus", list)
    recorded.record(30, name="one", state="finished")
    # A run of no steps: the problem, its line and its field.
    assert _compare(snap_compare, None, size, "n", *["tab"] * 7, "0")


@pytest.mark.parametrize("size", SIZES, ids=lambda size: f"{size[0]}x{size[1]}")
def test_runs_screen_without_a_run_greets(snap_compare: SnapCompare, size: tuple[int, int]) -> None:
    assert _compare(snap_compare, None, size)


@pytest.mark.parametrize("size", SIZES, ids=lambda size: f"{size[0]}x{size[1]}")
def test_real_run_door(
    snap_compare: SnapCompare, size: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(doctor, "collect", doors.report)
    monkeypatch.setattr(real_run, "downloads", lambda config: doors.DOWNLOADS)
    assert _compare(snap_compare, None, size, "2")


@pytest.mark.parametrize("size", SIZES, ids=lambda size: f"{size[0]}x{size[1]}")
def test_folder_door(snap_compare: SnapCompare, size: tuple[int, int]) -> None:
    assert _compare(snap_compare, None, size, "3", *"/no/such/run")


@pytest.mark.parametrize("size", SIZES, ids=lambda size: f"{size[0]}x{size[1]}")
@pytest.mark.parametrize("name", OTHERS)
def test_other_screens(snap_compare: SnapCompare, name: str, size: tuple[int, int]) -> None:
    assert _compare(snap_compare, recorded.record(60), size, *OTHERS[name])


@pytest.mark.parametrize("size", SIZES, ids=lambda size: f"{size[0]}x{size[1]}")
def test_alarm_explained(snap_compare: SnapCompare, size: tuple[int, int]) -> None:
    assert _compare(snap_compare, _with_alarms(), size, "8", "enter")


@pytest.mark.parametrize("size", SIZES, ids=lambda size: f"{size[0]}x{size[1]}")
def test_settings(snap_compare: SnapCompare, size: tuple[int, int]) -> None:
    assert _compare(snap_compare, _with_other_settings(), size, "s", "down", "down", "0", ".", "8")


@pytest.mark.parametrize("size", SIZES, ids=lambda size: f"{size[0]}x{size[1]}")
@pytest.mark.parametrize("keys", [("g", "b"), ("g", "b", "f6")], ids=["day", "typed"])
def test_probe_screen(
    snap_compare: SnapCompare, keys: tuple[str, ...], size: tuple[int, int]
) -> None:
    assert _compare(snap_compare, _asked(), size, *keys)


@pytest.mark.parametrize("size", SIZES, ids=lambda size: f"{size[0]}x{size[1]}")
@pytest.mark.parametrize("state", ["empty", "running", "report"])
def test_evaluate_screen(snap_compare: SnapCompare, state: str, size: tuple[int, int]) -> None:
    recording = recorded.record(120)
    store = None
    if state != "empty":
        two = ("base", "step-000050", "step-000100")
        evaluated.write(recording.run, evaluated.report(two))
        words = {"base": "no evidence", "step-000050": "strong"}
        planted = {"source": "planted:share=0.9,seed=1", "split": "validation"}
        name = "20251119-230000-validation"
        made_up = evaluated.report(words=words, is_synthetic=True, identifier=name, **planted)
        evaluated.write(recording.run, made_up, identifier=name)
    if state == "running":
        store = evaluated.begin(recording)
    now = recording.now
    app = Cockpit(recording.run, clock=lambda: now, machine=MACHINE)

    async def be_ready(pilot: Pilot[None]) -> None:
        await until(pilot, lambda: app.model is not None and app.model.loaded)
        await pilot.press("g", "e")
        awaited = {"empty": "No evaluation yet", "running": "60 %", "report": "● strong"}[state]
        await until(pilot, lambda: awaited in text_of(app) and "✓ base" in text_of(app))
        for field in app.screen.query(Input):
            field.cursor_blink = False
        await settle(pilot)

    assert snap_compare(app, terminal_size=size, run_before=be_ready)
    if store is not None:
        store.close()


@pytest.mark.parametrize("panel", range(1, 10))
def test_zoomed_panel(snap_compare: SnapCompare, panel: int) -> None:
    assert _compare(snap_compare, _on_a_gpu(), (120, 40), str(panel), "z")


@pytest.mark.parametrize("size", SIZES, ids=lambda size: f"{size[0]}x{size[1]}")
@pytest.mark.parametrize(
    ("name", "keys"),
    [
        ("panned", ("plus", "plus", "left", "left", "left", "i")),
        ("components", ("v",)),
        ("accuracy", ("v", "v", "i", "left")),
        ("kl_log", ("z", "v", "v", "v", "y", "left_square_bracket")),
        ("chooser", ("V",)),
        ("export", ("w",)),
    ],
)
def test_chart(
    snap_compare: SnapCompare,
    name: str,
    keys: tuple[str, ...],
    size: tuple[int, int],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # The dialog shows where the file would be.
    monkeypatch.setattr(ExportSeriesScreen, "_out", Path("/tmp/reward.csv"))
    assert _compare(snap_compare, _on_a_gpu(), size, "1", *keys)


def test_monochrome_terminal(snap_compare: SnapCompare, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    assert _compare(snap_compare, recorded.record(60), (120, 40))


@pytest.mark.parametrize("name", [name for name in PALETTES if name != "saiyan"])
def test_theme(snap_compare: SnapCompare, name: str) -> None:
    assert _compare(snap_compare, _with_alarms(), (120, 40), theme=name)


@pytest.mark.parametrize("size", SIZES, ids=lambda size: f"{size[0]}x{size[1]}")
def test_ascii_alone(snap_compare: SnapCompare, size: tuple[int, int]) -> None:
    assert _compare(snap_compare, _with_alarms(), size, ascii_only=True)


def test_second_keys(snap_compare: SnapCompare) -> None:
    assert _compare(snap_compare, recorded.record(60), (80, 24), "g")


def test_searched_help(snap_compare: SnapCompare) -> None:
    assert _compare(snap_compare, recorded.record(60), (80, 24), "question_mark", *"keep")


def test_terminal_too_small(snap_compare: SnapCompare) -> None:
    assert _compare(snap_compare, recorded.record(60), (50, 12))

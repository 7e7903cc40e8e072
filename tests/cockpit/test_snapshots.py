"""Pictures of every screen in every state that a person meets, at three sizes.

After a change that is meant: look at the report, then `make test PYTEST_ARGS=--snapshot-update`.
"""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from textual.pilot import Pilot

from stonk_tui.app import Cockpit
from stonk_tui.screens.export_series import ExportSeriesScreen
from tests import recorded
from tests.cockpit.helpers import MACHINE, settle, until

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
    "finished": lambda: recorded.record(60, state="finished"),
    "alarms": _with_alarms,
    "super_saiyan": _super_saiyan,
    "prepared": _prepared,
    "stage2": recorded.record_stage2,
}


def _compare(
    snap_compare: SnapCompare,
    recording: recorded.Recording | None,
    size: tuple[int, int],
    *keys: str,
) -> bool:
    has_events = recording is not None and recording.run.database.exists()
    now = recording.now if recording and has_events else recorded.START + 4000
    app = Cockpit(recording.run if recording else None, clock=lambda: now, machine=MACHINE)

    async def be_ready(pilot: Pilot[None]) -> None:
        if recording is not None:
            await until(pilot, lambda: app.model is not None and app.model.loaded)
        await settle(pilot)
        for key in keys:
            await pilot.press(key)
            await settle(pilot)
        await settle(pilot)

    return snap_compare(app, terminal_size=size, run_before=be_ready)


@pytest.mark.parametrize("size", SIZES, ids=lambda size: f"{size[0]}x{size[1]}")
@pytest.mark.parametrize("state", STATES)
def test_train_screen(snap_compare: SnapCompare, state: str, size: tuple[int, int]) -> None:
    assert _compare(snap_compare, STATES[state](), size)


@pytest.mark.parametrize("size", SIZES, ids=lambda size: f"{size[0]}x{size[1]}")
def test_rollout_screen(snap_compare: SnapCompare, size: tuple[int, int]) -> None:
    assert _compare(snap_compare, recorded.record(5), size, "enter", "x")


@pytest.mark.parametrize("size", SIZES, ids=lambda size: f"{size[0]}x{size[1]}")
def test_runs_screen(snap_compare: SnapCompare, size: tuple[int, int]) -> None:
    recorded.record(60, name="one", state="finished")
    recorded.record(20, name="two", state="stale")
    recorded.record(10, name="three", state="failed")
    recorded.record(40, name="four")
    _living(recorded.new_run("five"))
    assert _compare(snap_compare, None, size)


@pytest.mark.parametrize("size", SIZES, ids=lambda size: f"{size[0]}x{size[1]}")
def test_runs_screen_without_a_run_greets(snap_compare: SnapCompare, size: tuple[int, int]) -> None:
    assert _compare(snap_compare, None, size)


@pytest.mark.parametrize("size", SIZES, ids=lambda size: f"{size[0]}x{size[1]}")
@pytest.mark.parametrize(
    ("name", "key"), [("log", "l"), ("help", "question_mark"), ("stop", "S"), ("promote", "P")]
)
def test_other_screens(
    snap_compare: SnapCompare, name: str, key: str, size: tuple[int, int]
) -> None:
    assert _compare(snap_compare, recorded.record(60), size, key)


@pytest.mark.parametrize("size", SIZES, ids=lambda size: f"{size[0]}x{size[1]}")
def test_alarm_explained(snap_compare: SnapCompare, size: tuple[int, int]) -> None:
    assert _compare(snap_compare, _with_alarms(), size, "8", "enter")


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

"""The very first launch: three doors, and what is behind each."""

import re
import sys
from pathlib import Path

import psutil
import pytest
from textual.widgets import Button, Input

from engine import config as configuration
from engine.runs.directory import RunDirectory
from stonk_tui import doctor
from stonk_tui.doctor import DoctorReport, Finding
from stonk_tui.doctor import model as doctor_model
from stonk_tui.doctor.gpus import DriverView, TorchView
from stonk_tui.screens import begin, real_run
from stonk_tui.screens.new_run import NewRunScreen
from stonk_tui.screens.open_folder import OpenFolderScreen, judge
from stonk_tui.screens.real_run import RealRunScreen, downloads
from stonk_tui.screens.runs import RunsScreen
from stonk_tui.screens.train import TrainScreen
from stonk_tui.widgets.doors import Door
from tests import recorded
from tests.cockpit.helpers import cockpit, opened, settle, text_of, until

FINDINGS = [
    Finding("python", "ok", "Python 3.12"),
    Finding("gpu 0", "ok", "NVIDIA H200, 139.8 GiB, sm_90, bf16"),
    Finding(
        "memory", "ok", "1.54 B parameters: about 6.9 GiB in 16 bits, and the GPU has 139.8 GiB"
    ),
    Finding("disk (runs)", "error", "about 1.0 GiB needed, 0.2 GiB free", "free some space"),
    Finding("hub", "ok", "the model hub answers"),
    Finding("hub token", "note", "none; only gated and private models need one"),
    Finding("terminal", "ok", "TERM=xterm-256color"),
    Finding("sqlite", "warning", "SQLite [b]0.1[/b] \x1b[2J", "update it"),
]
DOWNLOADS = ("model: Qwen/Qwen2.5-1.5B-Instruct, about 3.1 GB, into /cache",)


@pytest.fixture(autouse=True)
def program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A program in place of ``stonk-tui``: tests write what it does."""
    file = tmp_path / "program.py"
    file.write_text("import sys\nsys.exit('stonk-tui: nothing is begun in a test')\n")
    monkeypatch.setattr(begin, "PROGRAM", (sys.executable, str(file)))
    return file


def report(model_id: str, home: Path) -> DoctorReport:
    return DoctorReport(model_id, str(home), {}, TorchView(), DriverView(), FINDINGS)


async def test_greeting_shows_three_doors_and_the_keys_that_do_nothing_are_dimmed() -> None:
    app = cockpit(None)
    async with opened(app, (80, 24)) as pilot:
        text = text_of(app)
        for part in ("No run yet", "1 The demo", "2 A real run", "3 A run that exists"):
            assert part in text
        await pilot.press("slash")
        await until(pilot, lambda: "there is no run yet" in text_of(app))
        assert isinstance(app.focused, Door)


async def test_doors_are_walked_with_arrows_and_opened_with_enter_and_clicks() -> None:
    app = cockpit(None)
    async with opened(app) as pilot:
        assert app.focused is app.screen.query(Door)[0]
        await pilot.press("down", "down", "enter")
        await until(pilot, lambda: isinstance(app.screen, OpenFolderScreen))
        await pilot.press("escape")
        await until(pilot, lambda: isinstance(app.screen, RunsScreen))
        await pilot.click("#door_folder")
        await until(pilot, lambda: isinstance(app.screen, OpenFolderScreen))


async def test_demo_door_begins_the_demo_and_attaches(program: Path) -> None:
    program.write_text(
        "import sys\n"
        f"sys.path.insert(0, {str(Path.cwd())!r})\n"
        "from tests import recorded\n"
        "assert sys.argv[1:] == ['train', '--preset', 'demo', '--detach']\n"
        "print(recorded.record(2, state='stale').run.id)\n"
    )
    app = cockpit(None)
    async with opened(app) as pilot:
        await pilot.press("enter")
        await until(pilot, lambda: isinstance(app.screen, TrainScreen))
        assert app.model is not None
        assert app.model.run.id == "20251120-005320-demo"


async def test_demo_that_cannot_begin_says_why(program: Path) -> None:
    program.write_text("import sys\nsys.exit('stonk-tui: not enough disk space; free some')\n")
    app = cockpit(None)
    async with opened(app) as pilot:
        await pilot.press("1")
        await until(pilot, lambda: "not enough disk space" in text_of(app))
        assert isinstance(app.screen, RunsScreen)


async def test_leaving_the_cockpit_ends_what_has_not_begun_yet(
    program: Path, tmp_path: Path
) -> None:
    program.write_text(
        "import os, pathlib, time\n"
        f"pathlib.Path({str(tmp_path / 'pid')!r}).write_text(str(os.getpid()))\n"
        "print('downloading', flush=True)\n"
        "time.sleep(600)\n"
    )
    app = cockpit(None)
    async with opened(app) as pilot:
        await pilot.press("1")
        await until(pilot, lambda: "downloading" in text_of(app))
        await pilot.press("ctrl+q")
    pid = int((tmp_path / "pid").read_text())
    assert not psutil.pid_exists(pid)


async def test_real_door_shows_what_was_found_and_goes_on_to_the_form(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(doctor, "collect", report)
    monkeypatch.setattr(real_run, "downloads", lambda config: DOWNLOADS)
    app = cockpit(None)
    async with opened(app) as pilot:
        await pilot.press("2")
        await until(pilot, lambda: "To be downloaded" in text_of(app))
        assert isinstance(app.screen, RealRunScreen)
        text = re.sub(r"[\s│]+", " ", text_of(app))
        for part in (
            "✓ gpu 0",
            "✗ disk (runs)",
            "→ free some space",
            "· hub token none",
            "about 3.1 GB, into /cache",
            # Beside the point, but it stands in the way; and text like any other.
            "! sqlite SQLite [b]0.1[/b] ␛[2J",
        ):
            assert part in text
        assert "TERM=" not in text
        await pilot.press("enter")
        await until(pilot, lambda: isinstance(app.screen, NewRunScreen))
        await settle(pilot)
        assert "Qwen/Qwen2.5-1.5B-Instruct" in text_of(app)


def test_token_is_only_ever_looked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    finding = doctor.machine.judge_token(doctor.machine.token_present())
    assert "hf_secret" not in repr(finding)


def test_downloads_are_told_before_anything_is_fetched(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    stage1 = configuration.preset("stage1")
    model, data = downloads(stage1)
    assert model == f"model: Qwen/Qwen2.5-1.5B-Instruct, about 3.1 GB, into {tmp_path}"
    assert data == "market data: nothing, demo is on this machine"
    snapshot = tmp_path / "models--Qwen--Qwen2.5-1.5B-Instruct" / "snapshots" / "x"
    snapshot.mkdir(parents=True)
    (snapshot / "model.safetensors").touch()
    assert downloads(stage1)[0].startswith("model: nothing")
    other = configuration.with_overrides(stage1, ["model.id=me/mine", "data.source=deepstock"])
    assert "of a size that is not known" in downloads(other)[0]
    assert "deepstock" in downloads(other)[1]
    monkeypatch.setattr(doctor_model, "embedded_model_ready", lambda cache: True)
    assert downloads(configuration.preset("demo"))[0].startswith("model: nothing")


async def test_folder_door_watches_a_run_that_lies_elsewhere(tmp_path: Path) -> None:
    run = recorded.record(3, state="finished").run
    elsewhere = tmp_path / "elsewhere" / run.id
    elsewhere.parent.mkdir()
    run.path.rename(elsewhere)
    app = cockpit(None)
    async with opened(app) as pilot:
        await pilot.press("3")
        await until(pilot, lambda: isinstance(app.screen, OpenFolderScreen))
        field = app.screen.query_one(Input)
        field.value = str(elsewhere.parent)
        await until(pilot, lambda: "this folder holds a run; name one of them" in text_of(app))
        assert app.screen.query_one("#open", Button).disabled
        await pilot.press("enter")
        assert isinstance(app.screen, OpenFolderScreen)
        field.value = str(elsewhere)
        await until(pilot, lambda: "Stage I, smollm2-135m, demo" in text_of(app))
        await pilot.press("enter")
        await until(pilot, lambda: isinstance(app.screen, TrainScreen))
        await until(pilot, lambda: "3 steps done" in text_of(app))


def test_path_is_judged_in_words(tmp_path: Path) -> None:
    run = recorded.record(3, state="finished").run
    (tmp_path / "file").touch()
    (tmp_path / "empty").mkdir()
    broken = tmp_path / "broken"
    broken.mkdir()
    (broken / "run.yaml").write_text("schema: 999\n")
    said = {
        "": "The folder of one run",
        str(tmp_path / "no" / "such"): f"nothing is there; {tmp_path} is as far as it goes",
        str(tmp_path / "file"): "this is a file",
        str(tmp_path / "empty"): "run.yaml is missing",
        str(run.path.parent): "holds a run",
        str(broken): "written by a newer stonk-tui",
        "~no-such-user/x": "",
        "nul\0byte": "",
        "x" * 5000: "",
    }
    for typed, words in said.items():
        found, text = judge(typed)
        assert found is None
        assert words in text
    assert judge(f"  {run.path} ") == (run, f"{run.id}: Stage I, smollm2-135m, demo")
    assert judge(str(run.path))[0] == RunDirectory(run.path)


async def test_first_run_takes_the_place_of_the_doors() -> None:
    app = cockpit(None)
    async with opened(app) as pilot:
        recorded.record(2, state="finished")
        screen = app.screen
        assert isinstance(screen, RunsScreen)
        screen._look()
        await until(pilot, lambda: "✓ finished" in text_of(app))
        assert "No run yet" not in text_of(app)
        await pilot.press("enter")
        await until(pilot, lambda: isinstance(app.screen, TrainScreen))


async def test_read_only_cockpit_only_watches() -> None:
    app = cockpit(None, read_only=True)
    async with opened(app) as pilot:
        for key in ("1", "2"):
            await pilot.press(key)
            await until(pilot, lambda: "opened read-only" in text_of(app))
        await pilot.press("3")
        await until(pilot, lambda: isinstance(app.screen, OpenFolderScreen))

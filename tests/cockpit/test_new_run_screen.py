"""The form of a new run: fields and YAML in step, problems in place, and a run at the end."""

import sys
from pathlib import Path
from typing import Any, cast

import pytest
from textual.pilot import Pilot
from textual.widgets import Button, Input, Select, TextArea

from engine.errors import UserError
from engine.runs import devices, directory
from engine.runs.directory import RunDirectory
from stonk_tui.app import Cockpit
from stonk_tui.screens import begin, confirm
from stonk_tui.screens.begin import BeginScreen
from stonk_tui.screens.confirm import ConfirmScreen
from stonk_tui.screens.new_run import NewRunScreen
from stonk_tui.screens.runs import RunsScreen
from stonk_tui.screens.train import TrainScreen
from tests import recorded
from tests.cockpit.helpers import cockpit, opened, settle, text_of, until


@pytest.fixture(autouse=True)
def no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(devices, "gpus", list)


@pytest.fixture
def program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A program in place of ``stonk-tui``: tests write what it does."""
    file = tmp_path / "program.py"
    monkeypatch.setattr(begin, "PROGRAM", (sys.executable, str(file)))
    return file


async def open_form(app: Cockpit, pilot: Pilot[None]) -> NewRunScreen:
    await pilot.press("n")
    await until(pilot, lambda: isinstance(app.screen, NewRunScreen))
    await settle(pilot)
    return cast(NewRunScreen, app.screen)


async def set_field(pilot: Pilot[None], name: str, value: str) -> None:
    pilot.app.screen.query_one(f"#field-{name}", Input).value = value
    await settle(pilot)


def yaml_of(app: Cockpit) -> TextArea:
    return app.screen.query_one(TextArea)


async def test_fields_and_yaml_are_kept_in_step_both_ways() -> None:
    recorded.record(3, state="finished")
    app = cockpit(None)
    async with opened(app) as pilot:
        await open_form(app, pilot)
        await set_field(pilot, "schedule-max_steps", "5")
        assert "max_steps: 5\n" in yaml_of(app).text
        area = yaml_of(app)
        area.replace("# mine\nname: mine\nseed: 99\n", (0, 0), (3, 0))
        await settle(pilot)
        assert app.screen.query_one("#field-name", Input).value == "mine"
        assert app.screen.query_one("#field-seed", Input).value == "99"
        await set_field(pilot, "name", "yours")
        # Comments stay when a field writes.
        assert area.text.startswith("# mine\nname: yours\nseed: 99\n")
        app.screen.query_one("#field-model-quantize", Select).value = "nf4"
        await settle(pilot)
        assert "quantize: nf4\n" in area.text
        assert "✓ these settings can be started" in text_of(app)


async def test_problem_names_line_and_field_and_nothing_can_be_started() -> None:
    recorded.record(3, state="finished")
    app = cockpit(None)
    async with opened(app) as pilot:
        form = await open_form(app, pilot)
        await set_field(pilot, "rollout-group_size", "1")
        number = yaml_of(app).text.split("\n").index("  group_size: 1") + 1
        assert f"✗ line {number}, rollout.group_size: input should be" in text_of(app)
        assert form.query_one("#start", Button).disabled
        assert form.query_one("#prepare", Button).disabled
        assert [row.name for row in form.query(".field.-wrong")] == ["rollout.group_size"]
        await set_field(pilot, "rollout-group_size", "6")
        assert not form.query_one("#start", Button).disabled
        assert not form.query(".field.-wrong")
        area = yaml_of(app)
        area.replace("seeed: 1\nname: [\n", (0, 0), (0, 0))
        await settle(pilot)
        assert "not valid YAML" in text_of(app)
        # A field cannot be written into what is no YAML; the text is left as it is.
        before = area.text
        await set_field(pilot, "seed", "3")
        assert area.text == before


async def test_preset_brings_its_settings_and_stage_two_is_refused_with_the_way() -> None:
    recorded.record(3, state="finished")
    app = cockpit(None)
    async with opened(app) as pilot:
        await open_form(app, pilot)
        app.screen.query_one("#preset", Select).value = "stage1"
        await settle(pilot)
        assert app.screen.query_one("#field-model-id", Input).value == "Qwen/Qwen2.5-1.5B-Instruct"
        assert "1.54 B parameters × 4 bytes" in text_of(app)
        app.screen.query_one("#field-stage", Select).value = "II"
        await settle(pilot)
        assert "Stage II starts from a promoted Stage I checkpoint" in text_of(app)
        assert app.screen.query_one("#start", Button).disabled


async def test_estimate_says_where_it_comes_from() -> None:
    recorded.record(30, name="before", state="finished")
    app = cockpit(None)
    async with opened(app) as pilot:
        await open_form(app, pilot)
        assert "measured in 20251120-005320-before, the same sizes" in text_of(app)
        assert "memory 3.4 GiB" in text_of(app)
        await set_field(pilot, "rollout-group_size", "6")
        await until(pilot, lambda: "but with other rollout.group_size" in text_of(app))
        await set_field(pilot, "model-device", "cuda")
        await until(pilot, lambda: "no NVIDIA GPU answers" in text_of(app))


async def test_small_screen_turns_between_fields_and_yaml() -> None:
    recorded.record(3, state="finished")
    app = cockpit(None)
    async with opened(app, (80, 24)) as pilot:
        await open_form(app, pilot)
        assert "KL coefficient" in text_of(app)
        assert "train_share" not in text_of(app)
        await pilot.press("f2")
        await settle(pilot)
        assert "train_share" in text_of(app)
        assert "KL coefficient" not in text_of(app)
        assert "Start" in text_of(app)


async def test_keys_of_the_cockpit_do_nothing_in_the_form() -> None:
    recorded.record(3, state="finished")
    app = cockpit(None)
    async with opened(app) as pilot:
        await open_form(app, pilot)
        await pilot.press("q", "l", "S")
        await settle(pilot)
        assert isinstance(app.screen, NewRunScreen)
        assert app.is_running


async def test_changed_settings_are_not_lost_by_one_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(confirm, "DEAF_SECONDS", 0.01)
    recorded.record(3, state="finished")
    app = cockpit(None)
    async with opened(app) as pilot:
        await open_form(app, pilot)
        await set_field(pilot, "seed", "3")
        await pilot.press("escape")
        await until(pilot, lambda: isinstance(app.screen, ConfirmScreen))
        await pilot.press("n")
        await until(pilot, lambda: isinstance(app.screen, NewRunScreen))
        assert "seed: 3\n" in yaml_of(app).text
        await pilot.press("escape")
        await until(pilot, lambda: getattr(app.screen, "listens", False))
        await pilot.press("y")
        await until(pilot, lambda: isinstance(app.screen, RunsScreen))
        await open_form(app, pilot)
        # What was not touched needs no question.
        await pilot.press("escape")
        await until(pilot, lambda: isinstance(app.screen, RunsScreen))


async def test_start_hands_the_text_to_the_command_line_and_attaches(
    program: Path, tmp_path: Path
) -> None:
    recorded.record(3, name="before", state="finished")
    program.write_text(
        "import pathlib, sys\n"
        f"sys.path.insert(0, {str(Path.cwd())!r})\n"
        "from tests import recorded\n"
        f"kept = pathlib.Path({str(tmp_path / 'kept.yaml')!r})\n"
        "kept.write_text(pathlib.Path(sys.argv[-1]).read_text())\n"
        "print('downloading  12%', flush=True)\n"
        "print(sys.argv[1:-1], file=sys.stderr)\n"
        "print(recorded.record(3, name='fresh', state='stale').run.id)\n"
    )
    app = cockpit(None)
    async with opened(app) as pilot:
        form = await open_form(app, pilot)
        await set_field(pilot, "seed", "77")
        text = yaml_of(app).text
        form.query_one("#start", Button).press()
        await until(pilot, lambda: isinstance(app.screen, TrainScreen))
        assert app.model is not None
        assert app.model.run.id.endswith("-fresh")
        assert (tmp_path / "kept.yaml").read_text() == text


async def test_refusal_is_shown_in_the_form(program: Path) -> None:
    recorded.record(3, state="finished")
    program.write_text(
        "import sys\n"
        "print('stonk-tui: a note', file=sys.stderr)\n"
        "print('stonk-tui: --device cuda: [b]no GPU[/b] \\x1b[2J; use cpu', file=sys.stderr)\n"
        "sys.exit(2)\n"
    )
    app = cockpit(None)
    async with opened(app) as pilot:
        form = await open_form(app, pilot)
        form.query_one("#start", Button).press()
        await until(pilot, lambda: "✗ --device cuda: [b]no GPU[/b]" in text_of(app))
        assert isinstance(app.screen, NewRunScreen)
        assert len(directory.list_runs()) == 1


async def test_start_can_be_called_off(program: Path, tmp_path: Path) -> None:
    recorded.record(3, state="finished")
    mark = tmp_path / "interrupted"
    program.write_text(
        "import pathlib, sys, time\n"
        "try:\n"
        "    print('downloading  40%', flush=True)\n"
        "    time.sleep(60)\n"
        "except KeyboardInterrupt:\n"
        f"    pathlib.Path({str(mark)!r}).touch()\n"
        "    sys.exit(130)\n"
    )
    app = cockpit(None)
    async with opened(app) as pilot:
        form = await open_form(app, pilot)
        form.query_one("#start", Button).press()
        await until(pilot, lambda: isinstance(app.screen, BeginScreen))
        await until(pilot, lambda: "downloading 40%" in text_of(app))
        await pilot.press("escape")
        await until(pilot, lambda: isinstance(app.screen, NewRunScreen))
        assert mark.exists()
        assert "✗" not in text_of(app)


async def test_program_that_cannot_be_run_is_a_problem(monkeypatch: pytest.MonkeyPatch) -> None:
    recorded.record(3, state="finished")
    monkeypatch.setattr(begin, "PROGRAM", ("/no/such/program",))
    app = cockpit(None)
    async with opened(app) as pilot:
        form = await open_form(app, pilot)
        form.query_one("#prepare", Button).press()
        await until(pilot, lambda: "stonk-tui could not be run" in text_of(app))


async def test_prepare_only_makes_a_run_that_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    recorded.record(3, state="finished")
    app = cockpit(None)
    async with opened(app) as pilot:
        form = await open_form(app, pilot)
        await set_field(pilot, "name", "patient")
        await set_field(pilot, "seed", "5")
        form.query_one("#prepare", Button).press()
        # The program itself this time.
        await until(pilot, lambda: "is prepared; B starts it" in text_of(app))
        await until(pilot, lambda: "◇ prepared" in text_of(app))
        run = next(run for run in directory.list_runs() if run.id.endswith("-patient"))
        assert run.is_prepared
        assert run.config().seed == 5
        started: list[RunDirectory] = []

        def refuse(run: Any) -> None:
            started.append(run)
            raise UserError("not in a test")

        monkeypatch.setattr("engine.runs.promotion.start", refuse)
        await pilot.press("home", "B")
        await until(pilot, lambda: started == [run])


async def test_read_only_cockpit_makes_nothing() -> None:
    recorded.record(3, state="finished")
    app = cockpit(None, read_only=True)
    async with opened(app) as pilot:
        await pilot.press("n")
        await until(pilot, lambda: "opened read-only" in text_of(app))
        assert isinstance(app.screen, RunsScreen)

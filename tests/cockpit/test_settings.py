"""A person's settings: read with errors that name the line, written back line by line."""

import tomllib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from textual.widgets import Input
from typer.testing import CliRunner

from engine.errors import UserError
from stonk_tui import actions, settings
from stonk_tui.app import Cockpit
from stonk_tui.cli import app as program
from stonk_tui.palette import ActionProvider
from stonk_tui.screens.help import HelpScreen
from stonk_tui.settings import Settings, change, line_of, load
from stonk_tui.themes import THEMES
from stonk_tui.widgets.keys import KeyBar
from tests import recorded
from tests.cockpit.helpers import MACHINE, opened, settle, text_of, until


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "settings.toml"


def test_file_that_is_not_there_means_the_defaults(file: Path) -> None:
    assert load(file) == settings.Loaded(Settings())


def test_every_theme_can_be_chosen() -> None:
    names = {action.argument for action in actions.ACTIONS if action.handler == "theme"}
    assert names == set(THEMES)
    for name in (*THEMES, "auto"):
        assert Settings(theme=name).theme == name  # type: ignore[arg-type]


def test_what_is_wrong_is_said_with_its_line_and_the_rest_holds(file: Path) -> None:
    file.write_text(
        'theme = "lihgt"\n'
        'motion = "none"\n'
        "bell = 3\n"
        'tehme = "light"\n'
        "\n"
        "[keymap]\n"
        'pause = "f10"\n'
        "stop = 7\n"
        'zoom = "c"\n'
        '"pauze" = "y"\n'
    )
    loaded = load(file)
    assert loaded.settings == Settings(motion="none", keymap={"pause": "f10"})
    assert sorted(loaded.problems, key=lambda text: int(text.split(":")[1])) == [
        f"{file}:1:theme: input should be 'auto', 'saiyan', 'light', 'high-contrast', "
        "'colour-blind', 'monochrome' or 'ansi'",
        f"{file}:3:bell: input should be a valid boolean",
        f"{file}:4:tehme: there is no such setting; did you mean theme?",
        f"{file}:8:keymap.stop: input should be a valid string",
        f"{file}:9:keymap.zoom: c is the key of checkpoint already",
        f"{file}:10:keymap.pauze: there is no action pauze; did you mean pause?",
    ]


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ('theme = "light"\nbell = \n', "2: Invalid value"),
        ("keymap = 3", "1:keymap: input should be a valid dictionary"),
        ("keymap.pause = 3", "1:keymap.pause: input should be a valid string"),
        ("[keymap]\nstop = [1]", "2:keymap.stop: input should be a valid string"),
    ],
)
def test_broken_file_gives_defaults_and_one_line(file: Path, text: str, problem: str) -> None:
    file.write_text(text)
    loaded = load(file)
    assert loaded.settings == Settings()
    assert loaded.problems == (f"{file}:{problem}",)


def test_file_that_is_no_text_or_no_file_is_said(file: Path) -> None:
    file.write_bytes(b"\xff\xfe")
    assert "cannot be read" in load(file).problems[0]
    file.unlink()
    file.mkdir()
    assert "cannot be read" in load(file).problems[0]


@given(st.binary() | st.text().map(lambda text: text.encode("utf-8", "replace")))
def test_whatever_is_in_the_file_the_cockpit_gets_settings(data: bytes) -> None:
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "settings.toml"
        path.write_bytes(data)
        loaded = load(path)
    assert isinstance(loaded.settings, Settings)
    assert all("\n" not in problem for problem in loaded.problems)


def test_change_keeps_every_other_line(file: Path) -> None:
    text = (
        "# mine\n"
        "bell = false # quiet\n"
        'theme = "light"   # for the day\n'
        "\n"
        "# keys\n"
        "[keymap]\n"
        'theme = "x"\n'
    )
    file.write_text(text)
    change(file, "theme", "ansi")
    assert file.read_text() == text.replace(
        'theme = "light"   # for the day', 'theme = "ansi"   # for the day'
    )
    change(file, "motion", "none")
    assert file.read_text().split("\n")[2:7] == [
        'theme = "ansi"   # for the day',
        'motion = "none"',
        "",
        "# keys",
        "[keymap]",
    ]


def test_change_makes_the_file_and_follows_a_link(file: Path, tmp_path: Path) -> None:
    target = tmp_path / "elsewhere" / "mine.toml"
    change(target, "theme", "light")
    file.symlink_to(target)
    target.chmod(0o640)
    change(file, "theme", "ansi")
    assert file.is_symlink()
    assert target.read_text() == 'theme = "ansi"\n'
    assert target.stat().st_mode & 0o777 == 0o640
    assert [item.name for item in target.parent.iterdir()] == ["mine.toml"]


@pytest.mark.parametrize(
    "text", ["theme = ", 'theme = """\nlight"""', 'x = """\n[a]\n"""\ntheme = "light"']
)
def test_change_that_cannot_be_made_leaves_the_file_alone(file: Path, text: str) -> None:
    file.write_text(text)
    with pytest.raises(UserError):
        change(file, "theme", "ansi")
    assert file.read_text() == text


_NAMES = st.sampled_from(["theme", "motion", "bell", "x", "keymap"])
_VALUES = st.sampled_from(['"a"', "3", "true", "'b'", "[1, 2]", '"#"', '"a" # theme = 1'])


@given(
    st.lists(st.tuples(_NAMES, _VALUES), unique_by=lambda pair: pair[0], max_size=4),
    st.sampled_from(["", "\n[t]\ntheme = 1\n", "# end", "\r\n"]),
)
def test_changed_file_says_the_new_value_and_all_the_old_ones(
    pairs: list[tuple[str, str]], rest: str
) -> None:
    import tempfile

    text = "\n".join(f"{name} = {value}" for name, value in pairs) + "\n" + rest
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "settings.toml"
        path.write_text(text, newline="")
        try:
            change(path, "theme", "ansi")
        except UserError:
            assert path.read_bytes().decode() == text
        else:
            assert tomllib.loads(path.read_text()) == tomllib.loads(text) | {"theme": "ansi"}


def test_line_of_a_field() -> None:
    text = 'a = 1\n[keymap]\n"b" = "x"\n[ other . table ]\nc = 2\n'
    assert line_of(text, ("a",)) == 1
    assert line_of(text, ("keymap", "b")) == 3
    assert line_of(text, ("keymap", "missing")) == 2
    assert line_of(text, ("other", "table", "c")) == 5
    assert line_of(text, ("nothing",)) is None


# --- on the command line


def test_settings_are_where_runs_live() -> None:
    result = CliRunner().invoke(program, ["settings", "path"])
    assert result.stdout.strip() == str(settings.path())
    assert result.stdout.strip().endswith("stonk-home/settings.toml")


def test_what_show_prints_is_a_settings_file(file: Path) -> None:
    settings.path().parent.mkdir(parents=True)
    settings.path().write_text('theme = "light"\n[keymap]\npause = "f10"\nstop = "c"\n')
    result = CliRunner().invoke(program, ["settings", "show"])
    assert result.exit_code == 0
    assert "keymap.stop: c is the key of checkpoint already" in result.stderr
    file.write_text(result.stdout)
    loaded = load(file)
    assert loaded.problems == ()
    assert loaded.settings.theme == "light"
    assert loaded.settings.keymap["pause"] == "f10"
    assert loaded.settings.keymap["runs"] == "g r"
    assert set(loaded.settings.keymap) == {a.id for a in actions.ACTIONS} - {"go"}


def test_check_says_what_is_wrong_and_exits_with_two() -> None:
    assert "no file" in CliRunner().invoke(program, ["settings", "check"]).stdout
    settings.path().parent.mkdir(parents=True)
    settings.path().write_text("bell = true\n")
    assert "nothing wrong" in CliRunner().invoke(program, ["settings", "check"]).stdout
    settings.path().write_text("bell = 1\n")
    result = CliRunner().invoke(program, ["settings", "check"])
    assert result.exit_code == 2
    assert "settings.toml:1:bell: input should be a valid boolean" in result.stderr


# --- in the cockpit


def cockpit_with(chosen: Settings, *problems: str) -> Cockpit:
    recording = recorded.record(3)
    now = recording.now
    return Cockpit(
        recording.run, clock=lambda: now, machine=MACHINE, settings=chosen, problems=problems
    )


async def test_remapped_keys_work_and_stand_in_footer_help_and_palette() -> None:
    keys = {"help": "f5", "runs": "ctrl+r, g x", "zoom": "ctrl+z", "next_panel": ""}
    app = cockpit_with(Settings(keymap=keys))
    async with opened(app) as pilot:
        footer = text_of(app).split("\n")[-1]
        assert "f5 help" in footer
        assert "ctrl+z zoom" in footer
        offered = [str(hit.display) async for hit in ActionProvider(app.screen).discover()]
        assert "help  (f5)" in offered
        assert "runs  (ctrl+r)" in offered
        assert "next" in offered
        await pilot.press("question_mark")
        await settle(pilot)
        assert not isinstance(app.screen, HelpScreen)
        await pilot.press("f5")
        await until(pilot, lambda: isinstance(app.screen, HelpScreen))
        app.screen.query_one(Input).value = "watch all runs how"
        await settle(pilot)
        app.screen.query_one(Input).value = "all runs"
        await until(pilot, lambda: "ctrl+r  runs" in text_of(app))
        await pilot.press("escape", "escape")
        await until(pilot, lambda: app.current_mode == "train" and len(app.screen_stack) == 1)
        await pilot.press("g")
        await settle(pilot)
        assert "x runs" in text_of(app).split("\n")[-1]
        await pilot.press("r")
        await until(pilot, lambda: "g r leads nowhere" in text_of(app))
        await pilot.press("ctrl+r")
        await until(pilot, lambda: app.current_mode == "runs")
        await pilot.press("g", "t")
        await until(pilot, lambda: app.current_mode == "train")
        await pilot.press("g", "x")
        await until(pilot, lambda: app.current_mode == "runs")


async def test_swapped_keys_do_what_they_say() -> None:
    app = cockpit_with(Settings(keymap={"zoom": "m", "motion": "z"}))
    async with opened(app) as pilot:
        await pilot.press("m")
        await settle(pilot)
        assert app.screen.query_one("#board").zoomed  # type: ignore[attr-defined]
        await pilot.press("z")
        await until(pilot, lambda: "The screen is" in text_of(app))


async def test_broken_settings_are_said_and_the_cockpit_opens() -> None:
    app = cockpit_with(Settings(), "/x/settings.toml:3:theme: [b]no[/b]")
    async with opened(app) as pilot:
        await until(pilot, lambda: "settings.toml:3:theme: [b]no[/b]" in text_of(app))
        assert app.screen.query_one(KeyBar)


async def test_theme_and_motion_are_kept() -> None:
    app = cockpit_with(Settings())
    async with opened(app) as pilot:
        assert app.theme == "saiyan"
        await pilot.press("T")
        assert app.theme == "light"
        app.perform("theme_colour_blind")
        assert app.theme == "colour-blind"
        app.animation_level = "full"
        await pilot.press("m")
        await pilot.pause()
        loaded = load(settings.path())
        assert (loaded.settings.theme, loaded.settings.motion) == ("colour-blind", "none")
        settings.path().write_text("theme = \n")
        await pilot.press("T")
        await until(pilot, lambda: "not kept" in text_of(app))
        assert settings.path().read_text() == "theme = \n"
        assert app.theme == "monochrome"


@pytest.mark.parametrize(
    ("bell", "notifications", "written"),
    [
        (True, True, ["\a\x1b]9;stonk-tui: x\x07"]),
        (True, False, ["\a"]),
        (False, True, ["\x1b]9;stonk-tui: x\x07"]),
        (False, False, []),
    ],
)
async def test_bell_and_notifications_can_be_had_apart(
    monkeypatch: pytest.MonkeyPatch, bell: bool, notifications: bool, written: list[str]
) -> None:
    app = cockpit_with(Settings(bell=bell, notifications=notifications))
    async with opened(app):
        sent: list[str] = []
        assert app._driver is not None
        monkeypatch.setattr(app._driver, "write", sent.append)
        monkeypatch.setattr(Cockpit, "is_headless", False)
        app.ring("x")
        monkeypatch.undo()
        assert sent == written

"""Themes that can be read, screens in ASCII alone, small terminals, and help that is searched."""

import ast
import itertools
import os
import re
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len
from rich.segment import Segment
from rich.style import Style
from textual.color import Color
from textual.widgets import Input

from stonk_tui import actions, theme
from stonk_tui.app import Cockpit
from stonk_tui.commands import cockpit as opening
from stonk_tui.screens.confirm import ConfirmScreen
from stonk_tui.screens.evaluate import EvaluateScreen, ReportBox
from stonk_tui.screens.help import HelpScreen, Topic, help_text
from stonk_tui.screens.log import LogScreen
from stonk_tui.screens.rollout import RolloutScreen
from stonk_tui.screens.runs import RunsScreen
from stonk_tui.screens.small import LEAST, SmallScreen, is_too_small, sentence
from stonk_tui.screens.train import TrainScreen
from stonk_tui.settings import Settings
from stonk_tui.terminal import lacks_unicode
from stonk_tui.themes import PALETTES, SERIES, TEXTS, Palette
from stonk_tui.widgets.plain import ShadesToDim, plain
from tests import recorded
from tests.cockpit.helpers import MACHINE, cockpit, opened, rows_of, settle, text_of, until
from tests.cockpit.hostile import hostile_run
from tests.cockpit.test_untrusted_text import SCREENS

TRUECOLOUR = [name for name in PALETTES if name != "ansi"]

# --- colours


def linear(colour: str) -> list[float]:
    parts = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    return [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]


def contrast(one: str, other: str) -> float:
    """The ratio of WCAG 2.1."""
    weights = (0.2126, 0.7152, 0.0722)
    levels = sorted(
        sum(weight * part for weight, part in zip(weights, linear(colour), strict=True))
        for colour in (one, other)
    )
    return (levels[1] + 0.05) / (levels[0] + 0.05)


def test_contrast_is_that_of_the_standard() -> None:
    assert contrast("#000000", "#ffffff") == pytest.approx(21.0)
    assert contrast("#ffffff", "#767676") == pytest.approx(4.54, abs=0.01)


@pytest.mark.parametrize("name", TRUECOLOUR)
def test_all_text_of_a_theme_can_be_read(name: str) -> None:
    palette = PALETTES[name]
    for text, behind in itertools.product(TEXTS, ("background", "surface", "panel")):
        ratio = contrast(getattr(palette, text), getattr(palette, behind))
        assert ratio >= 4.5, f"{text} on {behind}: {ratio:.2f}"
    assert contrast(palette.total, palette.cursor) >= 4.5


@pytest.mark.parametrize("name", SCREENS)
async def test_every_title_has_a_colour_of_text(name: str) -> None:
    app = cockpit(recorded.record(30).run)
    palette = PALETTES["saiyan"]
    readable = {getattr(palette, text).lower() for text in TEXTS}
    async with opened(app, (120, 40)) as pilot:
        await pilot.press(*SCREENS[name])
        await settle(pilot)
        for widget in app.screen.query("*"):
            if widget.border_title:
                # Where none is set, a title has the colour of the frame.
                assert widget.styles.border_title_color.hex.lower() in readable, widget


def test_high_contrast_earns_its_name() -> None:
    palette = PALETTES["high-contrast"]
    for text, behind in itertools.product(TEXTS, ("background", "surface")):
        assert contrast(getattr(palette, text), getattr(palette, behind)) >= 9
    assert contrast(palette.edge, palette.background) >= 4.5


# Machado, Oliveira and Fernandes (2009), severity 1.
VISION: dict[str, Sequence[Sequence[float]]] = {
    "all": ((1, 0, 0), (0, 1, 0), (0, 0, 1)),
    "protanopia": (
        (0.152286, 1.052583, -0.204868),
        (0.114503, 0.786281, 0.099216),
        (-0.003882, -0.048116, 1.051998),
    ),
    "deuteranopia": (
        (0.367322, 0.860646, -0.227968),
        (0.280085, 0.672501, 0.047413),
        (-0.011820, 0.042940, 0.968881),
    ),
    "tritanopia": (
        (1.255528, -0.076749, -0.178779),
        (-0.078411, 0.930809, 0.147602),
        (0.004733, 0.691367, 0.303900),
    ),
}


def lab(colour: str, vision: str) -> list[float]:
    seen = [
        min(1.0, max(0.0, sum(a * b for a, b in zip(row, linear(colour), strict=True))))
        for row in VISION[vision]
    ]
    to_xyz = (
        (0.4124564, 0.3575761, 0.1804375),
        (0.2126729, 0.7151522, 0.0721750),
        (0.0193339, 0.1191920, 0.9503041),
    )
    white = (0.95047, 1.0, 1.08883)
    x, y, z = (
        t ** (1 / 3) if t > 216 / 24389 else (24389 / 27 * t + 16) / 116
        for t in (
            sum(a * b for a, b in zip(row, seen, strict=True)) / level
            for row, level in zip(to_xyz, white, strict=True)
        )
    )
    return [116 * y - 16, 500 * (x - y), 200 * (y - z)]


@pytest.mark.parametrize("vision", VISION)
def test_series_of_the_colour_blind_theme_are_told_apart_by_every_eye(vision: str) -> None:
    palette = PALETTES["colour-blind"]
    for group in (SERIES, ("up", "down"), ("good", "warn", "bad")):
        for one, other in itertools.combinations(group, 2):
            a, b = (lab(getattr(palette, name), vision) for name in (one, other))
            distance = sum((p - q) ** 2 for p, q in zip(a, b, strict=True)) ** 0.5
            # About 2 can just be seen side by side.
            assert distance > 15, f"{one} and {other}: {distance:.1f}"


@pytest.mark.parametrize("name", TRUECOLOUR)
def test_themes_name_each_colour_as_six_digits(name: str) -> None:
    for field in Palette.__dataclass_fields__:
        assert re.fullmatch("#[0-9a-f]{6}", getattr(PALETTES[name], field)), field


def test_states_verdicts_and_sides_differ_without_colour() -> None:
    looks = [*theme.STATES.values()]
    assert len({look.word for look in looks}) == len(looks)
    for group in ([theme.UP, theme.DOWN], [theme.RIGHT, theme.WRONG, theme.UNPARSED]):
        assert len({look.glyph for look in group}) == len(group)
        assert len({plain(look.glyph) for look in group}) == len(group)


async def _shown_in(app: Cockpit) -> str:
    async with opened(app, (80, 24)):
        return text_of(app)


@pytest.mark.parametrize("name", PALETTES)
async def test_every_theme_shows_the_same_words(name: str) -> None:
    recording = recorded.record(5)
    now = recording.now

    def app(chosen: str) -> Cockpit:
        settings = Settings.model_validate({"theme": chosen})
        return Cockpit(recording.run, clock=lambda: now, machine=MACHINE, settings=settings)

    assert await _shown_in(app(name)) == await _shown_in(app("saiyan"))


async def test_no_color_means_no_colour_at_all(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_COLOR", "")
    app = cockpit(recorded.record(5).run, read_only=True)
    async with opened(app) as pilot:
        assert app.theme == "monochrome"
        for keys in ((), ("g", "r"), ("g", "t"), ("question_mark",), ("escape",), ("ctrl+p",)):
            await pilot.press(*keys)
            await settle(pilot)
            styles = [
                segment.style
                for strip in app.screen._compositor.render_strips()
                for segment in strip
                if segment.style is not None
            ]
            assert any(style.bold for style in styles)
            for style in styles:
                for colour in (style.color, style.bgcolor):
                    assert colour is None or colour.is_default
        await pilot.press("escape", "T")
        await until(pilot, lambda: "NO_COLOR is set" in text_of(app))


async def test_line_under_the_cursor_is_seen_without_colour(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    app = cockpit(recorded.record(5).run)
    async with opened(app) as pilot:
        table = app.screen.query_one("#rollout-table")
        await pilot.press("j")
        await pilot.pause()
        chosen, other = (list(table.render_line(row)) for row in (2, 3))
        assert all(segment.style is not None and segment.style.reverse for segment in chosen)
        assert not any(segment.style is not None and segment.style.reverse for segment in other)


def test_what_stood_on_light_is_turned_around_and_dark_grey_is_dim() -> None:
    pieces = [
        Segment("a", Style.parse("#000000 on #ffffff")),
        Segment("b", Style.parse("#404040 on #000000")),
        Segment("c", Style.parse("#e0e0e0 on #1a1a1a")),
        Segment("d", None),
    ]
    seen = ShadesToDim().apply(pieces, Color(0, 0, 0))
    looks = [
        (s.text, bool(s.style and s.style.reverse), bool(s.style and s.style.dim)) for s in seen
    ]
    assert looks == [
        ("a", True, False),
        ("b", False, True),
        ("c", False, False),
        ("d", False, False),
    ]


async def test_sixteen_colours_bring_the_terminals_own_theme(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("COLORTERM")
    monkeypatch.setenv("TERM", "xterm")
    assert Cockpit(None).theme == "ansi"
    monkeypatch.setenv("TERM", "xterm-256color")
    assert Cockpit(None).theme == "saiyan"


async def test_dimmed_key_is_not_bold() -> None:
    app = cockpit(recorded.record(3).run, read_only=True)
    async with opened(app):
        strips = app.screen._compositor.render_strips()
        bold = {s.text for s in strips[-1] if s.style is not None and s.style.bold}
        assert "z" in bold
        assert "p" not in bold


# --- ASCII


@pytest.mark.parametrize("name", [*SCREENS, "prefix", "theme"])
@pytest.mark.parametrize(
    ("size", "hostile"),
    [((80, 24), False), ((160, 50), False), ((80, 24), True)],
    ids=["small", "large", "hostile"],
)
async def test_every_screen_in_ascii_mode(name: str, size: tuple[int, int], hostile: bool) -> None:
    recording = hostile_run() if hostile else recorded.record(30)
    app = Cockpit(recording.run, clock=lambda: recorded.START, machine=MACHINE, ascii_only=True)
    keys = {"prefix": ("g",), "theme": ("T",)} | SCREENS
    async with opened(app, size) as pilot:
        await pilot.press(*keys[name])
        await settle(pilot)
        _assert_ascii(app, size)
        if name.startswith("every"):
            for panel in range(1, 10):
                await pilot.press(str(panel), "z")
                await settle(pilot)
                _assert_ascii(app, size)
                await pilot.press("z")


def _assert_ascii(app: Cockpit, size: tuple[int, int]) -> None:
    rows = rows_of(app)
    assert [len(row) for row in rows] == [size[0]] * size[1]
    for row in rows:
        assert all(" " <= character < "\x7f" for character in row), row
    assert any(character.isalpha() for row in rows for character in row)


async def test_small_and_empty_screens_in_ascii_mode() -> None:
    app = Cockpit(None, clock=lambda: recorded.START, machine=MACHINE, ascii_only=True)
    async with opened(app, (80, 24)) as pilot:
        _assert_ascii(app, (80, 24))
        await pilot.resize_terminal(40, 10)
        await until(pilot, lambda: isinstance(app.screen, SmallScreen))
        await settle(pilot)
        _assert_ascii(app, (40, 10))
        assert "60x20" in text_of(app)


@given(st.text())
def test_ascii_is_as_wide_as_what_it_stands_for(text: str) -> None:
    printable = "".join(character for character in text if ord(character) >= 0x20)
    changed = plain(printable)
    assert changed.isascii()
    assert len(changed) == sum(map(cell_len, printable)) or not printable.isprintable()


def test_cockpit_draws_with_nothing_that_ascii_mode_does_not_know() -> None:
    """A glyph that is new somewhere shows up here, and not as a question mark on a screen."""
    package = Path(actions.__file__).parent
    unknown = {
        (character, path.name)
        for path in sorted(package.rglob("*.py"))
        if path.name not in ("plain.py", "text.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
        for character in node.value
        if not character.isascii() and "?" in plain(character)
    }
    assert unknown == set()


def test_braille_becomes_dots_at_their_height() -> None:
    assert plain("\u2800\u2801\u2809\u2802\u2824\u28c0\u2840\u28ff\u2847") == " ''--..::"


@pytest.mark.parametrize(
    ("environment", "encoding", "lacks"),
    [
        ({}, "utf-8", False),
        ({"TERM": "xterm-256color", "LANG": "en_US.UTF-8"}, "utf-8", False),
        ({"LANG": "C", "LC_CTYPE": "C.utf8"}, "utf-8", False),
        ({"LANG": "de_DE.ISO-8859-1"}, "utf-8", True),
        ({"LC_ALL": "C", "LANG": "en_US.UTF-8"}, "utf-8", True),
        ({"LC_ALL": "", "LANG": "en_US.UTF-8"}, "utf-8", False),
        ({"TERM": "linux", "LANG": "en_US.UTF-8"}, "utf-8", True),
        ({"TERM": "vt100"}, "utf-8", True),
        ({}, "ascii", True),
        ({}, None, False),
    ],
)
def test_terminal_without_unicode_is_recognised(
    environment: dict[str, str], encoding: str | None, lacks: bool
) -> None:
    assert lacks_unicode(environment, encoding) is lacks


@pytest.mark.parametrize(
    ("wanted", "locale", "option", "expected"),
    [
        ("auto", "C.UTF-8", "", False),
        ("auto", "C", "", True),
        ("on", "C.UTF-8", "", True),
        ("off", "C", "", False),
        ("off", "C.UTF-8", "1", True),
    ],
)
def test_opening_decides_for_ascii(
    monkeypatch: pytest.MonkeyPatch, wanted: str, locale: str, option: str, expected: bool
) -> None:
    made: list[Cockpit] = []

    def run(app: Cockpit) -> None:
        made.append(app)

    monkeypatch.setattr(Cockpit, "run", run)
    monkeypatch.setenv("LC_ALL", locale)
    if option:
        monkeypatch.setenv("STONK_ASCII", option)
    home = Path(os.environ["STONK_HOME"])
    home.mkdir(parents=True)
    (home / "settings.toml").write_text(f'ascii = "{wanted}"\n')
    opening.open_cockpit(None, read_only=False)
    (app,) = made
    assert app.ascii_only is expected


# --- room


@pytest.mark.parametrize(("columns", "rows"), [(59, 40), (120, 19), (10, 3), (1, 1)])
async def test_too_small_a_terminal_says_so_and_everything_comes_back(
    columns: int, rows: int
) -> None:
    app = cockpit(recorded.record(5).run)
    async with opened(app) as pilot:
        await pilot.press("5", "enter", "S")
        await until(pilot, lambda: isinstance(app.screen, ConfirmScreen))
        before = text_of(app)
        await pilot.resize_terminal(columns, rows)
        await until(pilot, lambda: isinstance(app.screen, SmallScreen))
        assert sentence(app.size).plain.startswith(f"A little more room, please: {60}×{20}")
        # What lies beneath hears no key, not even one that answers its question.
        await pilot.press("y", "g", "r", "ctrl+p", "escape", "enter")
        await settle(pilot)
        await pilot.resize_terminal(120, 40)
        await until(pilot, lambda: isinstance(app.screen, ConfirmScreen))
        await settle(pilot)
        assert text_of(app) == before


async def test_small_terminal_names_both_sizes_and_q_leaves() -> None:
    app = cockpit(recorded.record(5).run)
    async with app.run_test(size=(59, 19), notifications=True) as pilot:
        await until(pilot, lambda: "59×19 are here" in " ".join(text_of(app).split()))
        assert "60×20" in text_of(app)
        await pilot.press("q")
        await until(pilot, lambda: not app.is_running)


async def test_going_elsewhere_while_too_small_is_covered_there_too() -> None:
    recording = recorded.record(5)
    app = cockpit(recording.run)
    async with opened(app) as pilot:
        await pilot.resize_terminal(50, 15)
        await until(pilot, lambda: isinstance(app.screen, SmallScreen))
        app.attach(recording.run, anew=True)
        app.switch_mode("runs")
        await until(pilot, lambda: isinstance(app.screen, SmallScreen))
        await pilot.resize_terminal(80, 24)
        await until(pilot, lambda: isinstance(app.screen, RunsScreen))
        app.switch_mode("train")
        await until(pilot, lambda: isinstance(app.screen, TrainScreen))


def test_least_size_is_enough() -> None:
    assert not is_too_small(LEAST)


@pytest.mark.parametrize("keys", [(), ("enter",), ("g", "r"), ("g", "l"), ("question_mark",)])
async def test_resizing_in_steps_never_breaks(keys: tuple[str, ...]) -> None:
    app = cockpit(recorded.record(12).run)
    async with opened(app, (60, 20)) as pilot:
        await pilot.press(*keys)
        await settle(pilot)
        screen = app.screen
        for step in range(0, 11):
            size = (60 + 19 * step, 20 + 6 * step)
            await pilot.resize_terminal(*size)
            await settle(pilot)
            assert app.screen is screen
            assert [cell_len(row) for row in rows_of(app)] == [size[0]] * size[1]
        assert tuple(app.size) == (250, 80)


# --- where one is


async def test_every_screen_says_where_one_is_and_escape_goes_back() -> None:
    recording = recorded.record(5)
    name = recording.run.id
    app = cockpit(recording.run)
    async with opened(app) as pilot:
        for keys, kind, place in (
            (("g", "l"), LogScreen, f"{name} › log"),
            (("g", "t"), TrainScreen, f"{name} › train"),
            (("enter",), RolloutScreen, f"{name} › rollout"),
            (("escape",), TrainScreen, f"{name} › train"),
            (("question_mark",), HelpScreen, f"{name} › help"),
            (("escape", "escape"), RunsScreen, "runs"),
        ):
            await pilot.press(*keys)
            await until(pilot, lambda kind=kind: isinstance(app.screen, kind))
            await settle(pilot)
            assert text_of(app).startswith(f" stonk-tui › {place}"), place


async def test_where_one_is_leads_back_by_mouse() -> None:
    app = cockpit(recorded.record(5).run)
    async with opened(app) as pilot:
        await pilot.press("g", "l")
        await until(pilot, lambda: isinstance(app.screen, LogScreen))
        await settle(pilot)
        await pilot.click("#title", offset=(16, 0))
        await until(pilot, lambda: isinstance(app.screen, TrainScreen))
        await settle(pilot)
        await pilot.click("#state", offset=(3, 0))
        await until(pilot, lambda: isinstance(app.screen, RunsScreen))


# --- help


def test_search_leaves_only_what_holds_every_word() -> None:
    text = help_text(width=100, query="checkpoint KEEP").plain
    assert "Keep a checkpoint" in text
    assert "Pause between" not in text
    assert "Panels" not in text
    assert "Nothing here speaks of xyzzy." in help_text(query="xyzzy").plain
    assert len(help_text().plain) > 20 * len(text)


@given(st.text())
def test_any_search_gives_an_answer(query: str) -> None:
    assert help_text(query=query).plain


@pytest.mark.parametrize(
    ("keys", "start"),
    [
        (("5",), "Health. KL is the policy's"),
        (("6",), "Rollouts. The newest completions"),
        (("g", "l"), "Log. Above stands what happened"),
        (("g", "r"), "Runs. Every run on this machine"),
        (("enter",), "A rollout. One completion"),
    ],
)
async def test_help_tells_of_what_is_in_focus_first(keys: tuple[str, ...], start: str) -> None:
    app = cockpit(recorded.record(5).run)
    async with opened(app) as pilot:
        await pilot.press(*keys)
        await settle(pilot)
        await pilot.press("question_mark")
        await until(pilot, lambda: isinstance(app.screen, HelpScreen))
        await settle(pilot)
        assert rows_of(app)[3].strip().startswith(start)


async def test_help_is_searched_by_typing_and_scrolled_meanwhile() -> None:
    app = cockpit(recorded.record(5).run)
    async with opened(app, (80, 24)) as pilot:
        await pilot.press("question_mark")
        await until(pilot, lambda: isinstance(app.screen, HelpScreen))
        await settle(pilot)
        first = rows_of(app)[3]
        await pilot.press("down", "down", "pagedown")
        await settle(pilot)
        assert rows_of(app)[3] != first
        await pilot.press(*"quit", *["backspace"] * 4, *"detach")
        await settle(pilot)
        assert "Leave the cockpit. The run goes on." in text_of(app)
        assert "Pause between two steps" not in text_of(app)
        await pilot.press("escape")
        await settle(pilot)
        assert app.screen.query_one(Input).value == ""
        await pilot.press("escape")
        await until(pilot, lambda: isinstance(app.screen, TrainScreen))


def test_explanations_are_three_sentences_or_a_little_more() -> None:
    for kind in (RunsScreen, LogScreen, RolloutScreen, EvaluateScreen, ReportBox):
        assert 3 <= len(re.findall(r"[.;:] |\.$", kind.explanation)) <= 6
    assert help_text(Topic("Here", "One. Two. Three.")).plain.lstrip().startswith("Here. One.")


# --- the clipboard


@pytest.mark.parametrize(
    ("terminal", "said"),
    [("xterm-256color", "5 characters sent to the"), ("linux", "This terminal has no clipboard")],
)
async def test_copying_says_what_to_do_where_there_is_no_clipboard(
    monkeypatch: pytest.MonkeyPatch, terminal: str, said: str
) -> None:
    monkeypatch.setenv("TERM", terminal)
    app = cockpit(recorded.record(3).run)
    async with opened(app) as pilot:
        app.copy_to_clipboard("[/b]x")
        await until(pilot, lambda: said in text_of(app))
        assert "hold shift" in text_of(app)

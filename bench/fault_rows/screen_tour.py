"""Every screen of the cockpit, one after the other, on a run full of foreign text."""

import pkgutil
import sys
from array import array
from collections.abc import Callable
from importlib import import_module

from textual.pilot import Pilot
from textual.screen import Screen
from textual.widgets import Input, Static

from engine.runs.directory import RunDirectory
from stonk_tui import chart_choices, doctor, screens
from stonk_tui.app import Cockpit
from stonk_tui.chart_data import Extent
from stonk_tui.chart_view import ChartView
from stonk_tui.doctor.findings import Finding
from stonk_tui.doctor.gpus import DriverView, TorchView
from stonk_tui.screens import begin
from stonk_tui.screens.base import CockpitScreen
from stonk_tui.screens.choose_metric import ChooseMetricScreen
from stonk_tui.screens.confirm import ConfirmScreen
from stonk_tui.screens.export import ExportScreen
from stonk_tui.screens.export_series import ExportSeriesScreen
from stonk_tui.screens.open_folder import OpenFolderScreen
from stonk_tui.screens.real_run import Examined, RealRunScreen
from stonk_tui.screens.settings import SettingsScreen
from stonk_tui.widgets.text import line
from tests.cockpit.helpers import cockpit, opened, settle, text_of, until
from tests.cockpit.hostile import hostile_run, unsafe

SIZES = ((80, 24), (120, 40), (200, 60))

_BY_KEYS: tuple[tuple[str, ...], ...] = (
    ("enter", "x"),  # a rollout
    ("g", "o"),
    ("g", "l"),
    ("g", "b"),
    ("g", "e"),
    ("g", "e", "f7", "enter"),  # a report
    ("8", "enter"),  # an alarm
    ("P",),
    ("g", "r"),
    ("g", "r", "n"),
    ("question_mark",),
    ("z",),
)
"""Ways from the screen of the run."""


def every_screen() -> set[str]:
    """Names of all screens there are, but for what they have in common."""
    found: set[str] = set()
    for module in pkgutil.iter_modules(screens.__path__):
        members = vars(import_module(f"{screens.__name__}.{module.name}")).values()
        found |= {
            member.__name__
            for member in members
            if isinstance(member, type)
            and issubclass(member, Screen)
            and member.__module__.startswith(screens.__name__)
        }
    return found - {CockpitScreen.__name__}


async def tour(said: Callable[[], str]) -> tuple[set[str], str]:
    """(names of the screens that were drawn, what was wrong on one of them)."""
    visited: set[str] = set()
    recording = hostile_run(said)
    # Comparing takes two.
    hostile_run(said)
    app = cockpit(recording.run, message=said())

    def problem() -> str:
        visited.add(type(app.screen).__name__)
        found = on_screen(app)
        return f"{type(app.screen).__name__}: {found}" if found else ""

    async with opened(app, SIZES[len(said()) % len(SIZES)]) as pilot:
        if found := problem():
            return visited, found
        for keys in _BY_KEYS:
            await pilot.press(*keys)
            await settle(pilot)
            if found := problem():
                return visited, found
            await _leave(pilot)
        for screen in _opened_otherwise(app, recording.run, said):
            app.push_screen(screen)
            await pilot.pause()
            await _told(pilot, screen, said)
            if found := problem():
                return visited, found
            await _leave(pilot)
        app.notify(line(said()).plain, title=line(said()).plain, markup=False)
        await _compare(pilot)
        if found := problem():
            return visited, found
        await pilot.resize_terminal(30, 8)
        await settle(pilot)
        if found := problem():
            return visited, found
    return visited, ""


def on_screen(app: Cockpit) -> str:
    """What of the screen must not reach a terminal; empty where all of it may."""
    for strip in app.screen._compositor.render_strips():
        for segment in strip:
            if segment.control is not None:
                return f"a control code: {segment.control!r}"
            # A line of the terminal has no line ends in it.
            if found := unsafe(segment.text) or ("a line end" if "\n" in segment.text else ""):
                return found
            style = segment.style
            if style is not None and (style.link or "app.quit" in str(style.meta)):
                return f"a link or an action: {segment.text!r}"
    return ""


async def _told(pilot: Pilot[None], screen: Screen[object], said: Callable[[], str]) -> None:
    """What comes to a screen after it was opened."""
    if isinstance(screen, begin.BeginScreen):
        # Its process speaks once, and lives until the screen is left.
        phase = screen.query_one("#phase", Static)
        await until(pilot, lambda: "Checking settings" not in str(phase.content))
        return
    if isinstance(screen, RealRunScreen):
        screen.post_message(Examined(_report(said()), (said(),)))
    if isinstance(screen, OpenFolderScreen):
        screen.query_one(Input).value = said()
    await settle(pilot)


def _opened_otherwise(
    app: Cockpit, run: RunDirectory, said: Callable[[], str]
) -> list[Screen[object]]:
    """Screens that more than a key leads to, each with foreign text in what it is told."""
    assert app.model is not None
    history = app.model.history
    chosen = chart_choices.choice(history, f"reward/{said()}")
    spoken = f"x{said()}".replace("\n", " ").encode("utf-8", "replace") + b"\n"
    speak = f"import sys, time; sys.stdout.buffer.write({spoken!r}); time.sleep(600)"
    begin.PROGRAM = (sys.executable, "-c", speak)
    # Which would look at this machine for some seconds.
    doctor.collect = lambda *_: _report("")
    config = run.config()
    model = config.model.model_copy(update={"id": said() or "x"})
    made = [
        ChooseMetricScreen(history, said()),
        ConfirmScreen(line(said()), line(said()), "yes", "no"),
        ExportScreen(run, array("q", [1]), said()),
        ExportSeriesScreen(run, chosen, ChartView(), Extent(1, 3)),
        OpenFolderScreen(),
        SettingsScreen(app.model, said),
        begin.BeginScreen(said(), []),
        RealRunScreen(config.model_copy(update={"model": model})),
    ]
    return list(made)  # type: ignore[arg-type]


def _report(said: str) -> doctor.DoctorReport:
    findings = [Finding(said, "warning", said, said), Finding("gpu", "error", said, said)]
    view = TorchView(error=said), DriverView(error=said)
    return doctor.DoctorReport(said, said, {said: said}, *view, findings)


async def _leave(pilot: Pilot[None]) -> None:
    """Back to the screen of the run, whatever lies over it."""
    app = pilot.app
    while len(app.screen_stack) > 1:
        app.pop_screen()
        await pilot.pause()
    await app.switch_mode("train")
    await pilot.pause()


async def _compare(pilot: Pilot[None]) -> None:
    await pilot.press("g", "r")
    await until(pilot, lambda: "Looking" not in text_of(pilot.app))
    await pilot.press("space", "j", "space", "v")
    await settle(pilot)

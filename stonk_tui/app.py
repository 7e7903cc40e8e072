"""The cockpit: a window onto a run that trains in a process of its own.

The app owns the feed of one run, folds its batches into the model, and has the visible
screen drawn at most four times a second. Whatever a person does goes through the table
of actions. Leaving, crashing or being killed changes nothing for the worker.
"""

import asyncio
import os
import signal
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from textual import events, on, work
from textual._compositor import CompositorUpdate
from textual.binding import Binding, BindingType
from textual.command import Provider
from textual.content import Content
from textual.message import Message
from textual.screen import Screen

from engine.errors import RunFailedError, UserError
from engine.runs.directory import RunDirectory
from engine.text import one_line
from stonk_tui import actions, announce, modes
from stonk_tui.actions import Action
from stonk_tui.announce import Announcements
from stonk_tui.feed import Feed, RunModel, RunModelUpdated
from stonk_tui.frames import Frames
from stonk_tui.habits import Habits
from stonk_tui.machine import Machine, MachineFeed, MachineSampled
from stonk_tui.meant import Meant, run_meant
from stonk_tui.palette import ActionProvider
from stonk_tui.screens.base import CockpitScreen
from stonk_tui.screens.confirm import ConfirmScreen
from stonk_tui.screens.help import HelpScreen, topic_of
from stonk_tui.screens.train import TrainScreen
from stonk_tui.settings import Settings
from stonk_tui.widgets.text import line

FRAME_SECONDS = 0.25
TERMINAL_CHECK_SECONDS = 2.0


@dataclass
class CommandSent(Message, bubble=False):
    """A command was acknowledged, or not."""

    verb: str
    problem: str


@dataclass
class RunStarted(Message, bubble=False):
    """A prepared run was started, or not."""

    run: RunDirectory
    problem: str


class Cockpit(Habits):
    """Watch and steer runs."""

    TITLE = "stonk-tui"
    MODES: ClassVar[dict[str, Callable[[], CockpitScreen]]] = {  # type: ignore[assignment]
        mode.name: mode.open for mode in modes.MODES
    }
    COMMANDS: ClassVar[set[type[Provider]]] = {ActionProvider}  # type: ignore[assignment]
    BINDINGS: ClassVar[list[BindingType]] = [
        *actions.bindings("app"),
        # Textual's own key for leaving does the same as ours; ctrl+c copies what is selected.
        Binding("ctrl+q", "do('detach')", "Detach", show=False, priority=True),
    ]
    ENABLE_COMMAND_PALETTE = True
    CSS = """
    Screen { background: $background; color: $ink; }
    .table--cursor { background: $panel; text-style: $cursor-text-style; }
    Toast { background: $panel; }
    Button:disabled { text-style: dim; }
    Button.-textual-compact:ansi, Button.-textual-compact:ansi:disabled {
        border: none !important;
    }
    """

    def __init__(
        self,
        run: RunDirectory | None = None,
        read_only: bool = False,
        message: str | None = None,
        *,
        clock: Callable[[], float] = time.time,
        machine: Machine | None = None,
        settings: Settings | None = None,
        problems: Sequence[str] = (),
        ascii_only: bool = False,
    ) -> None:
        """Prepare a cockpit.

        Args:
            run: what to watch; None opens the table of runs.
            read_only: look, but command nothing.
            message: said once the cockpit is open.
            clock: seconds since 1970, for ages.
            machine: shown in place of samples of this machine.
            settings: a person's own.
            problems: what was wrong with them, said once the cockpit is open.
            ascii_only: draw with ASCII alone.
        """
        super().__init__(settings or Settings(), problems, ascii_only)
        self.read_only = read_only
        self.clock = clock
        self.model: RunModel | None = None
        self.machine = machine or Machine()
        self._samples_machine = machine is None
        self._first_run = run
        self._message = message
        self._feed: Feed | None = None
        self._machine_feed: MachineFeed | None = None
        self._is_dirty = False
        self._frames_skipped = 0
        self._is_silent = os.environ.get("STONK_BELL", "1") == "0"
        self._frames = Frames()
        self._displayed: Screen[object] | None = None

    # --- life

    def _display(self, screen: Screen[object], renderable: Any) -> None:
        if screen is not self._displayed:
            self._displayed = screen
            self._frames.forget()
        if isinstance(renderable, CompositorUpdate):
            renderable = self._frames.changes(renderable)
        super()._display(screen, renderable)

    @on(events.Resize)
    def _forget_what_is_shown(self) -> None:
        # A terminal moves its lines about when its size changes.
        self._frames.forget()

    def on_mount(self) -> None:
        self._listen_for_the_end()
        self.app_resume_signal.subscribe(self, lambda _: self._frames.forget())
        if self._first_run is not None:
            self.attach(self._first_run)
        else:
            self.switch_mode("runs")
        if self._message:
            self.notify(one_line(self._message), markup=False, timeout=8)
        self.set_interval(FRAME_SECONDS, self._draw_if_dirty)
        self.set_interval(1.0, self._draw_ages)

    def on_unmount(self) -> None:
        self._let_go()

    def _listen_for_the_end(self) -> None:
        """Leave in good order when the terminal goes, also where nobody can signal it."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGHUP):
            # Not in the main thread, as in some tests: then there are no signals to hear.
            try:
                loop.add_signal_handler(number, self.exit)
            except (ValueError, RuntimeError):
                return
        if not self.is_headless and sys.__stdin__ is not None and sys.__stdin__.isatty():
            self.set_interval(TERMINAL_CHECK_SECONDS, self._leave_without_terminal)

    def _leave_without_terminal(self) -> None:
        """A terminal that hung up reads as an endless end of file: do not spin on it."""
        if not os.isatty(0):
            self.exit()

    # --- the attached run

    def attach(self, run: RunDirectory, *, anew: bool = False) -> None:
        """Watch ``run`` from now on; ``anew`` also where it is watched already.

        The configuration of a prepared run may have been edited since it was read.
        """
        if anew or self.model is None or self.model.run != run:
            self._let_go()
            self.model = RunModel(run)
            self._feed = Feed(run, lambda: self.post_message(RunModelUpdated()))
            self._feed.start()
            if self._samples_machine:
                self._machine_feed = MachineFeed(
                    run, lambda sample: self.post_message(MachineSampled(sample))
                )
                self._machine_feed.start()
        self.switch_mode("train")

    def forget(self, run: RunDirectory) -> None:
        """Watch ``run`` no more: it has been deleted."""
        if self.model is not None and self.model.run.path == run.path:
            self._let_go()
            self._feed = self._machine_feed = self.model = None

    def _let_go(self) -> None:
        if self._feed is not None:
            self._feed.stop()
        if self._machine_feed is not None:
            self._machine_feed.stop()

    def on_run_model_updated(self) -> None:
        if self._feed is None or self.model is None or not self.screen_stack:
            # What the feed read last may arrive while the app closes, its screens gone.
            return
        batch = self._feed.take()
        if batch is None:
            return
        was_loaded, before = self.model.loaded, announce.standing(self.model)
        self.model.fold(batch)
        self._is_dirty = True
        if was_loaded:
            self._announce(announce.compare(before, self.model))
        if self.model.loaded and not was_loaded:
            self._draw_if_dirty()

    def _announce(self, news: Announcements) -> None:
        """Say what has just happened: on screen, and to who looks elsewhere."""
        for text in news.lines:
            self.ring(text)
        if news.super_saiyan:
            self.notify(
                f"{news.super_saiyan}. {self.keymap.of('promote')} asks and promotes.",
                timeout=20,
                markup=False,
            )
        # A toast would cover the very panel that shows the alarm.
        in_sight = isinstance(self.screen, TrainScreen) and self.screen.shows("alarms")
        for text in news.alarms if not in_sight else ():
            keys = f"{self.keymap.of('panel_alarms')}, then {self.keymap.of('open')}"
            self.notify(f"{text}. {keys} explains.", severity="warning", markup=False)
        for screen in self.screen_stack:
            if isinstance(screen, TrainScreen):
                screen.tell(new_alarm=bool(news.alarms), super_saiyan=bool(news.super_saiyan))

    def ring(self, text: str) -> None:
        """The terminal's bell, and a desktop notification where the terminal knows how."""
        # As `bell` and `copy_to_clipboard` do: the driver writes in turn with the screen.
        if self._is_silent or self.is_headless or self._driver is None:
            return
        bell = "\a" if self.settings.bell else ""
        note = announce.osc9(text) if self.settings.notifications else ""
        if bell or note:
            self._driver.write(bell + note)

    def on_machine_sampled(self, event: MachineSampled) -> None:
        self.machine = event.machine
        for screen in self.screen_stack:
            if isinstance(screen, TrainScreen):
                screen.sample(event.machine)
        self._is_dirty = True

    def _draw_if_dirty(self) -> None:
        if self.model is not None and not self.model.loaded and self._frames_skipped < 4:
            # What is read of a long history in between would be drawn for nothing.
            self._frames_skipped += 1
            return
        self._frames_skipped = 0
        if self._is_dirty and self.screen_stack and isinstance(self.screen, CockpitScreen):
            self._is_dirty = False
            self.screen.refresh_screen()

    def _draw_ages(self) -> None:
        """Ages go on while nothing else happens."""
        if self.model is not None and self.model.state[0] == "stale":
            self._is_dirty = True

    # --- actions

    def perform(self, action_id: str) -> None:
        """Do an action of the table, or say why not."""
        action = actions.BY_ID[action_id]
        if self.prefix and action.handler != "prefix":
            self.wait_for_second("")
        reason = action.why_not(self)
        if reason:
            self.notify(f"{action.label}: {one_line(reason)}", severity="warning", markup=False)
            return
        target = self if action.scope == "app" else self.screen
        handler: Callable[..., None] | None = getattr(
            target, f"do_{action.handler or action.id}", None
        )
        if handler is not None:
            handler(*([action.argument] if action.argument else []))

    def label_of(self, action: Action) -> str:
        """The label as it is now: a paused run is offered to go on."""
        if action.id == "pause" and (meant := self.run_meant) and meant.state == "paused":
            return "resume"
        return action.label

    @property
    def run_meant(self) -> Meant | None:
        """The run that a command is for."""
        return run_meant(self.screen, self.model)

    def do_mode(self, name: str) -> None:
        self._go(name)

    def do_help(self) -> None:
        if not isinstance(self.screen, HelpScreen):
            self.push_screen(HelpScreen(topic_of(self.focused or self.screen)))

    def do_back(self) -> None:
        if isinstance(self.screen, CockpitScreen) and self.screen.step_back():
            return
        if self._is_pushed:
            self.pop_screen()
            return
        back = modes.BY_NAME[self.current_mode].back
        if not actions.BY_ID[back].why_not(self):
            self._go(back)

    @property
    def _is_pushed(self) -> bool:
        """Whether the screen lies on top of a mode's own."""
        return len(self.screen_stack) > 1

    def _go(self, mode: str) -> None:
        while self._is_pushed:
            self.pop_screen()
        if self.current_mode != mode:
            self.switch_mode(mode)

    def do_detach(self) -> None:
        # Whoever opened the cockpit says how the run stands; nothing is sent to the worker.
        self.exit()

    def do_pause(self) -> None:
        if meant := self.run_meant:
            self._send_command(meant.run, "resume" if meant.state == "paused" else "pause")

    def do_checkpoint(self) -> None:
        if meant := self.run_meant:
            self._send_command(meant.run, "checkpoint")

    def do_stop(self) -> None:
        meant = self.run_meant
        if meant is None:
            return
        run = line(meant.run.id, limit=60)
        explanation = Content.assemble(
            "The step in hand ends and a checkpoint is kept. ",
            ("stonk-tui train --resume ", "bold"),
            line(meant.run.id, "bold", limit=60),
            " goes on from there.",
        )
        self.push_screen(
            ConfirmScreen(
                Content.assemble("Stop ", run, "?"), explanation, "stop it", "let it go on"
            ),
            lambda confirmed: self._stop(meant.run) if confirmed else None,
        )

    def _stop(self, run: RunDirectory) -> None:
        self._send_command(run, "stop")

    def do_promote(self) -> None:
        # Imported when first needed, like everything that only few openings need.
        from stonk_tui.screens.promote import PromoteScreen

        if meant := self.run_meant:
            self.push_screen(PromoteScreen(meant.run), self._go_to_promoted)

    def _go_to_promoted(self, run: RunDirectory | None) -> None:
        if run is not None:
            self.attach(run)

    def why_no_chart(self, what: str) -> str:
        """Why ``what`` cannot be done with the chart now; empty when it can."""
        if not isinstance(self.screen, TrainScreen):
            return "the chart is on the train screen"
        return self.screen.why_no_chart(what)

    def do_start(self) -> None:
        if (meant := self.run_meant) and meant.state == "prepared":
            self._start_run(meant.run)

    @work(thread=True, exit_on_error=False, group="commands")
    def _start_run(self, run: RunDirectory) -> None:
        from engine.runs import promotion

        try:
            promotion.start(run)
        except (UserError, RunFailedError, OSError) as error:
            self.post_message(RunStarted(run, str(error)))
        else:
            self.post_message(RunStarted(run, ""))

    def on_run_started(self, event: RunStarted) -> None:
        if event.problem:
            self.notify(one_line(event.problem, 400), severity="error", markup=False)
            return
        self.notify(f"{one_line(event.run.id)} starts", markup=False)
        self.attach(event.run, anew=True)

    @work(thread=True, exit_on_error=False, group="commands")
    def _send_command(self, run: RunDirectory, verb: str) -> None:
        # Imported when first needed: it brings the writing side of the store along.
        from engine.runs import control

        try:
            control.send(run, verb)
        except UserError as error:
            self.post_message(CommandSent(verb, str(error)))
        else:
            self.post_message(CommandSent(verb, ""))

    def on_command_sent(self, event: CommandSent) -> None:
        if event.problem:
            self.notify(one_line(event.problem), severity="error", markup=False)
        else:
            self.notify(f"{event.verb}: accepted, it takes effect between two steps", markup=False)

"""What the cockpit does alike on every screen: looks, room, pairs of keys, copying.

Apart from the runs that it shows; `stonk_tui.app` adds those.
"""

import os
import traceback
from collections.abc import Sequence

from rich.text import Text
from textual import events
from textual.actions import SkipAction
from textual.app import App
from textual.driver import Driver
from textual.drivers.linux_driver import LinuxDriver
from textual.filter import LineFilter

from engine.errors import UserError
from engine.text import one_line
from stonk_tui import actions
from stonk_tui.commands.output import safe
from stonk_tui.driver import TerminalDriver
from stonk_tui.keymap import Keymap, display
from stonk_tui.screens.base import CockpitScreen
from stonk_tui.screens.small import SmallScreen, is_too_small
from stonk_tui.settings import Settings, change
from stonk_tui.settings import path as settings_path
from stonk_tui.terminal import lacks_clipboard
from stonk_tui.themes import SAIYAN, THEMES
from stonk_tui.widgets.plain import AsciiFilter, ShadesToDim
from stonk_tui.widgets.scroller import Scroller
from stonk_tui.widgets.table import Table
from stonk_tui.widgets.text import OutputFilter


class Habits(App[None]):
    """An app with a person's settings."""

    read_only = False
    """Whether it only looks: it commands nothing and writes no file."""

    def __init__(self, settings: Settings, problems: Sequence[str], ascii_only: bool) -> None:
        super().__init__()
        self.settings = settings
        self.ascii_only = ascii_only
        self._problems = tuple(problems)
        for theme in THEMES.values():
            self.register_theme(theme)
        self.theme = self._first_theme()
        if settings.motion != "auto":
            self.animation_level = settings.motion
        self.keymap = Keymap(settings.keymap, ascii_only=ascii_only)
        self.set_keymap(self.keymap.bindings())
        self.prefix = ""
        """The first of two keys, while the second one is waited for."""
        self._output_filter = OutputFilter()
        self._ascii_filter = AsciiFilter()
        self._no_colours = ShadesToDim()

    def get_driver_class(self) -> type[Driver]:
        """Textual's choice, with ours in place of its driver of a terminal."""
        chosen = super().get_driver_class()
        return TerminalDriver if chosen is LinuxDriver else chosen

    def perform(self, action_id: str) -> None:
        """Do an action of the table, or say why not."""
        raise NotImplementedError

    def on_mount(self) -> None:
        for problem in self._problems:
            self.notify(problem, title="settings", severity="warning", markup=False, timeout=12)

    def _fatal_error(self) -> None:
        # Textual's own shows the variables of every frame, which may hold secrets, and words of a
        # model as they came.
        self.bell()
        told = "".join(traceback.format_exception(self._exception))
        self._exit_renderables.append(Text(safe(told)))
        self._close_messages_no_wait()

    # --- looks

    def get_line_filters(self) -> Sequence[LineFilter]:
        # Textual's own answer to NO_COLOR is shades of grey, which are colours to a terminal.
        colours = [self._no_colours] if self.no_color else super().get_line_filters()
        plain = [self._ascii_filter] if self.ascii_only else []
        return [*colours, self._output_filter, *plain]

    def get_theme_variable_defaults(self) -> dict[str, str]:
        """Our names for colours, so that styles resolve before a theme of ours is set."""
        return SAIYAN.variables

    def _first_theme(self) -> str:
        """NO_COLOR before the person's choice before what the terminal can show."""
        if self.no_color:
            return "monochrome"
        if self.settings.theme != "auto":
            return self.settings.theme
        return "ansi" if self.console.color_system in (None, "standard") else "saiyan"

    def do_next_theme(self) -> None:
        names = list(THEMES)
        self.do_theme(names[(names.index(self.theme) + 1) % len(names)])

    def do_theme(self, name: str) -> None:
        self.theme = name
        self.notify(f"theme: {name}", markup=False, timeout=2)
        self._keep("theme", name)

    def do_motion(self) -> None:
        self.animation_level = "full" if self.animation_level == "none" else "none"
        word = "still" if self.animation_level == "none" else "in motion"
        self.notify(f"The screen is {word} from now on.", markup=False)
        self._keep("motion", self.animation_level)

    def _keep(self, name: str, value: str) -> None:
        """Write a setting into the person's file; a cockpit that only looks writes nothing."""
        if self.read_only:
            return
        try:
            change(settings_path(), name, value)
        except UserError as error:
            self.notify(f"not kept: {one_line(str(error), 300)}", severity="warning", markup=False)

    # --- room

    def on_resize(self) -> None:
        self.call_after_refresh(self.mind_size)

    def mind_size(self) -> None:
        """Say so where the terminal is too small; that takes itself away again."""
        covered = self.screen_stack and isinstance(self.screen, SmallScreen)
        if self.screen_stack and not covered and is_too_small(self.size):
            self.prefix = ""
            self.push_screen(SmallScreen())

    def action_command_palette(self) -> None:
        if not isinstance(self.screen, SmallScreen):
            super().action_command_palette()

    def do_commands(self) -> None:
        self.action_command_palette()

    # --- keys

    def action_do(self, action_id: str) -> None:
        is_prefix = actions.BY_ID[action_id].handler == "prefix"
        if is_prefix and not isinstance(self.screen, CockpitScreen):
            raise SkipAction  # a question is being answered, or a command looked for
        self.perform(action_id)

    def do_prefix(self, key: str) -> None:
        self.wait_for_second(key)

    def wait_for_second(self, prefix: str) -> None:
        """Take the next key as the second after ``prefix``; with an empty one, no longer."""
        self.prefix = prefix
        if isinstance(self.screen, CockpitScreen):
            self.screen.show_keys()

    async def on_event(self, event: events.Event) -> None:
        if self.prefix and isinstance(event, events.Key) and not event.is_forwarded:
            self._take_second(event.key)
        else:
            await super().on_event(event)

    def _take_second(self, key: str) -> None:
        prefix, screen = self.prefix, self.screen
        self.wait_for_second("")
        seconds = self.keymap.seconds(screen.scopes if isinstance(screen, CockpitScreen) else ())
        if key in seconds:
            self.perform(seconds[key].id)
        elif key != "escape":
            self.notify(f"{prefix} {display(key)} leads nowhere from here.", markup=False)

    @property
    def movable(self) -> Table | Scroller | None:
        """What is in focus, if it has a first and a last line."""
        focused = self.focused
        return focused if isinstance(focused, Table | Scroller) else None

    def do_move(self, where: str) -> None:
        if (movable := self.movable) is not None:
            movable.move(where)

    # --- the clipboard

    def copy_to_clipboard(self, text: str) -> None:
        super().copy_to_clipboard(text)
        # A terminal never answers: all that can be said is what to do where nothing arrived.
        count = f"{len(text)} character{'' if len(text) == 1 else 's'}"
        otherwise = "hold shift and select with the mouse, then copy as the terminal does"
        if lacks_clipboard(os.environ):
            said = f"This terminal has no clipboard of its own: {otherwise}."
        else:
            said = f"{count} sent to the terminal's clipboard. If nothing arrives: {otherwise}."
        self.notify(said, markup=False, timeout=6)

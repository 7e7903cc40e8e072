"""Begin a run by the command line's own way, in a process of its own, and show how far it is.

Checks, download and launch are those of ``stonk-tui train``: what it refuses is refused here, in
the same words, and what market data and models need is never imported into the cockpit.
"""

import asyncio
import contextlib
import os
import signal
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from textual import work
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical
from textual.content import Content
from textual.screen import ModalScreen
from textual.widgets import Button, Static

from engine.errors import UserError
from engine.runs import directory
from engine.runs.directory import RunDirectory
from stonk_tui.widgets.text import line

PROGRAM = (sys.executable, "-P", "-m", "stonk_tui")
_ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Begun:
    """What came of it."""

    run: RunDirectory | None = None
    problem: str = ""
    """Why there is no run; empty where somebody called it off."""


class BeginScreen(ModalScreen[Begun]):
    """Says what the command says, and can call it off."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape", "call_off", "Call it off", show=False),
    ]
    DEFAULT_CSS = """
    BeginScreen { align: center middle; background: $background 70%; }
    BeginScreen > Vertical {
        width: 76; max-width: 98%; height: auto; padding: 1 2;
        border: round $gold; background: $surface; border-title-color: $gold;
    }
    BeginScreen Static { width: 1fr; height: auto; max-height: 4; }
    BeginScreen Button { margin-top: 1; }
    """

    def __init__(self, title: str, arguments: Sequence[str], config: str | None = None) -> None:
        """Prepare to run ``stonk-tui`` with ``arguments``.

        Args:
            title: what is being done, in a few words.
            arguments: of the command; it prints the run's id last.
            config: text of a configuration file, whose path becomes the last argument.
        """
        super().__init__()
        self._title = title
        self._arguments = list(arguments)
        self._config = config
        self._process: asyncio.subprocess.Process | None = None
        self._is_called_off = False

    def compose(self) -> ComposeResult:
        with Vertical() as box:
            box.border_title = line(f" {self._title} ")
            yield Static("Checking settings, data, device and disk …", id="phase", markup=False)
            yield Static(
                Content.styled("What has been downloaded is kept.", "$quiet"), markup=False
            )
            yield Button("Call it off", id="call-off", compact=True)

    def on_mount(self) -> None:
        self._begin()

    def on_button_pressed(self) -> None:
        self.action_call_off()

    def action_call_off(self) -> None:
        self._is_called_off = True
        self.query_one("#phase", Static).update("Being called off …")
        if self._process is not None and self._process.returncode is None:
            # As Ctrl-C: a launch in hand is finished rather than torn apart.
            with contextlib.suppress(ProcessLookupError):
                self._process.send_signal(signal.SIGINT)

    @work(exit_on_error=False, group="begin")
    async def _begin(self) -> None:
        with tempfile.TemporaryDirectory(prefix="stonk-tui-") as folder:
            arguments = list(self._arguments)
            if self._config is not None:
                file = Path(folder) / "run.yaml"
                file.write_text(self._config, encoding="utf-8")
                arguments.append(str(file))
            try:
                begun = await self._follow(arguments)
            except (OSError, ValueError) as error:
                begun = Begun(problem=f"stonk-tui could not be run: {error}")
        self.dismiss(begun)

    async def _follow(self, arguments: Sequence[str]) -> Begun:
        # With -P a package called engine in the current folder is not taken for ours.
        path = os.pathsep.join(filter(None, [str(_ROOT), os.environ.get("PYTHONPATH")]))
        self._process = process = await asyncio.create_subprocess_exec(
            *PROGRAM,
            *arguments,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            start_new_session=True,
            env={**os.environ, "PYTHONPATH": path, "PYTHONUNBUFFERED": "1"},
        )
        if self._is_called_off:
            self.action_call_off()
        assert process.stdout is not None
        assert process.stderr is not None
        try:
            said, notes = await asyncio.gather(self._listen(process.stdout), _last(process.stderr))
            code = await process.wait()
        finally:
            # The cockpit is left: nothing goes on that nobody would hear of.
            if process.returncode is None:
                with contextlib.suppress(ProcessLookupError):
                    process.kill()
                await asyncio.shield(process.wait())
        if code == 0 and (run := _run_called(said)) is not None:
            return Begun(run)
        if self._is_called_off:
            return Begun()
        problem = notes.removeprefix("stonk-tui: ")
        return Begun(problem=problem or f"stonk-tui ended with exit code {code}")

    async def _listen(self, stream: asyncio.StreamReader) -> str:
        """Show each line as it comes; returns the last."""
        last = ""
        while said := await _next_line(stream):
            last = said
            if not self._is_called_off:
                self.query_one("#phase", Static).update(line(said))
        return last


async def _next_line(stream: asyncio.StreamReader) -> str:
    """The next line that is not blank; empty at the end."""
    while True:
        try:
            raw = await stream.readline()
        except ValueError:
            continue  # A line longer than any that is shown was dropped.
        if not raw:
            return ""
        if text := raw.decode("utf-8", "replace").strip():
            return text


async def _last(stream: asyncio.StreamReader) -> str:
    last = ""
    while said := await _next_line(stream):
        last = said
    return last


def _run_called(name: str) -> RunDirectory | None:
    try:
        return directory.find(name)
    except UserError:
        return None

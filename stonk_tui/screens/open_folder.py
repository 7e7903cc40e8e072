"""Watch a run by its folder, wherever it lies: the path is judged while it is typed."""

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from textual import on, work
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal, Vertical
from textual.content import Content
from textual.message import Message
from textual.screen import ModalScreen
from textual.widgets import Button, Input, Static

from engine.errors import UserError
from engine.runs.directory import RunDirectory
from stonk_tui.widgets.text import line


@dataclass
class Judged(Message, bubble=False):
    """What lies at a path."""

    typed: str
    run: RunDirectory | None
    said: str


class OpenFolderScreen(ModalScreen[RunDirectory | None]):
    """One path, and whether it is a run."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape", "leave", "Leave", show=False),
    ]
    DEFAULT_CSS = """
    OpenFolderScreen { align: center middle; background: $background 70%; }
    OpenFolderScreen > Vertical {
        width: 90; max-width: 98%; height: auto; padding: 1 2;
        border: round $gold; background: $surface; border-title-color: $gold;
    }
    OpenFolderScreen Static { width: 1fr; height: auto; min-height: 1; max-height: 3; }
    OpenFolderScreen Input { background: $panel; }
    OpenFolderScreen Horizontal { height: 1; margin-top: 1; align-horizontal: right; }
    OpenFolderScreen Button { margin-left: 2; }
    """

    def __init__(self) -> None:
        super().__init__()
        self._run: RunDirectory | None = None

    def compose(self) -> ComposeResult:
        with Vertical() as box:
            box.border_title = Content(" A run that exists ")
            yield Input(placeholder="/path/to/a/run", max_length=1000, compact=True, id="path")
            yield Static("The folder of one run: it holds run.yaml.", id="said", markup=False)
            with Horizontal():
                yield Button("Back", id="back", compact=True)
                yield Button("Watch it", id="open", variant="primary", compact=True, disabled=True)

    @on(Input.Changed, "#path")
    def _typed(self, event: Input.Changed) -> None:
        self._run = None
        self.query_one("#open", Button).disabled = True
        self._judge(event.value)

    @work(thread=True, exit_on_error=False, group="path")
    def _judge(self, typed: str) -> None:
        run, said = judge(typed)
        self.post_message(Judged(typed, run, said))

    def on_judged(self, event: Judged) -> None:
        if event.typed != self.query_one("#path", Input).value:
            # Typed on meanwhile, and a thread cannot be called off.
            return
        self._run = event.run
        self.query_one("#open", Button).disabled = event.run is None
        glyph, style = ("✓ ", "$good") if event.run is not None else ("✗ ", "$warn")
        self.query_one("#said", Static).update(
            Content.assemble((glyph, style), line(event.said, limit=300))
            if event.typed.strip()
            else line(event.said)
        )

    @on(Input.Submitted, "#path")
    @on(Button.Pressed, "#open")
    def _open(self) -> None:
        if self._run is not None:
            self.dismiss(self._run)

    @on(Button.Pressed, "#back")
    def action_leave(self) -> None:
        self.dismiss(None)


def judge(typed: str) -> tuple[RunDirectory | None, str]:
    """The run at the path ``typed``, and what is there in words."""
    if not typed.strip():
        return None, "The folder of one run: it holds run.yaml."
    try:
        # Absolute, since what is watched must not depend on the current folder.
        path = Path(typed.strip()).expanduser().absolute()
        if not path.exists():
            parent = next(place for place in path.parents if place.exists())
            return None, f"nothing is there; {parent} is as far as it goes"
        if not path.is_dir():
            return None, "this is a file; name the folder it lies in"
        if not (path / "run.yaml").is_file():
            inside = sum((child / "run.yaml").is_file() for child in path.iterdir())
            if inside:
                plural = "a run" if inside == 1 else f"{inside} runs"
                return None, f"this folder holds {plural}; name one of them"
            return None, "this is no run: run.yaml is missing"
        run = RunDirectory(path)
        config = run.config()
    except UserError as error:
        return None, str(error)
    except (OSError, RuntimeError, ValueError) as error:
        return None, f"it cannot be looked at: {getattr(error, 'strerror', None) or error}"
    return run, f"{run.id}: Stage {config.stage}, {config.model.id}, {config.data.source}"

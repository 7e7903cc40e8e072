"""The very first launch: three ways to go on, each a key, a click or enter away."""

from dataclasses import dataclass
from typing import ClassVar

from textual import events
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import VerticalScroll
from textual.content import Content
from textual.message import Message
from textual.widgets import Static

_DOORS = (
    (
        "door_demo",
        "1",
        "The demo",
        "A small model learns on this very machine, GPU or not, on bundled prices. It takes "
        "minutes, and fetches a model of 0.1 GB once.",
    ),
    (
        "door_real",
        "2",
        "A real run",
        "Looks at GPU, hub login and disk, says what would be downloaded, and then asks for the "
        "settings.",
    ),
    (
        "door_folder",
        "3",
        "A run that exists",
        "Watch a run by its folder, wherever it lies on this machine.",
    ),
)


class Door(Static, can_focus=True):
    """One way to go on."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("enter,space", "open", "Open", show=False),
        Binding("down,j,right", "app.focus_next", "Next", show=False),
        Binding("up,k,left", "app.focus_previous", "Previous", show=False),
    ]
    DEFAULT_CSS = """
    Door {
        width: 1fr; max-width: 76; height: auto; padding: 0 1; margin-bottom: 1;
        border: round $edge; border-title-color: $ink;
    }
    Door:focus { border: round $gold; }
    """

    @dataclass
    class Opened(Message):
        """Somebody goes through it."""

        action_id: str

    def __init__(self, action_id: str, key: str, title: str, text: str) -> None:
        super().__init__(Content(text), markup=False, id=action_id)
        self._action_id = action_id
        self.border_title = Content.assemble((key, "bold $gold"), " ", (title, "bold"))

    def action_open(self) -> None:
        self.post_message(self.Opened(self._action_id))

    def on_click(self, event: events.Click) -> None:
        self.action_open()


class Doors(VerticalScroll, can_focus=False):
    """Shown where there is no run yet."""

    DEFAULT_CSS = """
    Doors { padding: 1 3; scrollbar-size-vertical: 1; }
    Doors > .welcome { width: 1fr; height: auto; margin-bottom: 1; }
    """

    def compose(self) -> ComposeResult:
        yield Static(
            Content.assemble(
                ("No run yet. ", "bold $gold"), ("Three ways to one:", "bold"), "  1, 2 or 3"
            ),
            classes="welcome",
            markup=False,
        )
        for door in _DOORS:
            yield Door(*door)

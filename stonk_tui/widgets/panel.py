"""The frame that every panel shares: number and noun at the left, the answer at the right."""

from typing import ClassVar

from textual import events
from textual.app import ComposeResult
from textual.containers import Vertical
from textual.content import Content
from textual.widgets import Static

from stonk_tui.feed import RunModel
from stonk_tui.keymap import DEFAULT, Keymap


class Panel(Vertical, can_focus=True):
    """One question about the run; its border carries the short answer."""

    DEFAULT_CSS = """
    Panel {
        border: round $edge;
        border-title-color: $ink;
        border-title-background: $background;
        padding: 0 1;
        overflow: hidden hidden;
    }
    Panel:focus, Panel:focus-within { border: heavy $gold; }
    Panel .body {
        width: 1fr; height: 1fr; text-wrap: nowrap; text-overflow: ellipsis;
    }
    """

    noun: ClassVar[str] = ""
    number: ClassVar[int] = 0
    """The key that focuses this panel."""
    explanation: ClassVar[str] = ""
    """Three sentences for the help screen: what is shown, how it is computed, what to look for."""

    def __init__(self, *, id: str) -> None:
        super().__init__(id=id)
        self._body = Static(classes="body", markup=False)
        self._view: RunModel | None = None
        self._answer = Content("")
        self._shown: Content | None = None
        self._title: Content | None = None

    def compose(self) -> ComposeResult:
        yield self._body

    @property
    def keymap(self) -> Keymap:
        """The keys of the cockpit that the panel is in."""
        keymap = getattr(self.app, "keymap", DEFAULT)
        return keymap if isinstance(keymap, Keymap) else DEFAULT

    # --- what a panel fills in

    @property
    def heading(self) -> str:
        """What stands at the left of the border."""
        return self.noun

    def draw(self, view: RunModel, width: int, height: int) -> tuple[Content, Content]:
        """(answer for the border, body) for the room there is."""
        raise NotImplementedError

    # --- what every panel does

    def show(self, view: RunModel) -> None:
        """Draw ``view``; the screen is only touched where something changed."""
        self._view = view
        width, height = self.content_size
        if width <= 0 or height <= 0:
            return
        self._answer, body = self.draw(view, width, height)
        self._set_body(body)
        self._set_title()

    def _set_body(self, body: Content) -> None:
        if self._shown is None or not self._shown.is_same(body):
            self._shown = body
            self._body.update(body)

    def _set_title(self) -> None:
        """Noun left, answer right, the border's own line between them."""
        room = self.outer_size.width - 6  # corners, and the blank that the border puts at both ends
        if room <= 0:
            return
        focused = self.has_focus or self.has_focus_within
        edge = "$gold" if focused else "$edge"
        name = Content.assemble(
            (f"{self.number} " if self.number else "", "$quiet"), (self.heading, "bold $ink"), " "
        )
        answer = self._answer.truncate(max(0, room - name.cell_length - 2), ellipsis=True)
        gap = room - name.cell_length - answer.cell_length
        if answer:
            gap -= 1
        title = Content.assemble(
            name, (("━" if focused else "─") * max(0, gap), edge), " " if answer else "", answer
        )
        if self._title is None or not self._title.is_same(title):
            self._title = title
            self.border_title = title

    def on_resize(self, event: events.Resize) -> None:
        if self._view is not None:
            self.show(self._view)
        else:
            self._set_title()

    def on_focus(self) -> None:
        self._set_title()

    def on_blur(self) -> None:
        self._set_title()

    def on_descendant_focus(self) -> None:
        self._set_title()

    def on_descendant_blur(self) -> None:
        self._set_title()


def rows(*lines: Content | str) -> Content:
    """Lines under each other."""
    return Content("\n").join(lines)


def spread(left: Content, right: Content, width: int) -> Content:
    """``left`` and ``right`` at the ends of a line; the right one gives way last."""
    room = max(0, width - right.cell_length - 1)
    return Content.assemble(left.truncate(room, ellipsis=True, pad=True), " ", right)

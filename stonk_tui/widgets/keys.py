"""The footer: what can be done here, each entry a button, dimmed where it does nothing now."""

from collections.abc import Sequence
from dataclasses import dataclass

from textual import events
from textual.app import RenderResult
from textual.content import Content
from textual.message import Message
from textual.widget import Widget

ALWAYS = 3
"""The last entries are never left out."""


@dataclass(frozen=True)
class Entry:
    """One thing that can be pressed."""

    action_id: str
    key: str
    label: str
    enabled: bool = True

    @property
    def width(self) -> int:
        return len(self.key) + len(self.label) + 1


class KeyBar(Widget):
    """One line of keys and what they do; after the first of two keys, all that may follow."""

    DEFAULT_CSS = """
    KeyBar { dock: bottom; height: 1; width: 1fr; background: $surface; padding: 0 1; }
    """

    class Pressed(Message):
        """Somebody clicked an entry."""

        def __init__(self, action_id: str) -> None:
            super().__init__()
            self.action_id = action_id

    def __init__(self) -> None:
        super().__init__()
        self._entries: tuple[Entry, ...] = ()
        self._prefix = ""
        self._spans: list[tuple[int, int, int, str]] = []

    def show(self, entries: Sequence[Entry], prefix: str = "") -> None:
        """Offer ``entries``; with a ``prefix``, on as many lines as all of them take."""
        if (tuple(entries), prefix) != (self._entries, self._prefix):
            self._entries, self._prefix = tuple(entries), prefix
            self._fit()
            self.refresh()

    def on_resize(self) -> None:
        self._fit()

    def _fit(self) -> None:
        self.styles.height = len(self._lines()) if self._prefix else 1

    def _lines(self) -> list[list[Entry]]:
        """The entries that are shown, line by line."""
        room = self.content_size.width or self.app.size.width - 2
        if self._prefix:
            return _wrapped(self._entries, room, indent=len(self._prefix) + 2)
        # Going elsewhere, help and leaving are always offered; others give way to them.
        always = self._entries[-ALWAYS:]
        at = sum(entry.width + 2 for entry in always)
        kept = []
        for entry in self._entries[:-ALWAYS]:
            if at + entry.width <= room:
                kept.append(entry)
                at += entry.width + 2
        return [[*kept, *always]]

    def render(self) -> RenderResult:
        self._spans = []
        lines = []
        for row, entries in enumerate(self._lines()):
            head = f"{self._prefix}  " if self._prefix and row == 0 else " " * len(self._prefix)
            if self._prefix and row:
                head += "  "
            at = len(head)
            pieces = []
            for entry in entries:
                pieces.append(self._drawn(entry))
                self._spans.append((row, at, at + entry.width, entry.action_id))
                at += entry.width + 2
            lines.append(Content.styled(head, "bold $gold") + Content("  ").join(pieces))
        return Content("\n").join(lines)

    def _drawn(self, entry: Entry) -> Content:
        # Bold or not tells it without colour, too.
        dimmed = "dim" if self.app.no_color else "$quiet"
        return Content.assemble(
            (entry.key, "bold $gold" if entry.enabled else dimmed),
            (f" {entry.label}", "$ink" if entry.enabled else dimmed),
        )

    def on_click(self, event: events.Click) -> None:
        for row, start, end, action_id in self._spans:
            if action_id and row == event.y and start <= event.x - 1 < end:
                self.post_message(self.Pressed(action_id))


def _wrapped(entries: Sequence[Entry], room: int, indent: int) -> list[list[Entry]]:
    lines: list[list[Entry]] = [[]]
    at = indent
    for entry in entries:
        if lines[-1] and at + entry.width > room:
            lines.append([])
            at = indent
        lines[-1].append(entry)
        at += entry.width + 2
    return lines

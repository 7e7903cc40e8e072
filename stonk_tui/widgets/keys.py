"""The footer: what can be done here, each entry a button, greyed with its reason at hand."""

from textual import events
from textual.app import RenderResult
from textual.content import Content
from textual.message import Message
from textual.widget import Widget

from stonk_tui.actions import Action


class KeyBar(Widget):
    """One line of keys and what they do."""

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
        self._entries: list[tuple[Action, str, bool]] = []
        self._spans: list[tuple[int, int, str]] = []

    def show(self, entries: list[tuple[Action, str, bool]]) -> None:
        """Offer ``entries``: action, label, whether it can be done now."""
        if entries != self._entries:
            self._entries = entries
            self.refresh()

    def render(self) -> RenderResult:
        pieces: list[Content] = []
        self._spans = []
        at = 0
        # Help and leaving are always offered, at the end; others give way to them.
        always = self._entries[-2:]
        reserve = sum(_width(action, label) + 2 for action, label, _ in always)
        for entry in self._entries:
            action, label, enabled = entry
            width = _width(action, label)
            if entry not in always and at + width + reserve > self.size.width:
                continue
            pieces.append(
                Content.assemble(
                    (action.shown_key, "bold $gold" if enabled else "$faint"),
                    (f" {label}", "$ink" if enabled else "$faint"),
                )
            )
            self._spans.append((at, at + width, action.id))
            at += width + 2
        return Content("  ").join(pieces)

    def on_click(self, event: events.Click) -> None:
        for start, end, action_id in self._spans:
            if start <= event.x - 1 < end:
                self.post_message(self.Pressed(action_id))


def _width(action: Action, label: str) -> int:
    return len(action.shown_key) + len(label) + 1

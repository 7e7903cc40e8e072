"""One line to type a filter into, with what is wrong with it under it."""

from typing import ClassVar

from textual import on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical
from textual.content import Content
from textual.message import Message
from textual.widgets import Input, Static


class FilterBar(Vertical):
    """Hidden while it is empty and nobody types into it."""

    DEFAULT_CSS = """
    FilterBar { height: auto; padding: 0 1; display: none; }
    FilterBar.-open { display: block; }
    FilterBar Input { background: $panel; }
    FilterBar Static { height: auto; max-height: 2; display: none; }
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape", "drop", "Drop the filter", show=False),
    ]

    class Left(Message):
        """Somebody has finished typing."""

    def compose(self) -> ComposeResult:
        yield Input(
            placeholder="state:training  stage:II  ticker:AAPL  or words and regular expressions",
            max_length=200,
            compact=True,
            id="filter",
        )
        yield Static(id="filter-problem", markup=False)

    def open(self) -> None:
        """Let somebody type."""
        self.add_class("-open")
        self.query_one(Input).focus()

    def explain(self, problem: Content) -> None:
        """Say in place what is wrong; nothing where nothing is."""
        widget = self.query_one("#filter-problem", Static)
        widget.display = bool(problem.plain)
        widget.update(problem)

    def action_drop(self) -> None:
        self.query_one(Input).value = ""
        self._leave()

    @on(Input.Submitted)
    def _leave(self) -> None:
        if not self.query_one(Input).value.strip():
            self.remove_class("-open")
        self.post_message(self.Left())

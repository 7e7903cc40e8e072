"""The line in which a person says which rollouts to list."""

from dataclasses import dataclass

from rich.highlighter import Highlighter
from rich.text import Text
from textual import on
from textual.app import ComposeResult
from textual.containers import Horizontal
from textual.message import Message
from textual.widgets import Input, Static

from engine.runs.rollout_filter import MAX_FILTER, Filter, FilterError, parse


class _BadTerm(Highlighter):
    """Underline the term that cannot be understood."""

    span: tuple[int, int] | None = None

    def highlight(self, text: Text) -> None:
        if self.span is not None:
            text.stylize("bold underline", *self.span)


class FilterLine(Horizontal):
    """One line of text, read as a filter with every key."""

    DEFAULT_CSS = """
    FilterLine { height: 1; background: $surface; padding: 0 1; }
    FilterLine #slash { width: 2; color: $gold; text-style: bold; }
    FilterLine Input { width: 1fr; background: $surface; }
    FilterLine Input:focus { background: $panel; }
    """

    @dataclass
    class Changed(Message):
        """There is another filter, or one that cannot be understood."""

        selection: Filter | None
        problem: str = ""

    @dataclass
    class Done(Message):
        """A person has said what they wanted, or took it back."""

    def __init__(self) -> None:
        super().__init__()
        self._bad_term = _BadTerm()
        self._before = ""

    def compose(self) -> ComposeResult:
        yield Static("/", id="slash", markup=False)
        yield Input(
            placeholder="no filter; / sets one, such as right:no reward<0.3 text:~merger",
            highlighter=self._bad_term,
            max_length=MAX_FILTER,
            select_on_focus=False,
            compact=True,
        )

    @property
    def _field(self) -> Input:
        return self.query_one(Input)

    def begin(self) -> None:
        """Let a person type; ``take_back`` returns to what stands there now."""
        self._before = self._field.value
        self._field.focus()

    def take_back(self) -> bool:
        """Undo what was typed since ``begin``; False when nothing is being typed."""
        if not self._field.has_focus:
            return False
        self._field.value = self._before
        self.post_message(self.Done())
        return True

    @on(Input.Changed)
    def _read(self, event: Input.Changed) -> None:
        event.stop()
        try:
            selection = parse(event.value)
        except FilterError as error:
            self._bad_term.span = (error.at, error.at + error.length)
            problem = f"character {error.at + 1}: {error.what}; {error.fix}"
            self.post_message(self.Changed(None, problem))
        else:
            self._bad_term.span = None
            self.post_message(self.Changed(selection))
        # The field was drawn before it was known which term to underline.
        self._field.refresh()

    @on(Input.Submitted)
    def _finish(self, event: Input.Submitted) -> None:
        event.stop()
        if self._bad_term.span is None:
            self.post_message(self.Done())

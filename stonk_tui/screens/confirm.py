"""A question before something that is hard to undo."""

from typing import ClassVar

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical
from textual.content import Content
from textual.screen import ModalScreen
from textual.widgets import Static

DEAF_SECONDS = 0.5
"""A yes typed before a person can have read the question does not answer it; a no does."""


class ConfirmScreen(ModalScreen[bool]):
    """Yes with ``y``, no with anything that usually means no."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("y", "answer(True)", "Yes", show=False),
        Binding("n,escape,q", "answer(False)", "No", show=False),
    ]
    DEFAULT_CSS = """
    ConfirmScreen { align: center middle; background: $background 70%; }
    ConfirmScreen > Vertical {
        width: 66; max-width: 96%; height: auto; padding: 1 2;
        border: round $warn; background: $surface;
    }
    ConfirmScreen Static { width: 1fr; height: auto; }
    ConfirmScreen #choices { margin-top: 1; }
    """

    def __init__(self, question: Content, explanation: Content, yes: str, no: str) -> None:
        super().__init__()
        self._question = question
        self._explanation = explanation
        self._yes, self._no = yes, no
        self.listens = False
        """Whether a yes is taken already."""

    def compose(self) -> ComposeResult:
        with Vertical():
            yield Static(self._question.stylize("bold"), markup=False)
            yield Static("", markup=False)
            yield Static(self._explanation, markup=False)
            yield Static(id="choices", markup=False)

    def on_mount(self) -> None:
        self._draw_choices()
        self.set_timer(DEAF_SECONDS, self._listen)

    def _listen(self) -> None:
        self.listens = True
        self._draw_choices()

    def _draw_choices(self) -> None:
        # Dimmed for as long as it does nothing: a yes that comes too early is not lost unseen.
        yes = ("bold $gold", "") if self.listens else ("dim", "dim")
        self.query_one("#choices", Static).update(
            Content.assemble(
                ("y", yes[0]), (f" {self._yes}", yes[1]), "      ",
                ("n", "bold $gold"), f" {self._no}",
            )
        )  # fmt: skip

    def action_answer(self, answer: bool) -> None:
        if self.listens or not answer:
            self.dismiss(answer)

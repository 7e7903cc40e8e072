"""A terminal too small for the cockpit: what it needs, and that nothing is lost."""

from typing import ClassVar

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.content import Content
from textual.geometry import Size
from textual.screen import ModalScreen
from textual.widgets import Static

LEAST = Size(60, 20)


def is_too_small(size: Size) -> bool:
    """Whether the cockpit has no room."""
    return size.width < LEAST.width or size.height < LEAST.height


class SmallScreen(ModalScreen[None]):
    """Lies over everything until there is room again: what is beneath stays as it was."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("q", "app.do('detach')", "Detach", show=False, id="detach"),
    ]
    DEFAULT_CSS = """
    SmallScreen { align: center middle; background: $background; }
    SmallScreen Static { width: auto; max-width: 100%; height: auto; text-align: center; }
    """

    def compose(self) -> ComposeResult:
        yield Static(markup=False)

    def on_mount(self) -> None:
        self._show()

    def on_resize(self) -> None:
        self._show()

    def on_screen_resume(self) -> None:
        self._show()

    def _show(self) -> None:
        size = self.app.size
        if is_too_small(size):
            self.query_one(Static).update(sentence(size))
        elif self.is_current:
            self.dismiss()


def sentence(size: Size) -> Content:
    """One kind line."""
    return Content.assemble(
        "A little more room, please: ",
        (f"{LEAST.width}×{LEAST.height}", "bold $gold"),
        " cells are needed, ",
        (f"{size.width}×{size.height}", "bold"),
        " are here. Nothing is lost.",
    )

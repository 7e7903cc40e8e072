"""A box that scrolls with the arrows, and with the keys that hands know from vim."""

from typing import ClassVar

from textual.binding import Binding, BindingType
from textual.containers import VerticalScroll


class Scroller(VerticalScroll):
    """`j` and `k` go with the arrows; first, last and half pages come from the actions."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("j", "scroll_down", "Down", show=False),
        Binding("k", "scroll_up", "Up", show=False),
        Binding("h", "scroll_left", "Left", show=False),
        Binding("l", "scroll_right", "Right", show=False),
    ]

    def move(self, where: str) -> None:
        """To the ``top`` or ``bottom``, or ``half_down`` or ``half_up`` a page."""
        if where == "top":
            self.scroll_home(animate=False)
        elif where == "bottom":
            self.scroll_end(animate=False)
        else:
            half = max(1, self.size.height // 2)
            self.scroll_relative(y=half if where == "half_down" else -half, animate=False)

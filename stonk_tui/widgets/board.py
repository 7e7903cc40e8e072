"""Where the panels stand: one pure function from a size to places.

Two arrangements. *Wide* (from 100 columns and 35 rows of terminal): all panels at once on a
grid of three columns. *Folded* (down to 60 by 20): reward and breakdown on top, and one
place below that shows the rollouts or whichever other panel is asked for.
"""

from collections.abc import Mapping

from textual.containers import Container
from textual.geometry import Offset, Region, Size, Spacing
from textual.layout import ArrangeResult, Layout, WidgetPlacement
from textual.widget import Widget

PANELS = (
    "reward",
    "saiyan",
    "breakdown",
    "market",
    "health",
    "rollouts",
    "device",
    "alarms",
    "events",
)
FOLDED_TOP = ("reward", "breakdown")
WIDE = Size(100, 32)


def is_wide(size: Size) -> bool:
    """Whether all panels have room at once."""
    return size.width >= WIDE.width and size.height >= WIDE.height


def places(size: Size, slot: str = "rollouts", zoomed: str | None = None) -> Mapping[str, Region]:
    """The region of each panel that is shown.

    Args:
        size: the room for all of them.
        slot: the panel in the lower place of the folded arrangement.
        zoomed: the panel that takes all the room, if any.
    """
    width, height = size
    if zoomed is not None:
        return {zoomed: Region(0, 0, width, height)}
    if not is_wide(size):
        return _folded(width, height, slot)
    right = min(64, max(38, width // 3))
    left = width - right
    half = left // 2
    middle = 10 if height < 40 else 11
    top = max(12, (height - middle) * 48 // 100)
    bottom = height - middle - top
    device = min(9, bottom - max(4, bottom // 3))
    events = min(9, max(4, bottom // 3))
    under = top + middle
    return {
        "reward": Region(0, 0, left, top),
        "saiyan": Region(left, 0, right, top),
        "breakdown": Region(0, top, half, middle),
        "market": Region(half, top, left - half, middle),
        "health": Region(left, top, right, middle),
        "rollouts": Region(0, under, left, bottom - events),
        "events": Region(0, under + bottom - events, left, events),
        "device": Region(left, under, right, device),
        "alarms": Region(left, under + device, right, bottom - device),
    }


def _folded(width: int, height: int, slot: str) -> Mapping[str, Region]:
    top = max(8, min(12, height // 2))
    side = min(44, max(30, width * 42 // 100))
    lower = slot if slot not in FOLDED_TOP else "rollouts"
    return {
        "reward": Region(0, 0, width - side, top),
        "breakdown": Region(width - side, 0, side, top),
        lower: Region(0, top, width, height - top),
    }


class _BoardLayout(Layout):
    """Put each panel at its place."""

    name = "board"

    def arrange(
        self, parent: Widget, children: list[Widget], size: Size, greedy: bool = True
    ) -> ArrangeResult:
        assert isinstance(parent, Board)
        regions = places(size, parent.slot, parent.zoomed)
        no_margin = Spacing()
        return [
            WidgetPlacement(regions[child.id], Offset(0, 0), no_margin, child)
            for child in children
            if child.id is not None and child.id in regions
        ]


class Board(Container):
    """The panels of the train screen."""

    DEFAULT_CSS = """
    Board { width: 1fr; height: 1fr; overflow: hidden hidden; }
    """

    slot = "rollouts"
    zoomed: str | None = None
    _board_layout = _BoardLayout()

    @property
    def layout(self) -> Layout:
        return self._board_layout

    @property
    def shown(self) -> tuple[str, ...]:
        """Ids of the panels that have a place now, in their order."""
        regions = places(self.size, self.slot, self.zoomed)
        return tuple(name for name in PANELS if name in regions)

    def rearrange(self, *, slot: str | None = None, zoomed: str | None = None) -> None:
        """Change what stands in the lower place, or zoom; ``zoomed=None`` ends a zoom."""
        before = places(self.size, self.slot, self.zoomed)
        self.slot = slot or self.slot
        self.zoomed = zoomed
        if places(self.size, self.slot, self.zoomed) == before:
            # To lay out anew is to send the whole screen anew.
            return
        # Asked for by a child: a container keeps its own arrangement while only it asks.
        self.children[0].refresh(layout=True)

"""What an alarm means, and what to do about it."""

from collections.abc import Sequence
from typing import ClassVar

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical, VerticalScroll
from textual.content import Content
from textual.screen import ModalScreen
from textual.widgets import Static

from engine.runs.history import Alarm
from stonk_tui.theme import ALARM
from stonk_tui.widgets import figures
from stonk_tui.widgets.text import line, shown

_LIMIT = 4000


class AlarmScreen(ModalScreen[None]):
    """The alarms as they were when this was opened, one at a time."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("n,right,down,j", "turn(1)", "Next", show=False),
        Binding("N,left,up,k", "turn(-1)", "Previous", show=False),
        Binding("escape,q,enter", "close", "Close", show=False),
    ]
    DEFAULT_CSS = """
    AlarmScreen { align: center middle; background: $background 70%; }
    AlarmScreen > Vertical {
        width: 76; max-width: 96%; height: auto; max-height: 90%; padding: 1 2;
        border: round $warn; background: $surface;
    }
    AlarmScreen VerticalScroll { height: auto; max-height: 100%; scrollbar-size-vertical: 1; }
    AlarmScreen Static { width: 1fr; height: auto; }
    AlarmScreen #choices { margin-top: 1; }
    """

    def __init__(self, alarms: Sequence[Alarm]) -> None:
        """Prepare to explain ``alarms``, of which there is at least one."""
        super().__init__()
        self._alarms = tuple(alarms)
        self._at = 0

    def compose(self) -> ComposeResult:
        with Vertical():
            with VerticalScroll(can_focus=False):
                yield Static(id="alarm-text", markup=False)
            yield Static(id="choices", markup=False)

    def on_mount(self) -> None:
        self._show()

    def action_turn(self, by: int) -> None:
        self._at = (self._at + by) % len(self._alarms)
        self._show()

    def action_close(self) -> None:
        self.dismiss()

    def _show(self) -> None:
        alarm = self._alarms[self._at]
        self.query_one("#alarm-text", Static).update(described(alarm))
        entries = [Content.assemble(("esc", "bold $gold"), " close")]
        if len(self._alarms) > 1:
            place = f" next   {self._at + 1} of {len(self._alarms)}"
            entries.insert(0, Content.assemble(("n", "bold $gold"), place))
        self.query_one("#choices", Static).update(Content("      ").join(entries))


def described(alarm: Alarm) -> Content:
    """Everything that is known of an alarm."""
    figure = Content.assemble(
        (f"since step {figures.whole(alarm.since_step)}", "$quiet"),
        *_figure(alarm),
    )
    return Content("\n").join(
        [
            Content.assemble(
                (f"{ALARM.glyph} ", ALARM.style), line(alarm.title, "bold $ink", limit=120)
            ),
            figure,
            "",
            shown(alarm.explanation, limit=_LIMIT),
            "",
            Content.styled("What to do", "bold $gold"),
            shown(alarm.advice, limit=_LIMIT),
        ]
    )


def _figure(alarm: Alarm) -> list[tuple[str, str]]:
    if figures.known(alarm.value) is None:
        return []
    pieces = [("   came on at ", "$quiet"), (figures.small(alarm.value), "bold $ink")]
    if figures.known(alarm.threshold) is not None:
        pieces += [("   threshold ", "$quiet"), (figures.small(alarm.threshold), "$ink")]
    return pieces

"""Help: the table of actions, and what the panels mean."""

import textwrap

from textual.app import ComposeResult
from textual.containers import VerticalScroll
from textual.content import Content
from textual.widgets import Static

from stonk_tui import actions
from stonk_tui.screens.base import CockpitScreen
from stonk_tui.widgets.alarms import AlarmsPanel
from stonk_tui.widgets.breakdown import BreakdownPanel
from stonk_tui.widgets.device import DevicePanel
from stonk_tui.widgets.happenings import HappeningsPanel
from stonk_tui.widgets.health import HealthPanel
from stonk_tui.widgets.market import MarketPanel
from stonk_tui.widgets.panel import Panel
from stonk_tui.widgets.reward import RewardPanel
from stonk_tui.widgets.rollouts import RolloutsPanel
from stonk_tui.widgets.saiyan import SaiyanPanel

_PANELS: tuple[type[Panel], ...] = (
    RewardPanel, SaiyanPanel, BreakdownPanel, MarketPanel,
    HealthPanel, RolloutsPanel, DevicePanel, AlarmsPanel, HappeningsPanel,
)  # fmt: skip

_SCOPES: tuple[tuple[actions.Scope, str], ...] = (
    ("app", "Anywhere"),
    ("train", "Train"),
    ("rollout", "A rollout"),
    ("runs", "Runs"),
    ("log", "Log"),
    ("probe", "Probe"),
)

_KEY_WIDTH = 10
_LABEL_WIDTH = 17


class HelpScreen(CockpitScreen):
    """What every key does, and every panel says."""

    DEFAULT_CSS = """
    HelpScreen #title { height: 1; padding: 0 1; background: $surface; }
    HelpScreen VerticalScroll { padding: 0 2; scrollbar-size-vertical: 1; }
    HelpScreen Static { width: 1fr; height: auto; }
    """

    def __init__(self, panel: str | None = None) -> None:
        super().__init__()
        self._panel = panel
        self._room = 0

    def compose_body(self) -> ComposeResult:
        yield Static(
            Content.assemble(("stonk-tui", "bold $gold"), (" › ", "$quiet"), ("help", "bold")),
            id="title",
            markup=False,
        )
        with VerticalScroll():
            yield Static(id="help-text", markup=False)

    def on_mount(self) -> None:
        self.query_one(VerticalScroll).focus()

    def on_resize(self) -> None:
        self.refresh_screen()

    def show_model(self) -> None:
        room = self.size.width - 6
        if room != self._room:
            self._room = room
            self.query_one("#help-text", Static).update(help_text(self._panel, room))


def help_text(panel: str | None = None, width: int = 100) -> Content:
    """The whole help in lines of at most ``width``; ``panel`` is explained first."""
    lines: list[Content | str] = [""]
    ordered = sorted(_PANELS, key=lambda item: item.__name__.lower() != f"{panel}panel")
    if panel is not None:
        lines += [_explained(ordered[0]), ""]
    for scope, title in _SCOPES:
        lines.append(Content.styled(title, "bold $gold"))
        for action in actions.in_scope(scope):
            lines += _entry(action.shown_key, action.label, action.help, width)
        lines.append("")
    lines += _entry("ctrl+p", "commands", "All of the above by name.", width)
    lines += ["", Content.styled("The same on the command line", "bold $gold")]
    for action in actions.ACTIONS:
        if action.cli:
            lines += _entry(action.shown_key, action.label, f"stonk-tui {action.cli}", width)
    lines += ["", Content.styled("Panels", "bold $gold")]
    for item in _PANELS:
        if panel is None or item is not ordered[0]:
            lines += [_explained(item), ""]
    return Content("\n").join(lines)


def _entry(key: str, label: str, text: str, width: int) -> list[Content]:
    """A key, what it is called, and what it does, the last wrapped under itself."""
    indent = _KEY_WIDTH + 2 + _LABEL_WIDTH
    first, *others = textwrap.wrap(text, max(20, width - indent)) or [""]
    head = Content.assemble((f"{key:>{_KEY_WIDTH}}", "bold"), f"  {label:<{_LABEL_WIDTH}}{first}")
    return [head, *(Content(" " * indent + other) for other in others)]


def _explained(item: type[Panel]) -> Content:
    return Content.assemble((f"{item.noun}. ", "bold"), (item.explanation, "$ink"))

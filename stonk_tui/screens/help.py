"""Help: what is in focus, the table of actions, and what the panels mean; type to search."""

import textwrap
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import ClassVar

from textual import on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.content import Content
from textual.dom import DOMNode
from textual.widgets import Input, Static

from engine.text import one_line
from stonk_tui import actions
from stonk_tui.keymap import DEFAULT, Keymap
from stonk_tui.screens.base import CockpitScreen
from stonk_tui.widgets.alarms import AlarmsPanel
from stonk_tui.widgets.breakdown import BreakdownPanel
from stonk_tui.widgets.device import DevicePanel
from stonk_tui.widgets.happenings import HappeningsPanel
from stonk_tui.widgets.health import HealthPanel
from stonk_tui.widgets.keys import Entry, KeyBar
from stonk_tui.widgets.market import MarketPanel
from stonk_tui.widgets.panel import Panel
from stonk_tui.widgets.reward import RewardPanel
from stonk_tui.widgets.rollouts import RolloutsPanel
from stonk_tui.widgets.saiyan import SaiyanPanel
from stonk_tui.widgets.scroller import Scroller
from stonk_tui.widgets.trail import Trail, trail

_PANELS: tuple[type[Panel], ...] = (
    RewardPanel, SaiyanPanel, BreakdownPanel, MarketPanel,
    HealthPanel, RolloutsPanel, DevicePanel, AlarmsPanel, HappeningsPanel,
)  # fmt: skip

_SCOPES: tuple[tuple[actions.Scope, str], ...] = (
    ("app", "Anywhere"),
    ("train", "Train"),
    ("rollouts", "Rollouts"),
    ("rollout", "A rollout"),
    ("runs", "Runs"),
    ("compare", "Runs compared"),
    ("log", "Log"),
    ("probe", "Probe"),
    ("evaluate", "Evaluate"),
)

_MOVING = (
    ("↑ ↓", "j k", "One row or line; where it scrolls sideways, ← → or h l."),
    ("pgup pgdn", "", "A page."),
    ("home end", "", "The first and the last row or line."),
)

_KEY_WIDTH = 10
_LABEL_WIDTH = 21


@dataclass(frozen=True)
class Topic:
    """What help knows of one thing."""

    noun: str
    explanation: str
    """Three sentences: what is shown, how it is computed, what to look for."""


@dataclass(frozen=True)
class _Item:
    """One entry: what is searched, and its lines."""

    text: str
    lines: tuple[Content, ...]


def topic_of(node: DOMNode | None) -> Topic | None:
    """What there is to say of a widget: its own noun and explanation, or those around it."""
    for ancestor in node.ancestors_with_self if node is not None else ():
        noun, explanation = getattr(ancestor, "noun", ""), getattr(ancestor, "explanation", "")
        if noun and explanation:
            return Topic(noun, explanation)
    return None


class HelpScreen(CockpitScreen):
    """What every key does, and every panel says."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("up", "scroll(-1)", "Up", show=False),
        Binding("down", "scroll(1)", "Down", show=False),
        Binding("pageup", "page(-1)", "Page up", show=False),
        Binding("pagedown", "page(1)", "Page down", show=False),
    ]
    DEFAULT_CSS = """
    HelpScreen Input { width: 1fr; padding: 0 1 !important; }
    HelpScreen Scroller { padding: 0 2; scrollbar-size-vertical: 1; }
    HelpScreen #help-text { width: 1fr; height: auto; }
    """

    def __init__(self, topic: Topic | None = None) -> None:
        super().__init__()
        self._topic = topic
        self._shown: tuple[int, str] | None = None

    def compose_body(self) -> ComposeResult:
        yield Trail()
        yield Input(id="search", placeholder="Type to search", compact=True)
        with Scroller():
            yield Static(id="help-text", markup=False)

    def on_mount(self) -> None:
        model = self.cockpit.model
        self.query_one(Trail).update(trail(model.run.id if model else None, "help"))
        self.query_one(Input).focus()

    def on_resize(self) -> None:
        self.refresh_screen()

    @on(Input.Changed)
    def _search(self) -> None:
        self.query_one(Scroller).scroll_home(animate=False)
        self.refresh_screen()

    def show_model(self) -> None:
        key = (self.size.width - 6, self.query_one(Input).value)
        if key != self._shown:
            self._shown = key
            room, query = key
            text = help_text(self._topic, room, query, self.cockpit.keymap)
            self.query_one("#help-text", Static).update(text)

    def show_keys(self) -> None:
        # While letters are searched for, they are no keys.
        self.query_one(KeyBar).show(
            [
                Entry("", "a-z", "search"),
                Entry("", "up down", "scroll"),
                Entry("back", "esc", "clear, then back"),
                Entry("detach", "ctrl+q", "detach"),
            ]
        )

    def step_back(self) -> bool:
        search = self.query_one(Input)
        had_words = bool(search.value)
        search.value = ""
        search.focus()
        return had_words

    def action_scroll(self, lines: int) -> None:
        self.query_one(Scroller).scroll_relative(y=lines, animate=False)

    def action_page(self, pages: int) -> None:
        scroller = self.query_one(Scroller)
        scroller.scroll_relative(y=pages * max(1, scroller.size.height - 1), animate=False)


def help_text(
    topic: Topic | None = None, width: int = 100, query: str = "", keymap: Keymap = DEFAULT
) -> Content:
    """The help in lines of at most ``width``; ``topic`` comes first, ``query`` leaves out."""
    words = query.casefold().split()
    lines: list[Content] = [Content("")]
    for title, items in _sections(topic, width, keymap):
        found = [
            item
            for item in items
            if all(word in f"{title} {item.text}".casefold() for word in words)
        ]
        if found:
            if title:
                lines.append(Content.styled(title, "bold $gold"))
            lines += [piece for item in found for piece in item.lines]
            lines.append(Content(""))
    if len(lines) == 1:
        lines.append(Content.styled(f"Nothing here speaks of {one_line(query, 60)}.", "$quiet"))
    return Content("\n").join(lines)


def _sections(
    topic: Topic | None, width: int, keymap: Keymap
) -> Iterator[tuple[str, Iterable[_Item]]]:
    if topic is not None:
        yield "", [_explained(topic, width)]
    for scope, title in _SCOPES:
        yield title, [_of_action(action, keymap, width) for action in actions.in_scope(scope)]
    moving = [_entry(keys, label, text, width) for keys, label, text in _MOVING]
    yield "Moving", moving
    yield "Copying", [_entry("ctrl+c", "copy", "What was selected with the mouse.", width)]
    yield (
        "The same on the command line",
        [
            _entry(keymap.shown(action), action.label, f"stonk-tui {action.cli}", width)
            for action in actions.ACTIONS
            if action.cli
        ],
    )
    others = [Topic(panel.noun, panel.explanation) for panel in _PANELS]
    yield "Panels", [_explained(other, width) for other in others if other != topic]


def _of_action(action: actions.Action, keymap: Keymap, width: int) -> _Item:
    return _entry(keymap.shown(action), action.label, action.help, width)


def _entry(key: str, label: str, text: str, width: int) -> _Item:
    """A key, what it is called, and what it does, the last wrapped under itself."""
    indent = _KEY_WIDTH + 2 + _LABEL_WIDTH
    first, *others = textwrap.wrap(text, max(20, width - indent)) or [""]
    head = Content.assemble((f"{key:>{_KEY_WIDTH}}", "bold"), f"  {label:<{_LABEL_WIDTH}}{first}")
    rest = (Content(" " * indent + other) for other in others)
    return _Item(f"{key} {label} {text}", (head, *rest))


def _explained(topic: Topic, width: int) -> _Item:
    first, *others = textwrap.wrap(f"{topic.noun}. {topic.explanation}", max(20, width))
    head = Content.styled(first, "$ink").stylize("bold", 0, len(topic.noun) + 1)
    rest = (Content.styled(other, "$ink") for other in others)
    return _Item(f"{topic.noun} {topic.explanation}", (head, *rest, Content("")))

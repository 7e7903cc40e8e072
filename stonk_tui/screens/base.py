"""What all full screens share: the footer, actions out of the table, and being shown."""

from typing import TYPE_CHECKING, ClassVar, cast

from textual import events, on
from textual.app import ComposeResult
from textual.reactive import Reactive
from textual.screen import Screen
from textual.widget import Widget

from stonk_tui import actions
from stonk_tui.keymap import display
from stonk_tui.widgets.keys import Entry, KeyBar

if TYPE_CHECKING:
    from stonk_tui.app import Cockpit


class CockpitScreen(Screen[None]):
    """A screen with a footer; ``show_model`` is called while it is the visible one."""

    HORIZONTAL_BREAKPOINTS = [  # noqa: RUF012  (declared without ClassVar in Textual's Screen)
        (0, "-narrow"),
        (100, "-wide"),
    ]
    VERTICAL_BREAKPOINTS = [(0, "-low"), (30, "-high")]  # noqa: RUF012

    focused: Reactive[Widget | None] = Reactive(None, repaint=False)
    """As in Textual's screen, but without painting all of it anew when the focus moves: what gains
    or loses the focus does so itself."""

    scope: ClassVar[actions.Scope] = "app"
    noun: ClassVar[str] = ""
    explanation: ClassVar[str] = ""
    """Three sentences for help, where what is in focus has none of its own."""

    @property
    def scopes(self) -> tuple[actions.Scope, ...]:
        """Where the actions that can be done here are from."""
        return ("app",) if self.scope == "app" else (self.scope, "app")

    @property
    def cockpit(self) -> "Cockpit":
        return cast("Cockpit", self.app)

    def compose_body(self) -> ComposeResult:
        """The widgets between the top and the footer."""
        raise NotImplementedError

    def compose(self) -> ComposeResult:
        yield from self.compose_body()
        yield KeyBar()

    def step_back(self) -> bool:
        """Undo what esc undoes before it leaves the screen; False when there is nothing."""
        return False

    def show_model(self) -> None:
        """Draw what is new; called at most four times a second, and when it becomes visible."""

    _is_composed = False

    def on_mount(self) -> None:
        # Called after the mount handler of the screen itself: all its widgets are there.
        self._is_composed = True
        self.refresh_screen()

    def refresh_screen(self) -> None:
        """Everything that can have changed, on the visible screen only."""
        # The footer comes last and goes with the others: without it the screen is being
        # built or, when the app ends, taken apart.
        if self._is_composed and self.query(KeyBar):
            self.show_model()
            self.show_keys()

    def show_keys(self) -> None:
        """Bring the footer up to date: after the first of two keys, what may follow it."""
        if self.cockpit.prefix:
            seconds = self.cockpit.keymap.seconds(self.scopes)
            entries = [self._entry(action, display(key)) for key, action in seconds.items()]
            self.query_one(KeyBar).show(entries, self.cockpit.prefix)
            return
        self.query_one(KeyBar).show(
            [
                self._entry(action, self.cockpit.keymap.shown(action))
                for action in actions.footer(self.scopes)
                if not (action.is_rare and action.why_not(self.cockpit))
            ]
        )

    def _entry(self, action: actions.Action, key: str) -> Entry:
        label = self.cockpit.label_of(action)
        return Entry(action.id, key, label, not action.why_not(self.cockpit))

    @on(events.ScreenResume)
    def _become_visible(self) -> None:
        self.cockpit.mind_size()
        self.refresh_screen()

    @on(KeyBar.Pressed)
    def _clicked(self, event: KeyBar.Pressed) -> None:
        self.cockpit.perform(event.action_id)

    def action_do(self, action_id: str) -> None:
        self.cockpit.perform(action_id)

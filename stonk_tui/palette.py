"""The table of actions in the command palette."""

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, cast

from textual.command import DiscoveryHit, Hit, Hits, Provider

from stonk_tui import actions
from stonk_tui.actions import Action
from stonk_tui.screens.base import CockpitScreen

if TYPE_CHECKING:
    from stonk_tui.app import Cockpit


class ActionProvider(Provider):
    """The actions of the screen in sight, and those that can be done anywhere."""

    async def discover(self) -> Hits:
        for action in self._offered():
            yield DiscoveryHit(self._title(action), self._run(action), help=action.help)

    async def search(self, query: str) -> Hits:
        matcher = self.matcher(query)
        for action in self._offered():
            score = matcher.match(f"{action.label} {action.help}")
            if score > 0:
                yield Hit(score, self._title(action), self._run(action), help=action.help)

    def _offered(self) -> list[Action]:
        scope = self.screen.scope if isinstance(self.screen, CockpitScreen) else "app"
        return [action for action in actions.ACTIONS if action.scope in ("app", scope)]

    def _title(self, action: Action) -> str:
        key = cast("Cockpit", self.app).keymap.shown(action)
        return f"{action.label}  ({key})" if key else action.label

    def _run(self, action: Action) -> Callable[[], None]:
        return partial(cast("Cockpit", self.app).perform, action.id)

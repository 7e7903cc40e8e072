"""Every action of the table can be reached by key, by name in the palette, and by mouse."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from textual.command import CommandList, CommandPalette
from textual.pilot import Pilot
from textual.widgets import Input

from stonk_tui import actions
from stonk_tui.actions import Action
from stonk_tui.app import Cockpit
from stonk_tui.screens.base import CockpitScreen
from stonk_tui.widgets.keys import KeyBar
from tests import recorded
from tests.cockpit.helpers import cockpit, opened, settle, text_of, until

WAYS: dict[str, tuple[str, ...]] = {
    "train": (),
    "runs": ("g", "r"),
    "compare": ("g", "r", "space", "down", "space", "v"),
    "rollouts": ("g", "o"),
    "rollout": ("enter",),
    "log": ("g", "l"),
    "probe": ("g", "b"),
    "evaluate": ("g", "e"),
}
"""Keys from the train screen to the screen of each scope."""


@asynccontextmanager
async def at(scope: str) -> AsyncIterator[tuple[Cockpit, Pilot[None], list[str]]]:
    """A cockpit at the screen of ``scope``, and the ids of what it is asked to do from then on."""
    recorded.record(3, name="other", state="finished")
    app = cockpit(recorded.record(3).run)
    async with opened(app, (200, 60)) as pilot:
        for key in WAYS[scope]:
            await pilot.press(key)
            await settle(pilot)
        await until(pilot, lambda: getattr(app.screen, "scope", "") == scope)
        asked: list[str] = []
        perform = app.perform

        def note(action_id: str) -> None:
            asked.append(action_id)
            if action_id == "commands" or actions.BY_ID[action_id].handler == "prefix":
                perform(action_id)

        app.perform = note  # type: ignore[method-assign]
        yield app, pilot, asked


def _own(scope: str) -> list[Action]:
    """The actions of a screen; those that can be done anywhere are tried from the train screen."""
    scopes = ("train", "app") if scope == "train" else (scope,)
    return [action for action in actions.ACTIONS if action.scope in scopes]


@pytest.mark.parametrize("scope", WAYS)
async def test_every_key_does_its_action(scope: str) -> None:
    async with at(scope) as (app, pilot, asked):
        for action in _own(scope):
            for keys in filter(None, action.key.split(",")):
                if keys in ("enter", "home", "end"):
                    # A table takes them: what then happens is tested with each screen.
                    continue
                if len(keys) == 1 and isinstance(app.focused, Input):
                    # It is typed; the action has another key.
                    assert len(action.key.split(",")) > 1
                    continue
                asked.clear()
                await pilot.press(*keys.split())
                if action.id == "commands":
                    await until(pilot, lambda: isinstance(app.screen, CommandPalette))
                    await pilot.press("escape")
                    await settle(pilot)
                    continue
                await until(pilot, lambda action=action: action.id in asked)  # type: ignore[misc]
                await _forget_prefix(app, pilot)


@pytest.mark.parametrize("scope", WAYS)
async def test_every_action_can_be_clicked_in_the_palette(scope: str) -> None:
    async with at(scope) as (app, pilot, asked):
        for action in _own(scope):
            if action.id == "commands":
                continue
            await _open_palette(app, pilot)
            commands = app.screen.query_one(CommandList)
            title = f"{action.label}  ({app.keymap.shown(action)})"
            title = title if app.keymap.shown(action) else action.label
            index = next(
                number
                for number in range(commands.option_count)
                if commands.get_option_at_index(number).id
                and str(commands.get_option_at_index(number).prompt).split("\n")[0] == title
            )
            commands.highlighted = index
            await settle(pilot)
            asked.clear()
            row = next(
                number for number, line in enumerate(text_of(app).split("\n")) if title in line
            )
            await pilot.click(offset=(text_of(app).split("\n")[row].index(title), row))
            await until(pilot, lambda action=action: asked == [action.id])  # type: ignore[misc]
            await until(pilot, lambda: isinstance(app.screen, CockpitScreen))
            await _forget_prefix(app, pilot)


async def _forget_prefix(app: Cockpit, pilot: Pilot[None]) -> None:
    """The first of two keys waits for its second one."""
    if app.prefix:
        await pilot.press("escape")
        await settle(pilot)


async def _open_palette(app: Cockpit, pilot: Pilot[None]) -> None:
    """With the mouse: its place in the footer is clicked."""
    row = text_of(app).split("\n")[-1]
    await pilot.click(KeyBar, offset=(row.index("ctrl+p"), 0))
    await until(pilot, lambda: isinstance(app.screen, CommandPalette))
    await until(pilot, lambda: app.screen.query_one(CommandList).option_count > 0)
    await settle(pilot)

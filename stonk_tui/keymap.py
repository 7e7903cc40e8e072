"""Which keys do what: the table of actions under a person's own choices.

A choice is written as in the table: keys separated by commas, each the name of a key
(``p``, ``S``, ``ctrl+e``, ``f5``, ``question_mark`` or ``?``) or two of them, of which the first
is ``g`` (``g r``). Nothing at all takes an action's keys away; the palette still has it.
"""

import difflib
from collections.abc import Iterable, Mapping, Sequence

from textual.keys import (
    KEY_DISPLAY_ALIASES,
    KEY_NAME_REPLACEMENTS,
    KEY_TO_UNICODE_NAME,
    Keys,
    key_to_character,
)

from stonk_tui import actions
from stonk_tui.actions import PREFIX, UNBOUND, Action

_TAKEN = {
    "ctrl+c": "copies what is selected",
    "ctrl+p": "opens the commands",
    "ctrl+q": "always leaves",
    "h": "moves left",
    "j": "moves down",
    "k": "moves up",
    "l": "moves right",
    **{key: "moves" for key in ("up", "down", "left", "right", "pageup", "pagedown", "home")},
}
"""Keys that widgets, or the app before all else, listen to."""

_MODIFIERS = ("ctrl", "alt", "shift", "super", "meta")
_NAMES = {key.value.rpartition("+")[2] for key in Keys} | set(KEY_TO_UNICODE_NAME)


class Keymap:
    """The keys of every action."""

    def __init__(
        self, chosen: Mapping[str, str] | None = None, *, ascii_only: bool = False
    ) -> None:
        """Lay what ``checked`` let through over the table; ``ascii_only`` names keys in ASCII."""
        self._chosen = {name: split(keys) for name, keys in (chosen or {}).items()}
        self._ascii_only = ascii_only

    def keys(self, action: Action) -> tuple[str, ...]:
        """All keys of an action, two-key ones with a blank between."""
        return self._chosen.get(action.id, split(action.key))

    def shown(self, action: Action) -> str:
        """The key as it is printed; empty where an action has none."""
        is_plain = not self._ascii_only or action.shown_key.isascii()
        if action.id not in self._chosen and is_plain:
            return action.shown_key
        keys = self.keys(action)
        return " ".join(display(key, self._ascii_only) for key in keys[0].split()) if keys else ""

    def of(self, action_id: str) -> str:
        """The printed key of the action called ``action_id``."""
        return self.shown(actions.BY_ID[action_id])

    def seconds(self, scopes: Iterable[actions.Scope]) -> dict[str, Action]:
        """What may follow the prefix on a screen of these scopes: key to action."""
        return {
            key.removeprefix(f"{PREFIX} "): action
            for scope in scopes
            for action in actions.in_scope(scope)
            for key in self.keys(action)
            if key.startswith(f"{PREFIX} ")
        }

    def bindings(self) -> dict[str, str]:
        """Chosen keys as Textual's own keymap: the id of a binding to its single keys."""
        return {
            name: ",".join(key for key in keys if " " not in key) or UNBOUND
            for name, keys in self._chosen.items()
        }


DEFAULT = Keymap()


def split(keys: str) -> tuple[str, ...]:
    """The single keys and key pairs of a list, by their full names."""
    pairs = (" ".join(_named(key) for key in item.split()) for item in keys.split(","))
    return tuple(pair for pair in pairs if pair)


def display(key: str, ascii_only: bool = False) -> str:
    """A key as it is printed, such as ``esc``, ``?`` or ``ctrl+e``."""
    modifiers, plus, base = key.rpartition("+")
    alias = KEY_DISPLAY_ALIASES.get(base, "")
    character = _character(base) or ""
    if alias and (alias.isascii() or not ascii_only):
        base = alias
    elif character.isprintable() and character.strip():
        base = character
    return f"{modifiers}{plus}{base}"


def checked(chosen: Mapping[str, str]) -> tuple[dict[str, str], dict[str, str]]:
    """(choices that can be used, what is wrong with the others by action).

    Two actions that can be done on one screen never share a key: a choice that would make
    them is refused, and the table's own key holds.
    """
    refused = {name: problem for name, keys in chosen.items() if (problem := _problem(name, keys))}
    kept = {name: keys for name, keys in chosen.items() if name not in refused}
    # Where a choice falls, the table's key comes back, which another choice may have taken.
    while clashes := {
        name: problem for name in kept if (problem := _clash(name, Keymap(kept), kept))
    }:
        refused |= clashes
        kept = {name: keys for name, keys in kept.items() if name not in clashes}
    return kept, refused


def _problem(name: str, keys: str) -> str:
    """What is wrong with a choice by itself."""
    if name not in actions.BY_ID:
        near = difflib.get_close_matches(name, actions.BY_ID, 1)
        hint = f"; did you mean {near[0]}?" if near else "; `stonk-tui settings show` lists all"
        return f"there is no action {name}{hint}"
    if actions.BY_ID[name].handler == "prefix":
        return f"{PREFIX} stays the first of two keys"
    for item in split(keys):
        pressed = item.split()
        if len(pressed) > 2 or (len(pressed) == 2 and pressed[0] != PREFIX):
            return f"{item}: at most two keys, of which the first is {PREFIX}"
        if unknown := [key for key in pressed if not _is_key(key)]:
            return f"{unknown[0]} is no key that a terminal knows"
        if item in _TAKEN and item not in split(actions.BY_ID[name].key):
            return f"{display(item)} {_TAKEN[item]}"
    return ""


def _clash(name: str, keymap: Keymap, chosen: Mapping[str, str]) -> str:
    """Which other action of the same screen has a key of the choice ``name``."""
    action = actions.BY_ID[name]
    for other in _on_one_screen(action):
        shared = set(keymap.keys(action)) & set(keymap.keys(other))
        if shared and other.id != name:
            also = ", which was chosen too" if other.id in chosen else ""
            pressed = " ".join(display(key) for key in min(shared).split())
            return f"{pressed} is the key of {other.id} already{also}"
    return ""


def _on_one_screen(action: Action) -> Sequence[Action]:
    if action.scope == "app":
        return actions.ACTIONS
    return [*actions.in_scope(action.scope), *actions.in_scope("app")]


def _named(key: str) -> str:
    """``?`` as ``question_mark``; names as they are."""
    from textual.keys import _character_to_key

    return _character_to_key(key) if len(key) == 1 else key


def _character(key: str) -> str | None:
    """What a key types, also where Textual has a shorter name for it than Unicode."""
    unicode_names = {short: long for long, short in KEY_NAME_REPLACEMENTS.items()}
    return key_to_character(unicode_names.get(key, key))


def _is_key(key: str) -> bool:
    *modifiers, base = key.split("+")
    if any(modifier not in _MODIFIERS for modifier in modifiers):
        return False
    return len(base) == 1 or base in _NAMES or _character(base) is not None

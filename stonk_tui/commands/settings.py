"""The settings of the cockpit on the command line: where, what, and whether they are right."""

import typer

from stonk_tui import actions, settings
from stonk_tui.commands.output import note, say
from stonk_tui.keymap import Keymap


def print_path() -> None:
    """Where the file is, also where there is none yet."""
    say(str(settings.path()))


def show() -> None:
    """What holds, as a settings file with every action in it."""
    loaded = settings.load(settings.path())
    for problem in loaded.problems:
        note(problem)
    for name, field in settings.Settings.model_fields.items():
        if name != "keymap":
            value = getattr(loaded.settings, name)
            written = str(value).lower() if isinstance(value, bool) else f'"{value}"'
            say(f"# {field.description}\n{name} = {written}\n")
    keys = Keymap(loaded.settings.keymap)
    say("[keymap]")
    for action in actions.ACTIONS:
        if action.handler != "prefix":
            say(f'{action.id} = "{", ".join(keys.keys(action))}"  # {action.help}')


def check() -> None:
    """Say what is wrong.

    Raises:
        typer.Exit: with code 2, where something is.
    """
    loaded = settings.load(settings.path())
    for problem in loaded.problems:
        note(problem)
    if loaded.problems:
        raise typer.Exit(2)
    exists = settings.path().exists()
    say(f"{settings.path()}: " + ("nothing wrong" if exists else "no file, so the defaults hold"))

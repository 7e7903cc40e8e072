"""The short form of the rows about hostile text, and that no place for it is forgotten."""

import ast
import inspect
import pkgutil
from importlib import import_module
from pathlib import Path

from textual.content import Content
from typer.main import get_command

from bench.fault_rows import text_sinks
from bench.fault_rows.hostile_text import ROWS
from bench.fault_rows.screen_tour import every_screen
from stonk_tui import widgets
from stonk_tui.cli import app
from stonk_tui.commands import output

SINKS, SCREENS = ROWS


def test_no_sink_lets_hostile_text_through(tmp_path: Path) -> None:
    for number in range(0, SINKS.short, SINKS.batch):
        assert SINKS.trial(number, tmp_path).problem == ""


def test_no_screen_lets_hostile_text_through_and_none_is_left_out(tmp_path: Path) -> None:
    for number in range(SCREENS.short):
        outcome = SCREENS.trial(number, tmp_path)
        assert outcome.problem == ""
        assert outcome.figures["screens"] == len(every_screen())


def test_every_command_is_a_sink() -> None:
    def names(command: object, before: str = "") -> set[str]:
        inner = getattr(command, "commands", None)
        if inner is None:
            return {before.strip()}
        return {name for key, one in inner.items() for name in names(one, f"{before} {key}")}

    assert names(get_command(app)) == set(text_sinks.COMMANDS)


def test_everything_that_makes_content_for_a_widget_is_a_sink() -> None:
    found = set()
    for module in pkgutil.iter_modules(widgets.__path__):
        members = vars(import_module(f"{widgets.__name__}.{module.name}"))
        for name, member in members.items():
            is_own = inspect.isfunction(member) and member.__module__.endswith(f".{module.name}")
            if not is_own or name.startswith("_"):
                continue
            made = inspect.signature(member).return_annotation
            if made in (Content, list[Content]):
                found.add(f"{module.name}.{name}")
    assert found == set(text_sinks._CONTENTS) | text_sinks.BY_SCREENS


def test_everything_that_prints_is_a_sink() -> None:
    tree = ast.parse(Path(output.__file__).read_text(encoding="utf-8"))
    writing = {
        node.name
        for node in tree.body
        if isinstance(node, ast.FunctionDef) and "sys.std" in ast.unparse(node)
    }
    assert writing <= set(text_sinks._PRINTING)

"""A person's own settings of the cockpit: one TOML file, `settings.toml` where runs live.

A broken file never stops the cockpit: what is wrong is said with its line, and the default
holds. What is changed in the cockpit is written back into the one line that says it, so that
comments and order stay.
"""

import contextlib
import difflib
import os
import re
import tempfile
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from engine.errors import UserError
from engine.runs import home
from engine.text import one_line
from stonk_tui import keymap

ThemeName = Literal[
    "auto", "saiyan", "light", "high-contrast", "colour-blind", "monochrome", "ansi"
]


class Settings(BaseModel):
    """How the cockpit looks and listens."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, strict=True, use_attribute_docstrings=True
    )

    theme: ThemeName = "auto"
    """Colours; `auto` is `saiyan`, or `ansi` where the terminal has 16 colours only."""
    motion: Literal["auto", "full", "none"] = "auto"
    """Whether things move on screen; `auto` is `full`, but `none` over SSH."""
    ascii: Literal["auto", "on", "off"] = "auto"
    """Draw with ASCII alone; `auto` where locale or terminal know no Unicode."""
    bell: bool = True
    """Ring the terminal's bell when an alarm goes on, all lights do, or the run ends."""
    notifications: bool = True
    """Ask the terminal for a desktop notification at the same moments (OSC 9)."""
    keymap: dict[str, str] = {}
    """Keys by action: comma-separated, two in a row with a blank between."""


@dataclass(frozen=True)
class Loaded:
    """What was read, and what was wrong with it."""

    settings: Settings
    problems: tuple[str, ...] = ()
    """One line each: ``file:line:field: what``."""


def path() -> Path:
    """Where the settings are; the file need not exist."""
    return home.home() / "settings.toml"


def load(file: Path) -> Loaded:
    """Read ``file``; a field that is wrong keeps its default, and no file is no problem."""
    try:
        text = file.read_text(encoding="utf-8")
    except FileNotFoundError:
        return Loaded(Settings())
    except (OSError, UnicodeDecodeError) as error:
        return Loaded(Settings(), (one_line(f"{file}: cannot be read: {error}"),))
    try:
        values = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        return Loaded(Settings(), (_syntax_problem(file, error),))
    except (RecursionError, ValueError) as error:
        return Loaded(Settings(), (one_line(f"{file}: {_too_much(error)}"),))
    problems: list[str] = []

    def blame(field: tuple[str, ...], what: str) -> None:
        number = line_of(text, field)
        place = f"{file}:{number}:" if number else f"{file}:"
        problems.append(one_line(f"{place}{'.'.join(field)}: {what}", 300))

    values = _without_wrong(values, blame)
    chosen, refused = keymap.checked(values.get("keymap", {}))
    for name, what in refused.items():
        blame(("keymap", name), what)
    return Loaded(Settings.model_validate(values | {"keymap": chosen}), tuple(problems))


def change(file: Path, name: str, value: str) -> None:
    """Write ``name = "value"`` into ``file``, every other line left as it is.

    Raises:
        UserError: the file is no TOML, or is written in a way that cannot be changed line by
            line, or cannot be written.
    """
    try:
        # Settings are often linked from elsewhere: the link stays.
        file = file.resolve()
        text = file.read_text(encoding="utf-8") if file.exists() else ""
        expected = tomllib.loads(text) | {name: value}
        changed = _with_line(text, name, f'{name} = "{value}"')
        if tomllib.loads(changed) != expected:
            raise UserError(f"{name} cannot be changed in it", where=str(file), fix="edit it")
        _replace(file, changed)
    except tomllib.TOMLDecodeError as error:
        raise UserError(_syntax_problem(file, error), fix="mend it first") from error
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"settings cannot be kept: {error}", where=str(file)) from error
    except (RecursionError, ValueError) as error:
        raise UserError(_too_much(error), where=str(file), fix="mend it first") from error


def line_of(text: str, field: tuple[str, ...]) -> int | None:
    """The line that names ``field``, from 1; else that of the table it is in."""
    table: tuple[str, ...] = ()
    found = None
    for number, line in enumerate(text.split("\n"), 1):
        if header := re.match(r"\s*\[\s*([^\[\]]+?)\s*\]", line):
            table = _keys(header.group(1))
            if table == field[: len(table)]:
                found = found or number
        elif named := re.match(r"""\s*((?:[\w-]+|"[^"]*"|'[^']*'|\s*\.\s*)+?)\s*=""", line):
            full = table + _keys(named.group(1))
            if full == field:
                return number
            if full == field[: len(full)]:
                found = found or number
    return found


def _keys(dotted: str) -> tuple[str, ...]:
    return tuple(part.strip().strip("\"'") for part in dotted.split("."))


def _syntax_problem(file: Path, error: tomllib.TOMLDecodeError) -> str:
    """``file:line: what``, the line taken out of the parser's words."""
    words = str(error)
    place = re.search(r" \(at line (\d+), column \d+\)$", words)
    if place is None:
        return one_line(f"{file}: {words}")
    return one_line(f"{file}:{place.group(1)}: {words[: place.start()]}")


def _too_much(error: RecursionError | ValueError) -> str:
    """What is wrong with a file that is TOML, and that Python still cannot read."""
    if isinstance(error, RecursionError):
        return "too many brackets inside one another"
    return "a number has too many digits"


def _without_wrong(values: dict[str, Any], blame: Any) -> dict[str, Any]:
    """The values that are right; each wrong one is blamed."""
    try:
        Settings.model_validate(values)
    except ValidationError as error:
        kept = {name: dict(v) if isinstance(v, dict) else v for name, v in values.items()}
        for item in error.errors():
            field = tuple(str(part) for part in item["loc"])
            blame(field, _in_words(item["type"], field[-1], item["msg"]))
            if field[0] == "keymap" and len(field) > 1:
                kept["keymap"].pop(field[1], None)
            else:
                kept.pop(field[0], None)
        return kept
    return values


def _in_words(kind: str, name: str, message: str) -> str:
    if kind != "extra_forbidden":
        return message[:1].lower() + message[1:]
    near = difflib.get_close_matches(name, Settings.model_fields, 1)
    return "there is no such setting" + (f"; did you mean {near[0]}?" if near else "")


def _with_line(text: str, name: str, line: str) -> str:
    """``text`` with ``line`` for the setting ``name``, which stands before any table."""
    lines = (text.removesuffix("\n") + "\n" if text else "").split("\n")
    end = next((i for i, item in enumerate(lines) if item.lstrip().startswith("[")), len(lines))
    for index in range(end):
        pattern = rf"""\s*{name}\s*=\s*(?:"[^"]*"|'[^']*'|[^\s#"']+)(\s*#.*)?\s*"""
        if written := re.fullmatch(pattern, lines[index]):
            lines[index] = line + (written.group(1) or "")
            return "\n".join(lines)
    # After what stands before the first table, but before the remarks right above that one.
    is_last = end == len(lines)
    while end and (not lines[end - 1].strip() or (not is_last and lines[end - 1].startswith("#"))):
        end -= 1
    lines.insert(end, line)
    return "\n".join(lines)


def _replace(file: Path, text: str) -> None:
    """Write ``text`` so that at any moment either the old or the new file is there."""
    file.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=file.parent, prefix=f".{file.name}-")
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as output:
            output.write(text)
            output.flush()
            os.fsync(output.fileno())
        if file.exists():
            os.chmod(temporary, file.stat().st_mode & 0o777)
        os.replace(temporary, file)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temporary)
        raise

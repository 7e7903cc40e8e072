"""``report``: the report of an evaluation in the terminal."""

import json
import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from engine.errors import UserError
from engine.runs import directory
from engine.text import one_line
from stonk_tui.commands.output import say_json

FILE = "report.json"
EVALUATIONS = "evaluation"
"""The folder of a run that holds its evaluations."""
VERSION = 1

_COLOURS = {
    "$good": "green",
    "$bad": "red",
    "$warn": "yellow",
    "$gold": "yellow",
    "$up": "cyan",
    "$down": "bright_red",
    "$magnitude": "magenta",
    "$confidence": "yellow",
    "$format": "blue",
    "$coherence": "green",
    "$quiet": "dim",
    "$faint": "dim",
    "$ink": "default",
}
"""What a style of the cockpit is in a terminal's own colours."""


def print_report(name: str | None, *, as_json: bool) -> None:
    """Show a report: of the folder called ``name``, or the newest of the run of that name.

    Raises:
        UserError: there is no such run or folder, or no report in it.
    """
    report = read(_folder(name))
    if as_json:
        say_json(report)
    else:
        show(report)


def read(folder: Path) -> dict[str, Any]:
    """What ``report.json`` in ``folder`` holds.

    Raises:
        UserError: it is not there, or not a report of this version.
    """
    path = folder / FILE
    where = one_line(str(path))
    try:
        report = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(
            "there is no report yet", where=where, fix="let the evaluation come to its end"
        ) from None
    except (OSError, ValueError) as error:
        raise UserError("the report cannot be read", where=where) from error
    if not isinstance(report, dict) or report.get("version") != VERSION:
        raise UserError("this is no report of this version", where=where, fix="evaluate once more")
    return report


def show(report: Mapping[str, Any]) -> None:
    """Print a report as wide as the terminal, in colours where it has some."""
    from rich.console import Console
    from rich.text import Text

    from stonk_tui import evaluation_view

    content = evaluation_view.render(report, shutil.get_terminal_size().columns)
    text = Text(content.plain)
    for span in content.spans:
        text.stylize(_colours(str(span.style)), span.start, span.end)
    Console(soft_wrap=True, highlight=False).print(text)


def _colours(style: str) -> str:
    return re.sub(r"\$[\w-]+", lambda name: _COLOURS.get(name.group(), "default"), style)


def _folder(name: str | None) -> Path:
    """The folder of an evaluation by its path, or the newest with a report of a run."""
    if name is not None and Path(name).is_dir():
        return Path(name)
    run = directory.find(name)
    reports = sorted((run.path / EVALUATIONS).glob(f"*/{FILE}"))
    if not reports:
        raise UserError(
            "this run has no report of an evaluation",
            where=run.id,
            fix="make one with `stonk-tui eval`",
        )
    # The ids of evaluations begin with their time.
    return reports[-1].parent

"""The program as a person types it, in this process: starting one takes longer than it runs."""

import contextlib
import io
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from typer.main import get_command

from stonk_tui.cli import app


@dataclass(frozen=True)
class Done:
    """What came of a command."""

    code: int
    out: str
    err: str


def typed(arguments: Sequence[str], environment: Mapping[str, str]) -> Done:
    """``stonk-tui`` with ``arguments``; an exception that it lets through is one here."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err), _set(environment):
        try:
            _command().main(args=list(arguments), prog_name="stonk-tui")
            code = 0
        except SystemExit as ended:
            code = ended.code if isinstance(ended.code, int) else 1
    return Done(code, out.getvalue(), err.getvalue())


@cache
def _command() -> Any:
    return get_command(app)


def at_home(folder: Path) -> contextlib.AbstractContextManager[None]:
    """Inside the block, runs are kept in ``folder``."""
    return _set({"STONK_HOME": str(folder)})


@contextlib.contextmanager
def _set(environment: Mapping[str, str]) -> Iterator[None]:
    kept = {name: os.environ.get(name) for name in environment}
    os.environ.update(environment)
    try:
        yield
    finally:
        for name, value in kept.items():
            os.environ.pop(name, None) if value is None else os.environ.update({name: value})

"""Reward components out of a user's own Python file or package.

A component is a function that gets what was read in the completion, the example, and the text of
its prompt, and returns a value and one line that says why::

    def brevity(prediction: Prediction, example: Example, prompt_text: str) -> tuple[float, str]:
        words = len(prediction.reasoning.split())
        return 1 / (1 + words / 40), f"{words} words"

It is named by ``FILE.py:FUNCTION``, or by an entry point of the group ``stonk_tui.components``; the
function's or entry point's name is the component's. It is code, so it runs only after a person
has allowed exactly that content (a file by its SHA-256, a package by its version) on the
command line, see ``allow``. A configuration alone can never make it run.
"""

import hashlib
import json
import math
import re
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.abc import SourceLoader
from importlib.metadata import EntryPoint, entry_points
from importlib.util import module_from_spec, spec_from_loader
from numbers import Real
from pathlib import Path
from types import ModuleType

from engine.errors import RunFailedError, UserError
from engine.market.example import Example
from engine.rewards.components import COMPONENTS, Score
from engine.rewards.parse import Prediction
from engine.runs.durable import write_atomically
from engine.runs.home import home
from engine.text import one_line

GROUP = "stonk_tui.components"
"""Entry points of this group name components of installed packages."""

_WHERE = "reward.components"
_MEND = "mend it, and allow it anew with --allow-code"
_RESERVED = ("total", "std")
"""Metrics beside those of the components."""
_IN_FILE = re.compile(
    r"(?P<path>.+\.py):(?P<name>[A-Za-z_]\w*)(?:@(?P<stamp>sha256:[0-9a-f]{64}))?", re.ASCII
)
_IN_PACKAGE = re.compile(r"(?P<name>[A-Za-z_]\w*)(?:@(?P<stamp>[\w.-]+==\S+))?", re.ASCII)

Function = Callable[[Prediction, Example, str], tuple[float, str]]


@dataclass(frozen=True)
class CustomComponent:
    """A function of the user's as a component of the reward."""

    name: str
    function: Function

    def score(self, prediction: Prediction, example: Example, prompt_text: str) -> Score:
        """Call the function and check what it returns.

        Raises:
            RunFailedError: it raised, or did not return a finite number and a text.
        """
        try:
            result: object = self.function(prediction, example, prompt_text)
        except Exception as error:
            raise RunFailedError(
                f"component {self.name} failed on {example.key}: {type(error).__name__}:"
                f" {one_line(str(error))}; {_MEND}"
            ) from error
        match result:
            case (value, str() as reason) if isinstance(value, Real) and _is_finite(value):
                return Score(float(value), one_line(reason))
        raise RunFailedError(
            f"component {self.name} returned {one_line(repr(result), 80)} on {example.key},"
            f" not a finite number and a text; {_MEND}"
        )


@dataclass(frozen=True)
class _Place:
    """Where a component's code is, as it is now."""

    name: str
    spec: str
    """How the configuration of a run names it: absolute, with its content's stamp."""
    stamp: str
    """``sha256:…`` of a file, ``package==version`` of an installed one."""
    path: Path | None
    source: bytes
    """Content of the file; empty for a package."""
    entry: EntryPoint | None


def names(specs: Sequence[str]) -> list[str]:
    """The names of the components that ``specs`` ask for, in order.

    Raises:
        UserError: a spec that cannot be read, or a name that is taken.
    """
    found: list[str] = []
    for spec in specs:
        name = _parsed(spec)["name"]
        if name in (*COMPONENTS, *_RESERVED, *found):
            raise UserError(
                f"a component cannot be called {name!r}, that name is taken",
                where=_WHERE,
                fix="rename it",
            )
        found.append(name)
    return found


def allow(specs: Sequence[str]) -> tuple[str, ...]:
    """Remember that a person allows the code behind ``specs`` as it is now.

    Returns:
        The specs as a run keeps them: absolute, with the stamp of what was allowed.

    Raises:
        UserError: there is no such file or entry point, or it is not what its stamp says.
    """
    places = [_found(spec) for spec in specs]
    known = _allowed()
    new = [place.stamp for place in places if place.stamp not in known]
    if new:
        home().mkdir(parents=True, exist_ok=True)
        write_atomically(_record(), json.dumps([*known, *dict.fromkeys(new)], indent=2) + "\n")
    return tuple(place.spec for place in places)


def load(specs: Sequence[str]) -> tuple[CustomComponent, ...]:
    """Run the code behind ``specs`` and take the functions out of it.

    Raises:
        UserError: nobody has allowed it, it has changed, or it cannot be loaded.
    """
    if not specs:
        return ()
    loaded = []
    for spec, name in zip(specs, names(specs), strict=True):
        refuse_unless_allowed(spec)
        loaded.append(CustomComponent(name, _function(_found(spec))))
    return tuple(loaded)


def refuse_unless_allowed(spec: str) -> None:
    """Refuse what does not say which content of it a person has allowed.

    Raises:
        UserError: always for code that a configuration names by its place alone.
    """
    if _parsed(spec)["stamp"] not in _allowed():
        raise UserError(
            f"{one_line(spec.partition('@')[0])} is code that runs as you",
            where=_WHERE,
            fix="read it, then say --allow-code",
        )


def _is_finite(value: Real) -> bool:
    try:
        return math.isfinite(value)
    except OverflowError:  # a whole number that no float can hold
        return False


def _record() -> Path:
    return home() / "allowed_code.json"


def _allowed() -> list[str]:
    """Stamps of the code that a person has allowed on this machine."""
    try:
        return [str(stamp) for stamp in json.loads(_record().read_text(encoding="utf-8"))]
    except FileNotFoundError:
        return []
    except (OSError, ValueError, TypeError) as error:
        raise UserError(
            "cannot read which code is allowed", where=one_line(str(_record())), fix="remove it"
        ) from error


def _parsed(spec: str) -> re.Match[str]:
    parsed = _IN_FILE.fullmatch(spec) or _IN_PACKAGE.fullmatch(spec)
    if not parsed:
        raise UserError(
            f"{one_line(spec)!r} names no component",
            where=_WHERE,
            fix="write FILE.py:FUNCTION or the name of an entry point",
        )
    return parsed


def _found(spec: str) -> _Place:
    parsed = _parsed(spec)
    place = _in_file(parsed) if parsed.re is _IN_FILE else _in_package(parsed)
    if parsed["stamp"] not in (None, place.stamp):
        raise UserError(
            f"{one_line(spec.partition('@')[0])} is not what it was when the run was created",
            where=_WHERE,
            fix="put the old one back, or start a new run",
        )
    return place


def _in_file(parsed: re.Match[str]) -> _Place:
    path = Path(parsed["path"])
    try:
        # ~name of nobody's raises; it is left to be a file that is not there.
        path = path.expanduser() if path.parts[:1] == ("~",) else path
        source = path.read_bytes()
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else "no name of a file"
        raise UserError(f"cannot be read: {reason}", where=one_line(str(path))) from error
    stamp = f"sha256:{hashlib.sha256(source).hexdigest()}"
    spec = f"{path.absolute()}:{parsed['name']}@{stamp}"
    return _Place(parsed["name"], spec, stamp, path.absolute(), source, None)


def _in_package(parsed: re.Match[str]) -> _Place:
    name = parsed["name"]
    entries = [entry for entry in entry_points(group=GROUP, name=name) if entry.dist]
    if len(entries) != 1:
        found = "several installed packages have" if entries else "no installed package has"
        raise UserError(
            f"{found} an entry point called {name!r} in the group {GROUP}",
            where=_WHERE,
            fix="name a file: FILE.py:FUNCTION",
        )
    (entry,) = entries
    assert entry.dist is not None
    stamp = f"{entry.dist.name}=={entry.dist.version}"
    return _Place(name, f"{name}@{stamp}", stamp, None, b"", entry)


class _Read(SourceLoader):
    """Runs the very bytes whose hash was allowed, whatever the file holds by now."""

    def __init__(self, path: Path, source: bytes) -> None:
        self._path, self._source = path, source

    def get_filename(self, fullname: str) -> str:
        return str(self._path)

    def get_data(self, path: str | bytes) -> bytes:
        return self._source


def _function(place: _Place) -> Function:
    where = one_line(place.spec.partition("@")[0])
    try:
        if place.entry is not None:
            function = place.entry.load()
        else:
            function = getattr(_module(place), place.name, None)
    except Exception as error:
        raise UserError(
            f"cannot be loaded: {type(error).__name__}: {one_line(str(error))}", where=where
        ) from error
    if not callable(function):
        raise UserError(f"has no function called {place.name}", where=where)
    checked: Function = function
    return checked


def _module(place: _Place) -> ModuleType:
    assert place.path is not None
    name = f"stonk_component_{place.stamp.removeprefix('sha256:')[:16]}"
    spec = spec_from_loader(name, _Read(place.path, place.source), origin=str(place.path))
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    sys.modules[name] = module  # dataclasses look their module up there
    spec.loader.exec_module(module)
    return module

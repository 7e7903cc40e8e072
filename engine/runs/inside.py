"""Names that come from a file, on their way to being paths: they stay where they belong."""

import re
from pathlib import Path

from engine.errors import UserError
from engine.text import one_line

_PART = re.compile(r"(?!\.{1,2}$)[A-Za-z0-9._-]{1,64}")


def inside(folder: Path, name: object) -> Path:
    """The file that something in ``folder``, a manifest for one, calls ``name``.

    Raises:
        UserError: ``name`` leads out of the folder, or over a link; nothing was opened.
    """
    parts = str(name).split("/")
    if all(map(_PART.fullmatch, parts)):
        path = folder.joinpath(*parts)
        steps = [path, *path.parents][: len(parts)]
        is_linked = any(step.is_symlink() for step in steps)
        if not is_linked and path.resolve().is_relative_to(folder.resolve()):
            return path
    raise UserError(f"{one_line(str(name), 60)!r} leads out of it", where=one_line(str(folder)))

"""What the terminal can show, as far as the environment tells."""

from collections.abc import Mapping

_FEW_GLYPHS = ("linux", "vt", "ansi", "dumb", "cons25")
"""Beginnings of ``TERM`` whose fonts lack what the cockpit draws with."""


def lacks_unicode(environment: Mapping[str, str], encoding: str | None = None) -> bool:
    """Whether only ASCII is sure to be shown.

    A locale that says nothing proves nothing: in a container it is often not set at all while
    the terminal at the other end of the line is a modern one.

    Args:
        environment: the variables of the process.
        encoding: of the stream that the cockpit draws on.
    """
    if environment.get("TERM", "").startswith(_FEW_GLYPHS):
        return True
    names = ("LC_ALL", "LC_CTYPE", "LANG")
    locale = next((value for name in names if (value := environment.get(name))), "")
    if locale and "utf" not in locale.lower():
        return True
    return bool(encoding) and "utf" not in str(encoding).lower()


def lacks_clipboard(environment: Mapping[str, str]) -> bool:
    """Whether the terminal is known to drop what is sent to its clipboard (OSC 52)."""
    return environment.get("TERM", "").startswith(_FEW_GLYPHS)

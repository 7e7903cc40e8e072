"""Make text that a model, a data set or a file system wrote safe to show.

Raw bytes stay in the store; everything shown to a person passes through
``sanitize`` once, at the edge where it is read. Control characters become
visible symbols, so that nothing is hidden and nothing is executed: an escape
sequence could otherwise write the clipboard, forge a screen or rename a window
(CWE-150).
"""

import re

_VISIBLE = {code: chr(0x2400 + code) for code in range(0x20) if chr(code) not in "\n\t"}
_VISIBLE[0x7F] = "\u2421"
_NAMED = [*range(0x80, 0xA0), 0x061C, 0x200E, 0x200F, 0x2028, 0x2029]
_NAMED += [*range(0x202A, 0x202F), *range(0x2066, 0x206A)]
_VISIBLE |= {code: f"<U+{code:04X}>" for code in _NAMED}
_SURROGATE = re.compile("[\ud800-\udfff]")


def escape_surrogates(text: str) -> str:
    """Spell out lone surrogates, which neither SQLite nor a terminal can encode."""
    return _SURROGATE.sub(lambda match: f"<U+{ord(match.group()):04X}>", text)


def sanitize(text: str) -> str:
    """Make control, bidirectional and unencodable characters visible.

    C0 (except newline and tab) and DEL become their Unicode control pictures;
    C1, bidirectional marks, line and paragraph separators and lone surrogates
    become ``<U+202E>``-style text. Idempotent, and safe on split stream chunks,
    because every character is judged alone.
    """
    if text.isascii() and text.isprintable():
        return text  # the usual case, a hundred times as fast
    return escape_surrogates(text.translate(_VISIBLE))


def one_line(text: str, limit: int = 200) -> str:
    """Sanitize ``text`` and fold it to a single line of at most ``limit`` characters."""
    folded = " ".join(sanitize(text).split())
    return folded if len(folded) <= limit else folded[: limit - 1] + "…"

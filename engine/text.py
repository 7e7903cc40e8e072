"""Make text that a model, a data set or a file system wrote safe to show.

Raw bytes stay in the store; everything shown to a person passes through
``sanitize`` once, at the edge where it is read. Control characters become
visible symbols, so that nothing is hidden and nothing is executed: an escape
sequence could otherwise write the clipboard, forge a screen or rename a window
(CWE-150).
"""

import re
import unicodedata

MAX_MARKS = 8
"""Characters without a width of their own that one character may carry. No script needs more;
hundreds of them draw over the lines around."""
MAX_CELLS = 10_000
"""Of one line; a longer one ends in an ellipsis."""

_TAB_CELLS = 8
_VISIBLE = {code: chr(0x2400 + code) for code in range(0x20) if chr(code) not in "\n\t"}
_VISIBLE[0x7F] = "\u2421"
_NAMED = [*range(0x80, 0xA0), 0x061C, 0x200E, 0x200F, 0x2028, 0x2029]
_NAMED += [*range(0x202A, 0x202F), *range(0x2066, 0x206A)]
_VISIBLE |= {code: f"<U+{code:04X}>" for code in _NAMED}
_SURROGATE = re.compile("[\ud800-\udfff]")


# Characters that may be marks: all from U+0300 but for what frames and charts are drawn with.
_MAY_HOLD_MARKS = re.compile(f"[^\x00-\u02ff\u2500-\u28ff]{{{MAX_MARKS + 1},}}")


def escape_surrogates(text: str) -> str:
    """Spell out lone surrogates, which neither SQLite nor a terminal can encode."""
    return _SURROGATE.sub(lambda match: f"<U+{ord(match.group()):04X}>", text)


def without_excess_marks(text: str) -> str:
    """``text`` with at most ``MAX_MARKS`` characters of no width in a row."""
    return text if text.isascii() else _MAY_HOLD_MARKS.sub(_with_few_marks, text)


def sanitize(text: str) -> str:
    """Make control, bidirectional and unencodable characters visible, and lines finite.

    C0 (except newline and tab) and DEL become their Unicode control pictures;
    C1, bidirectional marks, line and paragraph separators and lone surrogates
    become ``<U+202E>``-style text. Marks beyond ``MAX_MARKS`` and cells beyond
    ``MAX_CELLS`` in a line are left out. Idempotent.
    """
    if not (text.isascii() and text.isprintable()):  # the usual case, a hundred times as fast
        text = without_excess_marks(escape_surrogates(text.translate(_VISIBLE)))
    # A tab is the widest character there is.
    if len(text) * _TAB_CELLS <= MAX_CELLS:
        return text
    return "\n".join(map(_of_finite_width, text.split("\n")))


def one_line(text: str, limit: int = 200) -> str:
    """Sanitize ``text`` and fold it to a single line of at most ``limit`` characters."""
    folded = " ".join(sanitize(text).split())
    return folded if len(folded) <= limit else folded[: limit - 1] + "…"


def _with_few_marks(match: re.Match[str]) -> str:
    kept, marks = [], 0
    for character in match.group():
        # Combining marks, and joiners and tags, which take no cell either and can hide a text.
        is_mark = unicodedata.category(character) in ("Mn", "Me", "Cf")
        marks = marks + 1 if is_mark else 0
        if marks <= MAX_MARKS:
            kept.append(character)
    return "".join(kept)


def _of_finite_width(line: str) -> str:
    """At most ``MAX_CELLS`` cells of ``line``."""
    widest = _TAB_CELLS if "\t" in line else 1 if line.isascii() else 2
    if len(line) * widest <= MAX_CELLS:
        return line
    cells = 0
    for at, character in enumerate(line):
        cells += _cells(character)
        if cells > MAX_CELLS:
            # Room for the ellipsis, wherever a wide character ends.
            return _of_cells(line[:at], MAX_CELLS - 1) + "…"
    return line


def _of_cells(line: str, cells: int) -> str:
    """``line`` without its last characters, so that it takes at most ``cells``."""
    total = sum(map(_cells, line))
    while total > cells:
        total -= _cells(line[-1])
        line = line[:-1]
    return line


def _cells(character: str) -> int:
    """Cells that a terminal gives to ``character``, at most."""
    if character == "\t":
        return _TAB_CELLS
    return 2 if unicodedata.east_asian_width(character) in "WF" else 1

"""A report as a list of blocks, and the two forms in which it is written: Markdown and HTML.

Texts in blocks are plain: whoever writes a form escapes all of them, since some come from a
model, a data set or a file name. Light: nothing heavy is imported, so that the terminal can show
the same blocks.
"""

import html
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from engine.text import one_line, sanitize


@dataclass(frozen=True)
class Heading:
    """Begins a section; level 1 is the title."""

    text: str
    level: int = 2


@dataclass(frozen=True)
class Verdict:
    """What is to be made of one checkpoint."""

    checkpoint: str
    word: str
    reasons: tuple[str, ...]


@dataclass(frozen=True)
class Mark:
    """A warning that every section repeats."""

    text: str


@dataclass(frozen=True)
class Text:
    """A paragraph."""

    text: str


@dataclass(frozen=True)
class Bullets:
    """A list of sentences."""

    items: tuple[str, ...]


@dataclass(frozen=True)
class Table:
    """Rows of cells; the first column names the row, the others are figures."""

    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    notes: tuple[str, ...] = ()
    """What the numbers in brackets in its cells refer to."""
    is_text: bool = False
    """Its cells are words, not figures."""


@dataclass(frozen=True)
class Figure:
    """A picture, by the name of its file in ``figures``, without the ending."""

    name: str
    caption: str


@dataclass(frozen=True)
class Quote:
    """What a model wrote, and a line about it."""

    title: str
    text: str
    is_right: bool


Block = Heading | Verdict | Mark | Text | Bullets | Table | Figure | Quote

_MARKDOWN = re.compile(r"([\\`*_{}\[\]<>#|~$!&])")


def to_markdown(blocks: Sequence[Block]) -> str:
    """The blocks as Markdown, with figures in the folder beside it."""
    return "\n\n".join(_markdown(block) for block in blocks) + "\n"


def _markdown(block: Block) -> str:
    match block:
        case Heading(text, level):
            return f"{'#' * level} {_md(text)}"
        case Verdict(checkpoint, word, reasons):
            told = "\n".join(f"- {_md(reason)}" for reason in reasons)
            return f"**{_md(checkpoint)}: {_md(word)}**\n\n{told}"
        case Mark(text):
            return f"> **{_md(text)}**"
        case Text(text):
            return _md(text)
        case Bullets(items):
            return "\n".join(f"- {_md(item)}" for item in items)
        case Table(header, rows, notes, is_text):
            ruler = ["---", *["---" if is_text else "---:"] * (len(header) - 1)]
            first, *others = [[_md(cell) for cell in row] for row in (header, *rows)]
            text = "\n".join(f"| {' | '.join(row)} |" for row in (first, ruler, *others))
            return "\n\n".join([text, *(_md(note) for note in notes)])
        case Figure(name, caption):
            return f"![{_md(caption)}](figures/{name}.png)"
        case Quote(title, text, _):
            shown = sanitize(text)
            longest = max((len(run) for run in re.findall("`+", shown)), default=0)
            fence = "`" * max(3, longest + 1)
            return f"{_md(title)}\n\n{fence}text\n{shown}\n{fence}"


def _md(text: str) -> str:
    return _MARKDOWN.sub(r"\\\1", one_line(text, 4000))


def to_html(blocks: Sequence[Block], title: str, picture: Callable[[Figure], str]) -> str:
    """The blocks as one page without scripts that loads nothing from anywhere.

    Args:
        blocks: in the order of the page.
        title: of the window.
        picture: a figure as HTML.
    """
    parts = [_html(block, picture) for block in blocks]
    return _PAGE.format(title=escaped(title), style=_STYLE, body="\n".join(parts))


def _html(block: Block, picture: Callable[[Figure], str]) -> str:
    match block:
        case Heading(text, level):
            return f"<h{level}>{escaped(text)}</h{level}>"
        case Verdict(checkpoint, word, reasons):
            tone = word.replace(" ", "-") if re.fullmatch("[a-z ]+", word) else "unknown"
            return (
                f'<section class="verdict {tone}"><p class="of">{escaped(checkpoint)}</p>'
                f'<p class="word">{escaped(word)}</p>{_items(reasons)}</section>'
            )
        case Mark(text):
            return f'<p class="mark" role="alert">{escaped(text)}</p>'
        case Text(text):
            return f"<p>{escaped(text)}</p>"
        case Bullets(items):
            return _items(items)
        case Table(header, rows, notes, is_text):
            head = "".join(f"<th>{escaped(cell)}</th>" for cell in header)
            shown = f"<thead><tr>{head}</tr></thead>" if any(header) else ""
            body = "".join(
                f'<tr><th scope="row">{escaped(first)}</th>'
                + "".join(f"<td>{escaped(cell)}</td>" for cell in cells)
                + "</tr>"
                for first, *cells in rows
            )
            told = "".join(f'<p class="note">{escaped(note)}</p>' for note in notes)
            kind = "table words" if is_text else "table"
            return f'<div class="{kind}"><table>{shown}<tbody>{body}</tbody></table></div>{told}'
        case Figure(_, caption):
            return f"<figure>{picture(block)}<figcaption>{escaped(caption)}</figcaption></figure>"
        case Quote(title, text, is_right):
            tone = "right" if is_right else "wrong"
            shown = html.escape(sanitize(text))
            return f'<div class="quote {tone}"><p>{escaped(title)}</p><pre>{shown}</pre></div>'


def _items(items: Sequence[str]) -> str:
    return f"<ul>{''.join(f'<li>{escaped(item)}</li>' for item in items)}</ul>"


def escaped(text: str) -> str:
    """One line of text from anywhere, safe inside an element or a quoted attribute."""
    return html.escape(one_line(text, 4000))


_PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; img-src data:; \
style-src 'unsafe-inline'">
<title>{title}</title>
<style>{style}</style>
</head>
<body>
<main>
{body}
</main>
</body>
</html>
"""

_STYLE = """
:root {
  --paper: #ffffff; --ink: #1b1f24; --quiet: #57606a; --faint: #d8dee4; --band: #f6f8fa;
  --good: #00694b; --good-paper: #e5f5ef; --weak: #7a5200; --weak-paper: #fdf3dc;
  --bad: #a33b00; --bad-paper: #fdebe0; --none: #3d4650; --none-paper: #eef1f4;
  --right: #0072b2; --wrong: #d55e00;
}
@media (prefers-color-scheme: dark) {
  :root {
    --paper: #161a20; --ink: #e6e8eb; --quiet: #9aa4b0; --faint: #323a45; --band: #1d222a;
    --good: #4fd3a6; --good-paper: #12312a; --weak: #f0c24b; --weak-paper: #33290f;
    --bad: #ff9a5c; --bad-paper: #3a2013; --none: #c3cad2; --none-paper: #242b34;
    --right: #56b4e9; --wrong: #f28e3c;
  }
}
* { box-sizing: border-box; }
body {
  margin: 0; background: var(--paper); color: var(--ink);
  font: 16px/1.55 system-ui, -apple-system, "Segoe UI", Roboto, "DejaVu Sans", sans-serif;
}
main { max-width: 62rem; margin: 0 auto; padding: 2rem 1.25rem 4rem; }
h1 { font-size: 1.7rem; line-height: 1.25; margin: 0 0 1.25rem; overflow-wrap: anywhere; }
h2 {
  font-size: 1.25rem; margin: 3rem 0 .9rem; padding-bottom: .3rem;
  border-bottom: 1px solid var(--faint);
}
h3 { font-size: 1rem; margin: 1.9rem 0 .6rem; overflow-wrap: anywhere; }
p, ul { margin: .6rem 0; max-width: 46rem; }
ul { padding-left: 1.2rem; }
li { margin: .2rem 0; }
.table { overflow-x: auto; margin: .8rem 0; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; font-size: .92rem; }
th, td { padding: .35rem .8rem; text-align: right; border-bottom: 1px solid var(--faint); }
th { font-weight: 500; }
thead th { color: var(--quiet); font-size: .84rem; vertical-align: bottom; }
td { white-space: nowrap; }
th:first-child { text-align: left; padding-left: .2rem; }
.words th, .words td { text-align: left; }
.words td { white-space: normal; overflow-wrap: anywhere; min-width: 3rem; }
.words tbody th { color: var(--quiet); white-space: nowrap; }
tbody tr:hover { background: var(--band); }
.note { color: var(--quiet); font-size: .84rem; margin: .25rem 0; }
.verdict {
  border-left: .4rem solid var(--tone); background: var(--tint); border-radius: .3rem;
  padding: .9rem 1.2rem; margin: 1rem 0; --tone: var(--none); --tint: var(--none-paper);
}
.verdict.strong { --tone: var(--good); --tint: var(--good-paper); }
.verdict.weak { --tone: var(--weak); --tint: var(--weak-paper); }
.verdict.suspect-leakage { --tone: var(--bad); --tint: var(--bad-paper); }
.verdict p { margin: 0; overflow-wrap: anywhere; }
.verdict .of { color: var(--quiet); font-size: .9rem; }
.verdict .word { color: var(--tone); font-size: 1.5rem; font-weight: 650; line-height: 1.3; }
.mark {
  background: var(--bad-paper); color: var(--bad); border: 1px solid var(--bad);
  border-radius: .3rem; padding: .5rem .9rem; font-weight: 600;
}
figure { margin: 1.4rem 0; }
figure img { display: block; max-width: 100%; height: auto; }
figcaption { color: var(--quiet); font-size: .86rem; margin-top: .4rem; max-width: 46rem; }
.quote { border-left: .25rem solid var(--wrong); padding-left: 1rem; margin: 1.2rem 0; }
.quote.right { border-color: var(--right); }
.quote p { margin: 0 0 .4rem; font-size: .9rem; }
pre {
  background: var(--band); border-radius: .3rem; padding: .8rem 1rem; margin: 0;
  font: .84rem/1.5 ui-monospace, "DejaVu Sans Mono", monospace;
  white-space: pre-wrap; overflow-wrap: anywhere;
}
@media print {
  main { max-width: none; padding: 0; }
  figure, .verdict, .quote, tr { break-inside: avoid; }
}
"""

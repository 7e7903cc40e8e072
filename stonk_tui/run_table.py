"""The table of runs: its columns, its orders, and a run as a row of it. Pure functions."""

import re
from collections.abc import Callable, Sequence

from textual.content import Content

from stonk_tui.run_list import Listed
from stonk_tui.theme import UNKNOWN, state_look
from stonk_tui.widgets import figures
from stonk_tui.widgets.table import Column, Row
from stonk_tui.widgets.text import line

SELECTED = "▣"
_COURSE_WIDTH = 16
_WORD = 24
"""What a line may lose at its end by not breaking a word; a command is one."""
_IDENTIFIER = re.compile(r"\d{4}(\d{4})-(\d{4})\d{2}-(.+)")

COLUMNS = (
    Column("", 1),
    Column("run", 0, below=100),
    Column("run", 0, optional=100),
    Column("state", 12),
    Column("st", 2, below=100),
    Column("stage", 5, optional=100),
    Column("base", 16, optional=132),
    Column("step", 7, "right", below=100),
    Column("step", 11, "right", optional=100),
    Column("reward", 6, "right"),
    Column("course", _COURSE_WIDTH, optional=100),
    Column("accuracy", 19, "right"),
    Column("vs", 4, "right"),
    Column("age", 8, "right", optional=110),
    Column("parent", 22, optional=150),
    Column("what it does", 30, optional=190),
)

Key = Callable[[Listed], float | str | None]


def _accuracy(item: Listed) -> float | None:
    return item.summary.accuracy


def _reward(item: Listed) -> float | None:
    return item.summary.reward


def _state(item: Listed) -> str:
    return "unreadable" if item.problem else item.state


# The first order of each is the one that a person wants to see first.
ORDERS: dict[str, tuple[Key, bool]] = {
    "newest": (lambda item: item.run.id, True),
    "reward": (_reward, True),
    "accuracy": (_accuracy, True),
    "step": (lambda item: float(item.summary.step), True),
    "state": (_state, False),
    "name": (lambda item: item.config.name if item.config else None, False),
}
"""By name: what is compared, and whether the greatest comes first."""


def ordered(items: Sequence[Listed], order: str, *, reverse: bool = False) -> list[Listed]:
    """``items`` in the order called ``order``.

    What is not known comes last both ways; among equals the newest comes first.
    """
    key, greatest_first = ORDERS[order]
    newest = sorted(items, key=lambda item: item.run.id, reverse=True)
    known = [item for item in newest if key(item) is not None]
    unknown = [item for item in newest if key(item) is None]

    def value(item: Listed) -> float | str:
        found = key(item)
        assert found is not None
        return found

    # With reverse=True the sort keeps equals in their order, too.
    return sorted(known, key=value, reverse=greatest_first != reverse) + unknown


def row(item: Listed, now: float, *, is_selected: bool) -> Row:
    """One run in the columns of ``COLUMNS``."""
    summary = item.summary
    look = state_look("unreadable" if item.problem else item.state)
    # A blank at the end alone would make the table cut a name that just fits.
    problem = Content.assemble("  ", line(item.problem, "$bad", limit=80)) if item.problem else ""
    return Row(
        key=item.run.id,
        cells=(
            Content.styled(SELECTED if is_selected else "", "$gold"),
            Content.assemble(_short_name(item.run.id), problem),
            Content.assemble(line(item.run.id, "bold", limit=80), problem),
            Content.styled(f"{look.glyph} {look.word}", look.style),
            Content(item.stage or UNKNOWN),
            Content(item.stage or UNKNOWN),
            line(item.model or UNKNOWN, "$quiet", limit=16),
            _step(item, in_brief=True),
            _step(item),
            Content.styled(figures.fixed(summary.reward), "bold"),
            Content.styled(figures.sparkline(list(summary.course), _COURSE_WIDTH), "$course"),
            accuracy(item),
            Content.styled(figures.share(summary.baseline), "$quiet"),
            Content.styled(age(item, now), "$quiet"),
            line(item.parent or UNKNOWN, "$quiet", limit=80),
            line(item.detail, "$quiet", limit=80),
        ),
    )


def accuracy(item: Listed) -> Content:
    """``58 % [49, 66] n=128`` of the newest validation."""
    summary = item.summary
    if summary.accuracy is None:
        return Content(UNKNOWN)
    limits = figures.interval(summary.accuracy_low, summary.accuracy_high)
    count = f" n={summary.accuracy_n:.0f}" if summary.accuracy_n is not None else ""
    return Content.assemble(
        figures.share(summary.accuracy),
        (f" {limits}" if limits else "", "$quiet"),
        (count, "$quiet"),
    )


def age(item: Listed, now: float) -> str:
    """How long ago it was begun."""
    started = item.summary.started
    return UNKNOWN if started is None else figures.duration(now - started)


def _short_name(identifier: str) -> Content:
    """``demo 1120-0053`` for ``20251120-005320-demo``: what tells runs apart comes first."""
    parts = _IDENTIFIER.fullmatch(identifier)
    if parts is None:
        return line(identifier, "bold", limit=80)
    return Content.assemble(line(parts[3], "bold", limit=60), (f" {parts[1]}-{parts[2]}", "$quiet"))


def _step(item: Listed, *, in_brief: bool = False) -> Content:
    """``1250/2000``; in brief ``1250/2k``, which seven characters hold."""
    step, total = item.summary.step, item.summary.max_steps
    if total:
        in_thousands = in_brief and total % 1000 == 0
        return Content(f"{step}/{total // 1000}k" if in_thousands else f"{step}/{total}")
    return Content(str(step) if step else UNKNOWN)


def explained(item: Listed, now: float, width: int) -> Content:
    """A line on the run under the cursor, which the columns have no room for, and two on its state.

    The last one ends with what to do, so it is wrapped and not cut.
    """
    summary, config = item.summary, item.config
    facts: list[tuple[str, Content]] = [
        ("base", line(config.model.id if config else UNKNOWN, limit=60)),
        ("data", line(config.data.source if config else UNKNOWN, limit=60)),
        ("age", Content(age(item, now))),
    ]
    if item.parent:
        facts.append(("parent", line(item.parent, limit=60)))
    if summary.course:
        course = figures.sparkline(list(summary.course), 16)
        facts.append(("reward's course", Content.styled(course, "$course")))
    if summary.tickers:
        shown = sorted(summary.tickers)
        more = f" +{len(shown) - 6}" if len(shown) > 6 else ""
        facts.append(("tickers", line(" ".join(shown[:6]) + more, limit=60)))
    first = Content("   ").join(
        Content.assemble((f"{name} ", "$quiet"), value) for name, value in facts
    )
    look = state_look("unreadable" if item.problem else item.state)
    second = Content.assemble(
        (f"{look.glyph} {look.word}", look.style),
        "  ",
        line(item.run.id, limit=80),
        "  ",
        line(item.problem or item.detail, "$quiet", limit=300),
    )
    return Content("\n").join(
        [
            first.truncate(width, ellipsis=True),
            second.truncate(2 * width - _WORD, ellipsis=True),
        ]
    )

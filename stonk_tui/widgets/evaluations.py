"""Evaluations in words: the form judged, one that runs, and the list of those of before.

Pure functions of drafts, events and files, which another version or program may have written:
every value may be of any type.
"""

import time
from collections.abc import Mapping, Sequence
from typing import Any

from textual.content import Content

from engine.evaluation.intervals import wilson
from engine.runs.checkpoint_names import BASE
from stonk_tui.evaluation_form import Cost
from stonk_tui.evaluation_list import Past
from stonk_tui.evaluation_report import BASELINES, Report, mapping
from stonk_tui.theme import STATES, UNKNOWN, VERDICTS
from stonk_tui.widgets import figures
from stonk_tui.widgets.panel import rows
from stonk_tui.widgets.table import Column, Row
from stonk_tui.widgets.text import line

_WIDE, _BROAD = 108, 150
PAST = (
    Column("when", 11, below=_WIDE),
    Column("when", 5, optional=_WIDE),
    Column("source", 10, optional=_WIDE),
    Column("split", 10, optional=_WIDE),
    Column("checkpoint", 11, below=_WIDE),
    Column("checkpoint", 14, optional=_WIDE, below=_BROAD),
    Column("checkpoint", 30, optional=_BROAD),
    Column("right, 95 % interval", 22),
    Column("best", 5, "right", below=_WIDE),
    Column("best baseline", 18, optional=_WIDE),
    Column("", 7, below=_BROAD),
    Column("", 18, optional=_BROAD),
    Column("verdict", 0),
)
_LABEL = 22
_NAMED = 3
"""Checkpoints of a form that are told by name."""
_BEGIN = (
    "f5 predicts every example of the split with these checkpoints, the untrained base model among "
    "them, and holds their accuracy against simple baselines on the same days.\n\n"
    "Choose on the validation split. Each look at the test split is counted in its reports."
)


def verdict(word: object) -> Content:
    """A verdict by glyph, word and colour; a word that this version does not know as it is."""
    look = VERDICTS.get(word) if isinstance(word, str) else None
    if look is None:
        return line(word, "$warn", limit=40) if word else Content(UNKNOWN)
    return Content.styled(f"{look.glyph} {look.word}", look.style)


def accuracy(value: object) -> Content:
    """``52 % [48, 56] n=1000`` of a value with its interval; ``·`` where it is not known."""
    known = mapping(value)
    share = figures.known(known.get("value"))
    if share is None:
        return Content(UNKNOWN)
    interval = figures.interval(known.get("low"), known.get("high")) or "[no interval]"
    return Content.assemble(
        (figures.share(share), "bold"),
        f" {interval}",
        (f" n={figures.whole(known.get('n'))}", "$quiet"),
    )


# --- the form


def judged(cost: Cost, split: str, width: int) -> Content:
    """What the form asks for, and what that will take."""
    names = Content(", ").join(line(name, limit=30) for name in cost.checkpoints)
    if len(cost.checkpoints) > _NAMED:
        names = Content(f"{BASE} and {len(cost.checkpoints) - 1} more checkpoints")
    pieces = [Content.assemble(("✓ ", "$good"), names)]
    if cost.predictions is not None:
        pieces.append(Content(f"{figures.whole(cost.predictions)} predictions"))
    if cost.seconds is not None:
        pieces.append(Content(f"≈ {figures.duration(cost.seconds)}"))
    else:
        pieces.append(Content.styled("how long it takes is not known yet", "$quiet"))
    if split == "test" and cost.touches:
        times = "once" if cost.touches == 1 else f"{cost.touches} times"
        pieces.append(Content.styled(f"test seen ≥ {times}", "$warn"))
    return _flow(pieces, width)


def _flow(pieces: Sequence[Content], width: int) -> Content:
    """As many of the pieces as there is room for, in one line."""
    kept = list(pieces)
    dot = Content.styled(" · ", "$faint")
    while len(kept) > 1 and dot.join(kept).cell_length > width:
        kept.pop()
    return dot.join(kept)


# --- one that runs


def running(told: Mapping[str, Any], draft: Mapping[str, Any] | None, width: int) -> Content:
    """How far an evaluation is, and each checkpoint so far.

    Args:
        told: the newest event about it.
        draft: how far it is; None before its first prediction.
        width: cells in a line.
    """
    now = mapping(draft)
    per_checkpoint = mapping(now.get("per_checkpoint"))
    names = [str(name) for name in _list(told.get("checkpoints"))]
    names = [*dict.fromkeys([*names, *per_checkpoint])]
    lines = [_progress(told, now, width), Content("")]
    lines.append(
        Content.styled(
            f"{'checkpoint':<{_LABEL}}{'right so far, 95 % interval':<32}  read", "$quiet"
        )
    )
    lines += [_so_far(name, mapping(per_checkpoint.get(name))) for name in names]
    lines += [
        Content(""),
        _to_beat(mapping(now.get("baseline"))),
        Content.styled("Intervals are Wilson's: they take calls for independent.", "$quiet"),
        Content.styled("The report has those of whole days, and a verdict.", "$quiet"),
    ]
    return rows(*lines)


def progress_words(draft: Mapping[str, Any] | None) -> str:
    """``612 of 1 000, 1 m 10 s left``."""
    now = mapping(draft)
    words = f"{figures.whole(now.get('done'))} of {figures.whole(now.get('total'))}"
    left = figures.known(now.get("eta_seconds"))
    return words if left is None else f"{words}, {figures.duration(left)} left"


def _progress(told: Mapping[str, Any], now: Mapping[str, Any], width: int) -> Content:
    done, total = figures.known(now.get("done")), figures.known(now.get("total"))
    total = figures.known(told.get("total")) if total is None else total
    part = done / total if done is not None and total else None
    at, before = now.get("checkpoint"), _count(now.get("number"))
    number = UNKNOWN if before is None else f"{before + 1}"
    whom = (
        Content.assemble(
            line(at, "bold $gold", limit=30),
            (f" {number} of {figures.whole(now.get('of'))}", "$quiet"),
        )
        if at
        else Content.styled("the first prediction is awaited", "$gold")
    )
    tail = Content.assemble(
        (f" {figures.share(part)}", "bold"),
        f"  {figures.whole(done)} of {figures.whole(total)}",
        ("  ETA ", "$quiet"),
        figures.duration(now.get("eta_seconds")),
    )
    room = width - whom.cell_length - tail.cell_length - 2
    if room < 6:
        return rows(whom, tail)
    full, rest = figures.meter(part, min(room, 60))
    return Content.assemble(whom, "  ", (full, "$gold"), (rest, "$faint"), tail)


def _to_beat(baseline: Mapping[str, Any]) -> Content:
    """The best of the simple callers, on all examples of the evaluation."""
    name, value = baseline.get("name"), figures.known(baseline.get("value"))
    if value is None:
        return Content.styled(f"to beat: {UNKNOWN}", "$quiet")
    word = BASELINES.get(name, name) if isinstance(name, str) else UNKNOWN
    return Content.assemble(
        ("to beat: ", "$quiet"),
        line(word, "bold", limit=30),
        f" {figures.share(value)}",
        (" of all its examples", "$quiet"),
    )


def _so_far(name: str, counts: Mapping[str, Any]) -> Content:
    done, right, read = (_count(counts.get(key)) for key in ("done", "right", "read"))
    label = line(name, "bold", limit=_LABEL - 2)
    label = label.pad_right(max(0, _LABEL - label.cell_length))
    if not done or right is None or right > done:
        return label + Content.styled("waits" if not done else UNKNOWN, "$quiet")
    low, high = wilson(right, done)
    figure = accuracy({"value": right / done, "low": low, "high": high, "n": done})
    parsed = read / done if read is not None and read <= done else None
    return Content.assemble(
        label,
        figure.pad_right(max(0, 32 - figure.cell_length)),
        (f"{figures.share(parsed):>6}", "$quiet"),
    )


def meanwhile(draft: Mapping[str, Any] | None, *, trains: bool, is_in_sight: bool) -> Content:
    """What becomes of training while an evaluation runs; how far that is where it is not shown."""
    words = (
        "training waits for it, and then goes on as it would have"
        if trains
        else "nothing trains: a worker of its own predicts"
    )
    head = "evaluating: " if is_in_sight else f"evaluating, {progress_words(draft)}: "
    return Content.assemble((head, "$gold"), (words, "$quiet"))


def nothing_yet() -> Content:
    """What stands where there is no evaluation."""
    return Content.styled(_BEGIN, "$quiet")


# --- those of before


def past_rows(past: Sequence[Past], now: float, running: object = None) -> list[Row]:
    """A line for each checkpoint of each evaluation but the base model's, the newest first.

    Args:
        past: the newest first.
        now: seconds since 1970.
        running: id of the one that runs.
    """
    return [row for one in past for row in _rows_of(one, now, is_running=one.id == running)]


def evaluation_of(key: str) -> str:
    """The id of the evaluation that a row stands for."""
    return key.partition("/")[0]


def _rows_of(past: Past, now: float, *, is_running: bool) -> list[Row]:
    report = Report(past)
    context = past.context
    when = Content.styled(_when(past.began, now), "$quiet")
    split = str(context.get("split") or UNKNOWN)
    marks = ", ".join(report.marks)
    brief = "syn+ovl" if len(report.marks) > 1 else marks.replace("synthetic", "synth")
    cells = []
    for label in report.trained or ("",):
        best = report.best_baseline(label)
        share = figures.share(best.accuracy.get("value")) if best is not None else UNKNOWN
        name = line(label, "bold", limit=80) if label else Content(UNKNOWN)
        cells.append(
            (
                Content.assemble(when, " ", line(split[:5], "$quiet")),
                when,
                line(context.get("source") or UNKNOWN, limit=40),
                line(split, limit=10),
                *(name,) * 3,
                accuracy(report.of(label, "accuracy")),
                Content(share),
                Content.assemble(line(best.label, "$quiet", limit=14), f" {share}")
                if best is not None
                else Content(UNKNOWN),
                Content.styled(brief, "$warn"),
                Content.styled(marks, "$warn"),
                _state(past, is_running=is_running) or verdict(report.word(label)),
            )
        )
    return [Row(f"{past.id}/{number}", cell) for number, cell in enumerate(cells)]


def _state(past: Past, *, is_running: bool) -> Content | None:
    """What stands in place of a verdict; None where there is a report."""
    if past.report is not None:
        return None
    look = STATES["evaluating"]
    if is_running:
        return Content.styled(f"{look.glyph} {look.word}", look.style)
    return Content.styled("■ unfinished" if past.is_unfinished else "! no report", "$warn")


def _when(began: float | None, now: float) -> str:
    """The time of day, of another day its date."""
    if began is None:
        return UNKNOWN
    local, today = time.localtime(began), time.localtime(now)
    is_today = (local.tm_year, local.tm_yday) == (today.tm_year, today.tm_yday)
    return time.strftime("%H:%M" if is_today else "%m-%d", local)


def _list(value: object) -> Sequence[Any]:
    return value if isinstance(value, list | tuple) else ()


def _count(value: object) -> int | None:
    number = figures.known(value)
    return int(number) if number is not None and 0 <= number < 1e12 else None

"""What a run does before its first step, with how far it is."""

from textual.content import Content

from engine.runs.history import Progress, Series
from stonk_tui.feed import RunModel
from stonk_tui.theme import state_look
from stonk_tui.widgets import figures
from stonk_tui.widgets.panel import rows
from stonk_tui.widgets.text import line

_WAITING = {
    "prepared": "Prepared, and waits to be started.",
    "starting": "The worker starts: it loads the model and the market data.",
    "warming_up": "A short supervised warm-up teaches the answer format.",
    "training": "The first rollouts are being sampled; the curve begins with the first step.",
    "paused": "Paused before the first step.",
    "evaluating": "A validation runs before the first step.",
}


def activity(view: RunModel, loss: Series | None, width: int) -> Content:
    state, detail = view.state
    look = state_look(state)
    lines: list[Content | str] = [
        Content(""),
        Content.assemble(
            (f"{look.glyph} ", look.style),
            (look.word, "bold"),
        ),
        line(detail, "$quiet")
        if detail and state not in ("stale", "prepared")
        else Content.styled(_WAITING.get(state, ""), "$quiet"),
    ]
    progress = view.history.progress
    if progress is not None:
        lines += ["", *_progress_lines(progress, width)]
    if loss is not None and loss.values:
        lines.append(
            Content.assemble(
                ("warm-up loss ", "$quiet"),
                (figures.fixed(loss.values[-1]), "bold"),
                (f" from {figures.fixed(loss.values[0])}   ", "$quiet"),
                (figures.sparkline(loss.values, min(44, max(8, width - 34))), "$course"),
            )
        )
    return rows(*lines)


def _progress_lines(progress: Progress, width: int) -> list[Content | str]:
    total = figures.known(progress.total)
    done = figures.known(progress.done)
    part = done / total if done is not None and total else None
    filled, rest = figures.meter(part, min(44, max(8, width - 34)))
    count = f"{figures.whole(done)} of {figures.whole(total)}" if total and total < 1e5 else ""
    task = Content.assemble(
        line(progress.task, limit=40),
        ("   " + count if count else "", "$quiet"),
        "   ",
        line(progress.detail, "$quiet", limit=max(8, width - 50)) if progress.detail else "",
    )
    if part is None:
        # Nobody can say how long: no bar that pretends to know.
        return [Content.assemble(task, (" …", "$quiet"))]
    return [
        task,
        Content.assemble(
            (filled, "$gold"),
            (rest, "$faint"),
            f" {figures.share(part):>5}",
            ("   ETA ", "$quiet"),
            figures.duration(progress.eta_seconds),
        ),
    ]

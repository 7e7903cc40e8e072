"""Is the training sound? Distance from the reference, entropy, gradients, where time goes."""

from bisect import bisect_right
from typing import ClassVar

from textual.content import Content

from stonk_tui.feed import RunModel
from stonk_tui.widgets import figures
from stonk_tui.widgets.panel import Panel, rows
from stonk_tui.widgets.text import line

_LABEL = 9
_FIGURE = 7
_COURSE_STEPS = 400
_PHASE_STYLES = ("$secondary", "$magnitude", "$data-use", "$gold", "$quiet")
_SHORT = {"rollout": "roll", "reference": "ref"}
_SMALL_PHASE = 0.02
_PHASES = ("rollout", "reward", "reference", "train")


class HealthPanel(Panel):
    """The figures that go wrong first."""

    noun = "Health"
    number = 5
    explanation: ClassVar[str] = (
        "KL is the policy's distance from the reference in nats a token, entropy its spread over "
        "tokens; a KL that runs away or an entropy that falls to 0 ends learning. Groups without "
        "contrast have equal rewards and teach nothing. The bar shows where a step's time goes."
    )

    _cursor: float | None = None

    def point_at(self, step: float | None) -> None:
        """Tell the figures of ``step`` where they are known; of the newest one with None."""
        if step != self._cursor:
            self._cursor = step
            if self._view is not None:
                self.show(self._view)

    def draw(self, view: RunModel, width: int, height: int) -> tuple[Content, Content]:
        metrics = view.history.metrics
        lines = [
            self._course(view, "KL", "kl", width),
            self._course(view, "entropy", "entropy", width),
            self._course(view, "loss", "loss", width),
            self._course(view, "gradient", "gradient_norm", width),
            _pair(
                ("flat groups", figures.share(metrics.get("groups/zero_variance"))),
                ("cut off", figures.share(metrics.get("tokens/truncated"))),
            ),
            _pair(
                ("unparsed", figures.share(_rest(metrics.get("parsed")))),
                ("tokens", figures.fixed(metrics.get("tokens/mean"), 0)),
            ),
            *_phases(view.history.seconds, width),
        ]
        if self._cursor is not None:
            answer = Content.styled(f"courses at step {self._cursor:.0f}", "$gold")
            return answer, rows(*lines[:height])
        answer = Content.assemble(("KL ", "$quiet"), (figures.small(metrics.get("kl")), "bold"))
        return answer, rows(*lines[:height])

    @staticmethod
    def folded(view: RunModel, width: int) -> Content:
        """The same in one line."""
        metrics = view.history.metrics
        pieces = [
            Content.assemble((f"{label} ", "$quiet"), figure)
            for label, figure in (
                ("KL", figures.small(metrics.get("kl"))),
                ("entropy", figures.fixed(metrics.get("entropy"))),
                ("loss", figures.small(metrics.get("loss"))),
                ("gradient", figures.small(metrics.get("gradient_norm"))),
                ("flat groups", figures.share(metrics.get("groups/zero_variance"))),
            )
        ]
        while len(pieces) > 1 and sum(p.cell_length for p in pieces) + 3 * len(pieces) > width:
            pieces.pop()
        return Content("   ").join(pieces)

    def _course(self, view: RunModel, label: str, name: str, width: int) -> Content:
        series = view.history.series.get(name)
        room = width - _LABEL - _FIGURE - 2
        values = series.values[-_COURSE_STEPS:] if series else []
        sparks = figures.sparkline(values, room)
        course = Content.styled("  " + sparks, "$course")
        figure = view.history.metrics.get(name)
        if self._cursor is not None:
            at = _place(series.steps[-_COURSE_STEPS:] if series else [], self._cursor)
            figure = values[at] if at is not None else None
            if at is not None and sparks:
                column = 2 + at * len(sparks) // len(values)
                course = course.stylize("bold $gold reverse", column, column + 1)
        return Content.assemble(
            (f"{label:<{_LABEL}}", "$quiet"),
            (f"{figures.small(figure):>{_FIGURE}}", "bold"),
            course,
        )


def _place(steps: list[int], step: float) -> int | None:
    """Index of the last of ``steps`` up to ``step``; None before the first."""
    at = bisect_right(steps, step) - 1
    return at if at >= 0 else None


def _rest(share: float | None) -> float | None:
    known = figures.known(share)
    return None if known is None else 1 - known


def _pair(first: tuple[str, str], second: tuple[str, str]) -> Content:
    return Content.assemble(
        (f"{first[0]:<{_LABEL + 2}}", "$quiet"),
        f" {first[1]:>5}",
        (f"  {second[0]:<8}", "$quiet"),
        f"{second[1]:>5}",
    )


def _phases(seconds: dict[str, float], width: int) -> list[Content]:
    """A bar of the phases' shares, and the same in words."""
    known = {
        name: value
        for name in (*_PHASES, *(key for key in seconds if key not in (*_PHASES, "total")))
        if (value := figures.known(seconds.get(name))) is not None and value >= 0
    }
    whole = sum(known.values())
    if whole <= 0:
        return [Content.styled("step time ·", "$quiet")]
    total = figures.known(seconds.get("total")) or whole
    styled = list(zip(known.items(), _PHASE_STYLES * 3, strict=False))
    cells: list[tuple[str, str]] = []
    used = 0
    for index, ((_, value), style) in enumerate(styled):
        last = index == len(styled) - 1
        size = width - used if last else round(value / whole * width)
        size = max(0, min(size, width - used))
        cells.append(("▬" * size, style))
        used += size
    tail = Content.styled(f"  {figures.fixed(total, 1)} s/step", "$quiet")
    words = Content("")
    for (name, value), style in styled:
        if value / whole < _SMALL_PHASE:
            continue
        piece = Content.assemble(
            " " if words else "",
            line(_SHORT.get(name, name), style, limit=9),
            f" {100 * value / whole:.0f}",
        )
        if words.cell_length + piece.cell_length + tail.cell_length <= width:
            words += piece
    return [Content.assemble(*cells), words + tail]

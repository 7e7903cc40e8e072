"""Is it fooling itself? Sides called, accuracy, stated confidence against what came true."""

from typing import ClassVar

from textual.content import Content

from stonk_tui.feed import RunModel
from stonk_tui.theme import DOWN, UNKNOWN, UP
from stonk_tui.widgets import figures
from stonk_tui.widgets.panel import Panel, rows

_LABEL = 10


class MarketPanel(Panel):
    """The calls of the last batch against the market's own figures."""

    noun = "Market"
    number = 4
    explanation: ClassVar[str] = (
        "The last batch's calls beside what the market did: the share called UP, accuracy with its "
        "95 % Wilson interval and n, and accuracy on the days that went each way. The baselines "
        "are always calling UP (▲) and repeating the last move. Stated confidence stands beside "
        "the share that came true: their distance is over- or underconfidence. Brier is the mean "
        "squared error of the stated probability: below the base rate's is better than knowing "
        "only how often the market rises."
    )

    def draw(self, view: RunModel, width: int, height: int) -> tuple[Content, Content]:
        metrics = view.history.metrics
        lines = [
            _called(metrics, width),
            _right(metrics),
            _sides(metrics),
            *_says(metrics),
            _brier(metrics),
            _baselines(metrics),
            _validation(view, width),
        ]
        answer = Content.assemble(("right ", "$quiet"), figures.share(metrics.get("accuracy")))
        return answer, rows(*lines[:height])

    @staticmethod
    def folded(view: RunModel, width: int) -> Content:
        """The same in one line."""
        metrics = view.history.metrics
        pieces = [
            Content.assemble(
                ("called ", "$quiet"),
                (f"{UP.glyph} {figures.share(metrics.get('calls/up_share'))}", UP.style),
                (" of ", "$quiet"),
                f"{figures.share(metrics.get('market/up_share'))}",
            ),
            Content.assemble(
                ("right ", "$quiet"),
                figures.share(metrics.get("accuracy")),
                (f" {_interval(metrics)}", "$quiet"),
            ),
            Content.assemble(
                ("sure ", "$quiet"),
                figures.share(metrics.get("confidence/mean")),
            ),
            Content.assemble(
                ("Brier ", "$quiet"),
                figures.fixed(metrics.get("brier"), 3),
                (" base ", "$quiet"),
                figures.fixed(metrics.get("brier/base_rate"), 3),
            ),
        ]
        while len(pieces) > 1 and sum(p.cell_length for p in pieces) + 3 * len(pieces) > width:
            pieces.pop()
        return Content("   ").join(pieces)


def _label(text: str) -> tuple[str, str]:
    return f"{text:<{_LABEL}}", "$quiet"


def _called(metrics: dict[str, float], width: int) -> Content:
    called = figures.known(metrics.get("calls/up_share"))
    market = figures.known(metrics.get("market/up_share"))
    tail = Content.assemble(
        ("  market ", "$quiet"), (f"{UP.glyph} {figures.share(market):>5}", UP.style)
    )
    head = Content.assemble(_label("called"), (f"{UP.glyph} {figures.share(called):>5} ", UP.style))
    room = width - head.cell_length - tail.cell_length
    bar = _two_sided(called, market, min(room, 24)) if room >= 6 else Content("")
    return Content.assemble(head, bar, tail)


def _two_sided(called: float | None, market: float | None, width: int) -> Content:
    """UP from the left, DOWN from the right, a tick where the market divides."""
    if called is None:
        return Content(" " * width)
    ups = round(called * width)
    cells = [("▬", UP.style)] * ups + [("▬", DOWN.style)] * (width - ups)
    if market is not None:
        cells[min(width - 1, max(0, round(market * width)))] = ("┃", "$ink")
    return Content.assemble(*cells)


def _interval(metrics: dict[str, float]) -> str:
    return figures.interval(metrics.get("accuracy/low"), metrics.get("accuracy/high"))


def _right(metrics: dict[str, float]) -> Content:
    return Content.assemble(
        _label("right"),
        (f"{figures.share(metrics.get('accuracy')):>6}", "bold"),
        f" {_interval(metrics)}",
        (f"  n={figures.whole(metrics.get('accuracy/n'))}", "$quiet"),
    )


def _sides(metrics: dict[str, float]) -> Content:
    return Content.assemble(
        _label("by side"),
        (f"{UP.glyph} {figures.share(metrics.get('accuracy/up')):>5}", UP.style),
        "   ",
        (f"{DOWN.glyph} {figures.share(metrics.get('accuracy/down')):>5}", DOWN.style),
    )


def _says(metrics: dict[str, float]) -> list[Content]:
    stated = figures.known(metrics.get("confidence/mean"))
    hit = figures.known(metrics.get("confidence/hit_rate"))
    verdict: tuple[str, str] = (UNKNOWN, "$quiet")
    if stated is not None and hit is not None:
        gap = round(100 * (stated - hit))
        if abs(gap) < 5:
            verdict = ("as sure as it is right", "$good")
        else:
            verdict = (f"{'over' if gap > 0 else 'under'}confident by {abs(gap)} points", "$warn")
    line = Content.assemble(
        _label("says"),
        f"{figures.share(stated):>6}",
        (" sure, ", "$quiet"),
        figures.share(hit),
        (" true", "$quiet"),
    )
    return [line, Content.assemble(_label(""), verdict)]


def _brier(metrics: dict[str, float]) -> Content:
    brier = figures.known(metrics.get("brier"))
    base = figures.known(metrics.get("brier/base_rate"))
    style = "bold"
    if brier is not None and base is not None:
        style = "bold $good" if brier < base else "bold"
    return Content.assemble(
        _label("Brier"),
        (f"{figures.fixed(brier, 3):>6}", style),
        ("  base rate ", "$quiet"),
        figures.fixed(base, 3),
    )


def _baselines(metrics: dict[str, float]) -> Content:
    return Content.assemble(
        _label("baselines"),
        (f"{UP.glyph} ", "$quiet"),
        f"{figures.share(metrics.get('baseline/always_up')):>4}",
        ("  momentum ", "$quiet"),
        figures.share(metrics.get("baseline/momentum")),
    )


def _validation(view: RunModel, width: int) -> Content:
    metrics = view.history.metrics
    series = view.history.series.get("validation/accuracy")
    if series is None or not series.steps:
        return Content.assemble(_label("validated"), ("not yet", "$quiet"))
    low, high = metrics.get("validation/accuracy/low"), metrics.get("validation/accuracy/high")
    figure = Content.assemble(
        _label("validated"),
        (f"{figures.share(metrics.get('validation/accuracy')):>6}", "bold"),
        f" {figures.interval(low, high)}",
        (f"  n={figures.whole(metrics.get('validation/accuracy/n'))}", "$quiet"),
    )
    when = f"  step {series.steps[-1]}"
    return figure.append_text(when, "$quiet") if figure.cell_length + len(when) <= width else figure

"""Is it fooling itself? Sides called, accuracy, stated confidence against what came true."""

from collections.abc import Mapping
from typing import ClassVar

from textual.content import Content

from stonk_tui.feed import RunModel
from stonk_tui.theme import DOWN, UP, Look
from stonk_tui.widgets import figures
from stonk_tui.widgets.panel import Panel, rows

_LABEL = 9
_HONEST_POINTS = 5
"""Distances of confidence and hit rate below this many points are called in step."""
_LEVEL = 0.005
"""Factors nearer to 1 than this change no figure that is shown."""


class MarketPanel(Panel):
    """The newest calls against the market's own figures."""

    noun = "Market"
    number = 4
    explanation: ClassVar[str] = (
        "The share called UP beside the market's, over the last 200 calls where the run keeps "
        "them, else over the batch; below, the batch's accuracy with its 95 % Wilson interval and "
        "n, then only on days that went ▲ and ▼; the baselines always call UP (▲) or repeat the "
        "last move. `says` is the mean stated confidence and `true` the share that came true; "
        "Brier is the mean of (stated probability − outcome)², to be compared with knowing only "
        "how often the market rises, p·(1 − p). `pays` is what direction and magnitude of a right "
        "call are multiplied by in training: in Stage I max(0.3, 1 − 3·max(0, |d| − 0.1)) on the "
        "side that is called too often, where d is called − market; in Stage II "
        "min(1.5, 0.5 / share of that side in the market), so that always calling one side earns "
        "the same for both."
    )

    def draw(self, view: RunModel, width: int, height: int) -> tuple[Content, Content]:
        metrics = view.history.metrics
        lines = [
            _called(metrics, width),
            _right(metrics),
            _side(metrics, UP),
            _side(metrics, DOWN),
            _says(metrics, width),
            _brier(metrics),
            _baselines(metrics),
            *_pays(metrics, width),
            _validation(view, width),
            *_validation_details(metrics),
        ]
        answer = Content.assemble(("right ", "$quiet"), figures.share(metrics.get("accuracy")))
        return answer, rows(*lines[:height])

    @staticmethod
    def folded(view: RunModel, width: int) -> Content:
        """The same in one line."""
        metrics = view.history.metrics
        called, market = _shares(metrics)
        pieces = [
            Content.assemble(
                ("called ", "$quiet"),
                (f"{UP.glyph} {figures.share(called)}", UP.style),
                (", market ", "$quiet"),
                figures.share(market),
            ),
            Content.assemble(
                ("right ", "$quiet"),
                figures.share(metrics.get("accuracy")),
                (f" {_interval(metrics)} n={figures.whole(metrics.get('accuracy/n'))}", "$quiet"),
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


def _shares(metrics: dict[str, float]) -> tuple[float | None, float | None]:
    """(called UP, went UP): over the last calls where that is known, else of the batch."""
    window = figures.known(metrics.get("calls/window_up_share"))
    if window is not None:
        return window, figures.known(metrics.get("market/window_up_share"))
    called = figures.known(metrics.get("calls/up_share"))
    return called, figures.known(metrics.get("market/up_share"))


def _called(metrics: dict[str, float], width: int) -> Content:
    called, market = _shares(metrics)
    tail = Content.assemble(
        ("  market ", "$quiet"), (f"{UP.glyph} {figures.share(market)}", UP.style)
    )
    head = Content.assemble(_label("called"), (f"{UP.glyph} {figures.share(called)} ", UP.style))
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
        (f"{figures.share(metrics.get('accuracy')):>5}", "bold"),
        f" {_interval(metrics)}",
        (f" n={figures.whole(metrics.get('accuracy/n'))}", "$quiet"),
    )


def _side(metrics: Mapping[str, float], side: Look, prefix: str = "") -> Content:
    """Accuracy on the days that went one way."""
    name = f"{prefix}accuracy/{side.word.lower()}"
    low, high = metrics.get(f"{name}_low"), metrics.get(f"{name}_high")
    count = figures.known(metrics.get(f"{name}_n"))
    return Content.assemble(
        (f"{'on ' + side.glyph + ' days':<{_LABEL}}", "$quiet"),
        (f"{figures.share(metrics.get(name)):>5}", side.style),
        f" {figures.interval(low, high)}",
        (f" n={figures.whole(count)}" if count is not None else "", "$quiet"),
    )


def _says(metrics: dict[str, float], width: int) -> Content:
    stated = figures.known(metrics.get("confidence/mean"))
    hit = figures.known(metrics.get("confidence/hit_rate"))
    figure = Content.assemble(
        _label("says"),
        f"{figures.share(stated):>5}",
        (" true ", "$quiet"),
        figures.share(hit),
    )
    if stated is None or hit is None:
        return figure
    gap = round(100 * (stated - hit))
    if abs(gap) < _HONEST_POINTS:
        words, style = "  in step", "$good"
    else:
        words, style = f"  {'over' if gap > 0 else 'under'} by {abs(gap)}", "$warn"
    longer = figure.append_text(words, style)
    return longer if longer.cell_length <= width else figure


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
        (f" {UP.glyph} ", "$quiet"),
        figures.share(metrics.get("baseline/always_up")),
        ("  momentum ", "$quiet"),
        figures.share(metrics.get("baseline/momentum")),
    )


def factors(metrics: Mapping[str, float]) -> tuple[float, float] | None:
    """What a right call of each side, UP and DOWN, is multiplied by; None where nothing is."""
    up = figures.known(metrics.get("shaping/up_factor"))
    down = figures.known(metrics.get("shaping/down_factor"))
    return None if up is None or down is None else (up, down)


def is_level(factor: float) -> bool:
    """Whether a factor changes nothing that is shown."""
    return abs(factor - 1) < _LEVEL


def _pays(metrics: dict[str, float], width: int) -> list[Content]:
    """What the stage's shaping does to a right call of each side."""
    known = factors(metrics)
    if known is None:
        return []
    crowding = figures.known(metrics.get("shaping/crowding"))
    pieces = [Content.assemble(_label("pays"))]
    for look, factor in zip((UP, DOWN), known, strict=True):
        style = "$quiet" if is_level(factor) else "$warn"
        pieces.append(
            Content.assemble((f" {look.glyph}", look.style), (f"×{figures.fixed(factor)}", style))
        )
    text = Content("").join(pieces)
    if crowding is not None:
        crowded = UP if crowding > 0 else DOWN
        words = Content.assemble(
            ("  too many ", "$quiet"),
            (crowded.glyph, crowded.style),
            (f" by {abs(100 * crowding):.0f}", "$quiet"),
        )
        if text.cell_length + words.cell_length <= width:
            text += words
    return [text]


def _validation(view: RunModel, width: int) -> Content:
    metrics = view.history.metrics
    series = view.history.series.get("validation/accuracy")
    if series is None or not series.steps:
        return Content.assemble(_label("validated"), (" not yet", "$quiet"))
    low, high = metrics.get("validation/accuracy/low"), metrics.get("validation/accuracy/high")
    figure = Content.assemble(
        _label("validated"),
        (f"{figures.share(metrics.get('validation/accuracy')):>5}", "bold"),
        f" {figures.interval(low, high)}",
        (f" n={figures.whole(metrics.get('validation/accuracy/n'))}", "$quiet"),
    )
    when = f"  step {series.steps[-1]}"
    return figure.append_text(when, "$quiet") if figure.cell_length + len(when) <= width else figure


def _validation_details(metrics: Mapping[str, float]) -> list[Content]:
    """More of the newest validation, for a panel with room; what is not known is left out."""
    prefix = "validation/"
    facts = (
        (
            ("AUC", "auc", figures.fixed),
            ("Brier", "brier", lambda value: figures.fixed(value, 3)),
            ("base rate", "brier/base_rate", lambda value: figures.fixed(value, 3)),
            ("skill", "brier/skill", figures.signed),
            ("ECE", "ece", figures.fixed),
            ("balanced", "accuracy/balanced", figures.share),
            ("days", "accuracy/days", figures.whole),
        ),
        (
            ("always ▲", "baseline/always_up", figures.share),
            ("▼", "baseline/always_down", figures.share),
            ("momentum", "baseline/momentum", figures.share),
            ("base model", "baseline/base_model", figures.share),
            ("parsing", "baseline/base_model_parsed", figures.share),
        ),
    )
    lines = [
        _side(metrics, side, prefix)
        for side in (UP, DOWN)
        if f"{prefix}accuracy/{side.word.lower()}" in metrics
    ]
    for row in facts:
        pieces = [
            Content.assemble((f"{label} ", "$quiet"), form(value))
            for label, name, form in row
            if (value := figures.known(metrics.get(f"validation/{name}"))) is not None
        ]
        if pieces:
            lines.append(Content.assemble(" " * _LABEL, Content("   ").join(pieces)))
    return lines

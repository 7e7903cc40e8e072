"""How every figure of a report looks: sizes, colours by meaning, axes, and PNG bytes.

Colours are told apart by people with any kind of colour blindness (Okabe & Ito 2008,
https://jfly.uni-koeln.de/color), and markers or line styles differ with them. A person's
own settings of matplotlib do not change them, and pyplot, with its global figures, is not used.
"""

import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from matplotlib import style
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.ticker import FuncFormatter

WIDTH = 7.4
DPI = 140
MARKERS = "osD^vP"
DASHES = ("-", (0, (5, 2)), (0, (1, 1.4)), (0, (6, 2, 1, 2)))


@dataclass(frozen=True)
class Look:
    """Colours by what they mean."""

    paper: str
    ink: str
    quiet: str
    faint: str
    base: str
    """The untrained base model, and buy and hold: what others are held against."""
    baseline: str
    right: str
    wrong: str
    series: tuple[str, ...]
    """Checkpoints, or portfolios, in their order."""


LIGHT = Look(
    paper="#ffffff",
    ink="#1b1f24",
    quiet="#57606a",
    faint="#d8dee4",
    base="#7a828c",
    baseline="#9a6700",
    right="#0072b2",
    wrong="#d55e00",
    series=("#0072b2", "#d55e00", "#009e73", "#b3568f", "#b8860b", "#3d8fc0"),
)
DARK = Look(
    paper="#161a20",
    ink="#e6e8eb",
    quiet="#9aa4b0",
    faint="#323a45",
    base="#9aa4b0",
    baseline="#e0b84c",
    right="#56b4e9",
    wrong="#f28e3c",
    series=("#56b4e9", "#f28e3c", "#2fc79a", "#e59ac4", "#f0c24b", "#8fd0f5"),
)


def sheet(
    look: Look, title: str, height: float, rows: Sequence[float] = (1,)
) -> tuple[Figure, list[Any]]:
    """A figure with a title and one plot for each of ``rows``, which are their relative heights."""
    with style.context("default"):
        figure = Figure(
            figsize=(WIDTH, height),
            dpi=DPI,
            facecolor=look.paper,
            layout=ConstrainedLayoutEngine(w_pad=0.08, h_pad=0.06, rect=(0, 0, 0.985, 1)),
        )
        FigureCanvasAgg(figure)
        figure.suptitle(
            _plain(title), x=0.012, ha="left", color=look.ink, fontsize=10.5, fontweight="bold"
        )
        axes = figure.subplots(len(rows), 1, squeeze=False, height_ratios=list(rows))[:, 0]
    for plot in axes:
        plot.set_facecolor(look.paper)
        for side in ("top", "right"):
            plot.spines[side].set_visible(False)
        for side in ("left", "bottom"):
            plot.spines[side].set_color(look.faint)
        plot.tick_params(colors=look.quiet, labelsize=8.5, length=3)
        plot.grid(True, color=look.faint, linewidth=0.6)
        plot.set_axisbelow(True)
    return figure, list(axes)


def label_axes(plot: Any, look: Look, x: str = "", y: str = "") -> None:
    """Name the axes."""
    plot.set_xlabel(x, color=look.quiet, fontsize=9)
    plot.set_ylabel(y, color=look.quiet, fontsize=9)


def percent_axis(axis: Any) -> None:
    """Write fractions as percent."""
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{100 * value:.6g} %"))


def legend(plot: Any, look: Look, **where: Any) -> None:
    """Names of what is drawn; none where nothing has a name."""
    handles, labels = plot.get_legend_handles_labels()
    if handles:
        plot.legend(
            handles,
            [_plain(label) for label in labels],
            frameon=False,
            fontsize=8.5,
            labelcolor=look.ink,
            **where,
        )


def empty(plot: Any, look: Look, why: str) -> None:
    """Say why there is nothing to draw."""
    plot.grid(False)
    plot.set_xticks([])
    plot.set_yticks([])
    plot.text(
        0.5, 0.5, _plain(why), transform=plot.transAxes, ha="center", color=look.quiet, wrap=True
    )


def text(value: str, limit: int = 42) -> str:
    """A label from outside, short enough for a figure."""
    return _plain(value if len(value) <= limit else f"{value[: limit - 1]}…")


def png(figure: Figure) -> bytes:
    """The figure as a PNG file that is the same for the same figure."""
    buffer = io.BytesIO()
    with style.context("default"):
        figure.savefig(
            buffer, format="png", facecolor=figure.get_facecolor(), metadata={"Software": None}
        )
    return buffer.getvalue()


def _plain(value: str) -> str:
    # A dollar sign begins mathematics, in which a label could be any expression.
    return value.replace("$", r"\$")

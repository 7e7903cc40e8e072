"""The figures of a report, each a function of the contents of ``report.json`` and a look."""

import datetime as dt
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from itertools import pairwise
from typing import Any

from matplotlib.dates import AutoDateLocator, ConciseDateFormatter
from matplotlib.figure import Figure

from engine.evaluation import pictures
from engine.evaluation.naming import BASELINES, PORTFOLIOS, Report, file_name, labels, reward_name
from engine.evaluation.pictures import DASHES, MARKERS, Look
from engine.evaluation.ratios import drawdowns
from engine.evaluation.wording import Values, figure, percent, share
from engine.runs.checkpoint_names import BASE

Draw = Callable[[Look], Figure]

MOST_TICKERS = 40
_SIMPLE = {"always_up": ("_", "always UP"), "momentum": ("x", "momentum")}


def all_of(report: Report) -> Iterator[tuple[str, Draw]]:
    """Name of the file, without its ending, and how to draw it."""
    yield "accuracy", partial(accuracy, report)
    yield "roc", partial(roc, report)
    yield "rewards", partial(rewards, report)
    for label in labels(report):
        name = file_name(report, label)
        yield f"{name}-years", partial(slices, report, label, "years")
        yield f"{name}-tickers", partial(slices, report, label, "tickers")
        yield f"{name}-reliability", partial(reliability, report, label)
        if report["backtest"]["why"] is None:
            yield f"{name}-equity", partial(equity, report, label)


def accuracy(report: Report, look: Look) -> Figure:
    """Checkpoints and baselines under each other, with intervals over days."""
    checkpoints = report["summary"]["checkpoints"]
    shown = labels(report)
    rows: list[tuple[str, Values, str, str]] = [
        (pictures.text(label), checkpoints[label]["accuracy"], colour, marker)
        for label, colour, marker in _styled(shown, look)
    ]
    for name, baseline in checkpoints[shown[0]]["baselines"].items():
        if name != "base_model" and baseline["accuracy"]["value"] is not None:
            label = BASELINES.get(name, name).partition(":")[0].partition(" on ")[0]
            rows.append((label, baseline["accuracy"], look.baseline, "|"))
    sheet, (plot,) = pictures.sheet(look, "Share of right calls", 1.2 + 0.34 * len(rows))
    for at, (_, value, colour, marker) in enumerate(rows):
        _whisker(plot, at, value, colour, marker)
        plot.annotate(
            f"{share(value)}  n = {value['n']:,}",
            (1.01, at),
            xycoords=("axes fraction", "data"),
            va="center",
            fontsize=8,
            color=look.ink,
        )
    plot.axvline(0.5, color=look.quiet, linewidth=1, linestyle=(0, (4, 3)), zorder=1)
    plot.set_yticks(range(len(rows)), [row[0] for row in rows], color=look.ink)
    plot.set_ylim(len(rows) - 0.5, -0.5)
    plot.grid(axis="y", visible=False)
    pictures.percent_axis(plot.xaxis)
    return sheet


def slices(report: Report, label: str, kind: str, look: Look) -> Figure:
    """Right calls by year or ticker, beside what simple callers have on the same rows."""
    values = report["summary"]["checkpoints"][label][kind]
    simple = report["curves"][label][kind]
    by_size = sorted(values, key=lambda name: -values[name]["n"])
    names = sorted(by_size[:MOST_TICKERS])
    left_out = len(values) - len(names)
    word = {"years": "by year of the outcome", "tickers": "by ticker"}[kind]
    more = f" (the {len(names)} with most rows of {len(values)})" if left_out else ""
    sheet, (plot,) = pictures.sheet(look, f"{pictures.text(label)}: right calls {word}{more}", 3.4)
    if not names:
        pictures.empty(plot, look, "no completion could be read")
        return sheet
    is_crowded = len(names) > 12
    for at, name in enumerate(names):
        _whisker(plot, at, values[name], look.series[0], "o", is_upright=True)
    for caller, (marker, told) in _SIMPLE.items():
        shown = [simple[name][caller] for name in names]
        colour = look.baseline if caller == "always_up" else look.quiet
        size = (60 if is_crowded else 150) if marker == "_" else 22
        plot.scatter(range(len(names)), shown, s=size, marker=marker, color=colour, label=told,
                     linewidths=1.4, zorder=2)  # fmt: skip
    plot.axhline(0.5, color=look.quiet, linewidth=1, linestyle=(0, (4, 3)), zorder=1)
    ticks = [
        pictures.text(name, 12)
        if is_crowded
        else f"{pictures.text(name, 12)}\nn = {values[name]['n']:,}"
        for name in names
    ]
    plot.set_xticks(range(len(names)), ticks, color=look.ink, rotation=90 if is_crowded else 0)
    plot.set_xlim(-0.7, len(names) - 0.3)
    plot.grid(axis="x", visible=False)
    pictures.percent_axis(plot.yaxis)
    interval = "95 % over days" if kind == "years" else "95 %, Wilson"
    if is_crowded:
        sizes = [values[name]["n"] for name in names]
        most = f" to {max(sizes):,}" if max(sizes) > min(sizes) else ""
        interval += f"; n = {min(sizes):,}{most}"
    plot.scatter(
        [], [], s=26, color=look.series[0], label=f"{pictures.text(label, 24)} [{interval}]"
    )
    pictures.legend(plot, look, loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=3)
    return sheet


def reliability(report: Report, label: str, look: Look) -> Figure:
    """Share right by stated confidence, and how often each confidence was stated."""
    calibration = report["summary"]["checkpoints"][label]["calibration"]
    histogram = report["curves"][label]["confidence"]
    sheet, (plot, counts) = pictures.sheet(
        look, f"{pictures.text(label)}: does stated confidence come true?", 5.0, rows=(2.6, 1)
    )
    bins = calibration["bins"]
    if not bins:
        pictures.empty(plot, look, "no answer states a confidence")
        pictures.empty(counts, look, "")
        return sheet
    low = _lowest_edge(histogram)
    plot.plot([low, 1], [low, 1], color=look.quiet, linewidth=1, linestyle=(0, (4, 3)), zorder=1,
              label="perfectly calibrated")  # fmt: skip
    hits = calibration["hit_rate"]["value"]
    plot.axhline(
        hits, color=look.baseline, linewidth=1, zorder=1, label=f"all: {percent(hits)} right"
    )
    for at, one in enumerate(bins):
        _whisker(plot, one["confidence"], one, look.series[0], "o", is_upright=True)
        plot.annotate(f"n = {one['n']:,}", (one["confidence"], one["high"] or one["value"]),
                      xytext=(0, 3 + 9 * (at % 2)), textcoords="offset points", ha="center",
                      fontsize=7, color=look.quiet)  # fmt: skip
    pictures.label_axes(plot, look, y="share right")
    error, chance = calibration["ece"], calibration["ece_by_chance"]
    plot.scatter([], [], s=26, color=look.series[0],
                 label=f"ECE {figure(error)}; by chance {figure(chance)}")  # fmt: skip
    pictures.legend(plot, look, loc="best")
    edges = histogram["edges"]
    middles = [(left + right) / 2 for left, right in pairwise(edges)]
    width = 0.86 * (edges[1] - edges[0])
    counts.bar(middles, histogram["right"], width, color=look.right, label="right")
    counts.bar(middles, histogram["wrong"], width, bottom=histogram["right"], color=look.wrong,
               label="wrong", hatch="////", edgecolor=look.paper, linewidth=0)  # fmt: skip
    counts.grid(axis="x", visible=False)
    pictures.label_axes(counts, look, x="stated confidence", y="calls")
    pictures.legend(counts, look, loc="lower right", bbox_to_anchor=(1, 0.98), ncols=2)
    for one in (plot, counts):
        one.set_xlim(low - 0.01, 1.01)
        pictures.percent_axis(one.xaxis)
    pictures.percent_axis(plot.yaxis)
    return sheet


def roc(report: Report, look: Look) -> Figure:
    """The ROC curves of all checkpoints."""
    sheet, (plot,) = pictures.sheet(look, "Ranking by P(UP): ROC", 4.6)
    plot.plot([0, 1], [0, 1], color=look.quiet, linewidth=1, linestyle=(0, (4, 3)))
    is_empty = True
    for number, (label, colour, _) in enumerate(_styled(labels(report), look)):
        curve = report["curves"][label]["roc"]
        if curve is not None:
            is_empty = False
            area = report["summary"]["checkpoints"][label]["roc_auc"]
            plot.plot(
                curve["false"],
                curve["true"],
                color=colour,
                linewidth=1.8,
                linestyle=DASHES[number % len(DASHES)],
                label=f"{pictures.text(label, 36)}\nAUC {figure(area)}, n = {area['n']:,}",
            )
    if is_empty:
        pictures.empty(plot, look, "not computable: no stated confidence, or one outcome only")
        return sheet
    plot.set_aspect("equal")
    plot.set_xlim(-0.005, 1.005)
    plot.set_ylim(-0.005, 1.005)
    for axis in (plot.xaxis, plot.yaxis):
        pictures.percent_axis(axis)
    plot.set_anchor("W")
    pictures.label_axes(
        plot, look, "share of DOWN rows above a threshold", "share of UP rows above it"
    )
    pictures.legend(
        plot, look, loc="upper left", bbox_to_anchor=(1.02, 1.0), labelspacing=1.2, borderaxespad=0
    )
    return sheet


def rewards(report: Report, look: Look) -> Figure:
    """Mean of every component of reward and rubric."""
    checkpoints = report["summary"]["checkpoints"]
    shown = labels(report)
    names = list(dict.fromkeys(name for label in shown for name in checkpoints[label]["rewards"]))
    height = 1.3 + len(names) * (0.16 + 0.13 * len(shown))
    sheet, (plot,) = pictures.sheet(look, "Rewards by component", height)
    for number, (label, colour, marker) in enumerate(_styled(shown, look)):
        offset = 0.6 * ((number + 0.5) / len(shown) - 0.5)
        for at, name in enumerate(names):
            value = checkpoints[label]["rewards"].get(name)
            if value is not None:
                _whisker(plot, at + offset, value, colour, marker, size=5)
        n = checkpoints[label]["samples"]
        plot.scatter([], [], s=24, marker=marker, color=colour,
                     label=f"{pictures.text(label)}, n = {n:,}")  # fmt: skip
    plot.axvline(0, color=look.quiet, linewidth=0.8, zorder=1)
    plot.set_yticks(range(len(names)), [reward_name(name) for name in names], color=look.ink)
    plot.set_ylim(len(names) - 0.5, -0.5)
    plot.grid(axis="y", visible=False)
    pictures.legend(plot, look, loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=2)
    return sheet


def equity(report: Report, label: str, look: Look) -> Figure:
    """What the account that trades at the next open was worth, and its drawdowns."""
    test = report["backtest"]["checkpoints"][label]
    curves = test["curves"]["open"]
    days = [dt.date.fromisoformat(day) for day in curves["days"]]
    sheet, (plot, below) = pictures.sheet(
        look, f"{pictures.text(label)}: an account that followed the calls", 5.0, rows=(2.2, 1)
    )
    if len(days) < 2:
        pictures.empty(plot, look, "fewer than two days")
        pictures.empty(below, look, "")
        return sheet
    colours = {"long_flat": look.series[2], "long_short": look.series[0], "buy_and_hold": look.base}
    for name, (colour, dashes) in zip(
        PORTFOLIOS,
        zip(colours.values(), (DASHES[1], DASHES[0], DASHES[2]), strict=True),
        strict=True,
    ):
        values = curves["equity"][name]
        measures = test["buy_and_hold"]["open"] if name == "buy_and_hold" else (
            test["portfolios"][f"{name}/open"]
        )  # fmt: skip
        style = {"color": colour, "linestyle": dashes, "linewidth": 1.6}
        plot.plot(days, values, **style,
                  label=f"{PORTFOLIOS[name]}: Sharpe {figure(measures['sharpe'], 2)}")  # fmt: skip
        deepest = measures["max_drawdown"]
        below.plot(days, drawdowns(values), **style | {"linewidth": 1.1},
                   label=f"{PORTFOLIOS[name]}: {share(deepest)}")  # fmt: skip
    plot.axhline(1, color=look.quiet, linewidth=0.8, zorder=1)
    fees = report["backtest"]["cost_bps"]
    pictures.label_axes(plot, look, y=f"worth, fees {fees:g} bp")
    pictures.label_axes(below, look, y="drawdown", x=f"{test['num_days']['open']:,} trading days, "
                        "trades at the next open")  # fmt: skip
    pictures.percent_axis(below.yaxis)
    plot.sharex(below)
    plot.tick_params(labelbottom=False)
    locator = AutoDateLocator(minticks=4, maxticks=9)
    below.xaxis.set_major_locator(locator)
    below.xaxis.set_major_formatter(ConciseDateFormatter(locator))
    pictures.legend(plot, look, loc="best")
    pictures.legend(below, look, loc="lower center", bbox_to_anchor=(0.5, 0.98), ncols=3)
    return sheet


def _styled(shown: Sequence[str], look: Look) -> list[tuple[str, str, str]]:
    """Label, colour and marker of each checkpoint; the base model is always grey."""
    trained = [label for label in shown if label != BASE]
    return [
        (label, look.base, "X")
        if label == BASE
        else (
            label,
            look.series[trained.index(label) % len(look.series)],
            MARKERS[trained.index(label) % len(MARKERS)],
        )
        for label in shown
    ]


def _whisker(
    plot: Any,
    at: float,
    value: Values,
    colour: str,
    marker: str,
    *,
    is_upright: bool = False,
    size: float = 6,
) -> None:
    """A value with its interval; nothing where it is not computable."""
    if value["value"] is None:
        return
    spread = None
    if value["low"] is not None:
        spread = [
            [max(0.0, value["value"] - value["low"])],
            [max(0.0, value["high"] - value["value"])],
        ]
    x, y = (at, value["value"]) if is_upright else (value["value"], at)
    error: Mapping[str, Any] = {"yerr": spread} if is_upright else {"xerr": spread}
    plot.errorbar([x], [y], **error, color=colour, marker=marker, markersize=size, elinewidth=1.8,
                  capsize=2.5, linestyle="none", markeredgewidth=1.5, zorder=3)  # fmt: skip


def _lowest_edge(histogram: Mapping[str, Any]) -> float:
    """Left end of the axis: a tenth below the least confidence that was stated."""
    totals = [a + b for a, b in zip(histogram["right"], histogram["wrong"], strict=True)]
    first = next((at for at, total in enumerate(totals) if total), 0)
    return max(0.0, float(histogram["edges"][first]) - 0.05)

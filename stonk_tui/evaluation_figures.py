"""The figures of an evaluation's report drawn with characters, each a function of its contents.

Curves go through plotext in braille, as all curves of the cockpit do (``widgets/chart.py``);
values with intervals are whiskers, one a line, with figure and number of rows beside them.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from textual.content import Content

from engine.evaluation.naming import BASELINES, PORTFOLIOS, Report, labels, reward_name
from engine.evaluation.wording import Values, figure, plain, share
from engine.runs.checkpoint_names import BASE
from engine.text import one_line
from stonk_tui.widgets import chart
from stonk_tui.widgets.cells import Cell, runs
from stonk_tui.widgets.chart import Line, Picture
from stonk_tui.widgets.rulers import GUTTER

_STYLES = ("$up", "$down", "$magnitude", "$confidence", "$format", "$coherence")
_BASE, _BASELINE = "$quiet", "$gold"
_ACCOUNTS = {"long_flat": "$magnitude", "long_short": "$up", "buy_and_hold": "$quiet"}
MOST_ROWS = 20
"""Tickers that are shown; those with most rows."""
_BAR = 40


@dataclass(frozen=True)
class _Row:
    name: str
    value: Values
    style: str
    marks: tuple[tuple[float, str, str], ...] = ()
    """Place, character and style of what stands beside the value."""


def draw(report: Report, name: str, width: int) -> Content | None:
    """The figure called ``name`` in at most ``width`` cells; None where there is none."""
    drawn = _drawn(report, name, width)
    if drawn is None:
        return None
    # Only the words over a figure can be wider, in a narrow terminal.
    return Content("\n").join(
        piece
        for line in drawn.split("\n")
        for piece in (line.wrap(width) if line.cell_length > width else (line,))
    )


def _drawn(report: Report, name: str, width: int) -> Content | None:
    if name in _SHARED:
        return _SHARED[name](report, width)
    number, _, kind = name.removeprefix("checkpoint-").partition("-")
    label = labels(report)[int(number) - 1]
    if kind in ("years", "tickers"):
        return _slices(report, label, kind, width)
    if kind == "reliability":
        return _reliability(report, label, width)
    return _equity(report, label, width) if kind == "equity" else None


# --- values with intervals


def _accuracy(report: Report, width: int) -> Content:
    checkpoints = report["summary"]["checkpoints"]
    shown = labels(report)
    found = [_Row(label, checkpoints[label]["accuracy"], style) for label, style in _styled(shown)]
    for name, baseline in checkpoints[shown[0]]["baselines"].items():
        if name != "base_model":
            label = BASELINES.get(name, name).partition(":")[0].partition(" on ")[0]
            found.append(_Row(label, baseline["accuracy"], _BASELINE))
    return _whiskers(found, width, zero=0.5)


def _slices(report: Report, label: str, kind: str, width: int) -> Content | None:
    values = report["summary"]["checkpoints"][label][kind]
    simple = report["curves"][label][kind]
    names = sorted(sorted(values, key=lambda name: -values[name]["n"])[:MOST_ROWS])
    if not names:
        return None
    found = [
        _Row(
            name,
            values[name],
            _STYLES[0],
            (
                (simple[name]["always_up"], "|", _BASELINE),
                (simple[name]["momentum"], "×", _BASE),
            ),
        )
        for name in names
    ]
    key = Content.assemble(
        ("●", _STYLES[0]), (" right  ", "$quiet"), ("|", _BASELINE), (" always UP  ", "$quiet"),
        ("×", _BASE), (" momentum", "$quiet"),
    )  # fmt: skip
    if len(values) > len(names):
        key += Content.styled(f"  the {len(names)} with most rows of {len(values)}", "$quiet")
    return Content("\n").join([key, _whiskers(found, width, zero=0.5)])


def _rewards(report: Report, width: int) -> Content:
    checkpoints = report["summary"]["checkpoints"]
    shown = labels(report)
    names = list(dict.fromkeys(name for label in shown for name in checkpoints[label]["rewards"]))
    found = [
        _Row(
            reward_name(name) if label == shown[0] else "",
            checkpoints[label]["rewards"][name],
            style,
        )
        for name in names
        for label, style in _styled(shown)
        if name in checkpoints[label]["rewards"]
    ]
    key = Content("  ").join(
        Content.assemble(("●", style), (f" {one_line(label, 30)}", "$quiet"))
        for label, style in _styled(shown)
    )
    return Content("\n").join([key, _whiskers(found, width, zero=0.0, is_share=False)])


def _whiskers(rows: Sequence[_Row], width: int, *, zero: float, is_share: bool = True) -> Content:
    """Rows of ``├──●──┤`` over one axis, on which ``zero`` is dotted."""
    tails = [
        f"{share(row.value) if is_share else figure(row.value, 2)}  n={row.value['n']:,}"
        for row in rows
    ]
    names = [one_line(row.name, 22) for row in rows]
    left, right = max(map(len, names)) + 1, max(map(len, tails)) + 1
    columns = max(10, width - left - right)
    places: list[float] = [zero] + [
        place
        for row in rows
        for place in (*(row.value[key] for key in ("value", "low", "high")), *_places(row))
        if place is not None
    ]
    low, high = min(places), max(places)
    spread = (high - low) or 1.0
    low, high = low - 0.03 * spread, high + 0.03 * spread

    def at(place: float) -> int:
        return round((place - low) / (high - low) * (columns - 1))

    output = []
    for row, name, tail in zip(rows, names, tails, strict=True):
        cells: list[Cell] = [(" ", "")] * columns
        cells[at(zero)] = ("┊", "$faint")
        value = row.value
        if value["value"] is not None:
            if value["low"] is not None:
                first, last = at(value["low"]), at(value["high"])
                for column in range(first, last + 1):
                    cells[column] = ("─", row.style)
                if last > first:
                    cells[first], cells[last] = ("├", row.style), ("┤", row.style)
            for place, mark, style in row.marks:
                cells[at(place)] = (mark, style)
            cells[at(value["value"])] = ("●", row.style)
        output.append(Content.assemble(f"{name:<{left}}", *runs(cells), (f" {tail}", "$quiet")))
    ticks = [(at(zero), zero), (0, low), (columns - 1, high)]
    output.append(_axis(ticks, left, columns, is_share=is_share))
    return Content("\n").join(output)


def _places(row: _Row) -> list[float]:
    return [place for place, _, _ in row.marks]


def _axis(
    ticks: Sequence[tuple[int, float]], left: int, columns: int, *, is_share: bool
) -> Content:
    """Numbers under their places, the first of ``ticks`` first; those without room are left out."""
    line = [" "] * columns
    for column, place in ticks:
        text = f"{plain(100 * place, 0)} %" if is_share else plain(place, 1)
        start = min(max(0, column - len(text) // 2), columns - len(text))
        if all(
            line[at] == " " for at in range(max(0, start - 1), min(columns, start + len(text) + 1))
        ):
            line[start : start + len(text)] = text
    return Content.styled(" " * left + "".join(line).rstrip(), "$quiet")


# --- curves


def _roc(report: Report, width: int) -> Content | None:
    shown = [
        (label, style, curve)
        for label, style in _styled(labels(report))
        if (curve := report["curves"][label]["roc"]) is not None
    ]
    if not shown:
        return None
    lines = [Line((0, 100), (0, 100), "$faint")]
    for _, style, curve in reversed(shown):
        false, true = ([100 * one for one in curve[name]] for name in ("false", "true"))
        lines.append(Line(false, true, style))
    picture = Picture(tuple(lines), low=0, high=100, x_low=0, x_high=100, digits=0,
                      x_label="% of DOWN rows")  # fmt: skip
    key = [Content.styled("% of UP rows above a threshold of P(UP)", "$quiet")]
    for label, style, _ in shown:
        area = report["summary"]["checkpoints"][label]["roc_auc"]
        key.append(_named(label, style, f"AUC {figure(area)}, n={area['n']:,}"))
    return Content("\n").join([*key, chart.render(picture, min(width, 64), 17)])


def _reliability(report: Report, label: str, width: int) -> Content | None:
    calibration = report["summary"]["checkpoints"][label]["calibration"]
    bins = calibration["bins"]
    if not bins:
        return None
    histogram = report["curves"][label]["confidence"]
    totals = [sum(pair) for pair in zip(histogram["right"], histogram["wrong"], strict=True)]
    filled = [number for number, total in enumerate(totals) if total]
    low = 100 * max(0.0, histogram["edges"][filled[0]] - 0.05)
    lines = [Line((low, 100), (low, 100), "$faint")]
    for one in bins:
        stated = 100 * one["confidence"]
        if one["low"] is not None:
            ends = (100 * one["low"], 100 * one["high"])
            lines.append(Line((stated, stated), ends, _STYLES[0]))
        lines.append(Line((stated,), (100 * one["value"],), f"bold {_STYLES[0]}", marker="●"))
    picture = Picture(tuple(lines), x_low=low, x_high=100, digits=0, x_label="% stated")
    error, chance = calibration["ece"], calibration["ece_by_chance"]
    key = _named(label, _STYLES[0], f"% right; ECE {figure(error)}, by chance {figure(chance)}")
    drawn = chart.render(picture, min(width, 90), 15)
    most = max(totals)
    bars = [
        Content.assemble(
            (f"{100 * histogram['edges'][number]:>5.0f} % ", "$quiet"),
            ("█" * _length(histogram["right"][number], most), "$up"),
            ("▒" * _length(histogram["wrong"][number], most), "$down"),
            (
                f" {histogram['right'][number]:,} right, {histogram['wrong'][number]:,} wrong",
                "$quiet",
            ),
        )
        for number in filled
    ]
    return Content("\n").join([key, drawn, *bars])


def _length(count: int, most: int) -> int:
    return round(_BAR * count / most)


def _equity(report: Report, label: str, width: int) -> Content | None:
    if report["backtest"]["why"] is not None:
        return None
    test = report["backtest"]["checkpoints"][label]
    curves = test["curves"]["open"]
    days = curves["days"]
    if len(days) < 2:
        return None
    steps = range(len(days))
    # Later ones are drawn over earlier ones.
    worth = [
        Line(steps, curves["equity"][name], style) for name, style in reversed(_ACCOUNTS.items())
    ]
    fallen = [replace(line, values=_drawdowns(line.values)) for line in worth]
    key = []
    for name, style in _ACCOUNTS.items():
        held = name == "buy_and_hold"
        one = test["buy_and_hold"]["open"] if held else test["portfolios"][f"{name}/open"]
        told = f"Sharpe {figure(one['sharpe'], 2)}, largest drawdown {share(one['max_drawdown'])}"
        key.append(_named(PORTFOLIOS[name], style, told))
    return Content("\n").join(
        [
            *key,
            Content.styled(
                f"worth, from 1, after fees; n={test['num_days']['open']:,} days", "$quiet"
            ),
            *_dated(chart.render(Picture(tuple(worth)), width, 13), days, width),
            Content.styled("drawdown in %", "$quiet"),
            *_dated(chart.render(Picture(tuple(fallen), high=0, digits=0), width, 7), days, width),
        ]
    )


def _drawdowns(worth: Sequence[float]) -> list[float]:
    """How far each value lies below the highest so far, in percent; the account began with 1."""
    highest, found = 1.0, []
    for value in worth:
        highest = max(highest, value)
        found.append(100 * (value / highest - 1))
    return found


def _dated(drawn: Content, days: Sequence[str], width: int) -> list[Content]:
    """A chart over the numbers of days, with the days themselves under it."""
    columns = width - GUTTER
    count = max(2, columns // 24)
    line = [" "] * columns
    for number in range(count):
        share_of = number / (count - 1)
        text = str(days[round(share_of * (len(days) - 1))])[:10]
        start = min(max(0, round(share_of * (columns - 1)) - len(text) // 2), columns - len(text))
        line[start : start + len(text)] = text
    ruler = Content.assemble((" " * (GUTTER - 1) + "└", "$faint"), ("".join(line), "$quiet"))
    return [*drawn.split("\n")[:-1], ruler]


def _named(label: str, style: str, told: str) -> Content:
    return Content.assemble(("● ", style), (one_line(label, 40), "bold"), (f"  {told}", "$quiet"))


def _styled(shown: Sequence[str]) -> list[tuple[str, str]]:
    """Each checkpoint with its style; the base model is always quiet."""
    trained = [label for label in shown if label != BASE]
    return [
        (label, _BASE if label == BASE else _STYLES[trained.index(label) % len(_STYLES)])
        for label in shown
    ]


_SHARED: Mapping[str, Callable[[Report, int], Content | None]] = {
    "accuracy": _accuracy,
    "roc": _roc,
    "rewards": _rewards,
}
"""Figures about all checkpoints."""

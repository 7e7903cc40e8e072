"""A report, opened: verdict and reasons first, then what they rest on.

Pure functions of a file that another version or program may have written.
"""

from typing import Any

from textual.content import Content

from stonk_tui import evaluation_form
from stonk_tui.evaluation_list import Past
from stonk_tui.evaluation_report import Report, Values, at, mapping, mappings
from stonk_tui.theme import UNKNOWN
from stonk_tui.widgets import figures
from stonk_tui.widgets import report_tables as tables
from stonk_tui.widgets.evaluations import verdict
from stonk_tui.widgets.panel import rows
from stonk_tui.widgets.text import line, shown

_HEADLINE, _FLAT = "long_short/open", "long_flat/open"
_MAX_REASONS = 30
_MARKS = {
    "synthetic": "SYNTHETIC DATA: it says nothing about real prices",
    "overlap": "OVERLAPS TRAINING: these days may have been trained on",
}


def title(past: Past) -> Content:
    """For the frame, where it stays in sight: which one, and the marks of every page."""
    report = Report(past)
    words = [text.partition(":")[0] for name, text in _MARKS.items() if name in report.marks]
    return Content.assemble(
        line(past.id, "bold", limit=60), *((f" · {word}", "bold $warn") for word in words)
    )


def opened(past: Past, width: int) -> Content:
    """The whole report, ``width`` cells wide."""
    report = Report(past)
    marks = [Content.styled(f"! {_MARKS[name]}", "bold $warn") for name in report.marks]
    if past.report is None:
        return rows(*marks, *_no_report(past))
    sections = [
        [*marks, *_verdicts(report)],
        tables.table("", tables.METRICS, report, width),
        _baselines(report, width),
        _comparisons(report),
        _calibration(report, width),
        tables.table("By side", tables.SIDES, report, width),
        _years(report, width),
        _backtest(report, width),
        _facts(report),
        _unknown(report),
    ]
    return rows(*(piece for section in sections if section for piece in [*section, ""]))


def _no_report(past: Past) -> list[Content | str]:
    if past.is_unfinished:
        asked = evaluation_form.values_of(past.context.get("request"))
        how = (
            "The form now asks for the same: f5 goes on from there, and predicts nothing twice."
            if asked is not None
            else "The same `stonk-tui eval` goes on from there, and predicts nothing twice."
        )
        return [
            Content.styled("■ Unfinished", "bold $warn"),
            "It was not brought to its end, and has no report; what was predicted is kept.",
            how,
            "",
            *_path(past),
        ]
    return [
        Content.styled("! No report", "bold $warn"),
        line(past.problem, "$warn", limit=300),
        "Its predictions stand in predictions.db beside it; evaluating anew makes a new report.",
        "",
        *_path(past),
    ]


def _verdicts(report: Report) -> list[Content | str]:
    lines: list[Content | str] = []
    for label in report.trained:
        name = line(label, "bold $gold", limit=60)
        lines.append(Content.assemble(verdict(report.word(label)).stylize("bold"), "   ", name))
        lines += [
            Content.assemble(("  – ", "$quiet"), line(reason, limit=400))
            for reason in report.reasons(label)
        ]
    return lines


def _baselines(report: Report, width: int) -> list[Content | str]:
    """Each baseline's accuracy, and how much better each checkpoint is on the same rows."""
    lines: list[Content | str] = []
    for labels in tables.groups(report, width - tables.CELL):
        found = {one.name: one for label in labels for one in report.baselines(label)}
        if not found:
            continue
        names = [line(f"{label} less it", "bold $gold", limit=80) for label in labels]
        lines.append(
            tables.row("Baselines, same rows", [Content.styled("right", "$quiet"), *names])
        )
        for name, one in found.items():
            differences = [
                mapping(at(mapping(report.of(label, "baselines")), name, "difference"))
                for label in labels
            ]
            cells = [tables.cell(dict(one.accuracy), tables.share)]
            cells += [tables.cell(dict(difference), tables.points) for difference in differences]
            lines.append(tables.row(line(one.label, limit=tables.NAME - 2).plain, cells))
    return lines


def _comparisons(report: Report) -> list[Content | str]:
    pairs = mappings(at(report.contents, "summary", "comparisons"))
    lines: list[Content | str] = []
    for pair in pairs:
        lines.append(
            Content.assemble(
                line(pair.get("first"), "bold", limit=40),
                (" less ", "$quiet"),
                line(pair.get("second"), "bold", limit=40),
                "  ",
                tables.cell(pair.get("accuracy"), tables.points),
                ("   McNemar p ", "$quiet"),
                tables.three(at(pair, "mcnemar", "p_holm")),
                ("   Diebold–Mariano p ", "$quiet"),
                tables.three(at(pair, "diebold_mariano", "p_holm")),
            )
        )
    if not lines:
        return []
    return [Content.styled("Compared (points right; p with Holm's correction)", "$quiet"), *lines]


# --- calibration, years, backtest


def _calibration(report: Report, width: int) -> list[Content | str]:
    lines: list[Content | str] = []
    for label in report.labels:
        bins = mappings(report.of(label, "calibration", "bins"))
        if not bins:
            continue
        lines.append(
            Content.assemble(
                ("Calibration of ", "$quiet"),
                line(label, "bold $gold", limit=60),
                ("   stated, and right: the tick is what was stated", "$quiet"),
            )
        )
        room = max(10, min(50, width - 40))
        lines += [_bin(one, room) for one in bins]
    return lines


def _bin(one: Values, width: int) -> Content:
    """``62 % ━━━━━━━┃── 55 % [50, 60] n=100``."""
    stated, right = figures.known(one.get("confidence")), figures.known(one.get("value"))
    done, rest = figures.meter(right, width)
    cells = [(character, "$confidence") for character in done]
    cells += [(character, "$faint") for character in rest]
    if stated is not None:
        cells[min(width - 1, max(0, round(stated * width)))] = ("┃", "bold $ink")
    interval = figures.interval(one.get("low"), one.get("high"))
    return Content.assemble(
        f"{figures.share(stated):>6} ",
        *cells,
        (f" {figures.share(right):>5}", "bold"),
        f" {interval}",
        (f" n={figures.whole(one.get('n'))}", "$quiet"),
    )


def _years(report: Report, width: int) -> list[Content | str]:
    years = dict.fromkeys(
        year for label in report.labels for year in mapping(report.of(label, "years"))
    )
    metrics: list[tables.Metric] = [
        (line(year, limit=tables.NAME - 2).plain, ("years", year), None)
        for year in sorted(map(str, years))
    ]
    return tables.table("By year", metrics, report, width) if metrics else []


_ACCOUNT: tuple[tuple[str, str, tables.Form], ...] = (
    ("Sharpe, a year", "sharpe", tables.two),
    ("probabilistic Sharpe", "probabilistic_sharpe", tables.share),
    ("deflated Sharpe", "deflated_sharpe", tables.share),
    ("total return", "total_return", tables.share),
    ("without fees", "total_return_without_fees", tables.share),
    ("largest drawdown", "max_drawdown", tables.share),
    ("days won", "win_rate", tables.share),
    ("profit factor", "profit_factor", tables.two),
    ("turnover a day", "turnover", tables.share),
    ("exposure", "exposure", tables.share),
)


def _backtest(report: Report, width: int) -> list[Content | str]:
    why = at(report.contents, "backtest", "why")
    if why:
        return [Content.assemble(("Backtest: not computable: ", "$quiet"), line(why, limit=300))]
    lines: list[Content | str] = []
    for label in report.trained:
        courses = _courses(report, label)
        if not any(values for _, values in courses):
            continue
        room = max(1, (width - tables.NAME) // tables.CELL)
        fee = tables.two(at(report.contents, "backtest", "cost_bps"))
        days = figures.whole(report.backtest(label, "num_days", "open"))
        lines.append(
            Content.assemble(
                ("Backtest of ", "$quiet"),
                line(label, "bold $gold", limit=60),
                (f"   {fee} basis points a trade, {days} days", "$quiet"),
            )
        )
        for start in range(0, len(courses), room):
            beside = courses[start : start + room]
            lines.append(tables.row("", [Content.styled(name, "$quiet") for name, _ in beside]))
            lines += [
                tables.row(name, [tables.cell(values.get(key), form) for _, values in beside])
                for name, key, form in _ACCOUNT
            ]
    return lines


def _courses(report: Report, label: str) -> list[tuple[str, Values]]:
    """The accounts that are shown of a checkpoint's backtest."""
    return [
        ("long/short, at the open", mapping(report.backtest(label, "portfolios", _HEADLINE))),
        ("long/flat, at the open", mapping(report.backtest(label, "portfolios", _FLAT))),
        ("buy and hold", mapping(report.backtest(label, "buy_and_hold", "open"))),
    ]


# --- what it was, and where it lies


def _facts(report: Report) -> list[Content | str]:
    context = report.context
    days = [context.get("dates"), context.get("train_dates")]
    tested, trained = (_span(value) for value in days)
    touches = figures.whole(context.get("touches"))
    facts: list[tuple[str, Content]] = [
        ("source", line(context.get("source") or UNKNOWN, limit=200)),
        (
            "split",
            Content.assemble(
                line(context.get("split") or UNKNOWN, limit=20), f", {tested}; trained on {trained}"
            ),
        ),
        (
            "looked at",
            Content(
                f"{touches} times so far, this one included; "
                f"{figures.whole(context.get('trials'))} different checkpoints tried on it"
            ),
        ),
        (
            "samples",
            Content(
                f"{figures.whole(context.get('samples'))} an example, temperature "
                f"{figures.small(context.get('temperature'))}"
            ),
        ),
        ("leakage suite", _suite(context.get("leakage"))),
        ("took", Content(figures.duration(context.get("seconds")))),
    ]
    lines: list[Content | str] = [
        Content.assemble((f"{name:<{tables.NAME}}", "$quiet"), content) for name, content in facts
    ]
    return [*lines, *_path(report.past)]


def _span(value: object) -> str:
    ends = [line(end, limit=10).plain for end in value] if isinstance(value, list) else []
    return " to ".join(ends[:2]) if ends else UNKNOWN


def _suite(value: object) -> Content:
    leakage = mapping(value)
    if not leakage:
        return Content("did not run")
    if leakage.get("green") is True:
        return Content.styled("✓ green", "$good")
    failed = leakage.get("failed")
    names = ", ".join(map(str, failed)) if isinstance(failed, list) else UNKNOWN
    return Content.assemble(("✗ red: ", "$bad"), line(names, limit=300))


def _path(past: Past) -> list[Content | str]:
    return [
        Content.assemble((f"{'folder':<{tables.NAME}}", "$quiet"), shown(past.folder, limit=1000)),
        Content.styled(
            f"{'':<{tables.NAME}}report.html opens in a browser; y copies the path", "$quiet"
        ),
    ]


def _unknown(report: Report) -> list[Content | str]:
    """Why figures are missing, each reason once."""
    reasons: dict[str, None] = {}
    for label in report.labels:
        for name, why in _reasons(report.of(label)):
            reasons.setdefault(f"{label}: {name}: {why}")
    for label in report.trained:
        for course, values in _courses(report, label):
            for name, why in _reasons(values):
                reasons.setdefault(f"{label}: {course}: {name}: {why}")
    if not reasons:
        return []
    told = list(reasons)[:_MAX_REASONS]
    head = Content.styled(f"Not computable ({UNKNOWN})", "$quiet")
    return [head, *(line(reason, limit=300) for reason in told)]


def _reasons(values: object, path: tuple[str, ...] = ()) -> list[tuple[str, str]]:
    """(name, why) of every value that has none."""
    if len(path) > 4:
        return []
    found: list[tuple[str, str]] = []
    for name, value in mapping(values).items():
        here: dict[str, Any] = dict(mapping(value))
        if here and "why" in here and here.get("value") is None and here["why"]:
            found.append((" ".join((*path, str(name))).replace("_", " "), str(here["why"])))
        elif here:
            found += _reasons(here, (*path, str(name)))
    return found

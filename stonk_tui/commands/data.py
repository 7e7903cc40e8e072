"""``data``: look at market data, check it for leaks, write it as files."""

import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from engine.config import DataConfig
from engine.errors import RunFailedError
from engine.market.lookup import find_example
from engine.text import one_line
from stonk_tui.commands.output import say, say_json, table

if TYPE_CHECKING:
    from engine.market.dataset import Dataset
    from engine.market.example import Example
    from engine.market.leakage import Audit
    from engine.market.prompts import Prompt, Style
    from engine.market.quality import Market

_SHOWN = 10
"""Gaps, splits and the like that are listed for a person; JSON has them all."""

_BUCKETS = 60
"""Points of the picture."""


def print_sources() -> None:
    """Every kind of source and how it is written."""
    from engine.market.sources import FORMS

    say(table(("SOURCE", "WHAT IT IS"), [*FORMS.items()]))


def show(
    source: str, ticker: str, date: str, *, style: "Style", horizon: int, as_json: bool
) -> None:
    """One example as the model would see it, its label, and when everything became known.

    Raises:
        UserError: unknown source or ticker, or a day without an example.
    """
    _, dataset = load_dataset(source, horizon)
    example = find_example(dataset, ticker, date)
    from engine.market.prompts import compose

    prompt = compose(example, style=style)
    shown = _shown(source, style, example, prompt)
    if as_json:
        say_json(shown)
    else:
        say(_example_text(shown))


def print_stats(source: str, *, horizon: int, as_json: bool) -> None:
    """What a source delivers: rows, sides, gaps, splits, and what was refused.

    Raises:
        UserError: the source cannot be used.
    """
    market, dataset = load_dataset(source, horizon)
    found = _stats(market, dataset)
    if as_json:
        say_json(found)
        return
    say(_stats_text(found))
    if sys.stdout.isatty():
        say()
        say(picture(dataset, shutil.get_terminal_size().columns))


def check(source: str, *, horizon: int, as_json: bool) -> None:
    """Run the leakage suite.

    Raises:
        UserError: the source cannot be used.
        RunFailedError: a check is red.
    """
    from engine.market.dataset import Dataset
    from engine.market.leakage import Subject, audit

    market = _market(source)
    # An option that prompts may use: what it shows is judged too.
    data = data_config(horizon).model_copy(update={"market_share": True})
    found = audit(Subject(market, lambda histories: Dataset.configured(histories, data)))
    if as_json:
        say_json(_audit(source, found))
    else:
        say(_audit_text(source, found))
    if found.red:
        raise RunFailedError(f"{one_line(source)} leaks: {', '.join(found.red)}")


def prepare(
    source: str,
    out: Path,
    *,
    window: int,
    horizon: int,
    normalisation: Literal["none", "standard"],
) -> None:
    """Write windows of prices as files.

    Raises:
        UserError: unknown source, an option out of range, or a folder in the way.
    """
    from engine.market.prepare import FILE_SPLITS, PrepareOptions
    from engine.market.prepare import prepare as write
    from stonk_tui.commands.progress import progress_display

    options = PrepareOptions(window=window, horizon=horizon, normalisation=normalisation)
    with progress_display() as progress:
        progress("reading the source", 0, 0)
        histories = _market(source).histories
        prepared = write(
            histories, out, options, lambda done, total: progress("writing tickers", done, total)
        )
    counts = {
        name: sum(rows[name] for rows in prepared.rows.values())
        for name in (*FILE_SPLITS.values(), "full")
    }
    say(
        f"{counts.pop('full'):,} windows of {len(prepared.rows)} tickers in"
        f" {one_line(str(prepared.folder))}: "
        + ", ".join(f"{name} {count:,}" for name, count in counts.items())
    )
    left_out = [f"{count:,} {reason}" for reason, count in prepared.left_out.items() if count]
    if left_out:
        say(f"in no split: {', '.join(left_out)}")
    for ticker, reason in prepared.skipped.items():
        say(f"{one_line(ticker)} left out: {one_line(reason)}")


def picture(dataset: "Dataset", width: int) -> str:
    """The share of UP over time, with the borders between the splits."""
    import numpy as np

    from engine.market.splits import SPLIT_NAMES
    from stonk_tui.widgets.chart import Line, Mark, Picture, render

    parts = [dataset.rows(name) for name in SPLIT_NAMES]
    days = np.concatenate([rows.day for rows in parts]).astype(np.int64)
    if not len(days):
        return ""
    up = np.concatenate([rows.up for rows in parts])
    years = 1970 + days / 365.25
    edges = np.linspace(years.min(), years.max() + 1e-6, _BUCKETS + 1)
    bucket = np.digitize(years, edges) - 1
    totals = np.bincount(bucket, minlength=_BUCKETS)
    shares = np.bincount(bucket, up, _BUCKETS) / np.maximum(totals, 1) * 100
    kept = np.flatnonzero(totals)
    line = Line(
        ((edges[:-1] + edges[1:]) / 2)[kept].tolist(), shares[kept].tolist(), style="", label="UP"
    )
    marks = tuple(
        Mark(1970 + float(dataset.spans[name].first.astype(np.int64)) / 365.25, name)
        for name in SPLIT_NAMES[1:]
    )
    drawn = render(Picture((line,), marks, low=0.0, high=100.0, x_label="year"), width, 12)
    return f"UP, % of rows\n{drawn.plain}"


# ---------------------------------------------------------------------------
# Loading


def data_config(horizon: int) -> DataConfig:
    """The default settings for a horizon, its embargo long enough."""
    default = DataConfig()
    return DataConfig(horizon=horizon, embargo=max(default.embargo, horizon))


def _market(source: str) -> "Market":
    from engine.market import sources

    return sources.load(source)


def load_dataset(source: str, horizon: int) -> "tuple[Market, Dataset]":
    """A source and its examples.

    Raises:
        UserError: the source cannot be used.
    """
    from engine.market.dataset import Dataset

    market = _market(source)
    return market, Dataset.configured(market.histories, data_config(horizon))


# ---------------------------------------------------------------------------
# Words and JSON


def _shown(source: str, style: str, example: "Example", prompt: "Prompt") -> dict[str, Any]:
    texts = {f"headline {n}": h.text for n, h in enumerate(example.headlines, start=1)}
    return {
        "source": source,
        "ticker": example.ticker,
        "company": example.company,
        "as_of": example.as_of.isoformat(),
        "decision_time": example.known_at.isoformat(),
        "style": style,
        "horizon": example.horizon,
        "messages": [dict(message) for message in prompt.messages],
        "dropped": list(prompt.dropped),
        "label": {
            "direction": example.label.direction,
            "percent": example.label.percent,
            "outcome_day": example.outcome_day.isoformat(),
        },
        "known": [
            {"what": what, "known_at": moment.isoformat(), "text": texts.get(what)}
            for what, moment in example.known_times()
        ],
    }


def _example_text(shown: dict[str, Any]) -> str:
    label = shown["label"]
    lines = [
        f"{one_line(shown['ticker'])} on {shown['as_of']}, style {shown['style']},"
        f" horizon {shown['horizon']}, source {one_line(shown['source'])}"
    ]
    for message in shown["messages"]:
        lines += ["", f"[{message['role']}]", message["content"]]
    lines += [
        "",
        f"label: {label['direction']} {label['percent']:+.2f}% at the close of"
        f" {label['outcome_day']}",
    ]
    if shown["dropped"]:
        lines.append(f"no room for: {', '.join(shown['dropped'])}")
    lines += ["", f"known when (decision time {shown['decision_time']}):"]
    rows = [
        (known["known_at"], known["what"], one_line(known["text"] or "", 60))
        for known in shown["known"]
    ]
    return "\n".join([*lines, table(("KNOWN AT", "WHAT", ""), rows)])


def _stats(market: "Market", dataset: "Dataset") -> dict[str, Any]:
    import numpy as np

    from engine.market.splits import SPLIT_NAMES

    rows = {name: dataset.rows(name) for name in SPLIT_NAMES}
    counts = {
        name: np.bincount(part.history, minlength=len(dataset.histories)).tolist()
        for name, part in rows.items()
    }
    report = market.report
    return {
        "source": market.source,
        "description": report.description,
        "synthetic": report.synthetic,
        "window": dataset.window,
        "horizon": dataset.horizon,
        "splits": {
            name: {
                "first": str(dataset.spans[name].first),
                "last": str(dataset.spans[name].last),
                "rows": len(part),
                "days": len(np.unique(part.day)),
                "up": int(part.up.sum()),
                "up_share": float(part.up.mean()) if len(part) else None,
            }
            for name, part in rows.items()
        },
        "tickers": [
            {
                "ticker": history.ticker,
                "company": history.company,
                "days": len(history),
                "first": str(history.days[0]),
                "last": str(history.days[-1]),
                **{name: counts[name][at] for name in SPLIT_NAMES},
            }
            for at, history in enumerate(dataset.histories)
        ],
        "read": [
            {
                "kind": count.kind,
                "read": count.read,
                "refused": [
                    {
                        "reason": refused.reason,
                        "count": refused.count,
                        "examples": list(refused.examples),
                    }
                    for refused in count.refused
                ],
            }
            for count in report.rows
        ],
        "stock_splits": [
            {"ticker": split.ticker, "day": split.day.isoformat(), "ratio": split.ratio}
            for split in report.splits
        ],
        "gaps": [
            {
                "ticker": gap.ticker,
                "after": gap.after.isoformat(),
                "until": gap.until.isoformat(),
                "days": gap.days,
            }
            for gap in report.gaps
        ],
        "notes": list(report.notes),
    }


def _stats_text(found: dict[str, Any]) -> str:
    blocks = [
        f"{one_line(found['source'])}: {one_line(found['description'], 400)}\n"
        f"window {found['window']}, horizon {found['horizon']}"
    ]
    header = ("TICKER", "DAYS", "FIRST", "LAST", "TRAIN", "VALIDATION", "TEST")
    keys = [name.lower() for name in header]
    blocks.append(table(header, [[str(row[key]) for key in keys] for row in found["tickers"]]))
    splits = [
        (
            name,
            f"{split['first']} to {split['last']}",
            f"{split['rows']:,}",
            f"{split['days']:,}",
            "" if split["up_share"] is None else f"{split['up_share']:.1%}",
        )
        for name, split in found["splits"].items()
    ]
    blocks.append(table(("SPLIT", "AS-OF DAYS", "ROWS", "DAYS", "UP"), splits))
    read = []
    for kind in found["read"]:
        refused = sum(one["count"] for one in kind["refused"])
        read.append(f"{kind['read']:,} {kind['kind']} read, {refused:,} refused")
        for one in kind["refused"]:
            read.append(f"  {one['count']:,} {one['reason']}")
            read += [f"    {one_line(example, 400)}" for example in one["examples"]]
    blocks.append("\n".join(read))
    stock_splits = [
        f"{one_line(one['ticker'])} {one['day']}: {one['ratio']:g} for 1"
        for one in found["stock_splits"]
    ]
    gaps = [
        f"{one_line(one['ticker'])} {one['after']} to {one['until']}: {one['days']} days"
        for one in found["gaps"]
    ]
    blocks.append(_some("stock splits", stock_splits))
    blocks.append(_some("gaps without a label", gaps))
    blocks += [f"note: {one_line(note, 400)}" for note in found["notes"]]
    return "\n\n".join(blocks)


def _some(what: str, lines: Sequence[str]) -> str:
    more = [f"  and {len(lines) - _SHOWN:,} more (--json)"] if len(lines) > _SHOWN else []
    return "\n".join([f"{len(lines):,} {what}", *(f"  {one}" for one in lines[:_SHOWN]), *more])


def _audit(source: str, found: "Audit") -> dict[str, Any]:
    return {
        "source": source,
        "verdict": "red" if found.red else "green",
        "rows": found.num_rows,
        "examples": found.num_examples,
        "checks": [
            {
                "name": one.name,
                "proves": one.proves,
                "verdict": one.verdict,
                "checked": one.checked,
                "offences": one.offences,
                "first": one.first,
                "evidence": one.evidence,
            }
            for one in found.checks
        ],
    }


def _audit_text(source: str, found: "Audit") -> str:
    lines = [
        f"{one_line(source)}: {found.num_examples:,} examples sampled from {found.num_rows:,} rows"
    ]
    for one in found.checks:
        lines += ["", f"{one.verdict:<8}{one.name}", f"        {one.proves}"]
        lines.append(f"        {one.evidence}")
        if one.first:
            lines.append(f"        first: {one_line(one.first, 300)}")
    return "\n".join(lines)

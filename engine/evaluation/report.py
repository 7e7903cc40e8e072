"""The report of an evaluation: one folder that says what was found, to a person and to a program.

``report.json`` holds every number; everything else is made from it: ``report.md``, the page
``report.html``, which needs nothing beside it, the pictures in ``figures``. ``predictions.parquet``
is the table from which it was computed.
"""

import base64
import json
import os
import secrets
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from engine.errors import UserError
from engine.evaluation import context as contexts
from engine.evaluation import curves, document, figures, pictures, sections
from engine.evaluation import table as tables
from engine.evaluation.context import Context
from engine.evaluation.document import Figure
from engine.evaluation.performance import measure_all
from engine.evaluation.summary import summarise
from engine.evaluation.verdict import verdict
from engine.runs.durable import fsync_directory, fsync_file
from engine.text import one_line

FILE = "report.json"
PRICES = "prices.parquet"
BASELINES = "baselines.parquet"
PREDICTIONS = "predictions.parquet"
VERSION = 1

MAX_COMPLETION = 1200
"""Characters of an example completion that are kept."""
EXAMPLES = 2
"""Right ones, wrong ones and unread ones of each checkpoint."""

_STAGE = ".report-"


def build(folder: Path, *, draws: int = 10_000) -> dict[str, Any]:
    """Write the report of the evaluation in ``folder``, in place of one that is there.

    All files are made in a hidden folder beside it and moved one after another, ``report.json``
    last; a process that is killed before that leaves the old report as it was.

    Args:
        folder: with ``evaluation.json`` and ``predictions.db``; ``prices.parquet`` and
            ``baselines.parquet`` where they could be made.
        draws: of every bootstrap.

    Returns:
        What ``report.json`` holds: ``version``, ``context``, ``verdicts`` (label to ``word`` and
        ``reasons``), ``summary`` (see ``summary.summarise``), ``backtest`` (see
        ``performance.measure_all``), ``curves`` (label to what ``curves.of`` returns) and
        ``examples`` (label to a list).

    Raises:
        UserError: there is no evaluation, or it holds no prediction.
    """
    context = contexts.read(folder)
    table = tables.read(folder)
    found = contents(
        context,
        table,
        prices=_optional(folder / PRICES),
        baselines=_optional(folder / BASELINES),
        draws=draws,
    )
    for left_over in folder.glob(f"{_STAGE}*"):
        shutil.rmtree(left_over)
    stage = folder / f"{_STAGE}{secrets.token_hex(4)}"
    stage.mkdir()
    _write(stage, found, table)
    _move(stage, folder)
    return found


def contents(
    context: Context,
    table: pd.DataFrame,
    *,
    prices: pd.DataFrame | None,
    baselines: pd.DataFrame | None,
    draws: int = 10_000,
) -> dict[str, Any]:
    """What ``report.json`` holds; a pure function of the predictions and what stands beside them.

    Raises:
        UserError: there is no prediction.
    """
    decisions = tables.decisions(table)
    summary = summarise(decisions, table, baselines, seed=context.seed, draws=draws)
    judged = {label: verdict(one, context) for label, one in summary["checkpoints"].items()}
    found = {
        "version": VERSION,
        "context": context.model_dump(mode="json"),
        "verdicts": {
            label: {"word": one.word, "reasons": list(one.reasons)} for label, one in judged.items()
        },
        "summary": summary,
        "backtest": _backtest(context, decisions, prices, draws),
        "curves": {
            str(label): curves.of(rows)
            for label, rows in decisions.groupby("checkpoint", sort=False)
        },
        "examples": {
            str(label): _examples(rows, context.seed)
            for label, rows in table.groupby("checkpoint", sort=False)
        },
    }
    # What is computed now is what a reader of the file gets.
    read: dict[str, Any] = json.loads(_json(found))
    return read


def _backtest(
    context: Context, decisions: pd.DataFrame, prices: pd.DataFrame | None, draws: int
) -> dict[str, Any]:
    if prices is None:
        prices = pd.DataFrame(columns=["ticker", "day", "open", "close"])
    return measure_all(
        decisions,
        prices,
        trials=context.trials,
        trial_sharpes=context.trial_sharpes,
        seed=context.seed,
        draws=draws,
    )


def _examples(rows: pd.DataFrame, seed: int) -> list[dict[str, Any]]:
    """A few completions of one checkpoint: right, wrong and unread ones, drawn by the seed."""
    rng = np.random.default_rng(seed)
    is_read = rows["called_up"].notna().to_numpy()
    is_right = rows["called_up"].eq(rows["actual_up"]).to_numpy(dtype=bool)
    drawn: list[dict[str, Any]] = []
    for kind in (is_read & is_right, is_read & ~is_right, ~is_read):
        places = np.flatnonzero(kind)
        chosen = rng.choice(places, min(EXAMPLES, len(places)), replace=False)
        drawn += [_example(rows.iloc[place], bool(is_right[place])) for place in sorted(chosen)]
    return drawn


def _example(row: pd.Series, is_right: bool) -> dict[str, Any]:
    text = str(row["completion"])
    if len(text) > MAX_COMPLETION:
        text = f"{text[:MAX_COMPLETION]}… {len(text) - MAX_COMPLETION:,} more characters"
    return {
        "key": row["key"],
        "sample": int(row["sample"]),
        "called_up": None if row["called_up"] is None else bool(row["called_up"]),
        "confidence": None if np.isnan(row["confidence"]) else float(row["confidence"]),
        "actual_up": bool(row["actual_up"]),
        "actual_percent": float(row["actual_percent"]),
        "reward": float(row["reward"]),
        "right": is_right,
        "completion": text,
    }


def _optional(path: Path) -> pd.DataFrame | None:
    """A table that an evaluation may lack.

    Raises:
        UserError: it is there and cannot be read.
    """
    if not path.exists():
        return None
    try:
        return pd.read_parquet(path)
    except (OSError, ValueError) as error:
        raise UserError(
            f"cannot be read as a table ({one_line(str(error), 100)})", where=one_line(str(path))
        ) from error


def _write(stage: Path, found: dict[str, Any], table: pd.DataFrame) -> None:
    blocks = sections.blocks(found)
    (stage / "figures").mkdir()
    images: dict[str, tuple[bytes, bytes]] = {}
    for name, draw in figures.all_of(found):
        light, dark = (pictures.png(draw(look)) for look in (pictures.LIGHT, pictures.DARK))
        (stage / "figures" / f"{name}.png").write_bytes(light)
        images[name] = (light, dark)
    shown = [one for one in blocks if not isinstance(one, Figure) or one.name in images]
    (stage / "report.md").write_text(document.to_markdown(shown), encoding="utf-8")
    page = document.to_html(
        shown, sections.title(found), lambda figure: _picture(figure, *images[figure.name])
    )
    (stage / "report.html").write_text(page, encoding="utf-8")
    # Three values, which an object column of Parquet cannot hold by itself.
    table.assign(called_up=table["called_up"].astype("boolean")).to_parquet(
        stage / PREDICTIONS, compression="zstd", index=False
    )
    (stage / FILE).write_text(_json(found), encoding="utf-8")


def _picture(figure: Figure, light: bytes, dark: bytes) -> str:
    """Both looks of a figure; the reader's colour scheme chooses."""
    sources = [f"data:image/png;base64,{base64.b64encode(one).decode()}" for one in (light, dark)]
    width = pictures.WIDTH * 100
    return (
        f'<picture><source media="(prefers-color-scheme: dark)" srcset="{sources[1]}">'
        f'<img src="{sources[0]}" width="{width:.0f}" alt="{document.escaped(figure.caption)}">'
        "</picture>"
    )


def _move(stage: Path, folder: Path) -> None:
    """Put what ``stage`` holds in place of the old report."""
    for path in stage.rglob("*"):
        if path.is_file():
            fsync_file(path)
    old = folder / "figures"
    if old.exists():
        old.rename(stage / "figures.old")
    (stage / "figures").rename(old)
    names = sorted((path.name for path in stage.iterdir() if path.is_file()), key=FILE.__eq__)
    for name in names:
        os.replace(stage / name, folder / name)
    fsync_directory(folder)
    shutil.rmtree(stage)


def _json(value: object) -> str:
    return json.dumps(value, allow_nan=False, ensure_ascii=False) + "\n"

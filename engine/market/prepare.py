"""Windows of prices as files: what forecasting of the next values is trained on.

The order of work keeps the future out: indicators on the full history, each from its own day
and earlier ones; windows; a chronological split with an embargo, in which no window crosses a
border; a scaler fitted on training windows; files. Histories come without null rows: sources
drop them.

For each ticker and each of train, val, test and full there is an ``_x.csv`` and a ``_y.csv``;
line n of one belongs to line n of the other. Rows are in order of time. ``full`` holds every
window, those at the borders too.

Prices of a row are those of its as-of day: adjusted x (close / adjusted on that day), in X and
Y alike, so that ``last_close`` is the price that was quoted. With the standard normalisation,
``sequence`` and every price of X are ``(price - scale_mean) / scale_std``, differences of prices
(``mom``, ``macd``, ``trend``) are divided by ``scale_std``, and ``last_close`` stays in dollars.
Without it the mean is 0 and the deviation 1. Numbers read back exactly; an unknown one is an
empty cell, and an empty list of lags means that none was significant.
"""

import csv
import io
import json
import math
import re
import shutil
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from engine.errors import UserError
from engine.market import indicators
from engine.market.history import History, Values
from engine.market.labels import MAX_GAP_DAYS
from engine.market.scaling import Scaler
from engine.market.splits import SPLIT_NAMES, Span, SplitName, chronological
from engine.market.statistics import at_level, describe
from engine.text import one_line

FILE_SPLITS: dict[SplitName, str] = {"train": "train", "validation": "val", "test": "test"}
"""How file names call the splits."""

INDICATORS = (
    "sma",
    "ema",
    "mom",
    "rsi",
    "macd",
    "willr",
    "cci",
    "adx",
    "bbands_upper",
    "bbands_middle",
    "bbands_lower",
    "stoch_k",
    "stoch_d",
)
STATISTICS = (
    "min",
    "min_timestep",
    "max",
    "max_timestep",
    "mean",
    "median",
    "median_timestep",
    "trend",
)
X_COLUMNS = (
    "sequence",
    *INDICATORS,
    *STATISTICS,
    "lags",
    "as_of",
    "last_close",
    "scale_mean",
    "scale_std",
)
Y_COLUMNS = ("sequence",)

MANIFEST = "prepared.json"
"""Says what is in an output folder: options, rows, scalers. Only a folder that has one, and
nothing but what it names, is ever replaced."""

_DIFFERENCES = {"mom", "macd", "trend"}
_PRICES = {"min", "max", "mean", "median"} | (indicators.DOLLARS - _DIFFERENCES)
_FORMAT = "stonk-tui prepared windows 1"
_TICKER = re.compile(r"[A-Za-z0-9^][A-Za-z0-9.^=_-]{0,19}")


@dataclass(frozen=True)
class PrepareOptions:
    """What windows are cut, and how they are split and scaled."""

    window: int = 10
    """Trading days of X, the as-of day last."""
    horizon: int = 10
    """Trading days of Y, the ones after."""
    stride: int = 1
    """Trading days from one window to the next."""
    train_share: float = 0.7
    validation_share: float = 0.1
    embargo: int | None = None
    """Trading days dropped before each border; left out: the horizon."""
    normalisation: Literal["none", "standard"] = "none"
    """``standard`` scales by the mean and deviation of each ticker's training windows."""

    def __post_init__(self) -> None:
        """Check the ranges.

        Raises:
            UserError: an option is out of range.
        """
        for name, least, most in (("window", 2, 1000), ("horizon", 1, 1000), ("stride", 1, 1000)):
            if not least <= getattr(self, name) <= most:
                raise UserError(
                    f"must be from {least} to {most}, not {getattr(self, name)}", where=f"--{name}"
                )
        shares = self.train_share, self.validation_share
        if not (min(shares) > 0 and sum(shares) < 1):
            raise UserError(
                "the shares of train and validation must be above 0 and together below 1",
                where="data",
            )


@dataclass(frozen=True)
class Prepared:
    """What was written."""

    folder: Path
    rows: dict[str, dict[str, int]]
    """Windows by ticker, then by the split's name in the files."""
    left_out: dict[str, int]
    """Windows in no split, by reason: ``gap``, a step of more than ``MAX_GAP_DAYS`` days on the
    way through Y; ``doubtful``, a move in X or Y that cannot be trusted; ``border``, a window
    that is in ``full`` alone because it would cross a border or its embargo."""
    skipped: dict[str, str]
    """Tickers without files, with the reason."""
    scalers: dict[str, Scaler] = field(repr=False)
    """By ticker."""


def prepare(
    histories: Sequence[History],
    out: Path,
    options: PrepareOptions | None = None,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Prepared:
    """Write the windows of ``histories`` into the folder ``out``.

    The folder appears complete or not at all. One that an earlier run wrote is replaced.

    Args:
        histories: one per ticker.
        out: the folder; its parent exists.
        progress: called with the tickers done and all of them.

    Raises:
        UserError: a folder in the way, a ticker that cannot be a file name, permuted labels,
            histories too short for the splits, an embargo below the horizon.
        OSError: the disk refuses.
    """
    options = options or PrepareOptions()
    out = out.resolve()
    _refuse_foreign(out)
    _refuse_tickers(histories)
    spans = chronological(
        np.concatenate([history.days for history in histories]),
        train_share=options.train_share,
        validation_share=options.validation_share,
        embargo=options.horizon if options.embargo is None else options.embargo,
        horizon=options.horizon,
    )
    result = Prepared(out, {}, {"gap": 0, "doubtful": 0, "border": 0}, {}, {})
    scratch = Path(tempfile.mkdtemp(prefix=f".{out.name}-", dir=out.parent))
    try:
        fresh = scratch / "fresh"
        fresh.mkdir()
        for done, history in enumerate(histories):
            progress(done, len(histories))
            _prepare_one(history, spans, options, fresh, result)
        progress(len(histories), len(histories))
        _write_manifest(fresh, options, result)
        _put_in_place(fresh, out, stale=scratch / "stale")
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    return result


def _put_in_place(fresh: Path, out: Path, stale: Path) -> None:
    if not out.exists():
        fresh.rename(out)
        return
    out.rename(stale)
    try:
        fresh.rename(out)
    except OSError:
        stale.rename(out)
        raise


def _refuse_foreign(out: Path) -> None:
    """Refuse a folder that holds anything but an earlier result."""
    if not out.parent.is_dir():
        raise UserError("no such folder", where=one_line(str(out.parent)), fix="create it first")
    if not out.exists():
        return
    where = one_line(str(out))
    if not out.is_dir():
        raise UserError("is not a folder", where=where, fix="name another one")
    names = {path.name for path in out.iterdir()}
    try:
        manifest = json.loads((out / MANIFEST).read_text(encoding="utf-8"))
        ours = manifest["format"] == _FORMAT
        known = {MANIFEST, *manifest["files"]}
    except (OSError, ValueError, TypeError, KeyError):
        ours, known = False, set()
    if names and not (ours and names <= known):
        strange = min(names - known, default=MANIFEST)
        raise UserError(
            f"holds {one_line(strange, 60)!r}, which is not of an earlier data prepare",
            where=where,
            fix="name a new folder, or empty this one",
        )


def _refuse_tickers(histories: Sequence[History]) -> None:
    if not histories:
        raise UserError("there is no ticker to prepare", where="data.source")
    seen: set[str] = set()
    for history in histories:
        if history.shuffle_seed is not None:
            raise UserError(
                "the labels of this source are permuted, and files of prices would hold the"
                " true ones",
                where="data.source",
                fix="leave shuffled=true out",
            )
        if not _TICKER.fullmatch(history.ticker):
            raise UserError(
                f"the ticker {one_line(history.ticker, 40)!r} cannot be part of a file name",
                where="data.source",
                fix="use letters, digits and . - _ ^ =",
            )
        # Some file systems do not tell AAPL from aapl.
        if history.ticker.lower() in seen:
            raise UserError(f"the ticker {history.ticker} comes twice", where="data.source")
        seen.add(history.ticker.lower())


def _prepare_one(
    history: History,
    spans: dict[SplitName, Span],
    options: PrepareOptions,
    out: Path,
    result: Prepared,
) -> None:
    """Write the files of one ticker and note what came of it in ``result``."""
    rows, left_out = _windows(history, options)
    for reason, count in left_out.items():
        result.left_out[reason] += count
    if not len(rows):
        result.skipped[history.ticker] = "no window in its history"
        return
    members = _members(history, rows, spans, options)
    levels = history.close[rows] / history.adjusted[rows]
    x = at_level(history.adjusted, rows, levels, range(1 - options.window, 1))
    y = at_level(history.adjusted, rows, levels, range(1, options.horizon + 1))
    scaler = Scaler()
    if options.normalisation == "standard":
        if not members["train"].any():
            result.skipped[history.ticker] = "no training window to fit the scaler on"
            return
        scaler = fit_scaler(history, spans, options)
    result.left_out["border"] += int((~np.logical_or.reduce(list(members.values()))).sum())
    x_lines, y_lines = _lines(history, rows, levels, scaler, x, y)
    chosen = {FILE_SPLITS[name]: np.flatnonzero(members[name]).tolist() for name in SPLIT_NAMES}
    chosen["full"] = list(range(len(rows)))
    for name, positions in chosen.items():
        for side, header, lines in (("x", X_COLUMNS, x_lines), ("y", Y_COLUMNS, y_lines)):
            text = "".join([",".join(header), "\n", *(lines[at] for at in positions)])
            path = out / f"{history.ticker}_{name}_{side}.csv"
            path.write_text(text, encoding="utf-8", newline="")
    result.rows[history.ticker] = {name: len(positions) for name, positions in chosen.items()}
    result.scalers[history.ticker] = scaler


def fit_scaler(history: History, spans: dict[SplitName, Span], options: PrepareOptions) -> Scaler:
    """The scaler of a ticker, fitted on the closes of its training windows alone.

    Raises:
        ValueError: it has no training window.
    """
    rows, _ = _windows(history, options)
    rows = rows[_members(history, rows, spans, options)["train"]]
    levels = history.close[rows] / history.adjusted[rows]
    return Scaler.fit(at_level(history.adjusted, rows, levels, range(1 - options.window, 1)))


def _windows(history: History, options: PrepareOptions) -> tuple[NDArray[np.intp], dict[str, int]]:
    """As-of days of the windows that may be used, and how many are left out by reason."""
    rows = np.arange(options.window - 1, len(history) - options.horizon, options.stride)
    too_wide = np.diff(history.days).astype(np.int64) > MAX_GAP_DAYS
    steady = ~_any_step(too_wide, rows, rows + options.horizon)
    left_out = {"gap": int((~steady).sum())}
    rows = rows[steady]
    if history.doubtful is not None:
        trusted = ~_any_step(
            history.doubtful[1:], rows - options.window + 1, rows + options.horizon
        )
        left_out["doubtful"] = int((~trusted).sum())
        rows = rows[trusted]
    return rows, left_out


def _any_step(
    steps: NDArray[np.bool_], first: NDArray[np.intp], last: NDArray[np.intp]
) -> NDArray[np.bool_]:
    """Whether any of the (N - 1,) steps between two days is set on the way from first to last."""
    before = np.concatenate([[0], steps.cumsum()])
    found: NDArray[np.bool_] = before[last] > before[first]
    return found


def _members(
    history: History, rows: NDArray[np.intp], spans: dict[SplitName, Span], options: PrepareOptions
) -> dict[SplitName, NDArray[np.bool_]]:
    """Which windows lie inside each split from their first day of X to their last of Y."""
    first = history.days[rows - options.window + 1]
    last = history.days[rows + options.horizon]
    return {
        name: span.holds(history.days[rows], last) & (first >= span.first)
        for name, span in spans.items()
    }


def _lines(
    history: History, rows: NDArray[np.intp], levels: Values, scaler: Scaler, x: Values, y: Values
) -> tuple[list[str], list[str]]:
    """The lines of X and of Y, one each for every window."""
    statistics = describe(history.adjusted, rows, x.shape[1], levels)
    columns: dict[str, Sequence[object]] = {"sequence": _json_lists(scaler.scaled(x))}
    computed = indicators.compute(history)
    for name in INDICATORS:
        values = computed[name][rows]
        if name in indicators.DOLLARS:
            values = values * levels
        columns[name] = _cells(name, values, scaler)
    for name in STATISTICS:
        column = [getattr(one, name) for one in statistics]
        columns[name] = column if name.endswith("_timestep") else _cells(name, column, scaler)
    columns["lags"] = [
        None if one.lags is None else json.dumps([lag.days for lag in one.lags])
        for one in statistics
    ]
    columns["as_of"] = history.days[rows].astype(str).tolist()
    columns["last_close"] = history.close[rows].tolist()
    columns["scale_mean"] = [scaler.mean] * len(rows)
    columns["scale_std"] = [scaler.std] * len(rows)
    return (
        _csv_lines([columns[name] for name in X_COLUMNS]),
        _csv_lines([_json_lists(scaler.scaled(y))]),
    )


def _json_lists(values: Values) -> list[str]:
    return [json.dumps(row, allow_nan=False) for row in values.tolist()]


def _cells(name: str, values: ArrayLike, scaler: Scaler) -> list[float | None]:
    """A column in the units of the scaled prices, None where a value is not known."""
    column = np.asarray(values, dtype=np.float64)
    if name in _PRICES:
        column = scaler.scaled(column)
    elif name in _DIFFERENCES:
        column = scaler.scaled_difference(column)
    return [value if math.isfinite(value) else None for value in column.tolist()]


def _csv_lines(columns: Sequence[Sequence[object]]) -> list[str]:
    text = io.StringIO()
    # Floats are written with as many digits as it takes to read back the same ones.
    csv.writer(text, lineterminator="\n").writerows(zip(*columns, strict=True))
    return text.getvalue().splitlines(keepends=True)


def _write_manifest(folder: Path, options: PrepareOptions, result: Prepared) -> None:
    manifest = {
        "format": _FORMAT,
        "options": asdict(options),
        "rows": result.rows,
        "left_out": result.left_out,
        "skipped": result.skipped,
        "scalers": {ticker: asdict(scaler) for ticker, scaler in result.scalers.items()},
        "files": sorted(path.name for path in folder.iterdir()),
    }
    (folder / MANIFEST).write_text(json.dumps(manifest, indent=1) + "\n", encoding="utf-8")

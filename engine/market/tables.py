"""CSV and parquet files as columns under the names we know, with the line of every row.

A fault of the whole file is a ``UserError`` that names it; what is wrong with single values is
left to whoever reads the columns.
"""

import csv
import io
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine.errors import UserError
from engine.market.history import Days, Values
from engine.market.quality import FIXES, Tally, shown
from engine.text import one_line

Column = list[str] | NDArray[Any]
"""Text as it was written, or an array of float64 or datetime64[D]; NaN and NaT where empty."""

_MISSING = frozenset({"", "null", "nan", "none", "na", "n/a", "nat", "-"})
_DATE = re.compile(
    r"(\d{4})[-/](\d{2})[-/](\d{2})"
    r"(?:[T ]\d{2}:\d{2}(?::\d{2}(?:\.\d{1,9})?)?)?"
    r"(Z|[+-]\d{2}:?\d{2})?"
)
_FIRST_YEAR, _LAST_YEAR = 1800, 2200


@dataclass(frozen=True, eq=False)
class Table:
    """The columns of one file that we know, R rows."""

    place: str
    """The file, as messages name it."""
    columns: Mapping[str, Column]
    """Our name of a column → its R values."""
    names: Mapping[str, str]
    """Our name of a column → the name in the file."""
    lines: NDArray[np.int64]
    """(R,) line of each row in a CSV file, number of the row in a parquet file, from 1."""

    def __len__(self) -> int:
        return len(self.lines)

    def where(self, row: int, column: str) -> str:
        """``file:line:field`` of a value."""
        return f"{self.place}:{self.lines[row]}:{self.names[column]}"


def read(path: Path, spellings: Mapping[str, Sequence[str]], tally: Tally) -> Table:
    """Read a ``.csv`` or ``.parquet`` file.

    Args:
        spellings: our name of a column → the spellings by which a file may call it, lower
            case, letters and digits alone.
        tally: takes the rows read and those with a wrong number of fields.

    Raises:
        UserError: no file, not readable, empty, or one column under two names.
    """
    place = one_line(str(path))
    if not path.is_file():
        what = "this is a folder, not a file" if path.is_dir() else "there is no such file"
        raise UserError(what, where=place, fix="name a CSV or parquet file")
    try:
        if path.stat().st_size == 0:
            raise UserError("the file is empty", where=place, fix="fill it or remove it")
        if path.suffix.lower() == ".parquet":
            table = _read_parquet(path, place, spellings)
        else:
            table = _read_csv(path.read_bytes(), place, spellings, tally)
    except OSError as error:
        reason = error.strerror or one_line(str(error), 80)
        raise UserError(f"cannot be read: {reason}", where=place) from error
    if not len(table):
        raise UserError("the file has no rows", where=place, fix="fill it or remove it")
    tally.read += len(table)
    return table


def need(table: Table, columns: Sequence[str]) -> None:
    """Refuse a table that lacks one of ``columns``.

    Raises:
        UserError: naming the column and the file's first line.
    """
    missing = [column for column in columns if column not in table.columns]
    if missing:
        raise UserError(
            f"the column {missing[0]} is missing",
            where=f"{table.place}:1:{missing[0]}",
            fix=f"give the file the columns {', '.join(columns)}",
        )


def numbers(table: Table, column: str) -> tuple[Values, dict[str, NDArray[np.bool_]]]:
    """A column as numbers.

    Returns:
        (R,) float64, NaN where there is none, and the rows without a number by reason:
        ``missing value`` and ``text in a number``.
    """
    raw = table.columns[column]
    if isinstance(raw, np.ndarray):
        is_number = raw.dtype.kind == "f"
        values = raw.copy() if is_number else np.full(len(raw), np.nan)
        is_text = np.isinf(values) | (not is_number)
    else:
        values, is_text = _parsed_numbers(raw)
    values[is_text] = np.nan
    return values, {"text in a number": is_text, "missing value": np.isnan(values) & ~is_text}


def dates(table: Table, column: str) -> Days:
    """A column as days, NaT where a value is no date; a time of day is left out.

    Raises:
        UserError: the rows are in several time zones. Two that are an hour apart are summer
            and winter of one.
    """
    raw = table.columns[column]
    if isinstance(raw, np.ndarray):
        if raw.dtype.kind != "M":
            return np.full(len(raw), np.datetime64("NaT"), dtype="datetime64[D]")
        years = raw.astype("datetime64[Y]").astype(np.int64) + 1970
        return np.where((years >= _FIRST_YEAR) & (years < _LAST_YEAR), raw, np.datetime64("NaT"))
    days = np.full(len(raw), np.datetime64("NaT"), dtype="datetime64[D]")
    zones: dict[int | None, int] = {}
    for row, text in enumerate(raw):
        match = _DATE.fullmatch(text)
        if match and _FIRST_YEAR <= int(match[1]) < _LAST_YEAR:
            try:
                days[row] = f"{match[1]}-{match[2]}-{match[3]}"
            except ValueError:
                continue
            zones.setdefault(_minutes(match[4]), row)
    offsets = [zone for zone in zones if zone is not None]
    is_mixed = 0 < len(offsets) < len(zones)
    if is_mixed or (offsets and max(offsets) - min(offsets) > 60):
        row = list(zones.values())[1]
        raise UserError(
            f"dates in several time zones: {shown(raw[row])} after {shown(raw[0])}",
            where=table.where(row, column),
            fix="write all dates in one zone, best as YYYY-MM-DD of the exchange",
        )
    return days


def _minutes(zone: str | None) -> int | None:
    if zone is None:
        return None
    if zone == "Z":
        return 0
    minutes = int(zone[1:3]) * 60 + int(zone[-2:])
    return -minutes if zone[0] == "-" else minutes


def _parsed_numbers(raw: list[str]) -> tuple[Values, NDArray[np.bool_]]:
    try:
        values = np.array(raw, dtype=np.float64)
        # Python reads 1_000 as a number; a person who wrote it meant something else.
        if not np.isinf(values).any() and not any("_" in text for text in raw):
            return values, np.zeros(len(raw), np.bool_)
    except ValueError:
        pass
    values = np.full(len(raw), np.nan)
    is_text = np.zeros(len(raw), np.bool_)
    for row, text in enumerate(raw):
        if text.strip().lower() in _MISSING:
            continue
        try:
            values[row] = float(text)
        except ValueError:
            is_text[row] = True
        is_text[row] |= "_" in text or np.isinf(values[row])
    return values, is_text


def _renamed(
    names: Sequence[str], spellings: Mapping[str, Sequence[str]], place: str
) -> dict[str, int]:
    """Our name of a column → its position in the file."""
    found: dict[str, int] = {}
    for position, name in enumerate(names):
        # "5. adjusted close" is how one vendor numbers its columns.
        plain = re.sub(r"[^a-z0-9]", "", re.sub(r"^\s*\d+\.\s*", "", name.lower()))
        for column, spelt in spellings.items():
            if plain in spelt:
                if column in found:
                    raise UserError(
                        f"{shown(names[found[column]])} and {shown(name)} are both {column}",
                        where=f"{place}:1:{column}",
                        fix="keep one of the two columns",
                    )
                found[column] = position
    return found


def _read_csv(
    content: bytes, place: str, spellings: Mapping[str, Sequence[str]], tally: Tally
) -> Table:
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise UserError(
            "not UTF-8 text", where=f"{place}:{line}", fix="save the file as UTF-8"
        ) from error
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    rows: list[list[str]] = []
    lines: list[int] = []
    wrong: list[tuple[str, str]] = []
    try:
        header = next(reader, [])
        for row in reader:
            if len(row) == len(header):
                rows.append(row)
                lines.append(reader.line_num)
            elif row:
                wrong.append(
                    (f"{place}:{reader.line_num}", f"{len(row)} fields, not {len(header)}")
                )
    except csv.Error as error:
        raise UserError(
            f"not valid CSV: {one_line(str(error), 80)}", where=f"{place}:{reader.line_num}"
        ) from error
    if wrong:
        tally.read += len(wrong)
        tally.refuse("wrong number of fields", len(wrong), wrong)
        if not rows:
            where, what = wrong[0]
            raise UserError(what, where=where, fix=FIXES["wrong number of fields"])
    found = _renamed(header, spellings, place)
    by_position = list(zip(*rows, strict=True)) if rows else [()] * len(header)
    return Table(
        place,
        {column: list(by_position[at]) for column, at in found.items()},
        {column: one_line(header[at], 40) for column, at in found.items()},
        np.array(lines, dtype=np.int64),
    )


def _read_parquet(path: Path, place: str, spellings: Mapping[str, Sequence[str]]) -> Table:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(path) as file:
            names = list(file.schema_arrow.names)
            found = _renamed(names, spellings, place)
            content = file.read(columns=[names[at] for at in found.values()])
            content.validate(full=True)
        columns = {
            column: _from_arrow(content.column(names[at]), f"{place}:1:{one_line(names[at], 40)}")
            for column, at in found.items()
        }
    except (pa.ArrowException, OSError, UnicodeDecodeError, KeyError) as error:
        raise UserError(
            f"not a readable parquet file: {one_line(str(error), 80)}",
            where=place,
            fix="write it again or remove it",
        ) from error
    return Table(
        place,
        columns,
        {column: one_line(names[at], 40) for column, at in found.items()},
        np.arange(1, content.num_rows + 1),
    )


def _from_arrow(column: Any, where: str) -> Column:
    import pyarrow as pa
    import pyarrow.compute as pc

    kind = column.type
    if pa.types.is_dictionary(kind):
        column, kind = column.cast(kind.value_type), kind.value_type
    if pa.types.is_string(kind) or pa.types.is_large_string(kind):
        return ["" if text is None else text for text in column.to_pylist()]
    if pa.types.is_timestamp(kind):
        # The calendar day of the zone that the column was written in.
        local = pc.local_timestamp(column) if kind.tz else column
        return np.asarray(local.to_numpy(), dtype="datetime64[D]")
    if pa.types.is_date(kind):
        return np.asarray(column.cast(pa.date32()).to_numpy(), dtype="datetime64[D]")
    is_number = pa.types.is_integer(kind) or pa.types.is_floating(kind)
    if is_number or pa.types.is_decimal(kind) or pa.types.is_null(kind):
        return np.asarray(column.cast(pa.float64(), safe=False).to_numpy(), dtype=np.float64)
    raise UserError(
        f"a column of {one_line(str(kind), 40)} is neither dates, numbers nor text",
        where=where,
        fix="write dates as dates and prices as numbers",
    )

"""A folder of price files, one for each ticker: CSV or parquet."""

from pathlib import Path

from engine.errors import UserError
from engine.market import prices, tables
from engine.market.history import History
from engine.market.quality import Market, Report, Tally, gaps_of, splits_of
from engine.text import one_line

SUFFIXES = (".csv", ".parquet")


def load(folder: Path, source: str) -> Market:
    """Read every price file of ``folder``.

    Args:
        source: the source string, for the result.

    Raises:
        UserError: no such folder, no price file in it, a file that cannot be used, or more
            than 5 % of the rows refused.
    """
    tally = Tally("price rows")
    histories, notes = read_prices(folder, tally)
    return Market(
        source=source,
        histories=histories,
        report=Report(
            description=f"daily prices of {len(histories)} tickers in {one_line(str(folder))}",
            synthetic=False,
            rows=(tally.finish(),),
            splits=splits_of(histories),
            gaps=gaps_of(histories),
            notes=notes,
        ),
    )


def read_prices(folder: Path, tally: Tally) -> tuple[tuple[History, ...], tuple[str, ...]]:
    """The history of every price file of ``folder``, ordered by ticker, and notes.

    Raises:
        UserError: see ``load``.
    """
    where = one_line(str(folder))
    if not folder.is_dir():
        what = "this is a file, not a folder" if folder.exists() else "there is no such folder"
        raise UserError(what, where=where, fix="name a folder of CSV or parquet files")
    try:
        paths = sorted(
            path
            for path in folder.iterdir()
            if path.suffix.lower() in SUFFIXES and not path.name.startswith(".")
        )
    except OSError as error:
        raise UserError(f"cannot be read: {error.strerror}", where=where) from error
    if not paths:
        raise UserError(
            "no price file in this folder", where=where, fix="put TICKER.csv or TICKER.parquet in"
        )
    histories: dict[str, History] = {}
    unadjusted = []
    for path in paths:
        table = tables.read(path, prices.SPELLINGS, tally)
        ticker = prices.ticker_of(table, path.stem)
        # Tickers become names of files, and some file systems fold case.
        if ticker.lower() in histories:
            raise UserError(
                f"a second file of ticker {ticker}", where=table.place, fix="keep one of the two"
            )
        series = prices.series(table, tally)
        if not series.is_adjusted:
            unadjusted.append(ticker)
        histories[ticker.lower()] = series.history(ticker, ticker)
    notes = []
    if unadjusted:
        notes.append(
            f"no Adj Close for {_listed(unadjusted)}: the close is taken as adjusted for splits"
            " and dividends"
        )
    ordered = tuple(sorted(histories.values(), key=lambda history: history.ticker))
    return ordered, tuple(notes)


def _listed(tickers: list[str]) -> str:
    more = f" and {len(tickers) - 5} more" if len(tickers) > 5 else ""
    return ", ".join(tickers[:5]) + more

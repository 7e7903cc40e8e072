"""Market data by its source string.

========================================  ==================================================
``demo``                                  the bundled daily series
``ohlcv:DIR``                             a folder of price files, ``engine.market.ohlcv``
``stocknet:DIR``                          StockNet's folders, ``engine.market.stocknet``
``deepstock[:PATH_OR_HUB_ID]``            a Hugging Face data set, ``engine.market.deepstock``
``planted[:share=0.9,seed=1]``            a made-up market, ``engine.market.planted``
``planted:share=0.9,seed=1,shuffled=true``  its twin, in which nothing can be predicted
========================================  ==================================================
"""

from pathlib import Path

from engine.errors import UserError
from engine.market import deepstock, demo, ohlcv, planted, stocknet
from engine.market.quality import Market
from engine.text import one_line

FORMS = {
    "demo": "bundled public-domain daily prices of five tickers, 2000 to 2013",
    "ohlcv:DIR": "a folder of price files, TICKER.csv or TICKER.parquet",
    "stocknet:DIR": "StockNet's folders: daily prices and posts",
    "deepstock[:PATH_OR_HUB_ID]": "closes, news and financials from the hub, a parquet or a JSONL"
    " file",
    "planted[:share=0.9,seed=1]": "made-up prices that go the way of the day before with"
    " probability share",
    "planted:shuffled=true": "the same prices with permuted labels: nothing can be predicted",
}
"""How each source is written, with what it is."""

KNOWN = ("demo", "ohlcv:DIR", "stocknet:DIR", "deepstock[:PATH_OR_HUB_ID]", "planted[:OPTIONS]")
"""The forms as an error message names them."""

_PLANTED_OPTIONS = ("share", "seed", "shuffled")


def load(source: str) -> Market:
    """Everything that a source string stands for.

    Raises:
        UserError: unknown source or option, a bad value, or data that cannot be used; one
            line that says where and what to do.
    """
    name, colon, rest = source.partition(":")
    if name == "demo" and not colon:
        return demo.market(source)
    if name == "planted" and (rest or not colon):
        return _planted(rest, source)
    if name == "deepstock" and (rest or not colon):
        # expanded here, so that a home folder means the same in every source
        return deepstock.load(str(_path(rest)) if rest else deepstock.HUB_ID, source)
    if name in ("ohlcv", "stocknet") and rest:
        load_folder = ohlcv.load if name == "ohlcv" else stocknet.load
        return load_folder(_path(rest), source)
    known = [form for form in KNOWN if form.partition(":")[0].partition("[")[0] == name]
    if known:
        raise UserError(
            f"{one_line(source, 60)!r} is not complete or says too much",
            where="data.source",
            fix=f"write it as {known[0]}",
        )
    raise UserError(
        f"no market data source called {one_line(source, 60)!r}",
        where="data.source",
        fix=f"use one of: {', '.join(KNOWN)}",
    )


def absolute(source: str) -> str:
    """``source`` with the folder or file that it names as an absolute path.

    A process that starts in another folder then finds the same data. The id of a hub data set
    is left alone.

    Raises:
        UserError: the place cannot be looked at.
    """
    name, _, rest = source.partition(":")
    is_place = name in ("ohlcv", "stocknet") or (name == "deepstock" and _path(rest).exists())
    return f"{name}:{_path(rest).absolute()}" if rest and is_place else source


def _path(text: str) -> Path:
    path = Path(text)
    try:
        path.exists()
    except OSError as error:  # such as a name too long, or a folder that may not be entered
        raise UserError(
            f"cannot be read: {error.strerror}", where=one_line(text), fix="check the name"
        ) from error
    # expanduser raises where ~name is nobody's; such a folder is simply not there.
    return path.expanduser() if text == "~" or text.startswith("~/") else path


def _planted(text: str, source: str) -> Market:
    options = {"share": "0.9", "seed": "1", "shuffled": "false"}
    given = set()
    for part in text.split(",") if text else ():
        key, _, value = (piece.strip() for piece in part.partition("="))
        if key not in options:
            raise UserError(
                f"planted has no option {one_line(key, 40)!r}",
                where="data.source",
                fix=f"use {', '.join(_PLANTED_OPTIONS)}, such as planted:share=0.9,seed=1",
            )
        if key in given:
            raise UserError(f"{key} is given twice", where="data.source", fix="give it once")
        given.add(key)
        options[key] = value
    share = _share(options["share"])
    if not (options["seed"].isascii() and options["seed"].isdigit() and len(options["seed"]) < 10):
        raise _bad("seed", options["seed"], "a whole number from 0 to 999999999")
    if options["shuffled"] not in ("true", "false"):
        raise _bad("shuffled", options["shuffled"], "true or false")
    return planted.load(
        share=share,
        seed=int(options["seed"]),
        shuffled=options["shuffled"] == "true",
        source=source,
    )


def _share(text: str) -> float:
    try:
        share = float(text)
    except ValueError:
        share = -1.0
    if not 0.5 <= share <= 1:
        raise _bad("share", text, "a number from 0.5 to 1")
    return share


def _bad(option: str, value: str, wanted: str) -> UserError:
    return UserError(
        f"planted:{option}={one_line(value, 40)} is out of range",
        where="data.source",
        fix=f"use {wanted}",
    )

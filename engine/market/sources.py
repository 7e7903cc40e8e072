"""Market data by name."""

from collections.abc import Callable

from engine.errors import UserError
from engine.market import demo
from engine.market.history import History
from engine.text import one_line

SOURCES: dict[str, Callable[[], tuple[History, ...]]] = {"demo": demo.load}
"""What loads the histories of each known source."""


def load(source: str) -> tuple[History, ...]:
    """The histories of ``source``, one per ticker.

    Raises:
        UserError: there is no such source; the line names the known ones.
    """
    if source not in SOURCES:
        raise UserError(
            f"no market data source called {one_line(source, 60)!r}",
            where="data.source",
            fix=f"use one of: {', '.join(sorted(SOURCES))}",
        )
    return SOURCES[source]()

"""The history of a run of any length, out of a bounded part of its log.

A short run is folded whole. Of a long one are read: what is rare and lasts (workers, resumes,
promotions, alarms, lights, the checkpoints that are kept and their validations), and the newest
events of every kind. So every figure is what it is in a fold of everything, and the newest 512
lines of the log are complete. Only the courses of the metrics begin later, where there are more
than 2048 steps: ``Series.is_cut`` says so, and ``engine.runs.curves`` has them whole.
"""

from collections.abc import Iterable
from operator import itemgetter

from pydantic_core import from_json

from engine.runs.curves import EXACT_STEPS
from engine.runs.history import History
from engine.runs.reader import Event, StoreReader

WHOLE_EVENTS = 3000
"""Logs of up to this many events are folded whole."""
NEWEST = 512
_PAGE = 5000

_COLUMNS = "seq, attempt, time, kind, step, payload"
_ALL_OF = ("worker", "resumed", "promotion", "settings", "alarm", "hang", "super_saiyan")
_NEWEST_OF = (
    "step",
    "validation",
    "checkpoint",
    "state",
    "progress",
    "command",
    "memory",
    "notice",
    "probe",
    "evaluation",
)

_CHECKPOINTS = """
    SELECT '[' || group_concat('[' || seq || ',' || step || ',' || payload || ']') || ']'
    FROM events WHERE superseded = 0 AND kind = 'checkpoint'
"""
"""In one piece: thousands of rows each cost more than what is in them."""


def replay(reader: StoreReader) -> tuple[History, str]:
    """The history that the store tells, and what in it could not be understood, in words.

    Raises:
        UserError: the store cannot be read.
    """
    history = History(kept_points=EXACT_STEPS if reader.has_curves else None)
    with reader.snapshot():
        if reader.last_seq() <= WHOLE_EVENTS or not reader.has_curves:
            problem = ""
            while events := reader.events(history.last_seq, _PAGE):
                problem = fold(history, events) or problem
            return history, problem
        problem = fold(history, _selected(reader))
    history.log_is_cut = True
    for series in history.series.values():
        series.is_cut = history.step > EXACT_STEPS and len(series.steps) >= NEWEST
    return history, problem


def fold(history: History, events: Iterable[Event]) -> str:
    """Apply ``events``; what could not be understood is skipped, and named in the answer."""
    problem = ""
    for event in events:
        try:
            history.apply((event,))
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            problem = repr(error)
    return problem


def _selected(reader: StoreReader) -> list[Event]:
    """The part of a long log that is folded, in order."""
    found: dict[int, Event] = {}
    for kind in _ALL_OF:
        found |= _of_kind(reader, kind, -1)
    for kind in _NEWEST_OF:
        found |= _of_kind(reader, kind, NEWEST)
    if max((event.step for event in found.values()), default=0) <= EXACT_STEPS:
        found |= _of_kind(reader, "step", EXACT_STEPS)
    for seq, step in _landmarks(reader):
        if seq not in found:
            found |= _events(reader, "seq = ?", (seq,))
            # What was validated there is shown where one of these is chosen.
            found |= _events(reader, "kind = 'validation' AND step = ?", (step,))
    return [found[seq] for seq in sorted(found)]


def _landmarks(reader: StoreReader) -> list[tuple[int, int]]:
    """(seq, step) of the checkpoints that are kept, and of the last that was the best."""
    ((text,),) = reader.rows(_CHECKPOINTS)
    rows = from_json(text, cache_strings="keys") if text else []
    saved = sorted((row for row in rows if isinstance(row[2], dict)), key=itemgetter(0))
    gone = {
        name: (seq, step) for seq, step, payload in saved for name in payload.get("removed", ())
    }
    never = (0, 0)
    found = [
        (seq, step)
        for seq, step, payload in saved
        if gone.get(payload.get("name"), never) < (seq, step)
    ]
    best = next((row for row in reversed(saved) if row[2].get("best")), None)
    if best is not None:
        # With what took it away, if something has.
        found += [(best[0], best[1]), gone.get(best[2].get("name"), never)]
    return [landmark for landmark in found if landmark != never]


def _of_kind(reader: StoreReader, kind: str, limit: int) -> dict[int, Event]:
    order = "ORDER BY step DESC, seq DESC LIMIT ?"
    return _events(reader, f"kind = ? {order}", (kind, limit))


def _events(reader: StoreReader, which: str, parameters: tuple[object, ...]) -> dict[int, Event]:
    rows = reader.rows(
        f"SELECT {_COLUMNS} FROM events WHERE superseded = 0 AND {which}", parameters
    )
    return {row[0]: Event.of(row) for row in rows}

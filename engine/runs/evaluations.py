"""Events of evaluations, folded: what each one has come to, and a line of the log for it.

The events come out of a store that another version may have written: every value but the state may
be of any type.
"""

from collections.abc import Mapping, Sequence
from typing import Any

BASE = "base"
STRONG = "strong"
SUSPECT_LEAKAGE = "suspect leakage"
"""Two words of a verdict."""


def noted(
    known: Sequence[Mapping[str, Any]], payload: Mapping[str, Any], time: float
) -> list[dict[str, Any]]:
    """``known`` with what ``payload`` says of its evaluation; one that goes on is one more word.

    Each has the payload's fields, the ``time`` of the newest event and that of its beginning,
    ``begun``.
    """
    before = next((one for one in known if one.get("id") == payload.get("id")), {})
    is_begin = payload["state"] == "begun" or "begun" not in before
    begun = time if is_begin else before["begun"]
    others = [dict(one) for one in known if one is not before]
    return [*others, {**before, **payload, "time": time, "begun": begun}]


def answered(
    known: Sequence[Mapping[str, Any]], command: Mapping[str, Any]
) -> list[dict[str, Any]]:
    """``known`` after the answer to a command: one that was begun by it runs no more.

    What ended with an event of its own has said more; a worker that died is answered for by the
    next one.
    """
    return [
        {**one, "state": "stopped", "message": command.get("message")}
        if one.get("state") == "begun" and one.get("id") == command.get("id")
        else dict(one)
        for one in known
    ]


def in_words(payload: Mapping[str, Any]) -> tuple[str, str]:
    """(level, text) of the line that the log has for an event.

    Raises:
        KeyError: the event says no state.
    """
    state = str(payload["state"])
    split = payload.get("split")
    where = f" on {split}" if split else ""
    if state == "done":
        return _done(payload, where)
    message = payload.get("message")
    why = f": {message}" if message else ""
    if state == "begun":
        names = [str(name) for name in _sequence(payload.get("checkpoints"))]
        whom = f" of {', '.join(names)}" if names else ""
        total = _number(payload.get("total"))
        count = f", {total:.0f} predictions" if total is not None else ""
        return "info", f"evaluation{whom}{where} begins{count}"
    words = {"failed": "failed", "stopped": "stopped; what was predicted is kept"}.get(state, state)
    return ("error" if state == "failed" else "warning"), f"evaluation{where} {words}{why}"


def _done(payload: Mapping[str, Any], where: str) -> tuple[str, str]:
    verdicts, accuracies = _mapping(payload.get("verdicts")), _mapping(payload.get("accuracy"))
    names = [*dict.fromkeys([*verdicts, *accuracies])]
    told = [name for name in names if name != BASE] or names
    parts = [_of_checkpoint(name, verdicts.get(name), accuracies.get(name)) for name in told]
    baseline = _mapping(payload.get("baseline"))
    if (value := _number(baseline.get("value"))) is not None:
        parts.append(f"{baseline.get('name') or 'best baseline'} {100 * value:.0f} %")
    level = "info"
    if STRONG in verdicts.values():
        level = "good"
    if SUSPECT_LEAKAGE in verdicts.values():
        level = "warning"
    return level, f"evaluated{where}" + (f": {'; '.join(parts)}" if parts else "")


def _of_checkpoint(name: str, verdict: object, accuracy: object) -> str:
    """Verdict, accuracy, interval and n, as far as they are known."""
    parts = [f"{name} {verdict}" if verdict else name]
    value, low, high, n = (
        _number(_mapping(accuracy).get(key)) for key in ("value", "low", "high", "n")
    )
    if value is not None and low is not None and high is not None and n is not None:
        parts.append(f"{100 * value:.0f} % right [{100 * low:.0f}, {100 * high:.0f}] n={n:.0f}")
    return ", ".join(parts)


def _mapping(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _sequence(value: object) -> Sequence[Any]:
    return value if isinstance(value, list | tuple) else ()


def _number(value: object) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return float(value) if abs(value) < 1e15 else None

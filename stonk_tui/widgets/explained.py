"""Why a rollout earned what it did: its text with the facts it cites, its reward, its prices."""

import textwrap
from collections.abc import Mapping
from typing import Any

from textual.content import Content

from engine.runs.reader import Rollout
from engine.text import one_line, sanitize
from stonk_tui.theme import UNKNOWN, component_style, side_look
from stonk_tui.widgets import figures
from stonk_tui.widgets.chart import Line, Picture
from stonk_tui.widgets.market import is_level
from stonk_tui.widgets.panel import rows
from stonk_tui.widgets.text import MAX_CHARACTERS, line

_NAME_WIDTH = 11
_REASON_AT = _NAME_WIDTH + 24
_LEAST_REASON = 16


def completion(rollout: Rollout) -> Content:
    """The completion with what the scorer recognised as facts of the prompt marked.

    Offsets count the characters of the stored text; sanitizing may lengthen it, so each
    piece is cleaned on its own and marked by its new length.
    """
    text = rollout.completion[:MAX_CHARACTERS]
    content = Content("")
    at = 0
    for start, end in sorted(_spans(rollout, len(text))):
        if start < at:
            continue
        content += Content(_clean(text[at:start]))
        content += Content.styled(_clean(text[start:end]), "bold underline $gold on $panel")
        at = end
    content += Content(_clean(text[at:]))
    if len(rollout.completion) > len(text):
        content += Content.styled(
            f"\n… {len(rollout.completion) - len(text)} more characters", "$quiet"
        )
    if not rollout.finished:
        content += Content.styled("\n── cut at the length limit", "$warn")
    return content


def _spans(rollout: Rollout, length: int) -> list[tuple[int, int]]:
    return [
        (start, min(end, length))
        for start, end in rollout.cited
        if isinstance(start, int) and isinstance(end, int) and 0 <= start < min(end, length)
    ]


def _clean(text: str) -> str:
    return sanitize(text).expandtabs(4)


def why(rollout: Rollout, width: int) -> Content:
    """Value × weight (× the stage's factor) = contribution, each with its reason."""
    lines: list[Content | str] = []
    sum_of_parts = 0.0
    for component in rollout.components:
        name = str(component.get("name") or UNKNOWN)
        value, weight = (
            figures.known(component.get("value")),
            figures.known(component.get("weight")),
        )
        # Rollouts of older runs have no factor.
        factor = figures.known(component.get("factor", 1.0))
        part = None
        if value is not None and weight is not None and factor is not None:
            part = value * weight * factor
        sum_of_parts += part or 0.0
        label = line(name.replace("_", " "), component_style(name), limit=_NAME_WIDTH)
        is_counted = bool(weight)
        style = "$ink" if is_counted else "$quiet"
        reason = one_line(str(component.get("reason") or ""), 300)
        if is_counted and factor is not None and not is_level(factor):
            reason = f"× {figures.fixed(factor)} for its side; {reason}"
        # Beside the figures, or under them where there is no room for that.
        is_beside = width - _REASON_AT >= _LEAST_REASON
        reason_at = _REASON_AT if is_beside else 2
        wrapped = textwrap.wrap(reason, max(_LEAST_REASON, width - reason_at)) or [""]
        first, *others = wrapped if is_beside else ["", *wrapped]
        lines.append(
            Content.assemble(
                label.pad_right(_NAME_WIDTH - label.cell_length),
                f" {figures.fixed(value):>5}",
                (f" × {figures.weight(weight):>3} = ", "$quiet"),
                (
                    f"{figures.fixed(part, 3):>7}" if is_counted else f"{'watched':>7}",
                    "bold" if is_counted else "$quiet",
                ),
                "  ",
                (first, style),
            )
        )
        lines += [Content.styled(" " * reason_at + other, style) for other in others]
    lines.append(
        Content.assemble(
            (f"{'total':<{_NAME_WIDTH}}", "$quiet"),
            (f"{figures.fixed(rollout.reward, 3):>22}", "bold $total"),
            (f"  {figures.signed(rollout.advantage, 3)}", "bold"),
            (" from its group's mean", "$quiet"),
        )
    )
    if abs(sum_of_parts - rollout.reward) > 0.001:
        lines.append(
            Content.styled(
                "the parts were adjusted before they were summed; the total is what counted",
                "$quiet",
            )
        )
    return rows(*lines)


def closes(subject: Mapping[str, Any], *, revealed: bool) -> Picture:
    """Closing prices up to the as-of day; on demand the move that came after."""
    stored = subject.get("closes")
    values = (
        [number for item in stored if (number := figures.known(item)) is not None]
        if isinstance(stored, list)
        else []
    )
    if len(values) < 2:
        return Picture(empty="no prices stored")
    days = [float(day) for day in range(1 - len(values), 1)]
    lines = [Line(tuple(days), tuple(values), "$ink")]
    look = side_look(subject.get("actual_direction"))
    move = figures.known(subject.get("actual_percent"))
    after = values[-1] * (1 + move / 100) if move is not None else values[-1]
    if revealed and look is not None and move is not None:
        lines.append(Line((0.0, 1.0), (values[-1], after), look.style))
    low, high = min(*values, after), max(*values, after)
    margin = 0.06 * (high - low or 1.0)
    # Room for the next day is kept from the start: the picture does not jump on reveal,
    # and the range of prices gives nothing away, being widened alike on both sides.
    reach = max(high - values[-1], values[-1] - low)
    return Picture(
        lines=tuple(lines),
        low=values[-1] - reach - margin,
        high=values[-1] + reach + margin,
        x_high=1.0,
        x_label="",
    )

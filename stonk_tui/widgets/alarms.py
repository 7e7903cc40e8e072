"""What is going wrong? The alarms that are on, newest first."""

import textwrap
from collections.abc import Sequence
from typing import ClassVar

from textual.content import Content

from engine.runs.history import Alarm
from engine.text import one_line
from stonk_tui.feed import RunModel
from stonk_tui.keymap import DEFAULT, Keymap
from stonk_tui.theme import ALARM, QUIET
from stonk_tui.widgets import figures
from stonk_tui.widgets.panel import Panel, rows, spread
from stonk_tui.widgets.text import line

_DETAIL_LINES = 3
NEW_SECONDS = 1.0
"""How long a new alarm stands out: once, and then never again."""


def newest_first(view: RunModel) -> Sequence[Alarm]:
    """The alarms that are on; the history keeps them in the order in which they came."""
    return tuple(reversed(view.history.alarms.values()))


class AlarmsPanel(Panel):
    """One alarm a line; the modal behind ``enter`` explains it."""

    noun = "Alarms"
    number = 8
    explanation: ClassVar[str] = (
        "What looks wrong in the training and has not ended, newest first, with the step since "
        "which it lasts. An alarm comes on when its figure passes a threshold over a window of "
        "steps, and goes off only at a second, easier threshold, so that noise does not make it "
        "flap. Press enter here for each alarm's explanation, its threshold and what to do."
    )
    DEFAULT_CSS = """
    AlarmsPanel.-new, AlarmsPanel.-new:focus { border: round $bad; background: $bad 25%; }
    """

    def draw(self, view: RunModel, width: int, height: int) -> tuple[Content, Content]:
        alarms = newest_first(view)
        if not alarms:
            word = Content.styled(f"{QUIET.glyph} {QUIET.word}", QUIET.style)
            return word, Content.styled("Nothing looks wrong.", "$quiet")
        if height >= len(alarms) * (_DETAIL_LINES + 3):
            lines = [piece for alarm in alarms for piece in _detailed(alarm, width)]
        elif height >= len(alarms) * 2:
            lines = [piece for alarm in alarms for piece in _entry(alarm, width, 2)]
        else:
            lines = [piece for alarm in alarms[:height] for piece in _entry(alarm, width, 1)]
            if len(alarms) > height:
                lines[-1] = Content.styled(f"and {len(alarms) - height + 1} more", "$quiet")
        if height > len(lines):
            lines.append(
                Content.assemble((self.keymap.of("open"), "bold $gold"), (" explains", "$quiet"))
            )
        return _count(alarms), rows(*lines)

    @staticmethod
    def folded(view: RunModel, width: int, keymap: Keymap = DEFAULT) -> Content:
        """All of it in one line; empty while nothing is wrong."""
        alarms = newest_first(view)
        if not alarms:
            return Content("")
        pieces = [_count(alarms)]
        pieces += [line(alarm.title, limit=60) for alarm in alarms]
        while len(pieces) > 2 and sum(p.cell_length for p in pieces) + 3 * len(pieces) > width:
            pieces.pop()
        key = Content.assemble((keymap.of("panel_alarms"), "bold $gold"), (" shows", "$quiet"))
        return spread(Content("   ").join(pieces), key, width)

    def stand_out(self) -> None:
        """Let a new alarm be seen, once; the terminal's bell is the app's."""
        if self.app.animation_level != "none":
            self.add_class("-new")
            self.set_timer(NEW_SECONDS, lambda: self.remove_class("-new"))


def _count(alarms: Sequence[Alarm]) -> Content:
    word = ALARM.word if len(alarms) == 1 else f"{ALARM.word}s"
    return Content.styled(f"{ALARM.glyph} {len(alarms)} {word}", f"bold {ALARM.style}")


def _detailed(alarm: Alarm, width: int) -> list[Content]:
    """An alarm with the beginning of its explanation, where there is room for it."""
    pieces = _wrapped(alarm.explanation, width - 2, _DETAIL_LINES)
    details = [Content.styled(f"  {piece}", "$quiet") for piece in pieces]
    return [*_entry(alarm, width, 2), *details, Content("")]


def _entry(alarm: Alarm, width: int, max_lines: int) -> list[Content]:
    """Its title on as many lines as it needs, up to ``max_lines``, and when it came on."""
    since = f"since {figures.whole(alarm.since_step)}"
    if len(alarm.title) + len(since) + 3 > width:
        since = since.removeprefix("since ")
    first, *others = _wrapped(alarm.title, width - len(since) - 3, max_lines)
    head = Content.assemble((f"{ALARM.glyph} ", ALARM.style), first)
    return [
        spread(head, Content.styled(since, "$quiet"), width),
        *(Content(f"  {other}") for other in others),
    ]


def _wrapped(text: str, width: int, max_lines: int) -> list[str]:
    """Untrusted text in at most ``max_lines`` lines; at least one."""
    room = max(8, width)
    cleaned = one_line(text, max_lines * room * 2)
    return textwrap.wrap(cleaned, room, max_lines=max_lines, placeholder=" …") or [""]

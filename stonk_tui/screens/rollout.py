"""One rollout, opened: what was asked, what was said, and why it earned what it did."""

import sqlite3
import textwrap
from collections.abc import Mapping
from typing import Any, ClassVar

from textual import work
from textual.app import ComposeResult
from textual.binding import BindingType
from textual.containers import Grid
from textual.content import Content
from textual.widgets import Static

from engine.errors import UserError
from engine.runs.reader import Rollout, StoreReader
from engine.text import one_line, sanitize
from stonk_tui import actions
from stonk_tui.feed import RunModel
from stonk_tui.screens.base import CockpitScreen
from stonk_tui.theme import UNKNOWN, component_style, side_look
from stonk_tui.widgets import figures
from stonk_tui.widgets.chart import Chart, Line, Picture
from stonk_tui.widgets.market import is_level
from stonk_tui.widgets.panel import rows, spread
from stonk_tui.widgets.rollouts import call, verdict
from stonk_tui.widgets.scroller import Scroller
from stonk_tui.widgets.text import MAX_CHARACTERS, line, shown
from stonk_tui.widgets.trail import Trail, trail

_NAME_WIDTH = 11
_REASON_AT = _NAME_WIDTH + 24


class Frame(Scroller):
    """A titled box that scrolls."""

    DEFAULT_CSS = """
    Frame {
        border: round $edge; border-title-color: $ink; border-title-style: bold; padding: 0 1;
        scrollbar-size-vertical: 1;
    }
    Frame:focus { border: heavy $gold; }
    Frame Static { width: 1fr; height: auto; }
    """


class RolloutScreen(CockpitScreen):
    """Prompt, completion, reward line by line, and the outcome on demand."""

    BINDINGS: ClassVar[list[BindingType]] = actions.bindings("rollout")
    scope: ClassVar[actions.Scope] = "rollout"
    noun = "A rollout"
    explanation = (
        "One completion: what the model saw, what it said, and why that earned what it did. Each "
        "component's value times its weight is a line of the reward, with the scorer's reason; "
        "facts of the prompt that were recognised as cited are marked in the text. The advantage "
        "is the reward's distance from the mean of the answers to the same prompt, and what the "
        "market did stays hidden until it is asked for."
    )
    DEFAULT_CSS = """
    RolloutScreen #what { height: 1; padding: 0 1; background: $surface; text-wrap: nowrap; }
    RolloutScreen #texts { grid-size: 2; grid-columns: 4fr 5fr; height: 1fr; }
    RolloutScreen #reasons { grid-size: 2; grid-columns: 1fr 40; height: 14; }
    RolloutScreen.-narrow #reasons { grid-columns: 1fr 22; }
    RolloutScreen.-low #reasons { height: 11; }
    RolloutScreen #why Static { text-wrap: nowrap; text-overflow: ellipsis; }
    RolloutScreen #happened { overflow: hidden hidden; }
    RolloutScreen #outcome { height: 4; }
    """

    def __init__(self, model: RunModel, identifier: int) -> None:
        super().__init__()
        self._model = model
        # A person reads while training goes on: what was opened stays what it was.
        self._groups: dict[tuple[int, int], list[Rollout]] = {}
        for rollout in model.rollouts:
            self._groups.setdefault((rollout.step, rollout.group), []).append(rollout)
        self._order = sorted(self._groups, key=lambda key: (-key[0], key[1]))
        self._complete: set[tuple[int, int]] = set()
        self._rollout = next(item for item in model.rollouts if item.id == identifier)
        self._revealed = False

    def compose_body(self) -> ComposeResult:
        yield Trail()
        yield Static(id="what", markup=False)
        with Grid(id="texts"):
            with Frame(id="prompt") as frame:
                frame.border_title = Content("What the model saw")
                yield Static(id="prompt-text", markup=False)
            with Frame(id="completion") as frame:
                frame.border_title = Content("What it said")
                yield Static(id="completion-text", markup=False)
        with Grid(id="reasons"):
            with Frame(id="why") as frame:
                frame.border_title = Content("Why this reward")
                yield Static(id="why-text", markup=False)
            with Frame(id="happened") as frame:
                frame.border_title = Content("What happened")
                yield Static(id="outcome", markup=False)
                yield Chart(id="closes")

    def on_mount(self) -> None:
        self.query_one(Trail).update(trail(self._model.run.id, "rollout"))
        self.query_one("#completion").focus()
        self._show()
        # The width of the boxes is known after the first layout.
        self.call_after_refresh(self._show_to_fit)

    def on_resize(self) -> None:
        if self._is_composed:
            self.call_after_refresh(self._show_to_fit)

    # --- walking

    def do_next_sample(self) -> None:
        self._step_sample(1)

    def do_previous_sample(self) -> None:
        self._step_sample(-1)

    def do_next_group(self) -> None:
        self._step_group(1)

    def do_previous_group(self) -> None:
        self._step_group(-1)

    def do_reveal(self) -> None:
        self._revealed = not self._revealed
        self._show_outcome()

    @property
    def _key(self) -> tuple[int, int]:
        return self._rollout.step, self._rollout.group

    @property
    def _samples(self) -> list[Rollout]:
        return self._groups[self._key]

    def _step_sample(self, direction: int) -> None:
        samples = self._samples
        at = next(i for i, item in enumerate(samples) if item.id == self._rollout.id)
        self._rollout = samples[(at + direction) % len(samples)]
        self._show()

    def _step_group(self, direction: int) -> None:
        at = self._order.index(self._key)
        self._rollout = self._groups[self._order[(at + direction) % len(self._order)]][0]
        self._revealed = False
        self._show()

    # --- the whole group, which the newest rollouts may hold only a part of

    @work(thread=True, exclusive=True, exit_on_error=False, group="rollout-group")
    def _load_group(self, key: tuple[int, int]) -> None:
        try:
            reader = StoreReader(self._model.run.database)
            try:
                samples = reader.group(*key)
            finally:
                reader.close()
        except (OSError, UserError, sqlite3.Error, ValueError):
            # The part of the group that is known stays on screen.
            return
        self.app.call_from_thread(self._group_loaded, key, samples)

    def _group_loaded(self, key: tuple[int, int], samples: list[Rollout]) -> None:
        self._complete.add(key)
        if len(samples) >= len(self._groups[key]):
            self._groups[key] = samples
        if key == self._key:
            self._rollout = next((s for s in samples if s.id == self._rollout.id), self._rollout)
            self._show_head()

    # --- showing

    def _show(self) -> None:
        rollout = self._rollout
        if self._key not in self._complete:
            self._load_group(self._key)
        self.query_one("#prompt-text", Static).update(shown(rollout.prompt))
        self.query_one("#completion-text", Static).update(_completion(rollout))
        self._show_to_fit()
        self.query_one("#completion", Frame).border_title = Content.assemble(
            "What it said", (f" · {figures.whole(rollout.tokens)} tokens", "$quiet")
        )
        for frame in self.query(Frame):
            frame.scroll_home(animate=False)
        self._show_outcome()

    def _show_to_fit(self) -> None:
        """What depends on the width of the screen."""
        self._show_head()
        width = self.query_one("#why", Frame).content_size.width or 70
        width -= 1  # the scroll bar may come
        self.query_one("#why-text", Static).update(_why(self._rollout, width))

    def _show_head(self) -> None:
        rollout, samples = self._rollout, self._samples
        subject = rollout.subject
        steps = [key for key in self._order if key[0] == rollout.step]
        at = next((i for i, item in enumerate(samples) if item.id == rollout.id), 0)
        look = verdict(rollout.prediction, subject)
        dot = (" · ", "$faint")
        is_narrow = self.size.width < 100
        of = "/" if is_narrow else " of "
        left = Content.assemble(
            line(subject.get("ticker") or UNKNOWN, "bold $gold", limit=12),
            dot,
            ("" if is_narrow else "as of ", "$quiet"),
            line(subject.get("as_of") or UNKNOWN, limit=12),
            dot,
            f"step {rollout.step}",
            dot,
            f"group {steps.index(self._key) + 1}{of}{len(steps)}",
            dot,
            f"answer {at + 1}{of}{len(samples)}",
        )
        verdict_words = f"{look.glyph} {'' if is_narrow else look.word + '  '} " if look else ""
        right = Content.assemble(
            (verdict_words, look.style if look else ""),
            ("" if is_narrow else "reward ", "$quiet"),
            (figures.fixed(rollout.reward), "bold"),
            (" " if is_narrow else "   advantage ", "$quiet"),
            (figures.signed(rollout.advantage), "bold $good" if rollout.advantage > 0 else "bold"),
        )
        self.query_one("#what", Static).update(spread(left, right, self.size.width - 2))

    def _show_outcome(self) -> None:
        subject = self._rollout.subject
        prediction = self._rollout.prediction
        said = Content.assemble(
            ("called  ", "$quiet"),
            call(prediction.get("direction"), prediction.get("percent")),
        )
        sure = Content.assemble(("sure    ", "$quiet"), figures.share(prediction.get("confidence")))
        if self._revealed:
            actual = Content.assemble(
                ("market  ", "$quiet"),
                call(subject.get("actual_direction"), subject.get("actual_percent"))
                if side_look(subject.get("actual_direction"))
                else UNKNOWN,
            )
        else:
            actual = Content.assemble(
                ("market  ", "$quiet"),
                (self.cockpit.keymap.of("reveal"), "bold $gold"),
                (" shows it", "$quiet"),
            )
        self.query_one("#outcome", Static).update(rows(said, sure, actual))
        self.query_one("#closes", Chart).draw(_closes(subject, revealed=self._revealed))


def _completion(rollout: Rollout) -> Content:
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
        content += Content.styled(_clean(text[start:end]), "bold $gold on $panel")
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


def _why(rollout: Rollout, width: int) -> Content:
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
        first, *others = textwrap.wrap(reason, max(16, width - _REASON_AT)) or [""]
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
        lines += [Content.styled(" " * _REASON_AT + other, style) for other in others]
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


def _closes(subject: Mapping[str, Any], *, revealed: bool) -> Picture:
    """Closing prices up to the as-of day; on demand the move that came after."""
    closes = subject.get("closes")
    values = (
        [number for item in closes if (number := figures.known(item)) is not None]
        if isinstance(closes, list)
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

"""What does it say? The newest rollouts, one line each."""

from collections.abc import Mapping
from typing import Any, ClassVar

from textual.app import ComposeResult
from textual.content import Content

from engine.runs.reader import Rollout
from stonk_tui.feed import RunModel
from stonk_tui.theme import RIGHT, UNPARSED, WRONG, Look, side_look
from stonk_tui.widgets import figures
from stonk_tui.widgets.panel import Panel
from stonk_tui.widgets.table import Column, Row, Table
from stonk_tui.widgets.text import line

COLUMNS = (
    Column("step", 5, "right"),
    Column("ticker", 6),
    Column("as of", 10, optional=50),
    Column("call", 8),
    Column("sure", 5, "right"),
    Column("actual", 8),
    Column("", 1),
    Column("reward", 6, "right"),
    Column("adv", 5, "right"),
    Column("reasoning", 0, optional=66),
)


class RolloutsPanel(Panel, can_focus=False):
    """Newest step first, groups together; enter opens one."""

    noun = "Rollouts"
    number = 6
    explanation: ClassVar[str] = (
        "The newest completions: what was asked, the side, size and confidence that the model "
        "called, what the market did, and what that earned. The advantage is the reward's distance "
        "from the mean of its group, which holds all answers to the same prompt. Enter opens one "
        "and explains its reward line by line."
    )

    DEFAULT_CSS = """
    RolloutsPanel { padding: 0; }
    """

    def __init__(self, *, id: str) -> None:
        super().__init__(id=id)
        self.table = Table(
            COLUMNS, empty="The first step brings the first rollouts.", id="rollout-table"
        )
        self._listed: tuple[Rollout, ...] = ()

    def compose(self) -> ComposeResult:
        yield self.table

    def show(self, view: RunModel) -> None:
        self._view = view
        if view.rollouts is not self._listed:
            self._listed = view.rollouts
            self.table.set_rows(
                [
                    rollout_row(rollout, leads=leads(before, rollout))
                    for before, rollout in zip((None, *view.rollouts), view.rollouts, strict=False)
                ]
            )
        newest = view.rollouts[0].step if view.rollouts else None
        verdicts = [
            verdict(rollout.prediction, rollout.subject)
            for rollout in view.rollouts
            if rollout.step == newest
        ]
        right = sum(look is RIGHT for look in verdicts)
        self._answer = (
            Content.assemble(
                (f"step {newest}: ", "$quiet"),
                (f"{RIGHT.glyph} {right}", RIGHT.style),
                (f"  {WRONG.glyph} {sum(look is WRONG for look in verdicts)}", WRONG.style),
                (
                    f"  {UNPARSED.glyph} {sum(look is UNPARSED for look in verdicts)}",
                    UNPARSED.style,
                ),
            )
            if verdicts
            else Content("")
        )
        self._set_title()


def verdict(prediction: Mapping[str, Any], subject: Mapping[str, Any]) -> Look | None:
    """Right, wrong or unparsed; None where the outcome is not known."""
    called, actual = (
        side_look(prediction.get("direction")),
        side_look(subject.get("actual_direction")),
    )
    if called is None:
        return UNPARSED
    if actual is None:
        return None
    return RIGHT if called is actual else WRONG


def call(direction: object, percent: object) -> Content:
    """A side and a size, such as ``▲ 0.8 %``; the side is the sign."""
    look = side_look(direction)
    if look is None:
        return Content.styled(UNPARSED.glyph, UNPARSED.style)
    size = figures.known(percent)
    words = ""
    if size is not None:
        digits = 1 if abs(size) < 100 else 0
        words = f" {figures.fixed(abs(size), digits)} %"
    return Content.styled(f"{look.glyph}{words}", look.style)


def leads(before: Rollout | None, rollout: Rollout) -> bool:
    """Whether ``rollout`` answers another prompt than the one listed before it."""
    return before is None or (before.step, before.group) != (rollout.step, rollout.group)


def rollout_row(rollout: Rollout, *, leads: bool) -> Row:
    """One line; the first of a group stands out, so that groups are seen as such."""
    prediction, subject = rollout.prediction, rollout.subject
    look = verdict(prediction, subject)
    reasoning = prediction.get("reasoning")
    if not reasoning:
        reasoning = prediction.get("error") or rollout.completion
    return Row(
        key=str(rollout.id),
        cells=(
            Content.styled(str(rollout.step), "$quiet"),
            line(subject.get("ticker") or "·", "bold" if leads else "$quiet", limit=6),
            line(subject.get("as_of") or "·", "$ink" if leads else "$quiet", limit=10),
            call(prediction.get("direction"), prediction.get("percent")),
            Content(figures.share(prediction.get("confidence"))),
            call(subject.get("actual_direction"), subject.get("actual_percent"))
            if side_look(subject.get("actual_direction"))
            else Content("·"),
            Content.styled(look.glyph, look.style) if look else Content("·"),
            Content.styled(figures.fixed(rollout.reward), "bold"),
            Content.styled(
                figures.signed(rollout.advantage).replace("0.", ".", 1),
                "$good" if rollout.advantage > 0 else "$quiet",
            ),
            line(reasoning, "$quiet", limit=240),
        ),
    )

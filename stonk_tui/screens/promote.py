"""The decision that is a person's: make a Stage II run from a checkpoint of this one.

Everything that reads or writes files runs in a thread; the screen shows what came of it.
"""

import sqlite3
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from textual import on, work
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal, Vertical
from textual.content import Content
from textual.message import Message
from textual.screen import ModalScreen
from textual.widgets import Button, Input, RadioButton, RadioSet, Static

from engine.errors import RunFailedError, UserError
from engine.runs.directory import RunDirectory
from stonk_tui.feed import in_words
from stonk_tui.widgets.promotion import candidate, changes, lights
from stonk_tui.widgets.text import line

if TYPE_CHECKING:
    from engine.runs.promotion import PromotionPlan

# A store of another version may hold anything: what is wrong with it is a line in the dialog.
_TROUBLE = (
    UserError,
    RunFailedError,
    OSError,
    sqlite3.Error,
    ValueError,
    KeyError,
    TypeError,
    AttributeError,
)


@dataclass
class PlanMade(Message, bubble=False):
    """What promoting a checkpoint would do, or why it cannot be done."""

    name: str
    """The checkpoint that was asked for last."""
    plan: "PromotionPlan | None"
    problem: str


@dataclass
class Promoted(Message, bubble=False):
    """A Stage II run was prepared, and perhaps started."""

    run: RunDirectory | None
    problem: str


class Choice(RadioButton):
    """A radio button that shows without colour, too, whether it is the chosen one."""

    BUTTON_LEFT = ""
    BUTTON_INNER = "( )"
    BUTTON_RIGHT = ""

    def watch_value(self) -> None:
        self.BUTTON_INNER = "(•)" if self.value else "( )"
        super().watch_value()


class PromoteScreen(ModalScreen[RunDirectory | None]):
    """Shows what a promotion means, asks why where lights are off, and does it."""

    CSS_PATH = "promote.tcss"
    # Keys typed before there is a plan go nowhere.
    AUTO_FOCUS = ""
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape", "leave", "Leave", show=False),
    ]

    def __init__(self, run: RunDirectory) -> None:
        """Prepare to promote a checkpoint of the Stage I run ``run``."""
        super().__init__()
        self._run = run
        self._chosen: str | None = None
        """The checkpoint under the dot; None before there is anything to choose from."""
        self._plan: PromotionPlan | None = None
        """For the chosen checkpoint; None until it is known, and where it cannot be promoted."""
        self._made: RunDirectory | None = None
        self._is_busy = False

    def compose(self) -> ComposeResult:
        with Vertical() as box:
            box.border_title = Content.assemble(
                " Promote ", line(self._run.id, limit=60), " to Stage II "
            )
            yield Static("Reading the run …", id="lights", markup=False)
            yield Static("From, by its validation vs the best baseline:", id="from", markup=False)
            yield Vertical(id="offer")
            yield Static(id="changes", markup=False)
            yield Input(id="reason", max_length=400, compact=True)
            yield Static(id="problem", markup=False)
            with Horizontal():
                yield Button("Cancel", id="cancel", compact=True)
                yield Button("Prepare only", id="prepare", compact=True)
                yield Button("Promote and start", id="start", variant="primary", compact=True)

    def on_mount(self) -> None:
        # On a low screen a toast would cover the buttons.
        self.app.clear_notifications()
        self._allow(False)
        self._make_plan("best", "last")

    # --- the plan

    @work(thread=True, exit_on_error=False, exclusive=True, group="plan")
    def _make_plan(self, *names: str) -> None:
        """Plan the first of ``names`` that can be promoted; what is wrong with others is said."""
        from engine.runs import promotion

        problem = ""
        for name in names:
            try:
                plan = promotion.plan(self._run, name)
            except _TROUBLE as error:
                problem = problem or _in_words(error)
            else:
                self.post_message(PlanMade(name, plan, problem))
                return
        self.post_message(PlanMade(names[-1], None, problem))

    async def on_plan_made(self, event: PlanMade) -> None:
        if self._chosen not in (None, event.name):
            # Another one was chosen meanwhile, and a thread cannot be cancelled.
            return
        self._plan = plan = event.plan
        self._say(event.problem)
        if plan is None:
            if self._chosen is None:
                self.query_one("#lights", Static).update("")
            return
        self._draw()
        reason = self.query_one("#reason", Input)
        reason.placeholder = (
            "Why now? (kept in the record)"
            if plan.is_earned
            else "Not all lights are on. Say why (kept in the record)"
        )
        if self._chosen is None:
            self._chosen = plan.checkpoint
            await self._offer(plan)
        if plan.existing is not None:
            self._say(f"Promoted before: {plan.existing.id}")
        self._allow_what_is_possible()

    def _draw(self) -> None:
        """What depends on the room there is."""
        width = self.query_one("#lights", Static).content_size.width
        if self._plan is None or not width:
            return
        self.query_one("#lights", Static).update(lights(self._plan, width))
        self.query_one("#changes", Static).update(changes(self._plan, width))

    def on_resize(self) -> None:
        self.call_after_refresh(self._draw)

    async def _offer(self, plan: "PromotionPlan") -> None:
        """List the checkpoints, the best first, then newest first."""
        ordered = sorted(plan.candidates, key=lambda item: (not item.is_best, -item.step))
        checkpoints = RadioSet(
            *(
                Choice(candidate(item), value=item.name == plan.checkpoint, name=item.name)
                for item in ordered
            ),
            id="checkpoints",
            compact=True,
        )
        await self.query_one("#offer").mount(checkpoints)
        # Where there is nothing to choose from, the next thing to do is to say why.
        (checkpoints if len(ordered) > 1 else self.query_one("#reason", Input)).focus()

    @on(RadioSet.Changed, "#checkpoints")
    def _choose(self, event: RadioSet.Changed) -> None:
        if event.pressed.name is not None and event.pressed.name != self._chosen:
            self._chosen, self._plan = event.pressed.name, None
            self._allow(False)
            self._make_plan(event.pressed.name)

    # --- the decision

    @on(Input.Changed, "#reason")
    def _allow_what_is_possible(self) -> None:
        plan = self._plan
        if plan is None or self._is_busy:
            self._allow(False)
            return
        has_reason = bool(self.query_one("#reason", Input).value.strip())
        is_known = plan.existing is not None
        self._allow(plan.is_earned or has_reason or is_known)
        if plan.existing is not None and not plan.existing.is_prepared:
            # It has been started already; its own screen has the keys for going on.
            self.query_one("#start", Button).disabled = True

    @on(Input.Submitted, "#reason")
    def _go_to_buttons(self) -> None:
        start = self.query_one("#start", Button)
        (self.query_one("#prepare", Button) if start.disabled else start).focus()

    @on(Button.Pressed, "#cancel")
    def _cancel(self) -> None:
        self.action_leave()

    @on(Button.Pressed, "#prepare")
    def _prepare(self) -> None:
        self._do(start=False)

    @on(Button.Pressed, "#start")
    def _prepare_and_start(self) -> None:
        self._do(start=True)

    def _do(self, *, start: bool) -> None:
        if self._plan is None or self._is_busy:
            return
        self._is_busy = True
        self._allow(False)
        self._say("Writing the Stage II run …", "$quiet")
        self._promote(self._plan, self.query_one("#reason", Input).value.strip(), start)

    @work(thread=True, exit_on_error=False, group="promote")
    def _promote(self, plan: "PromotionPlan", reason: str, start: bool) -> None:
        from engine.runs import promotion

        run = None
        try:
            run = promotion.promote(plan, reason=reason, forced=not plan.is_earned)
            if start:
                promotion.start(run)
        except _TROUBLE as error:
            self.post_message(Promoted(run, _in_words(error)))
        else:
            self.post_message(Promoted(run, ""))

    def on_promoted(self, event: Promoted) -> None:
        self._is_busy = False
        self._made = event.run
        if event.problem:
            prepared = f"{event.run.id} is prepared, but not started: " if event.run else ""
            self._say(prepared + event.problem)
            self._allow_what_is_possible()
        else:
            self.dismiss(event.run)

    def action_leave(self) -> None:
        # While files are being written nothing may look as if it had been called off.
        if not self._is_busy:
            self.dismiss(self._made)

    # --- small things

    def _allow(self, possible: bool) -> None:
        for name in ("#prepare", "#start"):
            self.query_one(name, Button).disabled = not possible

    def _say(self, text: str, style: str = "$warn") -> None:
        self.query_one("#problem", Static).update(line(text, style, limit=300))


def _in_words(error: Exception) -> str:
    if isinstance(error, UserError):
        return in_words(error)
    return str(error) if isinstance(error, RunFailedError) else f"it cannot be read: {error!r}"

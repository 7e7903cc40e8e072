"""One rollout, opened: what was asked, what was said, and why it earned what it did."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from textual import work
from textual.app import ComposeResult
from textual.binding import BindingType
from textual.containers import Grid
from textual.content import Content
from textual.message import Message
from textual.widgets import Static

from engine.runs.directory import RunDirectory
from engine.runs.reader import Rollout, StoreReader
from engine.text import sanitize
from stonk_tui import actions
from stonk_tui.rollout_search import TROUBLE, in_words
from stonk_tui.screens.base import CockpitScreen
from stonk_tui.theme import UNKNOWN, side_look
from stonk_tui.widgets import figures
from stonk_tui.widgets.chart import Chart
from stonk_tui.widgets.explained import closes, completion, why
from stonk_tui.widgets.panel import rows, spread
from stonk_tui.widgets.rollouts import call, verdict
from stonk_tui.widgets.scroller import Scroller
from stonk_tui.widgets.text import line, shown
from stonk_tui.widgets.trail import Trail, trail

PAIR_WIDTH = 160
"""From here on two answers of a group stand side by side unless a person says otherwise."""
LEAST_PAIR_WIDTH = 100


@dataclass
class Walk:
    """Rollouts to go through one after the other, and where among them a person is."""

    ids: Sequence[int]
    at: int


@dataclass
class GroupRead(Message, bubble=False):
    """A rollout with all others of its group, or why they cannot be read."""

    identifier: int
    samples: list[Rollout]
    num_groups: int = 0
    problem: str = ""


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
    RolloutScreen #other-why Static { text-wrap: nowrap; text-overflow: ellipsis; }
    RolloutScreen #happened { overflow: hidden hidden; }
    RolloutScreen #outcome { height: 4; }
    RolloutScreen .other { display: none; }
    RolloutScreen.-pair .other { display: block; }
    RolloutScreen.-pair #texts { grid-columns: 1fr 1fr; }
    RolloutScreen.-pair #reasons { grid-columns: 1fr 1fr; }
    RolloutScreen.-pair .shared { display: none; }
    RolloutScreen.-pair.-three .shared { display: block; }
    RolloutScreen.-pair.-three #texts { grid-size: 3; grid-columns: 3fr 4fr 4fr; }
    RolloutScreen.-pair.-three #reasons { grid-size: 3; grid-columns: 1fr 1fr 34; }
    """

    def __init__(
        self, run: RunDirectory, rollout: Rollout, walk: Walk, known: Sequence[Rollout] = ()
    ) -> None:
        """Open one rollout.

        Args:
            run: whose rollout it is.
            rollout: the one to show first.
            walk: what ``]`` and ``[`` go through; where they end is left in it.
            known: rollouts at hand, for what can be said before the store has been read.
        """
        super().__init__()
        self._run = run
        self._rollout = rollout
        self._walk = walk
        # A person reads while training goes on: what was opened stays what it was.
        self._samples = [item for item in known if _group(item) == _group(rollout)] or [rollout]
        self._num_groups = len({_group(item)[2] for item in known if item.step == rollout.step})
        self._wanted = rollout.id
        self._pairs: bool | None = None
        """Whether a person wants two answers side by side; None leaves it to the room."""
        self._revealed = False

    def compose_body(self) -> ComposeResult:
        yield Trail()
        yield Static(id="what", markup=False)
        with Grid(id="texts"):
            with Frame(id="prompt", classes="shared") as frame:
                frame.border_title = Content("What the model saw")
                yield Static(id="prompt-text", markup=False)
            with Frame(id="completion"):
                yield Static(id="completion-text", markup=False)
            with Frame(id="other", classes="other"):
                yield Static(id="other-text", markup=False)
        with Grid(id="reasons"):
            with Frame(id="why") as frame:
                frame.border_title = Content("Why this reward")
                yield Static(id="why-text", markup=False)
            with Frame(id="other-why", classes="other") as frame:
                frame.border_title = Content("Why this reward")
                yield Static(id="other-why-text", markup=False)
            with Frame(id="happened", classes="shared") as frame:
                frame.border_title = Content("What happened")
                yield Static(id="outcome", markup=False)
                yield Chart(id="closes")

    def on_mount(self) -> None:
        self.query_one(Trail).update(trail(self._run.id, "rollout"))
        self.query_one("#completion").focus()
        self._arrange()
        self._show()
        self._read(self._rollout.id)

    def on_resize(self) -> None:
        if self._is_composed:
            self._arrange()

    # --- walking

    def do_next_sample(self) -> None:
        self._step_sample(1)

    def do_previous_sample(self) -> None:
        self._step_sample(-1)

    def do_next_listed(self) -> None:
        self._step_listed(1)

    def do_previous_listed(self) -> None:
        self._step_listed(-1)

    def _step_sample(self, direction: int) -> None:
        self._rollout = self._beside(direction)
        self._wanted = self._rollout.id
        self._show()

    def _step_listed(self, direction: int) -> None:
        walk = self._walk
        if walk.ids:
            walk.at = (walk.at + direction) % len(walk.ids)
            self._wanted = walk.ids[walk.at]
            self._read(self._wanted)

    def _beside(self, direction: int) -> Rollout:
        """Another answer to the same prompt; the last is followed by the first."""
        at = next(i for i, item in enumerate(self._samples) if item.id == self._rollout.id)
        return self._samples[(at + direction) % len(self._samples)]

    @work(thread=True, exit_on_error=False, group="rollout-group")
    def _read(self, identifier: int) -> None:
        try:
            reader = StoreReader(self._run.database)
            try:
                rollout = reader.rollout(identifier)
                samples = reader.siblings(rollout) if rollout is not None else []
                groups = reader.num_groups(rollout) if rollout is not None else 0
            finally:
                reader.close()
        except TROUBLE as error:
            self.post_message(GroupRead(identifier, [], problem=in_words(error)))
        else:
            self.post_message(GroupRead(identifier, samples, groups))

    def on_group_read(self, read: GroupRead) -> None:
        known = {item.id for item in read.samples}
        if read.problem:
            # What is known stays on screen.
            self.notify(read.problem, severity="error", markup=False)
        if self._rollout.id in known:
            # A person may have gone on within the group meanwhile.
            self._samples, self._num_groups = read.samples, read.num_groups
            if self._wanted in known and self._wanted != self._rollout.id:
                self._rollout = next(item for item in read.samples if item.id == self._wanted)
            self._show(at_top=False)
        elif read.identifier == self._wanted and read.identifier in known:
            self._samples, self._num_groups = read.samples, read.num_groups
            self._rollout = next(item for item in read.samples if item.id == self._wanted)
            self._revealed = False
            self._show()

    # --- other keys

    def do_reveal(self) -> None:
        self._revealed = not self._revealed
        self._show_outcome()

    @property
    def why_no_pair(self) -> str:
        """Why two answers cannot stand side by side; empty when they can."""
        if self.size.width < LEAST_PAIR_WIDTH:
            return f"there is no room: {LEAST_PAIR_WIDTH} columns are needed"
        return "" if len(self._samples) > 1 else "the group has one answer only"

    def do_pair(self) -> None:
        self._pairs = not self.has_class("-pair")
        self._arrange()

    def do_copy_completion(self) -> None:
        self._copy("completion", self._rollout.completion)

    def do_copy_prompt(self) -> None:
        self._copy("prompt", self._rollout.prompt)

    def _copy(self, what: str, text: str) -> None:
        # Whoever pastes it, perhaps into a shell, gets no control characters either.
        safe = sanitize(text)
        self.app.copy_to_clipboard(safe)
        self.notify(
            f"The {what} is on the clipboard, {figures.whole(len(safe))} characters, "
            "if the terminal allows that (OSC 52).",
            markup=False,
        )

    # --- showing

    def _arrange(self) -> None:
        """One answer or two, as the room and the person want it."""
        wants = self.size.width >= PAIR_WIDTH if self._pairs is None else self._pairs
        self.set_class(wants and not self.why_no_pair, "-pair")
        self.set_class(self.size.width >= PAIR_WIDTH, "-three")
        # The width of the boxes is known after the layout.
        self.call_after_refresh(self._show_to_fit)

    def _show(self, *, at_top: bool = True) -> None:
        self.query_one("#prompt-text", Static).update(shown(self._rollout.prompt))
        self.query_one("#completion-text", Static).update(completion(self._rollout))
        self.query_one("#other-text", Static).update(completion(self._beside(1)))
        self._arrange()
        self._show_to_fit()
        if at_top:
            for frame in self.query(Frame):
                frame.scroll_home(animate=False)
        self._show_outcome()
        self.show_keys()

    def _show_to_fit(self) -> None:
        """What depends on the width of the screen."""
        self._show_head()
        other = self._beside(1)
        for name, rollout in (("why", self._rollout), ("other-why", other)):
            width = self.query_one(f"#{name}", Frame).content_size.width or 70
            width -= 1  # the scroll bar may come
            self.query_one(f"#{name}-text", Static).update(why(rollout, width))
        is_pair = self.has_class("-pair")
        for name, rollout in (("completion", self._rollout), ("other", other)):
            frame = self.query_one(f"#{name}", Frame)
            frame.border_title = self._title_of(rollout) if is_pair else _title(rollout)

    def _title_of(self, rollout: Rollout) -> Content:
        """Which of two answers it is, and how it did."""
        at = next((i for i, item in enumerate(self._samples) if item.id == rollout.id), 0)
        look = verdict(rollout.prediction, rollout.subject)
        return Content.assemble(
            f"Answer {at + 1} of {len(self._samples)}  ",
            call(rollout.prediction.get("direction"), rollout.prediction.get("percent")),
            " ",
            (look.glyph if look else "", look.style if look else ""),
            f"  {figures.fixed(rollout.reward)} ",
            (figures.signed(rollout.advantage), "$good" if rollout.advantage > 0 else "$quiet"),
            (f" · {figures.whole(rollout.tokens)} tokens", "$quiet"),
        )

    def _show_head(self) -> None:
        rollout, samples = self._rollout, self._samples
        subject = rollout.subject
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
            f"group {rollout.group + 1}{of}{self._num_groups or UNKNOWN}",
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
        self.query_one("#closes", Chart).draw(closes(subject, revealed=self._revealed))


def _group(rollout: Rollout) -> tuple[int, int, int]:
    return rollout.attempt, rollout.step, rollout.group


def _title(rollout: Rollout) -> Content:
    return Content.assemble(
        "What it said", (f" · {figures.whole(rollout.tokens)} tokens", "$quiet")
    )

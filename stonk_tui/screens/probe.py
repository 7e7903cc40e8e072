"""Ask checkpoints: an example, whom to ask, their answers side by side, and those of before."""

import contextlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from textual import on, work
from textual.app import ComposeResult
from textual.binding import BindingType
from textual.containers import Container, Horizontal, Vertical
from textual.content import Content
from textual.message import Message
from textual.widgets import Input, Label, Static, TextArea
from textual.worker import get_current_worker

from engine.errors import RunFailedError, UserError
from engine.runs.directory import RunDirectory
from stonk_tui import actions
from stonk_tui.feed import RunModel, in_words
from stonk_tui.screens.base import CockpitScreen
from stonk_tui.widgets import probes
from stonk_tui.widgets.scroller import Scroller
from stonk_tui.widgets.table import Table
from stonk_tui.widgets.text import line
from stonk_tui.widgets.trail import Trail, trail

MAX_CHECKPOINTS = 4
ANSWER_SECONDS = 3600.0
_TICKER = re.compile(r"[A-Za-z0-9._-]{1,16}")
_DAY = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")
_TYPED = """\
# An example of your own; docs/probe.md has all keys. F5 asks.
ticker: ACME
as_of: 2026-11-19
prices: [101.2, 99.8, 100.1, 101.0, 102.0, 103.0, 102.5, 101.9, 104.0, 105.2, 106.0]
news: [Acme raises its forecast]
"""


@dataclass(frozen=True)
class Asked:
    """The form as it was when somebody asked."""

    checkpoints: tuple[str, ...]
    samples: int
    temperature: float | None
    ticker: str
    date: str
    source: str
    typed: str | None
    """The text of an example typed by hand; None for a day of a source."""
    seed: int


@dataclass
class DraftCame(Message, bubble=False):
    """Some more has been said."""

    run: RunDirectory
    draft: Mapping[str, Any]

    def can_replace(self, message: Message) -> bool:
        return isinstance(message, DraftCame)


@dataclass
class Answered(Message, bubble=False):
    """The answer came, or not."""

    run: RunDirectory
    answer: Mapping[str, Any] | None
    problem: str


class ProbeScreen(CockpitScreen):
    """A form, up to four columns, and the history."""

    BINDINGS: ClassVar[list[BindingType]] = actions.bindings("probe")
    scope: ClassVar[actions.Scope] = "probe"
    noun = "Probe"
    explanation = (
        "Asks one to four checkpoints about one example, several times each. P(▲) is the share of "
        "▲ among the samples that say a side, with its 95 % Wilson interval and their number; a "
        "sample that says none counts in neither. The run goes on: its worker answers between "
        "two steps, and the training is bit for bit what it would have been."
    )
    CSS_PATH = "probe.tcss"
    AUTO_FOCUS = "#ticker"

    def __init__(self) -> None:
        super().__init__()
        self._run: RunDirectory | None = None
        self._shown: Mapping[str, Any] | None = None
        """The probe in the columns; None before the first."""
        self._problem = ""
        self.is_asking = False

    def compose_body(self) -> ComposeResult:
        yield Trail()
        yield Static(id="asked", markup=False)
        with Horizontal(id="day", classes="form"):
            yield Label("ticker")
            yield Input("AAPL", id="ticker", max_length=16, compact=True)
            yield Label("date")
            yield Input("2012-09-14", id="date", max_length=10, compact=True)
            yield Label("source")
            yield Input(id="source", placeholder="the run's own", max_length=400, compact=True)
        yield TextArea(_TYPED, id="typed", show_line_numbers=False)
        with Horizontal(classes="form"):
            yield Label("checkpoints")
            yield Input("base, best", id="checkpoints", max_length=400, compact=True)
            yield Label("samples")
            yield Input("8", id="samples", type="integer", max_length=2, compact=True)
            yield Label("temperature")
            yield Input(id="temperature", placeholder="run's", max_length=4, compact=True)
        with Container(id="columns"):
            for number in range(MAX_CHECKPOINTS):
                with Scroller(id=f"column-{number}", classes="column unused"):
                    yield Static(markup=False)
        with Vertical(id="past") as past:
            past.border_title = Content(" Asked before ")
            yield Table(probes.HISTORY, empty="Nothing yet.", id="history")
        yield Static(id="word", markup=False)

    # --- what is shown

    def show_model(self) -> None:
        model = self.cockpit.model
        if model is None:
            return
        if model.run != self._run:
            self._begin_with(model)
        past = model.history.probes
        self.query_one("#history", Table).set_rows(probes.history(past))
        if self._shown is None and past and not self.is_asking:
            self._show(past[-1])
        self._say(model)

    def _begin_with(self, model: RunModel) -> None:
        """Another run is attached: what was said about the one before goes."""
        self._run, self._shown, self._problem = model.run, None, ""
        self._put([])
        self._fill_in(model)
        self.query_one(Trail).update(trail(model.run.id, "probe"))
        self.query_one("#asked", Static).update("")

    def _fill_in(self, model: RunModel) -> None:
        """Begin with the newest example that the run has trained on, which its source has."""
        subject = model.rollouts[0].subject if model.rollouts else {}
        ticker, day = str(subject.get("ticker")), str(subject.get("as_of"))
        if _TICKER.fullmatch(ticker) and _DAY.fullmatch(day):
            self.query_one("#ticker", Input).value = ticker
            self.query_one("#date", Input).value = day

    def _show(self, probe: Mapping[str, Any]) -> None:
        """Put a whole answer into the columns."""
        self._shown = probe
        self.query_one("#asked", Static).update(probes.asked(probe))
        self._put(
            [(self._title(one), probes.answered(one)) for one in probes.answers(probe)],
            scroll_home=True,
        )

    def _title(self, answer: Mapping[str, Any]) -> Content:
        model = self.cockpit.model
        own, best = (model.run.id, model.history.best) if model is not None else ("", None)
        return probes.title(answer, own_run=own, best=best)

    def _put(
        self, columns: Sequence[tuple[Content, Content]], *, scroll_home: bool = False
    ) -> None:
        for number in range(MAX_CHECKPOINTS):
            column = self.query_one(f"#column-{number}", Scroller)
            is_used = number < len(columns)
            column.set_class(not is_used, "unused")
            if is_used:
                column.border_title, content = columns[number]
                column.query_one(Static).update(content)
                if scroll_home:
                    column.scroll_home(animate=False)

    def _say(self, model: RunModel) -> None:
        if self._problem:
            content = line(self._problem, "$warn", limit=300)
        elif self.is_asking:
            content = Content.styled(
                "asked: a worker in training answers between two steps"
                if model.commandable
                else "asked: a worker loads the model first",
                "$gold",
            )
        elif model.state[0] == "paused":
            content = Content.styled(
                "the run is paused, and stays so: its worker answers, its state is untouched",
                "$quiet",
            )
        elif model.commandable:
            content = Content.styled(
                "the run keeps training: answers come between steps, its state is untouched",
                "$quiet",
            )
        else:
            content = Content.styled(
                "no worker lives: one is started for probes, and ends when nobody asks", "$quiet"
            )
        self.query_one("#word", Static).update(content)

    # --- asking

    @on(Input.Submitted)
    def _submit(self) -> None:
        self.cockpit.perform("ask")

    def do_ask(self) -> None:
        model = self.cockpit.model
        if model is None:
            return
        form = self._form(len(model.history.probes))
        if isinstance(form, str):
            self._complain(form)
            return
        self._problem, self.is_asking, self._shown = "", True, None
        self._put(
            [(Content(f" {name} "), Content.styled("waits", "$quiet")) for name in form.checkpoints]
        )
        self._say(model)
        self.show_keys()
        self._ask(model.run, form)

    def _form(self, seed: int) -> Asked | str:
        """What the form says, or what is wrong with it."""

        def of(name: str) -> str:
            return self.query_one(f"#{name}", Input).value.strip()

        names = tuple(name.strip() for name in of("checkpoints").split(",") if name.strip())
        if not 1 <= len(names) <= MAX_CHECKPOINTS:
            return f"name one to {MAX_CHECKPOINTS} checkpoints, with commas between them"
        samples = of("samples")
        if not samples.isdecimal() or not 1 <= int(samples) <= 64:
            return "samples: a whole number from 1 to 64"
        temperature: float | None = None
        if of("temperature"):
            with contextlib.suppress(ValueError):
                temperature = float(of("temperature"))
            if temperature is None or not 0 < temperature <= 5:
                return "temperature: a number above 0, up to 5; empty for the run's own"
        by_hand = self.has_class("-by-hand")
        return Asked(
            checkpoints=names,
            samples=int(samples),
            temperature=temperature,
            ticker=of("ticker"),
            date=of("date"),
            source=of("source"),
            typed=self.query_one("#typed", TextArea).text if by_hand else None,
            seed=seed,
        )

    @work(thread=True, exit_on_error=False, group="probe")
    def _ask(self, run: RunDirectory, form: Asked) -> None:
        # Imported when first needed: numbers and market examples come along.
        from engine.probe import client
        from engine.probe.request import ProbeRequest, Wanted

        worker = get_current_worker()
        try:
            pinned = tuple(client.pinned(name, run) for name in form.checkpoints)
            wanted = (
                Wanted(source=form.source or None, ticker=form.ticker, date=form.date)
                if form.typed is None
                else Wanted(text=form.typed, where="your example")
            )
            described = client.describe(run, wanted)
            request = ProbeRequest(
                checkpoints=pinned,
                example=described.example,
                style=described.style,
                samples=form.samples,
                temperature=form.temperature,
                seed=form.seed,
            )
            answer = client.ask(
                run,
                request,
                timeout=ANSWER_SECONDS,
                drafts=lambda draft: self.post_message(DraftCame(run, draft)),
                is_cancelled=lambda: worker.is_cancelled,
            )
        except UserError as error:
            self.post_message(Answered(run, None, in_words(error)))
        except (RunFailedError, OSError, ValueError) as error:
            self.post_message(Answered(run, None, str(error)))
        else:
            self.post_message(Answered(run, answer, ""))

    def on_draft_came(self, event: DraftCame) -> None:
        if event.run != self._run or not self.is_asking:
            return
        draft = event.draft
        done = probes.mappings(draft.get("answered"))
        columns = [(self._title(one), probes.answered(one)) for one in done]
        columns.append((self._title(draft), probes.sampling(draft)))
        number = len(columns)
        for rest in range(number, MAX_CHECKPOINTS):
            waiting = self.query_one(f"#column-{rest}", Scroller)
            if not waiting.has_class("unused"):
                columns.append((Content(str(waiting.border_title)), Content("waits")))
        self.query_one("#asked", Static).update(probes.asked(draft))
        self._put(columns[:MAX_CHECKPOINTS])

    def on_answered(self, event: Answered) -> None:
        if event.run != self._run:
            return
        self.is_asking = False
        if event.answer is not None:
            self._show(event.answer)
        else:
            self._problem = event.problem
            self._put([])
        self.refresh_screen()

    def _complain(self, text: str) -> None:
        self._problem = text
        if (model := self.cockpit.model) is not None:
            self._say(model)

    # --- the rest

    def do_by_hand(self) -> None:
        self.toggle_class("-by-hand")
        is_by_hand = self.has_class("-by-hand")
        self.query_one("#typed" if is_by_hand else "#ticker").focus()

    def do_past(self) -> None:
        self.query_one("#history").focus()

    @on(Table.Chosen)
    def _open_past(self, event: Table.Chosen) -> None:
        model = self.cockpit.model
        if model is None or self.is_asking:
            return
        chosen = next(
            (one for one in model.history.probes if str(one.get("id")) == event.key), None
        )
        if chosen is not None:
            self._problem = ""
            self._show(chosen)

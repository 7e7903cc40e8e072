"""Evaluate checkpoints: a form, one that runs, the reports of before, and one of them opened."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from textual import on, work
from textual.app import ComposeResult
from textual.binding import BindingType
from textual.containers import Vertical
from textual.content import Content
from textual.message import Message
from textual.widgets import Input, Static
from textual.worker import get_current_worker

from engine.errors import RunFailedError, UserError
from engine.runs.directory import RunDirectory
from engine.text import one_line
from stonk_tui import actions, evaluation_form
from stonk_tui.evaluation_form import Problem
from stonk_tui.evaluation_list import EvaluationList, Looked, Past, look
from stonk_tui.evaluation_report import mapping
from stonk_tui.feed import RunModel, in_words
from stonk_tui.screens.base import CockpitScreen
from stonk_tui.screens.confirm import ConfirmScreen
from stonk_tui.widgets import evaluations, report
from stonk_tui.widgets.evaluation_fields import EvaluationFields
from stonk_tui.widgets.scroller import Scroller
from stonk_tui.widgets.table import Table
from stonk_tui.widgets.text import line
from stonk_tui.widgets.trail import Trail, trail

LOOK_SECONDS = 0.5
"""Between two looks at how far it is; the list of reports is read at every fourth."""
_LOOKS_PER_LIST = 4
_BOX_EDGES = 5
"""Cells of a line that the box takes for its border, its padding and its scroll bar."""
_FORCE = "--force"
"""What a refusal names that a person may insist on."""


@dataclass
class Ended(Message, bubble=False):
    """What was asked for here has come to its end."""

    run: RunDirectory
    problem: str
    typed: Mapping[str, str]


@dataclass
class Stopped(Message, bubble=False):
    """The worker was told to stop evaluating, or could not be."""

    run: RunDirectory
    problem: str


class ReportBox(Scroller):
    """What runs, or a report."""

    noun: ClassVar[str] = "A report"
    explanation: ClassVar[str] = (
        "The verdict on each checkpoint comes first, with its reasons, then the figures that "
        "it rests on. Figures in brackets are 95 % intervals over whole days, for calls on one day "
        "stand or fall together; how much better a checkpoint is than a baseline or another "
        "checkpoint is measured on the same examples. What is not computable is a dot, and the end "
        "of the report says why."
    )


class EvaluateScreen(CockpitScreen):
    """A form, a box with what runs or with a report, and the list of reports."""

    BINDINGS: ClassVar[list[BindingType]] = actions.bindings("evaluate")
    scope: ClassVar[actions.Scope] = "evaluate"
    noun = "Evaluate"
    explanation = (
        "Predicts every example of a split with each checkpoint, the untrained base model among "
        "them, and says in words what that shows. Accuracy stands with its 95 % interval, n and "
        "the best baseline on the same examples; the verdict follows rules that are written down "
        "in docs/evaluation.md. Each look at the test split is counted, for who looks often finds "
        "something by chance; choose checkpoints on the validation split."
    )
    CSS_PATH = "evaluate.tcss"
    AUTO_FOCUS = "#checkpoints"

    def __init__(self) -> None:
        super().__init__()
        self._run: RunDirectory | None = None
        self._list = EvaluationList()
        self._past: tuple[Past, ...] = ()
        self._draft: Mapping[str, Any] | None = None
        self._told_before: Mapping[str, Any] | None = None
        """What ran when the screen was drawn last."""
        self._is_alive = True
        self._looks = 0
        self._is_looking = False
        self._opened = ""
        """Id of the report that a person opened; empty for what is newest."""
        self._shown: tuple[Path, int, int] | None = None
        """The report in the box, and its width there; a long one is not drawn for nothing."""
        self._problem = ""
        self._trouble = ""
        """Why the run could not be looked at the last time."""
        self.is_asking = False
        """What was asked for here has not ended."""

    def compose_body(self) -> ComposeResult:
        yield Trail()
        yield EvaluationFields()
        with ReportBox(id="box"):
            yield Static(id="text", markup=False)
        with Vertical(id="past") as past:
            past.border_title = Content("Evaluations of this run")
            yield Table(evaluations.PAST, empty="None yet.", id="reports", follows=False)
        yield Static(id="word", markup=False)

    def on_mount(self) -> None:
        self.set_interval(LOOK_SECONDS, self._look)

    def on_resize(self) -> None:
        self.refresh_screen()

    # --- what is shown

    def show_model(self) -> None:
        model = self.cockpit.model
        if model is None:
            return
        if model.run != self._run:
            self._begin_with(model)
        own_source = model.config.data.source if model.config is not None else None
        self.query_one(EvaluationFields).about(model.run, self._past, own_source)
        self._notice_the_end(model)
        self._fill(model)
        self._say(model)

    def _notice_the_end(self, model: RunModel) -> None:
        """What has just been evaluated opens by itself."""
        told, before = self._told, self._told_before
        self._told_before = told
        if before is None or (told is not None and told.get("id") == before.get("id")):
            return
        ended = (one for one in model.history.evaluations if one.get("id") == before.get("id"))
        if next(ended, {}).get("state") == "done" and not self._opened:
            self._opened, self._looks = str(before.get("folder")), 0
            self._look()

    def _begin_with(self, model: RunModel) -> None:
        """Another run is attached: what was said about the one before goes."""
        self._run, self._past, self._draft, self._problem = model.run, (), None, ""
        self._opened, self._looks, self._told_before = "", 0, None
        self.query_one(Trail).update(trail(model.run.id, "evaluate"))
        history = model.history
        named = "best" if history.best else "last" if history.checkpoints else "base"
        self.query_one(EvaluationFields).fill({"checkpoints": named})
        self._look()

    @property
    def _told(self) -> Mapping[str, Any] | None:
        """The newest event about the evaluation that runs."""
        model = self.cockpit.model
        if model is None or not self._is_alive:
            return None
        begun = (one for one in model.history.evaluations if one.get("state") == "begun")
        return max(begun, key=lambda one: one["begun"], default=None)

    @property
    def _report(self) -> Past | None:
        """The one whose report is shown."""
        opened = next((one for one in self._past if one.id == self._opened), None)
        if opened is not None or not self._past or self._told is not None:
            return opened
        return self._past[0]

    def _fill(self, model: RunModel) -> None:
        told = self._told
        self.query_one("#reports", Table).set_rows(
            evaluations.past_rows(self._past, self.cockpit.clock(), mapping(told).get("folder"))
        )
        box = self.query_one(ReportBox)
        width = self.size.width - _BOX_EDGES
        past = self._report
        if past is not None:
            if self._shown == (past.folder, id(past), width):
                return
            self._shown = (past.folder, id(past), width)
            title, text = report.title(past), report.opened(past, width)
        elif told is not None:
            self._shown = None
            title, text = Content("Evaluating"), evaluations.running(told, self._draft, width)
        else:
            self._shown = None
            title, text = Content("No evaluation yet"), evaluations.nothing_yet()
        box.border_title = title
        self.query_one("#text", Static).update(text)

    def _say(self, model: RunModel) -> None:
        told = self._told
        if problem := self._problem or self._trouble:
            content = line(problem, "$warn", limit=400)
        elif told is not None:
            content = evaluations.meanwhile(
                self._draft, trains=model.commandable, is_in_sight=self._report is None
            )
        elif self.is_asking:
            content = Content.styled(
                "asked: the worker evaluates between two steps"
                if model.commandable
                else "asked: a worker loads the model first",
                "$gold",
            )
        elif model.state[0] == "paused":
            content = Content.styled(
                "the run is paused, and stays so: its worker evaluates meanwhile", "$quiet"
            )
        elif model.commandable:
            content = Content.styled(
                "the worker evaluates between two steps; training waits and then goes on", "$quiet"
            )
        else:
            content = Content.styled(
                "no worker lives: one is started for it, and ends when it is done", "$quiet"
            )
        self.query_one("#word", Static).update(content)

    # --- looking

    def _look(self) -> None:
        model = self.cockpit.model
        if self.is_current and not self._is_looking and model and model.run == self._run:
            self._is_looking = True
            identifier = str(mapping(self._told).get("id") or "")
            with_list = self._looks % _LOOKS_PER_LIST == 0
            self._looks += 1
            self._read(model.run, identifier, with_list=with_list)

    @work(thread=True, exit_on_error=False, group="look")
    def _read(self, run: RunDirectory, identifier: str, *, with_list: bool) -> None:
        self.post_message(look(run, self._list, identifier, with_list=with_list))

    def on_looked(self, event: Looked) -> None:
        self._is_looking = False
        if event.run != self._run:
            return
        before = (self._draft, self._is_alive, self._trouble)
        self._draft, self._is_alive, self._trouble = event.draft, event.is_alive, event.problem
        # What has not changed on disk is the very same object.
        is_new = event.past is not None and [*map(id, event.past)] != [*map(id, self._past)]
        if event.past is not None and is_new:
            self._past = event.past
        if is_new or before != (self._draft, self._is_alive, self._trouble):
            self.refresh_screen()

    # --- beginning and ending

    @on(EvaluationFields.Judged)
    def _forget_the_problem(self) -> None:
        self._problem = ""
        self.refresh_screen()

    @on(Input.Submitted)
    def _submit(self) -> None:
        self.cockpit.perform("begin_evaluation")

    def why_not(self, action_id: str) -> str:
        """Why an action cannot be done now; empty where it can."""
        if action_id == "begin_evaluation" and (self.is_asking or self._told is not None):
            return "one evaluation at a time: f6 stops the one that runs"
        if action_id == "stop_evaluation" and self._told is None:
            return "none runs"
        if action_id == "copy_report_path" and self._report is None:
            return "no report is open"
        return ""

    def do_begin_evaluation(self) -> None:
        if self._run is None:
            return
        self._begin(self._run, self.query_one(EvaluationFields).values)

    def _begin(self, run: RunDirectory, typed: Mapping[str, str], *, force: bool = False) -> None:
        self._problem, self._opened, self.is_asking = "", "", True
        self.refresh_screen()
        self._evaluate(run, typed, force=force)

    @work(thread=True, exit_on_error=False, group="evaluation")
    def _evaluate(
        self, run: RunDirectory, typed: Mapping[str, str], *, force: bool = False
    ) -> None:
        # Imported when first needed, like everything that only few openings need.
        from engine.evaluation import client

        worker = get_current_worker()
        found = evaluation_form.read(typed, run)
        if isinstance(found, Problem):
            self.post_message(Ended(run, f"{found.field}: {found.text}", typed))
            return
        try:
            wanted = found.model_copy(update={"force": force})
            client.evaluate(run, wanted, is_cancelled=lambda: worker.is_cancelled)
        except UserError as error:
            self.post_message(Ended(run, in_words(error), typed))
        except (RunFailedError, OSError, ValueError) as error:
            self.post_message(Ended(run, str(error), typed))
        else:
            self.post_message(Ended(run, "", typed))

    def on_ended(self, event: Ended) -> None:
        if event.run != self._run:
            return
        self.is_asking, self._problem, self._looks = False, event.problem, 0
        if _FORCE in event.problem:
            self._insist(event)
        self._look()
        self.refresh_screen()

    def _insist(self, event: Ended) -> None:
        """Refused for its dates: only who is asked again evaluates all the same."""
        explanation = Content.assemble(
            line(event.problem.partition(";")[0], limit=300),
            ".\n\nEvaluated all the same, every page of the report is marked, and the verdict is "
            "no evidence at best.",
        )
        self.app.push_screen(
            ConfirmScreen(
                Content("Evaluate days that training may have seen?"),
                explanation,
                "evaluate them, marked",
                "do not",
            ),
            lambda is_meant: self._begin(event.run, event.typed, force=True) if is_meant else None,
        )

    def do_stop_evaluation(self) -> None:
        run = self._run
        if run is None:
            return

        def stop(is_meant: bool | None) -> None:
            if is_meant:
                self._stop(run)

        explanation = Content(
            "What was predicted is kept: the same form evaluated again goes on from there, and "
            "repeats nothing. There is no report until all is predicted."
        )
        self.app.push_screen(
            ConfirmScreen(Content("Stop the evaluation?"), explanation, "stop it", "let it go on"),
            stop,
        )

    @work(thread=True, exit_on_error=False, group="stop")
    def _stop(self, run: RunDirectory) -> None:
        from engine.evaluation import client

        try:
            client.interrupt(run)
        except UserError as error:
            self.post_message(Stopped(run, in_words(error)))
        else:
            self.post_message(Stopped(run, ""))

    def on_stopped(self, event: Stopped) -> None:
        if event.problem:
            self.notify(one_line(event.problem), severity="error", markup=False)
        else:
            self.notify("stop: accepted, what was predicted is kept", markup=False)

    # --- reports

    def do_past_evaluations(self) -> None:
        self.query_one("#reports").focus()

    @on(Table.Chosen)
    def _open(self, event: Table.Chosen) -> None:
        self._opened, self._problem = evaluations.evaluation_of(event.key), ""
        past = self._report
        if past is not None and past.is_unfinished:
            self._ask_for(past.context.get("request"))
        box = self.query_one(ReportBox)
        box.scroll_home(animate=False)
        box.focus()
        self.refresh_screen()

    def _ask_for(self, asked: object) -> None:
        """Let the form ask for what was asked before, where it can say that."""
        self.query_one(EvaluationFields).fill(evaluation_form.values_of(asked) or {})

    def do_widen_report(self) -> None:
        self.toggle_class("-whole")
        if self.has_class("-whole"):
            self.query_one("#box").focus()
        self.call_after_refresh(self.on_resize)

    def do_copy_report_path(self) -> None:
        if (past := self._report) is not None:
            self.app.copy_to_clipboard(str(past.folder))

    def step_back(self) -> bool:
        """Fold the report back; from a report of before to the evaluation that runs."""
        if self.has_class("-whole"):
            self.do_widen_report()
            return True
        has_opened, self._opened = bool(self._opened and self._told is not None), ""
        self.refresh_screen()
        return has_opened

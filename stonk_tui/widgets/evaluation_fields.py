"""The form of an evaluation: five fields, judged as they are typed."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from textual import on, work
from textual.app import ComposeResult
from textual.containers import Horizontal, Vertical
from textual.content import Content
from textual.message import Message
from textual.widgets import Input, Label, Static

from engine.evaluation.request import EvaluationRequest
from engine.runs.directory import RunDirectory
from stonk_tui import evaluation_form
from stonk_tui.evaluation_form import FIELDS, Problem
from stonk_tui.evaluation_list import Past
from stonk_tui.widgets import evaluations
from stonk_tui.widgets.text import line


@dataclass
class Read(Message, bubble=False):
    """What the form says, or what is wrong with it."""

    run: RunDirectory
    typed: Mapping[str, str]
    found: EvaluationRequest | Problem


class EvaluationFields(Vertical):
    """Two lines of fields, and one that says what they come to."""

    noun: ClassVar[str] = "What to evaluate"
    explanation: ClassVar[str] = (
        "Checkpoints with commas between them (base, best, last, step-N, RUN:step-N), the source "
        "of examples, which split of it, how many samples of each example and how many examples at "
        "most. One sample is greedy, several are drawn at the run's temperature and decide by "
        "majority. The untrained base model is always evaluated beside them; what it will take is "
        "told by the evaluations of before."
    )

    DEFAULT_CSS = """
    EvaluationFields { height: 3; }
    EvaluationFields Horizontal { height: 1; padding: 0 1; }
    EvaluationFields Label { color: $quiet; margin-right: 1; }
    EvaluationFields Input { background: $panel; margin-right: 2; }
    EvaluationFields Input.-wrong { text-style: underline; color: $warn; }
    EvaluationFields #checkpoints, EvaluationFields #source { width: 1fr; }
    EvaluationFields #source { margin-right: 0; }
    EvaluationFields #split { width: 14; }
    EvaluationFields #samples { width: 5; }
    EvaluationFields #examples { width: 10; margin-right: 0; }
    EvaluationFields #judged {
        height: 1; padding: 0 1; text-wrap: nowrap; text-overflow: ellipsis;
    }
    """

    @dataclass
    class Judged(Message):
        """Something else was typed, and has been judged."""

    def __init__(self) -> None:
        super().__init__()
        self._run: RunDirectory | None = None
        self._past: tuple[Past, ...] = ()
        self._own_source: str | None = None
        self._found: EvaluationRequest | Problem | None = None

    def compose(self) -> ComposeResult:
        with Horizontal():
            yield Label("checkpoints")
            yield Input("best", id="checkpoints", max_length=1000, compact=True)
            yield Label("source")
            yield Input(id="source", placeholder="the run's own", max_length=400, compact=True)
        with Horizontal():
            yield Label("split")
            yield Input("test", id="split", max_length=12, compact=True)
            yield Label("samples")
            yield Input("1", id="samples", max_length=3, compact=True)
            yield Label("examples")
            yield Input(id="examples", placeholder="all", max_length=8, compact=True)
        yield Static(id="judged", markup=False)

    @property
    def values(self) -> dict[str, str]:
        """The text of each field."""
        return {name: self.query_one(f"#{name}", Input).value for name in FIELDS}

    def fill(self, values: Mapping[str, str]) -> None:
        """Put ``values`` into their fields."""
        for name, value in values.items():
            self.query_one(f"#{name}", Input).value = value

    def about(self, run: RunDirectory, past: tuple[Past, ...], own_source: str | None) -> None:
        """Judge by ``run`` from now on, and by what is known of its evaluations."""
        if (run, own_source) == (self._run, self._own_source) and past is self._past:
            return
        is_another, self._run = run != self._run, run
        self._past, self._own_source = past, own_source
        if is_another:
            self._found = None
            self._judge()
        self._say()

    @on(Input.Changed)
    def _judge(self) -> None:
        if self._run is not None:
            self._read(self._run, self.values)

    @work(thread=True, exit_on_error=False, group="form")
    def _read(self, run: RunDirectory, typed: Mapping[str, str]) -> None:
        self.post_message(Read(run, typed, evaluation_form.read(typed, run)))

    def on_read(self, event: Read) -> None:
        # A thread cannot be called off: what it found may be about what stood there before.
        if event.run == self._run and event.typed == self.values:
            is_other, self._found = event.found != self._found, event.found
            self._say()
            if is_other:
                self.post_message(self.Judged())

    def on_resize(self) -> None:
        self._say()

    def _say(self) -> None:
        """What the form comes to, by what is known of earlier evaluations."""
        found = self._found
        if found is None:
            return
        if isinstance(found, Problem):
            told = line(f"{found.field}: {found.text}", "$warn", limit=300)
            content = Content.assemble(("✗ ", "$bad"), told)
        else:
            cost = evaluation_form.cost(found, self._past, self._own_source)
            content = evaluations.judged(cost, found.split, self.size.width - 2)
        for name in FIELDS:
            is_wrong = isinstance(found, Problem) and found.field == name
            self.query_one(f"#{name}").set_class(is_wrong, "-wrong")
        self.query_one("#judged", Static).update(content)

"""Before a real run: what this machine has, what is missing, and what would be downloaded."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from textual import on, work
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal, Vertical, VerticalScroll
from textual.content import Content
from textual.message import Message
from textual.screen import ModalScreen
from textual.widgets import Button, Static

from engine.config import RunConfig
from stonk_tui.theme import Look, level_look
from stonk_tui.widgets.text import line

if TYPE_CHECKING:
    from stonk_tui.doctor import DoctorReport, Finding

_BESIDE_THE_POINT = ("python", "sqlite", "lingering", "terminal")
"""What the doctor looks at besides; shown only where it stands in the way."""


@dataclass
class Examined(Message, bubble=False):
    """The doctor has looked at the machine."""

    report: "DoctorReport"
    downloads: tuple[str, ...]


class RealRunScreen(ModalScreen[bool]):
    """The doctor's findings on a real run; yes goes on to the form."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape", "leave", "Leave", show=False),
    ]
    DEFAULT_CSS = """
    RealRunScreen { align: center middle; background: $background 70%; }
    RealRunScreen > Vertical {
        width: 110; max-width: 98%; height: auto; max-height: 98%; padding: 0 2;
        border: round $gold; background: $surface; border-title-color: $gold;
    }
    RealRunScreen VerticalScroll { height: auto; max-height: 100%; scrollbar-size-vertical: 1; }
    RealRunScreen Static { width: 1fr; height: auto; }
    RealRunScreen #downloads { margin-top: 1; }
    RealRunScreen Horizontal { height: 1; margin-top: 1; align-horizontal: right; dock: bottom; }
    RealRunScreen Button { margin-left: 2; }
    """

    def __init__(self, config: RunConfig) -> None:
        """Prepare to look at what a run of ``config`` needs."""
        super().__init__()
        self._config = config

    def compose(self) -> ComposeResult:
        with Vertical() as box:
            box.border_title = Content.assemble(
                " A real run with ", line(self._config.model.id, limit=60), " "
            )
            with VerticalScroll():
                yield Static("Looking at this machine …", id="findings", markup=False)
                yield Static(id="downloads", markup=False)
                yield Static(" ", markup=False)
            with Horizontal():
                yield Button("Back", id="back", compact=True)
                yield Button("Settings …", id="go-on", variant="primary", compact=True)

    def on_mount(self) -> None:
        self.query_one("#go-on", Button).focus()
        self._examine()

    @work(thread=True, exit_on_error=False, group="doctor")
    def _examine(self) -> None:
        from engine.runs.home import home
        from stonk_tui import doctor

        report = doctor.collect(self._config.model.id, home())
        self.post_message(Examined(report, downloads(self._config)))

    def on_examined(self, event: Examined) -> None:
        shown = [
            finding
            for finding in event.report.findings
            if finding.name not in _BESIDE_THE_POINT or finding.level in ("warning", "error")
        ]
        self.query_one("#findings", Static).update(
            Content("\n").join(piece for finding in shown for piece in _lines(finding))
        )
        self.query_one("#downloads", Static).update(
            Content("\n").join(
                [Content.styled("To be downloaded:", "bold")]
                + [Content.assemble("  ", line(text, limit=300)) for text in event.downloads]
            )
        )

    @on(Button.Pressed, "#go-on")
    def _go_on(self) -> None:
        self.dismiss(True)

    @on(Button.Pressed, "#back")
    def action_leave(self) -> None:
        self.dismiss(False)


def downloads(config: RunConfig) -> tuple[str, ...]:
    """What a run of ``config`` would fetch on this machine, a line each."""
    from stonk_tui.doctor import model

    model_id, source = config.model.id, config.data.source
    size = model.model_disk(model_id, model.parameter_count(model_id))
    if size == 0:
        told = [f"model: nothing, {model_id} is on this machine"]
    else:
        amount = "of a size that is not known" if size is None else f"about {size / 1e9:.1f} GB"
        told = [f"model: {model_id}, {amount}, into {model.model_cache(model_id)}"]
    if source.partition(":")[0] != "deepstock":
        told.append(f"market data: nothing, {source} is on this machine")
    else:
        told.append(f"market data: {source}, unless it lies in the hub's cache already")
    return tuple(told)


def _lines(finding: "Finding") -> list[Content]:
    look = _look(finding.level)
    head = Content.assemble(
        (f"{look.glyph} ", look.style),
        (f"{finding.name:<13} ", "bold"),
        line(finding.message, limit=300),
    )
    if not finding.fix:
        return [head]
    return [head, Content.assemble(" " * 16, ("→ ", "$quiet"), line(finding.fix, limit=300))]


def _look(level: str) -> Look:
    return level_look({"ok": "good", "note": "info"}.get(level, level))

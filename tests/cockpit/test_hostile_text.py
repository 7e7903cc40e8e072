"""Any text, in any field: what the widgets and the command line make of it is only ever text.

The screens, one hostile run driven through all of them: test_untrusted_text. Here the text is
generated, and goes through every panel and line of the cockpit and everything that commands print.
"""

import ast
import contextlib
import importlib
import io
import pkgutil
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from textual._context import active_app
from textual.content import Content

from engine.runs.history import LogLine
from engine.runs.reader import Event
from stonk_tui import announce, headless, widgets
from stonk_tui.app import Cockpit
from stonk_tui.commands import output
from stonk_tui.screens.log import tail
from stonk_tui.widgets import chart
from stonk_tui.widgets.banner import sentence
from stonk_tui.widgets.happenings import folded, words
from stonk_tui.widgets.panel import Panel
from stonk_tui.widgets.rollouts import rollout_row
from stonk_tui.widgets.text import line, shown
from tests.cockpit.hostile import FORBIDDEN, PIECES, rollout_of, run_of, unsafe

ROOT = Path(__file__).resolve().parents[2]

TEXT = st.lists(st.one_of(st.sampled_from(PIECES), st.text(max_size=4)), max_size=12).map("".join)


@pytest.fixture(autouse=True)
def panels_have_an_app() -> Iterator[None]:
    """Whose keys they show."""
    token = active_app.set(Cockpit(None))
    yield
    active_app.reset(token)


def assert_inert(content: Content, text: str) -> None:
    assert unsafe(content.plain) == ""
    for span in content.spans:
        # A style is ours, never made of what was said.
        assert "app.quit" not in str(span.style)
        assert "evil" not in str(span.style)
        assert isinstance(span.style, str), span.style


def panels() -> list[type[Panel]]:
    for module in pkgutil.iter_modules(widgets.__path__):
        importlib.import_module(f"{widgets.__name__}.{module.name}")
    return sorted(Panel.__subclasses__(), key=lambda panel: panel.__name__)


@pytest.mark.parametrize("panel", panels(), ids=lambda panel: panel.__name__)
@given(text=TEXT, width=st.integers(8, 120), height=st.integers(2, 40))
@settings(max_examples=60, deadline=None)
def test_every_panel_makes_plain_text_of_any_text(
    panel: type[Panel], text: str, width: int, height: int
) -> None:
    view = run_of(text)
    with contextlib.suppress(NotImplementedError):
        # The rollouts are a table: its rows are below.
        for content in panel(id="x").draw(view, width, height):
            assert_inert(content, text)
    if hasattr(panel, "folded"):
        assert_inert(panel.folded(view, width), text)


@given(text=TEXT, width=st.integers(8, 120))
@settings(max_examples=100, deadline=None)
def test_every_line_of_the_cockpit_makes_plain_text_of_any_text(text: str, width: int) -> None:
    view = run_of(text)
    for state in ("training", "paused", "failed", "finished", "stopping", "starting", text):
        view.history.state = state
        assert_inert(sentence(view, 10.0), text)
    for problem in (view.problem, view.misread):
        assert not problem
    view.problem = text
    assert_inert(sentence(view, 10.0), text)
    entry = LogLine(1.0, 1, text, text)
    for content in (*folded(entry, width), words(entry), line(text), shown(text)):
        assert_inert(content, text)
    for cell in rollout_row(rollout_of(text), leads=True).cells:
        assert_inert(cell, text)
    picture = chart.Picture(
        lines=(chart.Line([1, 2, 3], [1, 2, 1], "$ink"),),
        marks=(chart.Mark(2, line(text, limit=20).plain),),
        empty=line(text).plain,
    )
    assert_inert(chart.render(picture, max(20, width), 8), text)


@given(TEXT)
@settings(max_examples=100, deadline=None)
def test_bell_and_notification_cannot_be_ended_by_any_text(text: str) -> None:
    before = announce.Standing("warming_up", frozenset(), 0)
    for said in announce.compare(before, run_of(text)).lines:
        sent = announce.osc9(said)
        assert sent.startswith("\x1b]9;stonk-tui: ")
        assert sent.endswith("\x07")
        assert not re.search("[\x00-\x1f\x7f-\x9f]", sent[2:-1])


@given(st.binary(max_size=300))
@settings(max_examples=100, deadline=None)
def test_any_bytes_in_a_log_file_are_plain_text(
    tmp_path_factory: pytest.TempPathFactory, data: bytes
) -> None:
    file = tmp_path_factory.getbasetemp() / "engine.log"
    file.write_bytes(data)
    assert_inert(tail(file), "")


@given(TEXT)
@settings(max_examples=100, deadline=None)
def test_whatever_a_command_prints_is_plain_text(text: str) -> None:
    view = run_of(text)
    # Figures are figures here: a worker writes nothing else, and a command that meets something
    # else ends with one line.
    view.history.metrics = {"reward/total": 0.5, text: 1.0}
    view.history.eta_seconds = 60.0
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        output.say(text)
        output.note(text)
        output.say_json({text: [text]})
        output.say(output.table([text, "b"], [[text, text]]))
        output.say(headless.step_line(view.history))
        for kind in ("progress", "notice", "alarm", "checkpoint", "command", "state"):
            event = Event(9, 1, 9.0, kind, 1, {"metrics": {text: 1.0}})
            output.say(headless.Lines().of(event, view.history) or "")
    for printed in (out.getvalue(), err.getvalue()):
        assert not FORBIDDEN.search(printed)


def _writes(path: Path) -> Iterator[int]:
    """Lines that write to the terminal by themselves."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Call):
            called = ast.unparse(node.func)
            if called == "print" or re.fullmatch(
                r"sys\.(stdout|stderr)\.write|typer\.echo", called
            ):
                yield node.lineno


def test_commands_print_through_one_place() -> None:
    """Else the test above would say nothing about them."""
    allowed = {
        "stonk_tui/commands/output.py",
        "stonk_tui/cli.py",  # the version
    }
    found = [
        f"{path.relative_to(ROOT)}:{number}"
        for path in sorted((ROOT / "stonk_tui").rglob("*.py"))
        if str(path.relative_to(ROOT)) not in allowed
        for number in _writes(path)
    ]
    assert found == []
    assert list(_writes(ROOT / "stonk_tui/commands/output.py"))

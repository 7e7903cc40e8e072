"""Every place where foreign text reaches a terminal, by name; `hostile_text` makes the trials.

A sink takes a text and gives back what it would put on a terminal. The test beside it fails where
a panel, a function that makes the content of a widget, one that prints, or a command of the
program is not among them.
"""

import contextlib
import io
import pkgutil
import random
from collections.abc import Callable, Iterable, Iterator
from functools import cache, lru_cache
from importlib import import_module
from pathlib import Path

from rich.segment import Segment
from rich.style import Style
from textual.color import Color
from textual.content import Content

from bench.fault_rows.command_line import typed
from engine.probe.tally import tally
from engine.runs import notify
from engine.runs.history import LogLine
from engine.runs.reader import Event
from stonk_tui import announce, chart_choices, doctor, headless, widgets
from stonk_tui.chart_data import extent, in_memory
from stonk_tui.chart_view import ChartView
from stonk_tui.commands import output
from stonk_tui.commands import probe as probing
from stonk_tui.doctor.findings import Finding
from stonk_tui.doctor.gpus import DriverView, TorchView
from stonk_tui.feed import RunModel
from stonk_tui.screens.log import tail
from stonk_tui.widgets import (
    activity,
    banner,
    chart,
    course,
    evaluations,
    explained,
    happenings,
    probes,
    rollouts,
    saiyan,
    text,
    trail,
)
from stonk_tui.widgets.panel import Panel
from stonk_tui.widgets.plain import plain
from tests.cockpit.hostile import PIECES, rollout_of, run_of, unsafe

Sink = Callable[[str, Path], Iterable[str | Content]]

BY_SCREENS = {
    "promotion.lights", "promotion.candidate", "promotion.changes",  # the screen of a promotion
    "panel.rows", "panel.spread", "course.flow", "rulers.x_ruler",  # put contents together
    # the screen of evaluations, on a run with a report full of foreign text
    "evaluations.running", "evaluations.judged", "evaluations.meanwhile",
    "evaluations.nothing_yet", "report.title", "report.opened",
    "report_tables.cell", "report_tables.row", "report_tables.head",
}  # fmt: skip
"""Functions that give content to a widget and are reached by no sink of their own."""


def any_text(chance: random.Random) -> str:
    """Pieces of terminal sequences, markup and scripts, with any character among them."""
    if chance.random() < 0.02:
        return chance.choice(PIECES) * chance.randrange(100, 6000)
    pieces = chance.choices(PIECES, k=chance.randrange(1, 14))
    pieces += [chr(chance.randrange(0x110000)) for _ in range(chance.randrange(4))]
    chance.shuffle(pieces)
    return "".join(pieces)


def _chance(said: str) -> random.Random:
    return random.Random(said.encode("utf-8", "surrogatepass"))


_view = lru_cache(1)(run_of)
"""For sinks that change nothing in it."""


def problem_of(name: str, written: Iterable[str | Content]) -> str:
    """Why what a sink wrote must not reach a terminal; empty where it may."""
    for one in written:
        plain_text = one.plain if isinstance(one, Content) else one
        if found := unsafe(plain_text):
            return f"{name}: {found}"
        for span in one.spans if isinstance(one, Content) else ():
            style = span.style
            # Meta of a style is an action on a click, which only the cockpit itself makes.
            if not isinstance(style, str) and "quit" in str(getattr(style, "meta", "")):
                return f"{name}: an action out of a text"
            if isinstance(style, str) and ("evil" in style or "@" in style):
                return f"{name}: a style out of a text"
    return ""


@cache
def sinks() -> dict[str, Sink]:
    """All sinks that need no screen, by name."""
    found: dict[str, Sink] = {}
    for panel in panels():
        found[f"panel {panel.__name__}"] = _panel_sink(panel)
    found |= {f"prints {name}": _printing(call) for name, call in _PRINTING.items()}
    found |= {f"content {name}": call for name, call in _CONTENTS.items()}
    found |= {
        "toast and bell": _announced,
        "notification outside": lambda said, _: map(str, (_notified(said) or {}).values()),
        "row of rollouts": lambda said, _: rollouts.rollout_row(rollout_of(said), leads=True).cells,
        "engine.log": _log,
        "last filter": _filtered,
        "ASCII": lambda said, _: [plain(text.shown(said).plain)],
        "command line": _typed,
    }
    return found


def panels() -> list[type[Panel]]:
    """Every panel of the cockpit."""
    for module in pkgutil.iter_modules(widgets.__path__):
        import_module(f"{widgets.__name__}.{module.name}")
    return sorted(Panel.__subclasses__(), key=lambda panel: panel.__name__)


def _panel_sink(panel: type[Panel]) -> Sink:
    def draw(said: str, _: Path) -> Iterator[Content]:
        view, chance = _view(said), _chance(said)
        width, height = chance.randrange(8, 120), chance.randrange(2, 40)
        made = panel(id="x")
        # The rollouts are a table: a row is a sink of its own.
        with contextlib.suppress(NotImplementedError):
            yield from made.draw(view, width, height)
        if hasattr(made, "folded"):
            yield made.folded(view, width)

    return draw


def _states(said: str) -> Iterator[RunModel]:
    view = run_of(said)
    for state in ("training", "paused", "failed", "finished", "stopping", "starting", said):
        view.history.state = state
        yield view
    view.problem = said
    yield view


def _probe(said: str) -> dict[str, object]:
    sample = {"completion": said, "error": said, "direction": said, "reward": said}
    sums = tally([{"direction": "UP", "confidence": 0.5}])
    answer = {"checkpoint": said, "run": said, "samples": [sample, said], **sums, "vote": said}
    example = {"ticker": said, "as_of": said, "source": said, "actual": said, "style": said}
    return {"id": said, "example": example, "answers": [answer, said], "seed": said}


def _course(said: str) -> Iterator[Content]:
    history = _view(said).history
    chosen, view = chart_choices.choice(history, said), ChartView()
    points = in_memory(history, chosen)
    yield from course.legend(chosen, points, view, 60)
    yield from course.worth(chosen, points, view, "newest ")
    if (steps := extent(history, chosen)) is not None:
        yield course.status(chosen, points, view, steps)


_ENTRIES = ("info", "good", "warning", "error")


def _entry(said: str) -> LogLine:
    return LogLine(1.0, 1, _chance(said).choice((*_ENTRIES, said)), said)


_CONTENTS: dict[str, Sink] = {
    "text.shown": lambda said, _: [text.shown(said)],
    "text.line": lambda said, _: [text.line(said)],
    "activity.activity": lambda said, _: (activity.activity(v, None, 60) for v in _states(said)),
    "banner.sentence": lambda said, _: (banner.sentence(view, 10.0) for view in _states(said)),
    "happenings.folded": lambda said, _: happenings.folded(_entry(said), 50),
    "happenings.words": lambda said, _: [happenings.words(_entry(said))],
    "explained.completion": lambda said, _: [explained.completion(rollout_of(said))],
    "explained.why": lambda said, _: [explained.why(rollout_of(said), 50)],
    "rollouts.call": lambda said, _: [rollouts.call(said, said)],
    "trail.trail": lambda said, _: [trail.trail(said, "log")],
    "saiyan.glance": lambda said, _: [saiyan.glance([{"name": said, "value": said, "why": said}])],
    "chart.render": lambda said, _: [
        chart.render(
            chart.Picture(
                (chart.Line([1, 2, 3], [1, 2, 1], "$ink"),),
                (chart.Mark(2, text.line(said, limit=20).plain),),
                empty=text.line(said).plain,
            ),
            60,
            8,
        )
    ],
    "course.legend": lambda said, _: _course(said),
    "course.worth": lambda said, _: _course(said),
    "course.status": lambda said, _: _course(said),
    "probes.title": lambda said, _: [
        probes.title(one, own_run="x", best=said) for one in probes.answers(_probe(said))
    ],
    "probes.answered": lambda said, _: map(probes.answered, probes.answers(_probe(said))),
    "probes.summary": lambda said, _: (
        line for one in probes.answers(_probe(said)) for line in probes.summary(one)
    ),
    "probes.probability": lambda said, _: map(probes.probability, probes.answers(_probe(said))),
    "probes.sampling": lambda said, _: [
        probes.sampling({"checkpoint": said, "done": 1, "total": 2, "texts": [said]})
    ],
    "probes.asked": lambda said, _: [probes.asked(_probe(said))],
    "evaluations.verdict": lambda said, _: [evaluations.verdict(said)],
    "evaluations.accuracy": lambda said, _: [
        evaluations.accuracy({"value": said, "low": said, "high": said, "n": said, "why": said})
    ],
}
"""What gives a widget its content."""


# ---------------------------------------------------------------------------
# Printing


def _printing(call: Callable[[str], object]) -> Sink:
    def printed(said: str, _: Path) -> list[str]:
        out, err = io.StringIO(), io.StringIO()
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            call(said)
        return [out.getvalue(), err.getvalue()]

    return printed


def _headless(said: str) -> None:
    history = run_of(said).history
    # A worker writes nothing but figures here.
    history.metrics = {"reward/total": 0.5, said: 1.0}
    history.eta_seconds = 60.0
    output.say(headless.step_line(history))
    for kind in ("progress", "notice", "alarm", "checkpoint", "command", "state"):
        event = Event(9, 1, 9.0, kind, 1, {"metrics": {said: 1.0}})
        output.say(headless.Lines().of(event, history) or "")


def _doctor(said: str) -> None:
    findings = [Finding(said, "warning", said, said)]
    view = TorchView(error=said), DriverView(error=said)
    output.say(doctor.render(doctor.DoctorReport(said, said, {said: said}, *view, findings)))


def _asked(said: str) -> None:
    sample = {"completion": said, "direction": said, "reward": None}
    sample |= {"percent": None, "confidence": None}
    answer = {"checkpoint": said, "run": said, "samples": [sample], **tally([]), "vote": said}
    about = {"ticker": said, "as_of": said, "source": said, "actual": None}
    told = {"example": about, "answers": [answer], "samples": 1, "temperature": 1.0}
    output.say(probing.text(told))


_PRINTING: dict[str, Callable[[str], object]] = {
    "say": output.say,
    "note": output.note,
    "say_json": lambda said: output.say_json({said[:400]: [said[:400]]}, indent=None),
    "table": lambda said: output.say(output.table([said, "b"], [[said, said]])),
    "show_traceback": lambda said: output.show_traceback(ValueError(said)),
    "headless": _headless,
    "doctor": _doctor,
    "probe": _asked,
}
"""What writes on the terminal: the functions of `commands.output`, and texts made of much. JSON is
for programs and its lines are as long as they are, so it gets shorter texts."""


# ---------------------------------------------------------------------------
# Commands

COMMANDS: dict[str, Callable[[str], list[str]]] = {
    "demo": lambda said: ["--set", f"x{said}=1"],
    "train": lambda said: [f"./{said}"],
    "runs": lambda said: [],
    "status": lambda said: [],
    "attach": lambda said: [f"x{said}"],
    "serve": lambda said: [f"x{said}"],
    "pause": lambda said: [f"x{said}"],
    "resume": lambda said: [f"x{said}"],
    "checkpoint": lambda said: [f"x{said}"],
    "stop": lambda said: ["--timeout", said],
    "set": lambda said: [f"x{said}=1"],
    "delete": lambda said: [f"x{said}", "--yes"],
    "promote": lambda said: ["--reason", f"x{said}"],
    "export": lambda said: ["--out", "x", "--as", "adapter", "--checkpoint", f"x{said}"],
    "score": lambda said: ["--completion", f"./{said}", "--scheme", said],
    "probe": lambda said: ["--checkpoint", f"x{said}"],
    "eval": lambda said: ["--checkpoint", f"x{said}"],
    "report": lambda said: [f"x{said}"],
    "doctor": lambda said: [f"--x{said}"],
    "data sources": lambda said: [f"x{said}"],
    "data show": lambda said: ["--source", f"x{said}", "--ticker", said, "--date", said],
    "data stats": lambda said: ["--source", f"ohlcv:./{said}"],
    "data check": lambda said: ["--source", f"x{said}"],
    "data prepare": lambda said: ["--source", f"stocknet:./{said}", "--out", said],
    "settings path": lambda said: [f"x{said}"],
    "settings show": lambda said: [],
    "settings check": lambda said: [],
}
"""Each command with arguments that it says something about, and that start nothing."""


def _typed(said: str, folder: Path) -> list[str]:
    """One command, another for each text, where the only run is full of such texts."""
    # No argument of a process holds a NUL.
    words = said.replace("\0", "")
    name = _chance(said).choice(sorted(COMMANDS))
    (folder / "settings.toml").write_bytes(
        f'theme = "{said}"\n[keymap]\n"{said}" = 1\n'.encode("utf-8", "replace")
    )
    arguments = [*name.split(), *COMMANDS[name](words)]
    done = typed(["--debug", *arguments], {"STONK_HOME": str(folder)})
    return [done.out, done.err]


# ---------------------------------------------------------------------------
# The rest


def _announced(said: str, _: Path) -> Iterator[str]:
    before = announce.Standing("warming_up", frozenset(), 0)
    for one in announce.compare(before, run_of(said)).lines:
        yield one
        sent = announce.osc9(one)
        # The one sequence that is meant; what is between its ends cannot end it.
        assert sent.startswith("\x1b]9;stonk-tui: ")
        assert sent.endswith("\x07")
        yield sent[2:-1]


def _notified(said: str) -> dict[str, object] | None:
    kind, payload = _chance(said).choice(
        [
            ("super_saiyan", {"suggestion": said}),
            ("alarm", {"on": True, "title": said, "explanation": said}),
            ("state", {"state": "failed", "detail": said}),
        ]
    )
    described = notify.describe(kind, payload)
    return dict(described) if described else None


def _log(said: str, folder: Path) -> list[Content]:
    file = folder / "engine.log"
    file.write_bytes(said.encode("utf-8", "surrogatepass"))
    return [tail(file)]


def _filtered(said: str, _: Path) -> list[str]:
    segments = OUTPUT_FILTER.apply(
        [Segment(said, Style(link="http://evil.example"))], Color(0, 0, 0)
    )
    if any(segment.style is not None and segment.style.link for segment in segments):
        return ["a link came through \x1b"]
    # It is for what came past the cleaning, which alone can shorten a line.
    return [segment.text[:4000] for segment in segments]


OUTPUT_FILTER = text.OutputFilter()

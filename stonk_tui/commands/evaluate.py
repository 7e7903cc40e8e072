"""``eval``: evaluate checkpoints on days that they have not seen, and print what comes of it."""

import contextlib
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from engine.errors import UserError
from engine.evaluation import client
from engine.evaluation.intervals import wilson
from engine.evaluation.request import EvaluationRequest
from engine.runs.directory import RunDirectory
from engine.text import one_line
from stonk_tui.commands.evaluation_report import read
from stonk_tui.commands.output import duration, note, say, say_json, table
from stonk_tui.commands.probe import host, quiet_progress

if TYPE_CHECKING:
    from engine.evaluation.preparation import Prepared

_LINE_SECONDS = 10.0
_FEW_ROWS = 100

Draft = Mapping[str, Any]


def evaluate(
    name: str | None,
    request: EvaluationRequest,
    *,
    out: Path | None,
    as_json: bool,
) -> None:
    """Evaluate what ``request`` asks for, and print the verdicts or the whole report.

    Raises:
        UserError: no such run, checkpoint or source, dates that overlap those of training, or
            the device is busy.
        RunFailedError: it failed, or somebody else interrupted it.
        Exit: with 130 after Ctrl-C, which ends the evaluation; what was predicted is kept.
    """
    from engine.evaluation import preparation

    run = host(name, request.checkpoints)
    with quiet_progress() as progress:
        prepared = preparation.prepare(run, request, out=out, progress=progress)
    _tell(run, prepared)
    if not prepared.is_finished:
        _predict(run, prepared)
    report = read(prepared.folder)
    if as_json:
        say_json(report)
    else:
        say(text(report, prepared.folder))


def text(report: Mapping[str, Any], folder: Path) -> str:
    """The verdict on each checkpoint, why, and the figures that it goes by."""
    context, summary = report["context"], report["summary"]
    marks = [
        mark
        for mark, holds in (
            ("made-up prices", context["is_synthetic"]),
            ("DATES OVERLAP THOSE OF TRAINING", context["overlaps_training"]),
        )
        if holds
    ]
    shown = f"  ({', '.join(marks)})" if marks else ""
    lines = [
        f"{context['split']} split of {one_line(context['source'])}, {context['dates'][0]} to "
        f"{context['dates'][1]}{shown}",
        f"{summary['examples']:,} examples on {summary['days']:,} days; this split was looked at "
        f"{_times(context['touches'])}, with {context['trials']} checkpoints",
        "",
    ]
    rows = []
    for label, one in summary["checkpoints"].items():
        majority = one["majority"]
        baseline = one["baselines"][majority]["accuracy"]
        rows.append(
            [
                one_line(label, 80),
                str(report["verdicts"][label]["word"]),
                _share(one["accuracy"]),
                f"{majority.replace('_', ' ')} {_share(baseline)}",
                _share(one["roc_auc"], percent=False),
                _share(one["brier"]["skill"], percent=False),
            ]
        )
    header = ["checkpoint", "verdict", "accuracy [95 %] n", "baseline", "ROC-AUC", "Brier skill"]
    lines.append(table(header, rows))
    for label, told in report["verdicts"].items():
        reasons = [one_line(str(reason), 300) for reason in told["reasons"]]
        lines += ["", f"{one_line(label, 80)}: {told['word']}", *(f"  {one}" for one in reasons)]
    where = one_line(str(folder))
    lines += ["", f"report  {where}/report.html  (here: stonk-tui report {where})"]
    return "\n".join(lines)


def live(draft: Draft) -> str:
    """Where an evaluation stands: share right with its interval, n and baseline beside it."""
    one = draft["per_checkpoint"][draft["checkpoint"]]
    done, right = int(one["done"]), int(one["right"])
    parts = [
        f"{one_line(str(draft['checkpoint']), 40)} ({draft['number'] + 1} of {draft['of']})",
        f"{draft['done']:,} of {draft['total']:,} predictions",
    ]
    if done:
        low, high = wilson(right, done)
        parts.append(f"right {right / done:.1%} [{low:.1%}, {high:.1%}] n={done:,}")
    if (baseline := draft.get("baseline")) is not None:
        parts.append(f"{str(baseline['name']).replace('_', ' ')} {baseline['value']:.1%}")
    if draft["eta_seconds"] is not None:
        parts.append(f"ETA {duration(draft['eta_seconds'])}")
    return "  ".join(parts)


def _tell(run: RunDirectory, prepared: "Prepared") -> None:
    """What a person should know before it begins."""
    context = prepared.context
    where = one_line(str(prepared.folder))
    if prepared.is_finished:
        note(f"evaluated already, see {where}")
        return
    if context.overlaps_training:
        note("forced: these dates may have been trained on, which marks every page of the report")
    if not prepared.is_new:
        note(f"goes on with {where}")
    total = f"{context.total:,} predictions of {context.num_examples:,} examples"
    note(
        f"{total} by {', '.join(one_line(one.label, 60) for one in context.checkpoints)}; this "
        f"split is looked at {_times(context.touches)}, with {context.trials} checkpoints"
    )
    if context.num_examples < _FEW_ROWS:
        note(f"{context.num_examples} examples are too few for a narrow interval")
    if run.worker() is not None:
        note(f"training of {run.id} waits while this runs")


def _predict(run: RunDirectory, prepared: "Prepared") -> None:
    try:
        with _live() as show:
            client.ask(run, prepared.folder, drafts=show)
    except KeyboardInterrupt:
        with contextlib.suppress(UserError):
            client.interrupt(run)
        note("interrupted; what is predicted is kept, and the same command goes on with it")
        if run.worker() is not None:
            # What best and last mean changes while a run trains.
            names = [one.label for one in prepared.context.checkpoints[1:]] or ["base"]
            told = " ".join(f"--checkpoint {one_line(name, 60)}" for name in names)
            note(f"that is `stonk-tui eval {run.id} {told}` with the same options")
        raise typer.Exit(130) from None


@contextlib.contextmanager
def _live() -> Iterator[Callable[[Draft], None]]:
    """A line that changes on a terminal, a new one now and then elsewhere; both on stderr."""
    if not sys.stderr.isatty():
        yield _Lines().show
        return
    from rich.console import Console
    from rich.live import Live
    from rich.text import Text

    with Live(console=Console(stderr=True), transient=True, auto_refresh=False) as shown:
        shown.update(Text("loading the model"), refresh=True)
        yield lambda draft: shown.update(Text(live(draft)), refresh=True)


class _Lines:
    def __init__(self) -> None:
        self._told = -_LINE_SECONDS

    def show(self, draft: Draft) -> None:
        now = time.monotonic()
        if now - self._told >= _LINE_SECONDS:
            self._told = now
            note(live(draft))


def _share(value: Mapping[str, Any], *, percent: bool = True) -> str:
    """A figure with its interval and n; the report says why there is none."""
    if value["value"] is None:
        return "not computable"
    form = "{:.1%}" if percent else "{:.3f}"
    shown = form.format(value["value"])
    if value.get("low") is not None:
        shown += f" [{form.format(value['low'])}, {form.format(value['high'])}]"
    return f"{shown} n={value['n']:,}"


def _times(count: int) -> str:
    return "for the first time" if count == 1 else f"for the {_ordinal(count)} time"


def _ordinal(count: int) -> str:
    teen = 10 <= count % 100 <= 20
    ending = "th" if teen else {1: "st", 2: "nd", 3: "rd"}.get(count % 10, "th")
    return f"{count}{ending}"

"""Follow a run without a cockpit: a line a step, a summary at the end, an exit code.

What is printed comes from the run's store alone, folded by the same ``History`` that the cockpit
shows, so a pipe, a log file and a screen tell one story.
"""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import typer

from engine.errors import RunFailedError
from engine.runs import live_settings
from engine.runs.directory import RunDirectory
from engine.runs.history import TERMINAL_STATES, History
from engine.runs.reader import Event, StoreReader
from engine.text import one_line
from stonk_tui.commands.output import duration, note, say

_POLL_SECONDS = 0.2
_PAGE = 2000
_PROGRESS_SECONDS = 5.0
_WINDOW = 10
_WORDS = 600
"""Characters of what a worker says: the advice stands at the end."""
_LOGGED = (
    "state",
    "checkpoint",
    "resumed",
    "command",
    "memory",
    "notice",
    "alarm",
    "hang",
    "super_saiyan",
    "promotion",
)
"""Kinds for which the history keeps a line of words."""


def follow(
    run: RunDirectory, *, previous_attempts: int = 0, wait: Callable[[float], None] = time.sleep
) -> None:
    """Print what happens to ``run`` until it has ended.

    Args:
        previous_attempts: workers the run had before the one that is followed; how those
            ended does not end this.
        wait: passes the time between two looks at the store.

    Raises:
        RunFailedError: the run failed, or its worker died.
        Exit: with 130 after Ctrl-C, which leaves the run at work.
    """
    try:
        history = _follow(run, previous_attempts, wait)
    except KeyboardInterrupt:
        note(f"run {run.id} goes on; end it with `stonk-tui stop {run.id}`")
        raise typer.Exit(130) from None
    if history.state == "failed":
        detail = one_line(history.detail, _WORDS) or "no reason given"
        log = "" if str(run.log) in detail else f"; the log is {run.log}"
        raise RunFailedError(f"run {run.id} failed: {detail}{log}")
    say(summary(run, history))


def _follow(run: RunDirectory, previous_attempts: int, wait: Callable[[float], None]) -> History:
    history = History()
    lines = Lines()
    reader: StoreReader | None = None
    try:
        while True:
            # Asked before reading: what a worker wrote before it ended is then read below.
            alive = run.worker() is not None
            reader = reader or _open(run)
            while reader and (events := reader.events(history.last_seq, _PAGE)):
                for event in events:
                    history.apply([event])
                    line = lines.of(event, history)
                    if line and event.attempt > previous_attempts:
                        say(line)
            if history.attempt > previous_attempts and history.state in TERMINAL_STATES:
                return history
            if not alive:
                raise RunFailedError(
                    f"the worker of run {run.id} is gone; the log is {run.log}, and "
                    f"`stonk-tui train --resume {run.id}` goes on"
                )
            wait(_POLL_SECONDS)
    finally:
        if reader:
            reader.close()


def _open(run: RunDirectory) -> StoreReader | None:
    try:
        return StoreReader(run.database)
    except FileNotFoundError:
        return None


@dataclass
class Lines:
    """Turns events into lines; long work is told of every few seconds only."""

    _task: str = ""
    _told: float = 0.0
    _state: str = ""

    def of(self, event: Event, history: History) -> str | None:
        """The line for ``event``, which ``history`` includes, or None where it needs none."""
        if event.kind == "step":
            return step_line(history)
        if event.kind == "validation":
            return _validation_line(event.step, history.metrics)
        if event.kind == "progress":
            return self._progress_line(event, history)
        if event.kind == "state":
            # A validation says enough by its own line; training before and after is one.
            if history.state in ("evaluating", self._state):
                return None
            self._state = history.state
        if event.kind == "settings":
            return "\n".join(one_line(str(one.change)) for one in live_settings.made(event))
        if event.kind in _LOGGED:
            said = history.log[-1]
            mark = f"{said.level}: " if said.level in ("warning", "error") else ""
            return mark + one_line(said.text, _WORDS)
        return None

    def _progress_line(self, event: Event, history: History) -> str | None:
        progress = history.progress
        assert progress is not None
        is_new = progress.task != self._task
        is_done = progress.total > 0 and progress.done >= progress.total
        # The machine's clock may have been set back.
        if not (is_new or is_done or abs(event.time - self._told) >= _PROGRESS_SECONDS):
            return None
        self._task, self._told = progress.task, event.time
        parts = [one_line(progress.task, 80)]
        if progress.total:
            parts.append(f"{progress.done / progress.total:.0%}")
        parts += [f"{name} {value:.3f}" for name, value in event.payload.get("metrics", {}).items()]
        if progress.detail:
            parts.append(one_line(progress.detail, 80))
        if progress.eta_seconds is not None and not is_done:
            parts.append(f"ETA {duration(progress.eta_seconds)}")
        return "  ".join(parts)


def step_line(history: History) -> str:
    """One GRPO step: where it stands, what was earned, what was called, how fast."""
    metrics = history.metrics
    of = f"/{history.max_steps}" if history.max_steps else ""
    parts = [
        f"step {history.step}{of}",
        _number(metrics, "reward/total", "reward {:+.3f}"),
        _number(metrics, "reward/format", "format {:.2f}"),
        _calls(metrics),
        _accuracy(metrics),
        _number(metrics, "kl", "KL {:.4f}"),
        _number(history.seconds, "total", "{:.1f} s/step"),
        f"ETA {duration(history.eta_seconds)}" if history.eta_seconds is not None else None,
    ]
    return "  ".join(part for part in parts if part)


def summary(run: RunDirectory, history: History) -> str:
    """How a run ended, finished or stopped, and where its files are."""
    of = f" of {history.max_steps}" if history.max_steps else ""
    took = ""
    if history.started is not None and history.last_time is not None:
        took = f" after {duration(history.last_time - history.started)}"
    detail = f" ({one_line(history.detail)})" if history.detail else ""
    rows = [(history.state, f"step {history.step}{of}{took}{detail}")]
    if rewards := history.series.get("reward/total"):
        window = max(1, min(_WINDOW, len(rewards.values) // 2))
        first = sum(rewards.values[:window]) / window
        last = sum(rewards.values[-window:]) / window
        steps = f"{window} steps" if window > 1 else "step"
        rows.append(("reward", f"{first:+.3f} to {last:+.3f} (first and last {steps})"))
    if any(name.startswith("validation/") for name in history.metrics):
        rows.append(("validation", _validation_figures(history.metrics)))
    if history.best:
        rows.append(("best", str(run.checkpoints / history.best)))
    elif history.checkpoints:
        rows.append(("checkpoint", str(run.checkpoints / history.checkpoints[-1].name)))
    rows += [
        ("run", str(run.path)),
        ("log", str(run.log)),
        (
            "next",
            f"stonk-tui {'train --resume' if history.state == 'stopped' else 'attach'} {run.id}",
        ),
    ]
    return "\n".join(f"{name:<10}  {text}" for name, text in rows)


def _validation_line(step: int, metrics: Mapping[str, float]) -> str:
    return f"validation at step {step}  {_validation_figures(metrics)}"


def _validation_figures(metrics: Mapping[str, float]) -> str:
    prefix = "validation/"
    own = {k.removeprefix(prefix): v for k, v in metrics.items() if k.startswith(prefix)}
    parts = [_number(own, "reward/total", "reward {:+.3f}"), _calls(own), _accuracy(own)]
    return "  ".join(part for part in parts if part)


def _calls(metrics: Mapping[str, float]) -> str | None:
    called, market = metrics.get("calls/up_share"), metrics.get("market/up_share")
    if called is None:
        return None
    against = f" (market {market:.0%})" if market is not None else ""
    return f"UP {called:.0%}{against}"


def _accuracy(metrics: Mapping[str, float]) -> str | None:
    """The accuracy never stands alone: its 95 % interval and the sample size beside it."""
    text = _number(metrics, "accuracy", "accuracy {:.0%}")
    low, high = metrics.get("accuracy/low"), metrics.get("accuracy/high")
    count = metrics.get("accuracy/n")
    if text is None or low is None or high is None or count is None:
        return text
    return f"{text} [{100 * low:.0f}, {100 * high:.0f}] n={count:.0f}"


def _number(values: Mapping[str, Any], name: str, form: str) -> str | None:
    value = values.get(name)
    return form.format(value) if value is not None else None

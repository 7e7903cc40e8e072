"""Fold a run's events into the one picture that status and cockpit both show.

Pure and replayable: the same events give the same history, whoever folds them.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from engine.runs import evaluations, live_settings
from engine.runs.live_settings import Changed
from engine.runs.reader import Event

TERMINAL_STATES = ("finished", "stopped", "failed")
TRAINING_KINDS = ("step", "validation", "checkpoint", "settings", "alarm", "super_saiyan")
"""Kinds of events that are void, wherever they stand, once a run has to begin anew."""
HANG = "hang"
"""Name of the alarm that the event of this kind raises."""
KEPT_PROBES = 50
KEPT_EVALUATIONS = 50
KEPT_LINES = 1000
"""Of the log, where points are let go of as well."""
STATES = (
    "prepared",
    "starting",
    "warming_up",
    "training",
    "paused",
    "evaluating",
    "stopping",
    *TERMINAL_STATES,
    "stale",
)


@dataclass
class Series:
    """One metric over steps, in order."""

    steps: list[int] = field(default_factory=list)
    values: list[float] = field(default_factory=list)
    is_cut: bool = False
    """Earlier points were let go of, or never read; the store has them."""

    def append(self, step: int, value: float) -> None:
        self.steps.append(step)
        self.values.append(value)

    def keep_newest(self, count: int) -> None:
        """Let go of all but ``count`` points, once there are twice as many."""
        if len(self.steps) > 2 * count:
            del self.steps[:-count], self.values[:-count]
            self.is_cut = True

    def cut_after(self, step: int) -> None:
        """Forget what came after ``step``."""
        while self.steps and self.steps[-1] > step:
            self.steps.pop()
            self.values.pop()


@dataclass(frozen=True)
class Checkpoint:
    """One saved state of a run."""

    name: str
    step: int
    validation_reward: float | None
    time: float


@dataclass(frozen=True)
class Progress:
    """A longer piece of work that is not a training step."""

    task: str
    done: float
    total: float
    eta_seconds: float | None
    detail: str


@dataclass(frozen=True)
class Alarm:
    """Something that went wrong in training and has not ended."""

    name: str
    title: str
    """What is wrong, with the number, in at most 60 characters."""
    explanation: str
    advice: str
    since_step: int
    value: float | None
    threshold: float | None


@dataclass(frozen=True)
class LogLine:
    """Something that happened, in words."""

    time: float
    step: int
    level: str
    """``info``, ``good``, ``warning`` or ``error``."""
    text: str
    kind: str = ""
    """Of the event that it tells of."""


@dataclass(frozen=True)
class _Mark:
    """What a resume from this step puts back."""

    step: int
    milestones: list[dict[str, Any]]
    power: int | None
    epoch: float
    eta_seconds: float | None
    seconds: dict[str, float]


@dataclass
class History:
    """What is known of a run from its events alone."""

    kept_points: int | None = None
    """Each series may let go of points older than its newest ones of this number; None keeps all.

    A resume then cannot put back what was let go of: whoever sets this folds anew from the store.
    """
    last_seq: int = 0
    last_time: float | None = None
    started: float | None = None
    attempt: int = 0
    pid: int | None = None
    facts: dict[str, Any] = field(default_factory=dict)
    """Of the newest worker: device, device_name, model, num_parameters, max_steps, versions."""
    state: str = "starting"
    detail: str = ""
    step: int = 0
    max_steps: int | None = None
    epoch: float = 0.0
    eta_seconds: float | None = None
    metrics: dict[str, float] = field(default_factory=dict)
    """Flat names of the newest step, and of the newest validation under ``validation/``."""
    seconds: dict[str, float] = field(default_factory=dict)
    """Wall time of the newest step by phase."""
    series: dict[str, Series] = field(default_factory=dict)
    """Every metric over GRPO steps; ``validation/…`` and ``warmup/…`` are series of their own."""
    milestones: list[dict[str, Any]] = field(default_factory=list)
    """The four indicators, newest."""
    power: int | None = None
    """Power level, 0 to 9001; None before the first step or validation that states one."""
    super_saiyan: list[int] = field(default_factory=list)
    """Steps at which all four indicators came on."""
    alarms: dict[str, Alarm] = field(default_factory=dict)
    """Those that are on, by name, in the order in which they came on."""
    promotion: dict[str, Any] | None = None
    """Of a Stage II run: the record of its promotion."""
    checkpoints: list[Checkpoint] = field(default_factory=list)
    best: str | None = None
    progress: Progress | None = None
    settings: list[Changed] = field(default_factory=list)
    """Changes of settings while the run trained, oldest first."""
    log: list[LogLine] = field(default_factory=list)
    probes: list[dict[str, Any]] = field(default_factory=list)
    """What checkpoints were asked and answered, the last ones, oldest first; see docs/probe.md."""
    evaluations: list[dict[str, Any]] = field(default_factory=list)
    """The newest word on each of the last evaluations, the newest last."""
    log_is_cut: bool = False
    """Not all that happened stands in ``log``; its newest lines do."""
    _marks: list[_Mark] = field(default_factory=list, repr=False)
    """One for each kept checkpoint and for each step since the newest."""
    _alarm_turns: list[tuple[int, Mapping[str, Any]]] = field(default_factory=list, repr=False)
    """(step, payload) of every alarm that went on or off."""

    def apply(self, events: Iterable[Event]) -> None:
        """Fold ``events``, which follow those folded before, into this history.

        Kinds that this version does not know are skipped: a newer worker may write them.
        """
        for event in events:
            self.last_seq = event.seq
            self.last_time = event.time
            self.attempt = event.attempt
            handler = getattr(self, f"_on_{event.kind}", None)
            if handler is not None:
                handler(event, event.payload)

    def _on_worker(self, event: Event, payload: Mapping[str, Any]) -> None:
        self.pid = payload.get("pid", self.pid)
        self.facts |= payload
        self.max_steps = payload.get("max_steps", self.max_steps)
        if self.started is None:
            self.started = event.time
        if "pid" in payload:
            self.state, self.detail, self.progress = "starting", "", None
            # Another process: what hung is gone.
            self.alarms.pop(HANG, None)

    def _on_state(self, event: Event, payload: Mapping[str, Any]) -> None:
        was_evaluating = self.state == "evaluating"
        self.state = payload["state"]
        self.detail = payload.get("detail", "")
        self.progress = None
        if self.state == "evaluating" or (was_evaluating and self.state == "training"):
            # The validation itself is what is worth a line.
            return
        level = {"failed": "error", "finished": "good"}.get(self.state, "info")
        words = self.state.replace("_", " ")
        if self.state == "paused" and self.detail:
            # Nobody asked for that one.
            level = "warning"
        # "stopped by command" says what "stopped: stopped by command" does.
        says_so = self.detail.startswith(f"{words} ")
        text = self.detail if says_so else words + (f": {self.detail}" if self.detail else "")
        self._say(event, level, text)

    def _on_progress(self, event: Event, payload: Mapping[str, Any]) -> None:
        self.progress = Progress(
            task=payload["task"],
            done=payload["done"],
            total=payload["total"],
            eta_seconds=payload.get("eta_seconds"),
            detail=payload.get("detail", ""),
        )
        for name, value in payload.get("metrics", {}).items():
            self._record(f"warmup/{name}", int(payload["done"]), value)

    def _on_resumed(self, event: Event, payload: Mapping[str, Any]) -> None:
        if payload.get("anew"):
            self._forget_training(event)
            return
        step = payload["from_step"]
        for name, series in self.series.items():
            if not name.startswith("warmup/"):
                series.cut_after(step)
        # Whoever reads the store afresh does not see what was replayed; nor must we.
        self.metrics = {
            name: series.values[-1]
            for name, series in self.series.items()
            if series.steps
            and (name.startswith("validation/") or series.steps[-1] == step)
            and not name.startswith("warmup/")
        }
        self.log = [line for line in self.log if line.step <= step]
        self.checkpoints = [point for point in self.checkpoints if point.step <= step]
        self.settings = [one for one in self.settings if one.step <= step]
        if self.best not in {point.name for point in self.checkpoints}:
            self.best = (
                max(
                    (point for point in self.checkpoints if point.validation_reward is not None),
                    key=lambda point: point.validation_reward or 0.0,
                    default=Checkpoint("", 0, None, 0.0),
                ).name
                or None
            )
        self.step = step
        self._put_back(step)
        self._say(event, "info", f"goes on from step {step}")

    def _forget_training(self, event: Event) -> None:
        """Nothing was left to go on from: only what came before the first step still holds."""
        self.series = {
            name: series for name, series in self.series.items() if name.startswith("warmup/")
        }
        self.metrics, self.checkpoints, self.settings, self.best = {}, [], [], None
        self.log = [line for line in self.log if line.step == 0 and line.kind not in TRAINING_KINDS]
        self.step = 0
        self._put_back(-1)
        self._say(event, "warning", "begins anew: no checkpoint is left")

    def _put_back(self, step: int) -> None:
        """Take indicators, alarms and clocks back to how they stood after ``step``."""
        self._marks = [mark for mark in self._marks if mark.step <= step]
        mark = self._marks[-1] if self._marks else _Mark(0, [], None, 0.0, None, {})
        self.milestones, self.power = mark.milestones, mark.power
        self.epoch, self.eta_seconds, self.seconds = mark.epoch, mark.eta_seconds, mark.seconds
        self.super_saiyan = [reached for reached in self.super_saiyan if reached <= step]
        turns = [(at, payload) for at, payload in self._alarm_turns if at <= step]
        self.alarms, self._alarm_turns = {}, []
        for at, payload in turns:
            self._turn_alarm(at, payload)

    def _on_step(self, event: Event, payload: Mapping[str, Any]) -> None:
        self.step = event.step
        self.epoch = payload.get("epoch", self.epoch)
        self.eta_seconds = payload.get("eta_seconds")
        self.seconds = payload.get("seconds", {})
        self.metrics = {
            name: value for name, value in self.metrics.items() if name.startswith("validation/")
        }
        self._take(event.step, payload["metrics"])
        self._mark(event.step, payload)
        if self.kept_points is not None and event.step % 256 == 0:
            for series in self.series.values():
                series.keep_newest(self.kept_points)

    def _on_validation(self, event: Event, payload: Mapping[str, Any]) -> None:
        metrics = payload["metrics"]
        self._take(event.step, {f"validation/{name}": value for name, value in metrics.items()})
        self._mark(event.step, payload)
        self._say(event, "info", "validated" + _validation_words(metrics))

    def _on_checkpoint(self, event: Event, payload: Mapping[str, Any]) -> None:
        point = Checkpoint(
            payload["name"], event.step, payload.get("validation_reward"), event.time
        )
        removed = {point.name, *payload.get("removed", [])}
        self.checkpoints = [kept for kept in self.checkpoints if kept.name not in removed]
        self.checkpoints.append(point)
        if payload.get("best"):
            self.best = point.name
        kept_steps = {kept.step for kept in self.checkpoints}
        # A resume starts from a checkpoint, and one that was never announced is the newest.
        self._marks = [mark for mark in self._marks if mark.step in kept_steps]
        self._forget_turns_before(min(kept_steps))
        star = ", best so far" if payload.get("best") else ""
        self._say(event, "good", f"checkpoint {point.name}{star}")

    def _on_alarm(self, event: Event, payload: Mapping[str, Any]) -> None:
        self._turn_alarm(event.step, payload)
        if payload["on"]:
            self._say(event, "warning", f"alarm: {payload['title']}")
        else:
            self._say(event, "info", f"alarm over: {payload['title']}")

    def _on_hang(self, event: Event, payload: Mapping[str, Any]) -> None:
        if payload["on"]:
            self.alarms[HANG] = _alarm(event.step, payload)
            self._say(event, "error", f"hang: {payload['title']}; see {payload['stacks']}")
        elif self.alarms.pop(HANG, None) is not None:
            self._say(event, "info", f"works again: {payload['phase']}")

    def _on_super_saiyan(self, event: Event, payload: Mapping[str, Any]) -> None:
        self.super_saiyan.append(event.step)
        best = payload.get("suggestion")
        advice = f"; {best} is the one to promote" if best else ""
        self._say(event, "good", f"Super Saiyan: all four indicators are on{advice}")

    def _on_promotion(self, event: Event, payload: Mapping[str, Any]) -> None:
        self.promotion = dict(payload)
        self._say(event, "info", "Stage II, from a promoted Stage I policy")

    def _on_probe(self, event: Event, payload: Mapping[str, Any]) -> None:
        self.probes = [*self.probes, {**payload, "time": event.time}][-KEPT_PROBES:]

    def _on_evaluation(self, event: Event, payload: Mapping[str, Any]) -> None:
        level, text = evaluations.in_words(payload)
        self.evaluations = evaluations.noted(self.evaluations, payload, event.time)
        self.evaluations = self.evaluations[-KEPT_EVALUATIONS:]
        self._say(event, level, text)

    def _on_command(self, event: Event, payload: Mapping[str, Any]) -> None:
        self.evaluations = evaluations.answered(self.evaluations, payload)
        level = "info" if payload["ok"] else "warning"
        self._say(event, level, f"{payload['verb']}: {payload['message']}")

    def _on_settings(self, event: Event, payload: Mapping[str, Any]) -> None:
        for one in live_settings.made(event):
            self.settings.append(one)
            why = " after a divergence" if one.by == "rollback" else ""
            self._say(event, "info", f"{one.change}{why}")

    def _on_memory(self, event: Event, payload: Mapping[str, Any]) -> None:
        self._say(
            event,
            "warning",
            f"out of memory ({payload['phase']}): done again with {payload['new']} "
            f"{payload['unit']} at once instead of {payload['old']}",
        )

    def _on_notice(self, event: Event, payload: Mapping[str, Any]) -> None:
        self._say(event, payload.get("level", "info"), payload["text"])

    def _mark(self, step: int, payload: Mapping[str, Any]) -> None:
        self.milestones = payload.get("milestones", self.milestones)
        self.power = payload.get("power", self.power)
        if self._marks and self._marks[-1].step == step:
            self._marks.pop()
        self._marks.append(
            _Mark(step, self.milestones, self.power, self.epoch, self.eta_seconds, self.seconds)
        )

    def _turn_alarm(self, step: int, payload: Mapping[str, Any]) -> None:
        self._alarm_turns.append((step, payload))
        self.alarms.pop(payload["name"], None)
        if payload["on"]:
            self.alarms[payload["name"]] = _alarm(step, payload)

    def _forget_turns_before(self, step: int) -> None:
        """Keep of the alarms' turns up to ``step`` those alone that are on after it."""
        early = [turn for turn in self._alarm_turns if turn[0] <= step]
        last = {payload["name"]: number for number, (_, payload) in enumerate(early)}
        on = [
            turn
            for number, turn in enumerate(early)
            if last[turn[1]["name"]] == number and turn[1]["on"]
        ]
        self._alarm_turns = on + self._alarm_turns[len(early) :]

    def _take(self, step: int, metrics: Mapping[str, float | None]) -> None:
        # Written out: a long run has half a million values, and is folded while a person waits.
        # Null is unknown; anything else that is no number no worker of ours has written.
        newest, series = self.metrics, self.series
        for name, value in metrics.items():
            if type(value) is float or type(value) is int:
                newest[name] = value
                one = series.get(name)
                if one is None:
                    one = series[name] = Series()
                one.steps.append(step)
                one.values.append(value)

    def _record(self, name: str, step: int, value: float) -> None:
        series = self.series.get(name)
        if series is None:
            series = self.series[name] = Series()
        series.append(step, value)

    def _say(self, event: Event, level: str, text: str) -> None:
        self.log.append(LogLine(event.time, event.step, level, text, event.kind))
        if self.kept_points is not None and len(self.log) > 2 * KEPT_LINES:
            del self.log[:-KEPT_LINES]
            self.log_is_cut = True


def _alarm(step: int, payload: Mapping[str, Any]) -> Alarm:
    return Alarm(
        name=payload["name"],
        title=payload["title"],
        explanation=payload["explanation"],
        advice=payload["advice"],
        since_step=step,
        value=payload.get("value"),
        threshold=payload.get("threshold"),
    )


def _validation_words(metrics: Mapping[str, Any]) -> str:
    """Accuracy with interval and sample size, as far as they are known."""
    accuracy, count = metrics.get("accuracy"), metrics.get("accuracy/n")
    low, high = metrics.get("accuracy/low"), metrics.get("accuracy/high")
    if accuracy is None or count is None or low is None or high is None:
        return ""
    interval = f"[{100 * low:.0f}, {100 * high:.0f}]"
    return f": {100 * accuracy:.0f} % right {interval} n={count:.0f}"

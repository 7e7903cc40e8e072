"""Follow one run: a thread that reads its store, and the model that screens draw from.

The thread first reads what was there (``engine.runs.replay``, a bounded part of a long
log) and gives it away as a history that it never touches again. From then on it hands
batches of events over, and the event loop folds them into that history, so that nothing
but the event loop ever touches what widgets show: no locks in the model, no half-applied
step on screen. A page is small enough to fold within a frame, and the next one is read
only when the last has been taken, so a backlog neither stalls the app nor piles up in
memory.
"""

import sqlite3
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from textual.message import Message

from engine.config import RunConfig
from engine.errors import UserError
from engine.runs import curves, live_settings, replay, stage1
from engine.runs.curves import Curve
from engine.runs.directory import RunDirectory
from engine.runs.disk import refusal
from engine.runs.history import TERMINAL_STATES, History
from engine.runs.reader import SALVAGE, Event, Rollout, StoreReader
from engine.runs.status import effective_state
from stonk_tui.widgets.text import line

POLL_SECONDS = 0.25
WORKER_SECONDS = 1.0
PAGE_EVENTS = 1000
_BEATS_PER_LOOK = round(WORKER_SECONDS / POLL_SECONDS)
NEWEST_ROLLOUTS = 96
CURVES = ("reward/total", "validation/reward/total")
"""What is drawn over the whole of a long run."""
CURVE_POINTS = 512
_GONE = "the run's files are gone; what is shown was read before: {where}"


@dataclass
class RunModelUpdated(Message, bubble=False):
    """The feed has something new for the run model.

    Only neighbours in the queue merge, so it names no run.
    """

    def can_replace(self, message: Message) -> bool:
        return isinstance(message, RunModelUpdated)


@dataclass(frozen=True)
class Batch:
    """What the feed learnt since it was last asked; None means no news."""

    history: History | None = None
    """All that the store told when it was opened; ``events`` are those that came after."""
    events: tuple[Event, ...] = ()
    curves: Mapping[str, Curve] | None = None
    """Those of ``CURVES``; None also while the history holds them whole."""
    misread: str | None = None
    """What in the history could not be understood."""
    rollouts: tuple[Rollout, ...] | None = None
    alive: bool | None = None
    config: RunConfig | None = None
    promotion: Mapping[str, Any] | None = None
    """The record of the promotion that made the run; None also for a run that none made."""
    problem: str | None = None
    """One line on why the run cannot be read; empty once it can again."""
    caught_up: bool = False
    """Everything that was in the store is included."""


@dataclass
class RunModel:
    """What is known of the attached run; only the event loop touches it."""

    run: RunDirectory
    history: History = field(default_factory=History)
    curves: Mapping[str, Curve] = field(default_factory=dict)
    """Of metrics that are drawn over the whole run, where the history has cut their series."""
    rollouts: tuple[Rollout, ...] = ()
    alive: bool = True
    """Whether a worker lives; taken for granted until the feed has looked."""
    config: RunConfig | None = None
    promotion: Mapping[str, Any] | None = None
    """The record of the promotion that made the run, there before its worker tells of it."""
    problem: str = ""
    """Why the store cannot be read right now."""
    misread: str = ""
    """What in the store could not be understood."""
    loaded: bool = False
    """Everything that was in the store when it was opened has been folded."""

    def fold(self, batch: Batch) -> None:
        """Take one batch in."""
        if batch.history is not None:
            self.history = batch.history
        if batch.curves is not None:
            self.curves = batch.curves
        if problem := replay.fold(self.history, batch.events) or batch.misread:
            self.misread = f"an event of this run cannot be understood: {line(problem).plain}"
        if batch.rollouts is not None:
            self.rollouts = batch.rollouts
        if batch.alive is not None:
            self.alive = batch.alive
        if batch.config is not None:
            self.config = batch.config
        if batch.promotion is not None:
            self.promotion = batch.promotion
        if batch.problem is not None:
            self.problem = batch.problem
        self.loaded = self.loaded or batch.caught_up

    @property
    def state(self) -> tuple[str, str]:
        """(state, detail), corrected by whether the worker lives."""
        if self.problem and self.history.last_seq == 0:
            return "unreadable", self.problem
        return effective_state(self.run, self.history, alive=self.alive)

    @property
    def in_force(self) -> RunConfig | None:
        """The configuration as it is now: as the run was started, with the changes since."""
        if self.config is None:
            return None
        try:
            return live_settings.in_force(self.config, live_settings.newest(self.history.settings))
        except UserError:
            # Another version may know settings that this one does not.
            return self.config

    @property
    def commandable(self) -> bool:
        """Whether somebody is there to take a command."""
        return self.alive and self.history.state not in TERMINAL_STATES


class Feed:
    """Read one run's store in a thread of its own until stopped."""

    def __init__(self, run: RunDirectory, notify: Callable[[], object]) -> None:
        """Prepare to follow ``run``; ``notify`` is called in the thread when there is news."""
        self._run = run
        self._notify = notify
        self._stop = threading.Event()
        self._lock = threading.Lock()
        self._taken = threading.Event()
        self._news: Batch | None = None
        self._settings_problem = ""
        """What is wrong with the run's configuration, for as long as it is followed."""
        self._thread = threading.Thread(target=self._follow, name="run-feed", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Ask the thread to end; it does so within one read."""
        self._stop.set()
        self._taken.set()

    def join(self, timeout: float) -> None:
        """Wait for the thread to end."""
        self._thread.join(timeout)

    def take(self) -> Batch | None:
        """All news since the last call."""
        with self._lock:
            news, self._news = self._news, None
        self._taken.set()
        return news

    def _follow(self) -> None:
        """Body of the thread: never lets an exception out, says what is wrong instead."""
        try:
            self._give(Batch(config=self._run.config()))
            self._give(Batch(promotion=stage1.record(self._run)))
        except UserError as error:
            # The store may be readable all the same; only the settings are not shown.
            self._settings_problem = in_words(error)
            self._give(Batch(problem=self._settings_problem))
        has_read = False
        while not self._stop.is_set():
            reader: StoreReader | None = None
            try:
                reader = StoreReader(self._run.database)
                has_read = True
                self._follow_open(reader)
            except FileNotFoundError:
                is_gone = has_read or not self._run.path.exists()
                problem = _GONE.format(where=self._run.path) if is_gone else None
                alive = self._run.worker() is not None
                self._give(Batch(alive=alive, problem=problem, caught_up=True))
            except UserError as error:
                self._give(Batch(problem=in_words(error), caught_up=True))
            except (
                sqlite3.Error,
                ValueError,
                OSError,
                KeyError,
                TypeError,
                AttributeError,
            ) as error:
                self._give(Batch(problem=self._explain(error), caught_up=True))
            finally:
                if reader is not None:
                    reader.close()
            # Whatever it was, it may have passed: a worker may just be creating its store.
            self._stop.wait(WORKER_SECONDS)

    def _follow_open(self, reader: StoreReader) -> None:
        last_seq, step, next_curves = self._begin(reader)
        last_rollout = 0
        caught_up = False
        beat = 1
        while not self._stop.wait(POLL_SECONDS if caught_up else 0):
            # Looked up before reading: a worker that says "finished" and ends in between
            # must not look dead for a moment.
            alive = self._look_for_worker() if beat % _BEATS_PER_LOOK == 0 else None
            beat += 1
            events = reader.events(last_seq, PAGE_EVENTS)
            has_gone_back = any(event.kind == "resumed" for event in events)
            if has_gone_back and next_curves is not None:
                # What the history has let go of cannot be put back: it is made anew.
                last_seq, step, next_curves = self._begin(reader)
                last_rollout = 0
                continue
            caught_up = len(events) < PAGE_EVENTS
            batch = Batch(events=tuple(events), alive=alive, caught_up=caught_up)
            if alive is not None:
                batch = replace(batch, problem=self._settings_problem)
            if events:
                last_seq, step = events[-1].seq, events[-1].step
            if caught_up and (has_gone_back or reader.last_rollout() != last_rollout):
                last_rollout = reader.last_rollout()
                batch = replace(batch, rollouts=tuple(reader.newest_rollouts(NEWEST_ROLLOUTS)))
            if batch != Batch(caught_up=caught_up):
                self._give(batch)
            if next_curves is not None and step >= next_curves:
                # After all else: the picture that it is for is the last to be drawn.
                self._give(Batch(curves=_curves(reader)))
                next_curves = step + max(curves.BUCKET, step // CURVE_POINTS)

    def _begin(self, reader: StoreReader) -> tuple[int, int, int | None]:
        """Give all that is in the store.

        Returns:
            Its last event, its last step, and the step from which curves are needed; None where
            the history keeps everything.
        """
        alive = self._look_for_worker()
        history, misread = replay.replay(reader)
        last_seq, step = history.last_seq, history.step
        next_curves = None if history.kept_points is None else curves.EXACT_STEPS + 1
        problem = self._settings_problem
        self._give(Batch(history=history, curves={}, misread=misread, alive=alive, problem=problem))
        # Given away: from here on it belongs to the event loop.
        return last_seq, step, next_curves

    def _look_for_worker(self) -> bool:
        if not self._run.database.exists():
            raise FileNotFoundError(self._run.database)
        return self._run.worker() is not None

    def _explain(self, error: Exception) -> str:
        if isinstance(error, sqlite3.OperationalError) and "locked" in str(error):
            return "the run's store is busy; trying again"
        if isinstance(error, OSError) and (line := refusal(error)) is not None:
            return f"the run's store cannot be read: {line}"
        return f"the run's store is damaged ({error}); {SALVAGE}: {self._run.database}"

    def _give(self, batch: Batch) -> None:
        with self._lock:
            self._news = batch if self._news is None else _merge(self._news, batch)
            self._taken.clear()
        self._notify()
        # Back-pressure: while the app is busy, the store is the better place to wait in.
        while batch.events and not self._taken.wait(POLL_SECONDS):
            if self._stop.is_set():
                return


def _curves(reader: StoreReader) -> dict[str, Curve]:
    return {name: curves.read(reader.rows, name, CURVE_POINTS) for name in CURVES}


def in_words(error: UserError) -> str:
    """What is wrong first: a path may be longer than the screen is wide."""
    fix = f"; {error.fix}" if error.fix else ""
    return f"{error.what}{fix}" + (f": {error.where}" if error.where else "")


def _merge(older: Batch, newer: Batch) -> Batch:
    return Batch(
        # A history is of everything before it.
        history=older.history if newer.history is None else newer.history,
        events=newer.events if newer.history is not None else older.events + newer.events,
        curves=older.curves if newer.curves is None else newer.curves,
        misread=older.misread if newer.misread is None else newer.misread,
        rollouts=older.rollouts if newer.rollouts is None else newer.rollouts,
        alive=older.alive if newer.alive is None else newer.alive,
        config=older.config if newer.config is None else newer.config,
        promotion=older.promotion if newer.promotion is None else newer.promotion,
        problem=older.problem if newer.problem is None else newer.problem,
        caught_up=older.caught_up or newer.caught_up,
    )

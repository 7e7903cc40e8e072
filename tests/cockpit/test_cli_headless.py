"""Following a run without a cockpit: lines from a recorded store, while it is being written."""

from collections.abc import Callable, Iterator

import pytest
import typer

from engine import config as configuration
from engine.errors import RunFailedError
from engine.runs import directory
from engine.runs.directory import RunDirectory
from engine.runs.history import History
from engine.runs.reader import Event
from engine.runs.store import EventStore
from engine.task import Json
from stonk_tui.commands.output import duration
from stonk_tui.commands.progress import ProgressLines
from stonk_tui.headless import Lines, follow

STEP: dict[str, Json] = {
    "metrics": {
        "reward/total": 0.4123,
        "reward/format": 0.875,
        "calls/up_share": 0.53,
        "market/up_share": 0.51,
        "accuracy": 0.5625,
        "accuracy/n": 32,
        "accuracy/low": 0.393,
        "accuracy/high": 0.718,
        "kl": 0.012,
    },
    "seconds": {"rollout": 5.0, "total": 8.14},
    "eta_seconds": 227.0,
}
LINE = (
    "step 12/40  reward +0.412  format 0.88  UP 53% (market 51%)  accuracy 56% [39, 72] n=32"
    "  KL 0.0120  8.1 s/step  ETA 3m 47s"
)


@pytest.fixture
def run() -> RunDirectory:
    run = directory.create(configuration.preset("demo"))
    run.record_worker()
    return run


class Script:
    """Writes the next part of a run's story every time the follower waits."""

    def __init__(self, *parts: Callable[[], None]) -> None:
        self._parts: Iterator[Callable[[], None]] = iter(parts)

    def __call__(self, seconds: float) -> None:
        next(self._parts)()


def test_run_is_followed_while_it_is_written(
    run: RunDirectory, capsys: pytest.CaptureFixture[str]
) -> None:
    stores: list[EventStore] = []

    def begin() -> None:
        stores.append(EventStore(run.database))
        stores[0].event("worker", {"pid": 1, "max_steps": 40})
        stores[0].event("state", {"state": "training", "detail": ""})
        stores[0].flush()

    def one_step() -> None:
        stores[0].event("step", STEP, step=12)
        stores[0].event("state", {"state": "evaluating", "detail": ""})
        stores[0].event("validation", {"metrics": {"reward/total": 0.3, "accuracy": 0.5}})
        stores[0].event("state", {"state": "training", "detail": ""})
        stores[0].event("checkpoint", {"name": "step-000012", "best": True})
        limits = {"phase": "train", "unit": "tokens", "old": 512, "new": 256}
        stores[0].event("memory", limits)
        stores[0].event("notice", {"level": "warning", "text": "the disk fills\x1b[2J"})
        stores[0].flush()

    def end() -> None:
        stores[0].event("state", {"state": "finished", "detail": "stopped on demand"})
        stores[0].close()

    follow(run, wait=Script(lambda: None, begin, one_step, lambda: None, end))
    lines = capsys.readouterr().out.splitlines()
    assert lines[:7] == [
        "training",
        LINE,
        "validation at step 12  reward +0.300  accuracy 50%",
        "checkpoint step-000012, best so far",
        "warning: out of memory (train): done again with 256 tokens at once instead of 512",
        "warning: the disk fills␛[2J",
        "finished: stopped on demand",
    ]
    assert lines[7].startswith("finished    step 12 of 40 after ")
    assert lines[8:] == [
        "reward      +0.412 to +0.412 (first and last step)",
        "validation  reward +0.300  accuracy 50%",
        f"best        {run.path}/checkpoints/step-000012",
        f"run         {run.path}",
        f"log         {run.path}/engine.log",
        f"next        stonk-tui attach {run.id}",
    ]


def test_alarms_and_all_four_lights_are_plain_lines(
    run: RunDirectory, capsys: pytest.CaptureFixture[str]
) -> None:
    store = EventStore(run.database)
    store.event("checkpoint", {"name": "step-000012", "best": True}, step=12)
    alarm = {"name": "kl", "title": "KL 1.3 nats\x1b[2J", "explanation": "", "advice": ""}
    store.event("alarm", alarm | {"on": True}, step=12)
    store.event("alarm", alarm | {"on": False}, step=14)
    store.event("super_saiyan", {"power": 9001, "step": 14, "suggestion": "step-000012"}, step=14)
    store.event("state", {"state": "finished"})
    store.close()
    follow(run)
    assert capsys.readouterr().out.splitlines()[1:4] == [
        "warning: alarm: KL 1.3 nats␛[2J",
        "alarm over: KL 1.3 nats␛[2J",
        "Super Saiyan: all four indicators are on; step-000012 is the one to promote",
    ]


def test_what_is_not_known_is_left_out(
    run: RunDirectory, capsys: pytest.CaptureFixture[str]
) -> None:
    store = EventStore(run.database)
    store.event("step", {"metrics": {"reward/total": -0.1, "kl": None}}, step=1)
    store.event("state", {"state": "finished"})
    store.close()
    follow(run)
    assert capsys.readouterr().out.splitlines()[0] == "step 1  reward -0.100"


def test_end_of_an_earlier_worker_does_not_end_the_following(
    run: RunDirectory, capsys: pytest.CaptureFixture[str]
) -> None:
    store = EventStore(run.database)
    store.event("step", STEP, step=12)
    store.event("state", {"state": "failed", "detail": "out of memory"})
    store.close()

    def second() -> None:
        store = EventStore(run.database)
        store.event("resumed", {"from_step": 12}, step=12)
        store.event("state", {"state": "finished"})
        store.close()

    follow(run, previous_attempts=1, wait=Script(second))
    lines = capsys.readouterr().out.splitlines()
    assert lines[:2] == ["goes on from step 12", "finished"]


def test_failed_run_raises_with_the_reason_and_the_log(run: RunDirectory) -> None:
    store = EventStore(run.database)
    store.event("state", {"state": "failed", "detail": "out\nof memory"})
    store.close()
    with pytest.raises(RunFailedError, match=r"failed: out of memory; the log is .*/engine\.log"):
        follow(run)


def test_dead_worker_raises_and_names_the_way_on(run: RunDirectory) -> None:
    (run.path / "worker.json").unlink()
    with pytest.raises(RunFailedError, match=f"`stonk-tui train --resume {run.id}` goes on"):
        follow(run)


def test_ctrl_c_leaves_the_run_at_work_and_says_so(
    run: RunDirectory, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupt(seconds: float) -> None:
        raise KeyboardInterrupt

    with pytest.raises(typer.Exit) as caught:
        follow(run, wait=interrupt)
    assert caught.value.exit_code == 130
    assert f"goes on; end it with `stonk-tui stop {run.id}`" in capsys.readouterr().err


def test_long_work_is_told_of_when_it_begins_every_five_seconds_and_when_it_ends() -> None:

    history, lines, told = History(), Lines(), []
    for second in range(25):
        payload = {
            "task": "warm-up",
            "done": second,
            "total": 24,
            "eta_seconds": 24.0 - second,
            "metrics": {"loss": 2.0},
        }
        event = Event(second + 1, 1, 1000.0 + second, "progress", 0, payload)
        history.apply([event])
        if line := lines.of(event, history):
            told.append(line)
    assert told == [
        "warm-up  0%  loss 2.000  ETA 24s",
        "warm-up  21%  loss 2.000  ETA 19s",
        "warm-up  42%  loss 2.000  ETA 14s",
        "warm-up  62%  loss 2.000  ETA 9s",
        "warm-up  83%  loss 2.000  ETA 4s",
        "warm-up  100%  loss 2.000",
    ]


def test_download_is_told_of_when_it_begins_and_every_ten_seconds(
    capsys: pytest.CaptureFixture[str],
) -> None:
    now = [0.0]
    lines = ProgressLines(clock=lambda: now[0])
    for second in range(25):
        now[0] = float(second)
        lines.update("downloading", 100 + second, 200)
    lines.update("checking", 0, 0)
    assert capsys.readouterr().out.splitlines() == [
        "downloading  50%",
        "downloading  55%  ETA 1m 30s",
        "downloading  60%  ETA 1m 20s",
        "checking",
    ]


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(-1, "0s"), (0.4, "0s"), (59.6, "1m 00s"), (226, "3m 46s"), (7500, "2h 05m")],
)
def test_durations_are_short(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_advice_at_the_end_of_a_long_reason_is_said_and_the_log_once(
    run: RunDirectory, capsys: pytest.CaptureFixture[str]
) -> None:
    reason = f"out of memory {'x' * 300}; use a smaller model; see {run.log}"

    def fail() -> None:
        store = EventStore(run.database)
        store.event("state", {"state": "failed", "detail": reason})
        store.close()

    with pytest.raises(RunFailedError) as caught:
        follow(run, wait=Script(fail))
    assert str(caught.value).endswith(f"use a smaller model; see {run.log}")
    assert "use a smaller model" in capsys.readouterr().out

"""The summary of a run says what its whole history says, with a bounded look."""

import pytest

from engine.runs.reader import StoreReader
from engine.runs.status import read_history
from engine.runs.store import EventStore
from engine.runs.summary import Summary, read_summary
from tests import recorded


def summary_of(recording: recorded.Recording) -> Summary:
    reader = StoreReader(recording.run.database)
    try:
        return read_summary(reader)
    finally:
        reader.close()


@pytest.mark.parametrize("state", ["training", "paused", "failed", "finished"])
@pytest.mark.parametrize("steps", [1, 7, 60])
def test_summary_agrees_with_the_whole_history(steps: int, state: str) -> None:
    recording = recorded.record(steps, state=state)
    found, history = summary_of(recording), read_history(recording.run)
    assert (found.state, found.detail) == (history.state, history.detail)
    assert (found.step, found.max_steps) == (history.step, history.max_steps)
    assert found.started == history.started
    assert found.reward == history.metrics["reward/total"]
    validated = {
        name: history.metrics[f"validation/accuracy{name}"] for name in ("", "/low", "/high", "/n")
    }
    assert validated == {
        "": found.accuracy,
        "/low": found.accuracy_low,
        "/high": found.accuracy_high,
        "/n": found.accuracy_n,
    }
    assert found.baseline == 0.535
    assert found.memory_gib == 3.4
    assert found.step_seconds == pytest.approx(13.9, abs=1)
    assert found.tickers <= set(recorded.TICKERS)
    assert found.tickers


def test_run_that_has_not_begun_is_not_known() -> None:
    recording = recorded.new_run()
    recording.closes()
    assert summary_of(recording) == Summary()


def test_new_worker_is_starting_until_it_says_more() -> None:
    recording = recorded.record(5, state="failed")
    store = EventStore(recording.run.database)
    store.event("worker", {"pid": 1, "device": "cuda:1"})
    store.close()
    found = summary_of(recording)
    assert (found.state, found.detail, found.attempt) == ("starting", "", 2)
    assert found.device == "cuda:1"
    assert found.max_steps == 500


def test_replayed_steps_are_left_out() -> None:
    recording = recorded.record(20, state="stale")
    store = EventStore(recording.run.database)
    store.supersede_after(10)
    store.event("worker", {"pid": 1})
    store.event("resumed", {"from_step": 10}, step=10)
    store.event("state", {"state": "training", "detail": ""})
    store.close()
    history = read_history(recording.run)
    found = summary_of(recording)
    assert (found.step, found.state) == (history.step, history.state) == (10, "training")


def test_long_run_is_looked_at_in_a_bounded_way(monkeypatch: pytest.MonkeyPatch) -> None:
    recording = recorded.record_long(6000)
    rows = 0
    original = StoreReader.rows

    def counted(self: StoreReader, query: str, parameters: tuple[object, ...] = ()) -> object:
        nonlocal rows
        found = original(self, query, parameters)
        rows += len(found)
        return found

    monkeypatch.setattr(StoreReader, "rows", counted)
    found = summary_of(recording)
    assert rows < 600
    # Its only state stands at the very beginning, out of sight: it has trained ever since.
    assert (found.state, found.step, found.max_steps) == ("training", 6000, 6000)
    # The reward follows a sine of period 2 pi 300 with noise: the course must show its waves.
    assert len(found.course) == 32
    assert max(found.course) > 0.45
    assert min(found.course) < 0.35


def test_metrics_come_out_of_the_store_as_they_went_in() -> None:
    recording = recorded.record(12)
    history = read_history(recording.run)
    reader = StoreReader(recording.run.database)
    first = reader.metrics("step", ("reward/total", "kl", "no/such"), limit=5)
    rest = reader.metrics("step", ("reward/total", "kl", "no/such"), first[-1][0])
    reader.close()
    rows = first + rest
    assert [step for _, step, _ in rows] == history.series["kl"].steps
    assert [values[0] for *_, values in rows] == history.series["reward/total"].values
    assert [values[1] for *_, values in rows] == history.series["kl"].values
    assert {values[2] for *_, values in rows} == {None}

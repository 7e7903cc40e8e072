"""Alarms and the watch over a run: streams that deserve an alarm, and streams that do not."""

import re
import subprocess
import sys
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from engine import config as configuration
from engine.runs.history import History
from engine.runs.reader import Event, StoreReader
from engine.runs.store import EventStore
from engine.task import Json
from engine.training.alarms import AlarmSettings, calls, machine, policy, validation
from engine.training.alarms.alarms import STEP_RULES, VALIDATION_RULES
from engine.training.watch import Happening, Watch, WatchSettings
from tests import streams
from tests.streams import Habits, Stream, changed, line

ROOT = Path(__file__).resolve().parents[2]
SETTINGS = WatchSettings(
    settle_window=15, alarms=AlarmSettings(kl_alarm=1.0, weights=streams.WEIGHTS, synthetic=True)
)
REAL = replace(SETTINGS, alarms=replace(SETTINGS.alarms, synthetic=False))
MODEST = Habits(gpu=0.9)
"""Half right, says so, changes nothing: a run in which nothing can be wrong."""


def watched(
    events: Iterable[Event], settings: WatchSettings = SETTINGS
) -> list[tuple[int, str, dict[str, Any]]]:
    """(step, kind, payload) of everything that a watch says of a stream."""
    watch = Watch(settings)
    return [
        (event.step, kind, dict(payload)) for event in events for kind, payload in watch.take(event)
    ]


def raised(events: Iterable[Event], settings: WatchSettings = SETTINGS) -> list[str]:
    """Names of the alarms that went on, in order."""
    return [p["name"] for _, kind, p in watched(events, settings) if kind == "alarm" and p["on"]]


def alone(name: str, **habits: streams.Curve) -> Stream:
    """A run that does nothing wrong but what ``habits`` say."""
    assert name in habits
    return Stream(replace(MODEST, **habits), steps=60, eval_calls=400)


# --- silence


@pytest.mark.parametrize("make", streams.HEALTHY)
@pytest.mark.parametrize("seed", range(8))
def test_healthy_run_raises_no_alarm(make: Any, seed: int) -> None:
    settings = SETTINGS if make is streams.converged_prove else REAL
    assert raised(make(seed).events(), settings) == []


def test_only_the_run_that_learnt_becomes_a_super_saiyan_and_once() -> None:
    found = {
        make: [p for _, kind, p in watched(make().events()) if kind == "super_saiyan"]
        for make in streams.HEALTHY
    }
    assert found[streams.learning_demo] == found[streams.flat_run] == []
    (payload,) = found[streams.converged_prove]
    assert payload["power"] == 9001
    assert [one["on"] for one in payload["indicators"]] == [True] * 4
    assert payload["suggestion"].startswith("step-0000")


# --- each alarm


DESERVING = {
    "entropy_collapse": alone("entropy", entropy=line(1.1, 0.0017, 40)),
    "zero_variance": alone("flat", flat=line(0.1, 0.9, 30)),
    "length_collapse": alone("tokens", tokens=line(100, 24, 50)),
    "truncation": alone("truncated", truncated=line(0.02, 0.5, 40)),
    "kl_blow_up": alone("kl", kl=lambda step: 2.0 if step == 30 else 0.03),
    "one_sided": alone("up", up=line(0.5, 0.95, 30)),
    "parse_rate": alone("parsed", parsed=line(0.98, 0.6, 40)),
    "overconfidence": alone("confidence", confidence=line(0.6, 0.98, 30)),
    "idle_gpu": alone("gpu", gpu=0.3),
    "reward_hacking": alone("data_use", data_use=line(0.0, 1.0, 40)),
}


@pytest.mark.parametrize("name", DESERVING)
def test_stream_that_deserves_an_alarm_raises_it_and_no_other(name: str) -> None:
    assert raised(DESERVING[name].events()) == [name]


def test_every_rule_has_a_stream_that_deserves_it() -> None:
    assert set(STEP_RULES) | set(VALIDATION_RULES) == set(DESERVING) | {"suspect_leakage"}


def test_accuracy_too_good_on_real_prices_is_a_suspected_leak() -> None:
    stream = streams.converged_prove()
    assert raised(stream.events(), SETTINGS) == []
    (happened,) = [one for one in watched(stream.events(), REAL) if one[1] == "alarm"]
    step, _, payload = happened
    assert payload["name"] == "suspect_leakage"
    assert 20 <= step <= 40
    assert "n=200" in payload["title"]
    assert "stonk-tui data check" in payload["advice"]


def test_policy_that_becomes_a_constant_raises_the_alarms_of_its_recorded_curves() -> None:
    """First and last values of a recorded collapse: entropy 1.10 → 0.0017, length 100 → 24,
    groups without contrast 63 → 99 %, format .13 → 1.0, accuracy .483 → .494."""
    habits = Habits(
        hit=line(0.50, 0.51, 200),
        parsed=line(0.13, 1.0, 60),
        up=line(0.5, 0.98, 100),
        entropy=line(1.10, 0.0017, 150),
        tokens=line(100, 24, 150),
        flat=line(0.63, 0.99, 200),
    )
    found = raised(Stream(habits, steps=200, eval_every=50).events())
    assert {"entropy_collapse", "length_collapse", "zero_variance", "one_sided"} <= set(found)


def test_collapsed_policy_never_lights_the_settled_indicator() -> None:
    collapsed = changed(streams.converged_prove(), entropy=line(0.8, 0.0, 50), flat=0.9)
    assert not [kind for _, kind, _ in watched(collapsed.events()) if kind == "super_saiyan"]


# --- what an alarm says


@pytest.mark.parametrize("name", [*DESERVING, "suspect_leakage"])
def test_alarm_says_what_it_is_with_its_number_and_what_to_do(name: str) -> None:
    stream = DESERVING.get(name, streams.converged_prove())
    settings = REAL if name == "suspect_leakage" else SETTINGS
    payload = next(p for _, kind, p in watched(stream.events(), settings) if kind == "alarm")
    assert payload["name"] == name
    assert len(payload["title"]) < 60
    assert any(character.isdigit() for character in payload["title"])
    assert 2 <= payload["explanation"].count(". ") + 1 <= 4
    assert len(payload["advice"]) > 40
    assert isinstance(payload["value"], float)
    assert isinstance(payload["threshold"], float)


def test_settings_that_an_alarm_advises_exist() -> None:
    known = configuration.RunConfig().model_dump()
    advised = 0
    for name, stream in DESERVING.items():
        payload = next(p for _, kind, p in watched(stream.events()) if kind == "alarm")
        words = (payload["advice"] + " " + payload["explanation"]).replace("(", " ").split()
        for word in words:
            section, dot, key = word.strip(".,;:)").partition(".")
            if dot and section in known:
                assert key in known[section], f"{name}: {word}"
                advised += 1
    assert advised >= 10


def test_reward_that_rises_without_accuracy_names_the_component_that_rose() -> None:
    payload = next(
        p for _, kind, p in watched(DESERVING["reward_hacking"].events()) if kind == "alarm"
    )
    assert payload["title"].startswith("data_use up: reward +0.")
    assert "accuracy" in payload["title"]


def test_training_that_does_not_carry_over_to_unseen_days_names_direction() -> None:
    stream = alone("hit", hit=line(0.5, 0.9, 60), validation_hit=0.5, confidence=line(0.6, 0.9, 60))
    payloads = [p for _, kind, p in watched(stream.events()) if kind == "alarm"]
    assert [p["name"] for p in payloads] == ["reward_hacking"]
    assert payloads[0]["title"].startswith("direction up")


def test_reward_that_rises_with_what_can_be_read_is_excused() -> None:
    learnt = {"data_use": line(0.0, 1.0, 40), "hit": line(0.85, 0.5, 60)}
    # With the parse rate so goes what is right: accuracy stays where it was.
    readable = alone("parsed", parsed=line(0.6, 1.0, 60), **learnt)
    assert "reward_hacking" not in raised(readable.events())


def test_few_validation_calls_accuse_nobody() -> None:
    stream = replace(DESERVING["reward_hacking"], eval_calls=24)
    assert raised(stream.events()) == []


def test_confidence_of_the_warm_up_is_forgiven_for_a_hundred_steps() -> None:
    stream = replace(alone("confidence", confidence=0.70), steps=130)
    found = [step for step, kind, _ in watched(stream.events()) if kind == "alarm"]
    assert len(found) == 1
    assert found[0] > 100


def test_hostile_component_name_stays_in_its_line() -> None:
    weights = {"a\x1b[31m\nb" + "c" * 90: 1.0}
    settings = replace(SETTINGS, alarms=replace(SETTINGS.alarms, weights=weights))
    events = [
        replace(
            event,
            payload=event.payload
            | {
                "metrics": {
                    name.replace("reward/data_use", f"reward/{next(iter(weights))}"): value
                    for name, value in event.payload["metrics"].items()
                }
            },
        )
        for event in DESERVING["reward_hacking"].events()
    ]
    payload = next(p for _, kind, p in watched(events, settings) if kind == "alarm")
    text = payload["title"] + payload["explanation"] + payload["advice"]
    assert text.isprintable()
    assert len(payload["title"]) <= 60


# --- on, off, and not to and fro


def test_alarm_ends_when_what_raised_it_is_over() -> None:
    stream = alone("truncated", truncated=lambda step: 0.6 if 10 <= step < 30 else 0.02)
    turns = [(p["name"], p["on"]) for _, _, p in watched(stream.events())]
    assert turns == [("truncation", True), ("truncation", False)]


def test_value_that_hovers_at_its_threshold_does_not_flap() -> None:
    stream = replace(alone("truncated", truncated=0.25), steps=300)
    assert len(watched(stream.events())) <= 1


def test_one_step_of_high_kl_rings_once_and_ends_after_five_quiet_ones() -> None:
    turns = [(step, p["on"]) for step, _, p in watched(DESERVING["kl_blow_up"].events())]
    assert turns == [(30, True), (35, False)]


def test_use_of_the_gpu_is_judged_after_five_minutes_of_training() -> None:
    for seconds, first in ((14.0, 22), (100.0, 3), (0.5, 600)):
        stream = Stream(replace(MODEST, gpu=0.3, seconds=seconds), steps=first + 5, eval_every=1000)
        turns = [step for step, _, p in watched(stream.events()) if p["name"] == "idle_gpu"]
        assert turns == [first]


def test_gpu_that_waited_long_ago_is_forgotten_after_five_minutes() -> None:
    stream = alone("gpu", gpu=lambda step: 0.3 if step <= 30 else 0.9)
    turns = [(step, p["on"]) for step, _, p in watched(stream.events())]
    # 14 s a step: half of five minutes are busy eleven steps later.
    assert [on for _, on in turns] == [True, False]
    assert 40 <= turns[1][0] <= 44


# --- replay and resume


def record(path: Path, stream: Stream) -> list[tuple[int, str, dict[str, Any]]]:
    """Write a run as the worker does; what its watch said live, step by step."""
    watch, store = Watch(REAL), EventStore(path)
    said: list[tuple[int, str, dict[str, Any]]] = []

    def emit(happened: list[Happening], step: int) -> None:
        for kind, payload in happened:
            store.event(kind, payload)
            said.append((step, kind, dict(payload)))

    for event in stream.events():
        metrics = dict(event.payload["metrics"])
        if event.kind == "step" and event.step % 7 == 0:
            metrics["loss"] = float("nan")
        if event.kind == "step":
            happened = watch.after_step(event.step, metrics, event.payload["seconds"])
        else:
            happened = watch.after_validation(event.step, metrics, event.payload["suggestion"])
        payload: dict[str, Json] = {**event.payload, "metrics": metrics, **watch.picture()}
        store.event(event.kind, payload, step=event.step)
        emit(happened, event.step)
    store.close()
    return said


RUNS = [streams.converged_prove(2), DESERVING["reward_hacking"], DESERVING["one_sided"]]


@pytest.mark.parametrize("stream", RUNS)
def test_replay_of_the_store_equals_what_was_seen_live(tmp_path: Path, stream: Stream) -> None:
    path = tmp_path / "events.db"
    said = record(path, stream)
    assert said
    reader = StoreReader(path)
    events = reader.events(limit=100_000)
    reader.close()
    replayed = Watch(REAL)
    again = []
    for event in events:
        again += [(event.step, kind, payload) for kind, payload in replayed.take(event)]
        if event.kind in ("step", "validation"):
            picture = replayed.picture()
            assert picture == {name: event.payload[name] for name in picture}
    assert again == said
    assert Watch.replay(REAL, events).state() == replayed.state()


def test_window_shows_the_alarms_that_the_watch_has_on(tmp_path: Path) -> None:
    path = tmp_path / "events.db"
    record(path, streams.converged_prove(2))
    reader = StoreReader(path)
    events = reader.events(limit=100_000)
    reader.close()
    history = History()
    history.apply(events)
    watch = Watch.replay(REAL, events)
    assert tuple(history.alarms) == watch.alarms == ("suspect_leakage",)
    assert history.power == watch.power
    assert len(history.super_saiyan) == 1


@pytest.mark.parametrize("stream", [streams.converged_prove(2), *DESERVING.values()])
def test_watch_restored_in_the_middle_goes_on_as_if_nothing_had_happened(stream: Stream) -> None:
    whole, parts = Watch(REAL), Watch(REAL)
    for event in stream.events():
        assert parts.take(event) == whole.take(event)
        if event.step % 9 == 0:
            saved = parts.state()
            parts = Watch(REAL)
            parts.restore(saved)
    assert parts.state() == whole.state()
    assert parts.picture() == whole.picture()


def test_validation_that_a_resume_repeats_counts_once() -> None:
    validations = [
        event for event in streams.converged_prove(2).events() if event.kind == "validation"
    ]
    late = validations[-1]
    watch = Watch(SETTINGS)
    watch.take(late)
    before = watch.state()
    assert watch.take(late) == []
    assert watch.state() == before


def test_watching_needs_no_torch() -> None:
    code = "import sys, engine.training.watch; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0


def test_every_alarm_and_its_thresholds_stand_in_the_document() -> None:
    document = (ROOT / "docs" / "milestones.md").read_text(encoding="utf-8")
    table = document.partition("| alarm |")[2].partition("\n\n")[0]
    rows = dict(re.findall(r"^\| `(\w+)` \|(.*)$", table, re.MULTILINE))
    assert set(rows) == set(STEP_RULES) | set(VALIDATION_RULES)
    assert all(f"**`{name}`" in document for name in rows)
    for name, numbers in {
        "entropy_collapse": [policy.ENTROPY_OVER],
        "zero_variance": [100 * policy.FLAT_RAISED, 100 * policy.FLAT_OVER],
        "length_collapse": [100 * policy.LENGTH_RAISED, 100 * policy.LENGTH_OVER],
        "truncation": [100 * policy.TRUNCATED_RAISED, 100 * policy.TRUNCATED_OVER],
        "kl_blow_up": [policy.KL_OVER, policy.KL_STEPS],
        "one_sided": [calls.ONE_SIDED_RAISED, calls.ONE_SIDED_OVER, calls.LEAST_CALLS],
        "parse_rate": [calls.PARSED_RAISED, calls.PARSED_OVER],
        "overconfidence": [calls.GAP_RAISED, calls.HABIT_GAP, calls.HABIT_STEPS, calls.GAP_BAND],
        "idle_gpu": [100 * machine.BUSY_RAISED, 100 * machine.BUSY_OVER],
        "reward_hacking": [validation.RISE_OVER, validation.ACCURACY_OVER],
    }.items():
        stated = {float(number) for number in re.findall(r"\d+(?:\.\d+)?", rows[name])}
        assert set(numbers) <= stated, name


def test_settling_window_is_two_epochs_unless_the_configuration_says_so() -> None:
    config = configuration.preset("stage1")
    facts: dict[str, Any] = {"weights": {}, "synthetic": False}
    # 2000 items at 8 a step are 250 steps an epoch; 2001 items need one step more.
    assert WatchSettings.of(config, num_training_items=2000, **facts).settle_window == 500
    assert WatchSettings.of(config, num_training_items=2001, **facts).settle_window == 501
    narrow = configuration.with_overrides(config, ["milestones.settle_window=15"])
    assert WatchSettings.of(narrow, num_training_items=2000, **facts).settle_window == 15

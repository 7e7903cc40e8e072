"""Predictions of an evaluation: what they are, when they come, and that training never notices."""

import json
import queue
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch

from engine.config import RunConfig
from engine.errors import UserError
from engine.evaluation import context as contexts
from engine.evaluation import finish, identity, predictor, request, store
from engine.evaluation.evaluator import Evaluator, batches
from engine.evaluation.hosting import Host
from engine.evaluation.store import ExampleRow, PredictionStore
from engine.policy.adapters import read_adapter
from engine.policy.overlay import acting_as
from engine.rewards.choice import resolve
from engine.runs import checkpoint_names, control
from engine.runs.control import Command
from engine.runs.directory import RunDirectory
from engine.runs.reader import StoreReader
from engine.runs.store import EventStore
from engine.training import loop
from engine.training.control import Control
from tests import evaluations
from tests.engine.test_probe import Session
from tests.tiny import tiny_base, tiny_policy


@pytest.fixture(autouse=True)
def no_report(monkeypatch: pytest.MonkeyPatch) -> None:
    """What comes after the predictions is another matter."""
    monkeypatch.setattr(finish, "run", lambda folder, is_interrupted: dict(evaluations.TOLD))


@pytest.fixture
def small_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(predictor, "MIN_ROWS", 1)


def _events(run: RunDirectory) -> list[Mapping[str, Any]]:
    reader = StoreReader(run.database)
    found = [event.payload for event in reader.events(0, 10_000) if event.kind == "evaluation"]
    reader.close()
    return found


# ---------------------------------------------------------------------------
# Completions


def test_one_sample_is_what_generate_of_transformers_makes_greedily() -> None:
    policy = tiny_policy(max_new_tokens=20)
    prompts = [[256, *range(10, 10 + length)] for length in (40, 3, 17, 29)]
    with acting_as(policy.model, None):
        groups = predictor.complete(
            policy, prompts, rollout=policy.rollout, samples=1, temperature=0.0, seeds=[0] * 4
        )
    plain = tiny_base()
    for prompt, (completion,) in zip(prompts, groups, strict=True):
        ids = torch.tensor([prompt])
        made = plain.generate(
            ids,
            attention_mask=torch.ones_like(ids),
            do_sample=False,
            max_new_tokens=20,
            eos_token_id=257,
            pad_token_id=257,
        )
        assert completion.tokens == made[0, len(prompt) :].tolist()
        assert completion.finished == (completion.tokens[-1] == 257)


def test_a_sample_depends_on_its_seed_alone() -> None:
    policy = tiny_policy(max_new_tokens=10)
    prompts = [[256, *range(10, 10 + length)] for length in (30, 12, 5)]
    seeds = [predictor.seed_of(3, f"key-{at}", sample) for at in range(3) for sample in range(2)]
    assert len(set(seeds)) == 6
    assert max(seeds) < 2**52
    assert predictor.seed_of(4, "key-0", 0) != seeds[0]
    together = predictor.complete(
        policy, prompts, rollout=policy.rollout, samples=2, temperature=1.0, seeds=seeds
    )
    for at in (2, 0, 1):
        (alone,) = predictor.complete(
            policy,
            prompts[at : at + 1],
            rollout=policy.rollout,
            samples=2,
            temperature=1.0,
            seeds=seeds[2 * at : 2 * at + 2],
        )
        assert [one.tokens for one in alone] == [one.tokens for one in together[at]]


def test_batches_hold_prompts_of_about_one_length_the_longest_first() -> None:
    rows = [ExampleRow(f"A:{at}", 0.1, True, length, "{}") for at, length in enumerate((5, 9, 7))]
    sizes = [[row.length for row in batch] for batch in batches(rows, 2)]
    assert sizes == [[9, 7], [5]]


# ---------------------------------------------------------------------------
# An evaluation


def test_every_prediction_can_be_made_again_from_what_is_stored(tmp_path: Path) -> None:
    run = evaluations.make_run(tmp_path)
    begun = evaluations.begin(run, "step-4", samples=2, examples=6, temperature=0.8)
    assert evaluations.evaluate(run, begun.folder) == (True, "evaluated 24 predictions on test")
    config = run.config()
    policy = evaluations.host_policy(config)
    rows = evaluations.table(begun.folder)
    assert len(rows) == 2 * 6 * 2
    for row in rows[::5]:
        known = dict(zip(store.Prediction.__dataclass_fields__, row, strict=True))
        kept = begun.folder / "checkpoints" / known["checkpoint_hash"]
        adapter = None if known["checkpoint"] == "base" else read_adapter(kept)
        with acting_as(policy.model, adapter):
            ((completion,),) = predictor.complete(
                policy,
                [policy.encode_prompt(known["prompt"])],
                rollout=config.rollout,
                samples=1,
                temperature=begun.context.temperature,
                seeds=[known["seed"]],
            )
        assert policy.decode(completion) == known["completion"]
        assert bool(known["finished"]) == completion.finished
        scores = json.loads(known["scores"])
        weights = resolve(config.reward).scheme.weights
        total = sum(weights[name] * scores[f"component/{name}"] for name in weights)
        assert known["reward"] == pytest.approx(total)
        assert {"rubric/total", "rubric/prediction", "rubric/reasoning"} < {*scores}

    begin, done = _events(run)
    assert (begin["state"], done["state"]) == ("begun", "done")
    assert done["verdicts"] == {"base": "no evidence"}
    assert begin["checkpoints"] == ["base", "step-000004"]
    assert (begin["total"], begin["folder"]) == (24, begun.folder.name)
    assert done["seconds"] > 0


def test_an_interrupted_evaluation_goes_on_where_it_was(
    tmp_path: Path, small_batches: None
) -> None:
    run = evaluations.make_run(tmp_path)
    calm = evaluations.begin(run, "step-2", examples=12, out=tmp_path / "calm")
    assert evaluations.evaluate(run, calm.folder)[0]
    looks = iter(range(10_000))
    begun = evaluations.begin(run, "step-2", examples=12)
    ok, message = evaluations.evaluate(run, begun.folder, lambda: next(looks) > 30)
    assert not ok
    assert message == "interrupted; the same `stonk-tui eval` goes on with it"
    stored = evaluations.count(begun.folder)
    assert 0 < stored < 24
    assert _events(run)[-1]["state"] == "stopped"

    again = evaluations.begin(run, "step-2", examples=12)
    assert (again.folder, again.is_new, again.is_finished) == (begun.folder, False, False)
    assert again.context == begun.context
    assert evaluations.evaluate(run, again.folder)[0]
    assert evaluations.table(again.folder) == evaluations.table(calm.folder)
    # Another request is another evaluation.
    assert evaluations.begin(run, "step-2", examples=11).is_new


def test_what_is_predicted_already_is_not_predicted_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = evaluations.make_run(tmp_path)
    begun = evaluations.begin(run, "base", examples=5)
    assert evaluations.evaluate(run, begun.folder)[0]

    def fails(*args: Any, **kwargs: Any) -> None:
        raise AssertionError("nothing is left to predict")

    monkeypatch.setattr(predictor, "complete", fails)
    assert evaluations.evaluate(run, begun.folder)[0]
    assert evaluations.count(begun.folder) == 5


def test_a_draft_tells_how_far_it_is(tmp_path: Path, small_batches: None) -> None:
    run = evaluations.make_run(tmp_path)
    begun = evaluations.begin(run, "step-2", examples=12)
    config = run.config()
    events = EventStore(run.database, begins_attempt=False)
    drafts: list[dict[str, Any]] = []
    events.draft = (  # type: ignore[method-assign]
        lambda identifier, payload: drafts.append(dict(payload)) if payload else None
    )
    told: list[tuple[int, int, float | None]] = []
    evaluator = Evaluator(
        run, config, evaluations.host_policy(config), resolve(config.reward), events
    )
    host = Host(lambda: False, progress=lambda *figures: told.append(figures))
    assert evaluator.answer(Command("q", request.VERB, request.payload(begun.folder)), host)[0]
    events.close()
    first, last = drafts[0], drafts[-1]
    assert (first["done"], first["total"], first["eta_seconds"]) == (0, 24, None)
    assert (first["checkpoint"], first["number"], first["of"]) == ("base", 0, 2)
    assert (last["done"], last["number"], last["eta_seconds"]) == (24, 1, 0.0)
    assert [one["done"] for one in last["per_checkpoint"].values()] == [12, 12]
    assert last["baseline"]["name"] in ("always_up", "always_down", "momentum")
    assert [done for done, _, _ in told] == sorted(done for done, _, _ in told)
    assert told[-1] == (24, 24, 0.0)


def test_a_copy_of_a_checkpoint_that_changed_since_is_refused(tmp_path: Path) -> None:
    run = evaluations.make_run(tmp_path)
    begun = evaluations.begin(run, "step-2", examples=4)
    copy = identity.kept(begun.context.checkpoints[1], begun.folder) / checkpoint_names.ADAPTER
    copy.write_bytes(copy.read_bytes()[:-4] + b"\0\0\0\1")
    ok, message = evaluations.evaluate(run, begun.folder)
    assert not ok
    assert "the copy of checkpoint step-000002 is not what it was" in message
    assert _events(run)[-1]["state"] == "failed"


def test_a_checkpoint_that_training_removed_since_is_evaluated_all_the_same(
    tmp_path: Path,
) -> None:
    run = evaluations.make_run(tmp_path)
    begun = evaluations.begin(run, "step-2", examples=4)
    shutil.rmtree(run.checkpoints / "step-000002")
    again = evaluations.begin(run, "step-2", examples=4)
    assert (again.folder, again.is_new) == (begun.folder, False)
    assert evaluations.evaluate(run, again.folder)[0]
    assert evaluations.count(again.folder) == 8
    with pytest.raises(UserError, match="has no checkpoint step-000002"):
        evaluations.begin(run, "step-2", examples=5)


def test_a_checkpoint_of_another_base_is_refused_with_both_names(tmp_path: Path) -> None:
    run = evaluations.make_run(tmp_path)
    begun = evaluations.begin(run, "step-2", examples=4)
    events = EventStore(run.database, begins_attempt=False)
    config = run.config()
    policy = evaluations.policy_of_another_size(config)
    evaluator = Evaluator(run, config, policy, resolve(config.reward), events)
    command = Command("q", request.VERB, request.payload(begun.folder))
    ok, message = evaluator.answer(command, Host(lambda: False))
    events.close()
    assert not ok
    assert "checkpoint step-000002 was trained on" in message
    assert f"and {config.model.id[:40]}" in message
    assert evaluations.count(begun.folder) == 0


def test_two_processes_are_not_at_one_evaluation(tmp_path: Path) -> None:
    run = evaluations.make_run(tmp_path)
    begun = evaluations.begin(run, "base", examples=4)
    with store.hold(begun.folder):
        ok, message = evaluations.evaluate(run, begun.folder)
    assert not ok
    assert "another process is evaluating here" in message


@pytest.mark.parametrize(
    ("payload", "message"),
    [
        ({}, "takes the absolute path"),
        ({"folder": "relative"}, "takes the absolute path"),
        ({"folder": "/nowhere/at/all"}, "no such folder"),
        ({"folder": "/tmp", "more": 1}, "takes the absolute path"),
    ],
)
def test_a_payload_that_names_no_evaluation_is_refused(
    payload: dict[str, Any], message: str
) -> None:
    with pytest.raises(UserError, match=message):
        request.read(payload)


def test_a_folder_without_an_evaluation_is_told_so(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="holds no evaluation"):
        contexts.read(tmp_path)
    (tmp_path / contexts.FILE).write_text('{"id": "x"}')
    with pytest.raises(UserError, match=r"evaluation.json:run: this is not the context"):
        contexts.read(tmp_path)
    with pytest.raises(UserError, match="holds no evaluation"):
        PredictionStore(tmp_path)


# ---------------------------------------------------------------------------
# Between two steps of training


class EvaluatedSession(Session):
    """A run in training that is evaluated whenever the loop looks."""

    evaluated = 0

    def __init__(self, config: RunConfig, folder: Path) -> None:
        super().__init__(config)
        self.folder = folder
        self.evaluator = Evaluator(
            self.run, config, self.policy, resolve(config.reward), self.store
        )
        self.control.allow_evaluations(self.evaluator.answer)
        obey = self.control.obey

        def evaluate_and_obey(state: str, *, pause_because: str | None = None) -> None:
            self._ask()
            obey(state, pause_because=pause_because)

        self.control.obey = evaluate_and_obey  # type: ignore[method-assign]

    def _ask(self) -> None:
        self.evaluated += 1
        out = self.folder / str(self.evaluated)
        folder = evaluations.begin(
            self.run, "last", samples=1 + self.evaluated % 2, examples=5, out=out
        ).folder
        payload = request.payload(folder)
        self.commands.put(Command(f"evaluate-{self.evaluated}", request.VERB, payload))


def test_training_with_evaluations_between_its_steps_is_bit_for_bit_training_without(
    tmp_path: Path,
) -> None:
    config = evaluations.make_config(
        tmp_path,
        optimizer={"learning_rate": 0.01},
        rollout={"group_size": 4},
        objective={"kl_coefficient": 0.01},
        schedule={"max_steps": 4, "save_every": 1, "eval_every": 2, "eval_samples": 4},
    )
    torch.manual_seed(5)
    alone = Session(config)
    alone.train()
    after_alone = torch.get_rng_state()

    torch.manual_seed(5)
    evaluated = EvaluatedSession(config, tmp_path)
    evaluated.train()
    assert evaluated.evaluated == 4
    states = [payload["state"] for payload in _events(evaluated.run)]
    assert states == ["begun", "done"] * 4
    assert evaluated.trajectory() == alone.trajectory()
    assert torch.equal(torch.get_rng_state(), after_alone)


class FakeEvaluator:
    """Waits for somebody to interrupt it; notes what it was told meanwhile."""

    def __init__(self, commands: "queue.Queue[Command]", then: str) -> None:
        self.commands = commands
        self.then = then
        self.interruptions: list[bool] = []

    def answer(self, command: Command, host: Host) -> tuple[bool, str]:
        self.interruptions.append(host.is_interrupted())
        host.progress(3, 10, 12.0)
        self.commands.put(Command("then", self.then))
        self.interruptions.append(host.is_interrupted())
        return False, "interrupted"


@pytest.mark.parametrize(
    ("verb", "ends"), [("pause", True), ("stop", True), ("interrupt", True), ("probe", False)]
)
def test_who_wants_the_worker_ends_an_evaluation_and_is_obeyed_after_it(
    tmp_path: Path, verb: str, ends: bool
) -> None:
    events = EventStore(tmp_path / "events.db")
    commands = evaluations.commands(Command("one", request.VERB))
    taken = Control(commands, events)
    fake = FakeEvaluator(commands, verb)
    taken.allow_evaluations(fake.answer)
    if verb == "pause":
        resumed = taken._act

        def act(command: Command, paused: bool, state: str) -> bool:
            now = resumed(command, paused, state)
            if command.verb == "pause":
                commands.put(Command("resumed", "resume"))
            return now

        taken._act = act  # type: ignore[method-assign]
    if verb == "stop":
        with pytest.raises(loop.StopRequestedError):
            taken.obey("training")
    else:
        taken.obey("training")
    assert fake.interruptions == [False, ends]
    events.close()
    reader = StoreReader(tmp_path / "events.db")
    found = reader.events(0, 100)
    reader.close()
    states = [event.payload["state"] for event in found if event.kind == "state"]
    assert states[:2] == ["evaluating", "training"]
    (progress,) = [event.payload for event in found if event.kind == "progress"]
    assert progress == {
        "task": "evaluating, and training waits",
        "done": 3,
        "total": 10,
        "eta_seconds": 12.0,
    }
    answers = {e.payload["verb"]: e.payload["ok"] for e in found if e.kind == "command"}
    assert answers[verb] == (verb != "probe")


def test_a_pause_keeps_its_reason_over_an_evaluation(tmp_path: Path) -> None:
    events = EventStore(tmp_path / "events.db")
    commands = evaluations.commands(Command("one", request.VERB))
    taken = Control(commands, events)
    taken.allow_evaluations(FakeEvaluator(commands, "resume").answer)
    taken.obey("training", pause_because="the disk is full; free some space")
    events.close()
    reader = StoreReader(tmp_path / "events.db")
    found = [event.payload for event in reader.events(0, 100) if event.kind == "state"]
    reader.close()
    assert [(one["state"], one["detail"]) for one in found if one["state"] == "paused"] == [
        ("paused", "the disk is full; free some space"),
        ("paused", "the disk is full; free some space"),
    ]


def test_an_interruption_of_nothing_says_so(tmp_path: Path) -> None:
    events = EventStore(tmp_path / "events.db")
    taken = Control(evaluations.commands(Command("one", request.INTERRUPT)), events)
    taken.obey("training")
    events.close()
    reader = StoreReader(tmp_path / "events.db")
    (answer,) = [event.payload for event in reader.events(0, 10)]
    reader.close()
    assert (answer["ok"], answer["message"]) == (False, "nothing is being evaluated")


def test_a_command_is_taken_out_of_turn() -> None:
    waiting = evaluations.commands(Command("a", "pause"), Command("b", "probe"))
    assert control.is_waiting(waiting, "stop", "probe")
    taken = control.take(waiting, "probe")
    assert taken is not None
    assert taken.id == "b"
    assert not control.is_waiting(waiting, "probe")
    assert control.take(waiting, "probe") is None

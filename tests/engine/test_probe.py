"""Probes: what they answer, and that training never notices them."""

import math
import queue
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from engine.config import LoraSection, RunConfig, with_overrides
from engine.errors import UserError
from engine.policy import attention
from engine.policy.adapters import (
    POLICY,
    adapter_weights,
    add_adapters,
    base_policy,
    read_adapter,
    trainable_parameters,
)
from engine.policy.overlay import acting_as
from engine.policy.policy import Policy
from engine.probe.prober import Prober
from engine.probe.request import ProbeRequest, WireExample
from engine.probe.tally import tally
from engine.runs import directory
from engine.runs.control import Command
from engine.runs.directory import RunDirectory
from engine.runs.reader import Event, StoreReader
from engine.runs.status import read_history
from engine.runs.store import EventStore
from engine.task import Item, Json
from engine.training import checkpoints, loop
from engine.training.control import Control
from engine.training.training import Training, make_optimizer
from tests.tiny import VowelTask, policy_on, save_whole_policy, tiny_base, tiny_config, tiny_policy

IDS = torch.tensor([[256, 1, 2, 3, 40, 41]])

WIRE: dict[str, Any] = {
    "source": "demo",
    "ticker": "AAPL",
    "company": "Apple",
    "as_of": "2012-09-14",
    "window": [
        {"date": f"2012-09-{day}", "open": None, "high": None, "low": None, "close": 690.0 + day,
         "volume": None}
        for day in (13, 14)
    ],
    "indicators": {},
    "statistics": {"min": 703.0, "min_timestep": 0, "max": 704.0, "max_timestep": 1,
                   "mean": 703.5, "median": 703.5, "median_timestep": 0, "trend": 1.0,
                   "lags": None},
    "sigma20": 1.2,
    "horizon": 1,
    "outcome": {"percent": 1.2, "day": "2012-09-17"},
    "headlines": [],
    "financials": None,
    "market_up_share": None,
}  # fmt: skip


class VowelQuestion:
    """Asks the tiny model what its task asks."""

    item = Item("asked", ({"role": "user", "content": "Write vowels, please (77)."},), {})
    about: Mapping[str, Json] = {"ticker": "AAPL"}

    def __init__(self, request: ProbeRequest) -> None:
        pass

    def read(self, completion: str) -> dict[str, Json]:
        return {"direction": "UP" if "a" in completion else None, "confidence": None}

    def sum_up(self, samples: Sequence[Mapping[str, Json]]) -> dict[str, Json]:
        return tally(samples)


def _payload(*checkpoints: str, **values: Any) -> dict[str, Any]:
    return {"checkpoints": list(checkpoints), "example": WIRE, "samples": 3} | values


def _logits(model: Any) -> torch.Tensor:
    with torch.no_grad():
        logits: torch.Tensor = model.get_base_model()(input_ids=IDS).logits
    return logits


# ---------------------------------------------------------------------------
# An adapter acts for a while


def _saved(policy: Policy, folder: Path) -> Path:
    folder.mkdir()
    save_whole_policy(policy.model, folder)
    return folder


def test_an_adapter_that_acts_for_a_while_acts_as_itself_to_the_last_bit(tmp_path: Path) -> None:
    other = tiny_policy()
    for parameter in trainable_parameters(other.model).values():
        parameter.data.mul_(1.5)
    folder = _saved(other, tmp_path / "other")
    host = tiny_policy()
    with acting_as(host.model, read_adapter(folder)):
        overlaid = _logits(host.model)
    assert torch.equal(overlaid, _logits(other.model))
    assert not torch.equal(overlaid, _logits(host.model))


def test_nobody_acts_for_the_base_model(tmp_path: Path) -> None:
    host = tiny_policy()
    with acting_as(host.model, None):
        overlaid = _logits(host.model)
    assert torch.equal(overlaid, _logits_of_base(host))


def _logits_of_base(policy: Policy) -> torch.Tensor:
    with base_policy(policy.model):
        return _logits(policy.model)


def test_an_adapter_of_another_rank_and_of_layers_that_the_host_leaves_alone_acts(
    tmp_path: Path,
) -> None:
    base = tiny_base()
    base.set_attn_implementation(attention.NAME)
    wide = policy_on(base, LoraSection(r=2, alpha=3, dropout=0.0, targets="all-linear"))
    folder = _saved(wide, tmp_path / "wide")
    host = tiny_policy()
    with base_policy(host.model), acting_as(host.model, read_adapter(folder)):
        overlaid = _logits(host.model)
    assert torch.allclose(overlaid, _logits(wide.model), atol=1e-6)
    assert "forward" not in vars(host.causal_model.model.layers[0].mlp.up_proj)


def test_a_stage_two_checkpoint_is_the_whole_stack(tmp_path: Path) -> None:
    stage1 = read_adapter(_saved(tiny_policy(), tmp_path / "stage1"))
    base = tiny_base()
    base.set_attn_implementation(attention.NAME)
    stack = add_adapters(base, LoraSection(r=2, alpha=7, dropout=0.0), 3, stage1)
    for name, parameter in stack.named_parameters():
        if "lora_B.default" in name:
            parameter.data.normal_(0, 0.1, generator=torch.Generator().manual_seed(1))
    (tmp_path / "stack").mkdir()
    save_whole_policy(stack, tmp_path / "stack")
    host = tiny_policy(seed=0)
    with acting_as(host.model, read_adapter(tmp_path / "stack")):
        overlaid = _logits(host.model)
    assert torch.allclose(overlaid, _logits(stack), atol=1e-5)


def test_what_acted_leaves_no_trace(tmp_path: Path) -> None:
    folder = _saved(tiny_policy(), tmp_path / "adapter")
    host = tiny_policy(dropout=0.1)
    host.model.train()
    host.model.get_base_model().lm_head.eval()
    modes = [module.training for module in host.model.modules()]
    before = {
        name: (id(p), p.requires_grad, p.clone()) for name, p in host.model.named_parameters()
    }
    random = torch.get_rng_state()
    forwards = [vars(module).get("forward") for module in host.model.modules()]

    def act_and_fail() -> None:
        with acting_as(host.model, read_adapter(folder)):
            assert not host.model.training
            torch.rand(3)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        act_and_fail()
    assert [module.training for module in host.model.modules()] == modes
    assert [vars(module).get("forward") for module in host.model.modules()] == forwards
    assert torch.equal(torch.get_rng_state(), random)
    for name, parameter in host.model.named_parameters():
        identity, grad, value = before[name]
        assert (id(parameter), parameter.requires_grad) == (identity, grad)
        assert torch.equal(parameter, value)


def test_an_adapter_of_another_model_is_refused_and_nothing_is_touched(tmp_path: Path) -> None:
    larger = policy_on(tiny_base(hidden_size=64), LoraSection(r=4, alpha=8, dropout=0.0))
    folder = _saved(larger, tmp_path / "larger")
    host = tiny_policy()
    forwards = [vars(module).get("forward") for module in host.model.modules()]
    refused = pytest.raises(UserError, match=r"does not fit this base model at .*k_proj")
    with refused, acting_as(host.model, read_adapter(folder)):
        pass
    assert [vars(module).get("forward") for module in host.model.modules()] == forwards


# ---------------------------------------------------------------------------
# Between two steps of training


@pytest.fixture
def config(tmp_path: Path) -> RunConfig:
    return tiny_config(
        tmp_path,
        rollout={"prompts_per_step": 2, "group_size": 4, "max_new_tokens": 8, "context": 512},
        optimizer={"learning_rate": 0.01},
        objective={"kl_coefficient": 0.01},
        schedule={"max_steps": 3, "save_every": 2, "eval_every": 100, "eval_samples": 4},
    )


@pytest.fixture
def eventful(config: RunConfig) -> RunConfig:
    """The same with many checkpoints, and validations in several batches."""
    return with_overrides(
        config,
        [
            "schedule.max_steps=5",
            "schedule.save_every=1",
            "schedule.eval_every=2",
            "schedule.eval_samples=20",
        ],
    )


class Session:
    """A run in training whose worker answers probes."""

    def __init__(
        self, config: RunConfig, ask: Callable[[ProbeRequest], Any] = VowelQuestion
    ) -> None:
        self.run = directory.create(config)
        self.store = EventStore(self.run.database)
        self.policy = tiny_policy(dropout=0.1)
        self.policy.rollout = config.rollout
        self.commands: queue.Queue[Command] = queue.Queue()
        self.control = Control(self.commands, self.store)
        self.prober = Prober(self.run, config, self.policy, ask, self.store)
        self.control.allow_probes(self.prober.answer)
        self.training = Training(
            run=self.run,
            config=config,
            task=VowelTask(),
            policy=self.policy,
            optimizer=make_optimizer(self.policy, config),
            generator=torch.Generator().manual_seed(config.seed),
            store=self.store,
        )

    def asks(self, *payloads: Mapping[str, Any]) -> None:
        for payload in payloads:
            self.commands.put(Command(f"probe-{self.commands.qsize()}", "probe", payload))

    def train(self) -> None:
        loop.train(self.training, self.control)
        self.store.close()

    def trajectory(self) -> list[Any]:
        """Everything that training left, to the last bit."""
        optimizer = self.training.optimizer.state_dict()["state"]
        left: list[Any] = [
            {
                name: tensor.tolist()
                for name, tensor in adapter_weights(self.policy.model, POLICY).items()
            },
            [[value.tolist() for value in state.values()] for state in optimizer.values()],
            self.training.generator.get_state().tolist(),
            self.training.task.state(),
        ]
        reader = StoreReader(self.run.database)
        left += [
            (event.kind, event.step, _reproducible(event))
            for event in reader.events(0, 10_000)
            if event.kind in ("step", "validation", "alarm")
        ]
        left += [
            (r.step, r.group, r.sample, r.completion, r.reward, r.advantage)
            for r in reader.newest_rollouts(1000)
        ]
        reader.close()
        return left


def _reproducible(event: Event) -> dict[str, Any]:
    """The payload without what the clock and the machine decide."""
    machine = (
        "memory_gib",
        "gpu_memory_gib",
        "gpu/utilisation",
        "tokens_per_second",
        "tokens_per_second/rollout",
    )
    kept = {k: v for k, v in event.payload.items() if k not in ("seconds", "eta_seconds")}
    kept["metrics"] = {k: v for k, v in kept.get("metrics", {}).items() if k not in machine}
    return kept


class AsksAllTheTime(Session):
    """Has a question waiting whenever the loop looks, inside validations too."""

    asked = 0

    def __init__(self, config: RunConfig, other: RunDirectory) -> None:
        super().__init__(config)
        self.other = other
        obey, obey_probes = self.control.obey, self.control.obey_probes

        def ask_and_obey(running_state: str, *, pause_because: str | None = None) -> None:
            self._ask()
            obey(running_state, pause_because=pause_because)

        def ask_and_obey_probes() -> None:
            self._ask()
            obey_probes()

        self.control.obey = ask_and_obey  # type: ignore[method-assign]
        self.control.obey_probes = ask_and_obey_probes  # type: ignore[method-assign]

    def _ask(self) -> None:
        names = ["base", f"{self.other.id}:last"]
        if checkpoints.names(self.run):
            names += ["last", "best"]
        self.asked += 1
        self.asks(_payload(*names, samples=5, temperature=0.7, seed=self.asked))


def test_training_with_probes_between_its_steps_is_bit_for_bit_training_without(
    eventful: RunConfig,
) -> None:
    torch.manual_seed(5)
    alone = Session(eventful)
    alone.train()
    after_alone = torch.get_rng_state()

    torch.manual_seed(5)
    probed = AsksAllTheTime(eventful, alone.run)
    probed.train()
    # Five times between steps, and between the batches of each of the four validations.
    assert probed.asked > 5 + 4
    answers = read_history(probed.run).probes
    assert len(answers) == probed.asked
    assert {len(answer["answers"]) for answer in answers} == {2, 4}
    assert {
        sample["finished"] for a in answers for one in a["answers"] for sample in one["samples"]
    }

    assert probed.trajectory() == alone.trajectory()
    assert torch.equal(torch.get_rng_state(), after_alone)
    for name in checkpoints.names(alone.run):
        for file in ("adapter_model.safetensors", "train/optimizer.safetensors"):
            one, other = (run.checkpoints / name / file for run in (alone.run, probed.run))
            assert one.read_bytes() == other.read_bytes()


def test_a_probe_answers_as_the_checkpoint_itself_would(config: RunConfig) -> None:
    session = Session(config)
    session.train()
    store = EventStore(session.run.database)
    prober = Prober(session.run, config, tiny_policy(seed=0), VowelQuestion, store)
    prober._policy.rollout = config.rollout
    ok, message = prober.answer(Command("q", "probe", _payload("last", samples=4, seed=9)), bool)
    store.close()
    assert (ok, message) == (True, "AAPL 2012-09-14: 4 samples of one checkpoint")
    (asked,) = read_history(session.run).probes
    (answer,) = asked["answers"]
    assert (answer["checkpoint"], answer["run"]) == ("step-000003", session.run.id)

    # The trained policy itself, sampled the ordinary way.
    prompt = session.policy.encode_prompt(session.policy.prompt_text(VowelQuestion.item))
    (group,) = session.policy.sample([prompt], 4, torch.Generator().manual_seed(9))
    texts = [session.policy.decode(completion) for completion in group]
    assert [sample["completion"] for sample in answer["samples"]] == texts


def test_a_question_that_cannot_be_answered_says_why_and_training_goes_on(
    config: RunConfig,
) -> None:
    session = Session(config)
    session.asks(
        _payload("step-77"),
        _payload("nowhere:last"),
        _payload("base", samples=65),
        {"checkpoints": ["base"]},
    )
    session.train()
    history = read_history(session.run)
    assert history.step == 3
    assert history.probes == []
    said = [line.text for line in history.log if line.text.startswith("probe: ")]
    assert len(said) == 4
    assert "has no checkpoint step-000077" in said[0]
    assert "no run called 'nowhere'" in said[1]
    assert "less than or equal to 64" in said[2]
    assert "probe example" in said[3]


def test_a_damaged_checkpoint_is_refused_by_name(config: RunConfig) -> None:
    session = Session(config)
    session.train()
    file = session.run.checkpoints / "step-000002" / "adapter_model.safetensors"
    file.write_bytes(file.read_bytes()[:-8] + b"\x00" * 8)
    store = EventStore(session.run.database)
    prober = Prober(session.run, config, session.policy, VowelQuestion, store)
    ok, message = prober.answer(Command("q", "probe", _payload("step-2")), bool)
    store.close()
    assert not ok
    assert f"checkpoint step-000002 of run {session.run.id} is damaged" in message


def test_another_base_model_is_refused(config: RunConfig, tmp_path: Path) -> None:
    session = Session(config)
    other = directory.create(
        config.model_copy(update={"model": config.model.model_copy(update={"id": "elsewhere"})})
    )
    ok, message = session.prober.answer(Command("q", "probe", _payload(f"{other.id}:base")), bool)
    session.store.close()
    assert not ok
    assert f"run {other.id} trains elsewhere" in message


def test_an_error_of_any_kind_ends_no_run(config: RunConfig) -> None:
    def fails(request: ProbeRequest) -> Any:
        raise ZeroDivisionError("by nought")

    session = Session(config, fails)
    session.asks(_payload("base"))
    session.train()
    history = read_history(session.run)
    assert history.step == 3
    assert "probe: ZeroDivisionError: by nought" in [line.text for line in history.log]


def test_a_probe_gives_way_when_the_run_is_to_end(config: RunConfig) -> None:
    session = Session(config)
    session.asks(_payload("base"))
    session.commands.put(Command("end", "stop"))
    session.train()
    history = read_history(session.run)
    assert "probe: the run was told to end first" in [line.text for line in history.log]
    assert history.probes == []


def test_a_paused_run_answers(config: RunConfig) -> None:
    session = Session(config)
    session.commands.put(Command("a", "pause"))
    session.asks(_payload("base"))
    session.commands.put(Command("b", "resume"))
    session.train()
    kinds = [
        (event.kind, event.payload.get("verb") or event.payload.get("state"))
        for event in _events(session.run)
        if event.kind in ("probe", "command", "state")
    ]
    at = kinds.index(("state", "paused"))
    assert kinds[at : at + 6] == [
        ("state", "paused"),
        ("command", "pause"),
        ("probe", None),
        ("command", "probe"),
        ("state", "training"),
        ("command", "resume"),
    ]


def _events(run: RunDirectory) -> list[Event]:
    reader = StoreReader(run.database)
    events = reader.events(0, 10_000)
    reader.close()
    return events


def test_memory_that_does_not_suffice_lowers_the_limit_of_the_probe_alone(
    config: RunConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    from engine.probe import prober as module

    session = Session(config)
    real, tried = module.sample_groups, []

    def scarce(*args: Any, max_rows: int, **kwargs: Any) -> Any:
        tried.append(max_rows)
        if max_rows > 2:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return real(*args, max_rows=max_rows, **kwargs)

    monkeypatch.setattr(module, "sample_groups", scarce)
    ok, _ = session.prober.answer(Command("q", "probe", _payload("base", samples=20)), bool)
    session.store.close()
    assert ok
    assert tried == [8, 4, 2]
    assert session.policy.decode_rows is None


def test_drafts_tell_how_far_an_answer_is_and_go_with_it(config: RunConfig) -> None:
    session = Session(config)
    drafts: list[Mapping[str, Any]] = []
    real = session.store.draft

    def note(identifier: str, payload: Mapping[str, Json] | None) -> None:
        real(identifier, payload)
        session.store.flush()
        reader = StoreReader(session.run.database)
        stored = reader.draft(identifier)
        reader.close()
        assert (stored is None) == (payload is None)
        if stored is not None:
            drafts.append(stored)

    session.store.draft = note  # type: ignore[method-assign]
    ticks = iter(range(10_000))
    prober = Prober(
        session.run, config, session.policy, VowelQuestion, session.store, clock=lambda: next(ticks)
    )
    ok, _ = prober.answer(Command("q", "probe", _payload("base", "base", samples=6)), bool)
    assert ok
    assert drafts[0]["done"] == 0
    assert max(len(draft["texts"]) for draft in drafts) == 4
    last = drafts[-1]
    assert (last["checkpoint"], last["number"], last["of"], last["total"]) == ("base", 1, 2, 6)
    assert sum(last["answered"][0]["calls"].values()) == 6
    reader = StoreReader(session.run.database)
    assert reader.draft("q") is None
    reader.close()
    session.store.close()


def test_probes_are_kept_when_a_resume_goes_back_behind_them(config: RunConfig) -> None:
    session = Session(config)
    session.asks(_payload("base"))
    session.train()
    store = EventStore(session.run.database)
    store.supersede_after(0)
    store.event("resumed", {"from_step": 0}, step=0)
    store.close()
    history = read_history(session.run)
    assert history.step == 0
    assert len(history.probes) == 1


# ---------------------------------------------------------------------------
# What samples say together


def test_vote_and_probability_are_those_of_the_samples_that_say_a_side() -> None:
    said = [{"direction": side, "confidence": sure} for side, sure in
            [("UP", 0.8), ("UP", None), ("UP", 0.6), ("DOWN", 0.7), (None, None)]]  # fmt: skip
    summed = tally(said)
    assert summed["calls"] == {"up": 3, "down": 1, "unread": 1}
    assert summed["vote"] == "UP"
    # Wilson with z = 1.95996: centre (3/4 + z²/8) / (1 + z²/4), by hand.
    p_up = summed["p_up"]
    assert p_up["value"] == 0.75
    assert math.isclose(p_up["low"], 0.30064, abs_tol=1e-4)
    assert math.isclose(p_up["high"], 0.95441, abs_tol=1e-4)
    assert p_up["n"] == 4
    assert summed["confidence"] == {"mean": pytest.approx(0.7), "n": 3}


def test_no_side_is_no_vote_and_no_probability() -> None:
    assert tally([{"direction": None, "confidence": None}] * 3) == {
        "calls": {"up": 0, "down": 0, "unread": 3},
        "vote": None,
        "p_up": None,
        "confidence": None,
    }
    assert tally([{"direction": "UP"}, {"direction": "DOWN"}])["vote"] is None


def test_the_example_of_the_tests_is_a_valid_one() -> None:
    wire = WireExample.model_validate(WIRE)
    assert WireExample.of(wire.example(), source="demo") == wire

"""The worker as a real process: detached, commanded, killed, resumed."""

import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import peft
import psutil
import pytest
import torch
from transformers import AutoModelForCausalLM

from engine import worker
from engine.config import RunConfig, preset, with_overrides
from engine.direction_call import DirectionCall
from engine.errors import UserError
from engine.policy.adapters import add_adapters, load_adapter
from engine.policy.base_model import end_token_ids, load_base_model
from engine.policy.packing import TokenGroup
from engine.policy.policy import Policy
from engine.runs import control, directory, launcher
from engine.runs.directory import RunDirectory
from engine.runs.reader import StoreReader
from engine.runs.status import read_history, status
from engine.training.watch import Watch, WatchSettings
from tests.tiny import save_tiny_model, tiny_config
from tests.waiting import wait_for


@pytest.fixture
def config(tmp_path: Path) -> RunConfig:
    return tiny_config(save_tiny_model(tmp_path / "model"))


@pytest.fixture(autouse=True)
def no_worker_left(isolated_environment: None) -> Iterator[None]:
    yield
    for run in directory.list_runs():
        if process := run.worker():
            process.kill()
            process.wait()


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (torch.OutOfMemoryError("CUDA out of memory"), "; free memory and resume the run, or"),
        (MemoryError(), "out of memory (MemoryError); free memory"),
        (ValueError("a\nb"), "ValueError: a b"),
    ],
)
def test_what_stops_a_worker_is_one_line_and_memory_has_advice(
    error: Exception, expected: str
) -> None:
    said = worker._in_words(error)
    assert expected in said
    assert "\n" not in said


def _endless(config: RunConfig) -> RunConfig:
    return with_overrides(config, ["schedule.max_steps=100000", "schedule.eval_every=100000"])


def _reaches(run: RunDirectory, state: str, step: int = 0) -> dict[str, Any]:
    def there() -> dict[str, Any] | None:
        now = status(run)
        assert state == now["state"] or now["state"] not in ("failed", "stale"), now["detail"]
        return now if now["state"] == state and now["step"] >= step else None

    return wait_for(there)


def _steps(run: RunDirectory) -> list[int]:
    reader = StoreReader(run.database)
    steps = [event.step for event in reader.events(0, 100_000) if event.kind == "step"]
    reader.close()
    return steps


def test_a_run_goes_from_start_to_finish(config: RunConfig) -> None:
    run = launcher.launch(config)
    final = _reaches(run, "finished")
    assert final["step"] == final["max_steps"] == 4
    assert final["attempt"] == 1
    # Random bytes hold no readable call, so there is no share of calls to look for.
    assert {"reward/total", "market/up_share", "validation/accuracy", "kl"} <= {*final["metrics"]}
    assert [milestone["name"] for milestone in final["milestones"]] == [
        "reward",
        "accuracy",
        "reasoning",
        "settled",
    ]
    assert final["best"] in {checkpoint["name"] for checkpoint in final["checkpoints"]}
    wait_for(lambda: run.worker() is None)
    assert not run.socket.exists()


def test_a_replay_of_the_store_gives_the_indicators_that_were_live(config: RunConfig) -> None:
    run = launcher.launch(config)
    final = _reaches(run, "finished")
    reader = StoreReader(run.database)
    events = reader.events(0, 100_000)
    reader.close()
    task = DirectionCall.from_config(run.config())
    settings = WatchSettings.of(
        run.config(),
        num_training_items=task.num_training_items,
        weights=task.weights,
        synthetic=task.is_synthetic,
    )
    replayed = Watch.replay(settings, events).picture()
    assert replayed["milestones"] == final["milestones"]
    assert replayed["power"] == final["power"]
    assert replayed["suggestion"] == final["best"]


def test_the_worker_tells_a_command_of_the_users_own_how_it_ended(
    config: RunConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = tmp_path / "told.json"
    monkeypatch.setenv("STONK_NOTIFY_COMMAND", f"tee {told}")
    run = launcher.launch(config)
    _reaches(run, "finished")
    wait_for(lambda: run.worker() is None)
    message = json.loads(told.read_text(encoding="utf-8"))
    assert message["run"] == run.id
    assert message["event"] == "finished"


def test_the_worker_lives_in_a_session_of_its_own(config: RunConfig) -> None:
    run = launcher.launch(_endless(config))
    _reaches(run, "training", step=1)
    process = run.worker()
    assert process is not None
    assert os.getsid(process.pid) == process.pid != os.getsid(0)
    assert {file.path for file in process.open_files()} >= {str(run.log)}
    assert process.terminal() is None
    os.kill(process.pid, signal.SIGHUP)
    step = status(run)["step"]
    _reaches(run, "training", step=step + 2)


def test_commands_reach_the_worker_and_are_answered(config: RunConfig) -> None:
    run = launcher.launch(_endless(config))
    _reaches(run, "training", step=1)
    control.send(run, "pause")
    paused = _reaches(run, "paused")
    control.send(run, "checkpoint")
    name = f"step-{paused['step']:06d}"
    wait_for((run.checkpoints / name / "manifest.json").exists)
    control.send(run, "set", {"changes": {"learning_rate": 5e-5}})
    wait_for(lambda: status(run)["settings"][0]["value"] == 5e-5)
    control.send(run, "resume")
    _reaches(run, "training", step=paused["step"] + 1)
    control.send(run, "stop")
    final = _reaches(run, "stopped")
    goes_on = f"`stonk-tui train --resume {run.id}` goes on"
    assert final["detail"] == f"stopped by command; {goes_on}"
    assert final["checkpoints"][-1]["step"] == final["step"]
    log = [line.text for line in read_history(run).log]
    others = ("finished", "validated")
    assert [text for text in log if ":" in text and not text.startswith(others)] == [
        "pause: paused",
        f"checkpoint: saved {name}",
        f"set: in force from step {paused['step'] + 1} on",
        "resume: goes on",
        "stop: stopping after this step",
        "stopping: stopped by command",
    ]
    assert log[-1] == "stopped by command"


def test_a_killed_worker_leaves_a_stale_run_that_resumes_from_its_last_checkpoint(
    config: RunConfig,
) -> None:
    run = launcher.launch(with_overrides(_endless(config), ["schedule.save_every=3"]))
    _reaches(run, "training", step=5)
    process = run.worker()
    assert process is not None
    process.kill()
    wait_for(lambda: run.worker() is None)
    dead = status(run)
    assert dead["state"] == "stale"
    assert f"stonk-tui train --resume {run.id}" in dead["detail"]
    with pytest.raises(UserError, match="no worker answers"):
        control.send(run, "pause")
    saved = read_history(run).checkpoints[-1].step
    launcher.relaunch(run)
    wait_for(lambda: status(run)["attempt"] == 2 and status(run)["step"] > saved)
    control.send(run, "stop")
    final = _reaches(run, "stopped")
    assert _steps(run) == list(range(1, final["step"] + 1))


def test_sigterm_saves_a_checkpoint_and_ends_the_run(config: RunConfig) -> None:
    run = launcher.launch(_endless(config))
    _reaches(run, "training", step=2)
    process = run.worker()
    assert process is not None
    process.terminate()
    final = _reaches(run, "stopped")
    assert final["checkpoints"][-1]["step"] == final["step"]
    launcher_code = psutil.wait_procs([process], timeout=20)
    assert not launcher_code[1]


def test_a_stopped_run_can_be_resumed_and_reaches_its_last_step(config: RunConfig) -> None:
    run = launcher.launch(config)
    wait_for(run.socket.exists)
    control.send(run, "stop")
    _reaches(run, "stopped")
    wait_for(lambda: run.worker() is None)
    launcher.relaunch(run)
    wait_for(lambda: status(run)["attempt"] == 2)
    assert _reaches(run, "finished", step=4)["step"] == 4
    assert _steps(run) == [1, 2, 3, 4]


def test_a_second_run_on_the_same_device_is_refused_by_name(config: RunConfig) -> None:
    first = launcher.launch(_endless(config))
    _reaches(first, "training", step=1)
    with pytest.raises(UserError, match=f"cpu is busy with run {first.id}"):
        launcher.launch(config)
    assert directory.list_runs() == [first]
    with pytest.raises(UserError, match="has a living worker"):
        launcher.relaunch(first)


def test_an_unknown_source_fails_the_run_with_one_line(config: RunConfig) -> None:
    run = launcher.launch(with_overrides(config, ["data.source=nowhere"]))
    failed = wait_for(lambda: (s := status(run))["state"] == "failed" and s)
    assert "nowhere" in failed["detail"]
    assert "Traceback" not in run.log.read_text()


@pytest.mark.slow
def test_a_checkpoint_of_the_real_model_loads_with_plain_peft_and_gives_the_same_logprobs(
    smollm2: Path,
) -> None:
    config = with_overrides(
        preset("demo"),
        [
            "model.dtype=fp32",
            "warmup.steps=2",
            "schedule.max_steps=1",
            "schedule.eval_samples=1",
            "rollout.prompts_per_step=1",
            "rollout.group_size=2",
            "rollout.max_new_tokens=24",
        ],
    )
    run = launcher.launch(config)
    wait_for(lambda: status(run)["state"] == "finished", seconds=240)
    folder = run.checkpoints / "step-000001"
    ids = torch.tensor([[1, 4093, 198, 57, 5248, 2]])

    base = AutoModelForCausalLM.from_pretrained(smollm2, dtype=torch.float32)
    plain = peft.PeftModel.from_pretrained(base, folder).eval()
    with torch.no_grad():
        expected = torch.log_softmax(plain(input_ids=ids).logits[0, 2:-1], -1)
        expected = expected.gather(-1, ids[0, 3:, None]).squeeze(-1)

    base, tokenizer = load_base_model(smollm2, config.model, torch.device("cpu"))
    policy = Policy(
        add_adapters(base, config.lora, seed=99),
        tokenizer,
        end_token_ids(base, tokenizer),
        config.rollout,
        micro_batch_tokens=4096,
    )
    from safetensors.torch import load_file

    load_adapter(policy.model, load_file(folder / "adapter_model.safetensors"), "default")
    with torch.no_grad():
        ours, _ = policy.logprobs([TokenGroup(ids[0, :3].tolist(), [ids[0, 3:].tolist()])])
    assert torch.allclose(ours[0], expected, atol=1e-4)
    assert expected.isfinite().all()

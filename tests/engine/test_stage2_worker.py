"""Both stages by real workers: Stage I, its promotion, Stage II, killed and resumed."""

import json
from collections.abc import Iterator
from pathlib import Path

import peft
import pytest
import torch

from engine.config import with_overrides
from engine.policy.adapters import add_adapters, load_adapter, read_adapter
from engine.policy.base_model import load_base_model
from engine.runs import control, directory, launcher, promotion
from engine.runs.checkpoint_names import ADAPTER, sha256
from engine.runs.history import TERMINAL_STATES
from engine.runs.reader import StoreReader
from engine.runs.status import read_history, status
from tests.tiny import save_tiny_model, tiny_config
from tests.waiting import wait_for


@pytest.fixture(autouse=True)
def no_worker_left(isolated_environment: None) -> Iterator[None]:
    yield
    for run in directory.list_runs():
        if process := run.worker():
            process.kill()
            process.wait()


def ends(run: directory.RunDirectory) -> None:
    def there() -> bool:
        now = status(run)
        assert now["state"] != "failed", now["detail"]
        return now["state"] in TERMINAL_STATES and run.worker() is None

    wait_for(there, seconds=180)


@pytest.mark.slow
def test_a_promoted_run_trains_on_top_of_its_stage_1(tmp_path: Path) -> None:
    model = save_tiny_model(tmp_path / "model")
    parent = launcher.launch(tiny_config(model, schedule={"max_steps": 2, "eval_every": 2}))
    ends(parent)
    plan = promotion.plan(parent, "last")
    run = promotion.promote(plan, forced=True, reason="a test")
    assert status(run)["state"] == "prepared"
    promotion.start(run)
    ends(run)

    history = read_history(run)
    assert history.promotion is not None
    assert history.promotion["parent"] == parent.id
    assert history.promotion["sha256"] == sha256(run.stage1 / ADAPTER) == plan.sha256
    reader = StoreReader(run.database)
    assert reader.events(0, 1)[0].kind == "promotion"
    reader.close()
    assert history.series["kl"].steps[0] == 1
    assert history.series["kl"].values[0] == 0
    assert not any(name.startswith("warmup/") for name in history.series)
    config = run.config()
    assert config.data.sampling == "natural"
    statistics = json.loads((run.path / "market_stats.json").read_text())
    lines = (run.path / "stage2_training_log.jsonl").read_text().splitlines()
    per_step = config.rollout.prompts_per_step * config.rollout.group_size
    assert len(lines) == statistics["overall"]["completions"] == 2 * per_step

    # The root of the last checkpoint is the stack that train/ and stage1/ hold in two pieces.
    folder = run.checkpoints / "step-000002"
    ids = torch.tensor([[256, 1, 2, 3, 40, 41]])
    base, _ = load_base_model(model, config.model, torch.device("cpu"))
    plain = peft.PeftModel.from_pretrained(base, folder).eval()
    with torch.no_grad():
        theirs = torch.log_softmax(plain(input_ids=ids).logits, -1)
    base, _ = load_base_model(model, config.model, torch.device("cpu"))
    stack = add_adapters(base, config.lora, 0, read_adapter(run.stage1))
    from safetensors.torch import load_file

    load_adapter(stack, load_file(folder / "train/adapter.safetensors"), "default")
    with torch.no_grad():
        ours = torch.log_softmax(stack(input_ids=ids).logits, -1)
    assert torch.allclose(ours, theirs, atol=1e-5)


@pytest.mark.slow
def test_a_killed_stage_2_run_goes_on_and_is_promoted_once_in_its_own_story(
    tmp_path: Path,
) -> None:
    model = save_tiny_model(tmp_path / "model")
    parent = launcher.launch(tiny_config(model, schedule={"max_steps": 1}))
    ends(parent)
    run = promotion.promote(promotion.plan(parent, "last"), forced=True, reason="a test")
    run.write_config(
        with_overrides(run.config(), ["schedule.max_steps=100000", "schedule.eval_every=100000"])
    )
    promotion.start(run)
    wait_for(lambda: status(run)["step"] >= 3, seconds=120)
    process = run.worker()
    assert process is not None
    process.kill()
    process.wait()
    assert status(run)["state"] == "stale"
    saved = read_history(run).checkpoints[-1].step
    launcher.relaunch(run)
    wait_for(lambda: status(run)["attempt"] == 2 and status(run)["step"] > saved, seconds=120)
    control.send(run, "stop")
    ends(run)
    reader = StoreReader(run.database)
    kinds = [event.kind for event in reader.events(0, 100_000)]
    reader.close()
    assert kinds.count("promotion") == 1
    assert (run.path / "market_stats.json").exists()


def test_a_stage_1_that_does_not_fit_the_model_fails_with_one_line(tmp_path: Path) -> None:
    from tests.engine.test_promotion import write_adapter

    model = save_tiny_model(tmp_path / "model")
    folder = write_adapter(tmp_path / "theirs")
    plan = promotion.plan_adapter(folder, tiny_config(model))
    run = promotion.promote(plan, forced=True, reason="a test")
    promotion.start(run)
    failed = wait_for(lambda: (s := status(run))["state"] == "failed" and s, seconds=120)
    assert "does not fit this base model" in failed["detail"]
    assert "Traceback" not in run.log.read_text()

"""What a resumed run has to have again, and what is kept of its checkpoints."""

import errno
import json
import math
import os
import random
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from bench.fault_rows.tiny_training import TinyTraining, config
from engine.errors import RunFailedError
from engine.policy.adapters import trainable_parameters
from engine.runs import checkpoint_names, durable, live_settings, manifest
from engine.runs.control import Command
from engine.runs.reader import StoreReader
from engine.training import checkpoints, randomness, surroundings, validation

SCHEDULE = {"max_steps": 3, "save_every": 1, "eval_every": 100}


@pytest.fixture(autouse=True)
def algorithms_put_back() -> Iterator[None]:
    yield
    torch.use_deterministic_algorithms(False)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of three steps that was trained once: copy it."""
    folder = tmp_path_factory.mktemp("finished") / "run"
    TinyTraining(folder, config(schedule=SCHEDULE)).train()
    return folder


@pytest.fixture
def make(tmp_path: Path, finished: Path) -> Iterator[Callable[..., TinyTraining]]:
    """Makes workers on a copy of that run."""
    path = Path(shutil.copytree(finished, tmp_path / "run"))
    made: list[TinyTraining] = []

    def make(**sections: Any) -> TinyTraining:
        made.append(TinyTraining(path, config(**{"schedule": SCHEDULE, **sections})))
        return made[-1]

    yield make
    for tiny in made:
        tiny.close()


def resumed(make: Callable[..., TinyTraining], **sections: Any) -> TinyTraining:
    """A worker that goes on with the run."""
    tiny = make(**sections)
    name = checkpoints.newest(tiny.run)
    assert name is not None
    tiny.training.resume(name)
    return tiny


def notices(tiny: TinyTraining) -> list[str]:
    tiny.store.flush()
    reader = StoreReader(tiny.run.database)
    try:
        return [event.payload["text"] for event in reader.events_of("notice")]
    finally:
        reader.close()


def test_the_processes_own_generators_go_on_where_they_were() -> None:
    cpu = torch.device("cpu")
    randomness.prepare(config(seed=3))
    random.gauss(0, 1), np.random.normal(), torch.rand(3)
    state = json.loads(json.dumps(randomness.state(cpu)))
    drawn = [random.gauss(0, 1), random.random(), np.random.normal(), float(torch.randn(1))]
    randomness.prepare(config(seed=4))
    randomness.restore(state, cpu)
    again = [random.gauss(0, 1), random.random(), np.random.normal(), float(torch.randn(1))]
    assert drawn == again


def test_only_a_deterministic_run_asks_for_algorithms_that_repeat() -> None:
    randomness.prepare(config())
    assert not torch.are_deterministic_algorithms_enabled()
    randomness.prepare(config(deterministic=True))
    assert torch.are_deterministic_algorithms_enabled()
    assert os.environ["CUBLAS_WORKSPACE_CONFIG"]


def test_a_worker_that_dies_after_going_back_still_counts_it(
    make: Callable[..., TinyTraining],
) -> None:
    tiny = resumed(make)
    # As the loop does when it goes back to the checkpoint of step 3, twice; then the worker dies.
    for rate in (5e-3, 2.5e-3):
        tiny.training.resume("step-000003")
        tiny.training.change({live_settings.LEARNING_RATE: rate}, by="rollback")
    tiny.close()
    again = resumed(make)
    assert again.training.progress.rollbacks == 2
    assert again.training.config.optimizer.learning_rate == 2.5e-3


def test_a_best_checkpoint_that_is_gone_is_best_no_more_and_nothing_is_validated_for_it(
    make: Callable[..., TinyTraining], monkeypatch: pytest.MonkeyPatch
) -> None:
    tiny = resumed(make)
    tiny.training.progress.best_name, tiny.training.progress.step = "step-000001", 4
    tiny.training.save()
    tiny.close()
    shutil.rmtree(tiny.run.checkpoints / "step-000001")
    again = resumed(make, schedule=SCHEDULE | {"max_steps": 5})
    assert again.training.progress.best_name is again.training.progress.best_reward is None
    assert checkpoint_names.best(again.run) is None
    validated: list[int] = []
    validate = validation.validate

    def counting(*args: Any) -> dict[str, float]:
        validated.append(again.training.progress.step)
        return validate(*args)

    monkeypatch.setattr(validation, "validate", counting)
    again.train()
    # That of the last step: one more than an uninterrupted run makes would move its streaks.
    assert validated == [5]


@pytest.mark.parametrize(("deterministic", "budget"), [(True, 512), (False, 256)])
def test_a_deterministic_run_goes_on_with_the_token_budget_that_it_had(
    deterministic: bool, budget: int, make: Callable[..., TinyTraining]
) -> None:
    tiny = make(deterministic=deterministic)
    # As the dry run leaves it where there is less memory now.
    tiny.policy.micro_batch_tokens = 256
    tiny.training.resume("step-000003")
    assert tiny.policy.micro_batch_tokens == budget
    told = [text for text in notices(tiny) if text.startswith("token budget")]
    assert told == (["token budget 512, as it was before"] if deterministic else [])


def test_the_groups_of_the_optimiser_come_back_as_they_were(
    make: Callable[..., TinyTraining],
) -> None:
    tiny = resumed(make)
    (group,) = tiny.training.optimizer.state_dict()["param_groups"]
    # The third of five steps over which the rate rises.
    assert group["lr"] == pytest.approx(0.6e-2)
    fresh = make().training.optimizer.state_dict()["param_groups"][0]
    assert group == fresh | {"lr": group["lr"]}


def test_what_is_not_as_it_was_is_said_when_a_run_goes_on(
    make: Callable[..., TinyTraining],
) -> None:
    now = surroundings.of(config(), base_model="base", data="prices")
    tiny = resumed(make)
    tiny.training.surroundings = now | {"torch": "1.0", "threads": 64}
    tiny.training.progress.step = 4
    tiny.training.save()
    tiny.close()
    again = make()
    again.training.surroundings = now
    again.training.resume("step-000004")
    (told,) = [text for text in notices(again) if text.startswith("not as when")]
    assert told == (
        f"not as when this checkpoint was saved: torch 1.0 → {torch.__version__}, "
        f"threads 64 → {torch.get_num_threads()}"
    )


def test_weights_that_are_not_finite_are_never_saved(make: Callable[..., TinyTraining]) -> None:
    tiny = resumed(make)
    tiny.training.progress.step = 4
    next(iter(trainable_parameters(tiny.policy.model).values())).data[0, 0] = math.nan
    with pytest.raises(RunFailedError, match="weights or moments were not finite"):
        tiny.training.save()
    assert checkpoint_names.names(tiny.run)[-1] == "step-000003"


def test_a_moment_that_is_not_finite_is_never_saved(make: Callable[..., TinyTraining]) -> None:
    tiny = resumed(make)
    tiny.training.progress.step = 4
    next(iter(tiny.training.optimizer.state.values()))["exp_avg"][0, 0] = math.inf
    with pytest.raises(RunFailedError, match="weights or moments were not finite"):
        tiny.training.save()
    assert checkpoint_names.names(tiny.run)[-1] == "step-000003"


def _damage(folder: Path) -> None:
    (folder / "train/state.json").write_text("{}")


def test_a_name_that_was_changed_in_the_manifest_is_told_by_the_file_that_is_there(
    make: Callable[..., TinyTraining],
) -> None:
    folder = make().run.checkpoints / "step-000003"
    text = (folder / "manifest.json").read_text()
    (folder / "manifest.json").write_text(text.replace("reference", "referance"))
    assert manifest.damage(folder) == "train/reference.safetensors is not in manifest.json"


def test_rotation_keeps_as_many_valid_ones_as_it_is_told_and_sets_the_damaged_aside(
    make: Callable[..., TinyTraining],
) -> None:
    run = make().run
    _damage(run.checkpoints / "step-000002")
    told: list[str] = []
    gone = checkpoints.rotate(run, 2, None, told.append)
    assert gone == ["step-000000", "step-000002"]
    assert checkpoint_names.names(run) == ["step-000001", "step-000003"]
    assert [path.name[:20] for path in run.checkpoints.glob("damaged-*")] == [
        "damaged-step-000002-"
    ]
    assert told[0].startswith("checkpoint step-000002 is damaged (train/state.json has 2 bytes")
    assert not list(run.checkpoints.glob(".old-*"))


def test_a_damaged_best_is_found_when_the_next_checkpoint_is_saved(
    make: Callable[..., TinyTraining],
) -> None:
    tiny = resumed(make, schedule=SCHEDULE | {"keep_checkpoints": 2})
    progress = tiny.training.progress
    progress.best_name, progress.best_reward, progress.step = "step-000001", 0.5, 4
    _damage(tiny.run.checkpoints / "step-000001")
    tiny.training.save()
    assert progress.best_name is progress.best_reward is None
    assert checkpoint_names.best(tiny.run) is None
    assert any("step-000001 is damaged" in text for text in notices(tiny))


def test_leftovers_of_a_worker_that_died_go_when_the_next_one_starts_and_not_before(
    make: Callable[..., TinyTraining],
) -> None:
    tiny = resumed(make)
    leftovers = [tiny.run.checkpoints / name for name in (".tmp-step-000009-ab", ".old-x")]
    for leftover in leftovers:
        (leftover / "train").mkdir(parents=True)
    tiny.training.progress.step = 4
    tiny.training.save()
    assert all(leftover.is_dir() for leftover in leftovers)
    assert checkpoints.newest(tiny.run) == "step-000004"
    assert not any(leftover.exists() for leftover in leftovers)


def test_a_damaged_checkpoint_of_the_same_step_is_saved_anew(
    make: Callable[..., TinyTraining],
) -> None:
    tiny = resumed(make)
    _damage(tiny.run.checkpoints / "step-000003")
    assert tiny.training.save() == "step-000003"
    assert manifest.damage(tiny.run.checkpoints / "step-000003") is None
    assert len(list(tiny.run.checkpoints.glob("damaged-step-000003-*"))) == 1


def test_a_checkpoint_that_cannot_be_written_is_said_to_who_asked_and_training_goes_on(
    make: Callable[..., TinyTraining], monkeypatch: pytest.MonkeyPatch
) -> None:
    tiny = resumed(make, schedule={"max_steps": 5, "save_every": 100, "eval_every": 100})
    write = checkpoints.write_new

    def failing(path: Path, data: bytes) -> None:
        if "step-000004" in str(path):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        write(path, data)

    def listen(kind: str, payload: Any, step: int) -> None:
        if kind == "step" and step == 4:
            tiny.commands.put(Command("c", "checkpoint"))

    monkeypatch.setattr(checkpoints, "write_new", failing)
    tiny.store.listen(listen)
    assert tiny.train() == "all 5 steps done"
    reader = StoreReader(tiny.run.database)
    (answer,) = [event.payload for event in reader.events_of("command")]
    reader.close()
    assert not answer["ok"]
    assert "full, and the checkpoint of step 4 is not saved; free some" in answer["message"]
    assert checkpoint_names.names(tiny.run)[-2:] == ["step-000003", "step-000005"]


def test_what_cannot_be_written_leaves_the_old_file_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "run.yaml"
    durable.write_atomically(file, "old")
    assert file.stat().st_mode & 0o777 == 0o600

    def full(descriptor: int, data: bytes) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "write", full)
    with pytest.raises(OSError, match="No space"):
        durable.write_atomically(file, "new")
    assert [path.name for path in tmp_path.iterdir()] == ["run.yaml"]
    assert file.read_text() == "old"


def test_a_write_that_is_cut_short_is_gone_on_with(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = os.write
    monkeypatch.setattr(os, "write", lambda descriptor, data: write(descriptor, data[:3]))
    durable.write_new(tmp_path / "file", b"0123456789")
    assert (tmp_path / "file").read_bytes() == b"0123456789"
    with pytest.raises(FileExistsError):
        durable.write_new(tmp_path / "file", b"")

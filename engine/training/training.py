"""A run in training: its parts, how far it has come, and what it saves and resumes."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch
from torch.amp import GradScaler

from engine.config import RunConfig
from engine.errors import NotFiniteError, RunFailedError
from engine.policy.adapters import trainable_parameters
from engine.policy.policy import Policy
from engine.runs import live_settings
from engine.runs.control import Command
from engine.runs.directory import RunDirectory
from engine.runs.disk import NoSpaceError
from engine.runs.store import EventStore
from engine.task import Json, Task
from engine.text import one_line
from engine.training import checkpoints, randomness, surroundings
from engine.training.control import StopRequestedError
from engine.training.guard import MemoryGuard
from engine.training.heartbeat import Heartbeat
from engine.training.loss_scale import make_scaler
from engine.training.watch import Watch, WatchSettings


@dataclass
class Progress:
    """What the loop carries from step to step; saved in every checkpoint."""

    step: int = 0
    best_reward: float | None = None
    best_name: str | None = None
    validations_since_best: int = 0
    base_model: dict[str, float] = field(default_factory=dict)
    """Metrics of the untrained base model on the validation items; measured once."""
    skips: int = 0
    """Steps in a row that changed nothing, because their update was not finite."""
    skipped_at: list[int] = field(default_factory=list)
    """Numbers of all such steps among the last 200."""
    high_kl: int = 0
    """Steps in a row with a KL above ``objective.kl_alarm``."""
    owes_validation: bool = False
    """A validation of this step was begun and not finished."""
    rollbacks: int = 0
    """How often training went back to a checkpoint for them; each halves the learning rate."""


@dataclass
class Training:
    """A run in training: its parts, and how far it has come."""

    run: RunDirectory
    config: RunConfig
    """What is in force: as the run was started, with the changes since on top."""
    task: Task
    policy: Policy
    optimizer: torch.optim.Optimizer
    generator: torch.Generator
    """Of the sampled tokens, on the model's device."""
    store: EventStore
    progress: Progress = field(default_factory=Progress)
    started: RunConfig = field(init=False)
    """What the run was started with."""
    scaler: GradScaler = field(init=False)
    watch: Watch = field(init=False)
    guard: MemoryGuard = field(init=False)
    surroundings: Mapping[str, Json] = field(default_factory=dict)
    """See ``engine.training.surroundings``."""
    heartbeat: Heartbeat = field(default_factory=Heartbeat)
    _announced: str | None = field(init=False, default=None)
    """Name of the newest checkpoint that an event has told of."""

    def __post_init__(self) -> None:
        self.policy.beat = self.heartbeat.beat
        self.started = self.config
        self.scaler = make_scaler(self.policy)
        self.guard = MemoryGuard(
            self.policy, self.optimizer, self.scaler, self.generator, self.store
        )
        settings = WatchSettings.of(
            self.config,
            num_training_items=self.task.num_training_items,
            weights=self.task.weights,
            synthetic=self.task.is_synthetic,
        )
        self.watch = Watch(settings)

    def resume(self, name: str) -> None:
        """Put checkpoint ``name`` in place and go on from its step; later events are superseded.

        So are later changes of settings: in force is what was in force at that step.
        """
        saved = checkpoints.load(self.run, name, self.policy, self.optimizer)
        self.generator.set_state(saved.generator_state)
        if "generators" in saved.values:  # Checkpoints of earlier versions have none of these.
            randomness.restore(saved.values["generators"], self.policy.device)
        if self.scaler.is_enabled():
            self.scaler.load_state_dict(saved.values["loss_scale"])
        self.task.restore(saved.values["task"])
        self.watch.restore(saved.values["watch"])
        if "memory" in saved.values:  # Checkpoints of earlier versions have no limits.
            budget = self.policy.micro_batch_tokens
            self.guard.restore(saved.values["memory"], exactly=self.started.deterministic)
            if self.policy.micro_batch_tokens > budget:
                self.warn(f"token budget {self.policy.micro_batch_tokens}, as it was before")
        self.progress = Progress(step=saved.step, **saved.values["progress"])
        self.store.flush()
        # One that was made since the checkpoint was saved has a lower learning rate in force too.
        self.progress.rollbacks = live_settings.num_rollbacks(self.run)
        self._forget_best_unless_kept()
        self._announced = name
        changed = live_settings.stored(self.run)
        before = live_settings.in_force(self.started, live_settings.newest(changed))
        kept = [one for one in changed if one.step <= saved.step]
        self._put_in_force(live_settings.in_force(self.started, live_settings.newest(kept)))
        self.store.supersede_after(saved.step)
        self.store.event("resumed", {"from_step": saved.step}, step=saved.step)
        if undone := live_settings.differences(before, self.config):
            words = ", ".join(map(str, undone))
            self.warn(f"settings are as they were at step {saved.step} again: {words}")
        self._tell_of_changes(saved.values.get("surroundings", {}))
        self._make_up_for(saved)

    def _make_up_for(self, saved: checkpoints.SavedState) -> None:
        """Say of the checkpoints what the last worker was killed before it could say.

        Or what it said, and this resume takes back.
        """
        kept, told = checkpoints.names(self.run), checkpoints.told(self.run, saved.step)
        gone = [name for name in told if name not in kept]
        if saved.name in told and not gone:
            return
        is_best = saved.name == self.progress.best_name
        reward = self.progress.best_reward if is_best else told.get(saved.name)
        self.store.event(
            "checkpoint",
            {"name": saved.name, "best": is_best, "validation_reward": reward, "removed": gone},
        )

    def _tell_of_changes(self, before: Mapping[str, Json]) -> None:
        """Say what is not as it was when the checkpoint was saved."""
        if changed := surroundings.differences(before, self.surroundings):
            words = ", ".join(changed)
            self.warn(one_line(f"not as when this checkpoint was saved: {words}", 300))

    def _forget_best_unless_kept(self) -> None:
        """Where the best checkpoint is not there any more, the next validated one is the best."""
        if self.progress.best_name not in checkpoints.names(self.run):
            self.progress.best_name = self.progress.best_reward = None
        checkpoints.mark_best(self.run, self.progress.best_name)

    def obey_set(self, command: Command) -> str:
        """Change settings as a person wants it: all of them, or none; says what came of it.

        Raises:
            UserError: one cannot be changed so; nothing has changed.
        """
        return self.change(command.payload["changes"], by="user", command=command.id)

    def change(
        self, wanted: Mapping[str, live_settings.Value], *, by: str, command: str | None = None
    ) -> str:
        """Put ``wanted`` in force from the next step on, and record what that changes.

        Args:
            wanted: dotted name → value.
            by: ``user`` or ``rollback``.
            command: id of the command that asked for it.

        Raises:
            UserError: see ``live_settings.plan``; nothing has changed.
        """
        config, changes = live_settings.plan(self.config, wanted)
        if not changes:
            return "nothing changes: that is in force already"
        self._put_in_force(config)
        # One event for all of them: a worker that dies has stored all or none.
        self.store.event(
            "settings",
            {"changes": [vars(one) for one in changes], "by": by, "command": command},
            step=self.progress.step,
        )
        return f"in force from step {self.progress.step + 1} on"

    def _put_in_force(self, config: RunConfig) -> None:
        self.config = config
        self.policy.rollout = config.rollout

    def is_finite(self, *, moments: bool = False) -> bool:
        """Whether the trained weights are; with ``moments`` the optimiser's state too."""
        tensors = list(trainable_parameters(self.policy.model).values())
        if moments:
            tensors += [value for one in self.optimizer.state.values() for value in one.values()]
        # Brought together on the device, so that a GPU is waited for once.
        device = self.policy.device
        found = [tensor.detach().isfinite().all().to(device) for tensor in tensors]
        return bool(torch.stack(found).all())

    @contextmanager
    def undone_if_left(self) -> Iterator[None]:
        """Put sampling and the task's statistics back where a step is left half done."""
        sampling, statistics = self.generator.get_state(), self.task.state()
        try:
            yield
        except (StopRequestedError, NotFiniteError):
            self.generator.set_state(sampling)
            self.task.restore(statistics)
            raise

    def save(self, validation_reward: float | None = None) -> str:
        """Write a checkpoint and rotate old ones; the event comes when all of it is on disk.

        Args:
            validation_reward: of this very step, where it was validated.

        Raises:
            NoSpaceError: the disk has no room for it; can be tried again.
            NotFiniteError: weights or moments are not finite, and are not saved.
        """
        if not self.is_finite(moments=True):
            raise NotFiniteError("weights or moments were not finite, and are not saved")
        self.heartbeat.enter("checkpoint")
        progress = self.progress
        carried = vars(progress).copy()
        del carried["step"]
        values = {
            "progress": carried,
            "task": self.task.state(),
            "watch": self.watch.state(),
            "loss_scale": self.scaler.state_dict(),
            "memory": self.guard.state(),
            "generators": randomness.state(self.policy.device),
            "surroundings": dict(self.surroundings),
        }
        # Whoever resumes from it writes no event of the steps that it holds.
        if not self.store.flush(patient=False):
            raise NoSpaceError(
                f"{self.store.shortage}; the checkpoint of step {progress.step} is not saved"
            )
        name = checkpoints.save(
            self.run, progress.step, self.policy, self.optimizer, self.generator, values
        )
        is_best = name == progress.best_name
        if is_best:
            checkpoints.mark_best(self.run, name)
        if name != self._announced or (is_best and validation_reward is not None):
            keep = self.config.schedule.keep_checkpoints
            removed = checkpoints.rotate(self.run, keep, progress.best_name, self.warn)
            if name in removed:
                raise RunFailedError(
                    f"{self.run.checkpoints}: {name} does not read as it was written; see to the "
                    f"disk, then `stonk-tui train --resume {self.run.id}`"
                )
            if progress.best_name in removed:
                self._forget_best_unless_kept()
            self.store.event(
                "checkpoint",
                {
                    "name": name,
                    "best": is_best,
                    "validation_reward": validation_reward,
                    "removed": list(removed),
                },
            )
            # Who waits here for a full disk could not be told to stop.
            self.store.flush(patient=False)
            self._announced = name
        return name

    def warn(self, text: str) -> None:
        """Tell everyone who watches what went wrong, in a line."""
        self.store.event("notice", {"level": "warning", "text": text})


def make_optimizer(policy: Policy, config: RunConfig) -> torch.optim.Optimizer:
    """AdamW over the policy adapter, the same for a fresh run and for a resumed one."""
    return torch.optim.AdamW(
        trainable_parameters(policy.model).values(),
        lr=config.optimizer.learning_rate,
        weight_decay=config.optimizer.weight_decay,
    )

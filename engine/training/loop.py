"""The GRPO loop, from the first draw to the last checkpoint.

One step: draw items, sample a group of completions for each, let the task score them,
centre the rewards in each group, take the reference policy's log-probabilities, update
the adapter, record everything. Commands are obeyed between steps only. What runs the model runs
under the memory guard, which repeats it with less at once where memory runs out.
"""

import resource
import time
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch
from torch import Tensor
from torch.amp import GradScaler

from engine.config import RunConfig
from engine.errors import NotFiniteError, RunFailedError
from engine.policy.adapters import trainable_parameters
from engine.policy.packing import TokenGroup
from engine.policy.policy import Policy
from engine.runs import live_settings
from engine.runs.control import Command
from engine.runs.devices import device_name
from engine.runs.directory import RunDirectory
from engine.runs.disk import NoSpaceError
from engine.runs.live_settings import LEARNING_RATE
from engine.runs.store import EventStore
from engine.task import Item, Json, Task
from engine.text import one_line
from engine.training import checkpoints, randomness, steps, surroundings, validation
from engine.training.control import Control, StopRequestedError
from engine.training.flops import ModelShape, peak_flops, step_flops
from engine.training.guard import MemoryGuard
from engine.training.heartbeat import Heartbeat
from engine.training.loss_scale import make_scaler
from engine.training.utilisation import Utilisation
from engine.training.watch import Watch, WatchSettings

_MAX_SKIPS = 3
"""Non-finite updates in a row after which going on as before is pointless."""
_SKIP_WINDOW, _MAX_SKIPS_IN_WINDOW = 200, 10
"""The same for those that come now and then: 5 % of the last 200 steps."""
_MAX_ROLLBACKS = 2
_MAX_HIGH_KL = 5
"""Steps in a row with a KL above ``objective.kl_alarm`` after which the run pauses."""
_RETRY_SECONDS = 2.0
"""Between two attempts to save a checkpoint on a full disk."""
_BY_ITSELF = "and the run goes on by itself"


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


@dataclass(frozen=True)
class Ending:
    """How training ended."""

    state: str
    """``finished``, or ``stopped`` where a resume has something left to do."""
    reason: str


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


def train(training: Training, control: Control) -> Ending:
    """Train until the last step or until someone stops it.

    Raises:
        RunFailedError: memory runs out whatever is done.
    """
    broken = None
    while True:
        try:
            return _train(training, control, broken)
        except NotFiniteError as error:
            broken = str(error)


def _train(training: Training, control: Control, broken: str | None) -> Ending:
    """As ``train``; ``broken`` is what ended the attempt before."""
    config, task, policy = training.config, training.task, training.policy
    store, guard, progress = training.store, training.guard, training.progress
    heartbeat = training.heartbeat
    max_steps = config.max_steps(task.num_training_items)
    batch_size, group_size = config.rollout.prompts_per_step, config.rollout.group_size
    validation_items = task.validation_items(config.schedule.eval_samples)
    step_seconds: deque[float] = deque(maxlen=10)
    utilisation = Utilisation(config.model.device)
    device_peak = peak_flops(device_name(config.model.device), policy.causal_model.dtype)

    control.allow_checkpoints(training.save)
    control.allow_changes(training.obey_set)
    control.show_life(heartbeat.still_here)
    store.event("state", {"state": "training", "detail": ""}, step=progress.step)
    try:
        if broken is not None:
            _go_back(training, control, broken)
            progress = training.progress
        if (progress.step == 0 and progress.best_reward is None) or progress.owes_validation:
            _save(training, control, _validate(training, validation_items, control))
        while progress.step < max_steps:
            heartbeat.enter("commands")
            control.obey("training")
            _wait_for_the_store(store, control)
            config = training.config
            step = progress.step + 1
            seconds: dict[str, float] = {}
            utilisation.take()

            with _timed(seconds, "total"), training.undone_if_left():
                first = (step - 1) * batch_size
                items = [task.training_item(first + index) for index in range(batch_size)]
                with _timed(seconds, "rollout", heartbeat):
                    sampled = guard.run(
                        "rollout", steps.roll_out, policy, items, group_size, training.generator
                    )
                with _timed(seconds, "reward", heartbeat):
                    judged = steps.judge(policy, task, items, sampled)
                    rollouts = steps.shape(task, judged)
                    advantages, degenerate = steps.advantages_of(rollouts)
                with _timed(seconds, "reference", heartbeat):
                    groups = [rollout.tokens for rollout in rollouts]
                    reference = (
                        guard.run("reference", policy.reference_logprobs, groups)
                        if config.objective.kl_coefficient > 0
                        else None
                    )
                with _timed(seconds, "train", heartbeat):
                    rise = min(1.0, step / config.optimizer.rise_steps)
                    update_metrics = guard.run(
                        "train",
                        steps.update,
                        policy,
                        training.optimizer,
                        config,
                        rollouts,
                        advantages,
                        reference,
                        learning_rate=rise * config.optimizer.learning_rate,
                        scaler=training.scaler,
                    )
                if not training.is_finite():
                    raise NotFiniteError("the adapter's weights were not finite after an update")

            heartbeat.enter("recording")
            progress.step = step
            step_seconds.append(seconds["total"])
            num_tokens = sum(len(c.tokens) for group in rollouts for c in group.completions)
            metrics = {
                **task.metrics([pair for rollout in rollouts for pair in rollout.judged]),
                **steps.describe(rollouts, degenerate),
                **update_metrics,
                **_machine_metrics(policy.device, utilisation),
                **_mfu(training, groups, degenerate, seconds["total"], device_peak),
                "tokens_per_second": num_tokens / seconds["total"],
                "tokens_per_second/rollout": num_tokens / seconds["rollout"],
            }
            happened = training.watch.after_step(step, metrics, seconds)
            store.rollouts(step, steps.records(rollouts, advantages))
            store.event(
                "step",
                {
                    "metrics": dict(metrics),
                    "seconds": dict(seconds),
                    "epoch": step * batch_size / task.num_training_items,
                    "eta_seconds": _mean(step_seconds) * (max_steps - step),
                    **training.watch.picture(),
                },
                step=step,
            )
            for kind, payload in happened:
                store.event(kind, payload)
            # An overflow is how the scale of an fp16 loss finds its place.
            skipped = update_metrics["skipped"] > update_metrics.get("overflowed", 0)
            if _diverges(progress, skipped=skipped):
                has_gone_back = _go_back(training, control)
                progress = training.progress
                if has_gone_back:
                    continue
            if _leaves(progress, update_metrics.get("kl"), config.objective.kl_alarm):
                control.obey("training", pause_because=_left(update_metrics["kl"], config))

            schedule = training.config.schedule
            is_last = step == max_steps
            reward = None
            if step % schedule.eval_every == 0 or is_last:
                reward = _validate(training, validation_items, control)
            is_best = progress.best_name == f"step-{step:06d}"
            if is_best or is_last or step % schedule.save_every == 0:
                _save(training, control, reward)
            patience = schedule.patience
            if patience is not None and progress.validations_since_best >= patience:
                _save(training, control, reward)
                return Ending("finished", f"no better validation reward in {patience} validations")
    except StopRequestedError as stop:
        store.event("state", {"state": "stopping", "detail": str(stop)})
        try:
            training.save()
        except (NoSpaceError, NotFiniteError) as error:
            return Ending("stopped", f"{stop}, without a checkpoint ({error})")
        return Ending("stopped", str(stop))
    finally:
        utilisation.close()
        heartbeat.enter(None)
    return Ending("finished", f"all {max_steps} steps done")


def _save(training: Training, control: Control, reward: float | None) -> None:
    """Save, after a pause where the disk has no room."""
    while True:
        try:
            training.save(reward)
            return
        except NoSpaceError as error:
            tried, problem = time.monotonic(), str(error)

        def has_room(tried: float = tried) -> bool:
            # What the disk said was free may not be so for this user: not at once again.
            if time.monotonic() - tried < _RETRY_SECONDS:
                return False
            try:
                checkpoints.require_space(training.run)
            except NoSpaceError:
                return False
            return True

        control.obey("training", pause_because=f"{problem}, {_BY_ITSELF}", until=has_room)


def _wait_for_the_store(store: EventStore, control: Control) -> None:
    """Pause while the store has no room, but for its ballast."""
    if store.shortage is not None:
        why = f"{store.shortage}, {_BY_ITSELF}"
        control.obey("training", pause_because=why, until=store.has_recovered)


def _validate(training: Training, items: Sequence[Item], control: Control) -> float:
    """Validate and record; returns the validation reward.

    The untrained base model is measured on the same items once, before the first step. All
    validations of a run are sampled the same way, whatever has been set since, or they would not
    compare.
    """
    config, task, policy = training.started, training.task, training.policy
    store, guard, progress = training.store, training.guard, training.progress
    store.event("state", {"state": "evaluating", "detail": ""})
    training.heartbeat.enter("validation")
    progress.owes_validation = True
    if not progress.base_model:
        progress.base_model = guard.run(
            "validation",
            validation.base_model_baseline,
            config,
            task,
            policy,
            items,
            control.obey_probes,
        )
    metrics = guard.run(
        "validation", validation.validate, config, task, policy, items, control.obey_probes
    )
    metrics |= progress.base_model
    reward = metrics["reward/total"]
    progress.owes_validation = False
    progress.validations_since_best += 1
    if progress.best_reward is None or reward > progress.best_reward:
        progress.best_reward, progress.validations_since_best = reward, 0
        progress.best_name = f"step-{progress.step:06d}"
    happened = training.watch.after_validation(progress.step, metrics, progress.best_name)
    store.event(
        "validation",
        {
            "metrics": dict(metrics),
            "sampling": validation.describe_sampling(config),
            **training.watch.picture(),
        },
    )
    for kind, payload in happened:
        store.event(kind, payload)
    store.event("state", {"state": "training", "detail": ""})
    return reward


def _diverges(progress: Progress, *, skipped: bool) -> bool:
    """Count the step just done; True where it was skipped and those before it too, too often."""
    progress.skips = progress.skips + 1 if skipped else 0
    if not skipped:
        return False
    recent = [step for step in progress.skipped_at if step > progress.step - _SKIP_WINDOW]
    progress.skipped_at = [*recent, progress.step]
    return progress.skips >= _MAX_SKIPS or len(progress.skipped_at) >= _MAX_SKIPS_IN_WINDOW


def _leaves(progress: Progress, kl: float | None, limit: float) -> bool:
    """Count a step whose KL is above ``limit``; True at the fifth in a row, then it begins anew."""
    progress.high_kl = progress.high_kl + 1 if kl is not None and kl > limit else 0
    if progress.high_kl < _MAX_HIGH_KL:
        return False
    progress.high_kl = 0
    return True


def _left(kl: float, config: RunConfig) -> str:
    return (
        f"KL was above {config.objective.kl_alarm:g} nats a token in {_MAX_HIGH_KL} steps in a row "
        f"(now {kl:.3g}): the policy leaves the reference policy; set a lower learning_rate or a "
        "higher kl_coefficient and resume, or stop the run"
    )


def _go_back(training: Training, control: Control, broken: str | None = None) -> bool:
    """Resume from the last good checkpoint at half the learning rate; pause where that is no help.

    Good is one whose weights an update was made from. The last update may be what spoiled them.

    Args:
        broken: what was found where no step could be made at all; None: steps were skipped.

    Returns:
        Whether training is at an earlier step now.
    """
    progress = training.progress
    often = (
        f"{progress.skips} steps in a row"
        if progress.skips >= _MAX_SKIPS
        else f"{len(progress.skipped_at)} of {_SKIP_WINDOW} steps"
    )
    found = broken or f"loss or gradient was not finite in {often}"
    good = checkpoints.newest_before(training.run, progress.step - progress.skips, training.warn)
    if good is None and broken is not None:
        # No better one: what is saved was finite.
        good = checkpoints.newest(training.run, training.warn)
    if good is None or progress.rollbacks == _MAX_ROLLBACKS:
        if good is not None and not training.is_finite():
            training.resume(good)
            training.progress.rollbacks = progress.rollbacks
        training.progress.skips, training.progress.skipped_at = 0, []
        control.obey(
            "training",
            pause_because=f"{found}; set a lower learning_rate and resume, or stop the run",
        )
        return False
    checkpoints.set_aside_after(training.run, good)
    rollbacks, rate = progress.rollbacks + 1, training.config.optimizer.learning_rate
    training.resume(good)
    # The lower one of what was in force then and now: a person may have set either.
    rate = min(rate, training.config.optimizer.learning_rate) / 2
    training.change({LEARNING_RATE: rate}, by="rollback")
    training.progress.rollbacks = rollbacks
    training.progress.skips, training.progress.skipped_at = 0, []
    training.warn(f"{found}: back to {good}, learning rate halved")
    return True


def _machine_metrics(device: torch.device, utilisation: Utilisation) -> dict[str, float]:
    """Peak memory of this process and, where there is one, memory and use of the GPU."""
    kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    metrics = {"memory_gib": kib / 2**20}
    if device.type == "cuda":
        metrics["gpu_memory_gib"] = torch.cuda.max_memory_allocated(device) / 2**30
    busy = utilisation.take()
    if busy is not None:
        metrics["gpu/utilisation"] = busy
    return metrics


def _mfu(
    training: Training,
    groups: Sequence[TokenGroup],
    degenerate: Tensor,
    seconds: float,
    peak: float | None,
) -> dict[str, float]:
    """Model FLOPs utilisation of a step; nothing where the device's peak is not known."""
    config, model = training.config, training.policy.causal_model
    if peak is None:
        return {}
    has_reference = config.objective.kl_coefficient > 0
    trained = [
        group
        for group, is_flat in zip(groups, degenerate.tolist(), strict=True)
        if has_reference or not is_flat
    ]
    flops = step_flops(
        ModelShape.of(model.config),
        groups,
        trained,
        has_reference=has_reference,
        iterations=config.objective.iterations,
    )
    return {"mfu": flops / seconds / peak}


@contextmanager
def _timed(
    seconds: dict[str, float], phase: str, heartbeat: Heartbeat | None = None
) -> Iterator[None]:
    if heartbeat is not None:
        heartbeat.enter(phase)
    start = time.monotonic()
    yield
    seconds[phase] = time.monotonic() - start


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)

"""The GRPO loop, from the first draw to the last checkpoint.

One step: draw items, sample a group of completions for each, let the task score them,
centre the rewards in each group, take the reference policy's log-probabilities, update
the adapter, record everything. Commands are obeyed between steps only. What runs the model runs
under the memory guard, which repeats it with less at once where memory runs out.
"""

import resource
import time
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor

from engine.config import RunConfig
from engine.errors import NotFiniteError
from engine.policy.packing import TokenGroup
from engine.runs.devices import device_name
from engine.runs.disk import NoSpaceError
from engine.runs.live_settings import LEARNING_RATE
from engine.runs.store import EventStore
from engine.task import Item
from engine.training import checkpoints, steps, validation
from engine.training.control import Control, StopRequestedError
from engine.training.flops import ModelShape, peak_flops, step_flops
from engine.training.heartbeat import Heartbeat
from engine.training.training import Progress, Training
from engine.training.utilisation import Utilisation

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


@dataclass(frozen=True)
class Ending:
    """How training ended."""

    state: str
    """``finished``, or ``stopped`` where a resume has something left to do."""
    reason: str


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

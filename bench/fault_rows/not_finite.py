"""NaN or infinity at a random place of a run: none of it ends in a weight or a checkpoint."""

import dataclasses
import math
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from bench.fault_rows.row import Outcome, Row
from bench.fault_rows.tiny_session import TinySession, damaged
from engine.policy import rollout
from engine.policy.adapters import trainable_parameters
from engine.runs.control import Command
from engine.training import steps

_STEPS = 8
_PLACES = ("loss", "logprobs", "reference", "gradient", "logits", "weights", "moments")


class _Fault:
    """Breaks numbers at a place, from a step on, a number of times."""

    def __init__(self, session: TinySession, rng: random.Random) -> None:
        self._session = session
        self.place = rng.choice(_PLACES)
        self.step = rng.randint(1, _STEPS)
        self._left = rng.choice((1, 2, 3, 4, 10_000))
        """At the end a fault that never passes: the run has to pause."""
        self._value = rng.choice((math.nan, math.inf, -math.inf))
        self.times = 0

    def strikes(self) -> bool:
        """Whether it does so now."""
        if self._session.training.progress.step < self.step - 1 or not self._left:
            return False
        self._left -= 1
        self.times += 1
        return True

    def breaks(self, tensor: torch.Tensor) -> torch.Tensor:
        """The tensor with one of its numbers broken, where the fault strikes."""
        if not self.strikes():
            return tensor
        broken = tensor.clone()
        broken.view(-1)[broken.numel() // 2] = self._value
        return broken

    def install(self, patch: Callable[[Any, str, Any], None]) -> None:
        """Put it in its place; ``patch`` replaces an attribute until the trial is over."""
        session, policy = self._session, self._session.policy
        if self.place == "loss":
            sound = steps.grpo_loss

            def loss(*args: Any, **kwargs: Any) -> Any:
                found = sound(*args, **kwargs)
                return dataclasses.replace(found, value=self.breaks(found.value))

            patch(steps, "grpo_loss", loss)
        elif self.place in ("logprobs", "gradient"):
            score = policy.logprobs

            def logprobs(groups: Any) -> Any:
                found, entropies = score(groups)
                if torch.is_grad_enabled() and self.place == "gradient":
                    found.register_hook(self.breaks)
                elif torch.is_grad_enabled():
                    found = self.breaks(found)
                return found, entropies

            patch(policy, "logprobs", logprobs)
        elif self.place == "reference":
            score_reference = policy.reference_logprobs
            patch(
                policy,
                "reference_logprobs",
                lambda groups: [self.breaks(one) for one in score_reference(groups)],
            )
        elif self.place == "logits":
            draw = rollout.draw
            patch(
                rollout,
                "draw",
                lambda logits, *rest: draw(
                    torch.full_like(logits, math.nan) if self.strikes() else logits, *rest
                ),
            )
        else:
            self._install_in_the_optimiser(session, patch)

    def _install_in_the_optimiser(
        self, session: TinySession, patch: Callable[[Any, str, Any], None]
    ) -> None:
        optimizer = session.training.optimizer
        update = optimizer.step

        def step(*args: Any) -> Any:
            found = update(*args)
            parameters = list(trainable_parameters(session.policy.model).values())
            with torch.no_grad():
                if self.place == "weights":
                    parameters[0].copy_(self.breaks(parameters[0]))
                else:
                    moment = optimizer.state[parameters[0]]["exp_avg"]
                    moment.copy_(self.breaks(moment))
            return found

        patch(optimizer, "step", step)


def trial(number: int, folder: Path) -> Outcome:
    """Break one number, some or all from a random step on."""
    session = TinySession(
        folder,
        schedule={"max_steps": _STEPS, "save_every": 1, "eval_every": 100, "eval_samples": 4},
    )
    fault = _Fault(session, random.Random(number))
    paused: list[str] = []

    def listen(kind: str, payload: Any, step: int) -> None:
        if payload.get("state") == "paused":
            paused.append(payload["detail"])
            session.commands.put(Command("stop", "stop"))

    session.store.listen(listen)
    originals: list[tuple[Any, str, Any]] = []

    def patch(owner: Any, name: str, value: Any) -> None:
        originals.append((owner, name, getattr(owner, name)))
        setattr(owner, name, value)

    fault.install(patch)
    try:
        reason = session.train()
    finally:
        for owner, name, value in originals:
            setattr(owner, name, value)
    return Outcome(
        _problem(session, fault, reason, paused), {"times that a number broke": fault.times}
    )


def _problem(session: TinySession, fault: _Fault, reason: str, paused: list[str]) -> str:
    place = f"{fault.place} from step {fault.step} on, {fault.times} times"
    if not fault.times:
        return f"{place}: was never reached"
    if not all(bool(weights.isfinite().all()) for weights in session.weights()):
        return f"{place}: weights are not finite"
    for file in session.run.checkpoints.rglob("*.safetensors"):
        for name, tensor in load_file(file).items():
            if tensor.is_floating_point() and not bool(tensor.isfinite().all()):
                return f"{place}: {name} of {file.parent.name} is not finite"
    if paused and ("not finite" not in paused[0] or "\n" in paused[0]):
        return f"{place}: paused with {paused[0]!r}"
    if not paused and reason != f"all {_STEPS} steps done":
        return f"{place}: ended with {reason!r}"
    return damaged(session.run)


ROWS = (
    Row(
        name="nan",
        passes="no weight or checkpoint is not finite; all steps done, or paused with the reason",
        trials=100,
        short=5,
        trial=trial,
    ),
)

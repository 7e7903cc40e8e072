"""Memory runs out at a random place of a run: that is done again with less at once."""

import functools
import random
import tempfile
from pathlib import Path

import torch

from bench.fault_rows.row import Outcome, Row
from bench.fault_rows.tiny_session import PHASES, TinySession, damaged
from engine.policy.adapters import trainable_parameters
from engine.training.guard import FEWEST_TOKENS

_STEPS = 3
_MOST_IN_A_ROW = 2
_ERRORS = (
    lambda: torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"),
    lambda: RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried"),
    MemoryError,
)
_TOLERANCE = 1e-5
"""Between weights: micro-batches of another size add up in another order."""


def _session(folder: Path) -> TinySession:
    return TinySession(
        folder,
        optimizer={"learning_rate": 1e-3, "micro_batch_tokens": 1024},
        schedule={"max_steps": _STEPS, "save_every": 1, "eval_every": 100, "eval_samples": 4},
    )


@functools.cache
def _undisturbed() -> tuple[list[torch.Tensor], list[float]]:
    """Weights and rewards of a run with enough memory."""
    with tempfile.TemporaryDirectory() as folder:
        session = _session(Path(folder))
        session.train()
        return session.weights(), session.history().series["reward/total"].values


def trial(number: int, folder: Path) -> Outcome:
    """Run out of memory once or twice in a random phase of a random step."""
    weights, rewards = _undisturbed()
    rng = random.Random(number)
    session = _session(folder)
    phase = rng.choice([phase for phase in PHASES if phase != "reward"])
    step, times, error = rng.randint(1, _STEPS), rng.randint(1, _MOST_IN_A_ROW), rng.choice(_ERRORS)
    # The last halving parts the one micro-batch of a step into two.
    session.policy.micro_batch_tokens = FEWEST_TOKENS << times
    left = times

    def fail() -> None:
        nonlocal left
        if left:
            left -= 1
            if phase == "optimiser" and rng.random() < 0.5:
                _half_done(session)
            raise error()

    session.at_phase(phase, step, fail)
    reason = session.train()
    place = f"{type(error()).__name__} {times} times in {phase} of step {step}"
    if left:
        return Outcome(f"{place}: was never reached")
    if reason != f"all {_STEPS} steps done":
        return Outcome(f"{place}: ended with {reason!r}")
    if len(session.events("memory")) != times:
        return Outcome(f"{place}: {len(session.events('memory'))} events tell of it")
    if [event.step for event in session.events("step")] != list(range(1, _STEPS + 1)):
        return Outcome(f"{place}: steps are missing, or there twice")
    if session.history().series["reward/total"].values != rewards:
        return Outcome(f"{place}: other rewards than with enough memory")
    error_of = max(
        float((found - expected).abs().max())
        for found, expected in zip(session.weights(), weights, strict=True)
    )
    figures = {"largest difference of a weight": error_of}
    if error_of > _TOLERANCE:
        return Outcome(f"{place}: weights differ by {error_of:.2g}", figures)
    return Outcome(damaged(session.run), figures)


def _half_done(session: TinySession) -> None:
    """What an optimiser that ran out of memory half-way has changed already."""
    parameters = list(trainable_parameters(session.policy.model).values())
    with torch.no_grad():
        for parameter in parameters[: len(parameters) // 2]:
            parameter.add_(1.0)
    for state in list(session.training.optimizer.state.values())[::2]:
        for value in state.values():
            value.add_(1.0)


ROWS = (
    Row(
        name="oom",
        passes="all steps done once, the rewards and weights of a run with enough memory",
        trials=100,
        short=4,
        trial=trial,
    ),
)

"""Go on when memory runs out: undo what failed, and do it again with half as much at once.

Two limits decide how much memory a step takes: the tokens of one forward and backward pass, and
the completions that are decoded together. Neither changes what comes out, up to rounding:
micro-batches add up to the step's gradient, and every completion has random numbers of its own.
So the part of a step that failed is repeated with half of its limit. The parts before it stand,
and nothing is scored or counted twice.
"""

import gc
from collections.abc import Callable, Mapping
from typing import Literal, ParamSpec, TypeVar

import torch
from torch import Tensor
from torch.amp import GradScaler

from engine.errors import RunFailedError
from engine.policy.memory import return_freed_memory
from engine.policy.policy import Policy
from engine.runs.store import EventStore
from engine.training.control import StopRequestedError

Phase = Literal["warm-up", "rollout", "reference", "train", "validation"]

FEWEST_TOKENS = 256
"""The token budget is never halved below the least that ``optimizer.micro_batch_tokens`` may be."""

_SAMPLES: tuple[Phase, ...] = ("rollout", "validation")
_TRAINS: tuple[Phase, ...] = ("warm-up", "train")

_Args = ParamSpec("_Args")
_Result = TypeVar("_Result")


def is_out_of_memory(error: BaseException) -> bool:
    """Whether ``error`` says that the device's or the host's memory did not suffice.

    CUDA's allocator has an exception of its own; torch's allocator on the CPU and the libraries
    below (cuBLAS, the C++ runtime) have only words.
    """
    if isinstance(error, (torch.OutOfMemoryError, MemoryError)):
        return True
    words = ("can't allocate memory", "out of memory", "bad_alloc", "STATUS_ALLOC_FAILED")
    return isinstance(error, RuntimeError) and any(word in str(error) for word in words)


def with_fewer_rows(policy: Policy, rows: int, sample: Callable[[int], _Result]) -> _Result:
    """``sample(rows)``, from the start with half of the rows where memory does not suffice.

    The policy's own limits stay as they are: this is for what goes on beside training.

    Raises:
        RunFailedError: one row is too much.
    """
    while True:
        try:
            return sample(rows)
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            if rows == 1:
                raise RunFailedError("out of memory with one sample at a time") from error
        # Not in the except block: the traceback there keeps every tensor alive.
        release(policy.device)
        rows = max(1, rows // 2)


class MemoryGuard:
    """Runs the parts of a step, and lowers the policy's limits when memory does not suffice."""

    def __init__(
        self,
        policy: Policy,
        optimizer: torch.optim.Optimizer,
        scaler: GradScaler,
        generator: torch.Generator,
        store: EventStore,
    ) -> None:
        """``scaler``: of the training loss. ``generator``: of the sampled tokens."""
        self._policy = policy
        self._optimizer = optimizer
        self._scaler = scaler
        self._generator = generator
        self._store = store

    def run(
        self,
        phase: Phase,
        work: Callable[_Args, _Result],
        *args: _Args.args,
        **kwargs: _Args.kwargs,
    ) -> _Result:
        """What ``work`` returns; where memory runs out it is repeated with half of its limit.

        Before a repeat the sampling generator, the trained weights, the optimiser's state and the
        loss scale are put back as they were. Each halving is an event, and lasts.

        Raises:
            RunFailedError: memory runs out at the lowest limit too.
            StopRequestedError: ``work`` was left half done, and is undone in the same way.
        """
        sampling = self._generator.get_state()
        trained = _Trained(self._optimizer, self._scaler) if phase in _TRAINS else None
        while True:
            try:
                return work(*args, **kwargs)
            except StopRequestedError:
                self._undo(sampling, trained)
                raise
            except (RuntimeError, MemoryError) as error:
                if not is_out_of_memory(error):
                    raise
            # Not in the except block: the traceback there keeps every tensor of `work` alive.
            self._undo(sampling, trained)
            self._halve(phase)

    def _undo(self, sampling: Tensor, trained: "_Trained | None") -> None:
        self._optimizer.zero_grad(set_to_none=True)
        release(self._policy.device)
        self._generator.set_state(sampling)
        if trained is not None:
            trained.put_back()

    def state(self) -> dict[str, int | None]:
        """JSON values from which ``restore`` makes the same limits."""
        return {
            "micro_batch_tokens": self._policy.micro_batch_tokens,
            "decode_rows": self._policy.decode_rows,
        }

    def restore(self, state: Mapping[str, int | None], *, exactly: bool = False) -> None:
        """Take over the limits that gave ``state``, but for those that are lower already.

        Args:
            exactly: those too, since other limits round otherwise.
        """
        policy = self._policy
        if exactly:
            policy.micro_batch_tokens = state["micro_batch_tokens"] or policy.micro_batch_tokens
            policy.decode_rows = state["decode_rows"]
            return
        budgets = (state["micro_batch_tokens"], policy.micro_batch_tokens)
        rows = (state["decode_rows"], policy.decode_rows)
        policy.micro_batch_tokens = min(budget for budget in budgets if budget is not None)
        policy.decode_rows = min((most for most in rows if most is not None), default=None)

    def _halve(self, phase: Phase) -> None:
        policy = self._policy
        if phase in _SAMPLES:
            settings, unit = policy.rollout, "completions"
            old = policy.decode_rows or settings.prompts_per_step * settings.group_size
            new = max(1, old // 2)
        else:
            old, unit = policy.micro_batch_tokens, "tokens"
            new = max(FEWEST_TOKENS, old // 2)
        if new >= old:
            raise RunFailedError(
                f"out of memory ({phase}) with no more than {old} {unit} at once; free memory on "
                f"{policy.device} and resume the run, or start one with a smaller model, a "
                "shorter rollout.context or fewer rollout.max_new_tokens"
            )
        if phase in _SAMPLES:
            policy.decode_rows = new
        else:
            policy.micro_batch_tokens = new
        self._store.event("memory", {"phase": phase, "unit": unit, "old": old, "new": new})


class _Trained:
    """Copies, in the host's memory, of what training changes: weights, moments and loss scale.

    They are three times the adapter, which is little beside a pass. Memory that the optimiser
    allocates beforehand would cost less and not do: with several updates on a block of
    rollouts, the second can fail when the first is done.
    """

    def __init__(self, optimizer: torch.optim.Optimizer, scaler: GradScaler) -> None:
        self._optimizer = optimizer
        self._scaler = scaler
        self._scale = scaler.state_dict()
        self._weights: dict[Tensor, Tensor] = {
            parameter: _copied(parameter)
            for group in optimizer.param_groups
            for parameter in group["params"]
        }
        self._state: dict[Tensor, dict[str, Tensor]] = {
            parameter: {name: _copied(value) for name, value in state.items()}
            for parameter, state in optimizer.state.items()
        }

    @torch.no_grad()
    def put_back(self) -> None:
        """Undo what was trained since; in place, so that it takes no memory."""
        for parameter, weights in self._weights.items():
            parameter.copy_(weights)
        for parameter, state in list(self._optimizer.state.items()):
            if parameter not in self._state:
                del self._optimizer.state[parameter]
                continue
            for name, value in self._state[parameter].items():
                state[name].copy_(value)
        if self._scaler.is_enabled():
            # A scaler refuses to unscale twice before an update, and an update before it has
            # scaled anything.
            self._scaler.scale(torch.zeros((), device=next(iter(self._weights)).device))
            self._scaler.update(self._scale["scale"])
            self._scaler.load_state_dict(self._scale)


def _copied(tensor: Tensor) -> Tensor:
    return tensor.detach().to("cpu", copy=True)


def release(device: torch.device) -> None:
    """Give back what nobody holds any more."""
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()
    return_freed_memory()

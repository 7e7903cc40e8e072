"""Before the first step: what does the longest pass take, and which token budget fits?

The longest micro-batch is of prompts that fill the context and completions that all reach the
length limit. On a GPU it is simply run, forward and backward. On a CPU that would take as long as
a good part of a step, and an allocation that is too large is granted there and paid for later,
with the life of the process. So a short pass tells what one token takes, and the rest is
arithmetic: all that is kept for the backward pass grows with the tokens alone.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import psutil
import torch
from torch import Tensor

from engine.errors import RunFailedError
from engine.policy.logprobs import completion_logprobs
from engine.policy.packing import TokenGroup, pack
from engine.policy.policy import Policy
from engine.training.guard import FEWEST_TOKENS, is_out_of_memory

_GPU_SHARE = 0.9
"""Of the memory that is free before a pass, what it may take."""
_CPU_SHARE = 0.5
"""The same on a CPU, where only what is kept for the backward pass is counted: gradients on their
way, logits and what other programs may want come on top."""
_SAMPLE_TOKENS = 32
"""Of the prompt and of the completion whose pass tells what a token takes."""


@dataclass(frozen=True)
class _Need:
    """What a pass takes of the memory there is."""

    fits: bool
    words: str
    is_possible: bool = True


def choose_token_budget(policy: Policy) -> tuple[str, str]:
    """Halve the policy's token budget until its longest micro-batch fits into memory.

    Weights, gradients and random states are afterwards what they were.

    Returns:
        Level and text of a notice: what was measured, and the budget.

    Raises:
        RunFailedError: not even the smallest budget fits.
    """
    policy.model.eval()
    need_of = _for_cpu(policy) if policy.device.type == "cpu" else _for_gpu(policy)
    asked = policy.micro_batch_tokens
    need = need_of(_longest_micro_batch(policy))
    while not need.fits and policy.micro_batch_tokens > FEWEST_TOKENS:
        policy.micro_batch_tokens = max(FEWEST_TOKENS, policy.micro_batch_tokens // 2)
        need = need_of(_longest_micro_batch(policy))
    if not need.is_possible:
        raise RunFailedError(
            f"{need.words}; free memory on {policy.device}, or use a smaller model or a shorter "
            "rollout.context"
        )
    budget = policy.micro_batch_tokens
    level = "info" if need.fits and budget == asked else "warning"
    was = f" instead of {asked}" if budget < asked else ""
    return level, f"{need.words}; token budget {budget}{was}"


def _longest_micro_batch(policy: Policy) -> list[TokenGroup]:
    settings = policy.rollout
    prompt = [policy.pad_id] * (settings.context - settings.max_new_tokens)
    completion = [policy.pad_id] * settings.max_new_tokens
    group = TokenGroup(prompt, [completion] * settings.group_size)
    groups = [group] * settings.prompts_per_step
    return [part.of(groups) for part in policy.micro_batches(groups)[0]]


def _for_gpu(policy: Policy) -> Callable[[Sequence[TokenGroup]], _Need]:
    def need(batch: Sequence[TokenGroup]) -> _Need:
        device = policy.device
        torch.cuda.empty_cache()
        free, _ = torch.cuda.mem_get_info(device)
        before = torch.cuda.memory_reserved(device)
        torch.cuda.reset_peak_memory_stats(device)
        start = time.monotonic()
        is_possible = _pass(policy, batch)
        seconds = time.monotonic() - start
        taken = torch.cuda.max_memory_reserved(device) - before
        torch.cuda.empty_cache()
        # What the run reports as its peak is to be its own.
        torch.cuda.reset_peak_memory_stats(device)
        over = f"a pass over {_num_tokens(batch)} tokens"
        if not is_possible:
            return _Need(False, f"{over} ran out of memory", is_possible=False)
        took = f"{over} took {taken / 2**30:.2f} GiB and {seconds:.1f} s"
        return _Need(taken <= _GPU_SHARE * free, took)

    return need


def _pass(policy: Policy, batch: Sequence[TokenGroup]) -> bool:
    """Forward and backward; False where memory ran out."""
    try:
        logprobs, _ = policy.logprobs(batch)
        torch.autograd.backward(logprobs.sum())
        torch.cuda.synchronize(policy.device)
    except RuntimeError as error:
        if not is_out_of_memory(error):
            raise
        return False
    finally:
        policy.model.zero_grad(set_to_none=True)
    return True


def _for_cpu(policy: Policy) -> Callable[[Sequence[TokenGroup]], _Need]:
    per_token = _bytes_kept_per_token(policy)
    free = psutil.virtual_memory().available

    def need(batch: Sequence[TokenGroup]) -> _Need:
        num_tokens = _num_tokens(batch)
        kept = per_token * num_tokens
        words = (
            f"a pass over {num_tokens} tokens keeps {kept / 2**30:.2f} GiB for its backward half, "
            f"and {free / 2**30:.1f} GiB are free"
        )
        return _Need(kept <= _CPU_SHARE * free, words)

    return need


def _bytes_kept_per_token(policy: Policy) -> float:
    """Memory that a forward pass holds for its backward pass, weights left out.

    What does not depend on the tokens is counted with them: an error on the safe side. Where
    layers are checkpointed, the backward pass holds what one of them keeps on top.
    """
    tokens = [policy.pad_id] * _SAMPLE_TOKENS
    group = TokenGroup(tokens, [tokens])
    kept = _bytes_kept(policy, lambda: policy.logprobs([group]))
    batch = pack([group], policy.pad_id, policy.device)
    # Outside `policy.logprobs` no layer of a model in eval mode is checkpointed.
    plain = _bytes_kept(
        policy,
        lambda: completion_logprobs(policy.causal_model, batch, policy.rollout.temperature),
    )
    one_layer = plain / policy.causal_model.config.num_hidden_layers if kept < plain else 0.0
    return (kept + one_layer) / group.num_tokens


def _bytes_kept(policy: Policy, run: Callable[[], object]) -> int:
    """Bytes of the tensors that ``run`` saves for a backward pass, weights left out."""
    weights = {parameter.untyped_storage().data_ptr() for parameter in policy.model.parameters()}
    kept: dict[int, int] = {}

    def remember(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            # Many tensors share a storage: each counts once.
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(remember, lambda tensor: tensor):
        # The result stays alive until the end: storages would be used again, and lost count of.
        result = run()
    del result
    return sum(kept.values())


def _num_tokens(batch: Sequence[TokenGroup]) -> int:
    """Padding included."""
    return len(batch) * max(group.num_tokens for group in batch)

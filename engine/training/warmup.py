"""Supervised warm-up: teach the answer's form, and nothing about its content.

The answers are templates over the prompt's own facts whose verdict is a coin flip, so
the warmed-up policy writes the format and knows no direction. Its result is the
reference policy of GRPO and is cached by everything that decides it.
"""

import hashlib
import json
import random
import secrets
from collections.abc import Callable
from pathlib import Path

import torch
from safetensors.torch import load_file
from safetensors.torch import save as serialised
from torch.amp import GradScaler

from engine.config import RunConfig
from engine.policy.adapters import (
    POLICY,
    adapter_weights,
    load_adapter,
    trainable_parameters,
)
from engine.policy.memory import return_freed_memory
from engine.policy.packing import TokenGroup
from engine.policy.policy import Policy
from engine.runs.disk import is_shortage
from engine.runs.durable import fsync_directory, write_new
from engine.task import Task
from engine.training.loss_scale import make_scaler


def warm_up(
    policy: Policy,
    task: Task,
    config: RunConfig,
    *,
    base_fingerprint: str,
    cache: Path,
    on_step: Callable[[int, int, float], None],
) -> bool:
    """Train the policy's adapter on templated answers, or take it from the cache.

    Args:
        base_fingerprint: identity of the base model's weights.
        cache: folder of warmed-up adapters.
        on_step: called after every step with steps done, steps in all, mean loss in nats a
            token; it may raise to end the warm-up early.

    Returns:
        True when the cache had it.
    """
    batches = _demonstrations(policy, task, config)
    cached = cache / f"{_key(policy, config, base_fingerprint, batches)}.safetensors"
    if cached.is_file():
        load_adapter(policy.model, load_file(cached), POLICY)
        return True
    parameters = list(trainable_parameters(policy.model).values())
    optimizer = torch.optim.AdamW(parameters, weight_decay=0.0)
    scaler = make_scaler(policy)
    policy.model.train()
    with torch.random.fork_rng():
        # Dropout draws from the global generator.
        torch.manual_seed(config.seed)
        for step, groups in enumerate(batches):
            rate = config.warmup.learning_rate * _schedule(step, len(batches))
            for parameter_group in optimizer.param_groups:
                parameter_group["lr"] = rate
            loss = _step(policy, groups, scaler)
            scaler.unscale_(optimizer)
            torch.nn.utils.clip_grad_norm_(parameters, config.warmup.max_grad_norm)
            scaler.step(optimizer)
            scaler.update()
            optimizer.zero_grad(set_to_none=True)
            on_step(step + 1, len(batches), loss)
    policy.model.eval()
    _save(cached, adapter_weights(policy.model, POLICY))
    return False


def _demonstrations(policy: Policy, task: Task, config: RunConfig) -> list[list[TokenGroup]]:
    """The token groups of every step, decided by the seed."""
    rng = random.Random(f"warm-up {config.seed}")
    settings = config.warmup
    batches = []
    for step in range(settings.steps):
        groups = []
        for number in range(settings.prompts_per_step):
            item = task.training_item(step * settings.prompts_per_step + number)
            prompt = policy.encode_prompt(policy.prompt_text(item))
            answers = [
                policy.encode_answer(text)
                for text in task.demonstrations(item, settings.answers_per_prompt, rng)
            ]
            groups.append(TokenGroup(prompt, answers))
        batches.append(groups)
    return batches


def _step(policy: Policy, groups: list[TokenGroup], scaler: GradScaler) -> float:
    """Backward pass of the mean negative log-likelihood a token; returns it."""
    num_tokens = sum(len(answer) for group in groups for answer in group.completions)
    total = 0.0
    for parts in policy.micro_batches(groups):
        logprobs, _ = policy.logprobs([part.of(groups) for part in parts])
        loss = -logprobs.sum() / num_tokens
        torch.autograd.backward(scaler.scale(loss))
        return_freed_memory()
        total += loss.item()
    return total


def _schedule(step: int, num_steps: int) -> float:
    """Share of the peak learning rate: up over the first tenth, then linearly to zero."""
    rising = max(1, num_steps // 10)
    return min((step + 1) / rising, (num_steps - step) / max(1, num_steps - rising))


def _key(
    policy: Policy, config: RunConfig, base_fingerprint: str, batches: list[list[TokenGroup]]
) -> str:
    decides = {
        "base": base_fingerprint,
        "format": [str(policy.causal_model.dtype), config.model.quantize],
        "lora": config.lora.model_dump(),
        "warmup": config.warmup.model_dump(),
        "seed": config.seed,
        "temperature": config.rollout.temperature,
        "tokens": [[group.prompt, group.completions] for batch in batches for group in batch],
    }
    return hashlib.sha256(json.dumps(decides, sort_keys=True).encode()).hexdigest()[:32]


def _save(path: Path, weights: dict[str, torch.Tensor]) -> None:
    """Put ``weights`` at ``path``: complete or not at all, and not at all on a full disk."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
    try:
        write_new(temporary, serialised(weights))
        temporary.replace(path)
        fsync_directory(path.parent)
    except OSError as error:
        if not is_shortage(error):
            raise
    finally:
        temporary.unlink(missing_ok=True)

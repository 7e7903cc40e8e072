"""What both sides of `vs_trl.py` are given, and what each of them reports."""

import hashlib
import json
import random
import zlib
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

KL_COEFFICIENT = 0.04
LEARNING_RATE = 1e-5
LORA_RANK, LORA_ALPHA = 16, 32
_WORDS = 500
"""Different words in the prompts."""


@dataclass(frozen=True)
class Match:
    """One comparison."""

    folder: str
    """Of the base model and its tokenizer."""
    device: str
    """``cpu`` or ``cuda``."""
    dtype: str
    """``fp32`` or ``bf16``: of the base's weights and of the products."""
    quantize: str
    """``none`` or ``nf4``."""
    prompt_tokens: int
    """Of each prompt, exactly."""
    group_size: int
    completion_tokens: int
    """Of each completion, exactly: nothing ends one early."""
    prompts_per_step: int
    groups_per_batch: int
    """Groups in one forward and backward pass."""
    steps: int
    """Timed ones; one that is not comes before them."""


@dataclass(frozen=True)
class Step:
    """What one step took and what it worked on."""

    seconds: float
    phases: dict[str, float]
    """Seconds of ``rollout``, ``reward``, ``reference`` and ``train``."""
    prompts: str
    """Hash of the token ids of the step's prompts."""
    prompt_tokens: int
    """Of the prompts, each counted once."""
    completion_tokens: int


@dataclass(frozen=True)
class Outcome:
    """What one side reports when it is done."""

    steps: list[Step]
    """The first one, which is not timed, included."""
    trainable: int
    """Weights of the adapter."""
    threads: int
    """That torch computes with on a CPU."""
    peak_rss_gib: float
    """Resident memory of the process at its highest."""
    peak_gpu_gib: float | None
    """Device memory in tensors at its highest; None on a CPU."""


def make_step(
    seconds: float,
    phases: dict[str, float],
    prompts: Collection[Sequence[int]],
    completion_tokens: int,
) -> Step:
    """A step on ``prompts``, the token ids of each of them once."""
    ids = sorted(map(list, prompts))
    digest = hashlib.sha256(json.dumps(ids).encode()).hexdigest()[:16]
    return Step(seconds, phases, digest, sum(map(len, ids)), completion_tokens)


def make_outcome(match: Match, steps: list[Step], trainable: int) -> Outcome:
    """``steps`` with the memory that this process took for them."""
    import torch

    status = Path("/proc/self/status").read_text(encoding="utf-8")
    # In kB. The kernel's count for a parent would begin with what the parent itself takes.
    peak = int(status.partition("VmHWM:")[2].split()[0]) / 2**20
    on_gpu = torch.cuda.max_memory_allocated() / 2**30 if match.device == "cuda" else None
    return Outcome(steps, trainable, torch.get_num_threads(), peak, on_gpu)


def reward(completion: str) -> float:
    """A number in [0, 1) that depends on all of the text."""
    return zlib.crc32(completion.encode()) / 2**32


def prompt_texts(tokenizer: Any, match: Match) -> list[str]:
    """Different prompts for all steps in order, of exactly ``match.prompt_tokens`` tokens.

    Raises:
        SystemExit: this tokenizer gives such a text another number of tokens.
    """
    rng = random.Random(0)
    words: list[str] = []
    for token in rng.sample(range(len(tokenizer)), k=len(tokenizer)):
        word = tokenizer.decode([token]).strip()
        if word.isalnum() and tokenizer(f" {word}").input_ids == [token]:
            words.append(f" {word}")
        if len(words) == _WORDS:
            break
    count = (match.steps + 1) * match.prompts_per_step
    texts = ["".join(rng.choices(words, k=match.prompt_tokens)) for _ in range(count)]
    lengths = {len(tokenizer(text).input_ids) for text in texts}
    if lengths != {match.prompt_tokens} or len(set(texts)) < count:
        raise SystemExit(f"no texts of {match.prompt_tokens} tokens can be made for this tokenizer")
    return texts

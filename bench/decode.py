"""Decoding: the engine's rollout against transformers.generate, and against the memory's speed.

    python bench/decode.py [--prompts 8] [--group 4] [--tokens 55] [--repeats 3] [--threads 1]
    python bench/decode.py --model qwen2.5-1.5b-random --device cuda --group 16 --tokens 128

The same prompts (of 230 to 250 tokens) on the same model with an adapter on all linear layers, in
one process, alternating; medians. The floor is the time in which this device's memory hands over
what has to be read at least: for every token all weights, each prompt's keys and values once, and
those of the completions so far. Its bandwidth is measured here: the better of copying and reading a
buffer as large as the weights.
"""

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
from machine import machine
from models import MODELS
from workload import groups_of_tokens, policy_with_adapter

from engine.policy import attention
from engine.policy.adapters import REFERENCE
from engine.policy.policy import Policy
from engine.presets import EMBEDDED_MODEL
from engine.runs import devices


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name, default in (
        ("prompts", 8), ("group", 4), ("tokens", 55), ("repeats", 3), ("threads", 1),
    ):  # fmt: skip
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument(
        "--model", choices=[name for name in MODELS if name != "tiny"], default=EMBEDDED_MODEL
    )
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--out", type=Path, help="JSON file for the figures")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    policy = policy_with_adapter(options.tokens, options.model, options.device)
    prompts = [list(group.prompt) for group in groups_of_tokens(options.prompts, options.group, 1)]

    ours, theirs = [], []
    for _ in range(options.repeats + 1):
        ours.append(_ours(policy, prompts, options.group))
        theirs.append(_generate(policy, prompts, options.group, options.tokens))
    bandwidth = _bandwidth(_weight_bytes(policy), policy.device)
    read = _bytes_read(policy, sum(map(len, prompts)), options.group * len(prompts), options.tokens)
    seconds = {
        # The first of each is not counted.
        "ours": statistics.median(ours[1:]),
        "transformers.generate": statistics.median(theirs[1:]),
        "memory": read / bandwidth,
    }
    drawn = options.prompts * options.group * options.tokens
    for name, value in seconds.items():
        print(f"{name}: {value:.2f} s, {drawn / value:.0f} tokens/s")
    ratio = seconds["transformers.generate"] / seconds["ours"]
    above = seconds["ours"] / seconds["memory"]
    print(f"generate takes {ratio:.2f} times as long as ours, ours {above:.1f} times the memory")
    print(f"{read / 2**30:.2f} GiB to read at {bandwidth / 2**30:.1f} GiB/s")
    note = f", {options.threads} threads used"
    if options.device == "cuda":
        note = f", {devices.device_name(devices.resolve('cuda'))}"
    where = machine("torch", "transformers", "peft", note=note)
    print(where)
    if options.out:
        report = {
            "command": " ".join(["python", *sys.argv]),
            "machine": where,
            "model": options.model,
            "dtype": str(policy.causal_model.dtype).removeprefix("torch."),
            "seconds": {name: round(value, 4) for name, value in seconds.items()},
            "tokens": drawn,
            "gib_read": round(read / 2**30, 3),
            "gib_per_second": round(bandwidth / 2**30, 2),
        }
        options.out.parent.mkdir(parents=True, exist_ok=True)
        options.out.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")


def _ours(policy: Policy, prompts: list[list[int]], group_size: int) -> float:
    policy.causal_model.set_attn_implementation(attention.NAME)
    generator = torch.Generator(policy.device).manual_seed(0)
    return _seconds(lambda: policy.sample(prompts, group_size, generator), policy.device)


def _generate(policy: Policy, prompts: list[list[int]], group_size: int, num_tokens: int) -> float:
    model = policy.causal_model
    model.set_attn_implementation("sdpa")
    longest = max(map(len, prompts))
    ids = torch.tensor([[0] * (longest - len(prompt)) + prompt for prompt in prompts])
    mask = torch.tensor([[0] * (longest - len(prompt)) + [1] * len(prompt) for prompt in prompts])
    return _seconds(
        lambda: model.generate(
            ids.to(policy.device),
            attention_mask=mask.to(policy.device),
            do_sample=True,
            num_return_sequences=group_size,
            min_new_tokens=num_tokens,
            max_new_tokens=num_tokens,
            temperature=1.0,
            top_p=1.0,
            top_k=0,
            repetition_penalty=1.0,
            pad_token_id=0,
        ),
        policy.device,
    )


def _weight_bytes(policy: Policy) -> int:
    """Of the base and the adapter that acts."""
    weights = policy.causal_model.named_parameters()
    return sum(weight.nbytes for name, weight in weights if f".{REFERENCE}." not in name)


def _bytes_read(policy: Policy, prompt_tokens: int, num_rows: int, num_tokens: int) -> int:
    """What decoding has to read at least; the pass over the prompts gives the first token."""
    model = policy.causal_model
    config = model.config
    size = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    keys_and_values = 2 * config.num_hidden_layers * config.num_key_value_heads * size
    a_token: int = keys_and_values * model.dtype.itemsize
    own_tokens = num_rows * num_tokens * (num_tokens - 1) // 2
    weights = num_tokens * _weight_bytes(policy)
    return weights + a_token * ((num_tokens - 1) * prompt_tokens + own_tokens)


def _bandwidth(size: int, device: torch.device) -> float:
    """Bytes that the device's memory moves in a second, over a buffer of ``size``; best of five."""
    source = torch.ones(size // 8, dtype=torch.int64, device=device)
    target = torch.empty_like(source)
    copying = min(_seconds(lambda: target.copy_(source), device) for _ in range(5))
    reading = min(_seconds(source.max, device) for _ in range(5))
    return max(2 * source.nbytes / copying, source.nbytes / reading)


def _seconds(work: Callable[[], object], device: torch.device) -> float:
    """How long ``work`` takes, until the device is done with it."""

    def wait() -> None:
        if device.type == "cuda":
            torch.cuda.synchronize(device)

    wait()
    start = time.perf_counter()
    work()
    wait()
    return time.perf_counter() - start


if __name__ == "__main__":
    main()

"""Decoding: the engine's rollout against transformers.generate, and against reading the weights.

    python bench/decode.py [--prompts 8] [--group 4] [--tokens 55] [--repeats 3] [--threads 1]

The same prompts (of 230 to 250 tokens) on the embedded model with an adapter on all linear layers,
in one process, alternating; medians. The floor is what it takes to read every weight once a
token, the bandwidth taken from reading as many bytes here.
"""

import argparse
import statistics
import time

import torch
from machine import machine
from workload import groups_of_tokens, policy_of_the_demo

from engine.policy import attention
from engine.policy.policy import Policy


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name, default in (
        ("prompts", 8), ("group", 4), ("tokens", 55), ("repeats", 3), ("threads", 1),
    ):  # fmt: skip
        parser.add_argument(f"--{name}", type=int, default=default)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    policy = policy_of_the_demo(options.tokens)
    prompts = [group.prompt for group in groups_of_tokens(options.prompts, options.group, 1)]

    ours, theirs = [], []
    for _ in range(options.repeats):
        ours.append(_ours(policy, prompts, options.group))
        theirs.append(_generate(policy, prompts, options.group, options.tokens))
    drawn = options.prompts * options.group * options.tokens
    floor = options.tokens * _seconds_to_read(policy)
    for name, seconds in (
        ("ours", statistics.median(ours)),
        ("transformers.generate", statistics.median(theirs)),
        ("reading the weights", floor),
    ):
        print(f"{name}: {seconds:.2f} s, {drawn / seconds:.0f} tokens/s")
    ratio = statistics.median(theirs) / statistics.median(ours)
    above = statistics.median(ours) / floor
    print(f"generate takes {ratio:.2f} times as long as ours, ours {above:.1f} times the reading")
    print(machine("torch", "transformers", "peft", note=f", {options.threads} threads used"))


def _ours(policy: Policy, prompts: list[list[int]], group_size: int) -> float:
    policy.causal_model.set_attn_implementation(attention.NAME)
    start = time.perf_counter()
    policy.sample(prompts, group_size, torch.Generator().manual_seed(0))
    return time.perf_counter() - start


def _generate(policy: Policy, prompts: list[list[int]], group_size: int, num_tokens: int) -> float:
    model = policy.causal_model
    model.set_attn_implementation("sdpa")
    longest = max(map(len, prompts))
    ids = torch.tensor([[0] * (longest - len(prompt)) + prompt for prompt in prompts])
    mask = torch.tensor([[0] * (longest - len(prompt)) + [1] * len(prompt) for prompt in prompts])
    start = time.perf_counter()
    model.generate(
        ids,
        attention_mask=mask,
        do_sample=True,
        num_return_sequences=group_size,
        min_new_tokens=num_tokens,
        max_new_tokens=num_tokens,
        temperature=1.0,
        top_p=1.0,
        top_k=0,
        repetition_penalty=1.0,
        pad_token_id=0,
    )
    return time.perf_counter() - start


def _seconds_to_read(policy: Policy) -> float:
    """Seconds for as many bytes as the base's weights have, from memory; best of five."""
    size = sum(weight.nbytes for weight in policy.causal_model.parameters())
    buffer = torch.ones(size // 8, dtype=torch.int64)
    best = float("inf")
    for _ in range(5):
        start = time.perf_counter()
        buffer.max()
        best = min(best, time.perf_counter() - start)
    return best


if __name__ == "__main__":
    main()

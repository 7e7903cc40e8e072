"""The three parts of a GRPO step that run the model: rollout, reference, training pass.

    python bench/step.py [--prompts 8] [--group 4] [--tokens 55] [--repeats 3] [--threads 1]

Medians of seconds on the embedded model with an adapter on all linear layers; peak memory.
"""

import argparse
import resource
import statistics
import time
from collections.abc import Callable

import torch
from machine import machine
from workload import groups_of_tokens, policy_with_adapter


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name, default in (
        ("prompts", 8), ("group", 4), ("tokens", 55), ("repeats", 3), ("threads", 1),
    ):  # fmt: skip
        parser.add_argument(f"--{name}", type=int, default=default)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    policy = policy_with_adapter(options.tokens)
    groups = groups_of_tokens(options.prompts, options.group, options.tokens)
    prompts = [group.prompt for group in groups]
    generator = torch.Generator().manual_seed(0)

    def train() -> None:
        for parts in policy.micro_batches(groups):
            logprobs, _ = policy.logprobs([part.of(groups) for part in parts])
            torch.autograd.backward(logprobs.sum())

    parts: dict[str, Callable[[], object]] = {
        "rollout": lambda: policy.sample(prompts, options.group, generator),
        "reference": lambda: policy.reference_logprobs(groups),
        "train": train,
    }
    seconds: dict[str, list[float]] = {name: [] for name in parts}
    for _ in range(options.repeats):
        for name, part in parts.items():
            start = time.perf_counter()
            part()
            seconds[name].append(time.perf_counter() - start)
    medians = {name: statistics.median(values) for name, values in seconds.items()}
    print(", ".join(f"{name} {value:.2f} s" for name, value in medians.items()))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(f"together {sum(medians.values()):.2f} s, peak memory {peak:.2f} GiB")
    print(machine("torch", "transformers", "peft", note=f", {options.threads} threads used"))


if __name__ == "__main__":
    main()

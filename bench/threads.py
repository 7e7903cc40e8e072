"""How waiting OpenMP threads share few cores: the demo's work, alone and beside a busy neighbour.

    python bench/threads.py

Times 16 decoding steps and one training pass of the demo's model under three ways of waiting, in
fresh processes side by side: spinning for as long as libgomp does by default, not at all, and for
the short time that the worker is started with.
"""

import json
import os
import subprocess
import sys
import time

WAYS = {
    "default": {},
    "passive": {"OMP_WAIT_POLICY": "PASSIVE"},
    "short spin": {"GOMP_SPINCOUNT": "3000"},
}
_SECONDS_MAX = 300


def main() -> None:
    cores = len(os.sched_getaffinity(0))
    for neighbours in (0, 1):
        busy = [
            subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(neighbours)
        ]
        try:
            seconds = {name: _measure(settings) for name, settings in WAYS.items()}
        finally:
            for process in busy:
                process.kill()
                process.wait()
        for name, (decoding, training) in seconds.items():
            ratio = sum(seconds["default"]) / (decoding + training)
            print(
                f"{neighbours} busy neighbours, {cores} cores, {name}: decoding {decoding:.2f} s, "
                f"training pass {training:.2f} s, {ratio:.2f} times the default's speed",
                flush=True,
            )


def _measure(settings: dict[str, str]) -> tuple[float, float]:
    output = subprocess.run(
        [sys.executable, __file__, "child"],
        env=os.environ | settings,
        check=True,
        capture_output=True,
        text=True,
        timeout=_SECONDS_MAX,
    )
    decoding, training = json.loads(output.stdout.splitlines()[-1])
    return decoding, training


def child() -> None:
    """The work in this process; prints the best of three of each part."""
    import torch

    from engine.config import ModelConfig, preset
    from engine.policy.adapters import add_adapters
    from engine.policy.base_model import end_token_ids, load_base_model
    from engine.policy.embedded import default_cache_dir, ensure_embedded_model
    from engine.policy.packing import TokenGroup
    from engine.policy.policy import Policy

    folder = ensure_embedded_model(default_cache_dir(), lambda phase, done, total: None)
    config = preset("demo")
    base, tokenizer = load_base_model(folder, ModelConfig(), torch.device("cpu"))
    policy = Policy(
        add_adapters(base, config.lora, seed=0),
        tokenizer,
        end_token_ids(base, tokenizer),
        config.rollout.model_copy(update={"max_new_tokens": 16}),
        config.optimizer.micro_batch_tokens,
    )
    generator = torch.Generator().manual_seed(0)

    def tokens(count: int) -> list[int]:
        return torch.randint(3, 49_000, (count,), generator=generator).tolist()

    prompts = [tokens(240) for _ in range(4)]
    group = TokenGroup(prompts[0], [tokens(50) for _ in range(8)])
    decoding, training = [], []
    for _ in range(3):
        start = time.perf_counter()
        policy.sample(prompts, 8, generator)
        decoding.append(time.perf_counter() - start)
        start = time.perf_counter()
        torch.autograd.backward(policy.logprobs([group])[0].sum())
        training.append(time.perf_counter() - start)
    print(json.dumps([min(decoding), min(training)]))


if __name__ == "__main__":
    child() if sys.argv[1:] == ["child"] else main()

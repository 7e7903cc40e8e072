"""How waiting OpenMP threads share few cores: a forward pass, quiet and beside busy neighbours.

    python bench/threads.py

Times one packed forward pass of the demo's model under both wait policies in fresh
processes, side by side: alone, and with one process per core that does nothing but spin.
The worker is started with the passive policy because of these figures.
"""

import json
import os
import statistics
import subprocess
import sys
import time

_REPEATS = 7


def main() -> None:
    cores = len(os.sched_getaffinity(0))
    for neighbours in (0, cores):
        busy = [
            subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(neighbours)
        ]
        try:
            seconds = {policy: _measure(policy) for policy in ("ACTIVE", "PASSIVE")}
        finally:
            for process in busy:
                process.kill()
                process.wait()
        ratio = seconds["ACTIVE"] / seconds["PASSIVE"]
        print(
            f"{neighbours} busy neighbours on {cores} cores: active {seconds['ACTIVE']:.2f} s, "
            f"passive {seconds['PASSIVE']:.2f} s, ratio {ratio:.2f}"
        )


def _measure(policy: str) -> float:
    output = subprocess.run(
        [sys.executable, __file__, "child"],
        env=os.environ | {"OMP_WAIT_POLICY": policy},
        check=True,
        capture_output=True,
        text=True,
    )
    return statistics.median(json.loads(output.stdout.splitlines()[-1]))


def child() -> None:
    """Forward passes in this process; prints their seconds."""
    import torch

    from engine.config import ModelConfig
    from engine.policy.base_model import load_base_model
    from engine.policy.embedded import default_cache_dir, ensure_embedded_model
    from engine.policy.logprobs import completion_logprobs
    from engine.policy.packing import TokenGroup, pack

    folder = ensure_embedded_model(default_cache_dir(), lambda phase, done, total: None)
    model, _ = load_base_model(folder, ModelConfig(), torch.device("cpu"))
    generator = torch.Generator().manual_seed(0)

    def tokens(count: int) -> list[int]:
        return torch.randint(3, 49_000, (count,), generator=generator).tolist()

    group = TokenGroup(tokens(240), [tokens(45) for _ in range(8)])
    batch = pack([group], 2, torch.device("cpu"))
    seconds = []
    with torch.no_grad():
        for _ in range(_REPEATS):
            start = time.perf_counter()
            completion_logprobs(model, batch, 1.0)
            seconds.append(time.perf_counter() - start)
    print(json.dumps(seconds))


if __name__ == "__main__":
    child() if sys.argv[1:] == ["child"] else main()

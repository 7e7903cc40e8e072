"""A GRPO step of our engine against one of TRL's GRPOTrainer, on the same work.

    python bench/vs_trl.py --shape 512/8/64 --shape 128/4/128
    python bench/vs_trl.py --model qwen2.5-1.5b-random --device cuda --dtype bf16 --steps 5
    python bench/vs_trl.py --model tiny --shape 16/2/8          does it still work? no download

A shape is tokens of a prompt / completions of it / tokens of a completion. Both sides get the
same base model in the same format, an adapter of the same rank on all linear layers, the same
prompts token by token, the same kind of reward and the same objective with a reference pass, and no
completion ends before its full length; a comparison in which they did not work on as many
tokens is refused. Each side runs in a process of its own, in turns, so that memory is its own too:
one step that is not timed, then the timed ones. Medians over all turns; tokens a second are those
of completions. On a GPU work is queued, and what a phase left in the queue counts as the next
one's. Where anything else is at work on the machine, the ratio means nothing.

Our side is the worker's loop with its store; TRL's are its best plain settings (`match_trl.py`).
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

from machine import machine
from match import Match, Outcome, Step
from models import MODELS, model_folder

from engine.presets import EMBEDDED_MODEL
from engine.runs import devices

ENGINES = ("ours", "trl")
PHASES = ("rollout", "reward", "reference", "train")
_LIBRARIES = ("torch", "transformers", "peft", "trl", "accelerate", "bitsandbytes")


def main() -> None:
    options = _options()
    folder = model_folder(options.model)
    device = devices.resolve(options.device)
    where = "no GPU used" if device == "cpu" else devices.device_name(device)
    report: dict[str, Any] = {
        "command": " ".join(["python", *sys.argv]),
        "machine": machine(*_LIBRARIES, note=f", {where}"),
        "runs": [],
    }
    for prompt_tokens, group_size, completion_tokens in options.shape:
        match = Match(
            folder=str(folder),
            device=device.partition(":")[0],
            dtype=options.dtype,
            quantize=options.quantize,
            prompt_tokens=prompt_tokens,
            group_size=group_size,
            completion_tokens=completion_tokens,
            prompts_per_step=options.prompts_per_step,
            groups_per_batch=options.groups_per_batch,
            steps=options.steps,
        )
        run = {"model": options.model} | asdict(match) | _compare(match, options.turns)
        del run["folder"]
        _print(run)
        report["runs"].append(run)
        if options.out:
            # After every shape: the next one may not fit into memory.
            options.out.parent.mkdir(parents=True, exist_ok=True)
            options.out.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    print(report["machine"])


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--shape", type=_shape, action="append", metavar="P/G/C", help="repeatable; 512/8/64"
    )
    parser.add_argument("--model", choices=MODELS, default=EMBEDDED_MODEL)
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto")
    parser.add_argument("--dtype", choices=("fp32", "bf16"), default="fp32")
    parser.add_argument("--quantize", choices=("none", "nf4"), default="none")
    for name, default, text in (
        ("prompts-per-step", 1, "groups in a step"),
        ("groups-per-batch", 1, "of them in one forward and backward pass, on both sides"),
        ("steps", 3, "timed steps of a turn"),
        ("turns", 2, "processes of each side, in turns"),
    ):
        parser.add_argument(f"--{name}", type=int, default=default, help=text)
    parser.add_argument("--out", type=Path, help="JSON file for the figures")
    options = parser.parse_args()
    options.shape = options.shape or [_shape("512/8/64")]
    if options.prompts_per_step % options.groups_per_batch:
        parser.error("--prompts-per-step must be a multiple of --groups-per-batch")
    return options


def _shape(text: str) -> tuple[int, int, int]:
    prompt_tokens, group_size, completion_tokens = map(int, text.split("/"))
    return prompt_tokens, group_size, completion_tokens


def _compare(match: Match, turns: int) -> dict[str, Any]:
    """Let both sides play in turns; the figures of each and how they compare.

    Raises:
        SystemExit: a side failed, or they did not do the same work.
    """
    before = os.getloadavg()[0]
    outcomes: dict[str, list[Outcome]] = {name: [] for name in ENGINES}
    for _ in range(turns):
        for name in ENGINES:
            outcomes[name].append(_play(name, match))
    _refuse_unequal_work(match, outcomes)
    sides = {name: _figures(match, played) for name, played in outcomes.items()}
    ours, trl = (sides[name] for name in ENGINES)
    return {
        "turns": turns,
        "threads": outcomes["ours"][0].threads,
        "load_average_before": round(before, 2),
        "tokens_of_a_pass": _tokens_of_a_pass(match),
        **sides,
        "trl_by_ours": {
            name: round(trl[name] / ours[name], 2)
            for name in ("step_seconds", "peak_rss_gib", "peak_gpu_gib")
            if ours[name] is not None
        },
    }


def _play(name: str, match: Match) -> Outcome:
    environment = os.environ | {"TRANSFORMERS_VERBOSITY": "error", "TQDM_DISABLE": "1"}
    # With more than one GPU TRL would spread over all of them; the driver's first is named here.
    environment.setdefault("CUDA_VISIBLE_DEVICES", "0")
    environment["CUDA_DEVICE_ORDER"] = "PCI_BUS_ID"
    # As the launcher starts a worker, for both.
    environment.setdefault("GOMP_SPINCOUNT", "3000")
    done = subprocess.run(
        [sys.executable, __file__, "child", name, json.dumps(asdict(match))],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        raise SystemExit(f"{name} ended with {done.returncode}:\n{done.stderr[-3000:]}")
    values = json.loads(done.stdout.splitlines()[-1])
    return Outcome(**values | {"steps": [Step(**step) for step in values["steps"]]})


def _refuse_unequal_work(match: Match, outcomes: dict[str, list[Outcome]]) -> None:
    prompts = match.prompts_per_step
    expected = (
        prompts * match.prompt_tokens,
        prompts * match.group_size * match.completion_tokens,
    )
    played = [outcome for side in outcomes.values() for outcome in side]
    for outcome in played:
        for step in outcome.steps:
            if (step.prompt_tokens, step.completion_tokens) != expected:
                raise SystemExit(f"a step was not on {expected} tokens: {step}")
    if len({outcome.trainable for outcome in played}) > 1:
        raise SystemExit("the adapters are not of the same size")
    if len({tuple(step.prompts for step in outcome.steps) for outcome in played}) > 1:
        raise SystemExit("the steps were not on the same prompts")
    if any(len(outcome.steps) != match.steps + 1 for outcome in played):
        raise SystemExit("a step is missing")


def _figures(match: Match, played: list[Outcome]) -> dict[str, Any]:
    timed = [step for outcome in played for step in outcome.steps[1:]]
    seconds = statistics.median(step.seconds for step in timed)
    phases = {name: statistics.median(step.phases[name] for step in timed) for name in PHASES}
    on_gpu = [outcome.peak_gpu_gib for outcome in played if outcome.peak_gpu_gib is not None]
    return {
        "step_seconds": round(seconds, 3),
        "step_seconds_all": [round(step.seconds, 3) for step in timed],
        "tokens_per_second": round(timed[0].completion_tokens / seconds, 1),
        "phase_seconds": {name: round(value, 3) for name, value in phases.items()},
        "peak_rss_gib": round(max(outcome.peak_rss_gib for outcome in played), 2),
        "peak_gpu_gib": round(max(on_gpu), 2) if on_gpu else None,
    }


def _tokens_of_a_pass(match: Match) -> dict[str, int]:
    """Tokens that a training or reference pass computes: a row a completion, and a row a group."""
    completions = match.group_size * match.completion_tokens
    return {
        "padded": match.prompts_per_step * (match.group_size * match.prompt_tokens + completions),
        "packed": match.prompts_per_step * (match.prompt_tokens + completions),
    }


def _print(run: dict[str, Any]) -> None:
    shape = f"{run['prompt_tokens']}/{run['group_size']}/{run['completion_tokens']}"
    quantized = "" if run["quantize"] == "none" else f" {run['quantize']}"
    print(
        f"{run['model']}{quantized}, {run['dtype']}, {shape}, prompts a step "
        f"{run['prompts_per_step']}; tokens of a pass: padded {run['tokens_of_a_pass']['padded']}, "
        f"packed {run['tokens_of_a_pass']['packed']}"
    )
    print(f"{'':6}{'step s':>10}{'tokens/s':>10}", *(f"{name:>9}" for name in PHASES), end="")
    print(f"{'RSS GiB':>10}{'GPU GiB':>9}")
    for name in ENGINES:
        side = run[name]
        phases = (f"{side['phase_seconds'][phase]:9.3f}" for phase in PHASES)
        gpu = "-" if side["peak_gpu_gib"] is None else f"{side['peak_gpu_gib']:.2f}"
        print(f"{name:6}{side['step_seconds']:10.3f}{side['tokens_per_second']:10.1f}", end="")
        print("", *phases, f"{side['peak_rss_gib']:9.2f}{gpu:>9}")
    ratios = run["trl_by_ours"].items()
    print("TRL ÷ ours: " + ", ".join(f"{name} {ratio:.2f}" for name, ratio in ratios), flush=True)


def child(name: str, match: Match) -> None:
    """Play one side in this process; prints its outcome."""
    if name == "ours":
        from match_engine import play
    else:
        from match_trl import play
    print(json.dumps(asdict(play(match))))


if __name__ == "__main__":
    if sys.argv[1:2] == ["child"]:
        child(sys.argv[2], Match(**json.loads(sys.argv[3])))
    else:
        main()

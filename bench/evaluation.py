"""Evaluating: examples a second of the evaluator, and of a plain loop over transformers.generate.

    python bench/evaluation.py [--examples 1000] [--compared 32] [--rounds 3] [--threads 2]
    python bench/evaluation.py --source stocknet:DIR --out bench/results/evaluation.json

The base model answers compact prompts of the test split greedily, in at most 64 tokens. The
evaluator is timed whole, over all examples: prompts, tokens, completions, scores, and every batch
made durable. The loop takes one prompt after the other and nothing else; both work on the same
prompts in turns, in one process, and the medians of the rounds are compared. The first round is not
counted.
"""

import argparse
import json
import statistics
import sys
import tempfile
import time
from pathlib import Path

import torch
from machine import machine
from models import model_folder

from engine.config import ModelConfig, RunConfig, preset, with_overrides
from engine.evaluation import finish, predictor, request
from engine.evaluation.asked import Asked
from engine.evaluation.evaluator import Evaluator
from engine.evaluation.hosting import Host
from engine.evaluation.preparation import Prepared, prepare
from engine.evaluation.store import PredictionStore
from engine.policy import attention
from engine.policy.adapters import add_adapters
from engine.policy.base_model import end_token_ids, load_base_model
from engine.policy.overlay import acting_as
from engine.policy.policy import Policy
from engine.presets import EMBEDDED_MODEL
from engine.rewards import choice
from engine.runs import directory
from engine.runs.control import Command
from engine.runs.store import EventStore

NEW_TOKENS = 64


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name, default in (("examples", 1000), ("compared", 32), ("rounds", 3), ("threads", 2)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--source", default="demo")
    parser.add_argument("--out", type=Path, help="JSON file for the figures")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    # The report is not what is timed.
    finish.run = lambda folder, is_interrupted: {}
    config = _config(options.source)
    policy = _policy(config)
    with tempfile.TemporaryDirectory() as place:
        run = directory.RunDirectory(Path(place) / "bench")
        run.checkpoints.mkdir(parents=True)
        run.write_config(config)
        wanted = request.build(checkpoints=("base",), examples=options.examples)
        prepared = prepare(run, wanted, out=Path(place) / "evaluation")
        prompts = _prompts(policy, config, prepared)
        # Spread over the lengths that there are.
        step = max(1, len(prompts) // options.compared)
        some = prompts[::step][: options.compared]
        ours, theirs, same, agreed = _compare(policy, some, options.rounds)
        seconds = _whole(run, config, policy, prepared)
    count = prepared.context.num_examples
    tokens = [len(prompt) for prompt in prompts]
    ratio = theirs / ours
    print(f"{count} examples in {seconds:.1f} s: {count / seconds:.2f} examples/s")
    print(f"1,000 examples take {1000 * seconds / count / 60:.1f} min at that pace")
    print(f"on {len(some)} of them ours {len(some) / ours:.2f} examples/s,", end=" ")
    print(f"generate one by one {len(some) / theirs:.2f} examples/s: {ratio:.2f} times")
    # In 16 bits two ways to sum round differently, and one close call changes all that follows.
    print(f"{same} of {len(some)} completions are the same to the last token;", end=" ")
    print(f"on average the first {agreed:.1f} tokens agree")
    print(f"prompts of {min(tokens)} to {max(tokens)} tokens, {policy.causal_model.dtype}")
    where = machine("torch", "transformers", note=f", {options.threads} threads used")
    print(where)
    if options.out:
        report = {
            "command": " ".join(["python", *sys.argv]),
            "machine": where,
            "model": EMBEDDED_MODEL,
            "dtype": str(policy.causal_model.dtype).removeprefix("torch."),
            "source": options.source,
            "examples": count,
            "seconds": round(seconds, 2),
            "examples_per_second": round(count / seconds, 3),
            "compared": {
                "examples": len(some),
                "rounds": options.rounds,
                "seconds": {"ours": round(ours, 3), "transformers.generate": round(theirs, 3)},
                "ratio": round(ratio, 3),
                "same_completions": same,
                "tokens_agreed": round(agreed, 1),
            },
            "prompt_tokens": {
                "min": min(tokens),
                "mean": round(statistics.fmean(tokens), 1),
                "max": max(tokens),
            },
            "max_new_tokens": NEW_TOKENS,
        }
        options.out.parent.mkdir(parents=True, exist_ok=True)
        options.out.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")


def _config(source: str) -> RunConfig:
    return with_overrides(
        preset("demo"),
        [
            f"model.id={EMBEDDED_MODEL}",
            "model.device=cpu",
            "model.dtype=bf16",
            "model.quantize=none",
            f"data.source={json.dumps(source)}",
            "data.style=compact",
            f"rollout.max_new_tokens={NEW_TOKENS}",
        ],
    )


def _policy(config: RunConfig) -> Policy:
    settings = ModelConfig(dtype="bf16", quantize="none")
    base, tokenizer = load_base_model(model_folder(EMBEDDED_MODEL), settings, torch.device("cpu"))
    return Policy(
        model=add_adapters(base, config.lora, config.seed),
        tokenizer=tokenizer,
        end_tokens=end_token_ids(base, tokenizer),
        rollout=config.rollout,
        micro_batch_tokens=config.optimizer.micro_batch_tokens,
    )


def _prompts(policy: Policy, config: RunConfig, prepared: Prepared) -> list[list[int]]:
    """Token ids of all examples, the longest prompts first."""
    predictions = PredictionStore(prepared.folder)
    rows = sorted(predictions.examples(), key=lambda row: -row.length)
    predictions.close()
    asked = [Asked.stored(row, config) for row in rows]
    return [policy.encode_prompt(policy.prompt_text(ask.item)) for ask in asked]


def _compare(
    policy: Policy, prompts: list[list[int]], rounds: int
) -> tuple[float, float, int, float]:
    """Median seconds of ours and of the loop, how many completions are the same, and how many
    tokens at their beginnings on average."""
    ours, theirs = [], []
    for _ in range(rounds + 1):
        start = time.perf_counter()
        made = _ours(policy, prompts)
        ours.append(time.perf_counter() - start)
        start = time.perf_counter()
        plain = _one_by_one(policy, prompts)
        theirs.append(time.perf_counter() - start)
    same = sum(one == other for one, other in zip(made, plain, strict=True))
    agreed = statistics.fmean(
        next((at for at, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), len(one))
        for one, other in zip(made, plain, strict=True)
    )
    return statistics.median(ours[1:]), statistics.median(theirs[1:]), same, agreed


def _ours(policy: Policy, prompts: list[list[int]]) -> list[list[int]]:
    policy.causal_model.set_attn_implementation(attention.NAME)
    rows = predictor.batch_rows(policy.rollout)
    made: list[list[int]] = []
    with acting_as(policy.model, None):
        for start in range(0, len(prompts), rows):
            some = prompts[start : start + rows]
            groups = predictor.complete(
                policy,
                some,
                rollout=policy.rollout,
                samples=1,
                temperature=0.0,
                seeds=[0] * len(some),
            )
            made += [completion.tokens for (completion,) in groups]
    return made


def _one_by_one(policy: Policy, prompts: list[list[int]]) -> list[list[int]]:
    model = policy.causal_model
    model.set_attn_implementation("sdpa")
    made: list[list[int]] = []
    with acting_as(policy.model, None):
        for prompt in prompts:
            ids = torch.tensor([prompt])
            completed = model.generate(
                ids,
                attention_mask=torch.ones_like(ids),
                do_sample=False,
                max_new_tokens=NEW_TOKENS,
                eos_token_id=sorted(policy.end_tokens),
                pad_token_id=policy.pad_id,
                # As a model's own configuration may say otherwise.
                temperature=None,
                top_p=None,
                top_k=None,
                repetition_penalty=1.0,
            )
            made.append(completed[0, len(prompt) :].tolist())
    return made


def _whole(
    run: directory.RunDirectory, config: RunConfig, policy: Policy, prepared: Prepared
) -> float:
    """Seconds that the evaluator takes for everything."""
    policy.causal_model.set_attn_implementation(attention.NAME)
    events = EventStore(run.database)
    evaluator = Evaluator(run, config, policy, choice.resolve(config.reward), events)
    command = Command("bench", request.VERB, request.payload(prepared.folder))

    def tell(done: int, total: int, eta: float | None) -> None:
        if eta is not None:
            print(f"{done} of {total}, {eta / 60:.1f} min left", file=sys.stderr)

    start = time.perf_counter()
    ok, message = evaluator.answer(command, Host(lambda: False, progress=tell))
    seconds = time.perf_counter() - start
    events.close()
    if not ok:
        raise SystemExit(message)
    return seconds


if __name__ == "__main__":
    main()

"""TRL's side of `vs_trl.py`: GRPOTrainer with its best plain settings for this work.

Generation by transformers with the KV cache, fused attention, no gradient checkpointing (which
saves memory at the price of time), no logging and no saving; the loss is the one of our engine.
What cannot be set alike: on a 4-bit base TRL rounds its adapter to bf16, where ours stays fp32.
"""

import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from match import (
    KL_COEFFICIENT,
    LEARNING_RATE,
    LORA_ALPHA,
    LORA_RANK,
    Match,
    Outcome,
    Step,
    make_outcome,
    make_step,
    prompt_texts,
    reward,
)
from models import load_tokenizer
from peft import LoraConfig
from transformers import AutoModelForCausalLM, BitsAndBytesConfig, TrainerCallback
from trl.trainer.grpo_config import GRPOConfig
from trl.trainer.grpo_trainer import GRPOTrainer


def play(match: Match) -> Outcome:
    """Train for the steps of ``match``."""
    tokenizer = load_tokenizer(Path(match.folder))
    with tempfile.TemporaryDirectory(prefix="stonk-bench-") as folder:
        trainer = _StoppedTrainer(
            model=_base_model(match),
            reward_funcs=_rewards,
            args=_arguments(match, folder),
            train_dataset=Dataset.from_dict({"prompt": prompt_texts(tokenizer, match)}),
            processing_class=tokenizer,
            peft_config=LoraConfig(
                r=LORA_RANK,
                lora_alpha=LORA_ALPHA,
                lora_dropout=0.0,
                target_modules="all-linear",
                task_type="CAUSAL_LM",
            ),
        )
        trainer.add_callback(_Stopwatch(trainer))
        trainer.train()
    assert trainer.model is not None
    weights = trainer.model.parameters()
    trainable = sum(weight.numel() for weight in weights if weight.requires_grad)
    return make_outcome(match, trainer.steps, trainable)


def _base_model(match: Match) -> Any:
    dtype = {"fp32": torch.float32, "bf16": torch.bfloat16}[match.dtype]
    quantization = BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_compute_dtype=dtype,
        bnb_4bit_use_double_quant=True,
    )
    return AutoModelForCausalLM.from_pretrained(
        match.folder,
        dtype=dtype,
        attn_implementation="sdpa",
        quantization_config=quantization if match.quantize == "nf4" else None,
        device_map={"": match.device},
    )


def _arguments(match: Match, folder: str) -> GRPOConfig:
    return GRPOConfig(
        output_dir=folder,
        use_cpu=match.device == "cpu",
        bf16=match.dtype == "bf16",
        gradient_checkpointing=False,
        # A step's completions are sampled together and taught a batch of whole groups at a time.
        num_generations=match.group_size,
        per_device_train_batch_size=match.groups_per_batch * match.group_size,
        gradient_accumulation_steps=match.prompts_per_step // match.groups_per_batch,
        max_completion_length=match.completion_tokens,
        generation_kwargs={"min_new_tokens": match.completion_tokens},
        temperature=1.0,
        top_p=1.0,
        top_k=0,
        shuffle_dataset=False,
        loss_type="dr_grpo",
        scale_rewards="none",
        num_iterations=1,
        epsilon=0.2,
        beta=KL_COEFFICIENT,
        use_bias_correction_kl=False,
        learning_rate=LEARNING_RATE,
        lr_scheduler_type="constant",
        weight_decay=0.0,
        max_grad_norm=1.0,
        max_steps=match.steps + 1,
        seed=7,
        dataloader_pin_memory=False,
        logging_strategy="no",
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
    )


def _rewards(completions: list[str], **columns: Any) -> list[float]:
    return [reward(completion) for completion in completions]


class _StoppedTrainer(GRPOTrainer):
    """TRL's trainer with a stopwatch at its phases; what it computes is untouched."""

    def __init__(self, **arguments: Any) -> None:
        self.steps: list[Step] = []
        self._spent: dict[str, float] = defaultdict(float)
        self._generated: list[tuple[list[list[int]], list[list[int]]]] = []
        super().__init__(**arguments)

    def end_step(self, seconds: float) -> None:
        """Note the step that took so long, and begin another one."""
        phases = {name: self._spent[name] for name in ("rollout", "reward")}
        phases["reference"] = self._spent["scored"] - sum(phases.values())
        phases["train"] = seconds - self._spent["scored"]
        # Each prompt stands there once for every completion.
        prompts = {tuple(ids) for prompt_ids, _ in self._generated for ids in prompt_ids}
        tokens = sum(len(ids) for _, completions in self._generated for ids in completions)
        self.steps.append(make_step(seconds, phases, prompts, tokens))
        self._spent.clear()
        self._generated.clear()

    def _generate(self, prompts: Any) -> Any:
        with self._spending("rollout"):
            generated = super()._generate(prompts)
        prompt_ids, completion_ids, *_ = generated
        self._generated.append((prompt_ids, completion_ids))
        return generated

    def _calculate_rewards(self, *arguments: Any) -> Any:
        with self._spending("reward"):
            return super()._calculate_rewards(*arguments)

    def _generate_and_score_completions(self, inputs: Any) -> Any:
        with self._spending("scored"):
            return super()._generate_and_score_completions(inputs)

    @contextmanager
    def _spending(self, phase: str) -> Iterator[None]:
        start = time.perf_counter()
        yield
        self._spent[phase] += time.perf_counter() - start


class _Stopwatch(TrainerCallback):
    """Times a step from before its rollout to after its update."""

    def __init__(self, trainer: _StoppedTrainer) -> None:
        self._trainer = trainer
        self._start = 0.0

    def on_step_begin(self, *arguments: Any, **keywords: Any) -> None:
        self._start = time.perf_counter()

    def on_step_end(self, *arguments: Any, **keywords: Any) -> None:
        self._trainer.end_step(time.perf_counter() - self._start)

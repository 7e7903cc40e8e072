"""A language model of a few thousand weights with a byte tokenizer, and a task for it."""

import random
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
from transformers import (
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
)

from engine.config import LoraSection, RolloutConfig, RunConfig, build
from engine.policy import attention
from engine.policy.adapters import add_adapters
from engine.policy.policy import Policy
from engine.policy.stack import whole_policy
from engine.task import Assessment, ComponentScore, Item

_SIZES: dict[str, Any] = {
    "vocab_size": 260,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 512,
    "eos_token_id": 257,
    "pad_token_id": 257,
    "bos_token_id": 256,
    "tie_word_embeddings": True,
}


def tiny_tokenizer() -> PreTrainedTokenizerFast:
    """One token a byte, ``<|im_start|>`` 256 and ``<|im_end|>`` 257."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {character: index for index, character in enumerate(alphabet)}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(
        [AddedToken("<|im_start|>", special=True), AddedToken("<|im_end|>", special=True)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token="<|im_end|>",
        pad_token="<|im_end|>",
        chat_template=(
            "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n'"
            " + message['content'] + '<|im_end|>\n' }}{% endfor %}"
            "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
        ),
    )


def tiny_base(family: str = "llama", seed: int = 0, **sizes: Any) -> Any:
    """A randomly initialised model in eval mode, weights large enough to have opinions."""
    torch.manual_seed(seed)
    config_class, model_class = {
        "llama": (LlamaConfig, LlamaForCausalLM),
        "qwen2": (Qwen2Config, Qwen2ForCausalLM),
        "qwen3": (Qwen3Config, Qwen3ForCausalLM),
    }[family]
    config = config_class(**{**_SIZES, "head_dim": 8, "initializer_range": 0.3, **sizes})
    model = model_class(config).eval()
    model.requires_grad_(False)
    return model


def tiny_policy(
    family: str = "llama", *, seed: int = 0, dropout: float = 0.0, **rollout: Any
) -> Policy:
    """A policy whose adapter already differs from its base and from its reference."""
    base = tiny_base(family, seed)
    base.set_attn_implementation(attention.NAME)
    return policy_on(base, LoraSection(r=4, alpha=8, dropout=dropout), seed=seed, **rollout)


def policy_on(base: Any, lora: LoraSection, *, seed: int = 0, **rollout: Any) -> Policy:
    """A policy on ``base`` whose adapter already differs from its reference."""
    settings = {"group_size": 4, "max_new_tokens": 12, "context": 512} | rollout
    model = add_adapters(base, lora, seed=seed)
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in model.named_parameters():
        if "lora_B.default" in name:
            noise = 0.1 * torch.randn(parameter.shape, generator=generator)
            parameter.data = noise.to(parameter.device)
    return Policy(
        model=model,
        tokenizer=tiny_tokenizer(),
        end_tokens=frozenset({257}),
        rollout=RolloutConfig.model_validate(settings),
        micro_batch_tokens=4096,
    )


def save_tiny_model(folder: Path, family: str = "llama") -> Path:
    """The tiny model and tokenizer as files that a worker can load."""
    tiny_base(family).save_pretrained(folder)
    tiny_tokenizer().save_pretrained(folder)
    return folder


def save_whole_policy(model: PeftModel, folder: Path) -> None:
    """The files of an ordinary adapter, as at the root of a checkpoint."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, data in whole_policy(model).items():
        (folder / name).write_bytes(data)


def tiny_config(model: Path, **sections: Any) -> RunConfig:
    """A configuration that trains the tiny model in a second or two."""
    values: dict[str, Any] = {
        "name": "tiny",
        "model": {"id": str(model), "device": "cpu", "dtype": "fp32"},
        "lora": {"r": 4, "alpha": 8, "dropout": 0.0},
        "warmup": {"steps": 2, "prompts_per_step": 1, "answers_per_prompt": 2},
        "rollout": {
            "prompts_per_step": 2,
            "group_size": 2,
            "max_new_tokens": 8,
            "context": 2048,
        },
        "schedule": {"max_steps": 4, "save_every": 2, "eval_every": 2, "eval_samples": 4},
    }
    for section, content in sections.items():
        values[section] = values.get(section, {}) | content
    return build(values, where="test")


class VowelTask:
    """Reward the share of vowels in the completion: something a tiny model can learn."""

    name = "vowels"
    weights: Mapping[str, float] = {"vowels": 1.0}
    num_training_items = 8
    is_synthetic = True
    shaped = 0
    """Batches that were shaped; survives a resume like any statistic."""

    def training_item(self, index: int) -> Item:
        return _item(index % self.num_training_items)

    def validation_items(self, count: int) -> Sequence[Item]:
        return [_item(100 + index) for index in range(count)]

    def demonstrations(self, item: Item, count: int, rng: random.Random) -> list[str]:
        return [rng.choice(["aeiou", "bcdfg"]) for _ in range(count)]

    def assess(self, item: Item, completion: str) -> Assessment:
        share = sum(letter in "aeiou" for letter in completion) / max(1, len(completion))
        return Assessment(
            components=(ComponentScore("vowels", share, 1.0, f"{share:.0%} vowels"),),
            prediction={"error": None},
            rubric={"prediction": 0.0, "reasoning": 0.0, "total": 0.0},
        )

    def shape(self, judged: Sequence[tuple[Item, Assessment]]) -> list[Assessment]:
        self.shaped += 1
        return [assessment for _, assessment in judged]

    def state(self) -> dict[str, Any]:
        return {"shaped": self.shaped}

    def restore(self, state: Mapping[str, Any]) -> None:
        self.shaped = state["shaped"]

    def validation_metrics(self, judged: Sequence[tuple[Item, Assessment]]) -> dict[str, float]:
        return self.metrics(judged) | {"accuracy": 0.5, "parsed": 1.0}

    def metrics(self, judged: Sequence[tuple[Item, Assessment]]) -> dict[str, float]:
        rewards = [assessment.reward for _, assessment in judged]
        return {"reward/total": sum(rewards) / len(rewards)}


def _item(number: int) -> Item:
    return Item(
        key=f"item-{number}",
        messages=({"role": "user", "content": f"Write vowels, please ({number})."},),
        subject={"number": number},
    )

"""The work that the speed benches time: the demo's model with an adapter, and groups of tokens."""

import torch

from engine.config import LoraSection, ModelConfig, preset
from engine.policy.adapters import add_adapters, trainable_parameters
from engine.policy.base_model import load_base_model
from engine.policy.embedded import default_cache_dir, ensure_embedded_model
from engine.policy.packing import TokenGroup
from engine.policy.policy import Policy


def policy_of_the_demo(max_new_tokens: int) -> Policy:
    """SmolLM2-135M on the CPU under an adapter of rank 16 on all linear layers.

    Its completions run to their full length: the one token that ends them hardly ever comes.
    """
    config = preset("demo")
    folder = ensure_embedded_model(default_cache_dir(), lambda phase, done, total: None)
    base, tokenizer = load_base_model(folder, ModelConfig(), torch.device("cpu"))
    lora = LoraSection(r=16, alpha=32, targets="all-linear", dropout=0.0)
    policy = Policy(
        add_adapters(base, lora, seed=0),
        tokenizer,
        frozenset({len(tokenizer) - 1}),
        config.rollout.model_copy(update={"max_new_tokens": max_new_tokens}),
        config.optimizer.micro_batch_tokens,
    )
    # A fresh adapter is zero, and products with zeros are no work for some processors.
    generator = torch.Generator().manual_seed(0)
    for name, parameter in trainable_parameters(policy.model).items():
        if "lora_B" in name:
            parameter.data = 0.002 * torch.randn(parameter.shape, generator=generator)
    return policy


def groups_of_tokens(num_prompts: int, group_size: int, num_tokens: int) -> list[TokenGroup]:
    """Prompts of 230 to 250 random tokens, completions of up to ``num_tokens``, both ragged."""
    generator = torch.Generator().manual_seed(0)

    def tokens(count: int) -> list[int]:
        return torch.randint(3, 49_000, (count,), generator=generator).tolist()

    return [
        TokenGroup(
            tokens(230 + 7 * number % 21),
            [tokens(max(1, num_tokens - 5 * sample % 16)) for sample in range(group_size)],
        )
        for number in range(num_prompts)
    ]

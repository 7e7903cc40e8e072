"""The work that the speed benches time: a model with an adapter, and groups of tokens."""

import torch
from models import model_folder

from engine.config import LoraSection, ModelConfig, preset
from engine.policy.adapters import add_adapters, trainable_parameters
from engine.policy.base_model import load_base_model
from engine.policy.packing import TokenGroup
from engine.policy.policy import Policy
from engine.presets import EMBEDDED_MODEL


class EndlessPolicy(Policy):
    """A policy with no end tokens: its completions all run to their full length."""

    @property
    def pad_id(self) -> int:
        """Any id will do."""
        return 0


def policy_with_adapter(
    max_new_tokens: int, model: str = EMBEDDED_MODEL, device: str = "cpu"
) -> Policy:
    """``model``, in the format that ``device`` computes in, under an adapter on all its linears."""
    config = preset("demo")
    base, tokenizer = load_base_model(
        model_folder(model), ModelConfig(quantize="none"), torch.device(device)
    )
    lora = LoraSection(r=16, alpha=32, targets="all-linear", dropout=0.0)
    policy = EndlessPolicy(
        add_adapters(base, lora, seed=0),
        tokenizer,
        frozenset(),
        config.rollout.model_copy(update={"max_new_tokens": max_new_tokens}),
        config.optimizer.micro_batch_tokens,
    )
    # A fresh adapter is zero, and products with zeros are no work for some processors.
    generator = torch.Generator().manual_seed(0)
    for name, parameter in trainable_parameters(policy.model).items():
        if "lora_B" in name:
            values = 0.002 * torch.randn(parameter.shape, generator=generator)
            parameter.data = values.to(parameter.device)
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

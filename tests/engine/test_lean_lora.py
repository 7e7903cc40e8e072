"""Adapter layers against PEFT's own forward pass."""

import peft
import pytest
import torch
from peft.tuners.lora import LoraLayer

from engine.policy.adapters import base_policy, trainable_parameters
from tests.tiny import tiny_base, tiny_policy

_IDS = torch.tensor([[256, 1, 2, 3, 77, 8]])


def _give_back(model: peft.PeftModel) -> None:
    """Let the layers run PEFT's own forward pass again."""
    for module in model.modules():
        if isinstance(module, LoraLayer):
            del module.forward


def test_outputs_and_gradients_are_those_of_peft() -> None:
    policy = tiny_policy("qwen2")
    parameters = trainable_parameters(policy.model)
    results = []
    for prepare in (lambda model: None, _give_back):
        prepare(policy.model)
        logits = policy.causal_model(input_ids=_IDS).logits
        gradients = torch.autograd.grad(logits.logsumexp(-1).sum(), list(parameters.values()))
        results.append([logits, *gradients])
    for ours, theirs in zip(*results, strict=True):
        assert torch.allclose(
            ours, theirs, atol=1e-5 * max(1.0, float(theirs.detach().abs().max()))
        )


def test_on_a_16_bit_base_the_gradients_reach_the_fp32_weights() -> None:
    policy = tiny_policy()
    exact = _gradients(policy)
    # PEFT's own .to() would round the adapter too.
    for module in policy.model.modules():
        if isinstance(module, LoraLayer):
            module.get_base_layer().to(torch.bfloat16)
        elif not list(module.children()) and not any(p.requires_grad for p in module.parameters()):
            module.to(torch.bfloat16)
    rounded = _gradients(policy)
    for name, gradient in rounded.items():
        assert gradient.dtype == torch.float32
        distance = (gradient - exact[name]).norm() / exact[name].norm()
        assert distance < 0.1, name


def _gradients(policy) -> dict[str, torch.Tensor]:
    parameters = trainable_parameters(policy.model)
    loss = policy.causal_model(input_ids=_IDS).logits.float().logsumexp(-1).sum()
    return dict(zip(parameters, torch.autograd.grad(loss, list(parameters.values())), strict=True))


@pytest.mark.parametrize("state", ["disabled", "merged"])
def test_an_adapter_that_is_off_or_merged_is_not_added(state: str) -> None:
    policy = tiny_policy()
    if state == "disabled":
        with base_policy(policy.model):
            found = policy.causal_model(input_ids=_IDS).logits
        expected = tiny_base()(input_ids=_IDS).logits
    else:
        expected = policy.causal_model(input_ids=_IDS).logits
        policy.model.merge_adapter()
        found = policy.causal_model(input_ids=_IDS).logits
    assert torch.allclose(found, expected, atol=1e-5)

"""The arithmetic of a step, by hand and by torch's own counter."""

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from engine.policy.packing import TokenGroup
from engine.training.flops import ModelShape, peak_flops, step_flops
from tests.tiny import tiny_policy

SHAPE = ModelShape(
    hidden=4, intermediate=8, layers=2, heads=2, key_value_heads=1, head_dim=3, vocabulary=10
)
GROUP = TokenGroup([1, 2, 3], [[4, 5], [6]])


def test_weights_are_those_of_attention_and_mlp() -> None:
    # q and o 4 x 6, k and v 4 x 3, three of 4 x 8; two layers.
    assert SHAPE.weights == 2 * (2 * 24 + 2 * 12 + 3 * 32)


def test_a_step_by_hand() -> None:
    products = 2 * SHAPE.weights * 6 + 2 * 4 * 10 * 3
    # The prompt 1 + 2 + 3, the completions 4 + 5 and 4.
    attention = 4 * 2 * 2 * 3 * (6 + 9 + 4)
    forward = products + attention
    train = 2 * products + 3 * attention
    assert step_flops(SHAPE, [GROUP], [GROUP], has_reference=True, iterations=1) == (
        2 * forward + train
    )
    assert step_flops(SHAPE, [GROUP], [GROUP], has_reference=False, iterations=3) == (
        forward + 3 * train
    )
    assert step_flops(SHAPE, [GROUP, GROUP], [], has_reference=False, iterations=1) == 2 * forward


def test_products_are_as_many_as_torch_counts() -> None:
    policy = tiny_policy()
    model = policy.causal_model
    tokens = torch.ones(1, 7, dtype=torch.long)
    counter = FlopCounterMode(display=False)
    with torch.no_grad(), policy.model.disable_adapter(), counter:
        model.model(tokens)
    counted = counter.get_flop_counts()["Global"]
    products = sum(counted.get(name, 0) for name in (torch.ops.aten.mm, torch.ops.aten.addmm))
    shape = ModelShape.of(model.config)
    assert products == 2 * 7 * shape.weights


@pytest.mark.parametrize(
    ("name", "dtype", "peak"),
    [
        ("NVIDIA H200", torch.bfloat16, 989e12),
        ("NVIDIA H100 PCIe", torch.bfloat16, 756e12),
        ("NVIDIA H100 80GB HBM3", torch.bfloat16, 989e12),
        ("NVIDIA GeForce GTX 1080 Ti", torch.float16, None),
        ("AMD EPYC", torch.float32, None),
    ],
)
def test_peaks_go_by_the_devices_name(name: str, dtype: torch.dtype, peak: float | None) -> None:
    assert peak_flops(name, dtype) == peak

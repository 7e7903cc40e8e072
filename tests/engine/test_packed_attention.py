"""Attention by pieces against torch's own with a mask, forwards and backwards."""

import pytest
import torch

from engine.policy.packed_attention import packed_attention
from engine.policy.packing import TokenGroup, pack

_GROUPS = [
    # Longer than one stretch of a prompt, and completions of a single token and of many.
    TokenGroup([1] * 300, [[2] * 40, [3], [4] * 17]),
    TokenGroup([1] * 9, [[2] * 5]),
]


def _tensors(dtype: torch.dtype, length: int) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [
        torch.randn(2, heads, length, 16, generator=generator).to(dtype).requires_grad_()
        for heads in (6, 2, 2)
    ]


@pytest.mark.parametrize(
    ("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.bfloat16, 2e-2)], ids=str
)
def test_output_and_gradients_are_those_of_masked_attention(
    dtype: torch.dtype, tolerance: float
) -> None:
    batch = pack(_GROUPS, 0, torch.device("cpu"))
    length = batch.input_ids.shape[1]
    query, key, value = _tensors(dtype, length)
    scaling = 0.3
    ours = packed_attention(query, key, value, batch.pieces, scaling)
    theirs = torch.nn.functional.scaled_dot_product_attention(
        query.float(),
        key.float().repeat_interleave(3, dim=1),
        value.float().repeat_interleave(3, dim=1),
        attn_mask=batch.mask,
        scale=scaling,
    ).transpose(1, 2)
    real = torch.arange(length) < torch.tensor([[g.num_tokens] for g in _GROUPS])
    outer = torch.randn(theirs.shape, generator=torch.Generator().manual_seed(1)).to(dtype)
    outer = outer * real[..., None, None]
    assert torch.allclose(ours[real].float(), theirs[real], atol=tolerance)
    assert ours[~real].abs().sum() == 0
    found = torch.autograd.grad(ours, (query, key, value), outer)
    expected = torch.autograd.grad(theirs, (query, key, value), outer.float())
    for one, other in zip(found, expected, strict=True):
        scale = float(other.abs().max())
        assert torch.allclose(one.float(), other.float(), atol=tolerance * scale)


def test_pieces_say_what_the_mask_says() -> None:
    batch = pack(_GROUPS, 0, torch.device("cpu"))
    for row, group in enumerate(_GROUPS):
        seen = torch.zeros_like(batch.mask[row, 0])
        for start, stop, shared in batch.pieces[row]:
            seen[start:stop, :shared] = True
            seen[start:stop, start:stop] = torch.ones(stop - start, stop - start).tril().bool()
        real = slice(0, group.num_tokens)
        assert torch.equal(seen[real], batch.mask[row, 0, real])


def test_settings_of_matrix_products_are_put_back() -> None:
    before = torch.backends.mkldnn.matmul.fp32_precision
    batch = pack(_GROUPS, 0, torch.device("cpu"))
    tensors = _tensors(torch.bfloat16, batch.input_ids.shape[1])
    packed_attention(*tensors, batch.pieces, 1.0).sum().backward()
    assert torch.backends.mkldnn.matmul.fp32_precision == before

"""Attention within packed rows on a CPU: only the blocks that are seen, as plain matrix products.

torch's fused kernel goes through all of a row's keys for every query, and is slow backwards. In a
packed row a query sees the prompt and what stands before it in its own completion, so the products
with other completions are left out. Probabilities are computed again in the backward pass
rather than kept (as in FlashAttention, Dao et al. 2022, arXiv:2205.14135).

Shapes: N rows of L tokens, H query heads, K key heads, each serving H / K adjacent query heads, D
size of a head; of one piece X queries times H / K, and Y keys.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from engine.policy.packing import Piece

Pieces = Sequence[Sequence[Piece]]


def packed_attention(
    query: Tensor, key: Tensor, value: Tensor, pieces: Pieces, scaling: float
) -> Tensor:
    """Softmax attention of every piece to the keys it shares and, causally, to itself.

    Args:
        query: (N, H, L, D).
        key, value: (N, K, L, D).
        pieces: of each of the N rows.
        scaling: of the products of query and key.

    Returns:
        (N, L, H, D); zeros where no piece is.
    """
    attend: Any = _PackedAttention.apply
    output: Tensor = attend(query, key, value, pieces, scaling)
    return output


class _PackedAttention(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, query: Tensor, key: Tensor, value: Tensor, pieces: Pieces, scaling: float
    ) -> Tensor:
        ctx.save_for_backward(query, key, value)
        ctx.pieces, ctx.scaling = pieces, scaling
        num_rows, num_heads, length, size = query.shape
        output = query.new_empty(num_rows, length, num_heads, size)
        for row in range(num_rows):
            keys, values = key[row], value[row]
            queries = _by_key_head(query[row], len(keys))
            found = torch.zeros_like(queries)
            for piece in pieces[row]:
                here = _queries_of(piece, num_heads // len(keys))
                weights = _probabilities(queries[:, here], keys, piece, scaling)
                found[:, here] = weights.to(value.dtype) @ _seen(values, piece)
            output[row] = _by_query_head(found, length).transpose(0, 1)
        return output

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        query, key, value = ctx.saved_tensors
        num_heads, length = query.shape[1:3]
        to_query, to_key, to_value = (torch.empty_like(tensor) for tensor in (query, key, value))
        for row, gradient in enumerate(gradients[0]):
            keys, values = key[row], value[row]
            queries = _by_key_head(query[row], len(keys))
            outer = _by_key_head(gradient.transpose(0, 1), len(keys))
            found = torch.zeros_like(queries)
            # All pieces add to the prompt's keys: in 16 bits the small ones would be lost.
            at_keys, at_values = (torch.zeros_like(t, dtype=torch.float32) for t in (keys, values))
            for piece in ctx.pieces[row]:
                here = _queries_of(piece, num_heads // len(keys))
                weights = _probabilities(queries[:, here], keys, piece, ctx.scaling)
                inner = _products(outer[:, here], _seen(values, piece))
                # Through the softmax: p * (inner - sum of p * inner).
                scores = torch._softmax_backward_data(inner, weights, -1, torch.float32)
                scores = scores.mul_(ctx.scaling).to(query.dtype)
                found[:, here] = scores @ _seen(keys, piece)
                _add(at_keys, scores.transpose(1, 2) @ queries[:, here], piece)
                weights = weights.to(value.dtype)
                _add(at_values, weights.transpose(1, 2) @ outer[:, here], piece)
            to_query[row] = _by_query_head(found, length)
            to_key[row], to_value[row] = at_keys, at_values
        return to_query, to_key, to_value, None, None


def _by_key_head(of_row: Tensor, num_key_heads: int) -> Tensor:
    """(H, L, D) to (K, L * H / K, D): queries at one place that meet the same keys adjacent."""
    num_heads, length, size = of_row.shape
    grouped = of_row.view(num_key_heads, num_heads // num_key_heads, length, size)
    return grouped.transpose(1, 2).flatten(1, 2)


def _by_query_head(queries: Tensor, length: int) -> Tensor:
    """The way back."""
    num_key_heads, _, size = queries.shape
    return queries.view(num_key_heads, length, -1, size).transpose(1, 2).flatten(0, 1)


def _queries_of(piece: Piece, heads: int) -> slice:
    return slice(piece.start * heads, piece.stop * heads)


def _seen(of_row: Tensor, piece: Piece) -> Tensor:
    """(K, L, D) to (K, Y, D): what the piece shares, then its own."""
    return torch.cat([of_row[:, : piece.shared], of_row[:, piece.start : piece.stop]], dim=1)


def _add(of_row: Tensor, found: Tensor, piece: Piece) -> None:
    """Add (K, Y, D) where ``_seen`` took it from."""
    of_row[:, : piece.shared] += found[:, : piece.shared]
    of_row[:, piece.start : piece.stop] += found[:, piece.shared :]


def _probabilities(queries: Tensor, keys: Tensor, piece: Piece, scaling: float) -> Tensor:
    """(K, X, Y) float32."""
    scores = _products(queries, _seen(keys, piece)).mul_(scaling)
    own = piece.stop - piece.start
    heads = queries.shape[1] // own
    rounded = -(-own // 256) * 256
    scores[..., piece.shared :] += _future(rounded, heads)[: own * heads, :own]
    return torch.softmax(scores, dim=-1)


@lru_cache(maxsize=2)
def _future(length: int, heads: int) -> Tensor:
    """(length * heads, length): -inf where a key comes after the query, else 0."""
    mask = torch.full((length, length), -torch.inf).triu(1)
    return mask.repeat_interleave(heads, dim=0)


def _products(left: Tensor, right: Tensor) -> Tensor:
    """(K, X, D) times (K, Y, D) to (K, X, Y) float32."""
    with _fast_products(left.dtype):
        return left.float() @ right.float().transpose(1, 2)


@contextmanager
def _fast_products(dtype: torch.dtype) -> Iterator[None]:
    """Let oneDNN round fp32 operands to bf16 where they are copies of bf16 and nothing is lost.

    Sums and results stay fp32.
    """
    settings: Any = torch.backends.mkldnn.matmul  # type: ignore[attr-defined]
    before = settings.fp32_precision
    if dtype == torch.bfloat16:
        settings.fp32_precision = "bf16"
    try:
        yield
    finally:
        settings.fp32_precision = before

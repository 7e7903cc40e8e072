"""Draw tokens from a tempered distribution, or take the most likely ones.

One uniform number a row and the inverse of the cumulative distribution: torch's own draw takes
an exponential one for every token of the vocabulary, which on a CPU costs more than the model's
projection on it.

Shapes: R rows, V vocabulary.
"""

import torch
from torch import Tensor

from engine.errors import NotFiniteError

_BLOCK = 256
"""Tokens whose probabilities are summed before one of them is looked for."""


def draw(logits: Tensor, temperature: float, uniform: Tensor) -> tuple[Tensor, Tensor]:
    """One token a row, from softmax(``logits`` / ``temperature``) in fp32.

    A token whose probability is 0 in fp32 is never drawn.

    Args:
        logits: (R, V) in any float format.
        uniform: (R,) float64 in [0, 1), the random number of each row.

    Returns:
        (R,) int64 tokens and (R,) float32 log-probabilities.

    Raises:
        NotFiniteError: a row's logits are not finite.
    """
    num_rows, vocabulary = logits.shape
    num_blocks = -(-vocabulary // _BLOCK)
    mass = logits.new_full((num_rows, num_blocks * _BLOCK), -torch.inf, dtype=torch.float32)
    mass[:, :vocabulary] = logits
    if temperature != 1:
        mass /= temperature
    highest = mass.amax(1, keepdim=True)
    blocks = mass.sub_(highest).exp_().view(num_rows, num_blocks, _BLOCK)
    up_to = blocks.sum(2).double().cumsum(1)  # (R, blocks)
    total = up_to[:, -1:]
    if not bool(total.isfinite().all()):
        raise NotFiniteError("the model's logits were not finite")

    target = _below(uniform[:, None] * total, total)
    block = torch.searchsorted(up_to, target, right=True)
    start = torch.where(block > 0, up_to.gather(1, (block - 1).clamp(min=0)), 0.0)
    share = (target - start) / (up_to.gather(1, block) - start)
    inside = blocks[torch.arange(num_rows, device=logits.device), block[:, 0]].double().cumsum(1)
    place = torch.searchsorted(inside, _below(share * inside[:, -1:], inside[:, -1:]), right=True)
    token = block * _BLOCK + place

    log_total = highest + total.log().float()
    logprob = logits.gather(1, token).float() / temperature - log_total
    return token.squeeze(1), logprob.squeeze(1)


def most_likely(logits: Tensor) -> tuple[Tensor, Tensor]:
    """The most likely token of each row, as greedy decoding takes it.

    Args:
        logits: (R, V) in any float format.

    Returns:
        (R,) int64 tokens and (R,) float32 log-probabilities at temperature 1.

    Raises:
        RuntimeError: a row's logits are not finite.
    """
    token = logits.argmax(1, keepdim=True)
    logprob = logits.gather(1, token).float() - logits.float().logsumexp(1, keepdim=True)
    if not bool(logprob.isfinite().all()):
        raise RuntimeError("the model's logits are not finite")
    return token.squeeze(1), logprob.squeeze(1)


def _below(value: Tensor, bound: Tensor) -> Tensor:
    """``value``, kept strictly below ``bound`` where rounding took it there."""
    return torch.minimum(value, torch.nextafter(bound, torch.zeros_like(bound)))

"""Pack a group into one row, so that its prompt is computed once.

A row is ``[prompt | completion 1 | ... | completion G]``. Position ids restart
after the prompt for every completion, and a block mask lets a token see the prompt
and its own completion only, so that every completion is conditioned exactly as if
it stood alone. Equal to one row per completion up to rounding.

Shapes: N rows, L tokens in the longest row, R completions over all rows, T tokens
in the longest completion.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise
from typing import NamedTuple

import torch
from torch import Tensor

_STRETCH = 128
"""Tokens of a prompt that attend together."""


@dataclass(frozen=True)
class TokenGroup:
    """A prompt and the completions sampled for it, as token ids."""

    prompt: Sequence[int]
    completions: Sequence[Sequence[int]]

    @property
    def num_tokens(self) -> int:
        """Length of the packed row."""
        return len(self.prompt) + sum(map(len, self.completions))


class Part(NamedTuple):
    """Adjacent completions of a group, with its prompt one packed row; mostly all of them."""

    group: int
    """Index of the group."""
    start: int
    stop: int

    @property
    def rows(self) -> slice:
        """Which of the group's completions they are."""
        return slice(self.start, self.stop)

    def of(self, groups: Sequence[TokenGroup]) -> TokenGroup:
        """The part's own tokens."""
        group = groups[self.group]
        return TokenGroup(group.prompt, group.completions[self.rows])


class Piece(NamedTuple):
    """Adjacent tokens of a row that see the row's first tokens and, causally, each other."""

    start: int
    stop: int
    shared: int
    """How many of the row's first tokens all of them see."""


@dataclass(frozen=True)
class PackedBatch:
    """Rows ready for one forward pass."""

    input_ids: Tensor
    """(N, L) int64."""
    position_ids: Tensor
    """(N, L) int64."""
    mask: Tensor
    """(N, 1, L, L) bool; True where the query (dim 2) may see the key (dim 3)."""
    predictors: Tensor
    """(R, T) int64: index into the flattened (N * L) positions whose output predicts a token."""
    targets: Tensor
    """(R, T) int64: the token that was sampled there."""
    target_mask: Tensor
    """(R, T) bool: False for padding."""
    pieces: list[list[Piece]]
    """What ``mask`` says, row by row."""


def pack(groups: Sequence[TokenGroup], pad_id: int, device: torch.device) -> PackedBatch:
    """Lay ``groups`` out as one row each; the completions' order is kept, groups adjacent."""
    longest = max(group.num_tokens for group in groups)
    num_completions = sum(len(group.completions) for group in groups)
    widest = max(len(completion) for group in groups for completion in group.completions)

    input_ids = torch.full((len(groups), longest), pad_id, dtype=torch.long)
    position_ids = torch.zeros((len(groups), longest), dtype=torch.long)
    # Block 0 is the prompt, block i the i-th completion, -1 padding.
    block = torch.full((len(groups), longest), -1, dtype=torch.long)
    predictors = torch.zeros((num_completions, widest), dtype=torch.long)
    targets = torch.zeros((num_completions, widest), dtype=torch.long)
    target_mask = torch.zeros((num_completions, widest), dtype=torch.bool)

    completion_row = 0
    for row, group in enumerate(groups):
        prompt_length = len(group.prompt)
        input_ids[row, :prompt_length] = torch.tensor(group.prompt)
        position_ids[row, :prompt_length] = torch.arange(prompt_length)
        block[row, :prompt_length] = 0
        start = prompt_length
        for index, completion in enumerate(group.completions, start=1):
            tokens = torch.tensor(completion)
            length = len(completion)
            here = slice(start, start + length)
            input_ids[row, here] = tokens
            position_ids[row, here] = torch.arange(prompt_length, prompt_length + length)
            block[row, here] = index
            # The first token is predicted at the end of the prompt, each other one at
            # the token before it.
            positions = torch.arange(start - 1, start - 1 + length)
            positions[0] = prompt_length - 1
            predictors[completion_row, :length] = row * longest + positions
            targets[completion_row, :length] = tokens
            target_mask[completion_row, :length] = True
            completion_row += 1
            start += length

    key, query = block[:, None, :], block[:, :, None]
    causal = torch.ones((longest, longest), dtype=torch.bool).tril()
    mask = ((key == 0) | (key == query)) & causal
    # A padding token sees at least itself: a row of nothing but False would give NaN.
    mask |= torch.eye(longest, dtype=torch.bool)
    return PackedBatch(
        input_ids.to(device),
        position_ids.to(device),
        mask[:, None].to(device),
        predictors.to(device),
        targets.to(device),
        target_mask.to(device),
        [_pieces(group) for group in groups],
    )


def prompt_pieces(length: int) -> list[Piece]:
    """A prompt in stretches, so that little is computed of what comes after a token."""
    bounds = [*range(0, length, _STRETCH), length]
    return [Piece(start, stop, start) for start, stop in pairwise(bounds)]


def _pieces(group: TokenGroup) -> list[Piece]:
    shared = len(group.prompt)
    bounds = accumulate(map(len, group.completions), initial=shared)
    return [
        *prompt_pieces(shared),
        *(Piece(start, stop, shared) for start, stop in pairwise(bounds)),
    ]


def split(groups: Sequence[TokenGroup], token_budget: int) -> list[Part]:
    """Every group as one part, or as several where it is longer than ``token_budget``.

    Each part computes the prompt again, so its completions see what they saw in the whole
    group. A completion is never split, whatever its length.
    """
    parts = []
    for index, group in enumerate(groups):
        start, size = 0, len(group.prompt)
        for position, completion in enumerate(group.completions):
            if position > start and size + len(completion) > token_budget:
                parts.append(Part(index, start, position))
                start, size = position, len(group.prompt)
            size += len(completion)
        parts.append(Part(index, start, len(group.completions)))
    return parts


def micro_batches(sizes: Sequence[int], token_budget: int) -> Iterator[list[int]]:
    """Split rows of ``sizes`` tokens into batches of at most ``token_budget`` padded tokens.

    Rows of like length go together; a row over the budget gets a batch of its own.
    Yields indices into ``sizes``.
    """
    batch: list[int] = []
    for index in sorted(range(len(sizes)), key=lambda index: -sizes[index]):
        # Sorted by falling length, the first row of a batch is its widest.
        width = sizes[batch[0]] if batch else sizes[index]
        if batch and width * (len(batch) + 1) > token_budget:
            yield batch
            batch = []
        batch.append(index)
    if batch:
        yield batch

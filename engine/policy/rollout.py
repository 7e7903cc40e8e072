"""Sample groups of completions from the current policy.

The prompts are prefilled once, their keys and values are kept once for the whole group, and
finished rows leave the batch, so decoding narrows as completions end. Tokens are
drawn from the model's own tempered distribution: no top-k, top-p or repetition
penalty, whatever the checkpoint's generation config says. Log-probabilities are kept
while sampling: their distance from a fresh forward pass is the mismatch KL we report.

Every completion has random numbers of its own, so what is sampled does not depend on which
completions are decoded together. Where there are none, the most likely token is taken.

Left out on purpose: beam search, tool calls, multi-turn prompts.

Shapes: B prompts, G completions of each, V vocabulary.
"""

from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

from engine.policy.decoder import Decoder, decodes
from engine.policy.draw import draw, most_likely
from engine.policy.group_cache import GroupCache
from engine.policy.packing import prompt_pieces

Listener = Callable[[int, Sequence[Sequence[int]]], None]
"""Told after every token: the number of the first completion being decoded, and the tokens so far
of it and of those decoded with it."""


@dataclass(frozen=True)
class Completion:
    """One sampled completion."""

    tokens: list[int]
    """Token ids as sampled, the end token included where there is one."""
    logprobs: list[float]
    """Log-probability of each token at the moment it was drawn."""
    finished: bool
    """False when it was cut at the length limit."""


@torch.no_grad()
def sample_groups(
    causal_model: Any,
    prompts: Sequence[Sequence[int]],
    *,
    group_size: int,
    max_new_tokens: int,
    temperature: float,
    end_tokens: Collection[int],
    pad_id: int,
    generator: torch.Generator,
    max_rows: int | None = None,
    listener: Listener | None = None,
) -> list[list[Completion]]:
    """Sample ``group_size`` completions of each prompt.

    Deterministic for a given state of ``generator``, which lives on the model's device.

    Args:
        causal_model: a transformers causal model in eval mode.
        prompts: B lists of token ids.
        max_rows: most completions decoded together; None: all. Fewer take less memory and more
            time, and are the same completions up to rounding.
        listener: what it raises ends the sampling.

    Returns:
        B lists of G completions.

    Raises:
        UserError: models of this kind cannot be sampled here.
    """
    uniforms = torch.rand(
        (max_new_tokens, len(prompts) * group_size),
        generator=generator,
        device=causal_model.device,
        dtype=torch.float64,
    )
    return decode_groups(
        causal_model,
        prompts,
        group_size=group_size,
        max_new_tokens=max_new_tokens,
        temperature=temperature,
        end_tokens=end_tokens,
        pad_id=pad_id,
        uniforms=uniforms,
        max_rows=max_rows,
        listener=listener,
    )


@torch.no_grad()
def decode_groups(
    causal_model: Any,
    prompts: Sequence[Sequence[int]],
    *,
    group_size: int,
    max_new_tokens: int,
    temperature: float,
    end_tokens: Collection[int],
    pad_id: int,
    uniforms: Tensor | None,
    max_rows: int | None = None,
    listener: Listener | None = None,
) -> list[list[Completion]]:
    """``group_size`` completions of each prompt, from random numbers that are given.

    Args:
        uniforms: (max_new_tokens, B * G) float64 in [0, 1), one for each token; None takes the
            most likely token every time, and log-probabilities are those at temperature 1.

    The other arguments, the result and the errors are those of ``sample_groups``.
    """
    num_rows = len(prompts) * group_size
    reach = max(map(len, prompts)) + max_new_tokens
    decoder = Decoder(causal_model, reach) if decodes(causal_model) else None
    completions: list[Completion] = []
    for some, count in _decode_batches(prompts, group_size, max_rows or num_rows):
        first = len(completions)
        completions += _decode(
            causal_model,
            some,
            decoder=decoder,
            group_size=count,
            max_new_tokens=max_new_tokens,
            temperature=temperature,
            end_tokens=end_tokens,
            pad_id=pad_id,
            uniforms=None if uniforms is None else uniforms[:, first : first + len(some) * count],
            listener=partial(listener, first) if listener else None,
        )
    return [completions[start : start + group_size] for start in range(0, num_rows, group_size)]


def _decode_batches(
    prompts: Sequence[Sequence[int]], group_size: int, max_rows: int
) -> Iterator[tuple[Sequence[Sequence[int]], int]]:
    """Prompts decoded together, and how many completions of each: whole groups where they fit."""
    if max_rows >= group_size:
        at_once = max_rows // group_size
        for start in range(0, len(prompts), at_once):
            yield prompts[start : start + at_once], group_size
        return
    for prompt in prompts:
        for start in range(0, group_size, max_rows):
            yield [prompt], min(max_rows, group_size - start)


def _decode(
    causal_model: Any,
    prompts: Sequence[Sequence[int]],
    *,
    decoder: Decoder | None,
    group_size: int,
    max_new_tokens: int,
    temperature: float,
    end_tokens: Collection[int],
    pad_id: int,
    uniforms: Tensor | None,
    listener: Callable[[Sequence[Sequence[int]]], None] | None,
) -> list[Completion]:
    """``group_size`` completions of each prompt, all decoded together.

    Args:
        decoder: passes the tokens through the model; None: its own modules do.
        uniforms: (longest completion, B * G) random numbers, one for each token; None: greedy.
    """
    num_rows = len(prompts) * group_size
    hidden, cache = _prefill(causal_model, prompts, max_new_tokens, pad_id)
    logits = causal_model.get_output_embeddings()(hidden).repeat_interleave(group_size, dim=0)
    cache.begin_decoding(group_size)
    lengths = torch.tensor([len(prompt) for prompt in prompts], device=logits.device)
    positions = lengths.repeat_interleave(group_size)  # (rows,) of the token to come

    tokens: list[list[int]] = [[] for _ in range(num_rows)]
    logprobs: list[list[float]] = [[] for _ in range(num_rows)]
    finished = [False] * num_rows
    rows = list(range(num_rows))  # which completion each row of the batch belongs to
    columns = torch.arange(num_rows, device=logits.device)  # the same, for ``uniforms``

    for number in range(max_new_tokens):
        drawn, drawn_logprobs = (
            most_likely(logits)
            if uniforms is None
            else draw(logits, temperature, uniforms[number, columns])
        )
        for row, token, logprob in zip(rows, drawn.tolist(), drawn_logprobs.tolist(), strict=True):
            tokens[row].append(token)
            logprobs[row].append(logprob)
            finished[row] = token in end_tokens
        if listener is not None:
            listener(tokens)
        if number == max_new_tokens - 1:
            break
        going = [index for index, row in enumerate(rows) if not finished[row]]
        if not going:
            break
        if len(going) < len(rows):
            cache.keep(going)
            kept = torch.tensor(going, device=drawn.device)
            drawn, positions, columns = drawn[kept], positions[kept], columns[kept]
            rows = [rows[index] for index in going]
        if decoder is not None:
            logits = decoder(drawn, positions, cache)
        else:
            logits = _pass(causal_model, drawn, positions, cache)
        positions = positions + 1

    return [Completion(*parts) for parts in zip(tokens, logprobs, finished, strict=True)]


def _pass(causal_model: Any, tokens: Tensor, positions: Tensor, cache: GroupCache) -> Tensor:
    """(rows, V) logits after one token a row, by the model's own modules."""
    hidden = causal_model.model(
        input_ids=tokens[:, None],
        position_ids=positions[:, None],
        past_key_values=cache,
        use_cache=True,
        group_cache=cache,
    ).last_hidden_state
    cache.check_attended()
    logits: Tensor = causal_model.get_output_embeddings()(hidden[:, 0])
    return logits


def _prefill(
    causal_model: Any, prompts: Sequence[Sequence[int]], max_new_tokens: int, pad_id: int
) -> tuple[Tensor, GroupCache]:
    """(B, hidden size) outputs at the prompts' ends, and the cache that holds the prompts."""
    device = causal_model.device
    lengths = [len(prompt) for prompt in prompts]
    # Padding at the right needs no mask: what stands before it never sees it.
    input_ids = torch.full((len(prompts), max(lengths)), pad_id, dtype=torch.long)
    for row, prompt in enumerate(prompts):
        input_ids[row, : len(prompt)] = torch.tensor(prompt)
    cache = GroupCache(causal_model.config, lengths, max_new_tokens)
    hidden = causal_model.model(
        input_ids=input_ids.to(device),
        past_key_values=cache,
        use_cache=True,
        pieces=[prompt_pieces(length) for length in lengths],
    ).last_hidden_state
    ends = torch.tensor(lengths, device=device) - 1
    return hidden[torch.arange(len(prompts), device=device), ends], cache

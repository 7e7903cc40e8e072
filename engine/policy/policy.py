"""The policy as the trainer sees it: prompts in, completions and log-probabilities out."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from peft import PeftModel
from torch import Tensor

from engine.config import RolloutConfig
from engine.errors import UserError
from engine.policy import gradient_checkpointing
from engine.policy.adapters import reference_policy
from engine.policy.exactness import refuse_inexact
from engine.policy.logprobs import completion_logprobs
from engine.policy.memory import return_freed_memory
from engine.policy.packing import Part, TokenGroup, micro_batches, pack, split
from engine.policy.rollout import Completion, sample_groups
from engine.task import Item


@dataclass
class Policy:
    """A base model with its adapters, and how to talk to it."""

    model: PeftModel
    tokenizer: Any
    end_tokens: frozenset[int]
    rollout: RolloutConfig
    micro_batch_tokens: int
    decode_rows: int | None = None
    """Most completions sampled together; None: all that are asked for."""
    beat: Callable[[], None] = lambda: None
    """Called at every token drawn and before every pass; what it raises ends the work."""

    def __post_init__(self) -> None:
        """Refuse a model that would not be trained exactly, before anything is trained."""
        refuse_inexact(self.causal_model.config, self.rollout.context)

    @property
    def causal_model(self) -> Any:
        """The transformers model inside, adapters in place."""
        return self.model.get_base_model()

    @property
    def device(self) -> torch.device:
        device: torch.device = self.causal_model.device
        return device

    @property
    def pad_id(self) -> int:
        """Padding is masked everywhere, so any valid id will do."""
        return min(self.end_tokens)

    def prompt_text(self, item: Item) -> str:
        """The prompt as the model sees it, chat template applied."""
        return str(
            self.tokenizer.apply_chat_template(
                [dict(message) for message in item.messages],
                tokenize=False,
                add_generation_prompt=True,
            )
        )

    def encode_prompt(self, text: str) -> list[int]:
        """Token ids of a rendered prompt.

        Raises:
            UserError: no room is left for the completion.
        """
        tokens: list[int] = self.tokenizer(text, add_special_tokens=False).input_ids
        room = self.rollout.context - self.rollout.max_new_tokens
        if len(tokens) > room:
            raise UserError(
                f"a prompt has {len(tokens)} tokens, and only {room} are left for it",
                where="rollout.context",
                fix="raise rollout.context or lower data.window",
            )
        return tokens

    def encode_answer(self, text: str) -> list[int]:
        """Token ids of a completion that someone else wrote, end token included."""
        tokens: list[int] = self.tokenizer(text, add_special_tokens=False).input_ids
        return [*tokens, self.tokenizer.eos_token_id]

    def decode(self, completion: Completion) -> str:
        """The completion's text without its end token."""
        tokens = completion.tokens[:-1] if completion.finished else completion.tokens
        return str(self.tokenizer.decode(tokens, skip_special_tokens=False))

    def sample(
        self, prompts: Sequence[Sequence[int]], group_size: int, generator: torch.Generator
    ) -> list[list[Completion]]:
        """``group_size`` completions of each prompt, from the policy in eval mode."""
        self.model.eval()
        completions = sample_groups(
            self.causal_model,
            prompts,
            group_size=group_size,
            max_new_tokens=self.rollout.max_new_tokens,
            temperature=self.rollout.temperature,
            end_tokens=self.end_tokens,
            pad_id=self.pad_id,
            generator=generator,
            max_rows=self.decode_rows,
            listener=lambda first, tokens: self.beat(),
        )
        return_freed_memory()
        return completions

    def logprobs(self, groups: Sequence[TokenGroup]) -> tuple[Tensor, Tensor]:
        """Log-probabilities and entropies of the groups' completions, with gradient.

        Returns:
            (R, T) float32 each, rows in the order of the groups' completions.
        """
        self.beat()
        batch = pack(groups, self.pad_id, self.device)
        with gradient_checkpointing.acting(self.causal_model):
            return completion_logprobs(self.causal_model, batch, self.rollout.temperature)

    def micro_batches(self, groups: Sequence[TokenGroup]) -> list[list[Part]]:
        """What shares a forward pass, within the token budget: whole groups where they fit."""
        parts = split(groups, self.micro_batch_tokens)
        sizes = [part.of(groups).num_tokens for part in parts]
        return [
            [parts[index] for index in indices]
            for indices in micro_batches(sizes, self.micro_batch_tokens)
        ]

    @torch.no_grad()
    def reference_logprobs(self, groups: Sequence[TokenGroup]) -> list[Tensor]:
        """Log-probabilities under the reference policy, one (completions, T) a group."""
        self.model.eval()
        result = [
            torch.zeros(
                len(group.completions), max(map(len, group.completions)), device=self.device
            )
            for group in groups
        ]
        with reference_policy(self.model):
            for parts in self.micro_batches(groups):
                logprobs, _ = self.logprobs([part.of(groups) for part in parts])
                rows = logprobs.split([part.stop - part.start for part in parts])
                for part, of_part in zip(parts, rows, strict=True):
                    own = result[part.group][part.rows]
                    width = min(own.shape[1], of_part.shape[1])
                    own[:, :width] = of_part[:, :width]
        return result

"""The adapters on the frozen base: who acts, who is trained, who is the reference.

Stage I: ``default`` is trained, and ``reference`` is a frozen copy of what it was when GRPO
began. Stage II is a stack: ``stage1``, the promoted policy, is frozen and stays active under
``default``, and is by itself the reference.

Adapter weights are fp32 whatever the base is: in bf16 a learning rate of 1e-5 changes only 15 % of
them in 50 steps.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, PeftModel, get_peft_model, get_peft_model_state_dict
from peft.tuners.tuners_utils import BaseTunerLayer
from peft.utils import set_peft_model_state_dict
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from engine.config import LoraSection
from engine.errors import UserError
from engine.policy.lean_lora import make_lean
from engine.runs.checkpoint_names import ADAPTER
from engine.runs.stage1 import AdapterFacts, read_facts

POLICY = "default"
REFERENCE = "reference"
STAGE1 = "stage1"
_TARGETS = {
    "attention": ["q_proj", "k_proj", "v_proj", "o_proj"],
    "all-linear": [
        "q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj",
    ],
}  # fmt: skip


@dataclass(frozen=True)
class StoredAdapter:
    """A LoRA adapter as its files hold it."""

    facts: AdapterFacts
    weights: Mapping[str, Tensor]
    """fp32, under PEFT's own file names."""


def read_adapter(folder: Path) -> StoredAdapter:
    """The adapter in ``folder``.

    Raises:
        UserError: it is no plain LoRA adapter in safetensors.
    """
    facts = read_facts(folder)
    try:
        weights = load_file(folder / ADAPTER)
    except (OSError, SafetensorError) as error:
        raise UserError("the adapter cannot be read", where=str(folder / ADAPTER)) from error
    return StoredAdapter(facts, {name: tensor.float() for name, tensor in weights.items()})


def add_adapters(
    base: Any, config: LoraSection, seed: int, stage1: StoredAdapter | None = None
) -> PeftModel:
    """Put a fresh trainable adapter on ``base``, and under it what its stage needs.

    ``lora_B`` starts at zero, so the policy is its reference until trained.

    Args:
        base: the frozen model; changed in place.
        config: of the trainable adapter.
        seed: of its initialisation.
        stage1: the promoted policy, which makes this a Stage II stack.

    Raises:
        UserError: ``stage1`` does not fit ``base``.
    """
    trained = _lora(config.r, config.alpha, _TARGETS[config.targets], config.dropout)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = get_peft_model(base, trained, adapter_name=POLICY)
        if stage1 is None:
            frozen = _lora(config.r, config.alpha, _TARGETS[config.targets])
            model.add_adapter(REFERENCE, frozen)
            freeze_reference(model)
        else:
            facts = stage1.facts
            model.add_adapter(STAGE1, _lora(facts.rank, facts.alpha, facts.layers))
            _load_or_refuse(model, stage1, STAGE1)
    # Where layers are checkpointed PEFT has just asked for them; see ``gradient_checkpointing``.
    base.disable_input_require_grads()
    make_lean(model)
    _switch(model, [POLICY] if stage1 is None else [STAGE1, POLICY], trained=True)
    return model


def put_adapter(base: Any, adapter: StoredAdapter) -> PeftModel:
    """``adapter`` alone on ``base``, frozen.

    Raises:
        UserError: it does not fit ``base``.
    """
    facts = adapter.facts
    with torch.random.fork_rng():
        lora = _lora(facts.rank, facts.alpha, facts.layers)
        model = get_peft_model(base, lora, adapter_name=POLICY)
    _load_or_refuse(model, adapter, POLICY)
    make_lean(model)
    _switch(model, [POLICY], trained=False)
    return model


def is_stack(model: PeftModel) -> bool:
    """Whether this is Stage II: a policy on top of the frozen ``stage1``."""
    return STAGE1 in model.peft_config


@contextmanager
def reference_policy(model: PeftModel) -> Iterator[None]:
    """Inside the block, forward passes are the reference policy's."""
    with _put_back_afterwards(model):
        _switch(model, [STAGE1 if is_stack(model) else REFERENCE], trained=False)
        yield


@contextmanager
def base_policy(model: PeftModel) -> Iterator[None]:
    """Inside the block, forward passes are the bare base model's: no adapter acts."""
    with _put_back_afterwards(model):
        model.base_model.disable_adapter_layers()  # type: ignore[operator]
        yield


def freeze_reference(model: PeftModel) -> None:
    """Make the reference policy of Stage I what the policy is now."""
    assert not is_stack(model), "the reference of Stage II is Stage I's policy"
    load_adapter(model, adapter_weights(model, POLICY), REFERENCE)


def adapter_weights(model: PeftModel, adapter: str) -> dict[str, Tensor]:
    """Copies of the adapter's tensors under PEFT's own file names, on the CPU."""
    weights = get_peft_model_state_dict(model, adapter_name=adapter)
    # A copy wherever they are: on a CPU what training does next would change these too.
    return {
        name: tensor.detach().to("cpu", copy=True).contiguous() for name, tensor in weights.items()
    }


def load_adapter(model: PeftModel, weights: Mapping[str, Tensor], adapter: str) -> None:
    """Replace the tensors of ``adapter``.

    Raises:
        ValueError: ``weights`` does not hold exactly that adapter's tensors.
    """
    expected = {name: tuple(t.shape) for name, t in adapter_weights(model, adapter).items()}
    given = {name: tuple(tensor.shape) for name, tensor in weights.items()}
    if expected != given:
        raise ValueError("the adapter's tensors do not fit this model and LoRA configuration")
    set_peft_model_state_dict(model, dict(weights), adapter_name=adapter)


def trainable_parameters(model: PeftModel) -> dict[str, nn.Parameter]:
    """The policy adapter's parameters by name, in a stable order."""
    parameters = {name: p for name, p in model.named_parameters() if p.requires_grad}
    assert parameters, "the policy adapter has no gradients"
    assert all(p.dtype == torch.float32 for p in parameters.values()), "adapter is not fp32"
    return parameters


def _lora(rank: int, alpha: float, layers: Sequence[str], dropout: float = 0.0) -> LoraConfig:
    # peft multiplies by alpha / r, whatever number alpha is.
    return LoraConfig(
        r=rank,
        lora_alpha=alpha,  # type: ignore[arg-type]
        lora_dropout=dropout,
        target_modules=list(layers),
        task_type="CAUSAL_LM",
    )


def _load_or_refuse(model: PeftModel, adapter: StoredAdapter, name: str) -> None:
    try:
        load_adapter(model, adapter.weights, name)
    except ValueError as error:
        raise UserError(
            "the adapter does not fit this base model",
            where="model.id",
            fix="name the model that it was trained on",
        ) from error


def _switch(model: PeftModel, adapters: list[str], *, trained: bool) -> None:
    """Let ``adapters`` act together; only the policy's own ever has gradients."""
    # PeftModel.set_adapter takes no list, and without inference_mode all of them would train.
    model.base_model.set_adapter(adapters, inference_mode=True)  # type: ignore[operator]
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(trained and f".{POLICY}." in name)
    grads = [name for name, parameter in model.named_parameters() if parameter.requires_grad]
    assert bool(grads) == trained
    assert all(f".{POLICY}." in name for name in grads)


@contextmanager
def _put_back_afterwards(model: PeftModel) -> Iterator[None]:
    """After the block the same adapters act and the same parameters have gradients as before."""
    active = list(model.base_model.active_adapters)  # type: ignore[arg-type]
    layer = next(module for module in model.modules() if isinstance(module, BaseTunerLayer))
    disabled = layer.disable_adapters
    grads = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    try:
        yield
    finally:
        if not disabled:
            model.base_model.enable_adapter_layers()  # type: ignore[operator]
        model.base_model.set_adapter(active, inference_mode=True)  # type: ignore[operator]
        for name, parameter in model.named_parameters():
            parameter.requires_grad_(name in grads)

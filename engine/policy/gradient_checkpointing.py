"""Keep only the input of every layer in training; the backward pass computes the rest again.

Chen et al. 2016, "Training Deep Nets with Sublinear Memory Cost", arXiv:1604.06174. The same
gradients for less memory and more time.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from transformers.modeling_layers import GradientCheckpointingLayer


def enable(causal_model: Any) -> None:
    """Let the model's layers be checkpointed, in training mode and inside ``acting``."""
    causal_model.activation_checkpointing_enable()
    # Gradients with respect to the embeddings are for reentrant checkpoints alone; these are not.
    causal_model.disable_input_require_grads()


@contextmanager
def acting(causal_model: Any) -> Iterator[None]:
    """Inside the block, layers that were enabled are checkpointed in eval mode too.

    transformers does so in training mode only, in which dropout would act; here the layers alone
    are in training mode, and not what they are made of.
    """
    layers = [
        module
        for module in causal_model.modules()
        if isinstance(module, GradientCheckpointingLayer) and not module.training
    ]
    for layer in layers:
        layer.training = True
    try:
        yield
    finally:
        for layer in layers:
            layer.training = False

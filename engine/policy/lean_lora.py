"""LoRA layers that compute in the base's number format.

PEFT turns each layer's input and product into fp32 where the adapter is fp32, which on a 16-bit
base costs more time and memory than the layer's own product. Here the fp32 weights are rounded to
the base's format on their way into the product, as autocast does: they are trained, stored and
saved in fp32 all the same, and on an fp32 base nothing is rounded.
"""

from functools import partial
from typing import Any

from peft import PeftModel
from peft.tuners.lora import LoraLayer
from torch import Tensor, nn


def make_lean(model: PeftModel) -> None:
    """Take over the forward pass of the model's adapter layers; call again after adding some."""
    for module in model.modules():
        if isinstance(module, LoraLayer):
            module.forward = partial(_forward, module)


def _forward(layer: Any, x: Tensor) -> Tensor:
    """``W x + sum over the active adapters of alpha / r * B A x``, in the format of ``x``.

    Args:
        x: (..., in).

    Returns:
        (..., out).
    """
    result: Tensor = layer.base_layer(x)
    if layer.disable_adapters or layer.merged:
        return result
    output = result.flatten(0, -2)
    # In place: the base's product is needed by nobody else, its gradient included. What a 4-bit
    # layer returns comes out of a Function of bitsandbytes, and autograd lets nobody change that.
    add = Tensor.addmm_ if type(layer.base_layer) is nn.Linear else Tensor.addmm
    for name in layer.active_adapters:
        if name in layer.lora_A:
            down, up = layer.lora_A[name].weight, layer.lora_B[name].weight
            inner = nn.functional.linear(layer.lora_dropout[name](x), down.to(x.dtype))
            flat = inner.flatten(0, -2)
            output = add(output, flat, up.to(x.dtype).t(), alpha=layer.scaling[name])
    return output.view(result.shape)

"""One token a row through a Llama, Qwen2 or Qwen3 model, with less between the products.

A token's pass through transformers' own modules is hundreds of small operations around matrix
products of a few rows. Here what does not change during a rollout is prepared once: products of
the same input become one, the adapters that act become one pair of low-rank factors beside each,
and rotations are read from a table. Every other step is the model's own, rounded where its
modules round.

On a CPU the base's weights are copied into the layout in which oneDNN reads them fastest: with
the few rows of a rollout a product takes as long as its weights take to arrive. The copy is as
large as the weights and lives as long as the decoder. Elsewhere nothing is copied but the adapters.

Adapters are never added to the weights: on a 16-bit base most of an adapter would be rounded away.

Shapes: R rows, V vocabulary, N hidden size, H query heads, K key heads, D size of a head.
"""

from collections.abc import Sequence
from functools import partial
from typing import Any

import psutil
import torch
from peft.tuners.lora import LoraLayer
from torch import Tensor, nn
from transformers import LlamaForCausalLM, Qwen2ForCausalLM, Qwen3ForCausalLM

from engine.policy import attention, lean_lora
from engine.policy.group_cache import GroupCache

_FAMILIES = (LlamaForCausalLM, Qwen2ForCausalLM, Qwen3ForCausalLM)
_COPY_SHARE = 0.125
"""Share of the machine's memory that the copied weights may take. Of all memory and not of what is
free: what is sampled should not depend, even in its rounding, on what else is running."""


def decodes(causal_model: Any) -> bool:
    """Whether ``Decoder`` computes what the model's own modules do.

    Not with 4-bit layers, nor where anything but ``lean_lora`` acts in place of a module's own
    forward pass or beside it: its hooks, ``overlay``, PEFT's own layers.
    """
    return (
        type(causal_model) in _FAMILIES
        and causal_model.config._attn_implementation == attention.NAME
        and type(causal_model.model.embed_tokens) is nn.Embedding
        and all(_is_known(module) for module in causal_model.modules())
        and all(_linears_known(products) for products in _all_linears(causal_model))
        and len({linear.weight.dtype for linear in _base_linears(causal_model)}) == 1
    )


class Decoder:
    """The model as it is now, for the tokens of one rollout.

    Later changes of its adapters, or of which of them act, are not seen.
    """

    def __init__(self, causal_model: Any, reach: int) -> None:
        """Prepare what all tokens need.

        Args:
            causal_model: in eval mode; ``decodes`` says yes to it.
            reach: most tokens that a prompt and its completion take together.
        """
        model = causal_model.model
        config = causal_model.config
        self._embed = model.embed_tokens
        pack = _may_pack(causal_model)
        self._layers = [_Layer(layer, pack) for layer in model.layers[: config.num_hidden_layers]]
        self._norm = _Norm(model.norm)
        self._head = _Product([causal_model.get_output_embeddings()], pack)
        positions = torch.arange(reach, device=causal_model.device)[None]
        cos, sin = model.rotary_emb(self._embed.weight, positions)
        half = sin.shape[-1] // 2
        self._cos = cos[0]  # (reach, D)
        self._sin = torch.cat([-sin[0, :, :half], sin[0, :, half:]], dim=-1)

    def __call__(self, tokens: Tensor, positions: Tensor, cache: GroupCache) -> Tensor:
        """The logits of the tokens after these.

        Args:
            tokens: (R,) one of each row.
            positions: (R,) of these tokens in their sequences.
            cache: takes in these tokens' keys and values.

        Returns:
            (R, V) in the model's format.
        """
        cos, sin = self._cos[positions][:, None], self._sin[positions][:, None]  # (R, 1, D)
        hidden = self._embed(tokens)  # (R, N)
        for index, layer in enumerate(self._layers):
            hidden = layer(index, hidden, cos, sin, cache)
        return self._head(self._norm(hidden))


class _Layer:
    """Attention and MLP of one layer."""

    def __init__(self, layer: Any, pack: bool) -> None:
        own, mlp = layer.self_attn, layer.mlp
        self._size: int = own.head_dim
        self._scaling: float = own.scaling
        self._before_attention = _Norm(layer.input_layernorm)
        self._before_mlp = _Norm(layer.post_attention_layernorm)
        self._qkv = _Product([own.q_proj, own.k_proj, own.v_proj], pack)
        self._output = _Product([own.o_proj], pack)
        self._gate_up = _Product([mlp.gate_proj, mlp.up_proj], pack)
        self._down = _Product([mlp.down_proj], pack)
        self._activation = mlp.act_fn
        num_queries, num_keys = (width // self._size for width in self._qkv.widths[:2])
        self._heads = [num_queries, num_keys, num_keys]
        self._head_norm = None
        if hasattr(own, "q_norm"):
            self._head_norm = _Norm(own.q_norm)
            weights = [own.q_norm.weight] * num_queries + [own.k_norm.weight] * num_keys
            self._head_norm.weight = torch.stack(weights)  # (H + K, D)

    def __call__(
        self, index: int, hidden: Tensor, cos: Tensor, sin: Tensor, cache: GroupCache
    ) -> Tensor:
        num_rows = len(hidden)
        qkv = self._qkv(self._before_attention(hidden)).view(num_rows, -1, self._size)
        queries, keys, values = self._heads
        turning = qkv[:, : queries + keys]
        if self._head_norm is not None:
            turning = self._head_norm(turning)
        # The halves change places; the sign of the first is in the table.
        turned = (turning * cos).add_(turning.roll(self._size // 2, -1).mul_(sin))
        query, key = turned[:, :, None].split([queries, keys], dim=1)
        attended = cache.attend(
            index,
            query,
            *cache.own[index].update(key, qkv[:, -values:, None]),
            self._scaling,
        )
        hidden = hidden + self._output(attended.reshape(num_rows, -1))
        gate, up = self._gate_up(self._before_mlp(hidden)).chunk(2, dim=1)
        return hidden + self._down(self._activation(gate) * up)


class _Norm:
    """RMS normalisation in fp32; the result is rounded before it meets the weight."""

    def __init__(self, norm: Any) -> None:
        self.weight: Tensor = norm.weight
        self._eps: float = norm.variance_epsilon

    def __call__(self, x: Tensor) -> Tensor:
        return nn.functional.rms_norm(x, x.shape[-1:], eps=self._eps) * self.weight


class _Product:
    """Linear layers of the same input, with the adapters that act on them, side by side."""

    def __init__(self, modules: Sequence[Any], pack: bool) -> None:
        linears = [_base(module) for module in modules]
        self.widths: list[int] = [linear.out_features for linear in linears]
        self._parts: list[tuple[Tensor, Tensor | None]]
        self._packed: Tensor | None = None
        self._bias: Tensor | None = None
        if pack:
            # Any number of rows above 1 gives the layout that is fast for all of them.
            weight = torch.cat([linear.weight for linear in linears])
            self._packed = torch.ops.mkldnn._reorder_linear_weight(weight, 32)
            if any(linear.bias is not None for linear in linears):
                self._bias = torch.cat([_bias(linear) for linear in linears])
            self._parts = []
        else:
            self._parts = [(linear.weight, linear.bias) for linear in linears]
        self._factors = _factors(modules)

    def __call__(self, x: Tensor) -> Tensor:
        """(R, in) to (R, sum of the layers' out)."""
        if self._packed is not None:
            result = torch.ops.mkldnn._linear_pointwise(
                x, self._packed, self._bias, "none", [], ""
            )
        else:
            parts = [nn.functional.linear(x, weight, bias) for weight, bias in self._parts]
            result = torch.cat(parts, dim=1) if len(parts) > 1 else parts[0]
        if self._factors is None:
            return result
        down, up = self._factors
        return result.addmm_(x @ down, up)


def _factors(modules: Sequence[Any]) -> tuple[Tensor, Tensor] | None:
    """(in, r) and (r, sum of out): all that acts on the modules, r the sum of all ranks.

    ``up`` holds alpha / r too, and zeros where one module's rank meets another's output. Both are
    in the format of the weights.
    """
    widths = [_base(module).out_features for module in modules]
    downs, ups = [], []
    for number, module in enumerate(modules):
        if not isinstance(module, LoraLayer) or module.disable_adapters or module.merged:
            continue
        for name in module.active_adapters:
            if name in module.lora_A:
                up: Tensor = module.lora_B[name].weight * module.scaling[name]  # (out, r)
                before, after = sum(widths[:number]), sum(widths[number + 1 :])
                downs.append(module.lora_A[name].weight)
                ups.append(nn.functional.pad(up.t(), (before, after)))
    if not downs:
        return None
    dtype = _base(modules[0]).weight.dtype
    return torch.cat(downs).to(dtype).t(), torch.cat(ups).to(dtype)


def _base(module: Any) -> Any:
    return module.base_layer if isinstance(module, LoraLayer) else module


def _bias(linear: nn.Linear) -> Tensor:
    return linear.weight.new_zeros(linear.out_features) if linear.bias is None else linear.bias


def _all_linears(causal_model: Any) -> list[Any]:
    """Every layer that ``Decoder`` multiplies with."""
    of_layers = [
        module
        for layer in causal_model.model.layers
        for module in (
            layer.self_attn.q_proj, layer.self_attn.k_proj, layer.self_attn.v_proj,
            layer.self_attn.o_proj, layer.mlp.gate_proj, layer.mlp.up_proj, layer.mlp.down_proj,
        )
    ]  # fmt: skip
    return [*of_layers, causal_model.get_output_embeddings()]


def _base_linears(causal_model: Any) -> list[Any]:
    return [_base(module) for module in _all_linears(causal_model)]


def _linears_known(module: Any) -> bool:
    """4-bit layers are subclasses, and multiply in their own way."""
    return type(_base(module)) is nn.Linear


def _is_known(module: nn.Module) -> bool:
    """Whether nothing acts beside the module's own forward pass or, but LoRA, in place of it."""
    if module._forward_hooks or module._forward_pre_hooks:
        return False
    acting = vars(module).get("forward")
    if isinstance(module, LoraLayer):
        return isinstance(acting, partial) and acting.func is lean_lora._forward
    return acting is None


def _may_pack(causal_model: Any) -> bool:
    """Whether oneDNN multiplies in the model's format here, and a copy of the weights fits."""
    if causal_model.device.type != "cpu" or not torch.backends.mkldnn.is_available():
        return False
    dtype = causal_model.model.embed_tokens.weight.dtype
    if dtype == torch.bfloat16 and not torch.ops.mkldnn._is_mkldnn_bf16_supported():
        return False
    copied = sum(linear.weight.nbytes for linear in _base_linears(causal_model))
    fits: bool = copied <= _COPY_SHARE * psutil.virtual_memory().total
    return fits and dtype in (torch.float32, torch.bfloat16)

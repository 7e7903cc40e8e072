"""One token a row through a Llama, Qwen2 or Qwen3 model, with less between the products.

A token's pass through transformers' own modules is hundreds of small operations around matrix
products of a few rows. Here what does not change during a rollout is prepared once: products of
the same input become one, as do the low-rank factors that each adapter has beside them, and
rotations are read from a table. Every other step is the model's own, rounded where its
modules round.

On a CPU the base's weights are copied into the layout in which oneDNN reads them fastest: with
the few rows of a rollout a product takes as long as its weights take to arrive. The copy is as
large as the weights and lives as long as the decoder. Elsewhere nothing is copied but the adapters.

An adapter is added to such a copy where that is exact up to rounding, in fp32. In 16 bits most of
it would be rounded away, and it stays a pair of low-rank factors.

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
        # 4-bit layers are subclasses.
        and all(type(linear) is nn.Linear for linear in _base_linears(causal_model))
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
        self._norm = _Norm(model.norm.weight, model.norm.variance_epsilon)
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
        epsilon: float = layer.input_layernorm.variance_epsilon
        self._before_attention = _Norm(layer.input_layernorm.weight, epsilon)
        self._before_mlp = _Norm(layer.post_attention_layernorm.weight, epsilon)
        self._qkv = _Product([own.q_proj, own.k_proj, own.v_proj], pack)
        self._output = _Product([own.o_proj], pack)
        self._gate_up = _Product([mlp.gate_proj, mlp.up_proj], pack)
        self._down = _Product([mlp.down_proj], pack)
        self._activation = mlp.act_fn
        num_queries, num_keys = (width // self._size for width in self._qkv.widths[:2])
        self._heads = [num_queries, num_keys, num_keys]
        self._head_norm = None
        if hasattr(own, "q_norm"):
            weights = [own.q_norm.weight] * num_queries + [own.k_norm.weight] * num_keys
            self._head_norm = _Norm(torch.stack(weights), own.q_norm.variance_epsilon)

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
        own = cache.own[index].update(key, qkv[:, -values:, None])
        attended = cache.attend(index, query, *own, self._scaling)
        hidden = hidden + self._output(attended.reshape(num_rows, -1))
        gate, up = self._gate_up(self._before_mlp(hidden)).chunk(2, dim=1)
        return hidden + self._down(self._activation(gate) * up)


class _Norm:
    """RMS normalisation in fp32; the result is rounded before it meets the weight."""

    def __init__(self, weight: Tensor, epsilon: float) -> None:
        self._weight = weight
        self._epsilon = epsilon

    def __call__(self, x: Tensor) -> Tensor:
        return nn.functional.rms_norm(x, x.shape[-1:], eps=self._epsilon) * self._weight


class _Product:
    """Linear layers of the same input, with the adapters that act on them, side by side."""

    def __init__(self, modules: Sequence[Any], pack: bool) -> None:
        linears = [_base(module) for module in modules]
        self.widths: list[int] = [linear.out_features for linear in linears]
        self._factors = _factors(modules)
        self._linear = _packed_linear if pack else nn.functional.linear
        self._parts = [(linear.weight, linear.bias) for linear in linears]
        if not pack:
            return
        weight, bias = torch.cat([linear.weight for linear in linears]), None
        if any(linear.bias is not None for linear in linears):
            bias = torch.cat([_bias(linear) for linear in linears])
        if weight.dtype == torch.float32:
            for down, up, scale in self._factors:
                weight.addmm_(up.t(), down.t(), alpha=scale)
            self._factors = []
        # For more than one row, and as fast as another layout for one.
        self._parts = [(torch.ops.mkldnn._reorder_linear_weight(weight, 32), bias)]

    def __call__(self, x: Tensor) -> Tensor:
        """(R, in) to (R, sum of the layers' out)."""
        parts = [self._linear(x, weight, bias) for weight, bias in self._parts]
        result = torch.cat(parts, dim=1) if len(parts) > 1 else parts[0]
        for down, up, scale in self._factors:
            result.addmm_(x @ down, up, alpha=scale)
        return result


def _packed_linear(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    result: Tensor = torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")
    return result


def _factors(modules: Sequence[Any]) -> list[tuple[Tensor, Tensor, float]]:
    """(in, r) and (r, sum of out) in the format of the weights, and alpha / r, of each adapter.

    r is the sum of its ranks in the modules that it acts on; there are zeros where the inner
    values of one meet the output of another.
    """
    widths = [_base(module).out_features for module in modules]
    dtype = _base(modules[0]).weight.dtype
    halves: dict[tuple[str, float], tuple[list[Tensor], list[Tensor]]] = {}
    for number, module in enumerate(modules):
        layer: Any = module  # peft types what it holds as any module
        if not isinstance(module, LoraLayer) or layer.disable_adapters or layer.merged:
            continue
        before, after = sum(widths[:number]), sum(widths[number + 1 :])
        for name in layer.active_adapters:
            if name in layer.lora_A:
                downs, ups = halves.setdefault((name, layer.scaling[name]), ([], []))
                downs.append(layer.lora_A[name].weight.to(dtype))
                up = layer.lora_B[name].weight.to(dtype)  # (out, r)
                ups.append(nn.functional.pad(up.t(), (before, after)))
    return [
        (torch.cat(downs).t(), torch.cat(ups), scale) for (_, scale), (downs, ups) in halves.items()
    ]


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

"""Transformer layers with the reference's extra norms (scale_attn, scale_fc) and key names.

Norms are `nn.LayerNorm`: its kernels accumulate in float32 for half inputs, and autocast runs it in float32.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from unival.modeling.attention import MultiheadAttention
from unival.modeling.config import PeftConfig, TransformerConfig
from unival.modeling.peft import build_adapter
from unival.modeling.products import Linear, own_way

KeyValue = tuple[Tensor, Tensor]
ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {"gelu": F.gelu, "relu": F.relu}


def channels_last(x: Tensor, in_generation: bool = True) -> Tensor:
    """Maps (B, C, h, w) with the channels innermost in memory, of equal values; on CPUs in bfloat16, and in float32
    in generation where the processor gains (:func:`unival.modeling.products.own_way`) unless ``in_generation`` is off.

    Matrix units of GPUs and CPUs read them in that order: cuDNN and oneDNN would turn every map around before and
    after each convolution, and BatchNorm of the other order is slow. In float32 on a CPU the sums of the other order
    leave the reference's gradients (2e-5 of their norm). Clips have an order of their own
    (:mod:`unival.modeling.video`).
    """
    if x.device.type == "cpu" and x.dtype == torch.float32 and not (in_generation and own_way(x)):
        return x
    return x.contiguous(memory_format=torch.channels_last)


class DropPath(nn.Module):
    """Drop whole rows of a residual branch (Huang et al., stochastic depth, 2016)."""

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.rate = rate

    def forward(self, x: Tensor) -> Tensor:
        if not self.training or self.rate == 0.0:
            return x
        keep = 1.0 - self.rate
        mask = torch.empty(x.size(0), *[1] * (x.dim() - 1), device=x.device).bernoulli_(keep) / keep
        return x * mask.to(x.dtype)


def drop_path_rates(last: float, layers: int) -> list[float]:
    """Rates that rise linearly from 0 at the first layer to ``last``."""
    return [last * i / max(layers - 1, 1) for i in range(layers)]


class Layer(nn.Module):
    """What encoder and decoder layers share: self-attention, feed-forward, residuals."""

    def __init__(self, config: TransformerConfig, peft: PeftConfig, side: str, drop_path: float) -> None:
        super().__init__()
        width, heads = getattr(config, f"{side}_embed_dim"), getattr(config, f"{side}_attention_heads")
        inner = getattr(config, f"{side}_ffn_embed_dim")
        self.normalize_before = getattr(config, f"{side}_normalize_before")
        self.self_attn = self._attention(config, width, heads)
        self.self_attn_layer_norm = nn.LayerNorm(width)
        self.fc1 = Linear(width, inner)
        self.fc2 = Linear(inner, width)
        self.ffn_layernorm = nn.LayerNorm(inner) if config.scale_fc else None
        self.final_layer_norm = nn.LayerNorm(width)
        self.w_resid = nn.Parameter(torch.ones(width)) if config.scale_resids else None
        self.adapter = build_adapter(peft, width, side)
        self.activation = ACTIVATIONS[config.activation_fn]
        self.dropout = nn.Dropout(config.dropout)
        self.relu_dropout = nn.Dropout(config.relu_dropout)
        self.drop_path = DropPath(drop_path)

    @staticmethod
    def _attention(config: TransformerConfig, width: int, heads: int) -> MultiheadAttention:
        return MultiheadAttention(
            width,
            heads,
            config.attn_scale_factor,
            config.attention_dropout,
            config.scale_heads,
            config.qk_norm,
        )

    def _before(self, x: Tensor, norm: nn.LayerNorm) -> Tensor:
        return norm(x) if self.normalize_before else x

    def _after(self, residual: Tensor, x: Tensor, norm: nn.LayerNorm) -> Tensor:
        x = residual + self.drop_path(self.dropout(x))
        return x if self.normalize_before else norm(x)

    def _feed_forward(self, x: Tensor, visual: int = 0) -> Tensor:
        """``visual`` is the number of leading visual tokens, for adapters that tell them apart."""
        residual = x if self.w_resid is None else x * self.w_resid
        x = self.relu_dropout(self.activation(self.fc1(self._before(x, self.final_layer_norm))))
        x = self.dropout(self.fc2(x if self.ffn_layernorm is None else self.ffn_layernorm(x)))
        if self.adapter is not None:
            x = self.adapter(x, visual)
        x = residual + self.drop_path(x)
        return x if self.normalize_before else self.final_layer_norm(x)


class EncoderLayer(Layer):
    def __init__(self, config: TransformerConfig, peft: PeftConfig, drop_path: float) -> None:
        super().__init__(config, peft, "encoder", drop_path)
        self.attn_ln = nn.LayerNorm(config.encoder_embed_dim) if config.scale_attn else None

    def forward(self, x: Tensor, bias: Tensor, prefix: KeyValue | None = None, visual: int = 0) -> Tensor:
        """x (B, S, D), bias (R, H, S, S)."""
        h = self._before(x, self.self_attn_layer_norm)
        h = self.self_attn(self.self_attn.queries(h), *self.self_attn.keys_values(h), bias, prefix)
        h = h if self.attn_ln is None else self.attn_ln(h)
        return self._feed_forward(self._after(x, h, self.self_attn_layer_norm), visual)


class KeyValueCache:
    """Keys and values of one decoder layer, (R, H, max_len, d), filled up to a length."""

    def __init__(self, rows: int, heads: int, max_len: int, width: int, like: Tensor) -> None:
        self.k = torch.empty(rows, heads, max_len, width, dtype=like.dtype, device=like.device)
        self.v = torch.empty_like(self.k)

    def write(self, k: Tensor, v: Tensor, start: int) -> KeyValue:
        end = start + k.size(2)
        self.k[:, :, start:end], self.v[:, :, start:end] = k, v
        return self.k[:, :, :end], self.v[:, :, :end]

    def reorder(self, rows: Tensor, length: int) -> None:
        for cache in (self.k, self.v):
            cache[:, :, :length] = cache[:, :, :length].index_select(0, rows)

    def keep(self, rows: Tensor) -> None:
        self.k, self.v = self.k.index_select(0, rows), self.v.index_select(0, rows)


class BranchCache(KeyValueCache):
    """What another cache holds, in front of keys and values that are not kept."""

    def __init__(self, kept: KeyValueCache) -> None:
        self.k, self.v = kept.k, kept.v

    def write(self, k: Tensor, v: Tensor, start: int) -> KeyValue:
        return torch.cat([self.k[:, :, :start], k], 2), torch.cat([self.v[:, :, :start], v], 2)


class DecoderLayer(Layer):
    def __init__(self, config: TransformerConfig, peft: PeftConfig, drop_path: float) -> None:
        super().__init__(config, peft, "decoder", drop_path)
        width = config.decoder_embed_dim
        self.self_attn_ln = nn.LayerNorm(width) if config.scale_attn else None
        self.cross_attn_ln = nn.LayerNorm(width) if config.scale_attn else None
        self.encoder_attn = self._attention(config, width, config.decoder_attention_heads)
        self.encoder_attn_layer_norm = nn.LayerNorm(width)

    def forward(
        self,
        x: Tensor,
        self_bias: Tensor,
        memory: Tensor | KeyValue,
        cross_bias: Tensor,
        prefix: KeyValue | None = None,
        cache: KeyValueCache | None = None,
        start: int = 0,
    ) -> Tensor:
        """x (R, U, D) at positions ``start`` onwards; self_bias (., H, U, start + U).

        ``memory`` is the encoder output (R, S, D) or its keys and values (G, H, S, d), where R = G * beam and
        the rows of one group share them; cross_bias (., H, U, S).
        """
        h = self._before(x, self.self_attn_layer_norm)
        k, v = self.self_attn.keys_values(h)
        if cache is not None:
            k, v = cache.write(k, v, start)
        h = self.self_attn(self.self_attn.queries(h), k, v, self_bias, prefix)
        x = self._after(
            x, h if self.self_attn_ln is None else self.self_attn_ln(h), self.self_attn_layer_norm
        )

        h = self._before(x, self.encoder_attn_layer_norm)
        h = self._attend_memory(h, memory, cross_bias)
        h = h if self.cross_attn_ln is None else self.cross_attn_ln(h)
        return self._feed_forward(self._after(x, h, self.encoder_attn_layer_norm))

    def _attend_memory(self, h: Tensor, memory: Tensor | KeyValue, bias: Tensor) -> Tensor:
        attention = self.encoder_attn
        if isinstance(memory, Tensor):
            return attention(attention.queries(h), *attention.keys_values(memory), bias)
        k, v = memory
        rows, length, _ = h.shape
        beam = rows // k.size(0)
        # The beams of one row attend together, as a longer query, so its keys are never copied.
        grouped = h.reshape(k.size(0), beam * length, -1)
        if beam > 1:
            bias = bias.unsqueeze(2).expand(-1, -1, beam, -1, -1).flatten(2, 3)
        return attention(attention.queries(grouped), k, v, bias).reshape(rows, length, -1)

"""Attention with an additive bias: one function, two backends that are tested against each other."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from unival.errors import ConfigError, nearest
from unival.modeling.products import Linear

BACKENDS = ("sdpa", "naive")
_backend = "sdpa"


def set_backend(name: str) -> None:
    """Choose "sdpa" (fused kernels) or "naive" (written out) for all models of this process."""
    global _backend
    if name not in BACKENDS:
        raise ConfigError(
            f"unknown attention backend '{name}'; known: {', '.join(BACKENDS)}.{nearest(name, BACKENDS)}"
        )
    _backend = name


def get_backend() -> str:
    return _backend


@contextmanager
def backend(name: str) -> Iterator[None]:
    """Use a backend inside a ``with`` block."""
    before = _backend
    set_backend(name)
    try:
        yield
    finally:
        set_backend(before)


def mask_bias(bias: Tensor, blocked: Tensor) -> Tensor:
    """Return ``bias`` with the lowest finite number where ``blocked`` (broadcast) is True.

    Finite, so that a row whose keys are all blocked gives a mixture of values and not NaN; filled rather
    than added, so that no sum overflows to infinity in half precision.
    """
    return bias.masked_fill(blocked, torch.finfo(bias.dtype).min)


def attend(
    q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None, scale: float, dropout: float = 0.0
) -> Tensor:
    """Softmax(scale * q k' + bias) v.

    q (B, H, L, d), k and v (B, H, S, d), bias broadcastable to (B, H, L, S); result (B, H, L, d) in q's type.
    The softmax is in float32 in both backends: fused kernels accumulate in float32 whatever the inputs.
    """
    if _backend == "sdpa":
        if bias is not None:
            low = torch.finfo(q.dtype).min
            bias = bias if bias.dtype == q.dtype else bias.clamp_min(low).to(q.dtype)
            bias = _aligned(bias).expand(q.size(0), q.size(1), q.size(2), k.size(2))
        return F.scaled_dot_product_attention(q, k, v, attn_mask=bias, dropout_p=dropout, scale=scale)
    scores = (q * scale) @ k.transpose(-1, -2)
    if bias is not None:
        scores = scores.float() + bias.float()
    weights = F.dropout(scores.float().softmax(-1).to(v.dtype), dropout)
    return weights @ v


def _aligned(bias: Tensor) -> Tensor:
    """A bias on a GPU that begins where fused kernels may read 16 bytes at once; cuDNN's does not look.

    A slice of a larger bias, as in step-by-step decoding, begins anywhere. A compiler cannot ask where a tensor
    begins, and would split its graph here; what it compiles has a bias of its own.
    """
    if torch.compiler.is_compiling():
        return bias
    return bias.clone() if bias.is_cuda and bias.data_ptr() % 16 else bias


class MultiheadAttention(nn.Module):
    """Projections around :func:`attend`, with the reference's key names.

    ``scale_heads`` multiplies each head's output by a learned factor ``c_attn``; ``qk_norm`` normalises the
    projected queries and keys, each with its own LayerNorm over the whole width.
    """

    def __init__(
        self, width: int, heads: int, scale_factor: float, dropout: float, scale_heads: bool, qk_norm: bool
    ) -> None:
        super().__init__()
        self.heads, self.dropout = heads, dropout
        self.scale = (width // heads * scale_factor) ** -0.5
        self.c_attn = nn.Parameter(torch.ones(heads)) if scale_heads else None
        self.k_proj = Linear(width, width)
        self.v_proj = Linear(width, width)
        self.q_proj = Linear(width, width)
        self.out_proj = Linear(width, width)
        self.q_norm = nn.LayerNorm(width) if qk_norm else None
        self.k_norm = nn.LayerNorm(width) if qk_norm else None

    def _split(self, x: Tensor) -> Tensor:
        return x.unflatten(-1, (self.heads, -1)).transpose(1, 2)

    def queries(self, x: Tensor) -> Tensor:
        """(B, L, D) -> (B, H, L, d)."""
        q = self.q_proj(x)
        return self._split(q if self.q_norm is None else self.q_norm(q).to(q.dtype))

    def keys_values(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """(B, S, D) -> keys and values (B, H, S, d)."""
        k = self.k_proj(x)
        k = k if self.k_norm is None else self.k_norm(k).to(k.dtype)
        return self._split(k), self._split(self.v_proj(x))

    def forward(
        self,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        bias: Tensor | None,
        prefix: tuple[Tensor, Tensor] | None = None,
    ) -> Tensor:
        """Attend and project back to (B, L, D). ``prefix`` holds learned keys and values (H, p, d) that
        come before all others and carry no position bias."""
        if prefix is not None:
            pk, pv = (t.to(k.dtype).expand(k.size(0), -1, -1, -1) for t in prefix)
            k, v = torch.cat([pk, k], 2), torch.cat([pv, v], 2)
            bias = None if bias is None else F.pad(bias, (pk.size(2), 0))
        out = attend(q, k, v, bias, self.scale, self.dropout if self.training else 0.0)
        if self.c_attn is not None:
            out = out * self.c_attn.to(out.dtype)[:, None, None]
        return self.out_proj(out.transpose(1, 2).flatten(2))

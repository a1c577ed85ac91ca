"""Small trainable additions to a frozen model: bottleneck adapters, low-rank additions and prefix tuning."""

from __future__ import annotations

import math
import re

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from unival.modeling.config import LORA_TARGETS, PeftConfig
from unival.modeling.products import Linear

PREFIX_DROPOUT = 0.2


class Adapter(nn.Module):
    """Residual bottleneck (Houlsby et al., 2019)."""

    def __init__(self, width: int, bottleneck: int) -> None:
        super().__init__()
        self.down_proj = nn.Linear(width, bottleneck)
        self.up_proj = nn.Linear(bottleneck, width)

    def forward(self, x: Tensor, visual: int = 0) -> Tensor:
        return x + self.up_proj(F.relu(self.down_proj(x)))


class SplitAdapter(nn.Module):
    """One adapter for the leading visual tokens, one for the text behind them."""

    def __init__(self, width: int, bottleneck: int) -> None:
        super().__init__()
        self.visual = Adapter(width, bottleneck)
        self.text = Adapter(width, bottleneck)

    def forward(self, x: Tensor, visual: int = 0) -> Tensor:
        return torch.cat([self.visual(x[:, :visual]), self.text(x[:, visual:])], 1)


def build_adapter(config: PeftConfig, width: int, side: str) -> Adapter | SplitAdapter | None:
    """Return the adapter of one layer, or None."""
    if not config.adapter:
        return None
    split = config.adapter_type == "VL" and side == "encoder"
    return (SplitAdapter if split else Adapter)(width, config.adapter_dim)


class LoraLinear(Linear):
    """A matrix with a low-rank addition (Hu et al., LoRA, 2021): W x + (alpha / rank) B A x.

    B begins at zero, so that the model begins as the one without additions. Weight and bias keep their names.
    """

    def __init__(self, linear: nn.Linear, rank: int, alpha: float, dropout: float) -> None:
        super().__init__(linear.in_features, linear.out_features, linear.bias is not None, device="meta")
        self.weight, self.bias = linear.weight, linear.bias
        self.factor, self.dropout = alpha / rank, dropout
        self.lora_a = nn.Parameter(torch.empty(rank, linear.in_features))
        self.lora_b = nn.Parameter(torch.zeros(linear.out_features, rank))
        nn.init.kaiming_uniform_(self.lora_a, math.sqrt(5))

    def forward(self, x: Tensor) -> Tensor:
        low = F.linear(F.dropout(x, self.dropout, self.training), self.lora_a)
        return super().forward(x) + self.factor * F.linear(low, self.lora_b)

    def folded(self) -> nn.Linear:
        """The matrix with the addition in it."""
        plain = Linear(self.in_features, self.out_features, self.bias is not None, device="meta")
        added = self.factor * self.lora_b.float() @ self.lora_a.float()
        plain.weight = nn.Parameter((self.weight.float() + added).to(self.weight.dtype))
        plain.bias = self.bias
        return plain


def add_lora(module: nn.Module, config: PeftConfig) -> None:
    """Give the matrices that ``lora_targets`` names in the layers below ``module`` an addition."""
    if not config.lora:
        return
    targets = {name for word in config.lora_targets.split(",") for name in LORA_TARGETS[word.strip()]}
    for name, parent in list(module.named_modules()):
        for child, linear in list(parent.named_children()):
            within = re.search(r"(^|\.)layers\.\d+(\.(self|encoder)_attn)?$", name)
            if within and child in targets and isinstance(linear, nn.Linear):
                setattr(
                    parent,
                    child,
                    LoraLinear(linear, config.lora_rank, config.lora_alpha, config.lora_dropout),
                )


@torch.no_grad()
def fold_lora(module: nn.Module) -> None:
    """Put every low-rank addition below ``module`` into its matrix."""
    for parent in list(module.modules()):
        for child, linear in list(parent.named_children()):
            if isinstance(linear, LoraLinear):
                setattr(parent, child, linear.folded())


class PrefixEncoder(nn.Module):
    """Learned keys and values put before those of every layer (Li and Liang, prefix tuning, 2021)."""

    def __init__(
        self, length: int, width: int, layers: int, heads: int, projection: bool, hidden: int | None
    ) -> None:
        super().__init__()
        self.layers, self.heads = layers, heads
        out = 2 * layers * width
        self.embedding = nn.Embedding(length, width if projection else out)
        self.trans: nn.Module | None = None
        if projection:
            middle = hidden or 2 * width
            self.trans = nn.Sequential(nn.Linear(width, middle), nn.ReLU(), nn.Linear(middle, out))

    def forward(self) -> list[tuple[Tensor, Tensor]]:
        """Keys and values (H, length, d) of each layer."""
        x = self.embedding.weight if self.trans is None else self.trans(self.embedding.weight)
        x = F.dropout(x, PREFIX_DROPOUT, self.training)
        x = x.unflatten(-1, (2 * self.layers, self.heads, -1)).permute(1, 2, 0, 3)
        return [(x[2 * i], x[2 * i + 1]) for i in range(self.layers)]


def build_prefix(config: PeftConfig, width: int, layers: int, heads: int, side: str) -> PrefixEncoder | None:
    """Return the prefix of the encoder or the decoder, or None."""
    if not getattr(config, f"{side}_prompt"):
        return None
    length, hidden = getattr(config, f"{side}_prompt_length"), getattr(config, f"{side}_prompt_dim")
    projection = getattr(config, f"{side}_prompt_projection")
    return PrefixEncoder(length, width, layers, heads, projection, hidden)

"""Positions act through the attention bias only: an absolute query-key product shared by all layers plus a
relative table per layer (paper section 3; OFA, Wang et al. 2022). Nothing here depends on the content, so a
bias is computed once per forward and, where all rows share a layout, without a batch dimension.

R below is 1 where all rows share the layout, else the batch size.
"""

from __future__ import annotations

import math
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

TOKEN_BUCKET_POSITIONS = 1024  # longest text that the table of text buckets covers
CODE_FILLER = 1024  # image position of everything behind the code grid
CODE_FILLERS = 769


def token_buckets(bucket_size: int, positions: int = TOKEN_BUCKET_POSITIONS) -> Tensor:
    """Bucket of (query - key) for text, int64 (positions, positions), 0 .. 2 * bucket_size - 2.

    Exact up to half the bucket size, logarithmic beyond.
    """
    distance = torch.arange(1 - positions, positions)
    middle = bucket_size // 2
    size = distance.abs().clamp_min(middle).double()
    log = torch.ceil(torch.log(size / middle) / math.log((positions - 1) / middle) * (middle - 1)) + middle
    near = distance.abs() <= middle
    buckets = torch.where(near, distance, log.long() * distance.sign()) + bucket_size - 1
    at = torch.arange(positions)  # a million pairs have two thousand distances
    return buckets[at[:, None] - at[None, :] + positions - 1]


def image_buckets(side: int) -> Tensor:
    """Bucket of the grid offset between two image positions, int64 (side * side + 1,) * 2.

    Position 0 stands for the begin symbol of image codes and has three classes of its own.
    """
    span = 2 * side - 1
    at = torch.arange(side)
    rows, columns = at.repeat_interleave(side), at.repeat(side)
    cell = rows * span + columns  # the difference of two is their offset, rows and columns at once
    grid = (cell + (side - 1) * (span + 1))[:, None] - cell
    out = torch.empty(side * side + 1, side * side + 1, dtype=torch.long)
    out[1:, 1:] = grid
    special = span * span
    out[0], out[:, 0], out[0, 0] = special, special + 1, special + 2
    return out


def image_bucket_count(side: int) -> int:
    return (2 * side - 1) ** 2 + 3


def grid_positions(rows: int, columns: int, side: int, device: torch.device | None = None) -> Tensor:
    """Position ids of a grid in row-major order, int64 (rows * columns,); id = row * side + column + 1."""
    down, across = torch.arange(rows, device=device), torch.arange(columns, device=device)
    return (down[:, None] * side + across + 1).flatten()


def code_positions(code_image_size: int, side: int) -> Tensor:
    """Position ids of image codes: begin symbol, raster of the code grid, then a constant."""
    window = code_image_size // 8
    filler = torch.full((CODE_FILLERS,), CODE_FILLER, dtype=torch.long)
    return torch.cat([torch.zeros(1, dtype=torch.long), grid_positions(window, window, side), filler])


def product_bias(query: Tensor, key: Tensor, heads: int, scale_factor: float) -> Tensor:
    """Per-head products of projected positions: (R, L, D), (R', S, D) -> (max(R, R'), H, L, S)."""
    q = query.unflatten(-1, (heads, -1)).transpose(1, 2)
    k = key.unflatten(-1, (heads, -1)).transpose(1, 2)
    return (q * (q.size(-1) * scale_factor) ** -0.5) @ k.transpose(-1, -2)


class RelativeTables(nn.Module):
    """Learned biases of relative positions: per layer one table for text and one for the image grid.

    The state-dict names belong to the encoder or decoder that subclasses this.
    """

    token_rp_bucket: Tensor
    image_rp_bucket: Tensor

    def _add_tables(self, layers: int, heads: int, token_bucket_size: int, image_bucket_size: int) -> None:
        self.token_rel_pos_table_list = nn.ModuleList(
            nn.Embedding(2 * token_bucket_size - 1, heads) for _ in range(layers)
        )
        self.image_rel_pos_table_list = nn.ModuleList(
            nn.Embedding(image_bucket_count(image_bucket_size), heads) for _ in range(layers)
        )
        self.register_buffer("token_rp_bucket", token_buckets(token_bucket_size))
        self.register_buffer("image_rp_bucket", image_buckets(image_bucket_size))

    def token_index(self, length: int) -> Tensor:
        """Rows of :meth:`table` for text (1, length, length)."""
        return self.token_rp_bucket[:length, :length].unsqueeze(0)

    def image_index(self, ids: Tensor) -> Tensor:
        """Rows of :meth:`table` for image positions ``ids`` (R, P) -> (R, P, P)."""
        return self.image_rp_bucket[ids.unsqueeze(2), ids.unsqueeze(1)] + self._weights(0)[0].size(0)

    @property
    def no_relation(self) -> int:
        """Row of :meth:`table` for pairs without a relative bias."""
        return sum(weight.size(0) for weight in self._weights(0))

    def table(self, layer: int) -> Tensor:
        """Text table, image table and a row of zeros (rows, H) of one layer."""
        # one table, so that one lookup serves a joined sequence, pairs without a distance included
        text, grid = self._weights(layer)
        return torch.cat([text, grid, text.new_zeros(1, text.size(1))])

    def _weights(self, layer: int) -> tuple[Tensor, Tensor]:
        lists = self.token_rel_pos_table_list, self.image_rel_pos_table_list
        text, grid = (cast(nn.Embedding, tables[layer]).weight for tables in lists)
        return text, grid


def relative_bias(index: Tensor, table: Tensor) -> Tensor:
    """(R, L, S) rows of a table (rows, H) -> (R, H, L, S)."""
    return F.embedding(index, table).permute(0, 3, 1, 2)

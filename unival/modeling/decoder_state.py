"""What step-by-step decoding remembers."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from torch import Tensor

from unival.core.transfers import to_device, to_host
from unival.errors import DataError
from unival.modeling.layers import KeyValue, KeyValueCache


@dataclass(slots=True)
class DecoderState:
    """State of R decoder rows over G encoder rows.

    While every encoder row has the same number of decoder rows ("beam"), those share its keys and values.
    """

    caches: list[KeyValueCache]
    memory: list[KeyValue]  # per layer (G, H, S, d)
    self_bias: Tensor  # (1 or G, H, M, M), absolute part
    index: Tensor  # (1 or G, M, M) rows of the relative tables
    tables: Tensor  # (rows, layers * H)
    cross_bias: Tensor  # (1 or G, H, M, S), padding masked
    position: Tensor  # (1 or G, M, D)
    code_masks: Tensor | None  # (G)
    prefix: list[KeyValue] | None
    max_len: int
    source: np.ndarray  # (R,) encoder row of each decoder row, on the host
    beam: int
    length: int = 0

    @property
    def rows(self) -> int:
        """Number of decoder rows R."""
        return len(self.source)

    def check(self, rows: int, length: int) -> None:
        if rows != self.rows:
            raise DataError(f"{rows} rows of tokens were given; this state has {self.rows}")
        if self.length + length > self.max_len:
            raise DataError(
                f"decoding reached {self.length + length} tokens; the state was started for {self.max_len}"
            )

    def row_wise(self, tensor: Tensor) -> Tensor:
        """Repeat a per-encoder-row tensor for the decoder rows; a shared one stays as it is."""
        return tensor if tensor.size(0) == 1 else tensor.repeat_interleave(self.beam, 0)

    def row_code_masks(self) -> Tensor | None:
        return None if self.code_masks is None else self.code_masks.repeat_interleave(self.beam, 0)

    def reorder(self, rows: Tensor | np.ndarray) -> None:
        """Let row i continue what row ``rows[i]`` has seen; rows (R',) int64, best on the host.

        Within an encoder row, as beam search does, only the self-attention caches move.
        """
        order = rows if isinstance(rows, np.ndarray) else to_host(rows)
        if np.array_equal(order, np.arange(self.rows)):
            return
        source = self.source[order]
        index = to_device(order, self.caches[0].k.device)
        if np.array_equal(source, self.source):
            for cache in self.caches:
                cache.reorder(index, self.length)
            return
        for cache in self.caches:
            cache.keep(index)
        self._select_source(source)

    def keep(self, rows: Tensor | np.ndarray) -> None:
        """Drop all decoder rows but ``rows`` (R',) int64, for example those of unfinished sentences."""
        self.reorder(rows)

    def _select_source(self, source: np.ndarray) -> None:
        """Follow ``source`` (R',), the encoder row of each remaining decoder row."""
        chosen = source[np.flatnonzero(np.diff(source, prepend=-1))]  # one of each run
        beam = len(source) // max(len(chosen), 1)
        if not np.array_equal(np.repeat(chosen, beam), source):
            chosen, beam = source, 1  # uneven groups: each decoder row gets its own copy
        index = to_device(chosen, self.caches[0].k.device)

        def select(tensor: Tensor) -> Tensor:
            return tensor.index_select(0, index)

        self.memory = [(select(k), select(v)) for k, v in self.memory]
        for name in ("self_bias", "index", "cross_bias", "position"):
            tensor = getattr(self, name)
            if tensor.size(0) > 1:
                setattr(self, name, select(tensor))
        if self.code_masks is not None:
            self.code_masks = select(self.code_masks)
        self.beam = beam
        self.source = np.repeat(np.arange(len(chosen)), beam)

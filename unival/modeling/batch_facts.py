"""What the host knows of a batch, so that no forward pass asks the device for it.

The collator has these facts before anything is on a GPU, where every question is a stop
(:mod:`unival.core.transfers`). Without them they are asked of the tensors, once. Whoever changes the tensors of a batch
leaves its facts out, or changes them as well.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from torch import Tensor

from unival.errors import DataError

PAD = 1


@dataclass(frozen=True, slots=True)
class SourceFacts:
    """types: patch types (B), None where a batch has none; media_rows: ``patch_rows`` (B) likewise; padded: a row of
    ``src_tokens`` holds padding; hidden: ``patch_masks`` hides a row."""

    types: Sequence[int] | None
    media_rows: Sequence[int] | None
    padded: bool
    hidden: bool

    @classmethod
    def of(
        cls,
        src_tokens: Tensor,
        patch_types: Tensor | None = None,
        patch_masks: Tensor | None = None,
        patch_rows: Tensor | None = None,
    ) -> SourceFacts:
        """Ask the tensors, named as in ``net_input``."""
        return cls(
            types=None if patch_types is None else patch_types.tolist(),
            media_rows=None if patch_rows is None else patch_rows.tolist(),
            padded=bool(src_tokens.eq(PAD).any()),
            hidden=patch_masks is not None and bool((~patch_masks.bool()).any()),
        )

    def check(self, batch: int, patch_types: Tensor | None, patch_rows: Tensor | None) -> None:
        """Raise DataError where these are facts of another batch, as far as shapes tell."""
        for name, fact, tensor in (
            ("patch_types", self.types, patch_types),
            ("patch_rows", self.media_rows, patch_rows),
        ):
            if (fact is None) != (tensor is None) or (fact is not None and len(fact) != batch):
                raise DataError(
                    f"the facts of the batch and its {name} differ: leave the facts out where tensors were changed"
                )

    def twice(self) -> SourceFacts:
        """Facts of the batch behind itself."""

        def both(values: Sequence[int] | None) -> list[int] | None:
            return None if values is None else [*values, *values]

        return SourceFacts(both(self.types), both(self.media_rows), self.padded, self.hidden)


@dataclass(frozen=True, slots=True)
class TargetFacts:
    """codes: ``code_masks`` (B), None where a batch has none; padded: a row of ``prev_output_tokens`` holds padding."""

    codes: Sequence[bool] | None
    padded: bool

    @classmethod
    def of(cls, prev_output_tokens: Tensor, code_masks: Tensor | None = None) -> TargetFacts:
        """Ask the tensors, named as in ``net_input``."""
        return cls(code_flags(code_masks), bool(prev_output_tokens.eq(PAD).any()))

    def check(self, batch: int, code_masks: Tensor | None) -> None:
        """Raise DataError where these are facts of another batch, as far as shapes tell."""
        if (self.codes is None) != (code_masks is None) or (
            self.codes is not None and len(self.codes) != batch
        ):
            raise DataError(
                "the facts of the batch and its code_masks differ: leave the facts out where tensors were changed"
            )

    def twice(self) -> TargetFacts:
        """Facts of the batch behind itself."""
        return TargetFacts(None if self.codes is None else [*self.codes, *self.codes], self.padded)


@dataclass(frozen=True, slots=True)
class BatchFacts:
    """Facts of a collated batch; ``target`` (B, U) int64: its targets, on the host."""

    source: SourceFacts
    output: TargetFacts
    target: np.ndarray

    def twice(self) -> BatchFacts:
        """Facts of the batch behind itself, as R-Drop runs it."""
        return BatchFacts(
            self.source.twice(), self.output.twice(), np.concatenate([self.target, self.target])
        )


def code_flags(code_masks: Tensor | None) -> list[bool] | None:
    """Ask ``code_masks`` (B) which rows are image codes."""
    return None if code_masks is None else code_masks.bool().tolist()

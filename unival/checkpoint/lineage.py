"""Which checkpoints a model descends from, and whether two models have an ancestor in common.

Averaging weights makes sense for models finetuned from one initialisation (paper, appendix on weight averaging).
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations
from pathlib import Path
from typing import Any

import torch

from unival.checkpoint.header import Header
from unival.core.provenance import file_hash

RELATED = 0.5  # cosine of two models' weights; two initialisations give about 0, one ancestor above 0.9
COMPARED = 8  # matrices that the cosine is taken over


def lineage_through(path: str | Path) -> list[str]:
    """Lineage of a model whose training starts from ``path``: that file's ancestors and its own SHA-256.

    Raises CheckpointError when the file is absent or unreadable.
    """
    return [*(Header.read(path).lineage or []), file_hash(path)]


def strangers(names: Sequence[str], lineages: Sequence[Sequence[str] | None]) -> list[tuple[int, int]]:
    """Return the pairs of models whose lineages are both known and have nothing in common."""
    pairs = combinations(range(len(names)), 2)
    known = [None if line is None else set(line) for line in lineages]
    return [
        (i, j) for i, j in pairs if (a := known[i]) is not None and (b := known[j]) is not None and not a & b
    ]


def cosine(a: Any, b: Any, keys: Sequence[str]) -> float:
    """Cosine of two models' weights over some of their matrices; ``a`` and ``b`` read a tensor by key."""
    matrices = [key for key in keys if key.endswith((".fc1.weight", ".fc2.weight", "_proj.weight"))]
    chosen = matrices[:: max(1, len(matrices) // COMPARED)][:COMPARED]
    products = torch.zeros(3, dtype=torch.float64)
    for key in chosen:
        x, y = a(key).flatten().double(), b(key).flatten().double()
        products += torch.stack([x @ y, x @ x, y @ y])
    return float(products[0] / (products[1] * products[2]).sqrt().clamp_min(1e-30)) if chosen else 1.0

"""Large weights in the order in which oneDNN reads them for products of few rows.

Without a copy in it, oneDNN turns a weight around on the way into every product, which takes longer than reading it. A
copy pays after eight to sixteen products, and a search makes one for each token; so copies come with use. oneDNN's
products are the same bits with a copy and without.
"""

from __future__ import annotations

import torch
from torch import Tensor

from unival.modeling.copies import Copies, copy_of, onednn_has

NUMBERS = 2**19  # of a weight: smaller ones stay in a core's own cache
ROWS = 128  # at most: with more, the product itself takes the time
# Rows at least: with fewer, oneDNN has another kernel, which gains nothing.
LEAST = {torch.float32: 3, torch.bfloat16: 1}
USES = 4  # for each byte of a number: products that cost together what making a copy does


def few_rows(weight: Tensor, rows: int) -> bool:
    """Whether a product of ``rows`` rows with a weight (N, K) on a CPU gains from a copy."""
    least = LEAST.get(weight.dtype)
    return (
        least is not None and least <= rows <= ROWS and weight.numel() >= NUMBERS and onednn_has(weight.dtype)
    )


def packed(weight: Tensor, rows: int, copies: Copies) -> Tensor:
    """Return a weight for such a product: its copy where there is one, itself where not (yet)."""
    copy = copy_of((weight,), copies)
    if copy is None:
        return weight
    made = copy.used(
        (weight,),
        lambda: torch.ops.mkldnn._reorder_linear_weight(weight.detach(), rows),
        after=USES * weight.element_size(),
    )
    return weight if made is None else made

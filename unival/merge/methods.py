"""The ways to merge: each takes one weight of all models and returns the merged weight.

A method reads the models one after the other and keeps a fixed number of tensors, so that its memory does not
grow with the number of models. All work in float32, or in float64 when the weights are.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from unival.core.seeding import rng_for

TINY = 1e-30  # below it a squared length or a Fisher value counts as zero
PARALLEL = 0.9995  # cosine above which spherical and linear interpolation are the same to float32


@dataclass(frozen=True)
class Weight:
    """One weight as a method sees it. ``read(k)`` gives it of model k, ``base`` of the common ancestor,
    ``fisher(k)`` its diagonal Fisher information in model k; all of one shape and floating-point type."""

    key: str
    coefficients: tuple[float, ...]
    read: Callable[[int], Tensor]
    base: Callable[[], Tensor] | None = None
    fisher: Callable[[int], Tensor] | None = None
    density: float = 1.0
    scale: float = 1.0
    seed: int = 0

    @property
    def used(self) -> list[int]:
        """Models that count; one with coefficient zero is not even read."""
        return [k for k, c in enumerate(self.coefficients) if c]

    def ancestor(self) -> Tensor:
        assert self.base is not None, "checked when the recipe was read"
        return self.base()

    def deltas(self) -> Iterator[tuple[float, Tensor]]:
        """Yield (coefficient, difference to the ancestor) of each model."""
        for k in self.used:
            yield self.coefficients[k], self.read(k).sub_(self.ancestor())


def linear(weight: Weight) -> Tensor:
    """Sum of coefficient times weight. With one coefficient 1 and the others 0 that model, bit for bit.

    Source: paper section 5 (W = lambda W1 + (1 - lambda) W2); model soups, Wortsman et al. 2022.
    """
    return _sum((weight.coefficients[k], weight.read(k)) for k in weight.used)


def fisher(weight: Weight) -> Tensor:
    """Average weighted by coefficient times Fisher information, value by value (Matena and Raffel 2022).

    Where no model has any information it is the plain weighted average.
    """
    assert weight.fisher is not None, "checked when the recipe was read"
    if len(weight.used) == 1:
        return weight.read(weight.used[0])
    above = below = None
    for k in weight.used:
        information = weight.fisher(k).mul_(weight.coefficients[k])
        part = weight.read(k).mul_(information)
        above = part if above is None else above.add_(part)
        below = information if below is None else below.add_(information)
    assert above is not None and below is not None
    if not (below <= TINY).any():
        return above.div_(below)
    return torch.where(below > TINY, above.div_(below.clamp_min(TINY)), linear(weight))


def task_arithmetic(weight: Weight) -> Tensor:
    """Ancestor plus scale times the sum of task vectors (Ilharco et al. 2023)."""
    return weight.ancestor().add_(_sum(weight.deltas()), alpha=weight.scale)


def ties(weight: Weight) -> Tensor:
    """Trim each task vector to its largest values, elect a sign per value, average what agrees with it
    (TIES-Merging, Yadav et al. 2023). ``density`` is the share of values kept."""
    least: dict[int, Tensor] = {}  # the election goes through the vectors twice; selecting is the slow part

    def trimmed() -> Iterator[tuple[float, Tensor]]:
        for k, (coefficient, delta) in zip(weight.used, weight.deltas(), strict=True):
            size = delta.abs()
            if k not in least:
                least[k] = _smallest_kept(size, weight.density)
            yield coefficient, delta.mul_(size >= least[k])

    return _elected(weight, trimmed)


def dare(weight: Weight) -> Tensor:
    """Task arithmetic on task vectors of which a random share 1 - density is dropped and the rest rescaled
    (DARE, Yu et al. 2024)."""
    return weight.ancestor().add_(_sum(_dropped(weight)), alpha=weight.scale)


def dare_ties(weight: Weight) -> Tensor:
    """Random dropping as in ``dare``, then the sign election of ``ties``."""
    return _elected(weight, lambda: _dropped(weight))


def model_stock(weight: Weight) -> Tensor:
    """Between the average and the ancestor, at the ratio that the angle of the task vectors gives
    (Model Stock, Jang et al. 2024): t = N cos / (1 + (N - 1) cos), per weight tensor."""
    directions = total = None
    count, moved = len(weight.used), 0
    for _, delta in weight.deltas():
        length = delta.norm()
        moved += bool(length > TINY)
        direction = delta / length.clamp_min(TINY)
        directions = direction if directions is None else directions.add_(direction)
        total = delta if total is None else total.add_(delta)
    assert directions is not None and total is not None
    # The squared length of a sum of unit vectors is their number plus the cosines of all ordered pairs.
    cos = (float(directions.square().sum()) - moved) / (count * (count - 1))
    ratio = min(max(count * cos / (1 + (count - 1) * cos), 0.0), 1.0) if 1 + (count - 1) * cos > TINY else 0.0
    return weight.ancestor().add_(total, alpha=ratio / count)


def slerp(weight: Weight) -> Tensor:
    """Interpolation of two models along the arc between them (Shoemake 1985), the weight as one vector."""
    share = weight.coefficients[1] / sum(weight.coefficients)
    if share in (0.0, 1.0):
        return weight.read(int(share))
    a, b = weight.read(0), weight.read(1)
    lengths = a.norm() * b.norm()
    cos = float((a * b).sum() / lengths.clamp_min(TINY))
    if abs(cos) > PARALLEL or float(lengths) <= TINY:
        return a.mul_(1 - share).add_(b, alpha=share)
    angle = torch.arccos(torch.tensor(cos, dtype=torch.float64))
    parts = [float(torch.sin(x * angle) / torch.sin(angle)) for x in (1 - share, share)]
    return a.mul_(parts[0]).add_(b, alpha=parts[1])


def _sum(terms: Iterator[tuple[float, Tensor]]) -> Tensor:
    total: Tensor | None = None
    for coefficient, tensor in terms:
        # The first term is multiplied in place of added to zero, which would turn -0 into 0.
        total = tensor.mul_(coefficient) if total is None else total.add_(tensor, alpha=coefficient)
    assert total is not None, "a recipe has at least one coefficient that is not zero"
    return total


def _smallest_kept(size: Tensor, density: float) -> Tensor:
    """Smallest of the ``density`` largest values, of which there is at least one."""
    keep = max(1, int(density * size.numel()))
    return size.flatten().kthvalue(size.numel() - keep + 1).values


def _dropped(weight: Weight) -> Iterator[tuple[float, Tensor]]:
    """Task vectors after DARE's dropping; which values stay is a function of (seed, model, key)."""
    for k, (coefficient, delta) in zip(weight.used, weight.deltas(), strict=True):
        draws = rng_for(weight.seed, 0, k, f"dare {weight.key}").random(delta.shape, dtype="float32")
        yield coefficient, delta.mul_(torch.as_tensor(draws) < weight.density).div_(weight.density)


def _elected(weight: Weight, vectors: Callable[[], Iterator[tuple[float, Tensor]]]) -> Tensor:
    """Ancestor plus scale times the weighted mean of the values whose sign is that of the weighted sum.

    The vectors are gone through twice: kept, they would be as many tensors as there are models.
    """
    sign = _sum(vectors()).sign_()
    sign = torch.where(sign == 0, 1.0, sign)  # a draw counts as positive
    total, count = torch.zeros_like(sign), torch.zeros_like(sign)
    for coefficient, vector in vectors():
        agrees = vector.sign() * sign > 0
        total.add_(vector.mul_(agrees), alpha=coefficient)
        count.add_(agrees, alpha=coefficient)
    count[count.abs() < 1e-8] = 1.0
    return weight.ancestor().add_(total.div_(count), alpha=weight.scale)


@dataclass(frozen=True)
class Method:
    """A method's function, what it needs, and where it comes from.

    ``normalises``: coefficients are divided by their sum (default: all equal); otherwise they count as they
    are (default: all 1). ``models``: least and largest number. ``density``: default share of values kept.
    """

    merge: Callable[[Weight], Tensor]
    paper: str
    normalises: bool = False
    needs_base: bool = False
    needs_fisher: bool = False
    models: tuple[int, int | None] = (1, None)
    density: float | None = None


METHODS: dict[str, Method] = {
    "average": Method(linear, "Wortsman et al. 2022, arXiv:2203.05482 (model soups)", normalises=True),
    "linear": Method(linear, "Shukor et al. 2023, arXiv:2307.16184 (UnIVAL), section 5"),
    "fisher": Method(fisher, "Matena and Raffel 2022, arXiv:2111.09832", normalises=True, needs_fisher=True),
    "task_arithmetic": Method(task_arithmetic, "Ilharco et al. 2023, arXiv:2212.04089", needs_base=True),
    "ties": Method(ties, "Yadav et al. 2023, arXiv:2306.01708", needs_base=True, density=0.2),
    "dare": Method(dare, "Yu et al. 2024, arXiv:2311.03099", needs_base=True, density=0.5),
    "dare_ties": Method(dare_ties, "Yu et al. 2024, arXiv:2311.03099", needs_base=True, density=0.5),
    "model_stock": Method(
        model_stock, "Jang et al. 2024, arXiv:2403.19522", needs_base=True, normalises=True, models=(2, None)
    ),
    "slerp": Method(slerp, "Shoemake 1985 (SIGGRAPH)", normalises=True, models=(2, 2)),
}


def normalised(coefficients: Sequence[float]) -> tuple[float, ...]:
    """Divide by the sum."""
    total = sum(coefficients)
    return tuple(c / total for c in coefficients)

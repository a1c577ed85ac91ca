"""Merging: from a recipe to a checkpoint folder, one weight at a time."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from torch import Tensor

from unival.checkpoint.folder import WEIGHTS, new_folder, write_config
from unival.core.files import check_folder, make_folder
from unival.core.provenance import file_hash
from unival.errors import CheckpointError, ConfigError
from unival.merge.card import describe, write_card
from unival.merge.checks import Plan, ancestry_warnings, check_base, plan
from unival.merge.methods import METHODS, Weight, linear, normalised
from unival.merge.recipe import MergeRecipe
from unival.merge.source import Source, open_source
from unival.merge.statistics import recompute
from unival.merge.tensorfile import Spec, TensorFile, TensorWriter

STATISTICS = re.compile(r"running_(mean|var)$")

Say = Callable[[str], None]


@dataclass(frozen=True)
class Merged:
    """A merge that was done: its folder, what to beware of, and the SHA-256 of the inputs by path."""

    folder: Path
    warnings: tuple[str, ...]
    hashes: dict[str, str]


def merge(recipe: MergeRecipe, say: Say = lambda line: None) -> list[Merged]:
    """Do every merge of a recipe: one, or one per lambda.

    Memory: the largest tensor a few times over, whatever the number of models. Raises ConfigError and
    CheckpointError for what cannot be merged; nothing is then written.
    """
    done = []
    hashes: dict[str, str] = {}
    check_folder(recipe.out)
    for point in recipe.points():
        _keep_inputs(point)
    make_folder(Path(recipe.out).parent)
    with TemporaryDirectory(prefix=".merge-", dir=Path(recipe.out).parent) as work:
        sources, base = _open(recipe, Path(work))
        names = [model.name for model in recipe.models]
        made = plan(sources, names, recipe.only_some)
        if base is not None:
            check_base(base, sources, made)
        for part in recipe.parts:
            if not any(part.covers(key) for key in made.specs):
                listed = ", ".join(part.include)
                raise ConfigError(f"no weight of the models is covered by the part that includes {listed}")
        for point in recipe.points():
            done.append(_one(point, sources, base, made, hashes, say))
    return done


def _keep_inputs(recipe: MergeRecipe) -> None:
    """Raise ConfigError where the result would take the place of something that it is made of."""
    out = os.path.realpath(recipe.out)
    files = [path for m in recipe.models for path in (m.path, m.fisher)] + [recipe.base, recipe.bpe_dir]
    for path in filter(None, files):
        real = os.path.realpath(path)
        if os.path.commonpath([out, real]) == out:
            raise ConfigError(
                f"'out: {recipe.out}' holds '{path}', an input of the merge; name another folder"
            )


def _open(recipe: MergeRecipe, work: Path) -> tuple[list[Source], Source | None]:
    sources = [open_source(model.path, recipe.weights, work, recipe.bpe_dir) for model in recipe.models]
    kinds = {source.weights for source in sources}
    if len(kinds) > 1:
        listed = ", ".join(f"{s.path} {s.weights}" for s in sources)
        raise CheckpointError(f"raw and averaged (EMA) weights are not merged with each other: {listed}")
    if recipe.base is None:
        return sources, None
    return sources, open_source(recipe.base, recipe.base_weights or recipe.weights, work, recipe.bpe_dir)


def _one(
    recipe: MergeRecipe,
    sources: Sequence[Source],
    base: Source | None,
    made: Plan,
    hashes: dict[str, str],
    say: Say,
) -> Merged:
    """Write one merged checkpoint."""
    specs = {key: _result_spec(spec, recipe.dtype) for key, spec in made.specs.items()}
    inputs = [model.path for model in recipe.models] + ([recipe.base] if recipe.base else [])
    merger = _Merger(recipe, sources, base, made)
    with ThreadPoolExecutor(1) as pool, new_folder(recipe.out) as folder:
        # Hashing runs beside the merge: it reads the same files and leaves the interpreter free.
        running: dict[str, Future[str]] = {
            path: pool.submit(file_hash, path) for path in dict.fromkeys(inputs) if path not in hashes
        }
        writer = TensorWriter(folder / WEIGHTS, specs)
        for key in writer.order:
            value = merger(key).to(specs[key].dtype)
            if value.dtype.is_floating_point and not torch.isfinite(value).all():
                raise CheckpointError(
                    f"the merged values of {key} do not fit {str(value.dtype).removeprefix('torch.')} (NaN or "
                    "infinite): take 'dtype: float32', or smaller coefficients"
                )
            writer.write(key, value)
        writer.close()
        hashes.update({path: future.result() for path, future in running.items()})
        names = [model.name for model in recipe.models]
        warnings = ancestry_warnings(sources, names, [hashes[m.path] for m in recipe.models])
        sources[0].vocabulary.save(folder)
        meta = describe(recipe, sources, made, hashes, warnings)
        write_config(folder, meta)
        if recipe.batchnorm == "recompute":
            recompute(folder, recipe.recompute)
        write_card(folder, recipe, meta, warnings)
    for warning in warnings:
        say(f"warning: {warning}")
    say(f"{recipe.out}: {len(specs)} weights of {len(recipe.models)} models by '{recipe.method}'")
    return Merged(Path(recipe.out), tuple(warnings), dict(hashes))


def _result_spec(spec: Spec, dtype: str | None) -> Spec:
    return replace(spec, dtype=getattr(torch, dtype)) if dtype and spec.dtype.is_floating_point else spec


class _Merger:
    """Gives the merged value of each weight.

    Models are gone through in the order of their paths, so that the order in the recipe changes no bit.
    """

    def __init__(
        self, recipe: MergeRecipe, sources: Sequence[Source], base: Source | None, made: Plan
    ) -> None:
        self.recipe, self.sources, self.base, self.made = recipe, sources, base, made
        self.method = METHODS[recipe.method]
        self.order = sorted(range(len(sources)), key=lambda k: (sources[k].path, recipe.models[k].name))
        self.information = [TensorFile(m.fisher) if m.fisher else None for m in recipe.models]

    def __call__(self, key: str) -> Tensor:
        owners = self.made.owners[key]
        coefficients = self.recipe.coefficients_of(key)
        spec = self.made.specs[key]
        if not spec.dtype.is_floating_point:
            first = max(owners, key=lambda k: (abs(coefficients[k]), -self.order.index(k)))
            return self.sources[first].read(key)
        if STATISTICS.search(key):
            if self.recipe.batchnorm == "first":
                return self.sources[owners[0]].read(key)
            return linear(self._weight(key, _shares(coefficients, owners)))
        if len(owners) < len(self.sources):
            return linear(self._weight(key, _shares(coefficients, owners)))
        return self.method.merge(self._weight(key, coefficients))

    def _read(self, source: Source, key: str) -> Tensor:
        """A weight of a model in the type that merging computes in. Raises CheckpointError for NaN and infinity."""
        value = _wide(source.read(key))
        if not torch.isfinite(value).all():
            bad = int((~torch.isfinite(value)).sum())
            raise CheckpointError(
                f"'{source.path}': {bad:,} of {value.numel():,} values of {key} are NaN or infinite: its training "
                "diverged, or the file is damaged; take another checkpoint"
            )
        return value

    def _weight(self, key: str, coefficients: Sequence[float]) -> Weight:
        order = [k for k in self.order if k in self.made.owners[key]]

        def read(k: int) -> Tensor:
            return self._read(self.sources[order[k]], key)

        def base() -> Tensor:
            assert self.base is not None
            return self._read(self.base, key)

        def fisher(k: int) -> Tensor:
            file = self.information[order[k]]
            assert file is not None
            if key not in file.specs:  # a buffer, or a weight that was frozen
                return torch.zeros(self.made.specs[key].shape)
            return _wide(file.read(key))

        density = self.recipe.density if self.recipe.density is not None else self.method.density
        return Weight(
            key,
            tuple(coefficients[k] for k in order),
            read,
            base if self.base is not None else None,
            fisher if self.method.needs_fisher else None,
            density if density is not None else 1.0,
            self.recipe.scale,
            self.recipe.seed,
        )


def _wide(tensor: Tensor) -> Tensor:
    """The type that merging computes in: at least float32."""
    return tensor.to(torch.promote_types(tensor.dtype, torch.float32))


def _shares(coefficients: Sequence[float], owners: Sequence[int]) -> tuple[float, ...]:
    """Coefficients as shares of the models that have a weight, none negative: a variance must not be."""
    kept = [max(c, 0.0) if k in owners else 0.0 for k, c in enumerate(coefficients)]
    return normalised(kept if sum(kept) > 0 else [float(k in owners) for k in range(len(kept))])

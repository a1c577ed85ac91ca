"""What to merge and how: the fields of a merge recipe (YAML), checked when it is read."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar, get_args, get_type_hints

from unival.core import options
from unival.core.paths import expand
from unival.core.yaml_files import read_yaml
from unival.errors import ConfigError, nearest
from unival.merge.methods import METHODS, normalised
from unival.merge.tables import Measured

T = TypeVar("T")

# Short names for parts of the network; anything else in include and exclude is a regular expression.
MODULES = {
    "encoder": r"^encoder\.(?!embed_(images|videos|audios)\.)",
    "decoder": r"^decoder\.",
    "image": r"^encoder\.(embed_images|image_proj)\.",
    "video": r"^encoder\.(embed_videos|video_proj)\.",
    "audio": r"^encoder\.(embed_audios|audio_proj)\.",
    "embeddings": r"embed_tokens\.",
}
ONLY_SOME = ("refuse", "keep", "drop")
BATCHNORM = ("average", "first", "recompute")
DTYPES = ("float32", "float16", "bfloat16")


@dataclass(frozen=True)
class Model:
    """One input: ``path``, a short ``name`` (default: the folder's), its ``coefficient``, its Fisher file."""

    path: str
    name: str = ""
    coefficient: float | None = None
    fisher: str | None = None

    def __post_init__(self) -> None:
        if isinstance(self.path, os.PathLike):
            object.__setattr__(self, "path", os.fspath(self.path))
        options.check_types(self, "model")
        path = Path(self.path)
        default = path.name if path.suffix != ".pt" else path.parent.name
        object.__setattr__(self, "name", self.name or default)


@dataclass(frozen=True)
class Part:
    """Weights that have coefficients of their own: ``include`` and ``exclude`` name modules (MODULES) or are
    regular expressions over state-dict keys; ``coefficients`` has one number per model."""

    include: tuple[str, ...]
    coefficients: tuple[float, ...]
    exclude: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for name in ("include", "exclude"):
            value = getattr(self, name)
            patterns = tuple([value] if isinstance(value, str) else listed(name, value))
            for pattern in patterns:
                if not isinstance(pattern, str):
                    raise ConfigError(
                        f"'{name}' of a part is {value!r}: expected names of modules or expressions"
                    )
                try:
                    re.compile(MODULES.get(pattern, pattern))
                except re.error as error:
                    raise ConfigError(
                        f"'{pattern}' in '{name}' is not a regular expression ({error}), and no module; "
                        f"modules: {', '.join(MODULES)}.{nearest(pattern, MODULES)}"
                    ) from None
            object.__setattr__(self, name, patterns)
        object.__setattr__(self, "coefficients", numbers("coefficients", self.coefficients))

    def covers(self, key: str) -> bool:
        """True when this part decides the coefficients of a weight."""
        inside, outside = (
            any(re.search(MODULES.get(p, p), key) for p in patterns)
            for patterns in (self.include, self.exclude)
        )
        return inside and not outside


@dataclass(frozen=True)
class MergeRecipe:
    """A merge. Everything that decides the result is here.

    out: folder to write. method: a key of METHODS. weights: "raw" or "ema", required for ``.pt`` inputs.
    base: the common ancestor (task vectors), with ``base_weights`` when it differs. lambdas: with two models
    and "linear" or "slerp", one result per value, the weight of the FIRST model, in ``out/l<value>``.
    parts: own coefficients for some modules, the first that covers a weight counts. only_some: what becomes
    of a modality network that only some models have: refuse, keep (merged over those that have it) or drop.
    batchnorm: statistics averaged, taken from the first model, or recomputed on the tables of ``recompute``.
    scale, density, seed: of task vectors (scale), TIES and DARE. dtype: of the result (default: the inputs').
    bpe_dir: vocabulary of released files. Raises ConfigError for what cannot be meant.
    """

    out: str
    models: tuple[Model, ...]
    method: str = "average"
    weights: str | None = None
    base: str | None = None
    base_weights: str | None = None
    lambdas: tuple[float, ...] = ()
    parts: tuple[Part, ...] = ()
    only_some: str = "refuse"
    batchnorm: str = "average"
    recompute: tuple[Measured, ...] = ()
    scale: float = 1.0
    density: float | None = None
    seed: int = 0
    dtype: str | None = None
    bpe_dir: str | None = None
    description: str = ""

    def __post_init__(self) -> None:
        set_ = object.__setattr__
        for name in ("out", "base"):
            if isinstance(value := getattr(self, name), os.PathLike):
                set_(self, name, os.fspath(value))
        options.check_types(self, "merge option", skip=("models", "parts", "recompute", "lambdas"))
        if not self.models:
            raise ConfigError("'models' is empty: list the checkpoints to merge")
        set_(self, "models", tuple(built(m, Model, text="path") for m in listed("models", self.models)))
        set_(self, "parts", tuple(built(p, Part) for p in listed("parts", self.parts)))
        set_(self, "recompute", tuple(built(t, Measured) for t in listed("recompute", self.recompute)))
        set_(self, "lambdas", numbers("lambdas", self.lambdas))
        choice("method", self.method, METHODS)
        choice("only_some", self.only_some, ONLY_SOME)
        choice("batchnorm", self.batchnorm, BATCHNORM)
        for name, choices in (
            ("weights", ("raw", "ema")),
            ("base_weights", ("raw", "ema")),
            ("dtype", DTYPES),
        ):
            if getattr(self, name) is not None:
                choice(name, getattr(self, name), choices)
        self._check_method()
        self._check_coefficients()
        if (self.batchnorm == "recompute") != bool(self.recompute):
            raise ConfigError("'batchnorm: recompute' and the tables under 'recompute' go together")

    def _check_method(self) -> None:
        method, names = METHODS[self.method], [model.name for model in self.models]
        least, most = method.models
        if len(names) < least or (most is not None and len(names) > most):
            raise ConfigError(
                f"method '{self.method}' merges {most or f'at least {least}'} models, not {len(names)}"
            )
        if method.needs_base and self.base is None:
            raise ConfigError(
                f"method '{self.method}' needs 'base', the checkpoint that the models started from"
            )
        if not method.needs_base and self.base is not None:
            raise ConfigError(f"method '{self.method}' has no use for 'base'; leave it out")
        lacking = [model.name for model in self.models if (model.fisher is None) == method.needs_fisher]
        if lacking:
            raise ConfigError(
                f"method 'fisher' and the 'fisher' file of each model (unival merge fisher) go together; see "
                f"{', '.join(lacking)}"
            )
        if len(set(names)) < len(names):
            raise ConfigError(f"two models have one name ({', '.join(names)}); give each its own 'name'")
        if self.density is not None and not (0 < self.density <= 1 and method.density is not None):
            raise ConfigError(
                f"density is {self.density}: a share in (0, 1], and only for "
                + ", ".join(name for name, m in METHODS.items() if m.density is not None)
            )
        if self.scale != 1.0 and (not method.needs_base or self.method == "model_stock"):
            raise ConfigError(f"scale is {self.scale}, and method '{self.method}' has none; leave it out")

    def _check_coefficients(self) -> None:
        given = [model.coefficient for model in self.models]
        if any(c is None for c in given) and any(c is not None for c in given):
            raise ConfigError("give every model a 'coefficient', or none")
        if self.lambdas:
            if self.method not in ("linear", "slerp") or len(self.models) != 2 or given[0] is not None:
                raise ConfigError(
                    "'lambdas' is for method linear or slerp with two models without coefficients"
                )
            if len({_folder(x) for x in self.lambdas}) < len(self.lambdas):
                raise ConfigError(f"lambdas {list(self.lambdas)}: two of them are the same to two decimals")
            return
        for coefficients in (self.coefficients, *(part.coefficients for part in self.parts)):
            self._check_sum(coefficients)

    def _check_sum(self, coefficients: Sequence[float]) -> None:
        if len(coefficients) != len(self.models):
            raise ConfigError(
                f"{len(coefficients)} coefficients for {len(self.models)} models: {coefficients}"
            )
        total = sum(coefficients)
        if not any(coefficients):
            raise ConfigError("all coefficients are 0; at least one model must count")
        if self.method == "linear" and abs(total - 1) > 1e-6:
            raise ConfigError(
                f"the coefficients of 'linear' sum to {total:g}, not 1; mend them, or take method 'average', "
                "which divides by the sum"
            )
        if METHODS[self.method].normalises:
            if abs(total) < 1e-6:
                raise ConfigError("the coefficients sum to 0: they cannot be divided by their sum")
            if self.method != "average" and min(coefficients) < 0:
                raise ConfigError(f"method '{self.method}' takes no negative coefficient: {coefficients}")

    @property
    def coefficients(self) -> tuple[float, ...]:
        """One number per model as the method uses it; without any given: equal shares, or all 1."""
        given = tuple(1.0 if m.coefficient is None else float(m.coefficient) for m in self.models)
        shares = METHODS[self.method].normalises or (
            self.method == "linear" and self.models[0].coefficient is None
        )
        return normalised(given) if shares and abs(sum(given)) > 0 else given

    def coefficients_of(self, key: str) -> tuple[float, ...]:
        """Coefficients of one weight: those of the first part that covers it, else the models'."""
        for part in self.parts:
            if part.covers(key):
                return normalised(part.coefficients) if METHODS[self.method].normalises else part.coefficients
        return self.coefficients

    def with_coefficients(self, coefficients: Sequence[float], **changes: Any) -> MergeRecipe:
        """Return the recipe with other coefficients, and without ``lambdas``."""
        models = tuple(
            replace(m, coefficient=float(c)) for m, c in zip(self.models, coefficients, strict=True)
        )
        return replace(self, models=models, lambdas=(), **changes)

    def points(self) -> list[MergeRecipe]:
        """The merges that the recipe asks for: one per lambda, or itself."""
        if not self.lambdas:
            return [self]
        return [
            self.with_coefficients((x, 1 - x), out=os.path.join(self.out, _folder(x))) for x in self.lambdas
        ]


def listed(name: str, value: Any) -> Sequence[Any]:
    """Return a value that is a list; ConfigError for a text or anything else."""
    if not isinstance(value, list | tuple):
        raise ConfigError(f"'{name}' is {value!r}: expected a list")
    return value


def numbers(name: str, values: Any) -> tuple[float, ...]:
    """Return a list of finite numbers; ConfigError for anything else."""
    for value in listed(name, values):
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
            raise ConfigError(f"'{name}' holds {value!r}: expected finite numbers")
    return tuple(float(value) for value in values)


def _folder(value: float) -> str:
    """Name of the result of one lambda."""
    return f"l{value:.2f}"


def choice(name: str, value: str, choices: Mapping[str, Any] | Sequence[str]) -> None:
    """Refuse a value that is not among the choices; the nearest is offered."""
    if value not in choices:
        raise ConfigError(
            f"{name} '{value}' is not one of {', '.join(choices)}.{nearest(str(value), choices)}"
        )


def built(value: Any, cls: type[T], text: str | None = None) -> T:
    """Build a part of a recipe from its mapping; a plain text is its field ``text``."""
    if isinstance(value, cls):
        return value
    if text is not None and isinstance(value, str):
        value = {text: value}
    if not isinstance(value, Mapping):
        raise ConfigError(f"expected the fields of {cls.__name__} ('name: value' lines), got {value!r}")
    hints = get_type_hints(cls)
    for name, given in value.items():
        one = isinstance(given, str) and get_args(hints.get(name)) == (str, ...)  # one text for a list of one
        if name in hints and not one:
            options.check_type(f"'{name}'", given, hints[name])
    try:
        return options.from_mapping(value, cls)
    except TypeError as error:
        raise ConfigError(
            f"{cls.__name__}: {str(error).removeprefix(cls.__name__ + '.__init__() ')}"
        ) from None


def read_document(path: str | os.PathLike[str], cls: type[T]) -> T:
    """Read a YAML recipe of class ``cls``; ``${UNIVAL_OUT}`` and other variables are expanded.

    Raises ConfigError naming the file: absent, no mapping, an unknown field (nearest name offered).
    """
    if not Path(path).exists():
        raise ConfigError(f"recipe '{path}' does not exist")
    content = read_yaml(path)
    try:
        return built(_expanded(content), cls)
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from None


def _expanded(value: Any) -> Any:
    if isinstance(value, str):
        return expand(value)
    if isinstance(value, dict):
        return {key: _expanded(item) for key, item in value.items()}
    return [_expanded(item) for item in value] if isinstance(value, list) else value

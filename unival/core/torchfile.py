"""Reading torch files, fairseq's above all, without ever running code in them.

torch's weights-only loader with an allow-list: foreign classes that old checkpoints mention are replaced by
stand-ins that hold their state and do nothing.
"""

from __future__ import annotations

import argparse
import collections
import pickle
import re
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from unival.core.foreign import interpreting, measured, mistaken_for
from unival.core.modalities import encoder_parts
from unival.errors import CheckpointError, said, shortened

State = dict[str, Tensor]
MOST_PICKLED = 512 << 20  # bytes of the pickle that names the tensors
MOST_VALUES = 20_000_000  # plain values, shared ones counted wherever they are referred to
SPARE = 2 << 30  # bytes that tensors of repeated numbers may have beyond the file's size
_UNREADABLE = (
    "is not a readable checkpoint: it is cut off, damaged, or no torch file; compare its size and SHA-256 with the "
    "source's and fetch it again"
)


class _Inert:
    """Stands in for a foreign class: keeps the state it is given, does nothing."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self.args = args

    def __setstate__(self, state: Any) -> None:
        self.__dict__.update(state if isinstance(state, dict) else {"state": state})


def _inert(name: str) -> tuple[Any, str]:
    return type(name.rpartition(".")[2], (_Inert,), {}), name


# Anything by these packages may stand in a checkpoint (configurations, choices, dictionaries, meters; the
# generic names are the reference's own folders). It is replaced unseen, never imported.
FOREIGN = (
    "fairseq", "omegaconf", "hydra", "typing", "enum", "ofa_module", "tasks", "models", "data", "utils",
    "pytorch_lightning",
)  # fmt: skip
# How pickle spells Dict[str, Any], the annotation of a typed configuration; as a stand-in it looks up nothing.
ANNOTATION = "_operator.getitem"


def _allowed() -> list[Any]:
    plain: list[Any] = [argparse.Namespace, collections.defaultdict, collections.OrderedDict]
    plain += [dict, list, set, tuple, str, bytes, bool, int, float, type(None)]
    plain += [np.dtype, np.ndarray, *{type(np.dtype(kind)) for kind in "?bBhHiIlLqQfd"}]
    core = getattr(np, "_core", None) or np.core  # numpy 2 or 1
    for module in ("numpy.core.multiarray", "numpy._core.multiarray"):
        plain += [(getattr(core.multiarray, f), f"{module}.{f}") for f in ("scalar", "_reconstruct")]
    return [*plain, _inert(ANNOTATION)]


def load_torch(path: str | Path) -> Any:
    """Read a torch file without running code. Raises CheckpointError for anything else."""
    path = Path(path)
    _check_file(path)
    allowed, replaced = _allowed(), set[str]()
    while True:
        try:
            with torch.serialization.safe_globals(allowed):
                content = _load_mapped(path)
            _check_content(content, path)
            return content
        except CheckpointError:
            raise
        except pickle.UnpicklingError as error:
            found = re.search(r"GLOBAL (\S+)|global (\S+)|class (\S+)", str(error))
            if found is None:
                raise CheckpointError(f"'{path}' {_UNREADABLE}") from None
            what = next((g for g in found.groups() if g), "")
            if what in replaced or what.split(".")[0] not in FOREIGN:
                raise CheckpointError(
                    f"'{path}' holds '{shortened(what, 80)}', which is not on the list of types a checkpoint may hold; "
                    "it was not run. Write the file anew with tensors and plain values only."
                ) from None
            replaced.add(what)
            allowed.append(_inert(what))
        except Exception as error:  # bytes that are no torch file fail in many ways
            raise CheckpointError(f"'{path}' {_UNREADABLE} ({type(error).__name__}: {said(error)})") from None


def _check_file(path: Path) -> None:
    """Refuse what is no torch file, and archives that would grow in memory beyond the file's own size."""
    if not path.is_file():
        raise CheckpointError(f"checkpoint '{path}' does not exist")
    mistaken = mistaken_for(path)
    if mistaken is not None:
        raise CheckpointError(f"'{path}' {mistaken}")
    if not zipfile.is_zipfile(path):
        return
    try:
        with zipfile.ZipFile(path) as archive:
            members = archive.infolist()
    except (zipfile.BadZipFile, ValueError, NotImplementedError) as error:
        raise CheckpointError(f"'{path}' {_UNREADABLE} ({said(error)})") from None
    size = path.stat().st_size
    if (
        any(m.compress_type != zipfile.ZIP_STORED for m in members)
        or sum(m.file_size for m in members) > size
    ):
        raise CheckpointError(
            f"'{path}' is an archive that unpacks to {sum(m.file_size for m in members):,} bytes from {size:,}; "
            "torch stores tensors as they are, so this is no file of torch"
        )
    most = max((m.file_size for m in members if m.filename.endswith("data.pkl")), default=0)
    if most > MOST_PICKLED:
        raise CheckpointError(
            f"'{path}' describes its tensors in {most:,} bytes; {MOST_PICKLED:,} are the limit"
        )


def _check_content(content: Any, path: Path) -> None:
    """Refuse values that refer to each other without end, and tensors larger than what the file holds."""
    measured(content, MOST_VALUES, path)
    limit = 4 * path.stat().st_size + SPARE
    total, seen = 0, set()
    for tensor in _tensors(content, set()):
        key = (tensor.data_ptr(), tensor.shape) if tensor.layout == torch.strided else id(tensor)
        if key not in seen:
            seen.add(key)
            total += tensor.numel() * tensor.element_size()
    if total > limit:
        raise CheckpointError(
            f"'{path}' holds tensors of {total:,} bytes in a file of {path.stat().st_size:,}: they repeat a few "
            "numbers; it is no checkpoint"
        )


def _tensors(value: Any, seen: set[int]) -> Iterator[Tensor]:
    if id(value) in seen:
        return
    seen.add(id(value))
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, Mapping):
        for part in value.values():
            yield from _tensors(part, seen)
    elif isinstance(value, (list, tuple)):
        for part in value:
            yield from _tensors(part, seen)


def _load_mapped(path: Path) -> Any:
    try:
        return torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except RuntimeError as error:  # the format before zip files cannot be mapped
        if "mmap" not in str(error):
            raise
        return torch.load(path, map_location="cpu", weights_only=True)


def _plain(value: Any) -> Any:
    """Turn namespaces and inert stand-ins into dictionaries and lists."""
    if isinstance(value, argparse.Namespace):
        return {k: _plain(v) for k, v in vars(value).items()}
    if isinstance(value, _Inert):
        held = vars(value)
        # a configuration, a value in one, a choice (made from its value); of other objects nothing is kept
        return _plain(held.get("_content", held.get("_val", next(iter(held.get("args", ())), None))))
    if isinstance(value, Mapping):
        return {k: _plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(v) for v in value]
    return value


@dataclass
class FairseqFile:
    """Contents of a fairseq checkpoint as plain values.

    ``args`` holds the options of model and task in one dictionary, ``extra`` epoch and counters.
    """

    path: str
    model: State
    ema: State | None
    args: dict[str, Any]
    task_state: dict[str, Any]
    extra: dict[str, Any] = field(default_factory=dict)

    @property
    def arch(self) -> str | None:
        return self.args.get("arch")

    def weights(self, which: str = "auto") -> tuple[State, str]:
        """Return the state to use and its name. "auto" takes the averaged weights when there are some."""
        if which not in ("auto", "raw", "ema"):
            raise CheckpointError(f"unknown weights '{which}'; choose auto, raw or ema")
        if which == "ema" and self.ema is None:
            raise CheckpointError(f"'{self.path}' holds no averaged (EMA) weights; use raw")
        if which == "raw" or self.ema is None:
            return self.model, "raw"
        return {**self.model, **self.ema}, "ema"


def _trained(state: Mapping[str, Tensor], untrained: Sequence[str]) -> State:
    """A state without the networks that nothing has trained: a run had built them, at random, and never used them."""
    own = "|".join(part for m in untrained for part in encoder_parts(m))
    return {
        key: value for key, value in state.items() if not own or not re.match(rf"encoder\.({own})\.", key)
    }


def read_fairseq(path: str | Path) -> FairseqFile:
    """Read a fairseq ``.pt``: this project's, a released UnIVAL or OFA file, or bart.base.

    Tensors are mapped from the file, not copied; networks that it says were never trained are left out. Raises
    CheckpointError when the file is absent, damaged, not a fairseq checkpoint, or holds foreign types.
    """
    content = load_torch(path)
    if not isinstance(content, Mapping) or not isinstance(content.get("model"), Mapping):
        raise CheckpointError(f"'{path}' is not a fairseq checkpoint: it has no entry 'model'")
    with interpreting(path):
        return _fairseq(content, path)


def _fairseq(content: Mapping[str, Any], path: str | Path) -> FairseqFile:
    config = _plain(content.get("cfg")) or {}
    args: dict[str, Any] = dict(_plain(content.get("args")) or {})
    for part in ("task", "model"):
        section = dict(config.get(part) or {})
        if section.get("_name"):  # a section of the old style names itself in the option of its kind
            section.setdefault("task" if part == "task" else "arch", section["_name"])
        args.update(section)
    extra = _plain({k: v for k, v in (content.get("extra_state") or {}).items() if not k.startswith("ema")})
    averaged = (content.get("extra_state") or {}).get("ema")
    masters = (content.get("extra_state") or {}).get("ema_fp32_params") or {}
    for state in (content["model"], averaged or {}, masters):
        for key, value in state.items():
            if not isinstance(key, str) or not isinstance(value, Tensor) or value.layout != torch.strided:
                raise CheckpointError(
                    f"'{path}' has an entry '{shortened(str(key), 80)}' among its weights that is no tensor"
                )
    task_state = dict(_plain(content.get("task_state")) or {})
    unused = (task_state.get("unival") or {}).get("untrained", [])
    return FairseqFile(
        path=str(path),
        model=_trained(content["model"], unused),
        ema=_trained({**averaged, **masters}, unused) if averaged else None,
        args=args,
        task_state=task_state,
        extra=extra,
    )


def read_header(path: str | Path) -> dict[str, Any]:
    """Return {"arch", "args", "task_state"} of a fairseq file without reading its weights into memory."""
    file = read_fairseq(path)
    return {"arch": file.arch, "args": file.args, "task_state": file.task_state}

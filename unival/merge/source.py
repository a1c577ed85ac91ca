"""One input of a merge: weights read tensor by tensor, and what the checkpoint says of them."""

from __future__ import annotations

import ctypes
import mmap
import re
import sys
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from tempfile import mkdtemp

import torch
from torch import Tensor

from unival.checkpoint.added import BASE
from unival.checkpoint.folder import WEIGHTS, config_in, read_config
from unival.checkpoint.header import Header, is_own_folder, read_file
from unival.checkpoint.identify import config_of
from unival.checkpoint.load import HEADS, check_size, load_checkpoint
from unival.core.checksum import verify
from unival.core.torchfile import FairseqFile
from unival.errors import CheckpointError, ConfigError
from unival.merge.tensorfile import Spec, TensorFile, TensorWriter
from unival.modeling.config import ModelConfig
from unival.modeling.weights import COMPUTED, TIED
from unival.vocabulary.vocabulary import Vocabulary

DONTNEED = 4  # MADV_DONTNEED


@dataclass(frozen=True)
class Source:
    """A model to merge. ``read`` gives a fresh copy of a tensor; tied copies and computed tables have no key.

    ``weights`` is "raw" or "ema".
    """

    path: str
    specs: dict[str, Spec]
    read: Callable[[str], Tensor]
    config: ModelConfig
    vocabulary: Vocabulary
    weights: str
    header: Header

    @property
    def nbytes(self) -> int:
        return sum(spec.nbytes for spec in self.specs.values())


def open_source(path: str | Path, weights: str | None, work: Path, bpe_dir: str | None = None) -> Source:
    """Open a folder of ours, a fairseq ``.pt`` of this project, or a released ``.pt``.

    ``weights`` ("raw" or "ema") must be said for a ``.pt`` and must fit a folder that says what it holds.
    ``work``: a folder for the copy that files of the old, unmappable format need. ``bpe_dir``: vocabulary of
    released files, which carry none. Raises CheckpointError and ConfigError.
    """
    path = Path(path)
    return _folder(path, weights, work) if is_own_folder(path) else _fairseq(path, weights, work, bpe_dir)


def _whole(path: Path, weights: str | None, work: Path, bpe_dir: str | None = None) -> Source:
    """A model whose weights do not stand in its file as they are used: with a base, or with low-rank additions."""
    loaded = load_checkpoint(path, weights or "auto", bpe_dir=bpe_dir)
    model = loaded.model.fold()
    state = _distinct(dict(model.state_dict()), model.config)
    specs = {key: Spec(tuple(value.shape), value.dtype) for key, value in state.items()}
    read = _staged(state, specs, Path(mkdtemp(dir=work)) / WEIGHTS).read
    return Source(str(path), specs, read, model.config, loaded.vocabulary, loaded.weights, loaded.header)


def _folder(path: Path, weights: str | None, work: Path) -> Source:
    meta = read_config(path)
    header = Header.of_config(path, meta)
    kind = str(header.weights)
    if weights is not None:
        _check_kind(path, kind, weights)
    if BASE in meta or config_in(meta).peft.lora:
        return _whole(path, weights, work)
    file = TensorFile(path / WEIGHTS)
    verify(path / WEIGHTS)
    return Source(str(path), file.specs, file.read, config_in(meta), header.vocabulary(), kind, header)


def _check_kind(path: Path, kind: str, weights: str) -> None:
    if kind != weights:
        raise CheckpointError(
            f"'{path}' holds {kind} weights and the recipe asks for {weights}: averaged and raw weights are not "
            "merged with each other. Give inputs of one kind and set 'weights' to it"
        )


def _fairseq(path: Path, weights: str | None, work: Path, bpe_dir: str | None) -> Source:
    if weights is None:
        raise ConfigError(
            f"'{path}' may hold raw and averaged (EMA) weights: say in the recipe which to merge, "
            "'weights: raw' or 'weights: ema', for all models alike"
        )
    file = read_file(path)
    header = Header.of_file(file)
    if header.weights is not None:  # an exported file holds one set of weights and says which
        _check_kind(path, header.weights, weights)
        state = file.model
    else:
        state, _ = file.weights(weights)
    config, vocabulary = config_of(file, state), header.vocabulary(bpe_dir)
    check_size(path, config.vocab_size, vocabulary)
    if config.peft.lora:
        return _whole(path, header.weights or weights, work, bpe_dir)
    state = _distinct(state, config)
    specs = {key: Spec(tuple(value.shape), value.dtype) for key, value in state.items()}
    if zipfile.is_zipfile(path / "pytorch_model.bin" if path.is_dir() else path):  # mapped from the file
        read: Callable[[str], Tensor] = lambda key: _copy(state[key])  # noqa: E731
    else:
        read = _staged(state, specs, Path(mkdtemp(dir=work)) / WEIGHTS).read
        state = {}
    _release(file)
    return Source(str(path), specs, read, config, vocabulary, weights, header)


def _release(file: FairseqFile) -> None:
    """Let go of what a merge does not read."""
    file.model, file.ema, file.extra = {}, None, {}


def _distinct(state: dict[str, Tensor], config: ModelConfig) -> dict[str, Tensor]:
    """Leave out what construction computes, heads of other uses, and further names of one shared table."""
    t = config.transformer
    aliases = TIED[1:] if t.share_all_embeddings else TIED[2:] if t.share_decoder_input_output_embed else ()
    unused = re.compile("|".join((COMPUTED.pattern, *HEADS)))
    return {k: v for k, v in state.items() if k not in aliases and not unused.search(k)}


def _copy(mapped: Tensor) -> Tensor:
    """Copy a tensor out of a mapped file and give the file's pages back.

    Pages that were read count as this process's memory until it says otherwise; unread ones cost nothing.
    """
    copy = mapped.clone(memory_format=torch.contiguous_format)
    if sys.platform == "linux" and mapped.numel():
        start = mapped.data_ptr() // mmap.PAGESIZE * mmap.PAGESIZE
        length = mapped.data_ptr() + mapped.nbytes - start
        ctypes.CDLL(None).madvise(ctypes.c_void_p(start), ctypes.c_size_t(length), DONTNEED)
    return copy


def _staged(state: dict[str, Tensor], specs: dict[str, Spec], path: Path) -> TensorFile:
    """Write weights of a file that cannot be mapped to one that can be read tensor by tensor."""
    writer = TensorWriter(path, specs)
    for name in writer.order:
        writer.write(name, state[name])
    writer.close()
    return TensorFile(path)

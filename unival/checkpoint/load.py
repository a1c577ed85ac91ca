"""A model out of a checkpoint of any layout, ready to use."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from unival.checkpoint.folder import load_folder
from unival.checkpoint.header import Header, is_own_folder, read_file
from unival.checkpoint.identify import BART, config_of, ignored_paths
from unival.core.checksum import verify
from unival.core.foreign import interpreting
from unival.errors import CheckpointError
from unival.modeling.weights import load_into

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor

    from unival.modeling.model import UnIVAL
    from unival.vocabulary.vocabulary import Vocabulary

HEADS = (r"^classification_heads\.",)  # OFA files of other tasks hold them; answers here are generated


@dataclass
class Loaded:
    """A model ready to use, with what its checkpoint says about it.

    ``weights`` is "raw" or "ema"; ``report`` lists every tensor that was not simply loaded, ``ignored`` the
    saved arguments that hold paths of the training machine.
    """

    model: UnIVAL
    vocabulary: Vocabulary
    weights: str
    header: Header
    report: str = ""
    ignored: list[str] = field(default_factory=list)

    @property
    def family(self) -> str:
        return self.header.family

    @property
    def task(self) -> dict[str, Any]:
        return self.header.task

    @property
    def task_options(self) -> dict[str, Any]:
        return self.header.options

    @property
    def prompts(self) -> dict[str, str]:
        return self.header.prompts

    @property
    def decoding(self) -> dict[str, Any]:
        return self.header.decoding

    def with_prompts(self, prompts: Mapping[str, str]) -> Loaded:
        """Return the same model with these prompts in the place of its own."""
        return replace(self, header=replace(self.header, prompts={**self.prompts, **prompts}))

    def about(self) -> dict[str, Any]:
        """Return what a folder of this model keeps beside model and vocabulary."""
        return {"weights": self.weights, **self.header.about()}


def load_checkpoint(
    path: str | Path,
    weights: str = "auto",
    vocabulary: Vocabulary | None = None,
    bpe_dir: str | Path | None = None,
    counts: Mapping[str, int] | None = None,
) -> Loaded:
    """Load a folder (ours or OFA's) or a fairseq file into a model in evaluation mode.

    ``weights``: "raw", "ema", or "auto" (averaged when the file has them). A file that carries no vocabulary
    takes ``vocabulary``, else :meth:`Header.vocabulary` finds one. Raises CheckpointError.
    """
    with interpreting(path):
        return _load(Path(path), weights, vocabulary, bpe_dir, counts)


def _load(
    path: Path,
    weights: str,
    vocabulary: Vocabulary | None,
    bpe_dir: str | Path | None,
    counts: Mapping[str, int] | None,
) -> Loaded:
    from unival.modeling.build import build_from_config
    from unival.modeling.undrawn import Undrawn

    if is_own_folder(path):
        model, own, meta = load_folder(path)
        header = Header.of_config(path, meta)
        kind = str(header.weights)
        if weights not in ("auto", kind):
            raise CheckpointError(f"'{path}' holds {kind} weights, not {weights}")
        return Loaded(model, own, kind, header)
    if path.is_file():
        verify(path)
    file = read_file(path)
    header = Header.of_file(file)
    if header.family == BART:
        raise CheckpointError(
            f"'{path}' is fairseq's BART, a model of text alone: stage 1 of pretraining starts from it "
            "(--init-from), and it cannot be used as it is"
        )
    state, kind = file.weights(weights)
    vocabulary = vocabulary or header.vocabulary(bpe_dir, counts)
    config = config_of(file, state)
    check_size(path, config.vocab_size, vocabulary)
    with Undrawn():
        model = build_from_config(config)
    report = load_into(model, state, allow_unexpected=HEADS)
    return Loaded(model.eval(), vocabulary, header.weights or kind, header, str(report), ignored_paths(file))


def check_size(path: str | Path, size: int, vocabulary: Vocabulary) -> None:
    """Raise CheckpointError when the vocabulary has another number of tokens than the model's table."""
    if len(vocabulary) != size:
        raise CheckpointError(
            f"'{path}' has {size} tokens, the vocabulary {len(vocabulary)}; give the file's own"
        )


def read_weights(path: str | Path) -> Mapping[str, Tensor]:
    """Return the (raw) weights of a checkpoint of any layout, by fairseq's names. Raises CheckpointError."""
    return load_folder(path)[0].state_dict() if is_own_folder(Path(path)) else read_file(path).model

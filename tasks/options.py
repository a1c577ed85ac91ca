"""Options of the tasks that belong to the engine; those of the data stand in ``SpecOptions``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


def _option(default: Any, text: str) -> Any:
    return field(default=default, metadata={"help": text})


@dataclass(frozen=True)
class TaskOptions:
    """Data files, vocabulary, validation and safety limits of a run."""

    data: str = field(default="", metadata={"internal": True})
    bpe_dir: str | None = _option(None, "folder of the vocabulary: the released GPT-2 files or one made by 'unival data vocabulary'")
    code_dict_size: int = _option(8192, "number of image codes in the vocabulary (released files)")
    num_bins: int = _option(1000, "number of coordinate bins in the vocabulary (released files)")
    selected_cols: str | None = _option(None, "columns of a headerless TSV, e.g. 0,4,2")
    image_dir: str | None = _option(None, "folder or .tar that relative media paths start from")
    read_from_img_path: bool = _option(False, "media columns hold paths; detected per value in any case")
    modality: str | None = _option(None, "image, video or audio, for tasks that serve several")
    eval_args: Mapping[str, Any] | None = _option(None, "decoding settings of validation as JSON")
    val_inference_type: str | None = _option(None, "validation by allcand, beamsearch or open generation")
    valid_batch_size: int = _option(20, "candidates scored at once by allcand validation")
    eval_generate: bool = _option(True, "validate by generation and score with the task's metric")
    eval_print_samples: bool = _option(False, "log a few predictions of each validation")
    eval_cider: bool = _option(False, "accepted: captioning is scored by CIDEr in any case")
    eval_acc: bool = _option(False, "accepted: grounding is scored by accuracy in any case")
    uses_ema: bool = _option(False, "validate with the averaged weights (--store-ema)")
    warmup_ratio: float | None = _option(None, "share of all updates used for learning-rate warm-up")
    max_broken_share: float = _option(0.01, "stop training above this share of unreadable media rows")
    max_nonfinite: int = _option(10, "stop training after this many updates with a non-finite loss")
    init_from: str | None = _option(None, "initial weights for a first start: fairseq's bart.base model.pt")
    strict: bool = _option(False, "accepted for the reference's scripts; loading is strict with declared exceptions")

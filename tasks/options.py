"""Options of the tasks that belong to the engine; those of the data stand in ``SpecOptions``."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from unival.errors import ConfigError
from unival.launch.preflight import PREFLIGHT
from unival.tasks.spikes import ACTIONS

logger = logging.getLogger(__name__)


def _option(default: Any, text: str) -> Any:
    return field(default=default, metadata={"help": text})


def _leftover(default: Any, note: str) -> Any:
    return field(default=default, metadata={"help": f"for the reference's scripts: {note}", "note": note})


@dataclass(frozen=True)
class TaskOptions:
    """Data files, vocabulary, validation and safety limits of a run."""

    data: str = field(default="", metadata={"internal": True})
    bpe_dir: str | None = _option(
        None, "folder of the vocabulary: the released GPT-2 files or one made by 'unival data vocabulary'"
    )
    code_dict_size: int = _option(8192, "number of image codes in the vocabulary (released files)")
    num_bins: int = _option(1000, "number of coordinate bins in the vocabulary (released files)")
    selected_cols: str | None = _option(None, "columns of a headerless TSV, e.g. 0,4,2")
    image_dir: str | None = _option(None, "folder or .tar that relative media paths start from")
    modality: str | None = _option(None, "image, video or audio, for tasks that serve several")
    eval_args: Mapping[str, Any] | None = _option(None, "decoding settings of validation as JSON")
    val_inference_type: str | None = _option(None, "validation by allcand, beamsearch or open generation")
    eval_generate: bool = _option(True, "validate by generation and score with the task's metric")
    eval_print_samples: bool = _option(False, "log a few predictions of each validation")
    first_look: float = _option(
        30.0,
        "seconds after which a few validation rows are predicted and shown, when none was due before; 0: never",
    )
    eval_pictures: int = _option(
        12, "rows of each table whose predictions validation draws into predictions.png (0: none)"
    )
    eval_cider_cached_tokens: str | None = _option(
        None, "pickle of document frequencies: validate by the reference's CIDEr, which needs it"
    )
    uses_ema: bool = _option(False, "validate with the averaged weights (--store-ema)")
    warmup_ratio: float | None = _option(None, "share of all updates used for learning-rate warm-up")
    max_broken_share: float = _option(0.01, "stop training above this share of unreadable media rows")
    max_nonfinite: int = _option(
        10, "stop training after this many updates with a non-finite loss or gradient"
    )
    on_spike: str | None = _option(
        None,
        "what to do about an update whose loss or gradient norm jumps: 'skip' leaves it out, 'rollback' goes back to "
        "a state from before and leaves out the rows read since; by default nothing",
    )
    spike_deviations: float = _option(
        10.0, "typical deviations above the median of the last 50 updates that make a jump"
    )
    max_spikes: int = _option(10, "stop training after this many updates with a jump")
    rollback_interval: int = _option(100, "updates between the states that --on-spike rollback keeps")
    stagnation: int = _option(
        200,
        "report a loss or gradient norm that is the same for so many updates, and answers that do not change; 0: never",
    )
    save_dir_fallback: str | None = _option(
        None,
        "where checkpoint_last.pt goes when there is no room in --save-dir; the run ends, and goes on from there",
    )
    media_timeout: float = _option(
        120.0, "seconds for the media of one row, which is then left out as unreadable; 0: no limit"
    )
    keep_features: str | None = _option(
        None,
        "folder where features of frozen networks are kept, so that each medium goes through them once; "
        "'unival data features' lists and deletes them",
    )
    keep_features_limit: float = _option(20.0, "gigabytes (1e9 bytes) that kept features may take")
    keep_media: str | None = _option(
        None,
        "folder where decoded pictures, sounds and frames of videos (chosen without chance) are kept, so that each "
        "medium is decoded once; delete it when done",
    )
    keep_media_limit: float = _option(20.0, "gigabytes (1e9 bytes) that kept media may take")
    hang_timeout: float = _option(
        900.0, "end the run with exit code 76 when no batch has moved for so many seconds; 0: never"
    )
    preflight_timeout: float = _option(
        PREFLIGHT, "seconds that the processes of a run wait for each other before the first step"
    )
    precision: str | None = _option(
        None,
        "compute type of the training: auto (bfloat16 with float32 masters where that is faster, else "
        "float32) or float32; left open: what --bf16 and --fp16 say",
    )
    compile: bool = _option(
        False,
        "train with the model's networks and layers compiled (torch.compile); needs a C++ compiler, on a GPU triton",
    )
    compile_backend: str = _option(
        "inductor", "torch.compile's backend, by torch's name; aot_eager needs no compiler and gains nothing"
    )
    init_from: str | None = _option(None, "initial weights for a first start: fairseq's bart.base model.pt")
    init_as_reference: bool = _option(
        False, "take them as the reference does: token rows by number, positions not shifted"
    )
    networks_from_scratch: bool | None = _option(
        None,
        "networks of modalities that rows need may start from random weights when no file holds them; left open: only "
        "in a run that starts from no file at all",
    )
    scst: bool = _option(False, "self-critical training, which the criterion alone decides; others refuse it")
    scst_args: Mapping[str, Any] | None = _option(
        None, "decoding settings of self-critical training as JSON, over the task's own"
    )
    # Options that every script of the reference passes and that change nothing here; each says why.
    eval_cider: bool = _leftover(
        False, "captions are scored in validation unless --no-eval-generate is given"
    )
    eval_bleu: bool = _leftover(False, "BLEU is among the scores of captions in any case")
    eval_acc: bool = _leftover(False, "boxes are scored in validation unless --no-eval-generate is given")
    read_from_img_path: bool = _leftover(
        False, "paths and base64 are told apart value by value (a path has a '.')"
    )
    valid_batch_size: int | None = _leftover(None, "candidates share prefixes, memory is bounded without it")
    strict: bool = _leftover(
        False, "loading is strict, but whole modality networks may be absent on one side"
    )
    audio_sample_rate: bool = _leftover(False, "sound is always resampled to --sample-rate")
    text_selected_cols: str | None = _leftover(None, "no stream has it; it is unknown to the reference too")
    image_selected_cols: str | None = _leftover(None, "no stream has it; it is unknown to the reference too")
    detection_selected_cols: str | None = _leftover(
        None, "no stream has it; it is unknown to the reference too"
    )
    save_on_cuda: bool = _leftover(False, "checkpoints are written from the CPU's memory")

    def __post_init__(self) -> None:
        if not self.eval_generate:
            for name in ("eval_cider", "eval_bleu", "eval_acc"):
                if getattr(self, name):
                    flag = name.replace("_", "-")
                    raise ConfigError(
                        f"--{flag} and --no-eval-generate contradict each other; give one of them"
                    )
        if self.init_as_reference and not self.init_from:
            raise ConfigError("--init-as-reference needs --init-from: it says how bart.base is taken")
        if self.precision not in (None, "auto", "float32"):
            raise ConfigError(
                f"--precision {self.precision} is not one of auto, float32 (--bf16 and --fp16 name the others)"
            )
        if not 0.0 <= self.max_broken_share <= 1.0:
            raise ConfigError(f"--max-broken-share {self.max_broken_share} is not a share in [0, 1]")
        if self.preflight_timeout <= 0:
            raise ConfigError(f"--preflight-timeout {self.preflight_timeout} must be above 0 seconds")
        for name in ("keep_features_limit", "keep_media_limit"):
            if getattr(self, name) <= 0:
                raise ConfigError(
                    f"--{name.replace('_', '-')} {getattr(self, name)} must be above 0 gigabytes"
                )
        if self.eval_pictures < 0:
            raise ConfigError(f"--eval-pictures {self.eval_pictures} must be at least 0")
        for name in ("media_timeout", "hang_timeout", "first_look"):
            if getattr(self, name) < 0:
                raise ConfigError(
                    f"--{name.replace('_', '-')} {getattr(self, name)} must be at least 0 seconds"
                )
        if self.on_spike not in (None, *ACTIONS):
            raise ConfigError(f"--on-spike '{self.on_spike}' is not one of {', '.join(ACTIONS)}")
        if not self.spike_deviations > 0:
            raise ConfigError(f"--spike-deviations {self.spike_deviations} must be above 0")
        for name in ("max_spikes", "rollback_interval"):
            if getattr(self, name) < 1:
                raise ConfigError(f"--{name.replace('_', '-')} {getattr(self, name)} must be at least 1")
        if self.max_nonfinite < 1:
            raise ConfigError(f"--max-nonfinite {self.max_nonfinite} must be at least 1")

    def log_leftovers(self) -> None:
        """Say once what given options of the reference's scripts do not change."""
        for name, item in self.__dataclass_fields__.items():
            if "note" in item.metadata and getattr(self, name) not in (None, False):
                logger.info(f"--{name.replace('_', '-')} changes nothing: {item.metadata['note']}")
